"""Test errors far below what sampling sees, against exact values and against sampling."""

from __future__ import annotations

import json
import math
import os
import signal
import threading

import numpy as np
import pytest
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import norm

import reluflow as rf
from reluflow.generalization import _log_estimate, _rare
from reluflow.generalization._design_points import DesignPoints

LOG_10 = math.log(10)
RARE = ["line", "importance"]


def linear_classifier(w, b=0.0):
    """N(x) = w.x + b = relu(w.x + b) - relu(-w.x - b)."""
    w = np.asarray(w, float)
    return rf.TwoLayerNet([w, -w], [b, -b], [1.0, -1.0])


def linear_case(beta, dim=6):
    """Clusters at +-sqrt(d) e_1, w = (3, 4, 0, ...)/5: both lie at distance 0.6 sqrt(d), so that
    sigma = 0.6 sqrt(d)/beta gives P = Phi(-beta) on either.
    """
    means = np.zeros((2, dim))
    means[:, 0] = math.sqrt(dim), -math.sqrt(dim)
    w = np.zeros(dim)
    w[:2] = 0.6, 0.8
    return linear_classifier(w), rf.ClusterModel(means, [1, -1], 0.6 * math.sqrt(dim) / beta)


def linear_case_in_many_dimensions(beta, dim=30):
    """The same, with neurons in all directions whose contributions cancel in pairs."""
    net, clusters = linear_case(beta, dim)
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((dim, dim)), rng.standard_normal(dim)
    v = rng.standard_normal(dim)
    padded = rf.TwoLayerNet(
        np.vstack([net.W, W, W]), np.concatenate([net.b, b, b]), np.concatenate([net.v, v, -v])
    )
    return padded, clusters


def log10_phi(t):
    return float(log_ndtr(t)) / LOG_10


def covers(estimate, log10_probability):
    return estimate.interval[0] <= log10_probability <= estimate.interval[1]


def trained(init_scale, noise, *, k=4, dim=400, width=20, seed=0, n=40):
    clusters = rf.ClusterModel.orthogonal(k, dim, noise)
    problem = rf.draw(clusters, n, width, init_scale=init_scale, seed=seed)
    flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=20)
    return flow.net, problem.clusters


class TestLinearClassifier:
    @pytest.mark.parametrize("method", ["auto", *RARE])
    @pytest.mark.parametrize("beta", [0.1, 1.0, 8.0, 60.0])
    def test_agrees(self, beta, method):
        net, clusters = linear_case(beta)
        estimate = rf.test_error(net, clusters, method=method, rel_error=0.015)
        assert abs(estimate.log10_probability - log10_phi(-beta)) < 0.01
        assert estimate.status == "converged"
        assert estimate.check.agrees
        for cluster in estimate.per_cluster:
            assert cluster.distance == pytest.approx(beta)
            assert cluster.first_order == pytest.approx(log10_phi(-beta))

    @pytest.mark.parametrize("dim", [6, 1000])
    def test_at_the_distance_of_the_theorem(self, dim):
        # d = 5.15e7, k = 10, sigma = 1: sqrt(d/k) = 2,269 standard deviations.
        net, clusters = linear_case(2269.0, dim)
        estimate = rf.test_error(net, clusters)
        assert estimate.log10_probability == pytest.approx(log10_phi(-2269.0), rel=1e-9)
        assert covers(estimate, log10_phi(-2269.0))
        assert estimate.effective_samples == math.inf

    @pytest.mark.parametrize("beta", [3.0, 10.0, 60.0, 2269.0])
    def test_in_a_space_of_many_dimensions(self, beta):
        net, clusters = linear_case_in_many_dimensions(beta)
        estimate = rf.test_error(net, clusters)
        assert estimate.log10_probability == pytest.approx(log10_phi(-beta), rel=1e-6)
        assert covers(estimate, log10_phi(-beta))
        # Nothing varies from line to line; that lines may have been missed is still counted.
        assert estimate.interval[1] - estimate.interval[0] > 1e-5

    @pytest.mark.parametrize("method", RARE)
    @pytest.mark.parametrize("beta", [0.5, 30.0])
    def test_intervals_cover(self, beta, method):
        net, clusters = linear_case_in_many_dimensions(beta, dim=4)
        truth = log10_phi(-beta)
        covered = sum(
            covers(rf.test_error(net, clusters, method=method, seed=seed, max_samples=2048), truth)
            for seed in range(12)
        )
        # At most 5 % miss; 4 or more of 12 with probability 2e-3.
        assert covered > 8


