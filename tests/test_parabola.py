"""Parabolas above relu's on intervals, and what the checker of radii makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from reluflow.certificates.lower_bounds import parabola_excess
from reluflow.reference.parabola import Parabolas, touching_curvature


def random_parabolas(n=400, seed=0):
    """All cases: both lines touched, one, none, and infinite ends."""
    rng = np.random.default_rng(seed)
    low, high = -rng.lognormal(0, 1, n), rng.lognormal(0, 1, n)
    low[::7], high[::11] = -np.inf, np.inf
    return Parabolas(rng.lognormal(-1, 1.5, n), rng.lognormal(0, 1, n), low, high)


def gaps(q, linear, fixed, points=2001):
    """Least distance of parabolas from w relu on each side, on a grid of the interval."""
    ends = np.maximum(q.low, -50.0), np.minimum(q.high, 50.0)
    t = np.linspace(0, 1, points)
    sides = []
    for end in ends:
        z = end[:, None] * t
        value = q.k[:, None] * z**2 + linear[:, None] * z + fixed[:, None]
        sides.append((value - q.w[:, None] * np.maximum(z, 0)).min(axis=1))
    return np.array(sides)


class TestParabolas:
    def test_they_lie_above_and_touch_both_sides(self):
        q = random_parabolas()
        found = gaps(q, q.linear, q.fixed) / q.w
        assert (found > -1e-12).all()
        assert (found < 2e-3).all()

    def test_every_case_is_tried(self):
        q = random_parabolas()
        near, length = np.minimum(-q.low, q.high), q.high - q.low
        both, none = q.w <= 4 * q.k * near, q.k * length**2 < q.w * near
        left = ~both & ~none & (q.high > -q.low)
        right = ~both & ~none & (q.high <= -q.low)
        assert min(case.sum() for case in (both, none, left, right)) > 10

    def test_derivatives(self):
        q = random_parabolas()
        z = np.clip(np.random.default_rng(1).standard_normal(len(q.k)), q.low, q.high)
        step = 1e-6

        def value(k, w, at=z):
            p = Parabolas(k, w, q.low, q.high)
            return p.k * at**2 + p.linear * at + p.fixed

        found = q.derivatives(z)
        dk, dw = step * q.k, step * q.w
        of_k = (value(q.k + dk, q.w) - value(q.k - dk, q.w)) / (2 * dk)
        of_w = (value(q.k, q.w + dw) - value(q.k, q.w - dw)) / (2 * dw)
        np.testing.assert_allclose(found["k"], of_k, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["w"], of_w, rtol=1e-5, atol=1e-6)
        up = Parabolas(q.k + dk, q.w, q.low, q.high).derivatives(z)
        down = Parabolas(q.k - dk, q.w, q.low, q.high).derivatives(z)
        np.testing.assert_allclose(
            found["kk"], (up["k"] - down["k"]) / (2 * dk), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            found["kw"], (up["w"] - down["w"]) / (2 * dk), rtol=1e-4, atol=1e-4
        )
        # The slope at z is 2 k z + linear.
        np.testing.assert_allclose(
            found["zk"],
            2 * z + (Parabolas(q.k + dk, q.w, q.low, q.high).linear - q.linear) / dk,
            rtol=1e-4,
            atol=1e-4,
        )

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_touching_by_hand(self, sign):
        # On [-3, 1] the parabola through (1, w) touches 0 at -2 with k = w * 1/(2 + 1)^2; where
        # the other end is further away than z, k = w/(4 |z|).
        low, high = np.sort(sign * np.array([-3.0, 1.0]))
        args = (np.array([2.0]), np.array([sign * -2.0]), np.array([low]), np.array([high]))
        k = touching_curvature(*args)
        assert k[0] == pytest.approx(2 / 9)
        q = Parabolas(k, args[0], args[2], args[3])
        at = k * args[1] ** 2 + q.linear * args[1] + q.fixed
        assert at[0] == pytest.approx(2 * max(sign * -2.0, 0), abs=1e-14)
        near = touching_curvature(args[0], 0.2 * args[1], args[2], args[3])
        assert near[0] == pytest.approx(2 / (4 * 0.4))

    def test_the_checker_uses_parabolas_that_hold(self):
        q = random_parabolas(seed=2)
        excess = parabola_excess(q.k, q.w, q.linear, q.low, q.high)
        assert (gaps(q, q.linear, excess) >= -1e-14 * q.w).all()
        np.testing.assert_allclose(excess, q.fixed, rtol=1e-9, atol=1e-12)
        # With any other slope too, if not so low.
        for slopes in (0 * q.w, q.w, q.linear + 0.3 * q.w, q.linear - 0.3 * q.w):
            other = parabola_excess(q.k, q.w, slopes, q.low, q.high)
            assert (gaps(q, slopes, other) >= -1e-14 * q.w).all()
            assert (other >= excess * (1 - 1e-12)).all()
