"""The convex program whose solutions are the KKT points with given patterns, in Gram form.

With v trained, docs/theory.md, section 4.4:

    max sum_i lam_i   s.t.  ||a_g|| <= 1,  0 <= t_gi <= lam_i (i harmful to g),
    a_g = sum_{i in P_g} lam_i x~_i - sum_i t_gi x~_i;

with v fixed, section 4.7, -1/2 sum_g V_g ||a_g||^2 stands in the objective instead of the cones.
Nothing but K = (x~_i . x~_l) enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reluflow._dispatch import core
from reluflow._threads import resolve_num_threads
from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.data import Dataset


class Solution(NamedTuple):
    """A point of the program, or an approximation.

    Attributes
    ----------
    lam : ndarray, shape (n,)
        Multipliers of the margins.
    force : ndarray, shape (G, n)
        t_gi, zero where i is not harmful to g.
    mass : ndarray, shape (G,)
        c_g, multipliers of the cones; V_g where v is fixed.
    """

    lam: FloatArray
    force: FloatArray
    mass: FloatArray


class ActiveSet(NamedTuple):
    """Which constraints of the program are equations.

    Attributes
    ----------
    support : ndarray of bool, shape (n,)
        lam_i > 0 and q_i = 1.
    kink : ndarray of bool, shape (G, n)
        0 < t_gi < lam_i and a_g . x~_i = 0.
    full : ndarray of bool, shape (G, n)
        t_gi = lam_i and a_g . x~_i >= 0.
    live : ndarray of bool, shape (G,)
        c_g > 0 and ||a_g|| = 1.
    """

    support: BoolArray
    kink: BoolArray
    full: BoolArray
    live: BoolArray

    @property
    def key(self) -> bytes:
        """Equal for equal active sets."""
        return b"".join(np.packbits(part).tobytes() for part in self)


@dataclass(frozen=True, eq=False)
class GroupProgram:
    """Data of the program.

    Attributes
    ----------
    K : ndarray, shape (n, n)
        Gram matrix of the augmented examples.
    y : ndarray, shape (n,)
    sign : ndarray, shape (G,)
    pattern : ndarray of bool, shape (G, n)
        P_g.
    fixed_mass : ndarray, shape (G,), or None
        V_g where v is fixed.
    """

    K: FloatArray
    y: FloatArray
    sign: FloatArray
    pattern: BoolArray
    fixed_mass: FloatArray | None = None

    @property
    def harmful(self) -> BoolArray:
        """(G, n): y_i s_g < 0."""
        return self.sign[:, None] * self.y < 0

    def coefficients(self, lam: FloatArray, force: FloatArray) -> FloatArray:
        """C (G, n) with a_g = sum_i C_gi x~_i."""
        return self.pattern * lam - force

    def preactivations(self, lam: FloatArray, force: FloatArray) -> FloatArray:
        """a_g . x~_i, shape (G, n)."""
        return self.coefficients(lam, force) @ self.K

    def margins(self, mass: FloatArray, z: FloatArray) -> FloatArray:
        """q_i of the network with directions a_g and masses c_g, given z = a_g . x~_i."""
        return self.y * ((self.sign * mass) @ np.maximum(z, 0))


class Variables(NamedTuple):
    """Multipliers and kink forces as one vector x; a_g = sum_r pull[r, g] x_r x~_{example[r]}.

    Attributes
    ----------
    example : ndarray of int64, shape (r,)
    pull : ndarray, shape (r, G)
        1 for a multiplier of P_g, -1 for a kink force of g, and for a multiplier whose kink force
        of g equals it.
    """

    example: IntArray
    pull: FloatArray


def variables(program: GroupProgram, active: ActiveSet) -> Variables:
    """Multipliers of the support, followed by the kink forces (g, i) in row order of `kink`."""
    support = np.flatnonzero(active.support)
    group, example = np.nonzero(active.kink)
    of_forces = np.zeros((len(group), len(program.sign)))
    of_forces[np.arange(len(group)), group] = -1.0
    of_multipliers = (program.pattern.astype(np.float64) - active.full)[:, support].T
    return Variables(
        np.concatenate([support, example]).astype(np.int64),
        np.concatenate([of_multipliers, of_forces]),
    )


def gram_matrix(data: Dataset, *, bias: bool, num_threads: int | None = None) -> FloatArray:
    """K_il = x~_i . x~_l."""
    K: FloatArray = core.gram_matrix(data.X, bias, resolve_num_threads(num_threads))
    return K
