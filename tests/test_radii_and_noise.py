"""Radii of the population, their lower tail, and noise levels, against linear classifiers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import norm

import reluflow as rf

LOG_10 = math.log(10)
DISTANCE = 2.0


def log10_phi(t):
    return float(log_ndtr(t)) / LOG_10


def linear_case(sigma, dim=4):
    """N(x) = w.x with w = (3, 4, 0, 0)/5 * 2, and means at distance 2 from its hyperplane."""
    w = np.zeros(dim)
    w[:2] = 1.2, 1.6
    net = rf.TwoLayerNet([w, -w], [0, 0], [1, -1])
    return net, rf.ClusterModel([w, -w], [1, -1], sigma)


def trained(noise, init_scale=1e-3, width=12):
    clusters = rf.ClusterModel.orthogonal(4, 200, noise)
    problem = rf.draw(clusters, 24, width, init_scale=init_scale, seed=0)
    return rf.gradient_flow(problem.net, problem.data, log_inverse_loss=20).net, problem.clusters


class TestRobustError:
    @pytest.mark.parametrize("sigma", [2.0, 0.5, 0.05])
    @pytest.mark.parametrize("radius", [0.0, 0.7, 1.9, 2.5])
    def test_of_a_linear_classifier(self, sigma, radius):
        # An example at signed distance s of its side is flipped by a perturbation of length s:
        # P(s <= r) with s ~ N(2, sigma^2).
        net, clusters = linear_case(sigma)
        exact = log10_phi(-(DISTANCE - radius) / sigma)
        found = rf.robust_error(net, clusters, radius, rel_error=0.1)
        assert abs(found.log10_probability - exact) < 0.08
        assert found.interval[0] - 0.02 <= exact <= found.interval[1] + 0.02
        assert found.undecided == 0
        assert found.status == "converged"
        assert all(abs(value - exact) < 0.1 for value in found.per_cluster)

    def test_of_noise_that_differs_between_directions(self):
        # N(x) <= r ||w|| is what a perturbation of length r flips: with unit w and covariance S,
        # (2 - r) / sqrt(w S w) standard deviations.
        net, clusters = linear_case(1.0)
        rng = np.random.default_rng(0)
        factors = 0.3 * rng.standard_normal((2, 4, 4))
        model = rf.ClusterModel(clusters.means, [1, -1], [a @ a.T for a in factors])
        found = rf.robust_error(net, model, 0.5, rel_error=0.05)
        w = clusters.means[0] / DISTANCE
        for value, factor in zip(found.per_cluster, factors, strict=True):
            exact = log10_phi(-1.5 / float(np.linalg.norm(factor.T @ w)))
            assert value == pytest.approx(exact, abs=0.06)

    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_without_a_perturbation_is_the_test_error(self, definition):
        net, clusters = trained(2.0)
        found = rf.robust_error(net, clusters, 0.0, rel_error=0.05, definition=definition)
        error = rf.test_error(net, clusters, definition=definition)
        assert found.log10_probability == pytest.approx(error.log10_probability, abs=0.06)

    @pytest.mark.parametrize("init_scale", [1e-3, 2.0])
    def test_agrees_with_a_sample(self, init_scale):
        net, clusters = trained(2.0, init_scale)
        distribution = rf.radius_distribution(net, clusters, 3000, seed=1)
        for level in (0.02, 0.3, 0.9):
            radius = distribution.quantile(level)
            found = rf.robust_error(net, clusters, radius, rel_error=0.1)
            deviation = math.sqrt(level * (1 - level) / 3000) + 0.05 * level
            assert abs(10**found.log10_probability - level) < 3.5 * deviation

    def test_without_noise(self):
        net, clusters = linear_case(0.0)
        assert rf.robust_error(net, clusters, 1.999).log10_probability == -math.inf
        assert rf.robust_error(net, clusters, 2.001).log10_probability == 0.0

    def test_a_network_that_never_flips(self):
        net = rf.TwoLayerNet([[1.0, 0.0], [0.0, 0.0]], [0, 1], [1, 1])
        model = rf.ClusterModel([[1, 0], [-1, 0]], [1, -1], 1.0)
        found = rf.robust_error(net, model, 3.0)
        assert found.per_cluster == (-math.inf, 0.0)

    def test_without_time(self):
        net, clusters = trained(1.0)
        found = rf.robust_error(net, clusters, 1.0, max_seconds=0)
        assert found.status == "max_seconds"
        json.dumps(found.to_dict(), allow_nan=False)

    def test_does_not_depend_on_threads(self):
        net, clusters = trained(1.0)
        values = [
            rf.robust_error(net, clusters, 3.0, num_threads=threads).log10_probability
            for threads in (1, 2)
        ]
        assert values[0] == values[1]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"radius": -1}, "radius must be at least 0"),
            ({"radius": math.inf}, "radius must be finite"),
            ({"radius": 1, "rel_error": 0}, "rel_error must be above 0"),
            ({"radius": 1, "definition": "loose"}, "definition='loose' is unknown"),
            ({"radius": 1, "max_samples": 0}, "max_samples must be at least 1"),
        ],
    )
    def test_bad_values(self, arguments, message):
        net, clusters = linear_case(1.0)
        with pytest.raises(ValueError, match=message):
            rf.robust_error(net, clusters, **arguments)

    def test_bad_types(self):
        net, clusters = linear_case(1.0)
        with pytest.raises(TypeError, match="TwoLayerNet"):
            rf.robust_error(net.W, clusters, 1.0)
        with pytest.raises(TypeError, match="ClusterModel"):
            rf.robust_error(net, clusters.sample(10, 0), 1.0)


class TestRadiusDistribution:
    def test_quantiles_cover(self):
        # Radii are max(0, N(2, sigma^2)).
        sigma, covered = 0.4, 0
        net, clusters = linear_case(sigma)
        levels = (0.05, 0.5, 0.95)
        for seed in range(30):
            found = rf.radius_distribution(net, clusters, 200, seed=seed)
            for level in levels:
                low, high = found.quantile_interval(level)
                covered += low <= DISTANCE + sigma * norm.ppf(level) <= high
        # At most 5 % of 90 miss; 11 or more with probability 4e-3.
        assert covered >= 80

    def test_robust_accuracy(self):
        sigma = 0.8
        net, clusters = linear_case(sigma)
        found = rf.radius_distribution(net, clusters, 2000)
        lengths = np.array([0.0, 1.0, 2.0, 3.0])
        exact = ndtr((DISTANCE - lengths) / sigma)
        assert np.abs(found.accuracy(lengths) - exact).max() < 0.04
        lower, upper = found.accuracy_interval(lengths)
        assert (lower <= found.accuracy(lengths)).all()
        assert (found.accuracy(lengths) <= upper).all()
        assert (lower - 0.01 <= exact).all()
        assert (exact <= upper + 0.01).all()

    def test_extreme_quantiles_are_not_invented(self):
        net, clusters = linear_case(0.4)
        found = rf.radius_distribution(net, clusters, 20)
        assert found.quantile_interval(0.001)[0] == 0.0
        assert found.quantile_interval(0.999)[1] == math.inf

    def test_of_perturbations(self):
        net, clusters = trained(0.5)
        data = clusters.sample(40, 0)
        radii = rf.min_perturbation(net, data.X, data.y, clusters=clusters)
        found = rf.RadiusDistribution.of(radii)
        assert found.quantile(0.5) == pytest.approx(np.median(radii.radius), rel=0.05)
        assert found.accuracy(0.0) == 1.0
        assert "quantile" in str(found)

    def test_misclassified_examples_have_radius_0(self):
        net, clusters = linear_case(20.0)
        found = rf.radius_distribution(net, clusters, 500)
        wrong = 1 - found.accuracy(0.0)
        assert wrong == pytest.approx(ndtr(-0.1), abs=0.1)
        assert found.quantile(0.2) == 0.0

    def test_plot(self):
        from matplotlib.figure import Figure

        net, clusters = linear_case(0.4)
        axes = rf.radius_distribution(net, clusters, 50).plot(Figure().subplots())
        assert axes.get_ylabel() == "robust accuracy"

    @pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
    def test_bad_levels(self, level):
        net, clusters = linear_case(0.4)
        with pytest.raises(ValueError, match="level must be"):
            rf.radius_distribution(net, clusters, 5).quantile(level)


class TestNoiseAtError:
    @pytest.mark.parametrize("log10_target", [-0.5, -3.0, -40.0, -600.0, -1e5])
    def test_of_a_linear_classifier(self, log10_target):
        net, clusters = linear_case(0.7)
        found = rf.noise_at_error(net, clusters, log10_target)
        assert found.status == "converged"
        assert found.error.log10_probability == pytest.approx(log10_target, abs=0.01)
        # The noise at which the exact error is the one that was found.
        assert log10_phi(-DISTANCE / found.noise) == pytest.approx(log10_target, abs=0.011)
        assert found.noise == pytest.approx(0.7 * found.scale)
        assert found.evaluations <= 4

    def test_keeps_the_form_of_the_noise(self):
        net, clusters = linear_case(1.0)
        variances = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
        model = rf.ClusterModel(clusters.means, [1, -1], variances)
        found = rf.noise_at_error(net, model, -5.0)
        np.testing.assert_allclose(found.noise, variances * found.scale**2)
        w = clusters.means[0] / DISTANCE
        exact = DISTANCE / -float(ndtri(1e-5)) / math.sqrt(float(w**2 @ variances[0]))
        assert found.scale == pytest.approx(exact, rel=1e-2)

    def test_keeps_noise_of_low_rank(self):
        net, clusters = linear_case(1.0)
        model = rf.ClusterModel(
            clusters.means, [1, -1], rf.LowRankNoise(1.0, [[1.0], [2.0], [0.0], [0.0]])
        )
        found = rf.noise_at_error(net, model, -5.0)
        np.testing.assert_allclose(found.noise.scale, found.scale)
        np.testing.assert_allclose(found.noise.factors[0, :2, 0], found.scale * np.array([1, 2]))
        w = clusters.means[0] / DISTANCE
        # w^T Sigma w with Sigma = I + c c^T.
        spread = math.sqrt(1 + (w[0] + 2 * w[1]) ** 2)
        assert found.scale == pytest.approx(DISTANCE / -float(ndtri(1e-5)) / spread, rel=1e-2)

    def test_of_a_trained_network(self):
        net, clusters = trained(0.5)
        found = rf.noise_at_error(net, clusters, -9.0)
        assert found.status == "converged"
        again = rf.test_error(net, clusters.with_noise_scaled(found.scale), rel_error=0.02)
        assert again.log10_probability == pytest.approx(-9.0, abs=0.03)

    def test_a_target_that_no_noise_reaches(self):
        # A misclassified cluster: P >= 1/4 however small the noise is.
        net, clusters = linear_case(1.0)
        means = np.vstack([clusters.means, clusters.means])
        model = rf.ClusterModel(means, [1, -1, 1, 1], 1.0)
        found = rf.noise_at_error(net, model, -3.0)
        assert found.status == "not_reached"
        assert found.bracket[0] == 0.0
        assert found.error.probability == pytest.approx(0.25, abs=0.05)

    def test_best_so_far_when_the_time_is_over(self):
        net, clusters = trained(0.5)
        found = rf.noise_at_error(net, clusters, -300.0, tol=1e-9, max_seconds=0)
        assert found.status == "max_seconds"
        assert found.evaluations == 2
        assert math.isfinite(found.error.log10_probability)
        assert str(found.status) in str(found)
        json.dumps(found.to_dict(), allow_nan=False)

    @pytest.mark.parametrize(
        ("target", "noise", "message"),
        [
            (-0.1, 1.0, "log10_target must be finite and below"),
            (-math.inf, 1.0, "log10_target must be finite"),
            (math.nan, 1.0, "log10_target must be a number"),
            (-3.0, 0.0, "clusters must have noise"),
        ],
    )
    def test_bad_values(self, target, noise, message):
        net, clusters = linear_case(noise)
        with pytest.raises(ValueError, match=message):
            rf.noise_at_error(net, clusters, target)
