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

# Where Linux keeps control groups, and which of them this process is in.
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def available_threads() -> int:
    """Cores that this process may use: its affinity and its cgroups' quotas, whichever is less."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota()))


def resolve_num_threads(num_threads: int | None) -> int:
    """``num_threads``, but no more than the cores that this process may use; or all of them."""
    if num_threads is None:
        return available_threads()
    return at_most_available(as_positive_int("num_threads", num_threads))


def at_most_available(threads: int) -> int:
    """No more than the cores that this process may use."""
    return threads if threads == 1 else min(threads, available_threads())


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
    """Cores, rounded up, that the tightest quota of a cgroup around this process leaves."""
    return min((math.ceil(share) for share in map(_share, _cgroups()) if share), default=2**31)


def _cgroups() -> Iterator[Path]:
    """Folders of the cgroups that govern this process's time: its own, and all around them.

    A container may see its own cgroup as the root while it is told another path: so the folders of
    a path need not exist, but the root always counts.
    """
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / controllers
        folder = root / path.lstrip("/")
        yield from (folder, *(above for above in folder.parents if above.is_relative_to(root)))


def _share(folder: Path) -> float:
    """Cores that a cgroup allows, of version 2 or 1; 0 where it sets no quota."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return max(0, limit) / int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    return 0.0
