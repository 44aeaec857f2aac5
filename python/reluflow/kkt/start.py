"""A start for Newton's method by linear solves, without the cone program.

Where every example lies in the pattern of one group, and forces do not reach their multipliers,
the program falls apart: c_g a_g is the shortest w with w . x~_i >= 1 on P_g and <= 0 on the
harmful examples (docs/theory.md, section 4.6).
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution

_MAX_CHANGES = 40
# Relative to the largest value: signs below it count as zero.
_ZERO = 1e-12


def linear_start(program: GroupProgram, weight: FloatArray) -> tuple[Solution, ActiveSet] | None:
    """A start from groups that partition the examples, the heaviest first; None if there are none.

    Parameters
    ----------
    program : GroupProgram
    weight : ndarray, shape (G,)
        Which groups to prefer, such as their mass in the flow.
    """
    chosen = _partition(program.pattern, weight)
    if chosen is None:
        return None
    lam, force = np.zeros(len(program.y)), np.zeros(program.pattern.shape)
    mass = np.zeros(len(program.sign))
    for g in chosen:
        shortest = _shortest_separator(program.K, program.pattern[g], program.harmful[g])
        if shortest is None:
            return None
        beta, mass[g] = shortest
        lam += np.where(program.pattern[g], beta, 0) / mass[g]
        force[g] = np.where(program.harmful[g], -beta, 0) / mass[g]
    support, live = lam > 0, mass > 0
    full = support & (force >= lam)
    kink = support & (force > 0) & ~full
    return Solution(lam, np.where(full, lam, force * support), mass), ActiveSet(
        support, kink, full, live
    )


def _partition(pattern: BoolArray, weight: FloatArray) -> IntArray | None:
    """Disjoint groups that cover all examples, found greedily by weight."""
    covered = np.zeros(pattern.shape[1], dtype=bool)
    chosen = []
    for g in np.argsort(-weight, kind="stable"):
        if not (covered & pattern[g]).any():
            covered |= pattern[g]
            chosen.append(g)
    return np.array(chosen) if covered.all() else None


def _shortest_separator(
    K: FloatArray, own: BoolArray, harmful: BoolArray
) -> tuple[FloatArray, float] | None:
    """Coefficients beta (n,) of the shortest w, and its norm; None where the iteration cycles.

    A linear complementarity problem, by principal pivoting in blocks: w . x~ = 1 or 0 on the
    examples in use; those with the wrong sign of beta leave, those violated enter.
    """
    sign = np.where(own, 1.0, -1.0)
    used = own.copy()
    seen: set[bytes] = set()
    for _ in range(_MAX_CHANGES):
        if used.tobytes() in seen:
            return None
        seen.add(used.tobytes())
        rows = np.flatnonzero(used)
        try:
            factor = scipy.linalg.cho_factor(K[np.ix_(rows, rows)], check_finite=False)
        except np.linalg.LinAlgError:
            return None
        beta = np.zeros(len(K))
        beta[rows] = scipy.linalg.cho_solve(factor, own[rows].astype(float), check_finite=False)
        z = K[:, rows] @ beta[rows]
        missing = sign * (own - z)
        small, flat = _ZERO * np.abs(beta).max(), _ZERO * max(np.abs(z).max(), 1.0)
        wrong = used & (sign * beta < -small)
        violated = ~used & (own | harmful) & (missing > flat)
        if not wrong.any() and not violated.any():
            return beta, math.sqrt(max(float(beta @ z), 0.0))
        used = (used & ~wrong) | violated
    return None
