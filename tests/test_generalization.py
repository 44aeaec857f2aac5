"""Test error by plain sampling, against exact probabilities and ambient sampling."""

from __future__ import annotations

import json
import math
import os
import signal
import threading

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest, norm

import reluflow as rf
from reluflow.generalization import _hidden, _log_estimate

# |score| beyond this has probability 7e-6.
BOUND = 4.5


def linear_classifier(w, b=0.0):
    """N(x) = w.x + b = relu(w.x + b) - relu(-w.x - b)."""
    w = np.asarray(w, float)
    return rf.TwoLayerNet([w, -w], [b, -b], [1.0, -1.0])


def linear_case(probability, dim=6):
    """A linear classifier that errs with the given probability on either of two clusters.

    The means are +-sqrt(d) e_1, w = (3, 4, 0, ...)/5, so both lie at distance 0.6 sqrt(d) from
    the decision hyperplane, and P = Phi(-0.6 sqrt(d) / sigma).
    """
    means = np.zeros((2, dim))
    means[:, 0] = math.sqrt(dim), -math.sqrt(dim)
    w = np.zeros(dim)
    w[:2] = 0.6, 0.8
    sigma = 0.6 * math.sqrt(dim) / norm.isf(probability)
    return linear_classifier(w), rf.ClusterModel(means, [1, -1], sigma)


def random_case(noise, k=3, dim=5, width=7, seed=0):
    rng = np.random.default_rng(seed)
    net = rf.TwoLayerNet(
        rng.standard_normal((width, dim)), rng.standard_normal(width), rng.standard_normal(width)
    )
    labels = np.where(np.arange(k) % 2, -1, 1)
    return net, rf.ClusterModel(rng.standard_normal((k, dim)), labels, noise)


def sampled(net, clusters, **options):
    return rf.test_error(net, clusters, method="sampling", **options)


def score(errors, n, probability):
    return (errors - n * probability) / math.sqrt(n * probability * (1 - probability))


def counts(estimate):
    return [(cluster.samples, cluster.errors) for cluster in estimate.per_cluster]


def covers(estimate, probability):
    return estimate.interval[0] <= math.log10(probability) <= estimate.interval[1]


class TestExactProbabilities:
    @pytest.mark.parametrize("probability", [0.3, 1e-2, 1e-4])
    def test_linear_classifier(self, probability):
        net, clusters = linear_case(probability)
        estimates = [sampled(net, clusters, seed=seed, max_samples=500_000) for seed in range(10)]
        for estimate in estimates:
            assert abs(score(estimate.errors, estimate.samples, probability)) < BOUND
            for cluster in estimate.per_cluster:
                assert abs(score(cluster.errors, cluster.samples, probability)) < BOUND + 0.5
        # 5 or more of 10 intervals miss with probability below 7e-5.
        assert sum(covers(estimate, probability) for estimate in estimates) > 5

    def test_two_neurons(self):
        # w+- = sum over clusters of that label of mu/d, b = 0, v = +-1, k orthogonal means: at a
        # mean z+ = 1 + s g, z- = s g' with s = sigma sqrt(k/(2d)) and g, g' independent. Errors:
        # own neuron dead (g < -1/s), or alive and exceeded by the other.
        k, dim, s = 4, 16, 0.6
        clusters = rf.ClusterModel.orthogonal(k, dim, s / math.sqrt(k / (2 * dim)))
        W = [clusters.means[clusters.labels == label].sum(0) / dim for label in (1, -1)]
        net = rf.TwoLayerNet(W, [0, 0], [1, -1])
        exceeded = quad(lambda g: norm.pdf(g) * norm.cdf(-1 / s - g), -1 / s, math.inf)[0]
        probability = norm.cdf(-1 / s) + exceeded
        estimate = sampled(net, clusters, rel_error=0.01)
        assert abs(score(estimate.errors, estimate.samples, probability)) < BOUND
        assert estimate.status == "converged"

    def test_plateau_of_the_robust_network(self):
        # w_q = 4 mu_q/d, b_q = -2, v_q = y_q (Frei et al. 2023, Theorem 4.1), two orthogonal
        # means: at mu_1 z_1 = (2/t)(t + g), z_2 = (2/t)(-t + g') with t = sqrt(d)/(2 sigma).
        # N = 0 where both are dead: Phi(-t) Phi(t). N < 0: z_1 dead and z_2 alive, Phi(-t)^2, or
        # both alive and z_2 > z_1, that is g' > 2t + g.
        dim, t = 9, 0.8
        clusters = rf.ClusterModel.orthogonal(2, dim, math.sqrt(dim) / (2 * t))
        net = rf.TwoLayerNet(4 * clusters.means / dim, [-2, -2], clusters.labels)
        plateau = norm.cdf(-t) * norm.cdf(t)
        exceeded = quad(lambda g: norm.pdf(g) * norm.sf(2 * t + g), -t, math.inf)[0]
        strict = norm.cdf(-t) ** 2 + exceeded
        for definition, probability in [("strict", strict), ("nonstrict", strict + plateau)]:
            estimate = sampled(net, clusters, definition=definition, rel_error=0.01)
            assert estimate.definition == definition
            assert abs(score(estimate.errors, estimate.samples, probability)) < BOUND

    def test_intervals_cover(self):
        probability = 2e-3
        net, clusters = linear_case(probability)
        covered = sum(
            covers(sampled(net, clusters, seed=seed, max_samples=16384), probability)
            for seed in range(200)
        )
        # At most 5 % miss; 24 or more of 200 with probability below 6e-5.
        assert covered > 200 - 24


