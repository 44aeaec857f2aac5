"""Chooses the compiled kernels for this processor. The only importer of compiled modules.

One module is built per instruction set; the best one that the processor has is loaded. The
environment variable ``RELUFLOW_ISA`` (``v2``, ``v3``, ``v4`` or ``generic``) overrides the choice
and fails when that module was not built or the processor cannot run it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reluflow import _core

# From the least to the most demanding.
LEVELS = ("generic", "v2", "v3", "v4")


def built_levels() -> list[str]:
    """Instruction sets for which this installation holds a compiled module."""
    return [level for level in LEVELS if importlib.util.find_spec(f"reluflow._core_{level}")]


def load(level: str) -> ModuleType:
    """The compiled module of one instruction set."""
    return importlib.import_module(f"reluflow._core_{level}")


def usable_levels() -> list[str]:
    """Instruction sets that are built and that this processor has."""
    built = built_levels()
    if not built:
        raise ImportError("reluflow: no compiled module was installed; reinstall the package")
    supported = load(built[0]).processor_levels()
    return [level for level in built if level in supported]


def _choose() -> str:
    usable = usable_levels()
    wanted = os.environ.get("RELUFLOW_ISA", "")
    if not wanted:
        if not usable:
            raise ImportError(
                f"reluflow: this processor has none of the instruction sets {built_levels()}"
            )
        return usable[-1]
    if wanted not in usable:
        raise ImportError(
            f"RELUFLOW_ISA={wanted!r} cannot be used: built {built_levels()}, usable here {usable}"
        )
    return wanted


instruction_set = _choose()
if TYPE_CHECKING:
    core = _core
else:
    core = load(instruction_set)
    # One name for whichever module was chosen, so that stubs and tools find it.
    sys.modules["reluflow._core"] = core


def kernels(backend: str) -> ModuleType:
    """The compiled kernels (``"native"``) or their NumPy twins (``"numpy"``)."""
    if backend == "native":
        return core
    if backend == "numpy":
        return importlib.import_module("reluflow.reference")
    raise ValueError(f"backend={backend!r} is unknown; use 'native' or 'numpy'")
