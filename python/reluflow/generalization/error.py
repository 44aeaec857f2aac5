"""Test error of a network on fresh examples of its clusters."""

# `test_error` is no test.
# ruff: noqa: PT028

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import as_number, as_positive_int, one_of
from reluflow.data import ClusterModel, Dataset
from reluflow.generalization._hidden import HiddenLayer
from reluflow.generalization._log_estimate import log10_of
from reluflow.generalization._rare import by_design
from reluflow.generalization._sampling import by_sampling, counted
from reluflow.generalization._settings import Settings, deadline_of, stream_key
from reluflow.generalization.estimates import (
    DEFINITIONS,
    ClassError,
    ClusterError,
    ErrorEstimate,
)
from reluflow.network import TwoLayerNet, require_dim
from reluflow.problem import Problem

_Estimator = Callable[[HiddenLayer, Settings], dict[str, Any]]

_ESTIMATORS: dict[str, _Estimator] = {
    "auto": lambda hidden, settings: by_design(hidden, settings, "line"),
    "line": lambda hidden, settings: by_design(hidden, settings, "line"),
    "importance": lambda hidden, settings: by_design(hidden, settings, "importance"),
    "sampling": by_sampling,
}
METHODS = tuple(_ESTIMATORS)


def test_error(
    net: TwoLayerNet,
    clusters: ClusterModel | Problem | Dataset,
    *,
    method: str = "auto",
    rel_error: float = 0.05,
    seed: Any = 0,
    max_seconds: float | None = None,
    definition: str = "nonstrict",
    max_samples: int = 2**20,
    backend: str = "native",
    num_threads: int | None = None,
    progress: bool = False,
) -> ErrorEstimate:
    """Probability that the network misclassifies a fresh example, however small it is.

    In the standardised noise of a cluster the network errs beyond polyhedral faces; the points
    where those are nearest, the design points, are found by `min_perturbation`'s search. Line
    sampling integrates the piecewise linear network exactly along lines towards them; importance
    sampling draws from a mixture centred there. Everything is kept in log space, and each of the
    two checks the other. docs/theory.md, section 8. Without noise the answer is exact and nothing
    is drawn.

    Parameters
    ----------
    net : TwoLayerNet
        The network, on the coordinates of ``clusters``.
    clusters : ClusterModel or Problem or Dataset
        Where fresh examples come from; the examples of a Dataset are counted as they are, and must
        not be those that the network was trained on.
    method : {"auto", "line", "importance", "sampling"}
        ``"auto"`` is line sampling; ``"sampling"`` draws fresh examples and counts errors (interval
        of Clopper & Pearson 1934).
    rel_error : float
        Half the width of the interval over the probability, at which sampling ends.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.
    max_seconds : float or None
        Wall time allowed. The result is repeatable only where it was not needed. Every cluster
        gets a few lines whatever it is, and a status and an interval that say how little they are.
    definition : {"nonstrict", "strict"}
        Whether y N(x) = 0 counts as an error.
    max_samples : int
        Fresh examples allowed; a line counts as eight. Plain sampling rounds up to whole blocks of
        2,048; if none of n is an error, the probability is below 3.7/n.
    backend : {"native", "numpy"}
        Compiled kernels, or the NumPy reference.
    num_threads : int or None
        None means all cores that the process may use, which is also the most that are used.
        The result does not depend on it.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ErrorEstimate

    Raises
    ------
    ValueError
        If an argument is out of its range, or the dimensions of ``net`` and ``clusters`` differ.
    TypeError
        If ``net`` or ``clusters`` is something else.
    MemoryError
        If the working arrays, or the means of the clusters, would not fit.
    """
    if not isinstance(net, TwoLayerNet):
        raise TypeError(f"net must be a TwoLayerNet; got {type(net).__name__}")
    if isinstance(clusters, Dataset):
        return _on_given_examples(net, clusters, definition, resolve_num_threads(num_threads))
    model = as_clusters(clusters, net)
    estimator = _ESTIMATORS[one_of("method", method, METHODS)]
    one_of("definition", definition, DEFINITIONS)
    settings = Settings(
        kernel=kernels(backend),
        key=stream_key(seed),
        strict=definition == "strict",
        rel_error=as_number("rel_error", rel_error, above=0),
        max_samples=as_positive_int("max_samples", max_samples),
        deadline=deadline_of(max_seconds),
        num_threads=resolve_num_threads(num_threads),
        progress=progress,
    )
    start = time.perf_counter()
    hidden = HiddenLayer.of(net, model)
    found = _exact(hidden, settings) if not hidden.factors.any() else estimator(hidden, settings)
    return ErrorEstimate(
        **found,
        definition=definition,
        provenance=provenance(backend=backend, num_threads=settings.num_threads),
        seconds=time.perf_counter() - start,
    )


# A name that pytest would otherwise collect.
test_error.__test__ = False  # type: ignore[attr-defined]


def as_clusters(value: Any, net: TwoLayerNet) -> ClusterModel:
    """The clusters that fresh examples come from; refuses what is none, or of another dimension."""
    model = value.clusters if isinstance(value, Problem) else value
    if not isinstance(model, ClusterModel):
        raise TypeError(f"clusters must be a ClusterModel or a Problem; got {type(value).__name__}")
    if model.dim != net.dim:
        raise ValueError(f"clusters have dim={model.dim}; the network takes {net.dim}")
    return model


def _exact(hidden: HiddenLayer, settings: Settings) -> dict[str, Any]:
    """Without noise every cluster is a point, and right or wrong."""
    margins = hidden.labels * (np.maximum(hidden.offsets, 0.0) @ hidden.output)
    wrong = (margins < 0 if settings.strict else margins <= 0).astype(float)
    per_cluster = tuple(
        ClusterError(float(label), p, (p, p), 0, 0, p)
        for label, p in zip(hidden.labels, map(log10_of, wrong), strict=True)
    )
    per_class = []
    for label in (-1.0, 1.0):
        p = log10_of(float(wrong[hidden.labels == label].mean()))
        per_class.append(ClassError(label, p, (p, p)))
    overall = log10_of(float(wrong.mean()))
    return {
        "log10_probability": overall,
        "interval": (overall, overall),
        "per_cluster": per_cluster,
        "per_class": tuple(per_class),
        "method": "exact",
        "samples": 0,
        "errors": 0,
        "first_order": overall,
        "effective_samples": float("inf"),
        "check": None,
        "status": Status.CONVERGED,
    }


def _on_given_examples(
    net: TwoLayerNet, data: Dataset, definition: str, num_threads: int
) -> ErrorEstimate:
    """Errors among given examples, by cluster where clusters are known and by label otherwise."""
    require_dim("clusters", data.dim, net)
    one_of("definition", definition, DEFINITIONS)
    start = time.perf_counter()
    margins = data.y * net(data.X, num_threads=num_threads)
    wrong = margins < 0 if definition == "strict" else margins <= 0
    group = data.y if data.cluster is None else data.cluster
    members = [group == member for member in np.unique(group)]
    labels = np.array([data.y[mine][0] for mine in members])
    samples = [int(mine.sum()) for mine in members]
    errors = [int(wrong[mine].sum()) for mine in members]
    return ErrorEstimate(
        **counted(labels, samples, errors),
        method="given",
        definition=definition,
        status=Status.CONVERGED,
        provenance=provenance(num_threads=num_threads),
        seconds=time.perf_counter() - start,
    )
