"""Where a network of depth 2 first changes its label along a ray, from all its kinks at once.

Along x + t u the hidden unit w has its one kink at t = -(w.x + b) / (w.u), so that all pieces are
known beforehand: outputs are lines between sorted kinks, whose offsets and slopes are cumulative
sums of what each kink changes. These sums, with a bound on their rounding errors, leave a few
pieces that may have a flip, and in these the network is evaluated: a sum that ought to be 0, where
all units are dead, may not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.deep_network import DeepNet

# Numbers in an array of all outputs at all kinks of the rays that are treated at once.
_BLOCK = 1 << 18


def first_overtaking(gap: FloatArray, change: FloatArray) -> FloatArray:
    """Smallest t >= 0 at which some rival has reached all own outputs; infinite if none does.

    Parameters
    ----------
    gap, change : ndarray, shape (n, own, rivals)
        Own output less rival at t = 0, and its slope.
    """
    # A rival wins where all of its gaps are at most 0, an interval of t.
    begin = _first_nonpositive(gap, change).max(axis=1)
    end = _last_nonpositive(gap, change).min(axis=1)
    return np.asarray(np.where(begin <= end, begin, np.inf).min(axis=1))


def _first_nonpositive(value: FloatArray, slope: FloatArray) -> FloatArray:
    """Smallest t >= 0 with value + t slope <= 0, infinite where there is none."""
    falls = slope < 0
    root = -value / np.where(falls, slope, -1.0)
    return np.where(value <= 0, 0.0, np.where(falls, root, np.inf))


def _last_nonpositive(value: FloatArray, slope: FloatArray) -> FloatArray:
    """Largest t with value + t slope <= 0, infinite where there is no end."""
    rises = slope > 0
    return np.where(rises, -value / np.where(rises, slope, 1.0), np.inf)


def first_flips(
    net: DeepNet,
    points: FloatArray,
    directions: FloatArray,
    labels: FloatArray,
    longest: FloatArray,
) -> FloatArray:
    """Smallest t in [0, longest] with y N(x + t u) <= 0, infinite where there is none.

    Of a network of depth 2 that is piecewise linear.

    Parameters
    ----------
    points, directions : ndarray, shape (n, d)
    labels, longest : ndarray, shape (n,)
    """
    found = np.full(len(points), np.inf)
    for sign in (-1.0, 1.0):
        readout = _Readout.of(net, sign)
        chosen = np.flatnonzero((labels == sign) & (longest >= 0))
        at_once = max(1, _BLOCK // ((len(net.weights[0]) + 1) * len(readout.weights)))
        for begin in range(0, len(chosen), at_once):
            block = chosen[begin : begin + at_once]
            rays = _Rays.of(net, readout, points[block], directions[block], longest[block])
            found[block] = rays.first_flip()
    return found


@dataclass(frozen=True)
class _Readout:
    """Outputs of examples of one label, those of that label first; the others are rivals.

    A single output, times the label, has the constant 0 as its rival.
    """

    weights: FloatArray
    bias: FloatArray
    skip: FloatArray
    own: int

    @classmethod
    def of(cls, net: DeepNet, sign: float) -> _Readout:
        weights = net.weights[1]
        bias = np.zeros(len(weights)) if net.biases[1] is None else net.biases[1]
        skip = np.zeros((len(weights), net.dim)) if net.skip is None else net.skip
        if net.class_labels is None:
            weights, bias, skip = (
                np.concatenate([sign * own, np.zeros_like(own)]) for own in (weights, bias, skip)
            )
            return cls(weights, bias, skip, 1)
        order = np.argsort(net.class_labels != sign, kind="stable")
        own = int((net.class_labels == sign).sum())
        return cls(weights[order], bias[order], skip[order], own)


@dataclass(frozen=True)
class _Rays:
    """Rays of examples of one label, as hidden units and outputs see them.

    Attributes
    ----------
    readout : _Readout
    inactive : float
        Slope of the activation below 0.
    values, slopes : ndarray, shape (n, m)
        Pre-activations at t = 0, and their slopes in t.
    active : ndarray of bool, shape (n, m)
        At first.
    kinks : ndarray, shape (n, m)
        Infinite where there is none before the end.
    direct, direct_slopes : ndarray, shape (n, outputs)
        What does not come from hidden units: biases and the skip connection.
    longest : ndarray, shape (n,)
    """

    readout: _Readout
    inactive: float
    values: FloatArray
    slopes: FloatArray
    active: BoolArray
    kinks: FloatArray
    direct: FloatArray
    direct_slopes: FloatArray
    longest: FloatArray

    @classmethod
    def of(
        cls,
        net: DeepNet,
        readout: _Readout,
        points: FloatArray,
        directions: FloatArray,
        longest: FloatArray,
    ) -> _Rays:
        z = points @ net.weights[0].T + (0.0 if net.biases[0] is None else net.biases[0])
        s = directions @ net.weights[0].T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            kinks = -z / s
        return cls(
            readout,
            net.slope if net.activation == "leaky_relu" else 0.0,
            z,
            s,
            # On a kink it is the direction of the ray that decides on which side it goes on.
            (z > 0) | ((z == 0) & (s > 0)),
            np.where((kinks > 0) & (kinks < longest[:, None]), kinks, np.inf),
            points @ readout.skip.T + readout.bias,
            directions @ readout.skip.T,
            longest,
        )

    def first_flip(self) -> FloatArray:
        """Smallest t at which a rival reaches all own outputs, for each ray."""
        starts, suspect = self._suspects()
        ends = np.concatenate([starts[:, 1:], self.longest[:, None]], axis=1)
        found = np.full(len(starts), np.inf)
        while len(rays := np.flatnonzero(suspect.any(axis=1))):
            piece = suspect[rays].argmax(axis=1)
            begin = starts[rays, piece]
            flip = begin + first_overtaking(*self._gaps(rays, begin))
            flips = flip <= ends[rays, piece]
            found[rays[flips]] = flip[flips]
            suspect[rays, piece] = False
            suspect[rays[flips]] = False
        return found

    def _gaps(self, rays: IntArray, t: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Own outputs less rivals just beyond t, and slopes, shape (n, own, rivals)."""
        factor = self._factor(self.active[rays] ^ (self.kinks[rays] <= t[:, None]))
        slopes = factor * self.slopes[rays] @ self.readout.weights.T + self.direct_slopes[rays]
        hidden = factor * (self.values[rays] + t[:, None] * self.slopes[rays])
        direct = self.direct[rays] + t[:, None] * self.direct_slopes[rays]
        values, own = hidden @ self.readout.weights.T + direct, self.readout.own
        return (
            values[:, :own, None] - values[:, None, own:],
            slopes[:, :own, None] - slopes[:, None, own:],
        )

    def _factor(self, active: BoolArray) -> FloatArray:
        return np.where(active, 1.0, self.inactive)

    def _suspects(self) -> tuple[FloatArray, BoolArray]:
        """Where pieces begin, in order, and which may have a flip, both of shape (n, pieces).

        Rays with fewer kinks than others have empty pieces before their last.
        """
        most = np.isfinite(self.kinks).sum(axis=1).max(initial=0)
        order = np.argsort(self.kinks, axis=1)[:, :most]
        kinks = np.take_along_axis(self.kinks, order, 1)
        passed = np.isfinite(kinks)
        factor = self._factor(self.active)
        other = self._factor(~self.active)
        turn = np.where(passed, np.take_along_axis(other - factor, order, 1), 0.0)
        weights = self.readout.weights.T[order]

        def pieces(hidden: FloatArray, direct: FloatArray) -> tuple[FloatArray, FloatArray]:
            """Outputs, to be added up, and the size of what is added."""
            first = factor * hidden
            changes = (turn * np.take_along_axis(hidden, order, 1))[:, :, None] * weights
            start = (first @ self.readout.weights.T + direct)[:, None]
            summed = np.cumsum(np.concatenate([start, changes], axis=1), axis=1)
            terms = np.abs(first) @ np.abs(self.readout.weights.T) + np.abs(direct)
            return summed, np.maximum(np.abs(summed).max(axis=(1, 2)), terms.max(axis=1))

        offsets, offset_size = pieces(self.values, self.direct)
        slopes, slope_size = pieces(self.slopes, self.direct_slopes)
        first = np.zeros((len(kinks), 1))
        starts = np.maximum.accumulate(
            np.concatenate([first, np.where(passed, kinks, 0.0)], axis=1), axis=1
        )
        values = offsets + starts[:, :, None] * slopes
        roundings = (self.kinks.shape[1] + most) * np.finfo(np.float64).eps
        error = roundings * (offset_size[:, None] + starts * slope_size[:, None])
        return starts, ~self._clear(values, 2 * error)

    def _clear(self, values: FloatArray, least: FloatArray) -> BoolArray:
        """Which pieces are without a flip, from outputs where pieces begin, within ``least``.

        Those where an own output is above all rivals at both ends: the largest rival is convex,
        hence below its chord, and that output is a line. Last pieces may be endless.
        """
        count = self.readout.own
        own, barrier = values[:, :, :count], values[:, :, count:].max(axis=2) + least
        leader = own.argmax(axis=2)[:, :, None]

        def ahead(place: slice, chosen: slice) -> BoolArray:
            """Whether what leads at one end of the pieces is above all rivals at an end."""
            output = np.take_along_axis(own[:, place], leader[:, chosen], 2)[:, :, 0]
            return np.asarray(output > barrier[:, place])

        start, end = slice(None, -1), slice(1, None)
        clear = (ahead(start, start) & ahead(end, start)) | (ahead(start, end) & ahead(end, end))
        return np.concatenate([clear, np.zeros((len(clear), 1), dtype=bool)], axis=1)
