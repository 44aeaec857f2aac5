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
    used, system = own.copy(), _GrowingSystem(K)
    seen: set[bytes] = set()
    for _ in range(_MAX_CHANGES):
        if used.tobytes() in seen:
            return None
        seen.add(used.tobytes())
        beta = system.solve(used, own.astype(np.float64))
        if beta is None:
            return None
        z = K @ beta
        missing = sign * (own - z)
        small, flat = _ZERO * np.abs(beta).max(), _ZERO * max(np.abs(z).max(), 1.0)
        wrong = used & (sign * beta < -small)
        violated = ~used & (own | harmful) & (missing > flat)
        if not wrong.any() and not violated.any():
            return beta, math.sqrt(max(float(beta @ z), 0.0))
        used = (used & ~wrong) | violated
    return None


class _GrowingSystem:
    """K on a set of examples, factorised; a larger set extends the factor of the one before."""

    def __init__(self, K: FloatArray) -> None:
        self._K = K
        self._rows = np.empty(0, dtype=np.int64)
        self._factor = np.empty((0, 0))

    def solve(self, used: BoolArray, right: FloatArray) -> FloatArray | None:
        """beta (n,), zero outside ``used``, with K beta = right there; None where K is singular."""
        if not used[self._rows].all():
            self._rows, self._factor = self._rows[:0], self._factor[:0, :0]
        fresh = used.copy()
        fresh[self._rows] = False
        new = np.flatnonzero(fresh)
        if len(new) and not self._extend(new):
            return None
        beta = np.zeros(len(used))
        beta[self._rows] = scipy.linalg.cho_solve(
            (self._factor, True), right[self._rows], check_finite=False
        )
        return beta

    def _extend(self, new: IntArray) -> bool:
        old, total = len(self._rows), len(self._rows) + len(new)
        factor = np.zeros((total, total), order="F")
        corner = self._K[np.ix_(new, new)]
        if old:
            side = scipy.linalg.solve_triangular(
                self._factor, self._K[np.ix_(self._rows, new)], lower=True, check_finite=False
            )
            corner -= side.T @ side
            factor[:old, :old], factor[old:, :old] = self._factor, side.T
        try:
            factor[old:, old:] = scipy.linalg.cholesky(
                corner, lower=True, overwrite_a=True, check_finite=False
            )
        except np.linalg.LinAlgError:
            return False
        self._rows, self._factor = np.concatenate([self._rows, new]), factor
        return True
