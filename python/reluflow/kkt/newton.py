"""Active-set Newton iteration: a solution of the group program to rounding level.

On an active set (support, kinks, full forces, live groups) the conditions are smooth equations,

    q_i = 1 on the support,   a_g . x~_i = 0 on kinks,   ||a_g|| = 1 on live groups,

solved by Newton's method; then the signs of multipliers and slacks correct the active set.
docs/theory.md, section 4.5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from reluflow._validation import BoolArray, FloatArray
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution, Variables, variables

StateArray = NDArray[np.int8]

_MAX_STEPS = 25
_MAX_CHANGES = 60
# Relative to the size of what is compared: equations hold, signs are zero.
_SOLVED = 2e-14
_GOOD = 1e-12
_ZERO = 1e-11


class NewtonResult(NamedTuple):
    """A solution, its active set, and the work it took.

    Attributes
    ----------
    solution : Solution
    active : ActiveSet
    steps, changes : int
        Linear solves, and corrections of the active set.
    singular : bool
        Whether the equations of the final active set are dependent.
    degenerate : bool
        Whether they are, or a constraint and its multiplier vanish together.
    """

    solution: Solution
    active: ActiveSet
    steps: int
    changes: int
    singular: bool
    degenerate: bool


def newton(program: GroupProgram, start: Solution, active: ActiveSet) -> NewtonResult | None:
    """The solution near a start, or None where the iteration cycles or diverges."""
    seen: set[bytes] = set()
    solution, steps = start, 0
    for changes in range(_MAX_CHANGES):
        if active.key in seen:
            return None
        seen.add(active.key)
        solved = _solve_equations(program, solution, active)
        if solved is None:
            return None
        solution, used, singular = solved
        steps += used
        corrected = _corrected(program, solution, active)
        if corrected.key == active.key:
            degenerate = singular or _degenerate(program, solution, active)
            return NewtonResult(solution, active, steps, changes, singular, degenerate)
        active = corrected
    return None


# --- smooth equations on one active set -----------------------------------------------------------


def _solve_equations(
    program: GroupProgram, start: Solution, active: ActiveSet
) -> tuple[Solution, int, bool] | None:
    layout = variables(program, active)
    K = program.K[np.ix_(layout.example, layout.example)]
    x, c = _pack(start, active)
    objective = np.zeros(len(x))
    objective[: int(active.support.sum())] = 1.0
    best, singular = np.inf, False
    for step in range(_MAX_STEPS):
        u = layout.pull * (K @ (layout.pull * x[:, None]))
        slope, cone = objective - u @ c, (1 - x @ u) / 2
        bound = active.live if program.fixed_mass is None else np.zeros_like(active.live)
        cone = np.where(bound, cone, 0.0)
        # u c are margins and c (a . x~): all of order one, like the cones.
        error = max(np.abs(slope).max(initial=0.0), np.abs(cone).max(initial=0.0))
        if error <= _SOLVED or (error <= _GOOD and error > best / 4):
            return _unpack(start, active, layout, x, c), step, singular
        if not np.isfinite(error) or (step > 8 and error > best):
            return None
        best = min(best, error)
        H = ((layout.pull * c) @ layout.pull.T) * K
        dx, dc, was_singular = _newton_step(H, u, slope, cone, bound)
        singular = singular or was_singular
        x, c = x + dx, c + dc
    return None


def _pack(solution: Solution, active: ActiveSet) -> tuple[FloatArray, FloatArray]:
    x = np.concatenate([solution.lam[active.support], solution.force[active.kink]])
    return x, np.where(active.live, solution.mass, 0.0)


def _unpack(
    like: Solution, active: ActiveSet, layout: Variables, x: FloatArray, c: FloatArray
) -> Solution:
    supported = int(active.support.sum())
    lam, force = np.zeros_like(like.lam), np.zeros_like(like.force)
    lam[active.support] = x[:supported]
    force[active.kink] = x[supported:]
    return Solution(lam, np.where(active.full, lam, force), c)


def _newton_step(
    H: FloatArray, u: FloatArray, slope: FloatArray, cone: FloatArray, bound: BoolArray
) -> tuple[FloatArray, FloatArray, bool]:
    """H dx + U dc = slope, U^T dx = cone: the first block by Cholesky, the cones by Schur."""
    live, dc = bound, np.zeros(len(bound))
    try:
        factor = scipy.linalg.cho_factor(H, check_finite=False)
        inverse = scipy.linalg.cho_solve(
            factor, np.column_stack([slope, u[:, live]]), check_finite=False
        )
        schur = u[:, live].T @ inverse[:, 1:]
        dc[live] = np.linalg.solve(schur, u[:, live].T @ inverse[:, 0] - cone[live])
        dx = inverse[:, 0] - inverse[:, 1:] @ dc[live]
        if np.isfinite(dx).all():
            return dx, dc, False
    except np.linalg.LinAlgError:
        pass
    # Dependent equations, from duplicate examples or degenerate kinks: the shortest step.
    U = u[:, live]
    saddle = np.block([[H, U], [U.T, np.zeros((U.shape[1],) * 2)]])
    step = np.linalg.lstsq(saddle, np.concatenate([slope, cone[live]]), rcond=1e-12)[0]
    dc[live] = step[len(slope) :]
    return step[: len(slope)], dc, True


# --- corrections of the active set ----------------------------------------------------------------


def _corrected(program: GroupProgram, found: Solution, active: ActiveSet) -> ActiveSet:
    lam, force, mass = found
    z = program.preactivations(lam, force)
    small, flat = _ZERO * np.abs(lam).max(), _ZERO * np.abs(z).max()
    margins = program.margins(np.maximum(mass, 0), z)

    support = np.where(active.support, lam > -small, margins < 1 - 1e-10)
    live = active.live & (mass > -_ZERO * np.abs(mass).max())
    fresh = support & ~active.support
    carried = program.harmful & support & active.live[:, None]
    kink, full = active.kink.copy(), active.full.copy()
    # Pre-activation of the wrong sign: the pair moves to its kink.
    kink |= carried & ~active.kink & ~active.full & (z > flat)
    kink |= carried & active.full & (z < -flat)
    full &= ~kink
    # Kink force outside [0, lam]: the pair leaves its kink.
    leaving_down, leaving_up = active.kink & (force < -small), active.kink & (force > lam + small)
    kink &= ~(leaving_down | leaving_up)
    full |= leaving_up
    # A multiplier that enters takes its forces along where the group is active.
    entering = carried & fresh
    kink &= ~entering
    full = np.where(entering, z > flat, full)

    kink, full = kink & support & live[:, None], full & support & live[:, None]
    changed = ActiveSet(support, kink, full, live)
    return changed if changed.key != active.key else _woken(program, found, active)


def _woken(program: GroupProgram, found: Solution, active: ActiveSet) -> ActiveSet:
    """Groups that are not live must fit into their cone by their own choice of forces."""
    kink, full, live = active.kink.copy(), active.full.copy(), active.live.copy()
    for g in np.flatnonzero(~active.live):
        rho, _, states = shortest(program, found.lam, int(g))
        if rho > 1 + _ZERO:
            live[g], kink[g], full[g] = True, states == 1, states == 2
    return ActiveSet(active.support, kink, full, live)


def _degenerate(program: GroupProgram, found: Solution, active: ActiveSet) -> bool:
    """Whether a constraint and its multiplier vanish together, up to 1e-9 of their size."""
    lam, force, mass = found
    z = program.preactivations(lam, force)
    tiny, size = 1e-9, np.abs(lam).max()
    margins = program.margins(mass, z)
    inner = np.minimum(force, lam - force)[active.kink]
    harmful = program.harmful & active.support & active.live[:, None] & ~active.kink
    return bool(
        (lam[active.support] < tiny * size).any()
        or (np.abs(margins[~active.support] - 1) < tiny).any()
        or (inner < tiny * size).any()
        or (np.abs(z[harmful]) < tiny * np.abs(z).max()).any()
    )


# --- the shortest direction of one group ----------------------------------------------------------


def shortest(
    program: GroupProgram, lam: FloatArray, g: int
) -> tuple[float, FloatArray, StateArray]:
    """rho_g = min over 0 <= t <= lam of ||a_g||, with its t (n,) and states (n,) 0, 1 or 2.

    States: 0 no force, 1 at the kink, 2 full. A group with rho_g < 1 dies along the flow, its
    share like log(1/L)^-(1 - rho_g) (docs/theory.md, section 2.5).
    """
    return shortest_of_pattern(program.K, program.pattern[g], program.harmful[g], lam)


def shortest_of_pattern(
    K: FloatArray, pattern: BoolArray, harmful: BoolArray, lam: FloatArray
) -> tuple[float, FloatArray, StateArray]:
    """`shortest` for any pattern."""
    own = pattern * lam
    base = K @ own
    harmful = harmful & (lam > 0)
    states = np.zeros(len(lam), dtype=np.int8)
    seen: set[bytes] = set()
    while states.tobytes() not in seen:
        seen.add(states.tobytes())
        t = np.where(states == 2, lam, 0.0)
        kink = np.flatnonzero(states == 1)
        t[kink] = _solve_gram(K[np.ix_(kink, kink)], (base - K @ t)[kink])
        z = base - K @ t
        flat, small = _ZERO * np.abs(base).max(), _ZERO * lam.max()
        changed = states.copy()
        changed[harmful & (states == 0) & (z > flat)] = 1
        changed[harmful & (states == 2) & (z < -flat)] = 1
        changed[(states == 1) & (t < -small)] = 0
        changed[(states == 1) & (t > lam + small)] = 2
        states = changed
    t = np.clip(t, 0, np.where(harmful, lam, 0))
    a = own - t
    return math.sqrt(max(float(a @ K @ a), 0.0)), t, states


def _solve_gram(K: FloatArray, right: FloatArray) -> FloatArray:
    """K^-1 right, or the shortest solution where examples are dependent."""
    try:
        factor = scipy.linalg.cho_factor(K, check_finite=False)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(K, right, rcond=1e-13)[0], dtype=np.float64)
    solution: FloatArray = scipy.linalg.cho_solve(factor, right, check_finite=False)
    return solution