class TestTwoNeurons:
    """w+- = sum over clusters of that label of mu/d, v = +-1: an integral is exact."""

    @pytest.mark.parametrize("method", RARE)
    @pytest.mark.parametrize("target", [-0.7, -3.0, -12.0, -80.0, -300.0])
    def test_agrees_with_the_integral(self, target, method):
        k, dim = 4, 64
        clusters = rf.ClusterModel.orthogonal(k, dim, 1.0)
        W = [clusters.means[clusters.labels == label].sum(0) / dim for label in (1, -1)]
        net = rf.TwoLayerNet(W, [0, 0], [1, -1])
        # P is about Phi(-sqrt(d/k)/sigma).
        noise = math.sqrt(dim / k) / -float(ndtri(max(10.0**target, 1e-300)))
        exact = rf.theory.log10_two_neuron_error(dim, k, noise)
        noisy = rf.ClusterModel.orthogonal(k, dim, noise)
        estimate = rf.test_error(net, noisy, method=method, rel_error=0.02)
        assert abs(estimate.log10_probability - exact) < 0.015
        assert estimate.status == "converged"
        assert estimate.check.agrees
        assert all(abs(c.log10_probability - exact) < 0.05 for c in estimate.per_cluster)


def test_plateau_of_the_robust_network():
    # Two orthogonal means, w_q = 4 mu_q/d, b_q = -2 (Frei et al. 2023, Theorem 4.1): with
    # t = sqrt(d)/(2 sigma), z_1 = (2/t)(t + g), z_2 = (2/t)(-t + g'). N = 0 where both are dead:
    # Phi(-t) Phi(t). N < 0: z_1 dead and z_2 alive, Phi(-t)^2, or g > -t and g' > 2t + g, which is
    # exp(-2 t^2) smaller than the former at its smallest distance, sqrt(2) t, and shares its face.
    dim, t = 16, 20.0
    clusters = rf.ClusterModel.orthogonal(2, dim, math.sqrt(dim) / (2 * t))
    net = rf.robust_network(clusters)
    nonstrict = rf.test_error(net, clusters)
    assert nonstrict.log10_probability == pytest.approx(log10_phi(-t), abs=1e-3)
    # {z_2 > 0, z_2 > z_1}, a corner of 135 degrees at distance sqrt(2) t: half of the half-plane
    # behind it, and of the rest the part that falls off like exp(-sqrt(2) t |u|).
    u = np.linspace(0, 2, 20001)
    corner = log_ndtr(-math.sqrt(2) * t - u) + norm.logpdf(u)
    rest = np.trapezoid(np.exp(corner - corner[0]), u)
    half = float(log_ndtr(-math.sqrt(2) * t)) + math.log(0.5)
    exact = np.logaddexp(half, corner[0] + math.log(rest)) / LOG_10
    strict = rf.test_error(net, clusters, definition="strict", rel_error=0.02)
    assert strict.definition == "strict"
    assert abs(strict.log10_probability - exact) < 0.015


NOISES = {
    "a cluster": lambda rng: [0.5, 2.0, 0.0],
    "diagonal": lambda rng: rng.uniform(0, 3, (3, 5)),
    "full": lambda rng: [a @ a.T for a in rng.standard_normal((3, 5, 5))],
    "singular": lambda rng: [a @ a.T for a in rng.standard_normal((3, 5, 2))],
    "of different rank": lambda rng: [np.diag([1.0] * q + [0.0] * (5 - q)) for q in (0, 1, 5)],
}


