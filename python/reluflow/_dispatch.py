"""Chooses the compiled kernels for this processor. The only importer of compiled modules.

One module is built per instruction set; the best one that the processor has is loaded. The
environment variable ``RELUFLOW_ISA`` (``v2``, ``v3``, ``v4`` or ``generic``) overrides the choice
and fails when that module was not built or the processor cannot run it: importing raises
`ImportError`, the command ends with one line.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

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
        _refuse("no compiled module was installed; reinstall the package")
    supported = load(built[0]).processor_levels()
    return [level for level in built if level in supported]


def _choose() -> str:
    usable = usable_levels()
    wanted = os.environ.get("RELUFLOW_ISA", "")
    if not wanted:
        if not usable:
            _refuse(f"this processor has none of the instruction sets {built_levels()}")
        return usable[-1]
    if wanted not in usable:
        _refuse(
            f"RELUFLOW_ISA={wanted!r} cannot be used: built {built_levels()}, usable here {usable}"
        )
    return wanted


def _refuse(message: str) -> NoReturn:
    if _is_command(sys.orig_argv):
        # It ends before the command line is there to explain an exception.
        print(f"reluflow: {message}", file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(f"reluflow: {message}")


def _is_command(arguments: list[str]) -> bool:
    """Whether the interpreter was started as ``reluflow`` or with ``-m reluflow``."""
    script = Path(arguments[1]).stem if len(arguments) > 1 else ""
    return script == "reluflow" or ("-m", "reluflow") in pairwise(arguments)


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