NOISES = {
    "one": lambda rng: 1.3,
    "a cluster": lambda rng: [0.5, 2.0, 0.0],
    "diagonal": lambda rng: rng.uniform(0, 3, (3, 5)),
    "full": lambda rng: [a @ a.T for a in rng.standard_normal((3, 5, 5))],
    "singular": lambda rng: [a @ a.T for a in rng.standard_normal((3, 5, 2))],
    "of different rank": lambda rng: [np.diag([1.0] * q + [0.0] * (5 - q)) for q in (0, 1, 5)],
}


class TestCovariances:
    """Against plain sampling of whole examples, network and all."""

    @pytest.mark.parametrize("noise", NOISES)
    @pytest.mark.parametrize("seed", [0, 1])
    def test_agree_with_ambient_sampling(self, noise, seed):
        net, clusters = random_case(NOISES[noise](np.random.default_rng(seed)), seed=seed)
        estimate = sampled(net, clusters, rel_error=1e-3, max_samples=300_000)
        n = 300_000
        data = clusters.sample(n, seed)
        wrong = data.y * net(data.X) <= 0
        for q, cluster in enumerate(estimate.per_cluster):
            there, ours = data.cluster == q, (cluster.errors, cluster.samples)
            p = (wrong[there].sum() + ours[0]) / (there.sum() + ours[1])
            difference = wrong[there].mean() - ours[0] / ours[1]
            deviation = math.sqrt(p * (1 - p) * (1 / there.sum() + 1 / ours[1]))
            assert abs(difference) <= BOUND * deviation
        assert estimate.errors == sum(cluster.errors for cluster in estimate.per_cluster)

    def test_redundant_neurons_do_not_matter(self):
        # A network of rank 2, its neurons doubled with halved outputs, is the same function.
        rng = np.random.default_rng(3)
        W, b, v = rng.standard_normal((2, 5)), rng.standard_normal(2), [1.0, -1.0]
        clusters = random_case(1.0)[1]
        single = sampled(rf.TwoLayerNet(W, b, v), clusters, rel_error=0.01)
        doubled = rf.TwoLayerNet(np.tile(W, (2, 1)), np.tile(b, 2), np.tile(v, 2) / 2)
        hidden = _hidden.HiddenLayer.of(doubled, clusters)
        assert hidden.factors.shape == (1, 4, 2)
        p = single.errors / single.samples
        other = sampled(doubled, clusters, rel_error=0.01)
        assert abs(score(other.errors, other.samples, p)) < BOUND * math.sqrt(2)

    def test_compressed_factor_gives_the_same_covariance(self):
        rng = np.random.default_rng(4)
        factor = rng.standard_normal((9, 4)) @ rng.standard_normal((4, 7))
        compressed = _hidden.compressed(factor)
        assert compressed.shape == (9, 4)
        np.testing.assert_allclose(compressed @ compressed.T, factor @ factor.T, atol=1e-12)


