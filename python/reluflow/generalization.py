"""Test error of a network on fresh examples of its clusters."""

# `test_error` is no test.
# ruff: noqa: PT028

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from scipy.linalg import qr
from scipy.special import betaincinv

from reluflow._dispatch import kernels
from reluflow._progress import sampling_progress
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    FloatArray,
    IntArray,
    as_number,
    as_positive_int,
    one_of,
    require_memory,
)
from reluflow.data import ClusterModel, Dataset
from reluflow.network import TwoLayerNet, require_dim
from reluflow.problem import Problem

METHODS = ("auto", "sampling", "importance", "line")
DEFINITIONS = {"nonstrict": "y N(x) <= 0", "strict": "y N(x) < 0"}
CONFIDENCE = 0.95

# Blocks of the first round; every round doubles the sample.
_FIRST_ROUND = 8
# Blocks between two looks at the progress bar.
_BLOCKS_A_CALL = 64

Interval = tuple[float, float]
Observer = Callable[[int, int], None]


@dataclass(frozen=True)
class ClusterError(Result):
    """Test error on the examples of one cluster.

    Attributes
    ----------
    label : float
        -1 or +1.
    log10_probability : float
        log10 of the probability of an error; -inf where none was seen, nan without examples.
    interval : tuple of float
        95 % interval of it.
    samples, errors : int
        Fresh examples drawn, and errors among them; 0 where the probability is known exactly.
    """

    label: float
    log10_probability: float
    interval: Interval
    samples: int
    errors: int


@dataclass(frozen=True)
class ErrorEstimate(Result):
    """Probability that a fresh example is misclassified.

    Attributes
    ----------
    log10_probability : float
        log10 of the probability; -inf where no error was seen.
    interval : tuple of float
        95 % interval of it; the lower end is -inf where no error was seen.
    per_cluster : tuple of ClusterError
        The same, cluster by cluster.
    method : str
        ``"sampling"``; ``"exact"`` where the outputs do not vary within a cluster; ``"given"``
        where given examples were counted.
    samples, errors : int
        Fresh examples drawn, and errors among them.
    definition : str
        ``"nonstrict"``: y N(x) <= 0 is an error; ``"strict"``: y N(x) < 0.
    status : Status
        How the computation ended; prints as a sentence.
    provenance : dict
        Version, backend, instruction set and number of threads.
    seconds : float
        Wall time.
    """

    log10_probability: float
    interval: Interval
    per_cluster: tuple[ClusterError, ...]
    method: str
    samples: int
    errors: int
    definition: str
    status: Status
    provenance: dict[str, Any]
    seconds: float

    @property
    def probability(self) -> float:
        """The probability itself; 0 where it underflows."""
        return float(10.0**self.log10_probability)

    def __str__(self) -> str:
        worst = max(
            range(len(self.per_cluster)),
            key=lambda q: np.nan_to_num(self.per_cluster[q].log10_probability, nan=-math.inf),
        )
        shown = self.per_cluster[worst]
        how = f"{self.errors:,} errors in {self.samples:,} fresh examples"
        if self.method == "exact":
            how = "exact: the outputs do not vary within a cluster, nothing was drawn"
        return "\n".join(
            [
                f"Test error {_as_text(self.log10_probability, self.interval)}",
                f"  method              {self.method}",
                f"  evidence            {how}",
                f"  definition          {self.definition}: {DEFINITIONS[self.definition]}",
                f"  worst cluster       {worst}: "
                f"{_as_text(shown.log10_probability, shown.interval)}",
                f"  seconds             {self.seconds:.3g}",
                f"  {self.status}",
            ]
        )


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
    """Probability that the network misclassifies a fresh example.

    Fresh examples are drawn as the hidden layer sees them (docs/theory.md, section 8.1), in rounds
    that double until the 95 % interval of Clopper & Pearson (1934) is narrow enough. Memory does
    not grow with their number. Without noise the answer is exact and nothing is drawn.

    Parameters
    ----------
    net : TwoLayerNet
        The network, on the coordinates of ``clusters``.
    clusters : ClusterModel or Problem or Dataset
        Where fresh examples come from; the examples of a Dataset are counted as they are, and must
        not be those that the network was trained on.
    method : {"auto", "sampling"}
        ``"auto"`` is sampling. ``"importance"`` and ``"line"`` are not available yet.
    rel_error : float
        Half the width of the interval over the probability, at which sampling ends.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.
    max_seconds : float or None
        Wall time allowed. The result is repeatable only where it was not needed.
    definition : {"nonstrict", "strict"}
        Whether y N(x) = 0 counts as an error.
    max_samples : int
        Fresh examples allowed, rounded up to whole blocks of 2,048. If none of n is an error, the
        probability is below 3.7/n.
    backend : {"native", "numpy"}
        Compiled kernels, or the NumPy reference.
    num_threads : int or None
        None means all cores that the process may use. The result does not depend on it.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ErrorEstimate

    Raises
    ------
    ValueError
        If an argument is out of its range, the dimensions of ``net`` and ``clusters`` differ, or
        the method is not available.
    TypeError
        If ``net`` or ``clusters`` is something else.
    MemoryError
        If the working arrays, or the means of the clusters, would not fit.
    """
    if not isinstance(net, TwoLayerNet):
        raise TypeError(f"net must be a TwoLayerNet; got {type(net).__name__}")
    if isinstance(clusters, Dataset):
        return _on_given_examples(net, clusters, definition, resolve_num_threads(num_threads))
    model = _as_clusters(clusters)
    if model.dim != net.dim:
        raise ValueError(f"clusters have dim={model.dim}; the network takes {net.dim}")
    estimator = _estimator(one_of("method", method, METHODS))
    one_of("definition", definition, DEFINITIONS)
    settings = _Settings(
        kernel=kernels(backend),
        key=_stream_key(seed),
        strict=definition == "strict",
        rel_error=as_number("rel_error", rel_error, above=0),
        max_samples=as_positive_int("max_samples", max_samples),
        deadline=time.perf_counter() + _seconds_allowed(max_seconds),
        num_threads=resolve_num_threads(num_threads),
        progress=progress,
    )
    start = time.perf_counter()
    hidden = _HiddenLayer.of(net, model)
    found = _exact(hidden, settings) if not hidden.factors.any() else estimator(hidden, settings)
    return ErrorEstimate(
        **found,
        definition=definition,
        provenance=provenance(backend=backend, num_threads=settings.num_threads),
        seconds=time.perf_counter() - start,
    )


