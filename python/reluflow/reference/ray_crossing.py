"""Where a network along a half-line first changes its sign, exactly."""

from __future__ import annotations

import numpy as np

from reluflow._validation import FloatArray

_UNIT_ROUNDOFF = np.finfo(np.float64).eps / 2


def ray_crossings(
    preactivations: FloatArray,
    slopes: FloatArray,
    signs: FloatArray,
    output: FloatArray,
    constant: float,
    labels: FloatArray,
    strict: bool,
    num_threads: int,
) -> FloatArray:
    """First t >= 0 at which y N(t) <= 0, or the infimum of those with y N(t) < 0; inf if none.

    Row i of ``preactivations`` (n, R) moves with slopes ``signs[i] * slopes``; its N is
    ``constant`` + sum_j output_j relu(.), and y = ``labels[i]``.
    """
    return np.array(
        [
            first_crossing(a, sign * slopes, y * output, y * constant, strict)
            for a, sign, y in zip(preactivations, signs, labels, strict=True)
        ]
    )


def first_crossing(
    a: FloatArray, d: FloatArray, v: FloatArray, constant: float, strict: bool
) -> float:
    """First crossing of N(t) = constant + sum_j v_j relu(a_j + t d_j)."""
    at_zero = constant + v @ np.maximum(a, 0)
    if at_zero < 0 or (at_zero == 0 and not strict):
        return 0.0
    moving = (a * d < 0) & (v != 0)
    breakpoints = np.sort(-a[moving] / d[moving])
    begin = 0.0
    for end in breakpoints:
        value = _value(a, d, v, constant, end)
        if value < 0 or (value == 0 and not strict):
            return float(np.clip(_root(a, d, v, constant, begin, end), begin, end))
        begin = end
    # Behind the last breakpoint N is one line.
    slope = v[d > 0] @ d[d > 0]
    if slope < -len(v) * _UNIT_ROUNDOFF * (np.abs(v) @ np.abs(d)):
        return max(_root(a, d, v, constant, begin, np.inf), begin)
    return np.inf


def _value(a: FloatArray, d: FloatArray, v: FloatArray, constant: float, t: float) -> float:
    """N(t), exactly zero where it is zero up to the rounding of its terms."""
    z = a + t * d
    active = z > 0
    terms = np.abs(v) * (np.abs(a) + t * np.abs(d))
    # A neuron at its breakpoint rounds to either side of zero.
    active |= np.abs(z) <= 4 * _UNIT_ROUNDOFF * (np.abs(a) + t * np.abs(d))
    value = constant + v[active] @ z[active]
    magnitude = abs(constant) + terms[active].sum()
    return 0.0 if abs(value) <= (4 + active.sum()) * _UNIT_ROUNDOFF * magnitude else float(value)


def _root(
    a: FloatArray, d: FloatArray, v: FloatArray, constant: float, begin: float, end: float
) -> float:
    """Zero of the line that N follows between two neighbouring breakpoints."""
    middle = begin + 1.0 if np.isinf(end) else (begin + end) / 2
    active = a + middle * d > 0
    slope = v[active] @ d[active]
    return float(-(constant + v[active] @ a[active]) / slope) if slope < 0 else np.inf
