"""The kernels under the smallest perturbation: ray crossings, projections, bounds, search."""

from __future__ import annotations

import functools
import os
import signal
import threading

import numpy as np
import pytest

import perturbation_oracle as oracle
from reluflow import reference


def solve(kernel, rows, a, v, *, constant=0.0, strict=False, slack=0.0, max_nodes=1000, **more):
    """One point of label +1, or several as rows of ``a``."""
    points = np.atleast_2d(a)
    targets = more.pop("targets", np.zeros((0, len(v))))
    order = np.tile(np.arange(len(targets), dtype=np.int64), (len(points), 1))
    return kernel.min_perturbations(
        rows,
        v,
        constant,
        float(np.abs(v) @ np.linalg.norm(rows, axis=1)),
        points,
        more.pop("labels", np.ones(len(points))),
        np.full(len(points), slack),
        targets,
        order,
        strict,
        more.pop("rtol", 1e-6),
        max_nodes,
        more.pop("max_seconds", np.inf),
        more.pop("num_threads", 1),
        more.pop("keep_proofs", False),
    )


def crossings(kernel, a, d, v, *, constant=0.0, strict=False, labels=None, signs=None, threads=1):
    a = np.atleast_2d(a)
    ones = np.ones(len(a))
    return kernel.ray_crossings(
        np.ascontiguousarray(a, dtype=float),
        np.array(d, dtype=float),
        ones if signs is None else signs,
        np.array(v, dtype=float),
        constant,
        ones if labels is None else labels,
        strict,
        threads,
    )