class TestWithoutNoise:
    def test_is_exact(self):
        # N = x_1 errs on the third cluster alone, whose mean lies at x_1 = -1 with label +1.
        clusters = rf.ClusterModel([[1, 0], [-1, 1], [-1, 2]], [1, -1, 1], 0)
        estimate = rf.test_error(linear_classifier([1, 0]), clusters)
        assert estimate.method == "exact"
        assert estimate.samples == estimate.errors == 0
        assert estimate.log10_probability == pytest.approx(math.log10(1 / 3))
        assert estimate.interval == (estimate.log10_probability, estimate.log10_probability)
        shown = [cluster.log10_probability for cluster in estimate.per_cluster]
        assert shown == [-math.inf, -math.inf, 0.0]
        assert "exactly" in str(estimate)

    @pytest.mark.parametrize(("definition", "shown"), [("nonstrict", 0.0), ("strict", -math.inf)])
    def test_an_output_of_zero(self, definition, shown):
        clusters = rf.ClusterModel([[0, 1], [0, -1]], [1, -1], 0)
        estimate = rf.test_error(linear_classifier([1, 0]), clusters, definition=definition)
        assert estimate.log10_probability == shown

    def test_noise_that_the_network_does_not_see(self):
        clusters = rf.ClusterModel([[1, 1], [-1, 1]], [1, -1], [[0, 4], [0, 9]])
        estimate = rf.test_error(linear_classifier([1, 0]), clusters)
        assert estimate.method == "exact"
        assert estimate.log10_probability == -math.inf


class TestSampling:
    def test_does_not_depend_on_threads(self):
        net, clusters = random_case(1.0, k=4, dim=40, width=30)
        first, *others = (
            sampled(net, clusters, num_threads=threads, rel_error=1e-3, max_samples=50_000)
            for threads in (1, 2, 3, 5)
        )
        assert all(counts(other) == counts(first) for other in others)

    def test_backends_agree(self):
        net, clusters = random_case([1.0, 0.5, 2.0])
        native, numpy = (
            sampled(net, clusters, backend=backend, max_samples=5000)
            for backend in ("native", "numpy")
        )
        assert counts(native) == counts(numpy)
        assert numpy.provenance["backend"] == "numpy"

    def test_seeds(self):
        net, clusters = random_case(1.0)
        estimates = [sampled(net, clusters, seed=seed) for seed in (1, 1, 2)]
        estimates.append(sampled(net, clusters, seed=np.random.default_rng(1)))
        first, again, other, generator = map(counts, estimates)
        assert first == again == generator
        assert first != other

    @pytest.mark.parametrize("rel_error", [0.3, 0.05, 0.01])
    def test_reaches_the_accuracy_asked_for(self, rel_error):
        net, clusters = linear_case(0.05)
        estimate = sampled(net, clusters, rel_error=rel_error)
        lower, upper = (10**end for end in estimate.interval)
        assert estimate.status == "converged"
        assert (upper - lower) / 2 <= rel_error * estimate.probability
        # No more than a doubling beyond what the normal approximation asks for, or one round.
        needed = (1.96 / rel_error) ** 2 * 0.95 / 0.05
        assert estimate.samples < max(2.5 * needed, 8 * 2048 + 1)

    def test_no_error_seen(self):
        net, clusters = linear_case(1e-30)
        estimate = sampled(net, clusters, max_samples=100_000)
        n = estimate.samples
        assert 100_000 <= n < 100_000 + 2048
        assert estimate.log10_probability == -math.inf
        # (1 - p)^n = 2.5 %.
        assert estimate.interval == (-math.inf, pytest.approx(math.log10(1 - 0.025 ** (1 / n))))
        assert estimate.status == "max_samples"
        assert f"below 10^{estimate.interval[1]:.2f} (95 %)" in str(estimate)

    def test_errors_only(self):
        net, clusters = linear_case(1e-30)
        wrong = rf.ClusterModel(clusters.means, -clusters.labels, clusters.noise)
        estimate = sampled(net, wrong)
        assert estimate.log10_probability == 0.0
        assert estimate.interval[1] == 0.0
        assert estimate.status == "converged"

    def test_problem_stands_for_its_clusters(self):
        problem = rf.draw(rf.ClusterModel.random(4, 10**6, 300.0), n=8, width=6)
        net = rf.gradient_flow(problem.net, problem.data).net
        estimate = sampled(net, problem)
        assert counts(estimate) == counts(sampled(net, problem.clusters))

    def test_result_is_strict_json(self):
        for probability in (0.3, 1e-30):
            net, clusters = linear_case(probability)
            estimate = sampled(net, clusters, max_samples=5000)
            fields = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
            assert fields["status"] in ("converged", "max_samples")
            assert fields["per_cluster"][0]["samples"] == estimate.per_cluster[0].samples
            assert (fields["log10_probability"] is None) == (probability < 1e-9)

    @pytest.mark.parametrize(
        ("errors", "samples"), [(0, 1), (1, 1), (0, 50), (3, 50), (50, 50), (7, 10**6)]
    )
    def test_interval_is_clopper_and_pearsons(self, errors, samples):
        expected = binomtest(errors, samples).proportion_ci(0.95, "exact")
        found = _log_estimate.binomial_interval(errors, samples)
        np.testing.assert_allclose(found, [expected.low, expected.high], rtol=1e-9)

    def test_progress_changes_nothing(self, capsys):
        net, clusters = linear_case(0.1)
        quiet, shown = (sampled(net, clusters, progress=p) for p in (False, True))
        assert counts(quiet) == counts(shown)
        assert capsys.readouterr().out == ""


