"""The explicit robust network."""

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
    if not isinstance(clusters, ClusterModel):
        raise TypeError(
            f"clusters must be a ClusterModel; got {type(clusters).__name__} (a Dataset's is "
            "data.cluster_model())"
        )
    k = clusters.n_clusters
    return TwoLayerNet(4 * clusters.means / clusters.ambient_dim, np.full(k, -2.0), clusters.labels)
