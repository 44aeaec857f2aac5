"""Where a deep network first changes its label along a ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import BoolArray, FloatArray
from reluflow.deep_network import DeepNet
from reluflow.robustness._shallow_rays import first_flips, first_overtaking

# Pieces of a network's restriction to a ray, at most.
_MOST_PIECES = 100_000
# A breakpoint is passed by this much, relative to its distance, so that the next piece is entered.
_BEYOND = 1e-12
# Halvings of the interval in which a network that is no polygon along a ray changes its label.
_BISECTIONS = 50


def piecewise_linear(net: DeepNet) -> bool:
    """Whether the network's restriction to a ray is a polygon."""
    return net.activation in ("relu", "leaky_relu")


def restricted(net: DeepNet) -> tuple[DeepNet, FloatArray]:
    """The network in the row space of its first layer and skip, and an orthonormal basis of that.

    It is all that the network sees of an input: N(x) = N'(B^T x).
    """
    rows = net.weights[0] if net.skip is None else np.vstack([net.weights[0], net.skip])
    basis = np.linalg.qr(rows.T)[0]
    skip = None if net.skip is None else net.skip @ basis
    return net.like([net.weights[0] @ basis, *net.weights[1:]], net.biases, skip), basis


def first_crossings(
    net: DeepNet,
    points: FloatArray,
    directions: FloatArray,
    labels: FloatArray,
    *,
    longest: FloatArray,
    grid: int = 256,
) -> FloatArray:
    """Smallest t in [0, longest] with y N(x + t u) <= 0 for each point x and direction u.

    Infinite where there is none. Exact up to rounding for piecewise linear activations: the rays
    are walked from piece to piece, those of depth 2 from the sorted kinks. For polynomial ones
    ``grid`` points are searched, and the first change of sign bisected: a crossing and its return
    between two of them go unseen.

    Parameters
    ----------
    points, directions : ndarray, shape (n, d)
    labels, longest : ndarray, shape (n,)
    """
    if piecewise_linear(net):
        walk = first_flips if net.depth == 2 else _walk
        return walk(net, points, directions, labels, longest)
    return _search(net, points, directions, labels, longest, grid)


def flip_margin(net: DeepNet, points: FloatArray, labels: FloatArray) -> FloatArray:
    """y N(x): at most 0 where the label is lost."""
    return labels * net(points)


@dataclass(frozen=True)
class _Jet:
    """Values and slopes in t of all pre-activations and outputs of a batch of rays."""

    values: list[FloatArray]
    slopes: list[FloatArray]


def _jet(net: DeepNet, points: FloatArray, directions: FloatArray) -> _Jet:
    values, slopes = [], []
    value, slope = points, directions
    for layer, (weights, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        value = value @ weights.T + (0.0 if bias is None else bias)
        slope = slope @ weights.T
        values.append(value)
        slopes.append(slope)
        if layer + 1 < net.depth:
            # On a kink it is the direction of the ray that decides on which side it goes on.
            active = (value > 0) | ((value == 0) & (slope > 0))
            inactive = net.slope if net.activation == "leaky_relu" else 0.0
            factor = np.where(active, 1.0, inactive)
            value, slope = factor * value, factor * slope
    if net.skip is not None:
        values[-1] = values[-1] + points @ net.skip.T
        slopes[-1] = slopes[-1] + directions @ net.skip.T
    return _Jet(values, slopes)


def _walk(
    net: DeepNet,
    points: FloatArray,
    directions: FloatArray,
    labels: FloatArray,
    longest: FloatArray,
) -> FloatArray:
    found = np.full(len(points), np.inf)
    t = np.zeros(len(points))
    under_way = np.flatnonzero(longest >= 0)
    for _ in range(_MOST_PIECES):
        if len(under_way) == 0:
            return found
        at = points[under_way] + t[under_way, None] * directions[under_way]
        jet = _jet(net, at, directions[under_way])
        step = _to_next_piece(jet)
        flip = _flip_within(net, jet, labels[under_way])
        room = longest[under_way] - t[under_way]
        flips = flip <= np.minimum(step, room)
        found[under_way[flips]] = (t[under_way] + flip)[flips]
        goes_on = ~flips & (step < room)
        here = under_way[goes_on]
        t[here] += step[goes_on] + _BEYOND * (1 + t[here])
        under_way = here
    return found


def _to_next_piece(jet: _Jet) -> FloatArray:
    """Distance to the next kink of a hidden unit."""
    nearest = np.full(len(jet.values[0]), np.inf)
    for value, slope in zip(jet.values[:-1], jet.slopes[:-1], strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(value * slope < 0, -value / slope, np.inf)
        nearest = np.minimum(nearest, distance.min(axis=1))
    return nearest


def _flip_within(net: DeepNet, jet: _Jet, labels: FloatArray) -> FloatArray:
    """Distance at which some output of the other label reaches all of the own label."""
    value, slope = jet.values[-1], jet.slopes[-1]
    if net.class_labels is None:
        alone = labels[:, None, None]
        return first_overtaking(alone * value[:, :, None], alone * slope[:, :, None])
    nearest = np.full(len(value), np.inf)
    for sign in (-1.0, 1.0):
        rows = labels == sign
        own, rivals = net.class_labels == sign, net.class_labels != sign
        gap = value[rows][:, own, None] - value[rows][:, None, rivals]
        change = slope[rows][:, own, None] - slope[rows][:, None, rivals]
        nearest[rows] = first_overtaking(gap, change)
    return nearest


def _search(
    net: DeepNet,
    points: FloatArray,
    directions: FloatArray,
    labels: FloatArray,
    longest: FloatArray,
    grid: int,
) -> FloatArray:
    low = np.zeros(len(points))
    high = np.full(len(points), np.inf)
    high[flip_margin(net, points, labels) <= 0] = 0.0
    for i in range(1, grid + 1):
        open_rays = np.flatnonzero(np.isinf(high) & np.isfinite(longest))
        if len(open_rays) == 0:
            break
        t = longest[open_rays] * (i / grid)
        flipped = _flipped_at(net, points, directions, labels, open_rays, t)
        high[open_rays[flipped]] = t[flipped]
        low[open_rays[~flipped]] = t[~flipped]
    between = np.flatnonzero(np.isfinite(high) & (high > 0))
    for _ in range(_BISECTIONS):
        middle = (low[between] + high[between]) / 2
        flipped = _flipped_at(net, points, directions, labels, between, middle)
        high[between] = np.where(flipped, middle, high[between])
        low[between] = np.where(flipped, low[between], middle)
    return high


def _flipped_at(
    net: DeepNet,
    points: FloatArray,
    directions: FloatArray,
    labels: FloatArray,
    rays: np.ndarray[tuple[int], np.dtype[np.int64]],
    t: FloatArray,
) -> BoolArray:
    at = points[rays] + t[:, None] * directions[rays]
    return np.asarray(flip_margin(net, at, labels[rays]) <= 0)
