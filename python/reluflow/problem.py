"""A training set and an initial network, drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._validation import as_positive_int, one_of, require_memory
from reluflow.data import ClusterModel, Dataset
from reluflow.network import TwoLayerNet

COORDINATES = ("ambient",)


@dataclass(frozen=True, eq=False)
class Problem:
    """What `draw` returns.

    Attributes
    ----------
    clusters : ClusterModel
        The clusters, in the coordinates of ``data`` and ``net``.
    data : Dataset
        The training set.
    net : TwoLayerNet
        The initial network.
    ambient_dim : int
        Dimension d of the experiment.
    coordinates : str
        ``"ambient"``.
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
    coordinates: str = "ambient",
    seed: Any = 0,
) -> Problem:
    """Draws a training set of ``n`` examples and an initial network of ``width`` neurons.

    Parameters
    ----------
    clusters : ClusterModel
    n, width : int
        Number of examples and of hidden neurons.
    init_scale : float
        Size of the initial network, as in `TwoLayerNet.init`.
    bias : bool
        Whether biases are meant to be trained.
    coordinates : {"ambient"}
        Coordinates of the result: all d of them.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.

    Raises
    ------
    MemoryError
        If the examples or the weights would not fit.
    """
    one_of("coordinates", coordinates, COORDINATES)
    n = as_positive_int("n", n)
    width = as_positive_int("width", width, minimum=2)
    require_memory(f"{n} examples and {width} neurons", 8.0 * (2 * n + 3 * width) * clusters.dim)
    rng = np.random.default_rng(seed)
    data = clusters.sample(n, rng)
    net = TwoLayerNet.init(width, clusters.dim, init_scale, bias=bias, seed=rng)
    return Problem(clusters, data, net, clusters.dim, coordinates)
