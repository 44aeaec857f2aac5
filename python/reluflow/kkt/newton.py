"""Active-set Newton iteration: a solution of the group program to rounding level.

On an active set (support, kinks, full forces, live groups) the conditions are smooth equations,

    q_i = 1 on the support,   a_g . x~_i = 0 on kinks,   ||a_g|| = 1 on live groups,

solved by Newton's method; then the signs of multipliers and slacks correct the active set.
docs/theory.md, section 4.5.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution, Variables, variables
from reluflow.kkt.shortest import AT_KINK, FULL, bounded, shortest

_MAX_STEPS = 25
_MAX_CHANGES = 60
# Relative to the size of what is compared: equations hold, signs are zero.
_SOLVED = 2e-14
_GOOD = 1e-12
_ZERO = 1e-11
# Pivots of the cones' equations, relative to the largest, below which these are dependent.
_DEPENDENT = 1e-10


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
    strict : bool
        Whether no constraint vanishes together with its multiplier.
    twin_of : ndarray of int64, shape (G,)
        The live group that a group has the pattern of on the support, itself included; -1 for
        groups that die.
    finished : bool
        Whether the iteration ended on this active set; else it is what it was started from.
    """

    solution: Solution
    active: ActiveSet
    steps: int
    changes: int
    singular: bool
    strict: bool
    twin_of: IntArray
    finished: bool = True


def unfinished(program: GroupProgram, start: Solution, active: ActiveSet) -> NewtonResult:
    """A start from which the iteration does not come to an end, as a result."""
    return NewtonResult(start, active, 0, 0, False, False, _twins(program, active), False)


def newton(
    program: GroupProgram, start: Solution, active: ActiveSet, weight: FloatArray
) -> NewtonResult | None:
    """The solution near a start, or None where the iteration cycles or diverges.

    Groups that differ only where multipliers are zero have one direction, and only the sum of
    their masses is determined: the heaviest of them by ``weight`` (G,) carries all of it.
    """
    seen: set[bytes] = set()
    solution, active = _without_twins(program, start, active, weight)
    steps = 0
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
            strict = not singular and _strict(program, solution, active)
            twins = _twins(program, active)
            return NewtonResult(solution, active, steps, changes, singular, strict, twins)
        active = corrected
    return None


# --- groups with one direction --------------------------------------------------------------------


def _twins(program: GroupProgram, active: ActiveSet) -> IntArray:
    """The first live group with the same pattern on the support, for each group; else -1."""
    if program.fixed_mass is not None:
        return np.arange(len(active.live))
    twin_of = np.full(len(active.live), -1, dtype=np.int64)
    first: dict[bytes, int] = {}
    packed = np.packbits(program.pattern[:, active.support], axis=1)
    # An empty pattern on the support is no direction at all.
    keys = [row.tobytes() if row.any() else b"" for row in packed]
    for g in np.flatnonzero(active.live):
        first.setdefault(keys[g], int(g))
    for h, key in enumerate(keys):
        twin_of[h] = first.get(key, -1) if key else -1
    return twin_of


def _without_twins(
    program: GroupProgram, start: Solution, active: ActiveSet, weight: FloatArray
) -> tuple[Solution, ActiveSet]:
    if program.fixed_mass is not None:
        return start, active
    twin_of, mass, live = _twins(program, active), start.mass.copy(), active.live.copy()
    for first in np.unique(twin_of[live]):
        together = np.flatnonzero(live & (twin_of == first))
        kept = together[weight[together].argmax()]
        total = mass[together].sum()
        mass[together], live[together] = 0.0, False
        mass[kept], live[kept] = total, True
    kink, full = active.kink & live[:, None], active.full & live[:, None]
    force = np.where(live[:, None], start.force, 0.0)
    return Solution(start.lam, force, mass), ActiveSet(active.support, kink, full, live)


# --- smooth equations on one active set -----------------------------------------------------------


def _solve_equations(
    program: GroupProgram, start: Solution, active: ActiveSet
) -> tuple[Solution, int, bool] | None:
    layout = variables(program, active)
    x, c = _pack(start, active)
    objective = np.zeros(len(x))
    objective[: int(active.support.sum())] = 1.0
    bound = active.live if program.fixed_mass is None else np.zeros_like(active.live)
    best, singular = np.inf, False
    for step in range(_MAX_STEPS):
        now = _unpack(start, active, x, c)
        z = program.preactivations(now.lam, now.force)
        u = layout.pull * z.T[layout.example]
        slope, cone = objective - u @ c, np.where(bound, (1 - x @ u) / 2, 0.0)
        # u c are margins and c (a . x~): all of order one, like the cones.
        error = max(np.abs(slope).max(initial=0.0), np.abs(cone).max(initial=0.0))
        if error <= _SOLVED or (error <= _GOOD and error > best / 4):
            return now, step, singular
        if not np.isfinite(error) or (step > 8 and error > best):
            return None
        best = min(best, error)
        dx, dc, was_singular = _newton_step(_hessian(program, layout, c), u, slope, cone, bound)
        singular = singular or was_singular
        x, c = x + dx, c + dc
    return None


