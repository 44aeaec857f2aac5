"""Counter-based normals, and the count of errors among fresh examples."""

from __future__ import annotations

import math
import os
import signal
import threading

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm

from reluflow import _dispatch, reference
from reluflow.reference import random as reference_random

KEY = 0x9E3779B97F4A7C15
LEVELS = _dispatch.usable_levels()

# Known answers that Random123 publishes (Salmon et al. 2011): counter, key, random bits. The first
# word of a key is its low half.
PHILOX_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def case(width, rank, k, *, shared=True, seed=0):
    """Random arguments of count_errors, without the stream."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((k, width)),
        rng.standard_normal((1 if shared else k, width, rank)),
        rng.uniform(0.5, 2, k),
        rng.standard_normal(width),
        np.where(np.arange(k) % 2, -1.0, 1.0),
    )


def count(kernel, arguments, first=0, blocks=3, *, strict=False, seconds=math.inf, threads=1):
    return kernel.count_errors(*arguments, KEY, first, blocks, strict, seconds, threads)


def result(counts):
    return counts.draws.tolist(), counts.errors.tolist(), counts.blocks, counts.interrupted


class TestPhilox:
    @pytest.mark.parametrize(("counter", "key", "bits"), PHILOX_ANSWERS)
    def test_known_answers(self, kernel, counter, key, bits):
        low, high = (int(word, 16) for word in key.split())
        found = kernel.philox4x32(words(counter)[None], low | high << 32)
        assert (found == words(bits)).all()

    @pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 200])
    def test_every_lane_agrees_with_the_reference(self, native, n):
        counters = np.random.default_rng(n).integers(2**32, size=(n, 4), dtype=np.uint32)
        expected = reference.philox4x32(counters, KEY)
        assert (native.philox4x32(counters, KEY) == expected).all()


class TestDraws:
    @pytest.mark.parametrize("n", [0, 1, 2, 127, 128, 129, 130, 257, 1000])
    @pytest.mark.parametrize("block", [0, 2**40 + 3])
    def test_agree_with_the_reference(self, native, n, block):
        assert (native.uniforms(KEY, block, n) == reference.uniforms(KEY, block, n)).all()
        expected = reference.standard_normals(KEY, block, n)
        np.testing.assert_allclose(native.standard_normals(KEY, block, n), expected, rtol=1e-14)

    def test_are_bitwise_the_same_on_every_instruction_set(self):
        first, *others = (
            _dispatch.load(level).standard_normals(KEY, 5, 1_000_001) for level in LEVELS
        )
        for other in others:
            assert (first == other).all()

    @pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="no extended precision here")
    def test_normals_are_accurate(self, native):
        n = 400_000
        radius_bits, angle_bits = reference_random._words(KEY, 1, 0, n)
        u = (radius_bits >> np.uint64(12)).astype(np.longdouble) / 2**52
        pi = np.longdouble("3.14159265358979323846264338327950288")
        radius = np.sqrt(-2 * np.log(1 - u))
        # Angle modulo pi/2 in [-pi/4, pi/4), as the definition in random.hpp has it.
        angle = (
            pi
            / 2
            * (
                (angle_bits << np.uint64(2) >> np.uint64(12)).astype(np.longdouble) / 2**52
                - np.longdouble(0.5)
            )
        )
        cosine, sine = np.cos(angle), np.sin(angle)
        quadrant = (angle_bits >> np.uint64(62)).astype(np.int64)
        first = radius * np.choose(quadrant, [cosine, -sine, -cosine, sine])
        second = radius * np.choose(quadrant, [sine, cosine, -sine, -cosine])
        found = native.standard_normals(KEY, 1, n)
        exact = np.concatenate([first, second])
        assert float(np.abs(found / exact - 1).max()) < 2e-15

    def test_streams_differ(self, native):
        uniforms = native.uniforms(KEY, 0, 1000)
        normals = native.standard_normals(KEY, 0, 1000)
        assert not np.isin(uniforms, native.uniforms(KEY, 1, 1000)).any()
        assert not np.isin(uniforms, native.uniforms(KEY + 1, 0, 1000)).any()
        assert not np.isin(normals, native.standard_normals(KEY, 1, 1000)).any()
        # Counters are not shared: the radius of a normal is not the uniform of the same number.
        radius = np.hypot(normals[:500], normals[500:])
        assert not np.isclose(radius, np.sqrt(-2 * np.log1p(-uniforms[:500])), rtol=1e-6).any()


N = 2_000_000


@pytest.fixture(scope="module")
def normals():
    return _dispatch.core.standard_normals(KEY, 11, N)


class TestDistribution:
    """One fixed sample; each bound would be missed by chance with the probability it states."""

    def test_moments(self, normals):
        # Variances of z, z^2, z^3, z^4 are 1, 2, 15, 96. |score| < 4.5: 7e-6 each.
        for power, (mean, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
            score = (np.mean(normals**power) - mean) / math.sqrt(variance / N)
            assert abs(score) < 4.5, power

    def test_kolmogorov_smirnov(self, normals):
        assert kstest(normals, "norm").pvalue > 1e-4

    def test_tails(self, normals):
        # Two-sided counts, Poisson-like; |score| < 4.5: about 1e-5 each.
        for threshold in (2.0, 3.0, 4.0, 4.5):
            p = 2 * norm.sf(threshold)
            seen = (np.abs(normals) > threshold).sum()
            assert abs(seen - N * p) < 4.5 * math.sqrt(N * p), threshold

    def test_the_two_normals_of_a_counter_are_independent(self, normals):
        first, second = normals[: N // 2], normals[N // 2 :]
        # Products of independent normals have variance 1, of their centred squares 4: 7e-6 each.
        for x, y, deviation in [(first, second, 1.0), (first**2 - 1, second**2 - 1, 2.0)]:
            assert abs(np.mean(x * y)) < 4.5 * deviation / math.sqrt(N / 2)

    def test_neighbours_are_independent(self, normals):
        for lag in (1, 2, 64):
            assert abs(np.mean(normals[lag:] * normals[:-lag])) < 4.5 / math.sqrt(N - lag)

    def test_uniforms(self):
        u = _dispatch.core.uniforms(KEY, 12, N)
        seen = np.bincount((u * 256).astype(int), minlength=256)
        statistic = ((seen - N / 256) ** 2).sum() / (N / 256)
        assert chi2.isf(1 - 1e-4, 255) < statistic < chi2.isf(1e-4, 255)
        assert 0 <= u.min() < u.max() < 1


class TestCounts:
    @pytest.mark.parametrize("width", [1, 3, 4, 5, 8, 9])
    @pytest.mark.parametrize("rank", [0, 1, 2, 5])
    @pytest.mark.parametrize("shared", [True, False])
    def test_agree_with_the_reference(self, native, width, rank, shared):
        arguments = case(width, rank, 3, shared=shared, seed=width)
        assert result(count(native, arguments)) == result(count(reference, arguments))

    @pytest.mark.parametrize("k", [1, 2, 7, 300, 5000])
    def test_any_number_of_clusters(self, native, k):
        arguments = case(6, 2, k)
        found = count(native, arguments)
        assert result(found) == result(count(reference, arguments))
        assert found.draws.sum() == 3 * native.SAMPLE_BLOCK

    @pytest.mark.parametrize("threads", [2, 3, 5])
    def test_do_not_depend_on_the_number_of_threads(self, native, threads):
        arguments = case(60, 20, 10)
        expected = result(count(native, arguments, blocks=11))
        assert result(count(native, arguments, blocks=11, threads=threads)) == expected

    def test_do_not_depend_on_the_instruction_set(self):
        arguments = case(101, 33, 10)
        first, *others = (result(count(_dispatch.load(level), arguments)) for level in LEVELS)
        assert all(other == first for other in others)

    def test_rounds_continue_each_other(self, kernel):
        arguments = case(5, 3, 4)
        whole = count(kernel, arguments, 2**33, 5)
        parts = [count(kernel, arguments, 2**33, 2), count(kernel, arguments, 2**33 + 2, 3)]
        assert (whole.draws == sum(part.draws for part in parts)).all()
        assert (whole.errors == sum(part.errors for part in parts)).all()

    def test_strict_and_nonstrict_differ_where_the_output_is_zero(self, kernel):
        # One neuron relu(g - 1/2) with v = 1: N = 0 where g <= 1/2 and N > 0 elsewhere. Label +1
        # errs, nonstrictly, with Phi(1/2), and never strictly; label -1 errs always or with
        # Phi(-1/2).
        arguments = (
            np.full((2, 1), -0.5),
            np.ones((1, 1, 1)),
            np.ones(2),
            np.ones(1),
            np.array([1.0, -1.0]),
        )
        nonstrict = count(kernel, arguments, blocks=20)
        strict = count(kernel, arguments, blocks=20, strict=True)
        assert strict.errors[0] == 0
        assert nonstrict.errors[1] == nonstrict.draws[1]
        for q, errors in enumerate([nonstrict.errors, strict.errors]):
            n, p = strict.draws[q], norm.cdf([0.5, -0.5])[q]
            # 6e-5 by chance.
            assert abs(errors[q] - n * p) < 4 * math.sqrt(n * p * (1 - p))

    def test_clusters_are_uniform(self, kernel):
        k, blocks = 7, 30
        draws = count(kernel, case(1, 1, k), blocks=blocks).draws
        expected = blocks * kernel.SAMPLE_BLOCK / k
        # 1e-4 by chance.
        assert ((draws - expected) ** 2).sum() / expected < chi2.isf(1e-4, k - 1)

    def test_stop_before_the_first_block_without_time(self, kernel):
        found = count(kernel, case(3, 2, 2), seconds=0.0, threads=2)
        assert result(found) == ([0, 0], [0, 0], 0, False)

    def test_count_complete_blocks_only_when_cut(self, kernel):
        found = count(kernel, case(50, 50, 2), blocks=10**7, seconds=0.05, threads=2)
        assert 0 < found.blocks < 10**7
        assert found.draws.sum() == found.blocks * kernel.SAMPLE_BLOCK

    @pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
    def test_can_be_interrupted(self, kernel):
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        found = count(kernel, case(50, 50, 2), blocks=10**7, threads=2)
        timer.join()
        assert found.interrupted
        assert 0 < found.blocks < 10**7
        assert found.draws.sum() == found.blocks * kernel.SAMPLE_BLOCK
