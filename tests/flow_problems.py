"""Problems that gradient flows are tested on."""

from __future__ import annotations

import numpy as np

import reluflow as rf


def closed_form_problem(p, R, scale):
    """Orthogonal examples of norm R, p a label, and one balanced, aligned neuron a label.

    By symmetry all margins are equal, so every softmax weight is 1/(2p), and w is parallel to
    u = sum_i x_i / (R sqrt(p)) over its label. With |v| = ||w|| = r: margins are
    q = v ||w|| R/sqrt(p) = r^2 R/sqrt(p), and d r/d tau = (1/(2p)) p r R/sqrt(p), so
    r(tau) = r0 exp(R tau/(2 sqrt(p))) and log(1/L) = q.
    """
    X = R * np.eye(2 * p)
    y = np.repeat([1.0, -1.0], p)
    directions = np.stack([(y > 0) / np.sqrt(p), (y < 0) / np.sqrt(p)])
    return rf.Dataset(X, y), rf.TwoLayerNet(scale * directions, [0, 0], [scale, -scale])


def cluster_problem(seed=0, n=40, d=200, k=4, width=20, noise=0.5):
    clusters = rf.ClusterModel.orthogonal(k, d, noise)
    return rf.draw(clusters, n, width, init_scale=1e-2, coordinates="ambient", seed=seed)


def angle(first, second):
    """Between the parameters of two networks, in radians."""
    a, b = (np.concatenate([net.W.ravel(), net.b, net.v]) for net in (first, second))
    return float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))
