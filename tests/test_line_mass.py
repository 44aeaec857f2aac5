"""Gaussian probability of what is flipped along lines: kernels against twin and quadrature."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr
from scipy.stats import norm

from reluflow import _dispatch, reference
from reluflow.reference.line_mass import log_normal_mass

LEVELS = _dispatch.usable_levels()
KERNELS = [*map(_dispatch.load, LEVELS), reference]
NAMES = [*LEVELS, "numpy"]
INFINITY = math.inf


def masses(kernel, preactivations, slopes, output, constant=0.0, *, ends=None, strict=False):
    n = len(preactivations)
    lower, upper = (np.full(n, -INFINITY), np.full(n, INFINITY)) if ends is None else ends
    arrays = (np.asarray(a, float) for a in (preactivations, slopes, output))
    return kernel.log_line_masses(*arrays, constant, lower, upper, strict, 1)


def random_lines(m, n=200, seed=0):
    rng = np.random.default_rng(seed)
    slopes = rng.standard_normal(m) * (rng.random(m) < 0.9)
    return 2 * rng.standard_normal((n, m)), slopes, rng.standard_normal(m), rng.standard_normal()


def some_ends(n, seed=0):
    rng = np.random.default_rng(seed)
    lower = np.where(rng.random(n) < 0.5, -INFINITY, rng.standard_normal(n) - 1)
    return lower, np.where(rng.random(n) < 0.5, INFINITY, rng.standard_normal(n) + 1)


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
class TestEveryKernel:
    def test_against_quadrature(self, kernel):
        z, slopes, output, constant = random_lines(6, n=8)

        def flipped(t, a):
            return constant + np.maximum(a + t * slopes, 0.0) @ output <= 0

        breakpoints = -z[:, slopes != 0] / slopes[slopes != 0]
        for a, log_mass, kinks in zip(
            z, masses(kernel, z, slopes, output, constant), breakpoints, strict=True
        ):
            # On a fine grid every sign change is seen; roots between are found by bisection.
            grid = np.unique(np.concatenate([np.linspace(-9, 9, 1001), kinks]))
            states = [flipped(t, a) for t in grid]
            mass = 0.0
            for (left, right), (first, last) in zip(pairwise(grid), pairwise(states), strict=True):
                begin, end = left, right
                if first != last:
                    for _ in range(60):
                        middle = (begin + end) / 2
                        begin, end = (
                            (middle, end) if flipped(middle, a) == first else (begin, middle)
                        )
                    left, right = (left, begin) if first else (begin, right)
                elif not first:
                    continue
                mass += ndtr(right) - ndtr(left)
            assert math.exp(log_mass) == pytest.approx(mass, abs=1e-12)

    def test_a_single_half_line_of_any_size(self, kernel):
        # N = relu(beta - t) - relu(t - beta) <= 0 from t = beta on: log Phi(-beta).
        beta = np.array([-3.0, 0.0, 0.1, 1.0, 19.9, 20.1, 60.0, 2269.0, 1e6])
        z = np.stack([beta, -beta], axis=1)
        found = masses(kernel, z, [-1, 1], [1, -1])
        np.testing.assert_allclose(found, log_ndtr(-beta), rtol=1e-13)

    def test_plateaus_belong_to_the_nonstrict_region_alone(self, kernel):
        # relu(-t - 1) - relu(t - 2) is 0 between -1 and 2.
        z, slopes, output = [[-1.0, -2.0]], [-1, 1], [1, -1]
        assert masses(kernel, z, slopes, output)[0] == pytest.approx(norm.logcdf(1))
        assert masses(kernel, z, slopes, output, strict=True)[0] == pytest.approx(norm.logsf(2))

    def test_touching_zero_has_no_mass(self, kernel):
        # relu(t) + relu(-t) is 0 at t = 0 alone.
        assert masses(kernel, [[0.0, 0.0]], [1, -1], [1, 1])[0] == -INFINITY

    def test_neurons_that_stand_still(self, kernel):
        # A constant of 1 from a neuron without slope: relu(2 - t) - 1 <= 0 from t = 1 on.
        z, slopes = [[2.0, 0.5]], [-1, 0]
        assert masses(kernel, z, slopes, [1, -2])[0] == pytest.approx(norm.logsf(1))
        assert masses(kernel, z, slopes, [1, 0], -1.0)[0] == pytest.approx(norm.logsf(1))

    @pytest.mark.parametrize(("constant", "expected"), [(-1.0, 0.0), (0.0, 0.0), (1.0, -INFINITY)])
    def test_constants(self, kernel, constant, expected):
        assert masses(kernel, [[1.0]], [0], [0], constant)[0] == expected

    def test_cut_ends(self, kernel):
        ends = (np.array([0.5, -1.0, 3.0]), np.array([2.0, INFINITY, 2.5]))
        # N = -t: flipped for t >= 0.
        found = masses(kernel, np.zeros((3, 2)), [-1, 1], [1, -1], ends=ends)
        expected = [math.log(norm.cdf(2) - norm.cdf(0.5)), math.log(0.5), -INFINITY]
        np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("m", [1, 3, 20, 100])
def test_kernels_agree(m, strict):
    z, slopes, output, constant = random_lines(m, seed=m)
    ends = some_ends(len(z))
    found = [masses(k, z, slopes, output, constant, ends=ends, strict=strict) for k in KERNELS]
    for other in found[1:-1]:
        np.testing.assert_array_equal(found[0], other)
    np.testing.assert_allclose(found[0], found[-1], rtol=1e-9, atol=1e-9)


def test_number_of_threads_does_not_matter():
    z, slopes, output, constant = random_lines(60, n=3000)
    lower, upper = some_ends(len(z))
    found = [
        _dispatch.core.log_line_masses(z, slopes, output, constant, lower, upper, False, threads)
        for threads in (1, 2, 5)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("begin", "end"), [(-1.0, 2.0), (0.0, 1e-3), (3.0, 3.5), (-3.5, -3.0), (-40.0, 40.0)]
)
def test_mass_of_intervals(begin, end):
    mass = quad(norm.pdf, max(begin, -9), min(end, 9), epsabs=0, epsrel=1e-13)[0]
    assert log_normal_mass(begin, end) == pytest.approx(math.log(mass), rel=1e-12, abs=1e-14)


def test_mass_of_an_interval_far_out():
    # Phi(-b) is negligible beside Phi(-a): b - a = 1 at a = 2269 costs a factor of exp(-2269).
    assert log_normal_mass(2269.0, 2270.0) == pytest.approx(float(log_ndtr(-2269.0)), rel=1e-15)
