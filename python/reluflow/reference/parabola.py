"""Parabolas above w relu on an interval. docs/theory.md, section 7.6."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray


@dataclass(frozen=True)
class Parabolas:
    """k z^2 + linear z + fixed >= w relu(z) for low <= z <= high, entry by entry.

    Of all such parabolas of curvature k it is the one whose distances from 0 on the left and from
    w z on the right balance: it touches both lines, or passes through the end of a line that is
    too short to be touched.
    """

    k: FloatArray
    w: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def fixed(self) -> FloatArray:
        """The value at 0."""
        low, high = self._finite
        return self._choose(
            self.w**2 / (16 * self.k),
            (np.sqrt(self.k) * self._end - np.sqrt(self.w * self._end)) ** 2,
            low * (self.k * high - self.w * high / (high - low)),
        )

    @property
    def linear(self) -> FloatArray:
        """The slope at 0."""
        low, high = self._finite
        root = np.sqrt(self.k * self.w * self._end)
        right = 2 * (root - self.k * self._end)
        return self._choose(
            self.w / 2,
            np.where(self._mirrored, self.w - right, right),
            self.w * high / (high - low) - self.k * (low + high),
        )

    def derivatives(self, z: FloatArray) -> dict[str, FloatArray]:
        """Of the value at z: in k and w once (``k``, ``w``) and twice, and those of the slope
        there (``zk``, ``zw``).
        """
        k, w, end = self.k, self.w, self._end
        # (sqrt(k) e - sqrt(w end))^2 with e the distance from the end that it passes through;
        # mirrored, w z comes on top.
        sign = np.where(self._mirrored, 1.0, -1.0)
        e, root = end + sign * z, np.sqrt(w * end / k)
        extra = np.where(self._mirrored, 1.0, 0.0)
        share = np.sqrt(k * end / w)
        zero = np.zeros_like(z)
        low, high = self._finite
        return {
            "k": self._choose(z**2 - w**2 / (16 * k**2), e * (e - root), (z - low) * (z - high)),
            "w": self._choose(
                z / 2 + w / (8 * k), end - e * share + extra * z, high * (z - low) / (high - low)
            ),
            "kk": self._choose(w**2 / (8 * k**3), e * root / (2 * k), zero),
            "kw": self._choose(-w / (8 * k**2), -e * root / (2 * w), zero),
            "ww": self._choose(1 / (8 * k), e * share / (2 * w), zero),
            "zk": self._choose(2 * z, sign * (2 * e - root), 2 * z - low - high),
            "zw": self._choose(0.5 + zero, extra - sign * share, high / (high - low) + zero),
        }

    @property
    def _finite(self) -> tuple[FloatArray, FloatArray]:
        """The ends; any numbers for those that no parabola passes through."""
        low, high = np.isfinite(self.low), np.isfinite(self.high)
        return np.where(low, self.low, -1.0), np.where(high, self.high, 1.0)

    @property
    def _end(self) -> FloatArray:
        """The nearer one; any number where both are infinite."""
        near = np.minimum(-self.low, self.high)
        return np.where(np.isfinite(near), near, 1.0)

    @property
    def _mirrored(self) -> FloatArray:
        return np.asarray(self.high > -self.low)

    def _choose(self, both: FloatArray, one: FloatArray, none: FloatArray) -> FloatArray:
        """By how many lines the parabola touches."""
        near = np.minimum(-self.low, self.high)
        some = np.where(self.k * (self.high - self.low) ** 2 < self.w * near, none, one)
        return np.where(self.w <= 4 * self.k * near, both, some)


def touching_curvature(
    w: FloatArray, z: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """The curvatures of the parabolas that touch w relu at z, inside of (low, high); infinite at
    the kink.
    """
    distance = np.abs(z)
    other = np.minimum(distance, np.where(z < 0, high, -low))
    k = np.full_like(z, np.inf)
    np.divide(w * other, (distance + other) ** 2, out=k, where=distance > 0)
    return k
