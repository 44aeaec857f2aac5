"""Adversarial examples, adversarial training, and robust KKT certificates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize

import reluflow as rf
from reluflow._dispatch import kernels
from reluflow._targets import targets_for
from reluflow.adversarial import closest_opposites

CLUSTERS = rf.ClusterModel.orthogonal(4, 60, 0.2, seed=0)
DATA = CLUSTERS.sample(16, 1)
START = rf.TwoLayerNet.init(12, 60, 0.1, seed=2)


def random_problem(seed, m=8, d=6, n=4):
    rng = np.random.default_rng(seed)
    net = rf.TwoLayerNet(
        rng.standard_normal((m, d)), 0.5 * rng.standard_normal(m), rng.standard_normal(m)
    )
    X = 2 * rng.standard_normal((n, d))
    return net, rf.Dataset(X, np.where(np.arange(n) % 2 == 0, 1.0, -1.0))


def smallest_margin(net, x, label, radius):
    """Over all subsets of opposing neurons, the dual maximum by a general bounded optimiser."""
    output = label * net.v
    opposing, supporting = np.flatnonzero(output < 0), np.flatnonzero(output > 0)
    a = net.W @ x + net.b

    def dual(multipliers, slopes):
        sigma = slopes.copy()
        sigma[supporting] = multipliers
        normal = net.W.T @ sigma
        length = np.linalg.norm(normal)
        gradient = a - radius * (net.W @ normal) / max(length, 1e-300)
        return radius * length - sigma @ a, -gradient[supporting]

    def piece(subset):
        slopes = np.zeros_like(output)
        slopes[list(subset)] = output[list(subset)]
        bounds = [(0, top) for top in output[supporting]]
        found = minimize(
            dual,
            output[supporting] / 2,
            args=(slopes,),
            jac=True,
            bounds=bounds,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 2000},
        )
        return -found.fun

    sizes = range(len(opposing) + 1)
    return min(piece(s) for size in sizes for s in itertools.combinations(opposing, size))


def kernel_arguments(net, data):
    targets, order = targets_for(data.X, data.y, data)
    return net.W, net.b, net.v, data.X, data.y, np.ascontiguousarray(targets), order


@pytest.mark.parametrize("seed", [*range(5), 9])
def test_the_search_is_exact_on_small_networks(seed):
    net, data = random_problem(seed, m=7)
    for radius in (0.1, 0.7, 2.0):
        found = rf.adversarial_examples(net, data, radius)
        assert (np.linalg.norm(found.perturbations, axis=1) <= radius * (1 + 1e-9)).all()
        moved = data.y * net(data.X + found.perturbations)
        np.testing.assert_allclose(found.margins, moved, atol=1e-10)
        for i in range(data.n):
            exact = smallest_margin(net, data.X[i], data.y[i], radius)
            assert found.margins[i] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("inner", ["search", "pgd"])
def test_both_kernels_find_the_same(inner):
    net, data = random_problem(3)
    native, numpy = (
        rf.adversarial_examples(net, data, 0.8, inner=inner, inner_steps=15, backend=backend)
        for backend in ("native", "numpy")
    )
    np.testing.assert_allclose(native.margins, numpy.margins, atol=1e-9)
    np.testing.assert_allclose(native.perturbations, numpy.perturbations, atol=1e-5)


def test_minima_within_the_spread_are_kept_and_the_smallest_is_first():
    net, data = random_problem(1)
    one = rf.adversarial_examples(net, data, 1.0)
    many = rf.adversarial_examples(net, data, 1.0, spread=5.0)
    assert len(many.margins) > data.n
    for i in range(data.n):
        own = many.margins[many.example == i]
        assert own[0] == pytest.approx(one.margins[i], abs=1e-9)
        assert (np.diff(own) >= 0).all()
        assert own[-1] <= own[0] + 5.0
    assert many.dataset(data).n == len(many.margins)


def test_a_linear_network_has_its_known_smallest_margin():
    # relu(z) - relu(-z) = z: the smallest margin is y w.x - radius ||w||.
    w = np.array([3.0, 4.0])
    net = rf.TwoLayerNet([w, -w], [0, 0], [1, -1])
    data = rf.Dataset([[2.0, 1.0], [-1.0, 0.0]], [1, -1])
    found = rf.adversarial_examples(net, data, 0.5)
    np.testing.assert_allclose(found.margins, [10 - 2.5, 3 - 2.5], atol=1e-12)
    np.testing.assert_allclose(found.perturbations, np.outer([-1, 1], w / 10), atol=1e-12)


@pytest.mark.parametrize(
    ("backend", "radius"), [("native", 0.3), ("native", 1.0), ("native", 2.0), ("numpy", 1.0)]
)
def test_the_gradient_is_that_of_the_smallest_margins(radius, backend):
    net, data = random_problem(5, m=6, d=4)
    kernel = kernels(backend)
    loss = kernel.MarginLoss(kernel.Loss.exponential, 0.0)
    m, d = net.W.shape

    def gradient(theta):
        moved = rf.TwoLayerNet(theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:])
        arguments = kernel_arguments(moved, data)
        return kernel.adversarial_gradient(*arguments, loss, True, True, radius, 0, 1)

    theta = np.concatenate([net.W.ravel(), net.b, net.v])
    found = gradient(theta)
    velocity = np.concatenate([found.weights.ravel(), found.bias, found.output])
    step = 1e-6
    some = range(0, len(theta), 1 if backend == "native" else 29)
    for i in some:
        unit = np.zeros_like(theta)
        unit[i] = step
        slope = (gradient(theta + unit).log_loss - gradient(theta - unit).log_loss) / (2 * step)
        assert velocity[i] == pytest.approx(-slope, abs=1e-6 * np.abs(velocity).max())


def test_without_a_radius_the_flow_is_the_clean_one_bit_for_bit():
    clean = rf.gradient_flow(START, DATA)
    robust = rf.gradient_flow(START, DATA, adversarial_radius=0.0)
    assert type(robust) is rf.FlowResult
    for name in ("W", "b", "v"):
        np.testing.assert_array_equal(getattr(clean.net, name), getattr(robust.net, name))


def test_a_radius_that_is_nearly_zero_changes_the_flow_as_little():
    clean = rf.gradient_flow(START, DATA, rtol=1e-4)
    robust = rf.gradient_flow(START, DATA, rtol=1e-4, adversarial_radius=1e-9)
    assert robust.form == "primal" or robust.form == "span"
    np.testing.assert_allclose(robust.net.W, clean.net.W, atol=1e-5 * np.abs(clean.net.W).max())


def test_both_backends_follow_the_same_flow():
    net, data = random_problem(2, m=4, d=4, n=4)
    native, numpy = (
        rf.gradient_flow(
            net, data, adversarial_radius=0.1, max_evaluations=13, backend=backend, rtol=1e-2
        )
        for backend in ("native", "numpy")
    )
    np.testing.assert_allclose(native.net.W, numpy.net.W, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(native.trajectory.norm, numpy.trajectory.norm, rtol=1e-8)


def test_the_flow_is_bitwise_the_same_for_any_number_of_threads():
    # Wide enough that the work is shared.
    net = rf.TwoLayerNet.init(100, 60, 0.1, seed=1)
    one, *others = (
        rf.gradient_flow(
            net, DATA, adversarial_radius=2.0, max_evaluations=40, rtol=1e-1, num_threads=threads
        )
        for threads in (1, 2, 3)
    )
    for other in others:
        np.testing.assert_array_equal(one.net.W, other.net.W)
        np.testing.assert_array_equal(one.perturbations, other.perturbations)


def test_a_trained_network_is_robust_and_more_so_than_a_clean_one():
    radius = 0.8 * math.sqrt(60 / 4)
    flow = rf.gradient_flow(
        START, DATA, adversarial_radius=radius, log_inverse_loss=50, rtol=3e-2, num_threads=1
    )
    assert flow.status == "converged"
    assert isinstance(flow, rf.AdversarialFlowResult)
    found = rf.adversarial_examples(flow.net, DATA, radius)
    np.testing.assert_allclose(found.margins, flow.margins, rtol=1e-3)
    moved = DATA.y * flow.net(DATA.X + flow.perturbations)
    np.testing.assert_allclose(moved, flow.margins, rtol=1e-6)
    exact = rf.min_perturbation(flow.net, DATA.X, DATA.y, clusters=CLUSTERS, num_threads=1)
    assert (exact.radius > radius).all()
    clean = rf.gradient_flow(START, DATA, log_inverse_loss=50, num_threads=1)
    before = rf.min_perturbation(clean.net, DATA.X, DATA.y, clusters=CLUSTERS, num_threads=1)
    assert np.median(exact.radius) > 1.15 * np.median(before.radius)
    assert "adversarial radius" in str(flow)
    assert "perturbations" not in flow.to_dict()


def test_descent_is_nowhere_better_than_the_search_along_a_flow():
    radius = math.sqrt(60 / 4)
    options = {"adversarial_radius": radius, "rtol": 5e-2, "num_threads": 1}
    whole = rf.gradient_flow(START, DATA, log_inverse_loss=20, **options)
    for evaluations in whole.trajectory.evaluations.astype(int)[::2]:
        # A flow that ends earlier is the same up to there.
        flow = rf.gradient_flow(
            START, DATA, log_inverse_loss=20, max_evaluations=int(evaluations), **options
        )
        descent = rf.adversarial_examples(flow.net, DATA, radius, inner="pgd", inner_steps=100)
        assert (flow.margins <= descent.margins + 1e-9 * np.abs(flow.margins).max()).all()


def test_training_with_descent_is_an_option():
    flow = rf.gradient_flow(
        START,
        DATA,
        adversarial_radius=2.0,
        inner="pgd",
        inner_steps=5,
        log_inverse_loss=5,
        rtol=0.05,
    )
    assert flow.status == "converged"
    assert flow.inner == "pgd"
    exact = rf.adversarial_examples(flow.net, DATA, 2.0)
    assert (exact.margins <= flow.margins + 1e-9).all()


def test_a_radius_at_which_balls_meet_is_refused_with_a_reason():
    distance, i, j = closest_opposites(DATA)
    assert DATA.y[i] != DATA.y[j]
    opposite = DATA.y[:, None] != DATA.y
    gaps = np.linalg.norm(DATA.X[:, None] - DATA.X, axis=2)[opposite]
    assert distance == pytest.approx(gaps.min(), rel=1e-12)
    for radius in (distance / 2 * (1 + 1e-12), distance, 100 * distance):
        flow = rf.gradient_flow(START, DATA, adversarial_radius=radius)
        assert flow.status == "not_robustly_separable"
        assert flow.evaluations == 1
        assert "balls meet" in flow.reason
        assert "balls meet" in str(flow)


def test_too_few_neurons_end_with_a_status():
    clusters = rf.ClusterModel.orthogonal(8, 60, 0.05, seed=0)
    data = clusters.sample(16, 1)
    net = rf.TwoLayerNet.init(4, 60, 0.1, seed=2)
    flow = rf.gradient_flow(net, data, adversarial_radius=4.3, rtol=3e-2, num_threads=1)
    assert flow.status in ("not_robustly_separable", "dead_class", "stuck_points")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adversarial_radius": -1}, "adversarial_radius must be at least 0; got -1"),
        ({"adversarial_radius": math.nan}, "adversarial_radius must be a number; got nan"),
        ({"adversarial_radius": math.inf}, "adversarial_radius must be finite; got inf"),
        ({"adversarial_radius": 1, "inner": "fgsm"}, "inner='fgsm' is unknown; use one of search"),
        ({"adversarial_radius": 1, "inner_steps": 0}, "inner_steps must be at least 1; got 0"),
        ({"adversarial_radius": 1, "form": "gram"}, "form='gram' cannot be chosen with"),
        ({"adversarial_radius": 1, "method": "rkc2"}, "method='rkc2' cannot be combined with"),
        ({"adversarial_radius": 1, "gram": np.eye(16)}, "gram cannot be used with adversarial"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rf.gradient_flow(START, DATA, **options)


def test_other_networks_are_refused():
    deep = rf.DeepNet.init(3, 6, 60, seed=0)
    with pytest.raises(ValueError, match="adversarial_radius is for two-layer networks"):
        rf.gradient_flow(deep, DATA, adversarial_radius=1.0)
    with pytest.raises(ValueError, match="adversarial_radius is for two-layer networks"):
        rf.certify_kkt(deep, DATA, adversarial_radius=1.0)
    with pytest.raises(TypeError, match="sought for a TwoLayerNet; got DeepNet"):
        rf.adversarial_examples(deep, DATA, 1.0)
    with pytest.raises(ValueError, match="radius must be at least 0"):
        rf.adversarial_examples(START, DATA, -1.0)


def linear_limit(gap, radius):
    """The robust max-margin network of the points +-gap/2 along an axis, one neuron a label.

    y N(x + delta) >= 1 for the neuron w = c e: c^2 (gap/2 - radius) = 1 with |v| = c, and both
    hinges see the nearest point of their ball.
    """
    c = 1 / math.sqrt(gap / 2 - radius)
    axis = np.eye(3)[0]
    return rf.TwoLayerNet([c * axis, -c * axis], [0, 0], [c, -c])


def test_the_robust_certificate_recognises_a_known_limit():
    # lam_i (gap/2 - radius) c = c at each neuron's w: lam = 1/(gap/2 - radius).
    gap, radius = 6.0, 1.0
    data = rf.Dataset(np.outer([gap / 2, -gap / 2], np.eye(3)[0]), [1, -1])
    net = linear_limit(gap, radius)
    found = rf.certify_kkt(net, data, adversarial_radius=radius, bias=False, tol=1e-9)
    assert isinstance(found, rf.RobustKKTCertificate)
    assert found.status == "converged"
    np.testing.assert_allclose(found.multipliers, 1 / (gap / 2 - radius), rtol=1e-9)
    np.testing.assert_allclose(found.perturbations[:, 0], [-radius, radius], rtol=1e-9)
    # The same network is no KKT point for another radius: multipliers cannot fit margins that the
    # plane's normal does not pass through.
    assert found.example.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"within adversarial_radius=3\.5; the smallest robust"):
        rf.certify_kkt(net, data, adversarial_radius=3.5, bias=False)


def test_the_end_of_a_robust_flow_comes_near_a_robust_kkt_point():
    radius = 0.5 * math.sqrt(60 / 4)
    flow = rf.gradient_flow(
        START, DATA, adversarial_radius=radius, log_inverse_loss=1e3, rtol=1e-2, num_threads=1
    )
    robust = rf.certify_kkt(flow.net, DATA, adversarial_radius=radius, kink_tol=1e-2)
    clean = rf.certify_kkt(flow.net, DATA, kink_tol=1e-2)
    assert robust.stationarity < 0.1
    assert robust.stationarity < 0.5 * clean.stationarity
    assert robust.normalized_margin == pytest.approx(flow.normalized_margin, rel=1e-6)
