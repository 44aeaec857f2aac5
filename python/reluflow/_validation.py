"""Checks at the public door: one line that names the argument, what was wrong, what is right.

Kernels assume what these functions establish: C-contiguous float64 arrays, finite, of agreeing
shapes, labels exactly -1 and +1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)

# Every integer up to this one is a float64.
_LARGEST_INT = 2**53


def as_array(name: str, value: Any, ndim: int) -> FloatArray:
    """``value`` as a finite C-contiguous float64 array of ``ndim`` dimensions."""
    try:
        raw = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array of numbers: {error}") from None
    if raw.dtype.kind not in "bifu":
        raise TypeError(f"{name} must be real numbers; its dtype is {raw.dtype}")
    if raw.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s); its shape is {raw.shape}")
    if raw.dtype.kind in "iu" and raw.size and max(-int(raw.min()), int(raw.max())) > _LARGEST_INT:
        raise ValueError(f"{name} holds integers beyond 2**53, which float64 cannot represent")
    array = np.ascontiguousarray(raw, dtype=np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"{name} must be finite; {count} of {array.size} entries are not, "
            f"the first at index {where}"
        )
    return array


def as_integers(name: str, value: Any) -> IntArray:
    """``value`` as a vector of integers; floats without a fractional part are taken."""
    array = as_array(name, value, 1)
    if (array != np.rint(array)).any():
        first = int(np.argmax(array != np.rint(array)))
        raise ValueError(f"{name} must be integers; entry {first} is {array[first]:g}")
    return array.astype(np.int64)


def as_labels(
    name: str, value: Any, length: int | None = None, *, per: str = "an example"
) -> FloatArray:
    """``value`` as a vector of labels -1 and +1."""
    labels = as_array(name, value, 1)
    if length is not None and len(labels) != length:
        raise ValueError(f"{name} must have one label {per}: {length}; it has {len(labels)}")
    found = np.unique(labels)
    if not np.isin(found, (-1.0, 1.0)).all():
        shown = ", ".join(f"{value:g}" for value in found[:5])
        hint = f"convert with {name} = 2 * {name} - 1" if set(found) <= {0.0, 1.0} else "relabel"
        raise ValueError(
            f"{name} must be -1 or +1; found {shown}{'...' * (len(found) > 5)}; {hint}"
        )
    return labels


def require_both_classes(name: str, labels: FloatArray) -> None:
    """Refuses labels of one class only."""
    if len(labels) and (labels == labels[0]).all():
        raise ValueError(
            f"{name} must hold both classes; all {len(labels)} labels are {labels[0]:+g}"
        )


def frozen(array: NDArray[_T]) -> NDArray[_T]:
    """A read-only array of its own; what is read-only already is not copied."""
    if array.flags.writeable or not array.flags.owndata:
        array = array.copy()
        array.setflags(write=False)
    return array


def as_positive_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """``value`` as an integer of at least ``minimum``; 5.0 and NumPy integers are taken."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value in (np.inf, -np.inf) or value != value or int(value) != value:
        raise ValueError(f"{name} must be an integer; got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value!r}")
    return int(value)


def as_number(
    name: str, value: Any, *, above: float | None = None, at_least: float | None = None
) -> float:
    """``value`` as a float that is not NaN, within the bounds that are given."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number; got {value!r}")
    number = float(value)
    if np.isnan(number):
        raise ValueError(f"{name} must be a number; got nan")
    if above is not None and not number > above:
        raise ValueError(f"{name} must be above {above:g}; got {number:g}")
    if at_least is not None and not number >= at_least:
        raise ValueError(f"{name} must be at least {at_least:g}; got {number:g}")
    return number


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    """``value``, one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(choices)}")
    return str(value)


def require_memory(what: str, n_bytes: float) -> None:
    """Refuses, before anything is allocated, what does not fit into the memory that is free."""
    available = available_memory()
    if available is not None and n_bytes > available:
        raise MemoryError(
            f"{what} needs {n_bytes / 2**30:,.1f} GiB; {available / 2**30:,.1f} GiB are available"
        )


def available_memory() -> float | None:
    """Bytes that can be allocated now, or None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            for line in table:
                if line.startswith("MemAvailable:"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    return None