# A name that pytest would otherwise collect.
test_error.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class _Settings:
    kernel: ModuleType
    key: int
    strict: bool
    rel_error: float
    max_samples: int
    deadline: float
    num_threads: int
    progress: bool


@dataclass(frozen=True, eq=False)
class _HiddenLayer:
    """Fresh examples as the hidden layer sees them: offsets[q] + scales[q] factors[q] g.

    offsets (k, m), scales (k,), and factors (k, m, r) or, where the covariances are multiples of
    each other, (1, m, r); output weights (m,) and labels (k,).
    """

    offsets: FloatArray
    factors: FloatArray
    scales: FloatArray
    output: FloatArray
    labels: FloatArray

    @classmethod
    def of(cls, net: TwoLayerNet, clusters: ClusterModel) -> _HiddenLayer:
        k = clusters.n_clusters
        distinct = 1 if clusters.isotropic else k
        require_memory(
            f"noise of {distinct} x {net.width} pre-activations",
            16.0 * distinct * net.width * min(net.width, net.dim),
        )
        if clusters.isotropic:
            noisiest = int(clusters.noise_scale.argmax())
            factors = [_compressed(clusters.noise_factor(net.W, noisiest))]
            largest = clusters.noise_scale[noisiest]
            scales = clusters.noise_scale / (largest if largest > 0 else 1.0)
        else:
            factors = [_compressed(clusters.noise_factor(net.W, q)) for q in range(k)]
            scales = np.ones(k)
        return cls(
            np.ascontiguousarray(clusters.means @ net.W.T + net.b),
            _stacked(factors),
            scales,
            net.v,
            clusters.labels,
        )


