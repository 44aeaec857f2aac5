"""Smallest perturbations, with proof."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import FloatArray, IntArray, as_array, as_labels, as_number, one_of
from reluflow.data import ClusterModel, Dataset
from reluflow.network import TwoLayerNet, require_dim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFINITIONS = ("nonstrict", "strict")
MAX_NODES = 100
# Opposite examples or means tried as starts, the nearest first.
MOST_TARGETS = 12


@dataclass(frozen=True, eq=False)
class Perturbations(Result):
    """The smallest L2 perturbation of every point, or bounds on it.

    Attributes
    ----------
    radius : ndarray, shape (n,)
        Norm of the perturbation found: an upper bound, and where ``proved`` the exact value.
    lower_bound : ndarray, shape (n,)
        No perturbation below this norm flips the point.
    perturbation : ndarray, shape (n, d)
    proved : ndarray of bool, shape (n,)
        Whether lower_bound >= (1 - rtol) radius by a verified certificate.
    method : tuple of str
        What proved each radius.
    nodes : ndarray of int, shape (n,)
        Nodes of branch and bound.
    definition : str
        ``"nonstrict"``: y N <= 0 counts as flipped; ``"strict"``: y N < 0.
    status : Status
    provenance : dict
    seconds : float
    """

    radius: FloatArray
    lower_bound: FloatArray
    perturbation: FloatArray
    proved: np.ndarray[Any, np.dtype[np.bool_]]
    method: tuple[str, ...]
    nodes: IntArray
    definition: str
    status: Status
    provenance: dict[str, Any]
    seconds: float

    def __str__(self) -> str:
        sign = "<=" if self.definition == "nonstrict" else "<"
        low, middle, high = np.quantile(self.radius, [0, 0.5, 1])
        return "\n".join(
            [
                f"Smallest perturbations, y N {sign} 0 counting as flipped",
                f"  points              {len(self.radius)}",
                f"  radius              median {middle:.6g}, from {low:.6g} to {high:.6g}",
                f"  proved exact        {int(self.proved.sum())} of {len(self.radius)}",
                f"  {self.status}",
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Histogram of the radii."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        ax.hist(self.radius[np.isfinite(self.radius)], bins="auto")
        ax.set(xlabel="radius", ylabel="points")
        return ax


def min_perturbation(
    net: TwoLayerNet,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    definition: str = "nonstrict",
    rtol: float = 1e-6,
    max_seconds: float | None = None,
    num_threads: int | None = None,
    clusters: ClusterModel | Dataset | None = None,
    backend: str = "native",
) -> Perturbations:
    """The smallest L2 perturbation that flips each point, and how much of that is proved."""
    points = as_array("X", X, 2)
    require_dim("X", points.shape[1], net)
    one_of("definition", definition, DEFINITIONS)
    outputs = net(points)
    labels = np.where(outputs >= 0, 1.0, -1.0) if y is None else as_labels("y", y, len(points))
    start = time.perf_counter()
    threads = resolve_num_threads(num_threads)
    # Everything happens in the row space of W.
    Q, R = np.linalg.qr(net.W.T)
    rows = np.ascontiguousarray(R.T)
    targets, order = _targets(points, labels, clusters)
    kernel = kernels(backend)
    pre = points @ net.W.T + net.b
    eps = np.finfo(float).eps
    size = np.abs(points) @ np.abs(net.W).T + np.abs(net.b)
    slack = (net.dim + net.width) * eps * (size @ np.abs(net.v))
    lipschitz = float(np.abs(net.v) @ np.linalg.norm(net.W, axis=1)) * (1 + 1e-9)
    outcome = kernel.min_perturbations(
        rows,
        net.v,
        0.0,
        lipschitz,
        pre,
        labels,
        slack,
        targets @ net.W.T + net.b,
        order,
        definition == "strict",
        as_number("rtol", rtol, above=0),
        MAX_NODES,
        math.inf if max_seconds is None else as_number("max_seconds", max_seconds, at_least=0),
        threads,
    )
    status = {
        "none": Status.CONVERGED,
        "interrupted": Status.INTERRUPTED,
        "deadline": Status.MAX_SECONDS,
    }[outcome.stopped.name]
    methods = tuple(proof.name for proof in outcome.proofs)
    return Perturbations(
        radius=outcome.radius,
        lower_bound=outcome.lower_bound,
        perturbation=(outcome.coefficients @ rows) @ Q.T,
        proved=np.array([method != "none" for method in methods]),
        method=methods,
        nodes=outcome.nodes,
        definition=definition,
        status=status,
        provenance=provenance(backend=backend, num_threads=threads),
        seconds=time.perf_counter() - start,
    )


def _targets(
    points: FloatArray, labels: FloatArray, clusters: ClusterModel | Dataset | None
) -> tuple[FloatArray, IntArray]:
    if isinstance(clusters, ClusterModel):
        targets, signs = clusters.means, clusters.labels
    elif isinstance(clusters, Dataset):
        targets, signs = clusters.X, clusters.y
    else:
        targets, signs = points, labels
    squared = (targets**2).sum(1) - 2 * points @ targets.T
    squared[labels[:, None] == signs] = math.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :MOST_TARGETS].astype(np.int64)
    order[np.isinf(np.take_along_axis(squared, order, axis=1))] = -1
    return np.ascontiguousarray(targets), np.ascontiguousarray(order)
