"""Networks that are written down, not trained."""

from __future__ import annotations

import numpy as np

from reluflow.data import ClusterModel
from reluflow.network import TwoLayerNet


def robust_network(clusters: ClusterModel) -> TwoLayerNet:
    """One neuron a cluster: w_q = 4 mu_q/d, b_q = -2, v_q = y_q (Frei et al. 2023, Theorem 4.1).

    At noise-free, exactly orthogonal means its output is 2 y_q; it falls to 0 at distance
    sqrt(d)/2 and changes sign at sqrt(d/2), whatever the number of clusters (docs/theory.md,
    section 6.3).

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
    return _one_neuron_a_cluster(clusters, 4.0, -2.0)


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
