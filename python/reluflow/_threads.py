"""How many threads a call may use."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from reluflow._validation import as_positive_int

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_threads() -> int:
    """Cores that this process may use: its affinity and its cgroup's quota, whichever is less."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota()))


def resolve_num_threads(num_threads: int | None) -> int:
    """``num_threads`` as given, or all cores that this process may use."""
    if num_threads is None:
        return available_threads()
    return as_positive_int("num_threads", num_threads)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps linear algebra libraries to one thread, on which their rounding depends.

    It is also what makes many small factorisations fast: a library that shares each of them out
    waits for its other threads, on a busy machine for very long.
    """
    with _blas_controller().limit(limits=1):
        yield


@cache
def _blas_controller() -> Any:
    # SciPy brings a library of its own, which has to be loaded to be found.
    importlib.import_module("scipy.linalg")
    return importlib.import_module("threadpoolctl").ThreadpoolController()


def _quota() -> int:
    try:
        quota, period = _CGROUP_QUOTA.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return 2**31
