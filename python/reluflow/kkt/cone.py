"""Interior-point solution of the cone program, in Gram form.

    max sum_i lam_i   s.t.  (1 - ||a_g||^2)/2 >= 0,  lam >= 0,  0 <= t_gi <= lam_i

A primal-dual method (Mehrotra 1992) that stays strictly feasible in (lam, t): the cones are
quadratic in them, so that the longest feasible step is the root of a quadratic. Kink forces are
priced in: those of pairs with a_g . x~_i > 0 join until there are none left. The forces of one
group meet those of another only through the multipliers, so that the linear systems are solved
group by group. docs/theory.md, section 4.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution
from reluflow.kkt.shortest import bounded

_MAX_ITERATIONS = 80
_MAX_ROUNDS = 20
# Gap relative to the objective, and dual residual, at which Newton's method can take over.
_TOLERANCE = 1e-12
_ENOUGH = 1e-8
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
        if groups.all():
            groups = groups & active.live
        joining_forces = _priced_forces(program, solution, groups) & ~working
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
    outside = np.flatnonzero(~groups & (np.einsum("gi,gi->g", own, own @ program.K) > 1))
    if len(outside):
        level = 1 + _PRICE_OF_GROUP
        cap = np.where(program.harmful[outside], solution.lam, 0.0)
        bracket = bounded(program.K, own[outside], cap, level=level)
        joining[outside] = bracket.upper > level
        forces[outside] = bracket.force > _DROPPED * solution.lam.max()
    return joining, forces & joining[:, None]


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
    """The program over its working variables x = (lam, t), in units in which K has mean 1.

    The forces t stand group by group; `group` and `example` say whose each is.
    """

    K: FloatArray
    pattern: FloatArray  # (G, n), 0 or 1
    group: IntArray
    example: IntArray

    @property
    def n(self) -> int:
        return len(self.K)

    @property
    def objective(self) -> FloatArray:
        """Gradient of sum_i lam_i."""
        h = np.zeros(self.n + len(self.example))
        h[: self.n] = 1.0
        return h

    def coefficients(self, x: FloatArray) -> FloatArray:
        """C (G, n) with a_g = sum_i C_gi x~_i."""
        C = self.pattern * x[: self.n]
        C[self.group, self.example] -= x[self.n :]
        return C

    def pulled(self, z: FloatArray, c: FloatArray) -> FloatArray:
        """sum_g c_g times half the gradient of ||a_g||^2, from z = a_g . x~_i."""
        return np.concatenate(
            [c @ (self.pattern * z), -c[self.group] * z[self.group, self.example]]
        )

    def linear(self, x: FloatArray) -> FloatArray:
        """A x: all variables, then lam_i - t_gi."""
        return np.concatenate([x, x[self.example] - x[self.n :]])

    def linear_transposed(self, w: FloatArray) -> FloatArray:
        """A^T w."""
        r = self.n + len(self.example)
        result = w[:r].copy()
        result[self.n :] -= w[r:]
        np.add.at(result, self.example, w[r:])
        return result


def _solve_with_kinks(
    program: GroupProgram, working: BoolArray
) -> tuple[Solution, ActiveSet] | None:
    unit = float(program.K.diagonal().mean())
    group, example = np.nonzero(working)
    scaled = _Scaled(program.K / unit, program.pattern.astype(np.float64), group, example)
    iterate = _iterate(scaled)
    if iterate is None:
        return None
    size, n = 1 / np.sqrt(unit), scaled.n
    force = np.zeros(working.shape)
    force[working] = iterate.x[n:] * size
    solution = Solution(iterate.x[:n] * size, force, iterate.c * size)
    return solution, _identify(scaled, iterate, working)


def _start(scaled: _Scaled) -> _Iterate:
    n = scaled.n
    x = np.concatenate([np.ones(n), np.full(len(scaled.example), 0.5)])
    C = scaled.coefficients(x)
    x *= 0.5 / np.sqrt(_inner(C, C @ scaled.K).max())
    C = scaled.coefficients(x)
    slack = (1 - _inner(C, C @ scaled.K)) / 2
    s = scaled.linear(x)
    mu = x[:n].sum() / (len(s) + len(slack))
    return _Iterate(x, slack, mu / slack, s, mu / s)


def _inner(first: FloatArray, second: FloatArray) -> FloatArray:
    """Inner products of rows."""
    product: FloatArray = np.einsum("gi,gi->g", first, second)
    return product


def _iterate(scaled: _Scaled) -> _Iterate | None:
    h, now = scaled.objective, _start(scaled)
    for _ in range(_MAX_ITERATIONS):
        z = scaled.coefficients(now.x) @ scaled.K
        residual = scaled.pulled(z, now.c) - h - scaled.linear_transposed(now.w)
        gap = float(now.slack @ now.c + now.s @ now.w)
        objective = float(now.x[: scaled.n].sum())
        if gap <= _TOLERANCE * objective and np.abs(residual).max() <= _RESIDUAL:
            return now
        try:
            arrow = _Arrow(scaled, now, z)
        except np.linalg.LinAlgError:
            # Rounding ends the iteration; what Newton's method needs may be there already.
            return now if gap <= _ENOUGH * objective else None
        now = _advance(scaled, now, _System(arrow, z, residual, gap))
    return None


class _Arrow:
    """The linearised system, factorised: forces of one group meet others only through lam.

    The forces are eliminated group by group, which leaves a matrix of the size of lam.
    """

    def __init__(self, scaled: _Scaled, now: _Iterate, z: FloatArray) -> None:
        n, self.example = scaled.n, scaled.example
        weight = now.w / now.s
        own, joint = weight[n : n + len(self.example)], weight[n + len(self.example) :]
        of_cone = now.c / now.slack
        active = scaled.pattern * z
        top = ((scaled.pattern.T * now.c) @ scaled.pattern) * scaled.K
        top += (active.T * of_cone) @ active
        diagonal = weight[:n].copy()
        np.add.at(diagonal, self.example, joint)
        top[np.diag_indices(n)] += diagonal
        self.blocks = []
        ends = np.searchsorted(scaled.group, np.arange(len(z) + 1))
        for g in np.flatnonzero(np.diff(ends)):
            forces = slice(ends[g], ends[g + 1])
            kink = self.example[forces]
            # The rows of the forces: their own block, then what couples them to lam.
            rows = -now.c[g] * scaled.pattern[g] * scaled.K[kink]
            rows -= np.outer(of_cone[g] * z[g, kink], active[g])
            rows[np.arange(len(kink)), kink] -= joint[forces]
            block = now.c[g] * scaled.K[np.ix_(kink, kink)]
            block += np.outer(of_cone[g] * z[g, kink], z[g, kink])
            block.reshape(-1)[:: len(kink) + 1] += own[forces] + joint[forces]
            factor = _cholesky(block)
            rows = _lower(factor, rows)
            top -= rows.T @ rows
            self.blocks.append((slice(n + forces.start, n + forces.stop), factor, rows))
        self.top = _cholesky(top)
        self.n = n

    def solve(self, right: FloatArray) -> FloatArray:
        """The solution of the whole system."""
        x, of_lam = np.empty_like(right), right[: self.n].copy()
        for forces, factor, rows in self.blocks:
            x[forces] = _lower(factor, right[forces])
            of_lam -= rows.T @ x[forces]
        x[: self.n] = _lower(self.top, _lower(self.top, of_lam), transposed=True)
        for forces, factor, rows in self.blocks:
            x[forces] = _lower(factor, x[forces] - rows @ x[: self.n], transposed=True)
        return x


# LAPACK itself: systems are small and many, and SciPy's own checks would take most of the time.


def _cholesky(matrix: FloatArray) -> FloatArray:
    diagonal = matrix.reshape(-1)[:: len(matrix) + 1]
    diagonal += _RIDGE * diagonal.mean()
    factor, failed = lapack.dpotrf(matrix, lower=1, clean=0)
    if failed:
        raise np.linalg.LinAlgError(f"not positive definite at row {failed}")
    return np.asarray(factor)


def _lower(factor: FloatArray, right: FloatArray, *, transposed: bool = False) -> FloatArray:
    return np.asarray(lapack.dtrtrs(factor, right, lower=1, trans=int(transposed))[0])


class _System(NamedTuple):
    """One linearisation: the factorised matrix and what its right-hand sides need."""

    arrow: _Arrow
    z: FloatArray
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
    bent = system.residual + scaled.pulled(scaled.coefficients(step.x) @ scaled.K, step.c)
    step = _direction(
        scaled, now, system._replace(residual=bent), cone_target, target - step.s * step.w
    )
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
    right = scaled.linear_transposed(linear_pull) - scaled.pulled(system.z, cone_pull)
    dx = system.arrow.solve(right - system.residual)
    C = scaled.coefficients(dx)
    b, ds = _inner(C, system.z), scaled.linear(dx)
    return _Step(
        x=dx,
        b=b,
        q=_inner(C, C @ scaled.K) / 2,
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
    """Constraints whose multiplier outweighs their slack, both relative to their size.

    Multipliers of the linear constraints are differences of margins, slacks of the cones those of
    squared norms: both of order one.
    """
    n, r = scaled.n, scaled.n + len(scaled.example)
    active = found.w * found.s.max() > found.s
    support = ~active[:n]
    kink, full = np.zeros_like(working), np.zeros_like(working)
    full[working] = active[r:]
    kink[working] = ~active[n:r] & ~active[r:]
    live = found.c > found.slack * found.c.max()
    carried = support & live[:, None]
    return ActiveSet(support, kink & carried, full & carried, live)
