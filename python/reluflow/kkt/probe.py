"""Is a KKT point the maximum-margin network? A probe that can prove it is not.

docs/theory.md, section 4.9: networks of any width, f(u) = |sum_i lam_i y_i relu(u . x~_i)|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from reluflow._results import Result, Status
from reluflow._threads import one_blas_thread
from reluflow._validation import BoolArray, FloatArray, IntArray, as_positive_int
from reluflow.data import Dataset
from reluflow.kkt.program import gram_matrix
from reluflow.kkt.shortest import climb
from reluflow.network import require_dim

if TYPE_CHECKING:
    from reluflow.kkt.point import KKTPoint

# f(u) above 1 by more than this is more than rounding.
_ROUNDING = 1e-9
# Pre-activations within this share of the largest, and margins within it of 1, are on the spot.
_ZERO = 1e-9
# Smallest eigenvalue, relative to the mean diagonal, of matrices that count as regular.
_REGULAR = 1e-9


@dataclass(frozen=True, eq=False)
class GlobalProbe(Result):
    """The largest value of f(u) = |sum_i lam_i y_i relu(u . x~_i)| over unit u that was found.

    Attributes
    ----------
    value : float
        1 at the directions of the point's own neurons. If the maximum over all u is 1, the point is
        the maximum-margin network of any width; a search cannot show that, only a value above 1
        proves something.
    direction : ndarray, shape (d,)
        Weights of the u that attains it.
    direction_bias : float
        Its bias; norm 1 with the weights.
    unique_multipliers : bool
        Whether the point admits no other multipliers, without which a value above 1 proves nothing.
    starts : int
        Patterns that the search climbed from.
    """

    value: float
    direction: FloatArray
    direction_bias: float
    unique_multipliers: bool
    starts: int

    @property
    def larger_margin_exists(self) -> bool:
        """Whether the point is proved not to be the maximum-margin network (of any width)."""
        return self.unique_multipliers and self.value > 1 + _ROUNDING

    @property
    def sentence(self) -> str:
        """What the search showed."""
        if self.larger_margin_exists:
            return "not the maximum-margin network: a larger normalised margin exists"
        if self.value > 1 + _ROUNDING:
            return "undecided: f(u) > 1 was found, but the multipliers are not unique"
        return "no sign of a larger margin, which proves nothing"

    def __str__(self) -> str:
        return f"largest f(u) found {self.value:.6g} from {self.starts} starts: {self.sentence}"

    def to_dict(self) -> dict[str, Any]:
        """The fields and the conclusion, JSON-ready."""
        return {**super().to_dict(), "larger_margin_exists": self.larger_margin_exists}


def global_probe(
    point: KKTPoint, data: Dataset, *, bias: bool = True, starts: int = 64, seed: Any = 0
) -> GlobalProbe:
    """Searches for a unit u with |sum_i lam_i y_i relu(u . x~_i)| > 1.

    One such u proves that a KKT point with unique multipliers is not the network of the largest
    normalised margin: networks of larger margin exist, if need be wider ones. The search climbs
    monotonically from the patterns of the point's groups (live or dying), all examples of a label,
    the clusters where they are known, and random directions.

    Parameters
    ----------
    point : KKTPoint
        With output weights trained, status ``converged`` or ``degenerate``.
    data : Dataset
        What it was computed for.
    bias : bool
        As it was computed.
    starts : int
        Patterns to climb from, about.
    seed : int, Generator or None
        Of the random directions.

    Raises
    ------
    ValueError
        If the point is no KKT point, or of other data.

    References
    ----------
    docs/theory.md, "4.9 Several KKT points; is it the maximum margin?".
    """
    require_dim("data.X", data.dim, point.net)
    starts = as_positive_int("starts", starts)
    if point.status not in (Status.CONVERGED, Status.DEGENERATE):
        raise ValueError(
            f"point must be a KKT point; its status is {point.status.value!r}. "
            "Take the one of flow_limit, or flow further"
        )
    if len(point.multipliers) != data.n:
        raise ValueError(f"point has {len(point.multipliers)} multipliers; data {data.n} examples")
    with one_blas_thread():
        K = gram_matrix(data, bias=bias)
        lam, y = point.multipliers, data.y
        sign, pattern = _starts(point, data, K, starts, np.random.default_rng(seed))
        value, coefficients = climb(K, lam, y, sign, pattern)
        z = data.X @ point.net.W.T + point.net.b
        unique = _unique_multipliers(K, lam, y, point, z)
    best = int(value.argmax())
    return GlobalProbe(
        value=float(value[best]),
        direction=coefficients[best] @ data.X,
        direction_bias=float(coefficients[best].sum()) if bias else 0.0,
        unique_multipliers=unique,
        starts=len(sign),
    )


def _starts(
    point: KKTPoint, data: Dataset, K: FloatArray, count: int, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray]:
    """Signs (s,) and helpful patterns (s, n) to climb from, each once."""
    signs: list[float] = []
    patterns: list[BoolArray] = []

    def add(sign: float, active: BoolArray) -> None:
        signs.append(sign)
        patterns.append(active & (data.y == sign) & (point.multipliers > 0))

    everything = np.ones(data.n, dtype=bool)
    for sign in (-1.0, 1.0):
        add(sign, everything)
    for group in point.groups[: count // 2]:
        add(group.sign, _of(data.n, group.examples))
    if data.cluster is not None:
        for cluster in np.unique(data.cluster)[: count // 2]:
            members = data.cluster == cluster
            add(float(data.y[members.argmax()]), members)
    while len(signs) < count:
        # Random directions in the span of the examples: random combinations of a few of them.
        chosen = rng.choice(data.n, size=min(data.n, int(rng.integers(1, 4))), replace=False)
        active = K[chosen].T @ rng.standard_exponential(len(chosen)) > 0
        add(float(data.y[chosen[0]]), active)
    table = np.column_stack([np.array(signs) > 0, np.array(patterns)])
    table = np.unique(table[table[:, 1:].any(axis=1)], axis=0)
    return np.where(table[:, 0], 1.0, -1.0), table[:, 1:]


def _of(n: int, examples: Sequence[int] | IntArray) -> BoolArray:
    members = np.zeros(n, dtype=bool)
    members[examples] = True
    return members


def _unique_multipliers(
    K: FloatArray, lam: FloatArray, y: FloatArray, point: KKTPoint, z: FloatArray
) -> bool:
    """Whether (5), for this network, determines the multipliers of the examples at margin 1.

    They are determined if the map from them and the forces at kinks to the directions a_g has no
    null space: if the Gram matrix sum_g D_g D_g^T of its columns is regular.
    """
    margins = y * (np.maximum(z, 0) @ point.net.v)
    tight = np.flatnonzero((lam > 0) | (np.abs(margins - 1) < _ZERO))
    K = K[np.ix_(tight, tight)]
    top = np.zeros_like(K)
    blocks = []
    for group in point.groups:
        if group.mass == 0:
            continue
        neuron = group.neurons[np.abs(point.net.v[group.neurons]).argmax()]
        own = z[tight, neuron]
        flat = _ZERO * np.abs(own).max()
        active, kink = (own > flat).astype(float), np.flatnonzero(np.abs(own) <= flat)
        pull = active * np.where(y[tight] * group.sign > 0, 1.0, -1.0)
        top += np.outer(pull, pull) * K
        blocks.append((K[np.ix_(kink, kink)], pull[:, None] * K[:, kink]))
    sizes = np.cumsum([0] + [len(block) for block, _ in blocks]) + len(tight)
    M = np.zeros((sizes[-1], sizes[-1]))
    M[: len(tight), : len(tight)] = top
    for (block, side), first in zip(blocks, sizes, strict=False):
        part = slice(first, first + len(block))
        M[part, part], M[: len(tight), part], M[part, : len(tight)] = block, side, side.T
    M[np.diag_indices_from(M)] -= _REGULAR * np.trace(M) / max(len(M), 1)
    try:
        scipy.linalg.cholesky(M, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return False
    return True
