"""The shortest direction that multipliers leave to a pattern.

    rho = min over 0 <= t_i <= lam_i of || sum_{i in P} lam_i x~_i - sum_{i harmful} t_i x~_i ||

decides whether a group is live (docs/theory.md, section 4.3), how fast it dies (section 2.5), and
bounds the probe of section 4.9. `shortest` is exact, by block pivoting; `bounded` brackets rho for
many patterns at once, by accelerated projected gradients.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from reluflow._validation import BoolArray, FloatArray
from reluflow.kkt.program import GroupProgram

StateArray = NDArray[np.int8]
NO_FORCE, AT_KINK, FULL = 0, 1, 2

_MAX_PIVOTS = 25
_MAX_GRADIENTS = 3000
_MAX_ASCENTS = 30
# Iterations between two looks at the bracket.
_LOOK = 20
# Relative to the size of what is compared: signs are zero, a bracket is closed.
_ZERO = 1e-11
_CLOSED = 1e-9


class Bracket(NamedTuple):
    """Bounds of rho for several patterns, and the forces t (G, n) of the upper ones."""

    lower: FloatArray
    upper: FloatArray
    force: FloatArray


def shortest(
    program: GroupProgram, lam: FloatArray, g: int
) -> tuple[float, FloatArray, StateArray]:
    """rho_g with its forces t (n,) and their states (n,): no force, at the kink, or full."""
    return shortest_of_pattern(program.K, program.pattern[g], program.harmful[g], lam)


def shortest_of_pattern(
    K: FloatArray, pattern: BoolArray, harmful: BoolArray, lam: FloatArray
) -> tuple[float, FloatArray, StateArray]:
    """`shortest` for any pattern.

    Where block pivoting from no forces cycles, projected gradients give it a start; where it
    cycles again, as degenerate patterns can make it, their forces are the answer.
    """
    own, cap = pattern * lam, np.where(harmful, lam, 0.0)
    found = _pivoted(K, own, cap, np.zeros(len(lam), dtype=np.int8))
    if found is None:
        t = bounded(K, own[None], cap[None]).force[0]
        states = _states(K, own, cap, t)
        found = _pivoted(K, own, cap, states) or (t, states)
    t, states = found
    a = own - t
    return math.sqrt(max(float(a @ K @ a), 0.0)), t, states


def _pivoted(
    K: FloatArray, own: FloatArray, cap: FloatArray, states: StateArray
) -> tuple[FloatArray, StateArray] | None:
    """Forces and states that satisfy the signs of (6); None if they are not found soon."""
    base, movable = K @ own, cap > 0
    flat, small = _ZERO * np.abs(base).max(initial=0.0), _ZERO * own.max(initial=0.0)
    for _ in range(_MAX_PIVOTS):
        t = np.where(states == FULL, cap, 0.0)
        kink = np.flatnonzero(states == AT_KINK)
        t[kink] = _solve_gram(K[np.ix_(kink, kink)], (base - K @ t)[kink])
        z = base - K @ t
        changed = states.copy()
        changed[movable & (states == NO_FORCE) & (z > flat)] = AT_KINK
        changed[movable & (states == FULL) & (z < -flat)] = AT_KINK
        changed[(states == AT_KINK) & (t < -small)] = NO_FORCE
        changed[(states == AT_KINK) & (t > cap + small)] = FULL
        if (changed == states).all():
            return np.clip(t, 0, cap), states
        states = changed
    return None


def _solve_gram(K: FloatArray, right: FloatArray) -> FloatArray:
    """K^-1 right, or the shortest solution where examples are dependent."""
    try:
        factor = scipy.linalg.cho_factor(K, check_finite=False)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(K, right, rcond=1e-13)[0], dtype=np.float64)
    solution: FloatArray = scipy.linalg.cho_solve(factor, right, check_finite=False)
    return solution


def _states(K: FloatArray, own: FloatArray, cap: FloatArray, t: FloatArray) -> StateArray:
    """States that forces near the best ones suggest."""
    z = K @ (own - t)
    scale = np.sqrt(K.diagonal().mean()) * max(cap.max(), 1e-300)
    states = np.full(len(t), AT_KINK, dtype=np.int8)
    # A force at its bound belongs there if its slope outweighs its distance from it.
    states[(-z * cap.max() > t * scale) | (cap == 0)] = NO_FORCE
    states[(cap > 0) & (z * cap.max() > (cap - t) * scale)] = FULL
    return states


def bounded(
    K: FloatArray,
    own: FloatArray,
    cap: FloatArray,
    *,
    level: float = math.nan,
    closed: float = _CLOSED,
) -> Bracket:
    """Brackets of rho for rows own = lam on P and caps = lam on harmful examples, both (G, n).

    Ends where every bracket is closed, to ``closed`` of its value, or on one side of ``level`` if
    there is one. Upper bounds are by Nesterov's method with restarts (O'Donoghue & Candes 2015),
    lower ones by u = a/||a||, because
    rho = max over unit u of sum_P lam_i u . x~_i - sum_i lam_i relu(u . x~_i) over harmful i.
    """
    step = 1 / _largest(K)
    t, ahead, momentum = np.zeros_like(own), np.zeros_like(own), np.ones(len(own))
    for iteration in range(_MAX_GRADIENTS + 1):
        if iteration % _LOOK == 0:
            bracket = _bracket(K, own, cap, t)
            narrow = bracket.upper - bracket.lower <= closed * np.maximum(bracket.upper, 1e-300)
            if (narrow | (bracket.lower > level) | (bracket.upper <= level)).all():
                break
        before = t
        t = np.clip(ahead + step * ((own - ahead) @ K), 0, cap)
        uphill = np.einsum("gi,gi->g", ahead - t, t - before) > 0
        following = np.where(uphill, 1.0, (1 + np.sqrt(1 + 4 * momentum**2)) / 2)
        drift = np.where(uphill, 0.0, (momentum - 1) / following)
        ahead, momentum = t + drift[:, None] * (t - before), following
    return bracket


def climb(
    K: FloatArray,
    lam: FloatArray,
    y: FloatArray,
    sign: FloatArray,
    pattern: BoolArray,
    *,
    closed: float = _CLOSED,
) -> tuple[FloatArray, FloatArray]:
    """Local maxima over unit u of f(u) = sign sum_i lam_i y_i relu(u . x~_i), uphill from patterns.

    For a pattern the best u is its shortest direction; the helpful examples that this one is active
    on are the next pattern, until they are the same (convex-concave procedure). Returns f (s,) and
    u = sum_i C_si x~_i as C (s, n).
    """
    helpful = (sign[:, None] * y > 0) & (lam > 0)
    cap = np.where(sign[:, None] * y < 0, lam, 0.0)
    value, direction = np.zeros(len(sign)), np.zeros(pattern.shape)
    rows, now = np.arange(len(sign)), pattern & helpful
    for _ in range(_MAX_ASCENTS):
        own = np.where(now, lam, 0.0)
        # Directions need not be exact: f is evaluated at what they are.
        a = own - bounded(K, own, cap[rows], closed=closed).force
        z = a @ K
        length = np.sqrt(np.maximum(np.einsum("si,si->s", a, z), 1e-300))
        value[rows] = sign[rows] * (np.maximum(z, 0) @ (lam * y)) / length
        direction[rows] = a / length[:, None]
        following = (z > 0) & helpful[rows]
        moving = (following != now).any(axis=1)
        if not moving.any():
            break
        rows, now = rows[moving], following[moving]
    return value, direction


def _bracket(K: FloatArray, own: FloatArray, cap: FloatArray, t: FloatArray) -> Bracket:
    a = own - t
    z = a @ K
    upper = np.sqrt(np.maximum(np.einsum("gi,gi->g", a, z), 0.0))
    value = np.einsum("gi,gi->g", own, z) - np.einsum("gi,gi->g", cap, np.maximum(z, 0))
    return Bracket(np.maximum(value, 0) / np.maximum(upper, 1e-300), upper, t)


def _largest(K: FloatArray) -> float:
    """An upper bound of the largest eigenvalue: that of |K|, by Collatz & Wielandt."""
    absolute = np.abs(K)
    # A shift keeps the iterates positive where examples are orthogonal, or zero.
    shift = 1e-3 * float(absolute.max(initial=1e-300))
    v = np.ones(len(K))
    for _ in range(20):
        w = absolute @ v + shift * v
        bound = float((w / v).max())
        v = w / w.max()
    return bound
