"""Interior-point solution of the cone program, in Gram form.

    max sum_i lam_i   s.t.  (1 - ||a_g||^2)/2 >= 0,  lam >= 0,  0 <= t_gi <= lam_i

A primal-dual method (Mehrotra 1992) that stays strictly feasible in (lam, t): the cones are
quadratic in them, so that the longest feasible step is the root of a quadratic. Kink forces are
priced in: those of pairs with a_g . x~_i > 0 join until there are none left, which keeps the dense
systems as small as the answer. docs/theory.md, section 4.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from reluflow._validation import BoolArray, FloatArray
from reluflow.kkt.newton import shortest
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution, Variables, variables

_MAX_ITERATIONS = 80
_MAX_ROUNDS = 12
# Gap relative to the objective, and dual residual, at which Newton's method can take over.
_TOLERANCE = 1e-12
_RESIDUAL = 1e-6
# Of the step to the boundary.
_DAMPING = 0.99
_RIDGE = 1e-14
# Pre-activations above this share of the largest ask for a kink force.
_PRICE = 1e-9
# Forces below this share of the largest multiplier are zero.
_DROPPED = 1e-6
# Groups join whose direction is longer than 1 by more than this.
_PRICE_OF_GROUP = 1e-7


def solve_cone_program(program: GroupProgram) -> tuple[Solution, ActiveSet] | None:
    """The solution to about eight digits, and its active constraints; None without convergence.

    Groups without mass are dropped after a first pass without kink forces, which leaves the
    optimum as it is; they come back where no choice of forces fits them into their cone.

    Parameters
    ----------
    program : GroupProgram
        With every example in some pattern, and `fixed_mass` None.
    """
    groups = np.ones(len(program.sign), dtype=bool)
    working = np.zeros_like(program.pattern)
    for _ in range(_MAX_ROUNDS):
        found = _solve_working(program, groups, working)
        if found is None:
            return None
        solution, active = found
        # Forces that came out as zero are dropped: the optimum stays, the systems stay small.
        working = solution.force > _DROPPED * solution.lam.max()
        joining_forces = _priced_forces(program, solution, groups) & ~working
        if groups.all():
            groups = groups & active.live
        joining_groups, their_forces = _priced_groups(program, solution, groups)
        if not joining_forces.any() and not joining_groups.any():
            break
        groups = groups | joining_groups
        working = working | joining_forces | their_forces
    return found


def _solve_working(
    program: GroupProgram, groups: BoolArray, working: BoolArray
) -> tuple[Solution, ActiveSet] | None:
    """The program over some groups, as a point of the whole."""
    part = GroupProgram(program.K, program.y, program.sign[groups], program.pattern[groups])
    found = _solve_with_kinks(part, working[groups])
    if found is None:
        return None
    force, mass = np.zeros(program.pattern.shape), np.zeros(len(groups))
    kink, full = np.zeros_like(program.pattern), np.zeros_like(program.pattern)
    live = np.zeros_like(groups)
    force[groups], mass[groups] = found[0].force, found[0].mass
    kink[groups], full[groups], live[groups] = found[1].kink, found[1].full, found[1].live
    return Solution(found[0].lam, force, mass), ActiveSet(found[1].support, kink, full, live)


def _priced_forces(program: GroupProgram, solution: Solution, groups: BoolArray) -> BoolArray:
    """Harmful pairs that a force would help: active on a support vector, or on a short margin.

    Without its forces an example seems to have the margin of its helpful groups alone.
    """
    lam, force, mass = solution
    z = program.preactivations(lam, force)
    massive = groups & (mass > _DROPPED * mass.sum())
    short = program.margins(mass, z) < 1 - _DROPPED
    used = (lam > _DROPPED * lam.max()) | short
    priced: BoolArray = program.harmful & used & massive[:, None] & (z > _PRICE * np.abs(z).max())
    return priced


def _priced_groups(
    program: GroupProgram, solution: Solution, groups: BoolArray
) -> tuple[BoolArray, BoolArray]:
    """Groups outside that no forces fit into their cone, and the forces that come closest."""
    joining, forces = np.zeros_like(groups), np.zeros_like(program.pattern)
    own = program.pattern * solution.lam
    without_forces = np.einsum("gi,gi->g", own, own @ program.K)
    for g in np.flatnonzero(~groups & (without_forces > 1)):
        rho, _, states = shortest(program, solution.lam, int(g))
        joining[g] = rho > 1 + _PRICE_OF_GROUP
        forces[g] = joining[g] & (states > 0)
    return joining, forces


class _Iterate(NamedTuple):
    """A strictly feasible x = (lam, t), slacks and multipliers.

    Slacks are updated by their own exact recursion: recomputed from x they would lose all digits
    near the boundary.
    """

    x: FloatArray
    slack: FloatArray  # of the cones, (1 - ||a_g||^2)/2
    c: FloatArray
    s: FloatArray  # of the linear constraints, A x
    w: FloatArray


class _Step(NamedTuple):
    """A direction, and what moving along it does to the cones: -alpha b - alpha^2 q."""

    x: FloatArray
    b: FloatArray
    q: FloatArray
    c: FloatArray
    s: FloatArray
    w: FloatArray


class _Scaled(NamedTuple):
    """The program over its working variables, in units in which K has mean diagonal 1."""

    variables: Variables
    K: FloatArray  # between the examples of the variables
    n: int

    @property
    def objective(self) -> FloatArray:
        """Gradient of sum_i lam_i."""
        h = np.zeros(len(self.variables.example))
        h[: self.n] = 1.0
        return h

    def products(self, x: FloatArray) -> FloatArray:
        """u (r, G): half the gradient of ||a_g||^2."""
        pull = self.variables.pull
        u: FloatArray = pull * (self.K @ (pull * x[:, None]))
        return u

    def hessian(self, c: FloatArray) -> FloatArray:
        pull = self.variables.pull
        H: FloatArray = ((pull * c) @ pull.T) * self.K
        return H

    def linear(self, x: FloatArray) -> FloatArray:
        """A x: all variables, then lam_i - t_gi."""
        owners = self.variables.example[self.n :]
        return np.concatenate([x, x[owners] - x[self.n :]])

    def linear_transposed(self, w: FloatArray) -> FloatArray:
        """A^T w."""
        r = len(self.variables.example)
        result = w[:r].copy()
        result[self.n :] -= w[r:]
        np.add.at(result, self.variables.example[self.n :], w[r:])
        return result

    def add_weighted_linear(self, H: FloatArray, weight: FloatArray) -> None:
        """H += A^T diag(weight) A."""
        r, n = len(self.variables.example), self.n
        owners, forces = self.variables.example[n:], np.arange(n, r)
        H[np.arange(r), np.arange(r)] += weight[:r]
        H[forces, forces] += weight[r:]
        np.add.at(H, (owners, owners), weight[r:])
        H[forces, owners] -= weight[r:]
        H[owners, forces] -= weight[r:]


def _solve_with_kinks(
    program: GroupProgram, working: BoolArray
) -> tuple[Solution, ActiveSet] | None:
    n, (G, _) = len(program.y), program.pattern.shape
    everything = ActiveSet(
        np.ones(n, dtype=bool), working, np.zeros_like(working), np.ones(G, dtype=bool)
    )
    layout = variables(program, everything)
    unit = float(program.K.diagonal().mean())
    scaled = _Scaled(layout, program.K[np.ix_(layout.example, layout.example)] / unit, n)
    iterate = _iterate(scaled)
    if iterate is None:
        return None
    size = 1 / np.sqrt(unit)
    force = np.zeros((G, n))
    force[working] = iterate.x[n:] * size
    solution = Solution(iterate.x[:n] * size, force, iterate.c * size)
    return solution, _identify(scaled, iterate, working)


def _start(scaled: _Scaled) -> _Iterate:
    n, r = scaled.n, len(scaled.variables.example)
    x = np.concatenate([np.ones(n), np.full(r - n, 0.5)])
    x *= 0.5 / np.sqrt((x @ scaled.products(x)).max())
    slack = (1 - x @ scaled.products(x)) / 2
    s = scaled.linear(x)
    mu = x[:n].sum() / (len(s) + len(slack))
    return _Iterate(x, slack, mu / slack, s, mu / s)


def _iterate(scaled: _Scaled) -> _Iterate | None:
    h, now = scaled.objective, _start(scaled)
    for _ in range(_MAX_ITERATIONS):
        u = scaled.products(now.x)
        residual = u @ now.c - h - scaled.linear_transposed(now.w)
        gap = float(now.slack @ now.c + now.s @ now.w)
        objective = float(now.x[: scaled.n].sum())
        if gap <= _TOLERANCE * objective and np.abs(residual).max() <= _RESIDUAL:
            return now
        matrix = scaled.hessian(now.c)
        scaled.add_weighted_linear(matrix, now.w / now.s)
        matrix += (u * (now.c / now.slack)) @ u.T
        matrix[np.diag_indices_from(matrix)] += _RIDGE * np.trace(matrix) / len(matrix)
        try:
            factor = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        now = _advance(scaled, now, _System(factor, u, residual, gap))
    return None


class _System(NamedTuple):
    """One linearisation: the factorised matrix and what its right-hand sides need."""

    factor: tuple[FloatArray, bool]
    u: FloatArray
    residual: FloatArray
    gap: float


def _advance(scaled: _Scaled, now: _Iterate, system: _System) -> _Iterate:
    """Predictor, corrector, and the longest step that stays inside."""
    mu = system.gap / (len(now.slack) + len(now.s))
    step = _direction(scaled, now, system, 0.0, 0.0)
    ahead = _moved(now, step, _longest(now, step))
    after = float(ahead.slack @ ahead.c + ahead.s @ ahead.w)
    target = (max(after, 0.0) / system.gap) ** 3 * mu
    # What the linearisation left out: products of changes, and the curvature of the cones.
    cone_target = target + step.b * step.c + step.q * (now.c + step.c)
    bent = system._replace(residual=system.residual + scaled.products(step.x) @ step.c)
    step = _direction(scaled, now, bent, cone_target, target - step.s * step.w)
    return _moved(now, step, _DAMPING * _longest(now, step))


def _direction(
    scaled: _Scaled,
    now: _Iterate,
    system: _System,
    cone_target: FloatArray | float,
    linear_target: FloatArray | float,
) -> _Step:
    """Newton's step towards slack c = cone_target and s w = linear_target."""
    cone_pull = cone_target / now.slack - now.c
    linear_pull = linear_target / now.s - now.w
    right = scaled.linear_transposed(linear_pull) - system.u @ cone_pull - system.residual
    dx = scipy.linalg.cho_solve(system.factor, right, check_finite=False)
    b, ds = dx @ system.u, scaled.linear(dx)
    return _Step(
        x=dx,
        b=b,
        q=dx @ scaled.products(dx) / 2,
        c=cone_pull + now.c / now.slack * b,
        s=ds,
        w=linear_pull - now.w / now.s * ds,
    )


