"""Sums of products of floating-point numbers without any rounding, in integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from reluflow._validation import FloatArray

_DIGITS = 53


def _integers(values: FloatArray, exponent: int | None = None) -> tuple[Any, int]:
    """Python integers i and one exponent e with values = i 2^e."""
    mantissas, exponents = np.frexp(values)
    integers = np.ldexp(mantissas, _DIGITS).astype(np.int64).astype(object)
    exponents = exponents.astype(np.int64) - _DIGITS
    used = exponents[mantissas != 0]
    least = int(used.min()) if used.size else 0
    if exponent is not None:
        least = min(least, exponent)
    shifts = np.maximum(exponents - least, 0).astype(object)
    return np.asarray(integers * 2**shifts, dtype=object), least


def combines_to_zero(c: FloatArray, W: FloatArray) -> bool:
    """Whether c W = 0."""
    used = c != 0
    coefficients, _ = _integers(c[used])
    rows, _ = _integers(W[used])
    return not np.any(coefficients @ rows)


def sign_of_output(W: FloatArray, b: FloatArray, v: FloatArray, x: FloatArray) -> int:
    """The sign of sum_j v_j relu(w_j . x + b_j): -1, 0 or 1."""
    rows, row_exponent = _integers(W)
    inputs, input_exponent = _integers(x)
    exponent = row_exponent + input_exponent
    bias, least = _integers(b, exponent)
    z = (rows @ inputs) * 2 ** (exponent - least) + bias
    output, _ = _integers(v)
    total = int(output @ np.array([max(0, value) for value in z], dtype=object))
    return (total > 0) - (total < 0)
