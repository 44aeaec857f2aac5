"""A lock on a file, which ends with the process however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

# Descriptors of the locks that this process holds.
_held: set[int] = set()


class FileLock:
    """The only holder of a lock file, which is there only as long as somebody holds it.

    Raises
    ------
    BlockingIOError
        If somebody else holds it.
    OSError
        If the file cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = _locked(path)
        while descriptor is None:
            descriptor = _locked(path)
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Lets others in."""
        # Removed while it is still locked: whoever has opened it by then notices, and begins anew.
        with contextlib.suppress(OSError):
            self.path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None if an earlier holder removed the file meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_file(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    """A forked worker does not keep the lock of a driver that has ended."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)
