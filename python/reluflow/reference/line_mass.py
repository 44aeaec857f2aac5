"""Gaussian probability of what is flipped along lines, exact and in log space."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr

from reluflow._validation import BoolArray, FloatArray

_UNIT_ROUNDOFF = float(np.finfo(float).eps) / 2
_TERM_ROUNDINGS = 4.0


def log_line_masses(
    preactivations: FloatArray,
    slopes: FloatArray,
    output: FloatArray,
    constant: float,
    lower: FloatArray,
    upper: FloatArray,
    strict: bool,
    num_threads: int,
) -> FloatArray:
    """For every line i, log of the standard normal probability of the t in [lower_i, upper_i]
    with constant + sum_j output_j relu(preactivations_ij + t slopes_j) <= 0 (or < 0).
    """
    masses = np.full(len(preactivations), -np.inf)
    for i, (a, low, high) in enumerate(zip(preactivations, lower, upper, strict=True)):
        for begin, end in _flipped_intervals(a, slopes, output, constant, strict):
            mass = log_normal_mass(max(begin, low), min(end, high))
            masses[i] = np.logaddexp(masses[i], mass)
    return masses


def log_normal_mass(begin: float, end: float) -> float:
    """log of the standard normal probability of [begin, end]; -inf where it is empty."""
    if not begin < end:
        return -math.inf
    if end <= 0:
        begin, end = -end, -begin
    if begin < 0:
        outside = math.exp(log_ndtr(begin)) + math.exp(log_ndtr(-end))
        if outside < 0.5:
            return math.log1p(-outside)
        return math.log((math.erf(end / math.sqrt(2)) - math.erf(begin / math.sqrt(2))) / 2)
    near, far = float(log_ndtr(-begin)), float(log_ndtr(-end))
    return near + math.log(-math.expm1(far - near)) if far < near else -math.inf


def _flipped_intervals(
    a: FloatArray, slopes: FloatArray, output: FloatArray, constant: float, strict: bool
) -> list[tuple[float, float]]:
    """Where N is flipped. N is linear between breakpoints, so what it is at those decides."""
    moving = (slopes != 0) & (output != 0)
    still = constant + float(output[~moving] @ np.maximum(a[~moving], 0.0))
    a, s, v = a[moving], slopes[moving], output[moving]
    breakpoints = np.sort(-a / s)
    values = _values(a, s, v, still, breakpoints)
    flipped = values < 0 if strict else values <= 0
    falls_left, falls_right = _ends(s, v, flipped, still < 0 if strict else still <= 0)
    states = [falls_left, *flipped.tolist(), falls_right]
    ends = [-math.inf, *breakpoints.tolist(), math.inf]
    intervals, start = [], -math.inf
    for i in range(1, len(states)):
        if states[i] == states[i - 1]:
            continue
        crossing = min(max(_root(a, s, v, still, ends[i - 1], ends[i]), ends[i - 1]), ends[i])
        if states[i]:
            start = crossing
        else:
            intervals.append((start, crossing))
    return [*intervals, (start, math.inf)] if states[-1] else intervals


def _values(
    a: FloatArray, s: FloatArray, v: FloatArray, still: float, at: FloatArray
) -> FloatArray:
    """N at the breakpoints; what is rounding error alone is 0."""
    terms = a + at[:, None] * s
    # At its own breakpoint a neuron is 0.
    terms[np.isclose(at[:, None], -a / s, rtol=4 * _UNIT_ROUNDOFF, atol=0)] = 0.0
    active = terms > 0
    values = still + np.where(active, terms, 0.0) @ v
    magnitude = abs(still) + (active * (np.abs(a) + np.abs(at[:, None] * s))) @ np.abs(v)
    roundings = _TERM_ROUNDINGS + active.sum(axis=1)
    values[np.abs(values) <= roundings * _UNIT_ROUNDOFF * magnitude] = 0.0
    return np.asarray(values)


def _ends(s: FloatArray, v: FloatArray, flipped: BoolArray, still: bool) -> tuple[bool, bool]:
    """Whether N is flipped at minus and at plus infinity."""
    blur = (len(v) + _TERM_ROUNDINGS) * _UNIT_ROUNDOFF * float(np.abs(v) @ np.abs(s))
    left, right = float(v @ np.minimum(s, 0.0)), float(v @ np.maximum(s, 0.0))
    nearest = (bool(flipped[0]), bool(flipped[-1])) if len(flipped) else (still, still)
    return (
        left > 0 if abs(left) > blur else nearest[0],
        right < 0 if abs(right) > blur else nearest[1],
    )


def _root(
    a: FloatArray, s: FloatArray, v: FloatArray, still: float, begin: float, end: float
) -> float:
    """Zero of the line that N follows between two breakpoints."""
    left = begin if math.isfinite(begin) else min(end, 0.0) * 2 - 1
    right = end if math.isfinite(end) else max(begin, 0.0) * 2 + 1
    inside = 0.5 * (left + right)
    active = a + inside * s > 0
    value, slope = still + float(v[active] @ a[active]), float(v[active] @ s[active])
    return -value / slope if slope != 0 else begin
