"""What the multipliers of one proof step show, with every rounding error counted.

For a point x with label y and a perturbation u, z = a + W u with a = W x + b, and y N = sum_j o_j
relu(z_j) with o = y v. Supporting neurons have o_j > 0, opposing ones o_j < 0. Everything here
holds for every u that flips the point, is shorter than `radius`, and has low <= z <= high.
docs/theory.md, sections 7.3 to 7.6 and 7.10.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from reluflow._validation import BoolArray, FloatArray
from reluflow.certificates.archive import CertificateError
from reluflow.certificates.ball import Ball, down, gamma, least_eigenvalue, norm_upper, up
from reluflow.certificates.exact import combines_to_zero

# How far above its bound a product that was rounded may lie.
_ROUNDED = 1 + 1e-12
# An eigenvalue that is bounded from above is bounded by this much more.
_LARGER = 1 + 1e-7


class Network:
    """The neurons, exactly as they are stored."""

    def __init__(self, W: FloatArray, b: FloatArray, v: FloatArray) -> None:
        self.W, self.b, self.v = W, b, v
        self.norms = np.where(W.any(axis=1), norm_upper(W), 0.0)

    @cached_property
    def gram(self) -> Ball:
        """W W^T."""
        return Ball(self.W) @ Ball(self.W.T)

    @cached_property
    def lipschitz(self) -> float:
        """Above |N(x) - N(x')| / ||x - x'||: docs/theory.md, section 7.7."""
        moved = (self.norms > 0) & (self.v != 0)
        v = np.abs(self.v[moved])
        total = float((Ball(v) @ self.norms[moved]).upper)
        scale = np.sqrt(v / self.norms[moved])
        if not moved.any() or not np.isfinite(scale).all() or not scale.all():
            return total
        S = self.gram[np.ix_(moved, moved)] * scale[:, None] * scale
        square = float(np.linalg.eigvalsh(S.mid)[-1]) * _LARGER
        if not least_eigenvalue(Ball(square * np.eye(len(v))) - S) > 0:
            return total
        rest = float(norm_upper(up(v / scale)))
        return min(total, float(up(up(np.sqrt(square)) * rest)))


class Region(NamedTuple):
    """Intervals of the pre-activations; changed in place."""

    low: FloatArray
    high: FloatArray

    def copy(self) -> Region:
        """Intervals that change independently of these."""
        return Region(self.low.copy(), self.high.copy())

    @property
    def empty(self) -> bool:
        """Whether no u has such pre-activations."""
        return bool((self.low > self.high).any())

    @property
    def undecided(self) -> BoolArray:
        """Which neurons may have either sign."""
        return ~((self.low >= 0) | (self.high <= 0))

    def cut(self, chosen: BoolArray, low: FloatArray, high: FloatArray) -> None:
        """Intersects the intervals of some neurons with others."""
        # A comparison with nan says no.
        self.low[chosen] = np.where(low > self.low[chosen], low, self.low[chosen])
        self.high[chosen] = np.where(high < self.high[chosen], high, self.high[chosen])


class Point:
    """One example as the proofs see it."""

    def __init__(self, network: Network, x: FloatArray, y: float) -> None:
        self.network = network
        self.output = y * network.v
        self.supporting, self.opposing = self.output > 0, self.output < 0
        self.preactivations = Ball(network.W) @ x + network.b

    @property
    def weights(self) -> FloatArray:
        """|o_j| at opposing neurons, 0 elsewhere."""
        return np.where(self.opposing, -self.output, 0.0)

    @property
    def value(self) -> Ball:
        """y N(x)."""
        a = self.preactivations
        low, high = np.maximum(a.lower, 0), np.maximum(a.upper, 0)
        return Ball(self.output) @ Ball((low + high) / 2, up(up(high - low)))

    def ball_region(self, radius: float) -> Region:
        """The intervals of ||u|| <= radius."""
        moved = self.network.norms > 0
        reach = np.zeros(len(moved))
        reach[moved] = up(self.network.norms[moved] * radius)
        return Region(
            down(self.preactivations.lower - reach), up(self.preactivations.upper + reach)
        )

    def never_opposed(self, region: Region) -> bool:
        """Whether no opposing neuron can be active, so that y N >= 0."""
        return bool((region.high[self.opposing] <= 0).all())

    # --- one neuron at a time -------------------------------------------------------------------

    def survives(self, radius: float) -> bool:
        """Whether y N(x + u) > 0 for ||u|| <= radius even if every neuron moved its own worst way,
        or by the Lipschitz constant.
        """
        region = self.ball_region(radius)
        worst = np.where(self.supporting, region.low, region.high)
        if (Ball(self.output) @ np.maximum(worst, 0)).lower > 0:
            return True
        return bool(self.value.lower > up(radius * self.network.lipschitz))

    # --- planes ---------------------------------------------------------------------------------

    def plane(self, region: Region, sigma: FloatArray, radius: float) -> float:
        """Distance of a plane below y N, which then cuts the region down to a cap."""
        largest = np.where(self.supporting, self.output, 0)
        if not ((sigma >= 0) & (sigma <= largest * _ROUNDED)).all():
            raise CertificateError("a multiplier of a plane is out of range")
        sigma = np.minimum(sigma, largest)
        slopes, excess = chords(region, self.weights)
        c = sigma - slopes
        offset = (self.preactivations @ c - Ball(excess).sum()).lower
        if not offset > 0:
            return 0.0
        if not c.any():
            return np.inf
        normal = Ball(c) @ self.network.W
        if not normal.mid.any() and combines_to_zero(c, self.network.W):
            return np.inf
        depth = float(down(offset / normal.norm_upper()))
        if depth < radius < np.inf:
            self._cut_to_cap(region, normal, depth, radius)
        return depth

    def _cut_to_cap(self, region: Region, normal: Ball, depth: float, radius: float) -> None:
        """The cap ||u|| <= radius, -normal . u >= depth ||normal||."""
        chosen = self.opposing & region.undecided
        W, norms = self.network.W[chosen], self.network.norms[chosen]
        longest = normal.norm_upper()
        error = norm_upper(normal.rad)
        shortest = down(down(longest * (1 - 4 * gamma(W.shape[1] + 8))) - 2 * error)
        if not shortest > 0:
            return
        along = Ball(W) @ normal
        share = along.mid / longest**2
        across = up(
            norm_upper(W - share[:, None] * normal.mid)
            + 1e-15 * (norms + np.abs(share) * longest)
            + np.abs(share) * error * _ROUNDED
        )
        room = up(np.sqrt(max(0.0, up(up(radius * radius) - down(depth * depth)))))

        def reach(towards: FloatArray) -> FloatArray:
            """Largest l . u on the cap; ``towards`` is above -l . normal."""
            cosine = np.where(towards >= 0, up(towards / shortest), up(towards / longest))
            formula = up(up(cosine * depth) + up(across * room))
            # Where the farthest point of the ball in direction l is in the cap, there is no cut.
            cuts = up(radius * cosine) < down(depth * norms * (1 - 1e-9))
            return np.where(cuts, formula, np.inf)

        a = self.preactivations[chosen]
        high = up(a.upper + reach(-along.lower))
        low = down(a.lower - reach(along.upper))
        region.cut(chosen, low, high)

    # --- quadratics -----------------------------------------------------------------------------

    def quadratic(
        self,
        region: Region,
        eta: float,
        multipliers: FloatArray,
        at_zero: FloatArray,
        radius: float,
        cuts: bool,
    ) -> float:
        """Root of the minimum of a convex quadratic below ||u||^2 + eta y N; where ``cuts``, its
        parabolas, with slopes ``at_zero``, hold on the region only, which shrinks to the ellipsoid
        in which the quadratic is at most radius^2.
        """
        largest = np.where(self.supporting, np.maximum(down(eta * self.output), 0), np.inf)
        valid = (multipliers >= 0) & (multipliers <= largest * _ROUNDED)
        if not (valid.all() and 0 <= eta < np.inf):
            raise CertificateError("a multiplier of a quadratic is out of range")
        s = np.where(self.supporting, np.minimum(multipliers, largest), 0.0)
        curved = self.opposing & region.undecided & (multipliers > 0)
        k, w = (
            np.where(curved, multipliers, 0.0),
            np.where(self.opposing, up(eta * self.weights), 0),
        )
        slopes, excess = chords(region, np.where(curved, 0.0, w))
        slopes[curved] = at_zero[curved]
        low, high = (region.low, region.high) if cuts else (-np.inf, np.inf)
        ends = (np.broadcast_to(end, w.shape)[curved] for end in (low, high))
        excess[curved] = parabola_excess(k[curved], w[curved], slopes[curved], *ends)
        c = s - slopes

        roots = np.sqrt(k[curved])
        scale = Ball(roots, roots * 2.0**-52)
        gram = self.network.gram
        M = Ball(np.eye(len(roots))) - (
            gram[np.ix_(curved, curved)] * scale.reshape(-1, 1) * scale.reshape(1, -1)
        )
        least = min(1.0, least_eigenvalue(M))
        if not least > 0:
            return 0.0
        centre = self._centre(c, k, curved, roots, M.mid)
        z = self.preactivations + Ball(self.network.W) @ centre
        value = Ball(centre) @ centre + z @ c - (z * z) @ k - Ball(excess).sum()
        gradient = (Ball(c) - z * (2 * k)) @ self.network.W + 2 * centre
        drop = up(up(gradient.norm_upper() ** 2) / (4 * least))
        minimum = float(down(value.lower - drop))
        if not minimum > 0:
            return 0.0
        if cuts and minimum < radius**2 < np.inf:
            reach = up(np.sqrt(up(up(radius * radius) - minimum))) + up(np.sqrt(drop))
            self._cut_to_ellipsoid(region, z, curved, scale, M, least, float(up(reach)))
        return float(down(np.sqrt(minimum)))

    def _centre(
        self, c: FloatArray, k: FloatArray, curved: BoolArray, roots: FloatArray, M: FloatArray
    ) -> FloatArray:
        """About where the quadratic is smallest; any point would do."""
        W = self.network.W
        g = (c - 2 * k * self.preactivations.mid) @ W
        solved = np.linalg.solve(M, roots * (W[curved] @ g))
        return np.asarray(-(g + (roots * solved) @ W[curved]) / 2)

    def _cut_to_ellipsoid(
        self,
        region: Region,
        z: Ball,
        curved: BoolArray,
        scale: Ball,
        M: Ball,
        least: float,
        reach: float,
    ) -> None:
        """|l . u - z| <= reach sqrt(l^T H^-1 l), with H = I - B^T B, M = I - B B^T and
        l^T H^-1 l = ||l||^2 + h^T M^-1 h, h = B l.
        """
        chosen = self.opposing & region.undecided
        h = self.network.gram[np.ix_(curved, chosen)] * scale.reshape(-1, 1)
        x = np.linalg.solve(M.mid, h.mid)
        image = M @ x
        ones = np.ones(len(x))
        # h^T M^-1 h = 2 h^T x - x^T M x + r^T M^-1 r with r = h - M x, for any x.
        inner = ones @ (2 * h * x - image * x)
        rest = (h - image).magnitude
        square = up(inner.upper + up(norm_upper(rest.T) ** 2) / least * _ROUNDED)
        total = up(up(self.network.norms[chosen] ** 2) + np.maximum(square, 0))
        width = up(reach * up(np.sqrt(total)))
        region.cut(chosen, down(z.lower[chosen] - width), up(z.upper[chosen] + width))


def chords(region: Region, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slopes and excesses with w relu(z) <= slope z + excess on the region."""
    low, high = region.low, region.high
    undecided = region.undecided
    with np.errstate(invalid="ignore"):
        share = np.where(undecided, np.clip(high / (high - low), 0, 1), low >= 0)
        share[np.isnan(share)] = 1.0
        slopes = weights * share
        ends = np.maximum(up(-low * slopes), up(up(weights - slopes) * high))
    return slopes, np.where(undecided & (weights > 0), ends, 0.0)


def parabola_excess(
    k: FloatArray, w: FloatArray, slopes: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Numbers with w relu(z) <= k z^2 + slope z + excess for low <= z <= high."""
    return np.maximum(_depth(k, slopes, -low), _depth(k, up(w - slopes), high))


def _depth(k: FloatArray, slope: FloatArray, length: FloatArray) -> FloatArray:
    """Above the maximum of slope t - k t^2 over 0 <= t <= length."""
    slope = np.maximum(slope, 0)
    inside = slope <= 2 * k * length * (1 + 1e-12)
    reach = np.where(inside, 0.0, length)
    outside = up(reach * up(slope - down(k * reach)))
    return np.where(inside, up(up(slope * slope) / down(4 * k)), outside)
