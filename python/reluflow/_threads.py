"""How many threads a call may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

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


def _quota() -> int:
    try:
        quota, period = _CGROUP_QUOTA.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return 2**31
