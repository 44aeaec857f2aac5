"""Smallest and universal perturbations of networks, and the explicit robust network."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

import perturbation_oracle as oracle
import reluflow as rf

D, K = 400, 8


@pytest.fixture
def clusters():
    return rf.ClusterModel.orthogonal(K, D, 0.2)


@functools.cache
def trained(init_scale=1e-2):
    problem = rf.draw(
        rf.ClusterModel.orthogonal(4, 100, 0.2), 40, 20, init_scale=init_scale, seed=3
    )
    net = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=20).net
    return net, problem.clusters, problem.clusters.sample(30, 7)


def averaging(clusters):
    """Two neurons: the means of each label, added up (docs/theory.md, equation 13)."""
    W = np.array([clusters.means[clusters.labels == sign].sum(axis=0) for sign in (1, -1)])
    return rf.TwoLayerNet(W / clusters.dim, np.zeros(2), [1.0, -1.0])


def one_neuron_a_mean(clusters, b0=0.0):
    """w_q = mu_q/d, bias -b0."""
    k = clusters.n_clusters
    return rf.TwoLayerNet(clusters.means / clusters.dim, np.full(k, -b0), clusters.labels)


class TestExactCases:
    """docs/theory.md, section 6.3; distances in units of sqrt(d)."""

    def radii(self, net, model, **settings):
        result = rf.min_perturbation(net, model.means, model.labels, **settings)
        assert result.proved.all()
        assert result.status == "converged"
        assert result.flips == 1
        np.testing.assert_allclose(result.lower_bound, result.radius, rtol=1e-8)
        return result.radius / np.sqrt(model.dim)

    @pytest.mark.parametrize("backend", ["native", "numpy"])
    def test_linear_classifier(self, backend):
        # relu(z) - relu(-z) = z: the distance to the hyperplane, |w . x + b|/||w||.
        rng = np.random.default_rng(0)
        w, b, X = rng.standard_normal(7), 0.3, rng.standard_normal((20, 7))
        net = rf.TwoLayerNet([w, -w], [b, -b], [1.0, -1.0])
        result = rf.min_perturbation(net, X, backend=backend)
        np.testing.assert_allclose(result.radius, np.abs(X @ w + b) / np.linalg.norm(w), rtol=1e-13)
        shift = -((X @ w + b) / (w @ w))[:, None] * w
        np.testing.assert_allclose(result.perturbation, shift, rtol=1e-7, atol=1e-12)
        assert result.proved.all()
        assert result.flips == 1

    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_averaging(self, clusters, definition):
        found = self.radii(averaging(clusters), clusters, definition=definition)
        np.testing.assert_allclose(found, np.sqrt(1 / K), rtol=1e-12)

    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_decoupling(self, clusters, definition):
        found = self.radii(
            one_neuron_a_mean(clusters), clusters, definition=definition, clusters=clusters
        )
        np.testing.assert_allclose(found, np.sqrt(1 / (1 + K / 2)), rtol=1e-12)

    @pytest.mark.parametrize(("definition", "radius"), [("nonstrict", 0.5), ("strict", 0.5**0.5)])
    def test_robust_network(self, clusters, definition, radius):
        net = rf.robust_network(clusters)
        np.testing.assert_allclose(net(clusters.means), 2 * clusters.labels, rtol=1e-12)
        found = self.radii(net, clusters, definition=definition, clusters=clusters)
        np.testing.assert_allclose(found, radius, rtol=1e-12)

    @pytest.mark.parametrize("b0", [0.0, 0.1, 0.2, 1 - 0.5**0.5, 0.35, 0.45])
    @pytest.mark.parametrize("k", [4, 8, 16])
    def test_shifted_bias(self, b0, k):
        # min over 0 <= j <= h = k/2 of (1 + (j - 1) b0)/sqrt(1 + j): for b0 < 1/2 the equal share
        # leaves the own neuron and the j opposing ones active (j (1 - 2 b0)/(1 + j) > 0).
        clusters = rf.ClusterModel.orthogonal(k, D, 0.1)
        j = np.arange(k // 2 + 1)
        expected = ((1 + (j - 1) * b0) / np.sqrt(1 + j)).min()
        result = rf.min_perturbation(
            one_neuron_a_mean(clusters, b0), clusters.means, clusters.labels, clusters=clusters
        )
        np.testing.assert_allclose(result.radius, expected * np.sqrt(D), rtol=1e-12)
        assert (result.lower_bound <= result.radius).all()
        assert result.flips == 1


class TestMinPerturbation:
    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_trained_network_is_proved_and_flips(self, definition):
        net, clusters, data = trained()
        result = rf.min_perturbation(
            net, data.X, data.y, definition=definition, clusters=clusters, num_threads=2
        )
        assert result.proved.all()
        assert result.flips == 1
        norms = np.linalg.norm(result.perturbation, axis=1)
        np.testing.assert_allclose(norms, result.radius, rtol=1e-8)
        for sign, flipped in ((1 + 1e-9, True), (1 - 1e-6, False)):
            margins = data.y * net(data.X + sign * result.perturbation)
            assert ((margins <= 0) == flipped).all()
        # No random direction does better.
        rng = np.random.default_rng(0)
        for _ in range(20):
            direction = rng.standard_normal(data.X.shape)
            direction *= (result.radius / np.linalg.norm(direction, axis=1))[:, None]
            assert (data.y * net(data.X + direction) > 0).all()

    def test_backends_agree(self):
        net, clusters, data = trained()
        native, twin = (
            rf.min_perturbation(
                net, data.X[:4], data.y[:4], clusters=clusters, backend=backend, num_threads=1
            )
            for backend in ("native", "numpy")
        )
        np.testing.assert_allclose(native.radius, twin.radius, rtol=1e-9)
        np.testing.assert_allclose(native.lower_bound, twin.lower_bound, rtol=1e-6)
        np.testing.assert_allclose(native.perturbation, twin.perturbation, atol=1e-5)
        assert native.method == twin.method

    @pytest.mark.parametrize("backend", ["native", "numpy"])
    def test_larger_initialisation_is_proved_by_other_means(self, backend):
        net, clusters, data = trained(init_scale=5.0)
        result = rf.min_perturbation(
            net, data.X[:8], data.y[:8], clusters=clusters, backend=backend
        )
        assert result.proved.all()
        assert result.flips == 1
        assert len(set(result.method) - {"misclassified", "Lipschitz", "certificate"}) > 0

    def test_agrees_with_brute_force_in_more_dimensions_than_neurons(self):
        rng = np.random.default_rng(4)
        for _ in range(10):
            W, b, v = rng.standard_normal((6, 30)), rng.standard_normal(6), rng.standard_normal(6)
            W[5], v[4] = 0, 0  # a constant, and a neuron that is not there
            net, x = rf.TwoLayerNet(W, b, v), rng.standard_normal(30)
            y = np.sign(net(x[None])[0])
            result = rf.min_perturbation(net, x[None])
            rows = np.linalg.qr(W[:4].T)[1].T
            expected = oracle.smallest_perturbation(
                rows, W[:4] @ x + b[:4], y * v[:4], y * v[5] * max(b[5], 0)
            )
            assert result.radius[0] == pytest.approx(expected, rel=1e-9)
            assert result.flips == 1

    @pytest.mark.parametrize("degeneracy", oracle.NETWORK_DEGENERACIES)
    def test_agrees_with_brute_force_on_degenerate_networks(self, degeneracy):
        # 2,000 networks in all.
        rng = np.random.default_rng(40 + len(degeneracy))
        for _ in range(250):
            rows, a, v = oracle.random_problem(rng, degeneracy)
            net = rf.TwoLayerNet(rows, a, v)
            result = rf.min_perturbation(net, np.zeros((1, net.dim)), [1])
            expected = oracle.smallest_perturbation(rows, a, v)
            # Far away, kinks meet at angles that leave the oracle fewer digits.
            rtol = 1e-9 * max(1.0, expected / 100) if np.isfinite(expected) else 0
            assert result.radius[0] == pytest.approx(expected, rel=rtol)
            assert result.proved[0]

    @pytest.mark.parametrize("source", ["model", "clusters", "classes", "points", "one label"])
    def test_every_source_of_starts_finds_the_optimum(self, clusters, source):
        net = one_neuron_a_mean(clusters, 0.1)
        data = clusters.sample(40, 5)
        given = {
            "model": clusters,
            "clusters": data,
            "classes": rf.Dataset(data.X, data.y),
            "points": None,
            "one label": None,
        }[source]
        chosen = data.y > 0 if source == "one label" else slice(None)
        result = rf.min_perturbation(net, data.X[chosen], data.y[chosen], clusters=given)
        best = rf.min_perturbation(net, data.X[chosen], data.y[chosen], clusters=clusters)
        np.testing.assert_allclose(result.radius, best.radius, rtol=1e-9)

    def test_misclassified_points_have_radius_zero(self, clusters):
        net = averaging(clusters)
        result = rf.min_perturbation(net, clusters.means, -clusters.labels)
        np.testing.assert_array_equal(result.radius, 0)
        np.testing.assert_array_equal(result.perturbation, 0)
        assert result.proved.all()
        assert set(result.method) == {"misclassified"}
        assert result.flips == 1

    def test_the_label_is_the_sign_of_the_output_by_default(self):
        net, clusters, data = trained()
        given = rf.min_perturbation(net, data.X, data.y, clusters=clusters)
        default = rf.min_perturbation(net, data.X, clusters=clusters)
        np.testing.assert_array_equal(default.radius, given.radius)

    def test_a_network_that_never_flips(self):
        # relu(x) + relu(1 - x) >= 1.
        net = rf.TwoLayerNet([[1.0], [-1.0]], [0.0, 1.0], [1.0, 1.0])
        result = rf.min_perturbation(net, [[0.3], [2.0]])
        assert (result.radius == np.inf).all()
        assert (result.lower_bound == np.inf).all()
        assert result.proved.all()
        assert result.method == ("never flips", "never flips")
        assert "never flips 2" in str(result)
        # A network of constants.
        constant = rf.TwoLayerNet(np.zeros((2, 3)), [1.0, -1.0], [2.0, 1.0])
        assert rf.min_perturbation(constant, np.ones((1, 3))).radius[0] == np.inf
        assert rf.min_perturbation(constant, np.ones((1, 3)), [-1]).radius[0] == 0

    def test_an_output_of_zero_at_the_start(self):
        # relu(x) - relu(y) is 0 at (1, 1), where "N <= 0" holds and "N < 0" is arbitrarily near;
        # relu(x) - relu(x - 1) is 0 for x <= 0 and never below.
        net = rf.TwoLayerNet(np.eye(2), np.zeros(2), [1.0, -1.0])
        for label in (1, -1):
            found = rf.min_perturbation(net, [[1.0, 1.0]], [label])
            assert (found.radius[0], found.method) == (0, ("misclassified",))
            strict = rf.min_perturbation(net, [[1.0, 1.0]], [label], definition="strict")
            assert strict.radius[0] == pytest.approx(0, abs=1e-12)
        step = rf.TwoLayerNet([[1.0], [1.0]], [0.0, -1.0], [1.0, -1.0])
        assert rf.min_perturbation(step, [[-2.0]], [1]).radius[0] == 0
        never = rf.min_perturbation(step, [[-2.0]], [1], definition="strict")
        assert never.radius[0] == np.inf

    @pytest.mark.parametrize("name", ["W", "b", "v"])
    def test_weights_that_are_not_finite(self, name):
        arrays = {"W": np.eye(2), "b": np.zeros(2), "v": np.ones(2)}
        arrays[name] = np.full_like(arrays[name], np.nan)
        with pytest.raises(ValueError, match=f"{name} must be finite") as error:
            rf.min_perturbation(rf.TwoLayerNet(**arrays), [[1.0, 1.0]])
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_output_weights_of_one_sign(self, sign):
        # With v > 0 throughout, N >= 0: flipped, where at all, only as N = 0, on {W x <= -b}.
        net = rf.TwoLayerNet(np.eye(2), [-1.0, -2.0], [sign * 1.0, sign * 3.0])
        # The point (2, 2) dies at (1, 2); from (4, 3) it is sqrt(9 + 1) to the corner (1, 2).
        found = rf.min_perturbation(net, [[2.0, 2.0], [4.0, 3.0]], [sign, sign])
        np.testing.assert_allclose(found.radius, [1.0, np.sqrt(10)], rtol=1e-12)
        strict = rf.min_perturbation(net, [[4.0, 3.0]], [sign], definition="strict")
        assert strict.radius[0] == np.inf
        assert strict.proved[0]
        assert strict.method == ("never flips",)

    def test_budgets_leave_valid_bounds(self):
        net, clusters, data = trained(init_scale=3.0)
        best = rf.min_perturbation(net, data.X, data.y, clusters=clusters, max_nodes=20)
        rough = rf.min_perturbation(net, data.X, data.y, clusters=clusters, max_seconds=0)
        assert rough.status == "max_seconds"
        assert (rough.radius >= best.radius * (1 - 1e-12)).all()
        assert (rough.lower_bound <= best.radius).all()
        assert (best.lower_bound <= best.radius).all()
        assert rough.flips == 1

    def test_threads_do_not_matter(self):
        net, clusters, data = trained()
        results = [
            rf.min_perturbation(net, data.X, data.y, clusters=clusters, num_threads=threads)
            for threads in (1, 2, 5)
        ]
        for other in results[1:]:
            for field in ("radius", "lower_bound", "perturbation"):
                np.testing.assert_array_equal(getattr(other, field), getattr(results[0], field))

    def test_no_points(self):
        net, _, _ = trained()
        result = rf.min_perturbation(net, np.zeros((0, net.dim)))
        assert result.radius.shape == (0,)
        assert "0 points" in str(result)

    def test_result(self):
        net, clusters, data = trained()
        result = rf.min_perturbation(net, data.X, data.y, clusters=clusters)
        text = json.dumps(result.to_dict(), allow_nan=False)
        assert len(json.loads(text)["radius"]) == 30
        assert "nonstrict" in str(result)
        assert "proved              30 of 30" in str(result)
        assert result.plot(Figure().subplots()).get_xlabel() == "smallest perturbation"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"X": [[0.0] * 3]}, "X has 3 columns"),
            ({"X": [[np.nan] * 4]}, "X must be finite"),
            ({"X": [0.0] * 4}, "X must have 2 dimension"),
            ({"y": [0]}, "y must be -1 or +1"),
            ({"y": [1, 1]}, "y must have one label an example"),
            ({"definition": "weak"}, "definition='weak' is unknown"),
            ({"rtol": 0}, "rtol must be above 0"),
            ({"rtol": 1.5}, "rtol must be below 1"),
            ({"max_seconds": -1}, "max_seconds must be at least 0"),
            ({"max_nodes": -1}, "max_nodes must be at least 0"),
            ({"num_threads": 0}, "num_threads must be at least 1"),
            ({"backend": "cuda"}, "backend='cuda' is unknown"),
            ({"clusters": "means"}, "clusters must be a ClusterModel or a Dataset"),
            ({"clusters": rf.ClusterModel.orthogonal(2, 5, 1)}, "clusters has 5 columns"),
        ],
    )
    def test_bad_input(self, arguments, message):
        net = rf.TwoLayerNet(np.eye(4), np.zeros(4), [1, -1, 1, -1])
        arguments = {"X": [[1.0, 0, 0, 0]], **arguments}
        with pytest.raises((ValueError, TypeError), match=re.escape(message)) as error:
            rf.min_perturbation(net, **arguments)
        assert "\n" not in str(error.value)


class TestUniversalPerturbation:
    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_noise_free_means(self, definition):
        # relu(1 - eta h) - relu(eta h) vanishes at eta = 1/(2h) = 1/k: ||z|| = sqrt(d/k)
        # (docs/theory.md, section 6.2).
        clusters = rf.ClusterModel.orthogonal(K, D, 0.0)
        result = rf.universal_perturbation(
            averaging(clusters), clusters, definition=definition, n=50
        )
        assert result.scale == pytest.approx(np.sqrt(D / K))
        for norm in (result.norm, result.norm_50, result.norm_100, result.norm_positive):
            assert norm == pytest.approx(np.sqrt(D / K), rel=1e-12)
        assert result.ratio == pytest.approx(1)
        assert result.eta == pytest.approx(1 / K)
        assert result.flipped == 1
        assert result.status == "converged"
        np.testing.assert_allclose(np.linalg.norm(result.direction), 1)

    @pytest.mark.parametrize("backend", ["native", "numpy"])
    def test_the_curve_is_what_the_network_does(self, backend):
        net, _, data = trained()
        result = rf.universal_perturbation(net, data, flip=0.8, backend=backend)
        curve, z = result.curve, result.direction
        assert (np.diff(curve.norm) >= 0).all()
        for index in (0, 7, 23, 29):
            norm = curve.norm[index]
            counted = [
                (data.y * net(data.X - (data.y * norm * factor)[:, None] * z) <= 0).mean()
                for factor in (1 - 1e-9, 1 + 1e-9)
            ]
            assert counted[0] < curve.fraction[index] <= counted[1]
        assert result.norm == curve.norm[23]  # ceil(0.8 * 30) = 24 examples
        assert result.flipped == pytest.approx(0.8)
        positive = data.y > 0
        share = positive.mean()
        np.testing.assert_allclose(
            share * curve.fraction_positive + (1 - share) * curve.fraction_negative, curve.fraction
        )

    def test_directions(self, clusters):
        net, data = averaging(clusters), clusters.sample(60, 2)
        z = clusters.labels @ clusters.means
        model = rf.universal_perturbation(net, clusters, n=60, seed=2)
        array = rf.universal_perturbation(net, data, direction=3 * z)
        assert array.norm == pytest.approx(model.norm, rel=1e-12)
        assert array.eta == pytest.approx(model.eta / 3, rel=1e-12)
        # Means that are estimated from six to nine examples each are nearly the same.
        assert rf.universal_perturbation(net, data).norm == pytest.approx(model.norm, rel=0.05)
        classes = rf.universal_perturbation(net, rf.Dataset(data.X, data.y))
        assert classes.norm == pytest.approx(model.norm, rel=0.05)
        assert classes.scale == pytest.approx(np.sqrt(D / 2))

    def test_what_never_flips_and_what_is_flipped_already(self, clusters):
        net = averaging(clusters)
        z = clusters.labels @ clusters.means
        away = rf.universal_perturbation(net, clusters, direction=-z, n=40)
        assert away.norm == away.norm_50 == np.inf
        assert away.flipped == 0
        assert away.status == "not_reached"
        assert "never" in str(away)
        data = clusters.sample(40, 0)
        turned = rf.Dataset(data.X, -data.y)
        assert rf.universal_perturbation(net, turned, direction=z).norm_100 == 0

    def test_result(self, clusters):
        result = rf.universal_perturbation(averaging(clusters), clusters, n=30)
        json.dumps(result.to_dict(), allow_nan=False)
        assert "sqrt(d/k)" in str(result)
        assert "nonstrict" in str(result)
        assert result.plot(Figure().subplots()).get_ylabel() == "flipped fraction"

    def test_threads_do_not_matter(self, clusters):
        net = averaging(clusters)
        curves = [
            rf.universal_perturbation(net, clusters, n=500, num_threads=t).curve.norm
            for t in (1, 2, 5)
        ]
        for other in curves[1:]:
            np.testing.assert_array_equal(other, curves[0])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"direction": "random"}, "direction='random' is unknown; use 'means', 'optimised'"),
            ({"direction": "optimised", "max_seconds": -1}, "max_seconds must be at least 0"),
            ({"direction": np.ones(3)}, "direction has 3 entries"),
            ({"direction": np.zeros(4)}, "direction must not be zero"),
            ({"direction": np.full(4, np.nan)}, "direction must be finite"),
            ({"flip": 0}, "flip must be above 0"),
            ({"flip": 1.5}, "flip must be at most 1"),
            ({"n": 0}, "n must be at least 1"),
            ({"definition": "weak"}, "definition='weak' is unknown"),
            ({"clusters_or_data": np.eye(4)}, "clusters_or_data must be a ClusterModel"),
            ({"clusters_or_data": rf.ClusterModel.orthogonal(2, 5, 1)}, "has 5 columns"),
        ],
    )
    def test_bad_input(self, arguments, message):
        net = rf.TwoLayerNet(np.eye(4), np.zeros(4), [1, -1, 1, -1])
        arguments = {"clusters_or_data": rf.ClusterModel.orthogonal(2, 4, 1), **arguments}
        with pytest.raises((ValueError, TypeError), match=re.escape(message)) as error:
            rf.universal_perturbation(net, **arguments)
        assert "\n" not in str(error.value)


class TestRobustNetwork:
    def test_weights(self, clusters):
        net = rf.robust_network(clusters)
        np.testing.assert_allclose(net.W, 4 * clusters.means / D)
        np.testing.assert_array_equal(net.b, -2)
        np.testing.assert_array_equal(net.v, clusters.labels)

    def test_reduced_coordinates_keep_the_dimension_of_the_experiment(self):
        problem = rf.draw(rf.ClusterModel.orthogonal(4, 10_000, 0.1), 10, 4)
        assert problem.clusters.dim < 10_000
        outputs = rf.robust_network(problem.clusters)(problem.clusters.means)
        np.testing.assert_allclose(outputs, 2 * problem.clusters.labels, rtol=1e-9)

    @pytest.mark.parametrize("bias", [0.0, 0.2, 0.45])
    def test_any_bias(self, clusters, bias):
        net = rf.robust_network(clusters, bias=bias)
        expected = one_neuron_a_mean(clusters, bias)
        np.testing.assert_allclose(net(clusters.means), expected(clusters.means), rtol=1e-12)

    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    @pytest.mark.parametrize("k", [2, 8, 32])
    def test_the_best_bias_reaches_half_the_distance_between_means(self, k, definition):
        clusters = rf.ClusterModel.orthogonal(k, D, 0.1)
        net = rf.robust_network(clusters, bias="best")
        found = rf.min_perturbation(
            net, clusters.means, clusters.labels, clusters=clusters, definition=definition
        )
        np.testing.assert_allclose(found.radius, np.sqrt(D / 2), rtol=1e-12)
        assert found.proved.all()

    @pytest.mark.parametrize("bias", ["worst", 1.0, -0.1, float("nan")])
    def test_bad_biases_are_refused(self, clusters, bias):
        with pytest.raises(ValueError, match="bias"):
            rf.robust_network(clusters, bias=bias)

    def test_needs_a_cluster_model(self, clusters):
        with pytest.raises(TypeError, match="clusters must be a ClusterModel; got Dataset"):
            rf.robust_network(clusters.sample(20, 0))


class TestMerging:
    """Parallel neurons are replaced by one before the search (docs/theory.md, section 7.7)."""

    def spread(self, net, copies, tilt, seed=0):
        """The same function, but for ``tilt``: every neuron cut into parallel shares."""
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.ones(copies), net.width)
        roots = np.sqrt(shares).ravel()
        W = np.repeat(net.W, copies, axis=0) * roots[:, None]
        W *= 1 + tilt * rng.standard_normal(W.shape)
        return rf.TwoLayerNet(W, np.repeat(net.b, copies) * roots, np.repeat(net.v, copies) * roots)

    def test_parallel_neurons_decide_every_point(self, clusters):
        wide = self.spread(one_neuron_a_mean(clusters, 0.1), 5, 0.0)
        data = clusters.sample(30, 5)
        merged = rf.min_perturbation(wide, data.X, data.y, clusters=clusters, merge_tol=1e-7)
        whole = rf.min_perturbation(wide, data.X, data.y, clusters=clusters)
        assert whole.merging is None
        assert merged.merging.neurons == K
        assert merged.merging.points == 30
        assert merged.merging.error <= 1e-12 * (np.abs(wide.v) @ np.linalg.norm(wide.W, axis=1))
        np.testing.assert_allclose(merged.radius, whole.radius, rtol=1e-9)
        assert merged.proved.all()
        assert merged.flips == 1
        assert "8 neurons are left" in str(merged)
        assert merged.to_dict()["merging"]["points"] == 30

    @pytest.mark.parametrize("tilt", [1e-8, 1e-3, 0.1])
    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    def test_the_error_is_counted_against_the_bounds(self, clusters, tilt, definition):
        wide = self.spread(one_neuron_a_mean(clusters, 0.1), 3, tilt)
        data = clusters.sample(12, 5)
        settings = {"clusters": clusters, "definition": definition, "rtol": 1e-2}
        whole = rf.min_perturbation(wide, data.X, data.y, **settings)
        merged = rf.min_perturbation(wide, data.X, data.y, merge_tol=0.5, **settings)
        assert merged.merging.neurons == K
        assert (merged.lower_bound <= whole.radius * (1 + 1e-9)).all()
        assert (merged.radius >= whole.lower_bound).all()
        assert merged.proved.all()
        assert merged.flips == 1
        assert (merged.merging.points == 12) == (tilt < 0.01)
        # The stated error bounds the change of the output.
        from reluflow.robustness._merging import merged_network

        small, error = merged_network(wide, 0.5)
        change = np.abs(small(data.X) - wide(data.X))
        assert (change <= error * np.sqrt((data.X**2).sum(axis=1) + 1)).all()

    def test_nothing_to_merge_and_misclassified_points(self, clusters):
        net = one_neuron_a_mean(clusters, 0.1)
        found = rf.min_perturbation(net, clusters.means, clusters.labels, merge_tol=1e-6)
        assert (found.merging.neurons, found.merging.points) == (K, 0)
        wide = self.spread(net, 2, 0.0)
        found = rf.min_perturbation(wide, clusters.means, -clusters.labels, merge_tol=1e-6)
        assert set(found.method) == {"misclassified"}
        assert found.proved.all()

    def test_bad_input(self, clusters):
        net = averaging(clusters)
        with pytest.raises(ValueError, match="merge_tol must be below 1"):
            rf.min_perturbation(net, clusters.means, merge_tol=1.0)
        with pytest.raises(ValueError, match="cannot be combined"):
            rf.min_perturbation(net, clusters.means, merge_tol=0.1, keep_certificates=True)
