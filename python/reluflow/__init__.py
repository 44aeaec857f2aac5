"""Implicit bias of gradient flow in two-layer ReLU networks.

From clusters to a two-layer ReLU network, its gradient flow and KKT point, its test error, and
its smallest perturbations. See docs/theory.md for the mathematics.

The public names are those of `__init__.pyi`. They are loaded when they are first asked for: SciPy
alone takes longer to load than many a call to run.
"""

import lazy_loader

# Chooses the instruction set, and fails at once where that cannot be used.
from reluflow import _dispatch as _dispatch
from reluflow._provenance import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
