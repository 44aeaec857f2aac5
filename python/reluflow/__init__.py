"""Implicit bias of gradient flow in two-layer ReLU networks.

From clusters to a two-layer ReLU network, its gradient flow and KKT point, its test error, and
its smallest perturbations. See docs/theory.md for the mathematics.

The public names are those that `__init__.pyi` imports. They are loaded when they are first asked
for: SciPy alone takes longer to load than many a call to run.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

# Chooses the instruction set, and fails at once where that cannot be used.
from reluflow import _dispatch as _dispatch
from reluflow._provenance import __version__ as __version__


def _homes() -> dict[str, str]:
    """Module of every public name."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_HOMES = _homes()
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None and home != __name__:
        value = getattr(importlib.import_module(home), name)
    elif home is not None or f"{__name__}.{name}" in _HOMES.values():
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
