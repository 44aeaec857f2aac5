"""A training set and an initial network, drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._validation import (
    IntArray,
    as_number,
    as_positive_int,
    frozen,
    one_of,
    require_memory,
)
from reluflow.data import ClusterModel, Dataset, gaussian_rows
from reluflow.network import TwoLayerNet, alternating_signs

COORDINATES = ("reduced", "ambient")


@dataclass(frozen=True, eq=False)
class Problem:
    """What `draw` returns.

    Attributes
    ----------
    clusters : ClusterModel
        The clusters, in the coordinates of ``data`` and ``net``; ``clusters.sample`` gives fresh
        examples in them.
    data : Dataset
        The training set.
    net : TwoLayerNet
        The initial network.
    ambient_dim : int
        Dimension d of the experiment.
    coordinates : str
        ``"reduced"`` or ``"ambient"``.
    """

    clusters: ClusterModel
    data: Dataset
    net: TwoLayerNet
    ambient_dim: int
    coordinates: str

    @property
    def missing_clusters(self) -> IntArray:
        """Clusters, in ascending order, that no training example fell on."""
        present = self.data.cluster if self.data.cluster is not None else ()
        missing = np.setdiff1d(np.arange(self.clusters.n_clusters), present)
        return frozen(missing.astype(np.int64))

    def __str__(self) -> str:
        missing = [str(q) for q in self.missing_clusters]
        absent = f"; no example of cluster {', '.join(missing)}" if missing else ""
        return (
            f"{self.data!r} in {self.coordinates} coordinates of d = {self.ambient_dim:,}, "
            f"{self.net!r}{absent}"
        )


def draw(
    clusters: ClusterModel,
    n: int,
    width: int,
    *,
    init_scale: float = 1e-3,
    bias: bool = True,
    train_output: bool = True,
    coordinates: str = "reduced",
    seed: Any = 0,
) -> Problem:
    """Draws a training set of ``n`` examples and an initial network of ``width`` neurons.

    In ``"reduced"`` coordinates the law of everything that depends on inner products alone (the
    flow, its limit, outputs on fresh examples, perturbations) is exactly that of the
    d-dimensional experiment, at a cost that does not depend on d: the first axes span the means
    and the directions of low-rank noise, the next n the examples' other noise, the last ``width``
    what is left of the initial weights (docs/theory.md, section 3). Clusters are uniform, so that
    few examples may leave some out: `Problem.missing_clusters`.

    Parameters
    ----------
    clusters : ClusterModel
        For reduced coordinates with isotropic noise, one standard deviation or one a cluster, or
        with `LowRankNoise`.
    n, width : int
        Number of examples and of hidden neurons.
    init_scale : float
        Size of the initial network, as in `TwoLayerNet.init` at the ambient dimension.
    bias, train_output : bool
        Whether biases and output weights are meant to be trained; they start alike either way.
    coordinates : {"reduced", "ambient"}
        k + n + width coordinates, and those of low-rank noise; or all d of them.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.

    Raises
    ------
    ValueError
        If reduced coordinates are asked for and there are more of them than d, or the covariances
        are general; or if all examples fall on clusters of one label.
    MemoryError
        If the examples or the weights would not fit.
    """
    one_of("coordinates", coordinates, COORDINATES)
    n = as_positive_int("n", n)
    width = as_positive_int("width", width, minimum=2)
    init_scale = as_number("init_scale", init_scale, above=0)
    rng = np.random.default_rng(seed)
    if coordinates == "reduced":
        return _draw_reduced(clusters, n, width, init_scale, rng)
    require_memory(f"{n} examples and {width} neurons", 8.0 * (2 * n + 3 * width) * clusters.dim)
    data = clusters.sample(n, rng)
    net = TwoLayerNet.init(width, clusters.dim, init_scale, bias=bias, seed=rng)
    return Problem(clusters, data, net, clusters.ambient_dim, coordinates)


def _draw_reduced(
    clusters: ClusterModel, n: int, width: int, init_scale: float, rng: np.random.Generator
) -> Problem:
    explicit = clusters.explicit_dim
    if explicit is not None and clusters.dim < explicit + n + width:
        raise ValueError(
            f"reduced coordinates need dim >= {explicit} + n + width = {explicit + n + width}; "
            f"dim={clusters.dim}; use coordinates='ambient'"
        )
    reduced = clusters.reduced(n + width)
    explicit = reduced.dim - n - width
    require_memory(f"{n} examples and {width} neurons", 8.0 * (3 * n + 3 * width) * reduced.dim)
    cluster = rng.integers(clusters.n_clusters, size=n)
    X = np.zeros((n, reduced.dim))
    X[:, : explicit + n] = gaussian_rows(n, explicit, clusters.dim, rng)
    X = reduced.color(X, cluster)
    X[:, :explicit] += reduced.means[cluster, :explicit]
    rows = gaussian_rows(width, explicit + n, clusters.dim, rng)
    W = rows * (init_scale / float(clusters.dim) ** 0.75)
    v = np.linalg.norm(W, axis=1) * alternating_signs(width)
    return Problem(
        reduced,
        Dataset(X, clusters.labels[cluster], cluster),
        TwoLayerNet(W, np.zeros(width), v),
        clusters.ambient_dim,
        "reduced",
    )