def wide_problem(n=40, width=60, rank=30, seed=0):
    """Points of a network with both signs, some of them misclassified."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((width, rank)) / np.sqrt(rank)
    v = rng.standard_normal(width)
    points = rng.standard_normal((n, rank)) @ rows.T * 3 + 0.3 * rng.standard_normal(width)
    return rows, points, v


@functools.cache
def fourteen_opposing_neurons():
    rng = np.random.default_rng(5)
    rows, v = rng.standard_normal((17, 4)), rng.random(17) + 0.5
    v[3:] *= -0.4
    a = np.append(rng.random(3) * 4 + 4, rng.standard_normal(14) - 1)
    return rows, a, v, oracle.smallest_perturbation(rows, a, v)


class TestRayCrossings:
    def test_by_hand(self, kernel):
        # relu(1 - t): 0 at t = 1 and from there on; never below 0.
        assert crossings(kernel, [1], [-1], [1])[0] == 1
        assert crossings(kernel, [1], [-1], [1], strict=True)[0] == np.inf
        # relu(2 - 4t) - relu(4t - 3): 0 on [1/2, 3/4], below 0 behind.
        plateau = ([2, -3], [-4, 4], [1, -1])
        assert crossings(kernel, *plateau)[0] == 0.5
        assert crossings(kernel, *plateau, strict=True)[0] == 0.75
        # relu(1) - relu(t): crosses at t = 1 inside the last segment.
        assert crossings(kernel, [1, 0], [0, 1], [1, -1])[0] == 1
        # relu(1 + t) - relu(-1 + t) = 2 for t >= 1: never.
        assert crossings(kernel, [1, -1], [1, 1], [1, -1])[0] == np.inf

    def test_starts_flipped(self, kernel):
        assert crossings(kernel, [-1, 1], [1, 1], [1, -1])[0] == 0
        # N(0) = 0 counts only as nonstrict; relu(t) - 2 relu(t) < 0 from t = 0 on.
        assert crossings(kernel, [0, 0], [1, 1], [1, -2])[0] == 0
        assert crossings(kernel, [0, 0], [1, 1], [1, -2], strict=True)[0] == 0
        assert crossings(kernel, [0, 0], [1, 1], [2, -1], strict=True)[0] == np.inf

    def test_a_dead_network_is_zero_in_spite_of_rounding(self, kernel):
        # relu(a - t d) with a/d not a binary fraction: N = 0 from t = a/d on.
        for a, d in ((0.1, 0.3), (1 / 3, 7.7), (1e-5, 0.7)):
            crossed = crossings(kernel, [a, a], [-d, -d], [1.3, 0.7])[0]
            assert crossed == pytest.approx(a / d, rel=1e-15)

    @pytest.mark.parametrize("strict", [False, True])
    def test_against_a_fine_grid(self, kernel, strict):
        rng = np.random.default_rng(3)
        for _ in range(40):
            a, d, v = rng.standard_normal((3, 12))
            constant = 0.5 * rng.standard_normal()
            found = crossings(kernel, a, d, v, constant=constant, strict=strict)[0]
            t = np.linspace(0, 20, 20_001)
            values = constant + np.maximum(a[:, None] + np.outer(d, t), 0).T @ v
            below = np.flatnonzero(values < 0)
            if len(below) == 0:
                assert found > 20 - 1e-2 or values.min() < 0.05
            else:
                # A dip between two points of the grid may come first.
                assert found <= t[below[0]]
                at = constant + v @ np.maximum(a + found * d, 0)
                assert at == pytest.approx(0, abs=1e-12) or found == 0

    def test_signs_and_labels(self, kernel):
        # Label -1 sees -N: both points flip at t = 1 when they move against each other.
        a = np.array([[1.0, 0.0], [0.0, 1.0]])
        turned = np.array([1.0, -1.0])
        found = crossings(kernel, a, [-0.5, 0.5], [1, -1], labels=turned, signs=turned)
        np.testing.assert_allclose(found, [1.0, 1.0])

    def test_agrees_with_reference_for_any_number_of_threads(self, native):
        rng = np.random.default_rng(1)
        a, v, d = rng.standard_normal((3000, 33)), rng.standard_normal(33), rng.standard_normal(33)
        labels, signs = np.sign(rng.standard_normal((2, 3000)))
        for strict in (False, True):
            settings = {"constant": 0.1, "strict": strict, "labels": labels, "signs": signs}
            found = [crossings(native, a, d, v, **settings, threads=t) for t in (1, 2, 3, 5)]
            for other in found[1:]:
                np.testing.assert_array_equal(other, found[0])
            expected = crossings(reference, a, d, v, **settings)
            np.testing.assert_allclose(found[0], expected, rtol=1e-10)


class TestSubsetProjections:
    @pytest.mark.parametrize("degeneracy", oracle.DEGENERACIES)
    def test_against_least_distance_programming(self, kernel, degeneracy):
        rng = np.random.default_rng(len(degeneracy))
        for _ in range(12):
            rows, a, v = oracle.random_problem(rng, degeneracy)
            subset = (v < 0) & (rng.random(len(v)) < 0.6)
            found = kernel.subset_projections(
                rows, v, 0.0, a[None], np.ones(1), subset[None].astype(float), 1
            )
            expected = oracle.piece_distance(rows, a, v, 0.0, subset)
            assert found.distance[0] == pytest.approx(expected, rel=1e-9)
            if 0 < expected < np.inf:
                assert found.lower_bound[0] == pytest.approx(expected, rel=1e-9)
                u = rows.T @ found.coefficients[0]
                assert np.linalg.norm(u) == pytest.approx(expected, rel=1e-9)
                z = a + rows @ u
                value = v[v > 0] @ np.maximum(z[v > 0], 0) + v[subset] @ z[subset]
                assert value <= 1e-9 * (np.abs(v) @ (np.abs(a) + np.abs(rows @ u)))

    def test_one_plane_by_hand(self, kernel):
        # Both neurons opposing and active: {c + v . z <= 0} is a half-space at distance
        # (c + v . a)/||rows^T v|| = (6 - 1*1 - 2*2)/sqrt(1 + 4) = 1/sqrt 5.
        found = kernel.subset_projections(
            np.eye(2),
            np.array([-1.0, -2.0]),
            6.0,
            np.array([[1.0, 2.0]]),
            np.ones(1),
            np.ones((1, 2)),
            1,
        )
        assert found.distance[0] == pytest.approx(1 / np.sqrt(5), rel=1e-15)


class TestMinPerturbations:
    @pytest.mark.parametrize("degeneracy", oracle.DEGENERACIES)
    def test_against_brute_force(self, native, degeneracy):
        rng = np.random.default_rng(10 + len(degeneracy))
        for _ in range(60):
            rows, a, v = oracle.random_problem(rng, degeneracy)
            found = solve(native, rows, a, v)
            expected = oracle.smallest_perturbation(rows, a, v)
            # Far away, kinks meet at angles that leave the oracle fewer digits.
            rtol = 1e-9 * max(1.0, expected / 100) if np.isfinite(expected) else 0
            assert found.radius[0] == pytest.approx(expected, rel=rtol)
            assert found.lower_bound[0] <= expected * (1 + rtol)
            assert found.proofs[0].name != "none"

    @pytest.mark.parametrize("degeneracy", oracle.DEGENERACIES)
    def test_strict_against_brute_force(self, native, degeneracy):
        rng = np.random.default_rng(20 + len(degeneracy))
        for _ in range(15):
            rows, a, v = oracle.random_problem(rng, degeneracy, most=7)
            found = solve(native, rows, a, v, strict=True)
            expected = oracle.smallest_perturbation(rows, a, v, strict=True)
            rtol = 1e-9 * max(1.0, expected / 100) if np.isfinite(expected) else 0
            assert found.radius[0] == pytest.approx(expected, rel=rtol, abs=1e-12)
            assert found.lower_bound[0] <= expected * (1 + rtol)

    def test_fourteen_opposing_neurons(self, native):
        rows, a, v, expected = fourteen_opposing_neurons()
        found = solve(native, rows, a, v)
        assert found.radius[0] == pytest.approx(expected, rel=1e-9)
        assert found.proofs[0].name != "none"

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("degeneracy", oracle.DEGENERACIES)
    def test_agrees_with_reference(self, native, strict, degeneracy):
        rng = np.random.default_rng(30 + len(degeneracy))
        for i in range(8):
            rows, a, v = oracle.random_problem(rng, degeneracy)
            settings = {
                "strict": strict,
                "labels": np.array([1.0 if i % 3 else -1.0]),
                "constant": 0.1 * (i % 2),
                "targets": a + rng.standard_normal((i % 4, len(v))),
                "slack": 1e-9 * (i % 2),
            }
            found = solve(native, rows, a, v, **settings)
            expected = solve(reference, rows, a, v, **settings)
            np.testing.assert_allclose(found.radius, expected.radius, rtol=1e-9)
            np.testing.assert_allclose(found.lower_bound, expected.lower_bound, rtol=1e-6)
            assert found.proofs[0].name == expected.proofs[0].name

    def test_the_coefficients_give_a_perturbation_of_that_length_to_the_boundary(self, native):
        rows, points, v = wide_problem()
        found = solve(native, rows, points, v)
        u = found.coefficients @ rows
        moved = found.radius > 0
        np.testing.assert_allclose(np.linalg.norm(u, axis=1), found.radius, rtol=1e-10)
        at = np.maximum(points + u @ rows.T, 0) @ v
        np.testing.assert_allclose(at[moved], 0, atol=1e-10)

    def test_is_bitwise_the_same_for_any_number_of_threads(self, native):
        rows, points, v = wide_problem()
        results = [
            solve(native, rows, points, v, max_nodes=5, num_threads=threads)
            for threads in (1, 2, 3, 5)
        ]
        for other in results[1:]:
            for field in ("radius", "lower_bound", "coefficients", "subsets", "nodes"):
                np.testing.assert_array_equal(getattr(other, field), getattr(results[0], field))
            assert [p.name for p in other.proofs] == [p.name for p in results[0].proofs]

    def test_more_effort_only_tightens(self, native):
        rows, points, v = wide_problem()
        quick = solve(native, rows, points, v, max_seconds=0.0)
        rough = solve(native, rows, points, v, max_nodes=0)
        good = solve(native, rows, points, v, max_nodes=30)
        assert quick.stopped.name == "deadline"
        assert good.stopped.name == "none"
        for worse, better in ((quick, rough), (rough, good)):
            assert (better.radius <= worse.radius * (1 + 1e-12)).all()
            assert (better.lower_bound >= worse.lower_bound * (1 - 1e-12)).all()
        assert (good.lower_bound <= quick.radius).all()
        assert (quick.lower_bound <= good.radius).all()

    def test_targets_lead_to_what_other_starts_miss(self, kernel):
        # One supporting neuron and h opposing ones with bias -b, all orthogonal. With j opposing
        # neurons active the distance is (1 + (j - 1) b)/sqrt(1 + j) (docs/theory.md, section 6.3):
        # for b = 0.2 that is .8, .707, .693, .7, .716 for j = 0, ..., 4.
        h, b = 4, 0.2
        rows, v = np.eye(1 + h), np.append(1.0, -np.ones(h))
        a = np.append(1 - b, np.full(h, -b))
        targets = np.eye(1 + h)[1:] - b
        found = solve(kernel, rows, a, v, targets=targets)
        assert found.radius[0] == pytest.approx(1.2 / np.sqrt(3), rel=1e-12)

    def test_lower_bounds_hold_whatever_the_budget(self, native):
        # Many opposing neurons near their kinks: the closed form fails, and the minorants with
        # lowered curvatures and the branches have to close the gap.
        rng = np.random.default_rng(8)
        seen = set()
        for _ in range(90):
            size, rank = rng.integers(8, 13), rng.integers(3, 9)
            rows, v = rng.standard_normal((size, rank)), np.abs(rng.standard_normal(size))
            v = np.where(rng.random(size) < 0.65, -0.6 * v, 1.5 * v)
            a = rng.standard_normal(size)
            if v @ np.maximum(a, 0) <= 0 or (v > 0).sum() > 5 or (v < 0).sum() > 7:
                continue
            expected = oracle.smallest_perturbation(rows, a, v)
            for max_nodes in (0, 1, 3, 1000):
                found = solve(native, rows, a, v, max_nodes=max_nodes)
                assert found.lower_bound[0] <= expected * (1 + 1e-9)
                assert found.radius[0] >= expected * (1 - 1e-9)
                seen.add(found.proofs[0].name)
            assert found.radius[0] == pytest.approx(expected, rel=1e-9)
            assert found.proofs[0].name != "none"
        assert {"none", "certificate", "relaxation", "branching"} <= seen

    def test_slack_lowers_bounds_only(self, native):
        rows, points, v = wide_problem()
        exact, blurred = solve(native, rows, points, v), solve(native, rows, points, v, slack=1e-4)
        np.testing.assert_array_equal(exact.radius, blurred.radius)
        assert (blurred.lower_bound <= exact.lower_bound).all()
        assert (blurred.lower_bound[exact.radius > 0.1] > 0).any()

    @pytest.mark.parametrize("B", [0.0, 0.1, 0.2, 0.3, 0.33, 0.34, 0.38, 0.41, 0.42, 0.6, 1, 3])
    def test_worked_case_of_the_certificate(self, kernel, B):
        # N = relu(z_1) - relu(z_2), a = (1, -B): radius min(1, (1 + B)/sqrt 2), and at the mixed
        # solution, optimal up to sqrt 2 - 1, lambda_max = (1 + B)/(2 (1 - B)) <= 1 iff B <= 1/3
        # (docs/theory.md, section 7.5).
        found = solve(kernel, np.eye(2), np.array([1.0, -B]), np.array([1.0, -1.0]))
        assert found.radius[0] == pytest.approx(min(1, (1 + B) / np.sqrt(2)), rel=1e-14)
        assert found.lower_bound[0] == pytest.approx(found.radius[0], rel=1e-6)
        if np.sqrt(2) - 1 > B:
            assert (found.proofs[0].name == "certificate") == (B <= 1 / 3)
        assert found.proofs[0].name != "none"

    def test_never_flips(self, kernel):
        # relu(z) + relu(1 - z) >= 1 > 0; and relu(z) - relu(z)/2 + 1 > 0.
        for v, rows, a, constant in (
            ([1, 1], [[1.0], [-1.0]], [0.3, 0.7], 0.0),
            ([1, -0.5], [[1.0], [1.0]], [0.3, 0.3], 1.0),
        ):
            found = solve(
                kernel, np.array(rows), np.array(a), np.array(v, float), constant=constant
            )
            assert found.radius[0] == found.lower_bound[0] == np.inf
            assert found.proofs[0].name == "never_flips"
            assert not found.coefficients.any()

    def test_already_flipped(self, kernel):
        rows, v = np.eye(2), np.array([1.0, -1.0])
        for a, strict in (([1.0, 2.0], False), ([1.0, 1.0], False), ([1.0, 2.0], True)):
            found = solve(kernel, rows, np.array(a), v, strict=strict)
            assert found.radius[0] == found.lower_bound[0] == 0
            assert found.proofs[0].name == "already_flipped"
        # N(0) = 0 is no strict flip, but one is arbitrarily near.
        found = solve(kernel, rows, np.array([1.0, 1.0]), v, strict=True)
        assert found.radius[0] == pytest.approx(0, abs=1e-15)

    @pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
    def test_an_interrupt_returns_valid_bounds(self, native):
        rows, points, v = wide_problem(n=3000, width=120, rank=60)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        found = solve(native, rows, points, v, max_nodes=100_000, num_threads=2)
        timer.join()
        assert found.stopped.name == "interrupted"
        assert (found.lower_bound <= found.radius).all()
        assert np.isfinite(found.radius).any()
