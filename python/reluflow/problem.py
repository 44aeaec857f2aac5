"""A training set and an initial network, drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._validation import FloatArray, as_number, as_positive_int, one_of, require_memory
from reluflow.data import ClusterModel, Dataset
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
    d-dimensional experiment, at a cost that does not depend on d: the first axes span the means,
    the next n the examples' noise, the last ``width`` what is left of the initial weights
    (docs/theory.md, section 3).

    Parameters
    ----------
    clusters : ClusterModel
        For reduced coordinates with isotropic noise: one standard deviation, or one a cluster.
    n, width : int
        Number of examples and of hidden neurons.
    init_scale : float
        Size of the initial network, as in `TwoLayerNet.init` at the ambient dimension.
    bias, train_output : bool
        Whether biases and output weights are meant to be trained; they start alike either way.
    coordinates : {"reduced", "ambient"}
        k + n + width coordinates, or all d of them.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.

    Raises
    ------
    ValueError
        If reduced coordinates are asked for and d < k + n + width, or the noise is not isotropic.
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
    if not clusters.isotropic:
        raise ValueError(
            "clusters have covariances that are not multiples of the identity, which reduced "
            "coordinates cannot carry; use coordinates='ambient'"
        )
    means = clusters.coordinates
    d, explicit = clusters.dim, means.shape[1]
    dim = explicit + n + width
    if d < dim:
        raise ValueError(
            f"reduced coordinates need dim >= {explicit} + n + width = {dim}; dim={d}; "
            "use coordinates='ambient'"
        )
    require_memory(f"{n} examples and {width} neurons", 8.0 * (3 * n + 3 * width) * dim)
    reduced = ClusterModel(
        np.pad(means, ((0, 0), (0, n + width))),
        clusters.labels,
        clusters.noise,
        ambient_dim=clusters.ambient_dim,
    )
    cluster = rng.integers(clusters.n_clusters, size=n)
    X = np.zeros((n, dim))
    X[:, : explicit + n] = _gaussian_rows(n, explicit, float(d), rng)
    X *= clusters.noise_scale[cluster, None]
    X[:, :explicit] += means[cluster]
    W = _gaussian_rows(width, explicit + n, float(d), rng) * (init_scale / float(d) ** 0.75)
    v = np.linalg.norm(W, axis=1) * alternating_signs(width)
    return Problem(
        reduced,
        Dataset(X, clusters.labels[cluster], cluster),
        TwoLayerNet(W, np.zeros(width), v),
        clusters.ambient_dim,
        "reduced",
    )


def _gaussian_rows(count: int, explicit: int, dim: float, rng: np.random.Generator) -> FloatArray:
    """``count`` standard normal vectors of ``dim`` coordinates, up to a rotation of the tail.

    The first ``explicit`` coordinates stay as they are. Gram-Schmidt turns the rest into a lower
    triangle with independent entries: chi with dim - explicit - i degrees of freedom on the
    diagonal, N(0, 1) below it (Bartlett 1933).
    """
    rows = rng.standard_normal((count, explicit + count))
    triangle = np.tril(rows[:, explicit:], -1)
    degrees = dim - explicit - np.arange(count)
    np.fill_diagonal(triangle, np.sqrt(rng.chisquare(degrees)))
    rows[:, explicit:] = triangle
    return rows
