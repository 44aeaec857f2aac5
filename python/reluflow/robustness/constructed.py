"""Networks that are written down, not trained."""

from __future__ import annotations

import math

import numpy as np

from reluflow._validation import as_number, one_of
from reluflow.data import ClusterModel
from reluflow.network import TwoLayerNet

# With this bias, in units of the output at a mean, the radius is sqrt(d/2), half of the distance
# between two means: no network has a larger one (docs/theory.md, section 6.3).
BEST_BIAS = 1 - math.sqrt(0.5)


def robust_network(clusters: ClusterModel, *, bias: str | float = "paper") -> TwoLayerNet:
    """One neuron a cluster: w_q = mu_q/d, b_q = -b0, v_q = y_q, times a constant.

    "paper" is w_q = 4 mu_q/d, b_q = -2 (Frei et al. 2023, Theorem 4.1), b0 = 1/2: at noise-free,
    exactly orthogonal means its output is 2 y_q; it falls to 0 at distance sqrt(d)/2 and changes
    sign at sqrt(d/2), whatever the number of clusters. "best" is b0 = 1 - 1/sqrt(2): the output
    falls to 0 at sqrt(d/2), which no network exceeds (docs/theory.md, section 6.3).

    Parameters
    ----------
    clusters : ClusterModel
        Means mu_q of norm sqrt(d), d being the ``ambient_dim``.
    bias : {"paper", "best"} or float
        b0, in [0, 1).

    Raises
    ------
    ValueError
        If ``bias`` is something else.
    TypeError
        If ``clusters`` is not a ClusterModel.
    MemoryError
        If the means do not fit.
    """
    if isinstance(bias, str):
        named = {"paper": (4.0, -2.0), "best": (1.0, -BEST_BIAS)}
        return _one_neuron_a_cluster(clusters, *named[one_of("bias", bias, tuple(named))])
    b0 = as_number("bias", bias, at_least=0)
    if b0 >= 1:
        raise ValueError(f"bias must be below 1, where no neuron is active; got {b0:g}")
    return _one_neuron_a_cluster(clusters, 1.0, -b0)


def decoupled_network(clusters: ClusterModel) -> TwoLayerNet:
    """One neuron a cluster without bias: w_q = mu_q/d, b_q = 0, v_q = y_q.

    In the direction of a KKT point at noise-free, exactly orthogonal means ("feature decoupling"),
    with smallest perturbation sqrt(d/(1 + k/2)) there (docs/theory.md, section 6.3).

    Parameters
    ----------
    clusters : ClusterModel
        Means mu_q of norm sqrt(d), d being the ``ambient_dim``.

    Raises
    ------
    TypeError
        If ``clusters`` is not a ClusterModel.
    MemoryError
        If the means do not fit.
    """
    return _one_neuron_a_cluster(clusters, 1.0, 0.0)


def _one_neuron_a_cluster(clusters: ClusterModel, scale: float, bias: float) -> TwoLayerNet:
    if not isinstance(clusters, ClusterModel):
        raise TypeError(
            f"clusters must be a ClusterModel; got {type(clusters).__name__} (a Dataset's is "
            "data.cluster_model())"
        )
    biases = np.full(clusters.n_clusters, bias)
    return TwoLayerNet(scale * clusters.means / clusters.ambient_dim, biases, clusters.labels)
