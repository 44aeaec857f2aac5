"""Plain sampling: fresh examples are drawn as the hidden layer sees them, and errors counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from reluflow._progress import sampling_progress
from reluflow._results import Status
from reluflow._validation import FloatArray, IntArray, require_memory
from reluflow.generalization._hidden import HiddenLayer
from reluflow.generalization._log_estimate import Interval, binomial_interval, log10_of
from reluflow.generalization._settings import Settings
from reluflow.generalization.estimates import ClassError, ClusterError

# Blocks of the first round; every round doubles the sample.
_FIRST_ROUND = 8
# Blocks between two looks at the progress bar.
_BLOCKS_A_CALL = 64

Observer = Callable[[int, int], None]


def by_sampling(hidden: HiddenLayer, settings: Settings) -> dict[str, Any]:
    """Fields of an ErrorEstimate."""
    rank = hidden.factors.shape[2]
    block = settings.kernel.SAMPLE_BLOCK
    require_memory("blocks of fresh examples", 8.0 * settings.num_threads * block * rank)
    total = -(-settings.max_samples // block)
    with sampling_progress(settings.progress, total * block) as observer:
        status, tally = _sample(hidden, settings, total, observer)
    return {**counted(hidden.labels, *tally), "method": "sampling", "status": status}


def counted(labels: FloatArray, samples: Sequence[int], errors: Sequence[int]) -> dict[str, Any]:
    """Fields of an ErrorEstimate from draws and errors of each cluster."""
    per_cluster = tuple(
        ClusterError(
            float(label),
            *binomial_estimate(int(wrong), int(drawn)),
            int(drawn),
            int(wrong),
            effective_samples=float(wrong),
        )
        for label, drawn, wrong in zip(labels, samples, errors, strict=True)
    )
    per_class = []
    for label in (-1.0, 1.0):
        mine = [one for one in per_cluster if one.label == label]
        estimate = binomial_estimate(sum(c.errors for c in mine), sum(c.samples for c in mine))
        per_class.append(ClassError(label, *estimate))
    drawn, wrong = int(np.sum(samples)), int(np.sum(errors))
    log10_probability, interval = binomial_estimate(wrong, drawn)
    return {
        "log10_probability": log10_probability,
        "interval": interval,
        "per_cluster": per_cluster,
        "per_class": tuple(per_class),
        "samples": drawn,
        "errors": wrong,
        "first_order": math.nan,
        "effective_samples": float(wrong),
        "check": None,
    }


def binomial_estimate(errors: int, samples: int) -> tuple[float, Interval]:
    """log10 of the probability, and its interval."""
    lower, upper = binomial_interval(errors, samples)
    return log10_of(errors / samples if samples else math.nan), (log10_of(lower), log10_of(upper))


def _sample(
    hidden: HiddenLayer, settings: Settings, total: int, observer: Observer
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


def _count(hidden: HiddenLayer, settings: Settings, first: int, blocks: int) -> Any:
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


def _precise(errors: int, samples: int, rel_error: float) -> bool:
    lower, upper = binomial_interval(errors, samples)
    return errors > 0 and (upper - lower) / 2 <= rel_error * errors / samples