class TestAgainstSampling:
    @pytest.mark.parametrize(("init_scale", "noise"), [(1e-3, 3.5), (3.0, 3.0)])
    def test_of_trained_networks(self, init_scale, noise):
        net, clusters = trained(init_scale, noise)
        counted = rf.test_error(
            net, clusters, method="sampling", rel_error=1e-9, max_samples=10**6, seed=1
        )
        estimate = rf.test_error(net, clusters, rel_error=0.02)
        assert -5.5 < estimate.log10_probability < -0.5
        p, n = estimate.probability, counted.samples
        width = math.log(10) * (estimate.interval[1] - estimate.interval[0]) / 3.92 * p
        score = (counted.errors / n - p) / math.hypot(math.sqrt(p * (1 - p) / n), width)
        assert abs(score) < 3.5
        assert estimate.check.agrees

    @pytest.mark.parametrize("noise", NOISES)
    @pytest.mark.parametrize("method", RARE)
    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_of_any_covariance(self, noise, method, definition):
        rng = np.random.default_rng(1)
        net = rf.TwoLayerNet(
            rng.standard_normal((7, 5)), rng.standard_normal(7), rng.normal(size=7)
        )
        model = rf.ClusterModel(rng.standard_normal((3, 5)), [1, -1, 1], NOISES[noise](rng))
        options = {"definition": definition, "rel_error": 0.02}
        counted = rf.test_error(net, model, method="sampling", **{**options, "rel_error": 0.005})
        estimate = rf.test_error(net, model, method=method, **options)
        for ours, theirs in zip(
            (*estimate.per_cluster, *estimate.per_class),
            (*counted.per_cluster, *counted.per_class),
            strict=True,
        ):
            lower = max(ours.interval[0], theirs.interval[0])
            upper = min(ours.interval[1], theirs.interval[1])
            # Intervals of 95 % nearly always meet.
            assert lower <= upper + 0.01
        assert estimate.check is None or estimate.check.agrees


def two_design_points(near, far, dim=3):
    """N = min(near - x_1, far - x_2) on a cluster at the origin, and one far away with label -1.

    min(a, b) = a - relu(a - b): P = 1 - Phi(near) Phi(far) on the first cluster.
    """
    W = np.zeros((3, dim))
    W[0, 0], W[1, 0], W[2, :2] = -1, 1, (-1, 1)
    net = rf.TwoLayerNet(W, [near, -near, near - far], [1, -1, -1])
    means = np.zeros((2, dim))
    means[1, 0] = 50 + near
    return net, rf.ClusterModel(means, [1, -1], 1.0)


def nearest_alone(region, targets, settings):
    found = _rare.design_points(region, targets, settings)
    return DesignPoints(found.points[:1], found.multipliers[:1], found.lower_bound, found.empty)


class TestTwoDesignPoints:
    @pytest.mark.parametrize("method", RARE)
    @pytest.mark.parametrize(("near", "far"), [(5.0, 5.0), (5.0, 5.1), (30.0, 30.01)])
    def test_both_are_found(self, near, far, method):
        net, clusters = two_design_points(near, far)
        estimate = rf.test_error(net, clusters, method=method, rel_error=0.02)
        exact = np.logaddexp(log_ndtr(-near), log_ndtr(-far)) / LOG_10
        assert estimate.per_cluster[0].design_points == 2
        assert abs(estimate.per_cluster[0].log10_probability - exact) < 0.01
        assert estimate.status == "converged"

    @pytest.mark.parametrize("method", RARE)
    def test_both_sides_of_a_line(self, method):
        # N = 5 - |x| on x ~ N(0, 1): P = 2 Phi(-5).
        net = rf.TwoLayerNet([[0.0], [1.0], [-1.0]], [5, 0, 0], [1, -1, -1])
        clusters = rf.ClusterModel([[0.0], [60.0]], [1, -1], 1.0)
        estimate = rf.test_error(net, clusters, method=method, rel_error=0.02)
        exact = log10_phi(-5) + math.log10(2)
        assert estimate.per_cluster[0].design_points == 2
        tolerance = 1e-12 if method == "line" else 0.01
        assert estimate.per_cluster[0].log10_probability == pytest.approx(exact, abs=tolerance)

    @pytest.mark.parametrize("method", ["auto", "line"])
    @pytest.mark.parametrize(("near", "far"), [(6.0, 6.0), (6.0, 6.3), (30.0, 30.0)])
    def test_one_that_lines_miss_is_detected(self, near, far, method, monkeypatch):
        monkeypatch.setattr(_rare, "find_design_points", nearest_alone)
        net, clusters = two_design_points(near, far)
        estimate = rf.test_error(net, clusters, method=method)
        exact = np.logaddexp(log_ndtr(-near), log_ndtr(-far)) / LOG_10
        assert estimate.status == "estimates_disagree"
        assert not estimate.check.agrees
        assert "DISAGREES" in str(estimate)
        ours = estimate.per_cluster[0]
        # The lines alone saw half of the error, or less, and all of them agreed.
        assert ours.log10_probability < exact - 0.05
        assert ours.interval[0] < exact < ours.interval[1]
        assert estimate.interval[0] < exact - math.log10(2) < estimate.interval[1]

    def test_a_missed_one_that_hardly_matters_changes_nothing(self, monkeypatch):
        monkeypatch.setattr(_rare, "find_design_points", nearest_alone)
        net, clusters = two_design_points(6.0, 9.0)
        estimate = rf.test_error(net, clusters)
        assert estimate.status == "converged"
        assert estimate.per_cluster[0].log10_probability == pytest.approx(log10_phi(-6), abs=1e-6)


