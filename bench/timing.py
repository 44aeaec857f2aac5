"""Interleaved timing: every contender in turn, again and again, so that drift hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Samples:
    """Seconds a call, one entry a repeat: of the wall clock, and of all threads' processors."""

    wall: list[float]
    cpu: list[float]

    def over(self, units: float) -> Samples:
        """A unit's share."""
        return Samples([t / units for t in self.wall], [t / units for t in self.cpu])

    def less(self, other: Samples) -> Samples:
        """What is left of each repeat without the same repeat of another contender."""
        return Samples(
            [a - b for a, b in zip(self.wall, other.wall, strict=True)],
            [a - b for a, b in zip(self.cpu, other.cpu, strict=True)],
        )


def interleaved(
    contenders: dict[Name, Callable[[], object]], *, repeats: int = 7, seconds: float = 0.05
) -> dict[Name, Samples]:
    """Times of every contender, each called as often a repeat as fits ``seconds``, but once."""
    counts = {name: _calls_for(call, seconds) for name, call in contenders.items()}
    times = {name: Samples([], []) for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(counts[name]):
                call()
            times[name].cpu.append((time.process_time() - cpu) / counts[name])
            times[name].wall.append((time.perf_counter() - wall) / counts[name])
    return times


def once(call: Callable[[], object]) -> Samples:
    """Time of a single call: for what takes too long to repeat."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Samples([wall], [cpu])


def ratios(times: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of time over reference, pair by pair."""
    pairs = [a / b for a, b in zip(times, reference, strict=True)]
    if len(pairs) == 1:
        return pairs[0], pairs[0], pairs[0]
    low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive")
    return low, middle, high


def _calls_for(call: Callable[[], object], seconds: float) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, int(seconds / max(time.perf_counter() - start, 1e-9)))
