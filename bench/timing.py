"""Interleaved timing: every contender in turn, again and again, so that drift hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved(
    contenders: dict[str, Callable[[], None]], *, repeats: int = 7, seconds: float = 0.05
) -> dict[str, list[float]]:
    """Seconds a call of every contender, one list entry a repeat."""
    counts = {name: _calls_for(call, seconds) for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - start) / counts[name])
    return times


def median_ratio(times: list[float], reference: list[float]) -> float:
    """Median over the repeats of time over reference, pair by pair."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def _calls_for(call: Callable[[], None], seconds: float) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, int(seconds / max(time.perf_counter() - start, 1e-9)))