class TestEnds:
    def test_a_misclassified_mean(self):
        # Labels exchanged: P = 1 - Phi(-beta) on either cluster.
        for beta in (0.3, 3.0, 40.0):
            net, clusters = linear_case(beta)
            wrong = rf.ClusterModel(clusters.means, -clusters.labels, clusters.noise)
            estimate = rf.test_error(net, wrong)
            assert estimate.log10_probability == pytest.approx(log10_phi(beta), abs=1e-12)
            assert covers(estimate, log10_phi(beta))
            assert estimate.per_cluster[0].distance == pytest.approx(-beta)

    def test_one_mean_misclassified_among_others(self):
        net, clusters = linear_case(10.0)
        means = np.vstack([clusters.means, clusters.means[:1]])
        model = rf.ClusterModel(means, [1, -1, -1], clusters.noise)
        estimate = rf.test_error(net, model)
        assert estimate.probability == pytest.approx((2 * ndtr(-10) + ndtr(10)) / 3, rel=1e-9)
        by_label = {one.label: one.log10_probability for one in estimate.per_class}
        assert by_label[1.0] == pytest.approx(log10_phi(-10))
        assert by_label[-1.0] == pytest.approx(math.log10((ndtr(-10) + ndtr(10)) / 2))

    def test_a_mean_on_the_boundary(self):
        net = linear_classifier([1.0, 0.0])
        model = rf.ClusterModel([[0, 0], [-5, 0]], [1, -1], 1.0)
        estimate = rf.test_error(net, model)
        assert estimate.per_cluster[0].log10_probability == pytest.approx(math.log10(0.5), abs=1e-6)

    def test_a_covariance_that_hides_the_boundary(self):
        # Noise along e_2 alone, which w does not see; and a cluster with noise along e_1 too.
        net = linear_classifier([1.0, 0.0])
        noise = [np.diag([0.0, 1.0]), np.diag([1.0, 1.0])]
        estimate = rf.test_error(net, rf.ClusterModel([[3, 0], [-3, 0]], [1, -1], noise))
        assert estimate.per_cluster[0].log10_probability == -math.inf
        assert estimate.per_cluster[0].interval == (-math.inf, -math.inf)
        assert estimate.log10_probability == pytest.approx(log10_phi(-3) - math.log10(2))

    def test_a_network_that_never_errs_on_a_cluster(self):
        # N = relu(x_1) + 1 > 0 everywhere.
        net = rf.TwoLayerNet([[1.0, 0.0], [0.0, 0.0]], [0, 1], [1, 1])
        estimate = rf.test_error(net, rf.ClusterModel([[1, 0], [-1, 0]], [1, -1], 1.0))
        assert [c.log10_probability for c in estimate.per_cluster] == [-math.inf, 0.0]
        assert estimate.log10_probability == pytest.approx(math.log10(0.5), rel=1e-14)

    def test_clusters_that_were_never_trained_on(self):
        clusters = rf.ClusterModel.orthogonal(6, 60, 0.5)
        data = clusters.sample(60, 0)
        seen = data.cluster < 4
        part = rf.Dataset(data.X[seen], data.y[seen], data.cluster[seen])
        net = rf.gradient_flow(rf.TwoLayerNet.init(20, 60, 1e-3, seed=0), part).net
        estimate = rf.test_error(net, clusters)
        counted = rf.test_error(net, clusters, method="sampling", rel_error=0.01)
        assert abs(estimate.log10_probability - counted.log10_probability) < 0.02

    @pytest.mark.parametrize("method", RARE)
    @pytest.mark.parametrize("init_scale", [1e-3, 3.0])
    def test_best_so_far_without_time(self, method, init_scale):
        net, clusters = trained(init_scale, 1.0)
        truth = rf.test_error(net, clusters).log10_probability
        estimate = rf.test_error(net, clusters, method=method, max_seconds=0)
        assert estimate.status == "max_seconds"
        assert estimate.check is None
        assert estimate.samples <= 4 * 256
        assert estimate.interval[0] <= truth + 0.01
        assert truth <= estimate.interval[1]
        json.dumps(estimate.to_dict(), allow_nan=False)

    def test_accuracy_that_takes_longer_than_allowed(self):
        net, clusters = trained(3.0, 1.0)
        truth = rf.test_error(net, clusters).log10_probability
        estimate = rf.test_error(net, clusters, rel_error=1e-9, max_seconds=0.3, max_samples=10**10)
        assert estimate.status == "max_seconds"
        assert abs(estimate.log10_probability - truth) < 0.1

    def test_too_few_draws_are_called_so(self):
        net, clusters = trained(3.0, 2.0, width=40)
        estimate = rf.test_error(net, clusters, method="importance", max_samples=60)
        assert estimate.effective_samples < 100
        assert estimate.status in ("few_effective", "estimates_disagree")

    @pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
    def test_ctrl_c_returns_what_there_is(self):
        net, clusters = trained(3.0, 2.0, width=40)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        estimate = rf.test_error(net, clusters, rel_error=1e-9, max_samples=10**9)
        timer.join()
        assert estimate.status == "interrupted"