def _moved(now: _Iterate, step: _Step, alpha: float) -> _Iterate:
    return _Iterate(
        now.x + alpha * step.x,
        now.slack - alpha * step.b - alpha**2 * step.q,
        now.c + alpha * step.c,
        now.s + alpha * step.s,
        now.w + alpha * step.w,
    )


def _longest(now: _Iterate, step: _Step) -> float:
    """The longest step up to 1 that keeps slacks and multipliers nonnegative."""
    linear = min(_to_zero(now.s, step.s), _to_zero(now.c, step.c), _to_zero(now.w, step.w))
    # The root of slack - alpha b - alpha^2 q, in the form that does not cancel for b > 0.
    denominator = step.b + np.sqrt(np.maximum(step.b**2 + 4 * step.q * now.slack, 0))
    bounded = denominator > 0
    cone = np.min(2 * now.slack[bounded] / denominator[bounded], initial=1.0)
    return float(min(linear, cone))


def _to_zero(value: FloatArray, change: FloatArray) -> float:
    shrinking = change < 0
    return float(np.min(-value[shrinking] / change[shrinking], initial=1.0))


def _identify(scaled: _Scaled, found: _Iterate, working: BoolArray) -> ActiveSet:
    """Constraints whose multiplier outweighs their slack, both relative to their size."""
    n, r = scaled.n, len(scaled.variables.example)
    active = found.w * found.s.max() > found.s * found.w.max()
    support = ~active[:n]
    kink, full = np.zeros_like(working), np.zeros_like(working)
    full[working] = active[r:]
    kink[working] = ~active[n:r] & ~active[r:]
    live = found.c > found.slack * found.c.max()
    carried = support & live[:, None]
    return ActiveSet(support, kink & carried, full & carried, live)
