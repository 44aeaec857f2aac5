"""What estimators of the test error share."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from reluflow._validation import FloatArray, as_number

# Streams of draws, told apart by a few bits of their block numbers.
LINES, IMPORTANCE, RADII = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Settings:
    """Kernels, random stream, accuracy and time."""

    kernel: ModuleType
    key: int
    strict: bool
    rel_error: float
    max_samples: int
    deadline: float
    num_threads: int
    progress: bool

    def seconds_left(self) -> float:
        """Until the deadline; may be negative."""
        return self.deadline - time.perf_counter()

    def within(self, share: float) -> Settings:
        """The same, with a share of the time that is left."""
        now = time.perf_counter()
        return replace(self, deadline=now + share * max(self.deadline - now, 0.0))

    def normals(self, stream: Stream, rows: int, columns: int) -> FloatArray:
        """Standard normals, shape (rows, columns): the next block of the stream."""
        draws = self.kernel.standard_normals(self.key, stream.next(), rows * columns)
        return np.asarray(draws).reshape(rows, columns)

    def uniforms(self, stream: Stream, count: int) -> FloatArray:
        """Uniforms on [0, 1): the next block of the stream."""
        return np.asarray(self.kernel.uniforms(self.key, stream.next(), count))


class Stream:
    """Numbers of blocks of draws that nothing else uses: of one estimator, cluster and part."""

    def __init__(self, purpose: int, cluster: int, part: int = 0) -> None:
        self._block = (purpose << 60) | (cluster << 36) | (part << 28)

    def next(self) -> int:
        """The next number."""
        self._block += 1
        return self._block


def stream_key(seed: Any) -> int:
    """Key of the random streams that follow from a seed."""
    return int(np.random.default_rng(seed).integers(2**64, dtype=np.uint64))


def deadline_of(max_seconds: float | None) -> float:
    """When the time allowed ends."""
    if max_seconds is None:
        return math.inf
    return time.perf_counter() + as_number("max_seconds", max_seconds, at_least=0)
