"""Where a number came from: everything that a rerun needs to know of the installation."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from reluflow._dispatch import instruction_set

__version__ = version("reluflow")


def provenance(*, backend: str = "native", num_threads: int) -> dict[str, Any]:
    """Version, backend, instruction set and threads of a computation."""
    return {
        "version": __version__,
        "backend": backend,
        "instruction_set": instruction_set if backend == "native" else None,
        "num_threads": num_threads,
    }