class TestRepeatability:
    def test_threads_and_seeds(self):
        net, clusters = trained(1.0, 2.0)
        values = [
            rf.test_error(net, clusters, num_threads=threads, seed=seed).log10_probability
            for threads, seed in ((1, 1), (2, 1), (1, 2))
        ]
        assert values[0] == values[1] != values[2]

    def test_backends_agree(self):
        net, clusters = trained(1.0, 2.0, width=8)
        native, numpy = (
            rf.test_error(net, clusters, backend=backend, max_samples=2**14)
            for backend in ("native", "numpy")
        )
        assert native.log10_probability == pytest.approx(numpy.log10_probability, abs=1e-6)
        assert native.samples == numpy.samples

    @pytest.mark.parametrize("method", RARE)
    def test_result_is_strict_json(self, method):
        net, clusters = trained(1e-3, 1.0)
        estimate = rf.test_error(net, clusters, method=method)
        fields = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
        assert fields["method"] == method
        assert fields["check"]["agrees"] is True
        assert [one["label"] for one in fields["per_class"]] == [-1, 1]
        assert method in str(estimate)

    def test_progress_changes_nothing(self, capsys):
        net, clusters = linear_case(5.0)
        quiet, shown = (rf.test_error(net, clusters, progress=p) for p in (False, True))
        assert quiet.log10_probability == shown.log10_probability
        assert capsys.readouterr().out == ""


class TestIntervals:
    @pytest.mark.parametrize("sd", [0.3, 1.0])
    def test_delta_and_bootstrap_cover_log_normal_means(self, sd):
        # Means of exp(sd g - sd^2/2), whose expectation is 1.
        rng = np.random.default_rng(0)
        covered = np.zeros(3)
        for trial in range(200):
            logs = sd * rng.standard_normal(1000) - sd**2 / 2
            estimate = _log_estimate.stratified([(0.0, logs)], (trial,))
            ends = (
                _log_estimate.delta_interval(estimate),
                _log_estimate.bootstrap_interval(estimate),
                [end * LOG_10 for end in _log_estimate.interval(estimate)],
            )
            covered += [low <= 0 <= high for low, high in ends]
        # At most 5 % miss; 20 or more of 200 with probability 3e-3.
        assert (covered > 180).all()
        assert covered[2] >= covered[:2].max()

    def test_shift_by_any_exponent(self):
        rng = np.random.default_rng(0)
        logs = rng.standard_normal(500)
        near, far = (
            _log_estimate.stratified([(0.0, logs + shift)], (0,)) for shift in (0.0, -2.6e6)
        )
        assert far.log_value == pytest.approx(near.log_value - 2.6e6, abs=1e-8)
        assert far.deviation == pytest.approx(near.deviation, rel=1e-8)

    @pytest.mark.parametrize(("radius", "rank"), [(1.0, 1), (3.0, 4), (12.0, 30), (30.0, 200)])
    def test_bound_outside_a_ball(self, radius, rank):
        from scipy.stats import chi2

        found = _log_estimate.log_outside_ball(radius, rank)
        assert found == pytest.approx(chi2.logsf(radius**2, rank), rel=1e-9)

    def test_bound_outside_a_huge_ball(self):
        # In two dimensions exactly exp(-r^2/2).
        found = _log_estimate.log_outside_ball(2269.0, 2)
        assert found == pytest.approx(-(2269.0**2) / 2, rel=1e-12)
        assert found >= -(2269.0**2) / 2

    def test_complement(self):
        for log_value in (-1e-9, -0.1, -3.0, -50.0):
            there = _log_estimate.log_complement(log_value)
            assert math.exp(there) == pytest.approx(-math.expm1(log_value), rel=1e-12)
