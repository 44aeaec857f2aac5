"""Parallel neurons replaced by one, with a bound on what that changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._results import Result
from reluflow._validation import FloatArray, IntArray
from reluflow.network import TwoLayerNet

# Of the sum of |v_j| ||w~_j||, for the roundings of the error and of the merged weights.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Merging(Result):
    """How parallel neurons were merged.

    Attributes
    ----------
    tolerance : float
        Directions (w_j, b_j)/||(w_j, b_j)|| within this distance of another count as parallel.
    neurons : int
        How many are left.
    error : float
        |N'(x) - N(x)| <= error ||(x, 1)|| for the merged network N' (docs/theory.md, section 7.7).
    points : int
        How many points the merged network decided; the others took the network itself.
    """

    tolerance: float
    neurons: int
    error: float
    points: int

    def __str__(self) -> str:
        return (
            f"{self.neurons} neurons are left, error {self.error:.3g} ||(x, 1)||; they decided "
            f"{self.points} points"
        )


def merged_network(net: TwoLayerNet, tolerance: float) -> tuple[TwoLayerNet, float]:
    """The network with parallel neurons of one sign of v merged, and the error of section 7.7."""
    augmented = np.column_stack([net.W, net.b]) * np.abs(net.v)[:, None]
    length = np.linalg.norm(augmented, axis=1)
    live = np.flatnonzero(length > 0)
    leader = _leaders(
        augmented[live] / length[live, None], np.sign(net.v[live]), length[live], tolerance
    )
    kept = np.unique(leader)
    if len(kept) == 0:
        return net, 0.0
    sums = np.zeros((len(kept), augmented.shape[1]))
    group = np.searchsorted(kept, leader)
    np.add.at(sums, group, augmented[live])
    squares = (sums**2).sum(axis=1)
    share = (augmented[live] * sums[group]).sum(axis=1) / squares[group]
    off = np.linalg.norm(augmented[live] - share[:, None] * sums[group], axis=1)
    error = float(off.sum() + _ROUNDING * length.sum())
    return TwoLayerNet(sums[:, :-1], sums[:, -1], np.sign(net.v[live][kept])), error


def _leaders(
    directions: FloatArray, signs: FloatArray, length: FloatArray, tolerance: float
) -> IntArray:
    """For every neuron the largest one, not itself led by another, that it is parallel to."""
    leader = np.full(len(directions), -1, dtype=np.int64)
    for j in np.argsort(-length, kind="stable"):
        if leader[j] < 0:
            near = np.linalg.norm(directions - directions[j], axis=1) <= tolerance
            leader[near & (signs == signs[j]) & (leader < 0)] = j
    return leader