def _exact(hidden: _HiddenLayer, settings: _Settings) -> dict[str, Any]:
    """Without noise every cluster is a point, and right or wrong."""
    margins = hidden.labels * (np.maximum(hidden.offsets, 0.0) @ hidden.output)
    wrong = margins < 0 if settings.strict else margins <= 0
    per_cluster = tuple(
        ClusterError(float(label), p, (p, p), 0, 0)
        for label, p in zip(hidden.labels, map(_log10, wrong.astype(float)), strict=True)
    )
    overall = _log10(float(wrong.mean()))
    return {
        "log10_probability": overall,
        "interval": (overall, overall),
        "per_cluster": per_cluster,
        "method": "exact",
        "samples": 0,
        "errors": 0,
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
    per_cluster = []
    for member in np.unique(group):
        mine = group == member
        errors, samples = int(wrong[mine].sum()), int(mine.sum())
        label = float(data.y[mine][0])
        per_cluster.append(ClusterError(label, *_estimate(errors, samples), samples, errors))
    log10_probability, interval = _estimate(int(wrong.sum()), data.n)
    return ErrorEstimate(
        log10_probability=log10_probability,
        interval=interval,
        per_cluster=tuple(per_cluster),
        method="given",
        samples=data.n,
        errors=int(wrong.sum()),
        definition=definition,
        status=Status.CONVERGED,
        provenance=provenance(num_threads=num_threads),
        seconds=time.perf_counter() - start,
    )


def _by_sampling(hidden: _HiddenLayer, settings: _Settings) -> dict[str, Any]:
    rank = hidden.factors.shape[2]
    block = settings.kernel.SAMPLE_BLOCK
    require_memory("blocks of fresh examples", 8.0 * settings.num_threads * block * rank)
    total = -(-settings.max_samples // block)
    with sampling_progress(settings.progress, total * block) as observer:
        status, tally = _sample(hidden, settings, total, observer)
    samples, errors = tally.sum(axis=1).tolist()
    log10_probability, interval = _estimate(errors, samples)
    per_cluster = tuple(
        ClusterError(float(label), *_estimate(wrong, drawn), drawn, wrong)
        for label, drawn, wrong in zip(hidden.labels, *tally.tolist(), strict=True)
    )
    return {
        "log10_probability": log10_probability,
        "interval": interval,
        "per_cluster": per_cluster,
        "method": "sampling",
        "samples": samples,
        "errors": errors,
        "status": status,
    }


_ESTIMATORS = {"auto": _by_sampling, "sampling": _by_sampling}


def _estimator(method: str) -> Callable[[_HiddenLayer, _Settings], dict[str, Any]]:
    if method not in _ESTIMATORS:
        raise ValueError(f"method={method!r} is not available yet: use 'sampling'")
    return _ESTIMATORS[method]


def _sample(
    hidden: _HiddenLayer, settings: _Settings, total: int, observer: Observer
) -> tuple[Status, IntArray]:
    """Status, and draws and errors of each cluster, shape (2, k), in at most ``total`` blocks."""
    tally = np.zeros((2, len(hidden.labels)), np.int64)
    try:
        for begin, end in _rounds(total):
            for first in range(begin, end, _BLOCKS_A_CALL):
                blocks = min(_BLOCKS_A_CALL, end - first)
                counts = _count(hidden, settings, first, blocks)
                # One assignment, so that Ctrl-C cannot fall between draws and errors.
                tally = tally + np.stack([counts.draws, counts.errors])
                observer(*tally.sum(axis=1).tolist())
                if counts.interrupted:
                    return Status.INTERRUPTED, tally
                if counts.blocks < blocks:
                    return Status.MAX_SECONDS, tally
            samples, errors = tally.sum(axis=1).tolist()
            if _precise(errors, samples, settings.rel_error):
                return Status.CONVERGED, tally
    except KeyboardInterrupt:
        return Status.INTERRUPTED, tally
    return Status.MAX_SAMPLES, tally


def _count(hidden: _HiddenLayer, settings: _Settings, first: int, blocks: int) -> Any:
    return settings.kernel.count_errors(
        hidden.offsets,
        hidden.factors,
        hidden.scales,
        hidden.output,
        hidden.labels,
        settings.key,
        first,
        blocks,
        settings.strict,
        settings.deadline - time.perf_counter(),
        settings.num_threads,
    )


def _rounds(total: int) -> Iterator[tuple[int, int]]:
    """First and last block of rounds that double the sample: few looks at the interval."""
    begin, end = 0, min(_FIRST_ROUND, total)
    while begin < end:
        yield begin, end
        begin, end = end, min(2 * end, total)


def binomial_interval(errors: int, samples: int) -> Interval:
    """95 % interval of a probability of which ``errors`` in ``samples`` were seen.

    Clopper & Pearson (1934): the probabilities for which neither tail of the binomial law is
    below 2.5 %.
    """
    tail = (1 - CONFIDENCE) / 2
    lower = betaincinv(errors, samples - errors + 1, tail) if errors > 0 else 0.0
    upper = betaincinv(errors + 1, samples - errors, 1 - tail) if errors < samples else 1.0
    return float(lower), float(upper)


def _precise(errors: int, samples: int, rel_error: float) -> bool:
    lower, upper = binomial_interval(errors, samples)
    return errors > 0 and (upper - lower) / 2 <= rel_error * errors / samples


def _estimate(errors: int, samples: int) -> tuple[float, Interval]:
    """log10 of the probability, and its interval."""
    lower, upper = binomial_interval(errors, samples)
    return _log10(errors / samples if samples else math.nan), (_log10(lower), _log10(upper))


def _log10(probability: float) -> float:
    return math.log10(probability) if probability != 0 else -math.inf


def _compressed(factor: FloatArray) -> FloatArray:
    """A factor of F F^T with as many columns as its numerical rank.

    QR with pivoting (Businger & Golub 1965) of F^T; rows of R at rounding level are left out.
    """
    m, r = factor.shape
    R, pivots = qr(factor.T, mode="r", pivoting=True)
    diagonal = np.abs(R.diagonal())
    negligible = diagonal.max(initial=0.0) * np.finfo(float).eps * max(m, r)
    rank = int((diagonal > negligible).sum())
    compressed = np.zeros((m, rank))
    compressed[pivots] = R[:rank].T
    return compressed


def _stacked(factors: list[FloatArray]) -> FloatArray:
    """(k, m, r) with the largest rank; columns of zeros fill up the others."""
    rank = max(factor.shape[1] for factor in factors)
    return np.stack([np.pad(f, ((0, 0), (0, rank - f.shape[1]))) for f in factors])


def _stream_key(seed: Any) -> int:
    return int(np.random.default_rng(seed).integers(2**64, dtype=np.uint64))


def _seconds_allowed(max_seconds: float | None) -> float:
    return math.inf if max_seconds is None else as_number("max_seconds", max_seconds, at_least=0)


def _as_clusters(value: Any) -> ClusterModel:
    model = value.clusters if isinstance(value, Problem) else value
    if not isinstance(model, ClusterModel):
        raise TypeError(f"clusters must be a ClusterModel or a Problem; got {type(value).__name__}")
    return model


def _as_text(log10_probability: float, interval: Interval) -> str:
    lower, upper = interval
    if math.isnan(log10_probability):
        return "unknown: no fresh example was drawn"
    if lower == upper:
        return f"{_probability(log10_probability)} exactly"
    if log10_probability == -math.inf:
        return f"below 10^{upper:.2f} (95 %)"
    return (
        f"{_probability(log10_probability)} (95 %: {_probability(lower)} to {_probability(upper)})"
    )


def _probability(log10_probability: float) -> str:
    if log10_probability > -300 or log10_probability == -math.inf:
        return f"{10.0**log10_probability:.3g}"
    return f"10^{log10_probability:.2f}"
