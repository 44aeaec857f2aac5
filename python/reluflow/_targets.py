"""Points at which others are likely to be flipped, where searches start."""

from __future__ import annotations

import numpy as np

from reluflow._validation import FloatArray, IntArray
from reluflow.data import ClusterModel, Dataset

# Targets a point, the nearest first: means of clusters, or single examples.
MOST_MEANS = 64
MOST_EXAMPLES = 5
# Examples that are looked at for the nearest, of each label.
_MOST_CANDIDATES = 2000
_ROWS_AT_ONCE = 1024


def targets_for(
    points: FloatArray, labels: FloatArray, source: ClusterModel | Dataset | None
) -> tuple[FloatArray, IntArray]:
    """Targets (p, d), and for every point (n, s) which of them to try, filled up with -1.

    The means of the clusters with the opposite label, the nearest first; where no clusters are
    known, the mean of all examples with the opposite label, and the nearest few of them. Without a
    source the points themselves are the examples.
    """
    if source is None:
        return _examples(points, labels, points, labels)
    if isinstance(source, Dataset) and source.cluster is None:
        return _examples(points, labels, source.X, source.y)
    means, signs = cluster_means(source)
    return means, _nearest(points, labels, means, signs, MOST_MEANS)


def cluster_means(source: ClusterModel | Dataset) -> tuple[FloatArray, FloatArray]:
    """Means (k, d) and labels (k,) of the clusters; of the two classes where none are known."""
    if isinstance(source, ClusterModel):
        return source.means, source.labels
    groups = source.y if source.cluster is None else source.cluster
    members = [groups == q for q in np.unique(groups)]
    return (
        np.array([source.X[rows].mean(axis=0) for rows in members]),
        np.array([source.y[rows][0] for rows in members]),
    )


def _examples(
    points: FloatArray, labels: FloatArray, examples: FloatArray, signs: FloatArray
) -> tuple[FloatArray, IntArray]:
    classes = [sign for sign in (-1.0, 1.0) if (signs == sign).any()]
    if not classes:
        return np.zeros((0, points.shape[1])), np.zeros((len(points), 0), dtype=np.int64)
    chosen = np.concatenate([_spread(np.flatnonzero(signs == sign)) for sign in classes])
    means = np.array([examples[signs == sign].mean(axis=0) for sign in classes])
    near = _nearest(points, labels, examples[chosen], signs[chosen], MOST_EXAMPLES)
    opposite_mean = np.full((len(points), 1), -1, dtype=np.int64)
    for index, sign in enumerate(classes):
        opposite_mean[labels == -sign] = index
    near[near >= 0] += len(classes)
    return np.vstack([means, examples[chosen]]), np.hstack([opposite_mean, near])


def _spread(indices: IntArray) -> IntArray:
    """At most so many candidates, evenly chosen."""
    step = -(-len(indices) // _MOST_CANDIDATES)
    return indices[:: max(1, step)]


def _nearest(
    points: FloatArray, labels: FloatArray, targets: FloatArray, signs: FloatArray, most: int
) -> IntArray:
    """Rows of ``targets`` with the opposite label, by distance."""
    order = np.full((len(points), min(most, len(targets))), -1, dtype=np.int64)
    squares = (targets**2).sum(axis=1)
    for begin in range(0, len(points), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        distances = squares - 2 * points[rows] @ targets.T
        distances[labels[rows, None] == signs] = np.inf
        found = np.argsort(distances, axis=1, kind="stable")[:, : order.shape[1]]
        usable = np.isfinite(np.take_along_axis(distances, found, axis=1))
        order[rows] = np.where(usable, found, -1)
    return order