class TestStopping:
    def test_without_time(self):
        net, clusters = linear_case(0.1)
        estimate = sampled(net, clusters, max_seconds=0)
        assert estimate.status == "max_seconds"
        assert estimate.samples == 0
        assert math.isnan(estimate.log10_probability)
        assert estimate.interval == (-math.inf, 0.0)
        assert "unknown" in str(estimate)
        json.dumps(estimate.to_dict(), allow_nan=False)

    @pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
    def test_ctrl_c_returns_what_there_is(self):
        net, clusters = random_case(1.0, dim=60, width=60)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        estimate = sampled(net, clusters, rel_error=1e-9, max_samples=10**12)
        timer.join()
        assert estimate.status == "interrupted"
        assert estimate.samples > 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"method": "guess"}, "method='guess' is unknown"),
            ({"definition": "loose"}, "definition='loose' is unknown"),
            ({"rel_error": 0}, "rel_error must be above 0"),
            ({"rel_error": math.nan}, "rel_error"),
            ({"max_samples": 0}, "max_samples must be at least 1"),
            ({"max_samples": 1.5}, "max_samples must be an integer"),
            ({"max_seconds": -1}, "max_seconds must be at least 0"),
            ({"num_threads": 0}, "num_threads must be at least 1"),
            ({"backend": "gpu"}, "backend='gpu' is unknown"),
        ],
    )
    def test_values(self, changes, message):
        net, clusters = linear_case(0.1)
        with pytest.raises(ValueError, match=message):
            rf.test_error(net, clusters, **changes)

    def test_dimensions(self):
        clusters = linear_case(0.1, dim=6)[1]
        with pytest.raises(ValueError, match="dim=6; the network takes 5"):
            rf.test_error(linear_classifier(np.ones(5)), clusters)

    def test_types(self):
        net, clusters = linear_case(0.1)
        with pytest.raises(TypeError, match="got ndarray"):
            rf.test_error(net, clusters.sample(10, 0).X)
        with pytest.raises(TypeError, match="TwoLayerNet; got ndarray"):
            rf.test_error(net.W, clusters)
        with pytest.raises(TypeError, match="rel_error"):
            rf.test_error(net, clusters, rel_error="small")


def test_given_examples_are_counted_as_they_are():
    # N(x) = relu(x) - relu(-x) = x on the line; signs of x against the labels, by hand: the second
    # example is wrong, and the last, where N = 0, under the nonstrict definition alone.
    net = rf.TwoLayerNet([[1.0], [-1.0]], [0, 0], [1, -1])
    data = rf.Dataset([[1.0], [-2.0], [-3.0], [0.0]], [1, 1, -1, -1], [0, 0, 1, 1])
    loose = rf.test_error(net, data)
    assert (loose.method, loose.samples, loose.errors) == ("given", 4, 2)
    assert loose.log10_probability == pytest.approx(np.log10(0.5))
    assert [row.errors for row in loose.per_cluster] == [1, 1]
    strict = rf.test_error(net, data, definition="strict")
    assert [row.errors for row in strict.per_cluster] == [1, 0]
    # Clopper & Pearson for 1 of 4: the lower end solves 1 - (1 - p)^4 = 0.025.
    assert 10 ** strict.interval[0] == pytest.approx(1 - 0.975**0.25, rel=1e-12)
