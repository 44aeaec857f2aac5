"""The independent check: residuals of the KKT conditions at full width.

NumPy alone, straight from the conditions of docs/theory.md, section 4.1: no Gram matrix, no
groups, nothing shared with what finds multipliers or KKT points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from reluflow._results import Result
from reluflow._validation import FloatArray, IntArray, as_array
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet, require_dim


@dataclass(frozen=True)
class KKTResiduals(Result):
    """How far (network, multipliers, Clarke weights) is from a KKT point; all zero at one.

    Attributes
    ----------
    stationarity : float
        ||theta - sum_i lam_i g_i|| / ||theta|| over the trained parameters, g_i the Clarke
        gradient of the margin q_i.
    feasibility : float
        max_i (1 - q_i)_+.
    dual_feasibility : float
        max_i (-lam_i)_+ / max_i |lam_i|.
    complementarity : float
        max_i |lam_i (q_i - 1)| / max_i |lam_i|.
    clarke_violation : float
        Over pairs with lam_i != 0: how far s_ij lies outside [0, 1], or the gap
        (relu(z_ij) - s_ij z_ij) / (||w~_j|| ||x~_i||), whichever is largest. The gap is 0 exactly
        where s_ij is a Clarke weight; otherwise it is the relative eps for which it is an
        eps-subgradient.
    normalized_margin : float
        min_i q_i / ||theta||^2.
    """

    stationarity: float
    feasibility: float
    dual_feasibility: float
    complementarity: float
    clarke_violation: float
    normalized_margin: float

    @property
    def worst(self) -> float:
        """The largest residual."""
        return max(
            self.stationarity,
            self.feasibility,
            self.dual_feasibility,
            self.complementarity,
            self.clarke_violation,
        )

    def __str__(self) -> str:
        return "\n".join(
            [
                f"  stationarity        {self.stationarity:.3g}",
                f"  feasibility         {self.feasibility:.3g}",
                f"  dual feasibility    {self.dual_feasibility:.3g}",
                f"  complementarity     {self.complementarity:.3g}",
                f"  Clarke violation    {self.clarke_violation:.3g}",
                f"  normalised margin   {self.normalized_margin:.6g}",
            ]
        )


class HoldsResiduals:
    """What results share that have the fields of `KKTResiduals` among their own."""

    @property
    def residuals(self) -> KKTResiduals:
        """The residuals as one object."""
        return KKTResiduals(
            **{field.name: getattr(self, field.name) for field in fields(KKTResiduals)}
        )


@dataclass(frozen=True, eq=False)
class Kinks(Result):
    """Clarke weights strictly between 0 and 1.

    Attributes
    ----------
    neuron, example : ndarray of int64, shape (c,)
    value : ndarray, shape (c,)
        s_ij of example i and neuron j.
    """

    neuron: IntArray
    example: IntArray
    value: FloatArray

    @classmethod
    def from_weights(cls, clarke: FloatArray) -> Kinks:
        """The entries of an (n, m) matrix of Clarke weights that are neither 0 nor 1."""
        example, neuron = np.nonzero((clarke > 0) & (clarke < 1))
        return cls(neuron.astype(np.int64), example.astype(np.int64), clarke[example, neuron])

    def __len__(self) -> int:
        return len(self.value)


def kkt_residuals(
    net: TwoLayerNet,
    data: Dataset,
    multipliers: ArrayLike,
    clarke: ArrayLike,
    *,
    train_output: bool = True,
    bias: bool = True,
) -> KKTResiduals:
    """Residuals of the KKT conditions of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1.

    Parameters
    ----------
    net : TwoLayerNet
        The network as it is: it is not scaled here.
    data : Dataset
    multipliers : array_like, shape (n,)
        lam_i.
    clarke : array_like, shape (n, m)
        Clarke weights s_ij of example i and neuron j.
    train_output, bias : bool
        Whether v and b belong to the parameters.

    Raises
    ------
    ValueError
        If shapes disagree.

    References
    ----------
    Lyu & Li 2020, definition of KKT points; docs/theory.md, "4.1 The conditions".
    """
    require_dim("data.X", data.dim, net)
    lam, s = as_array("multipliers", multipliers, 1), as_array("clarke", clarke, 2)
    if len(lam) != data.n or s.shape != (data.n, net.width):
        raise ValueError(
            f"multipliers and clarke must have shapes ({data.n},) and ({data.n}, {net.width}); "
            f"they have {lam.shape} and {s.shape}"
        )
    z = data.X @ net.W.T + net.b
    active = np.maximum(z, 0)
    margins = data.y * (active @ net.v)
    pull = (lam * data.y)[:, None] * s  # (n, m)

    squares = ((net.W - net.v[:, None] * (pull.T @ data.X)) ** 2).sum()
    trained = (net.W**2).sum()
    if bias:
        squares += ((net.b - net.v * pull.sum(axis=0)) ** 2).sum()
        trained += (net.b**2).sum()
    if train_output:
        squares += ((net.v - active.T @ (lam * data.y)) ** 2).sum()
        trained += (net.v**2).sum()

    largest = np.abs(lam).max()
    return KKTResiduals(
        stationarity=float(np.sqrt(squares / trained)),
        feasibility=float(max(0.0, (1 - margins).max())),
        dual_feasibility=_relative(max(0.0, -lam.min()), largest),
        complementarity=_relative(np.abs(lam * (margins - 1)).max(), largest),
        clarke_violation=_clarke_violation(net, data, z, active, lam, s),
        normalized_margin=float(margins.min() / net.norm**2),
    )


def _clarke_violation(
    net: TwoLayerNet,
    data: Dataset,
    z: FloatArray,
    active: FloatArray,
    lam: FloatArray,
    s: FloatArray,
) -> float:
    # The augmented norms: a bias that is not trained is zero and its feature harmless here.
    neurons = np.sqrt((net.W**2).sum(axis=1) + net.b**2)
    examples = np.sqrt((data.X**2).sum(axis=1) + 1)
    scale = examples[:, None] * np.where(neurons > 0, neurons, np.inf)
    used = (lam != 0)[:, None] & (net.v != 0)
    outside = np.maximum(np.maximum(-s, s - 1), 0)
    gap = np.abs(active - s * z) / scale
    return float(np.maximum(outside, gap).max(where=used, initial=0.0))


def _relative(value: float, scale: float) -> float:
    return float(value / scale) if scale > 0 else float(value)
