"""What a deep network is trained to do."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from reluflow._validation import FloatArray
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet


def targets(net: DeepNet, data: Dataset) -> FloatArray:
    """What the kernels fit: labels, or classes where the network has an output for each.

    Raises
    ------
    ValueError
        If ``data`` has no clusters, or other ones than the network has outputs.
    """
    if net.class_labels is None:
        return data.y
    if data.cluster is None:
        raise ValueError(
            f"net has {net.outputs} outputs, one a cluster; data must say which cluster each "
            "example is of (Dataset(X, y, cluster))"
        )
    found = np.unique(data.cluster)
    if found[0] < 0 or found[-1] >= net.outputs:
        raise ValueError(
            f"data.cluster must lie in 0..{net.outputs - 1}, one a output of net; "
            f"it goes from {found[0]} to {found[-1]}"
        )
    wrong = np.flatnonzero(net.class_labels[data.cluster] != data.y)
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"net.class_labels and data.y disagree on {len(wrong)} of {data.n} examples: example "
            f"{i} of cluster {data.cluster[i]} has the label {data.y[i]:+g}"
        )
    return data.cluster.astype(np.float64)


def training_margins(net: DeepNet, data: Dataset) -> FloatArray:
    """The margins that the loss is of.

    With several outputs that of the own class less the log-sum-exp of the others.
    """
    if net.class_labels is None:
        return net.margins(data)
    logits = net.logits(data.X)
    own = np.zeros(logits.shape, dtype=bool)
    own[np.arange(data.n), targets(net, data).astype(np.int64)] = True
    rivals = logsumexp(np.where(own, -np.inf, logits), axis=1)
    return np.asarray(logits[own] - rivals)