def _hessian(program: GroupProgram, layout: Variables, c: FloatArray) -> FloatArray:
    """sum_g c_g D_g D_g^T."""
    H: FloatArray = (layout.pull * c) @ layout.pull.T
    H *= program.K[np.ix_(layout.example, layout.example)]
    return H


def _pack(solution: Solution, active: ActiveSet) -> tuple[FloatArray, FloatArray]:
    x = np.concatenate([solution.lam[active.support], solution.force[active.kink]])
    return x, np.where(active.live, solution.mass, 0.0)


def _unpack(like: Solution, active: ActiveSet, x: FloatArray, c: FloatArray) -> Solution:
    supported = int(active.support.sum())
    lam, force = np.zeros_like(like.lam), np.zeros_like(like.force)
    lam[active.support] = x[:supported]
    force[active.kink] = x[supported:]
    return Solution(lam, np.where(active.full, lam, force), c)


def _newton_step(
    H: FloatArray, u: FloatArray, slope: FloatArray, cone: FloatArray, bound: BoolArray
) -> tuple[FloatArray, FloatArray, bool]:
    """H dx + U dc = slope, U^T dx = cone: the first block by Cholesky, the cones by Schur."""
    U, dc = u[:, bound], np.zeros(len(bound))
    try:
        factor = scipy.linalg.cho_factor(H, check_finite=False)
        inverse = scipy.linalg.cho_solve(factor, np.column_stack([slope, U]), check_finite=False)
        schur = scipy.linalg.cholesky(U.T @ inverse[:, 1:], lower=True, check_finite=False)
        pivots = schur.diagonal()
        if len(pivots) == 0 or pivots.min() > _DEPENDENT * pivots.max():
            right = U.T @ inverse[:, 0] - cone[bound]
            dc[bound] = scipy.linalg.cho_solve((schur, True), right, check_finite=False)
            dx = inverse[:, 0] - inverse[:, 1:] @ dc[bound]
            if np.isfinite(dx).all():
                return dx, dc, False
    except np.linalg.LinAlgError:
        pass
    # Dependent equations, from duplicate examples or degenerate kinks: the shortest step.
    saddle = np.block([[H, U], [U.T, np.zeros((U.shape[1],) * 2)]])
    step = scipy.linalg.lstsq(
        saddle,
        np.concatenate([slope, cone[bound]]),
        cond=1e-12,
        lapack_driver="gelsy",
        check_finite=False,
    )[0]
    dc[bound] = step[len(slope) :]
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
    if program.fixed_mass is not None:
        return active
    asleep = np.flatnonzero(~active.live & (_twins(program, active) < 0))
    own = program.pattern[asleep] * found.lam
    cap = np.where(program.harmful[asleep], found.lam, 0.0)
    bracket = bounded(program.K, own, cap, level=1 + _ZERO)
    kink, full, live = active.kink.copy(), active.full.copy(), active.live.copy()
    for g in asleep[bracket.upper > 1 + _ZERO]:
        rho, _, states = shortest(program, found.lam, int(g))
        if rho > 1 + _ZERO:
            live[g], kink[g], full[g] = True, states == AT_KINK, states == FULL
    return ActiveSet(active.support, kink, full, live)


def _strict(program: GroupProgram, found: Solution, active: ActiveSet) -> bool:
    """Whether no constraint vanishes with its multiplier, up to 1e-9 of their size."""
    lam, force, mass = found
    z = program.preactivations(lam, force)
    tiny, size = 1e-9, np.abs(lam).max()
    margins = program.margins(mass, z)
    inner = np.minimum(force, lam - force)[active.kink]
    harmful = program.harmful & active.support & active.live[:, None] & ~active.kink
    return not bool(
        (lam[active.support] < tiny * size).any()
        or (np.abs(margins[~active.support] - 1) < tiny).any()
        or (inner < tiny * size).any()
        or (np.abs(z[harmful]) < tiny * np.abs(z).max()).any()
    )
