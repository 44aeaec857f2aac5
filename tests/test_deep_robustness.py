"""Perturbations of deep networks: exact along a ray, bounded otherwise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import reluflow as rf
from reluflow.robustness._deep_rays import _walk, first_crossings, restricted
from reluflow.robustness._deep_search import input_gradients, lipschitz

SHAPES = [
    {"depth": 2},
    {"depth": 2, "activation": "leaky_relu", "slope": 0.3},
    {"depth": 2, "skip": True, "bias": "all"},
    {"depth": 3, "bias": "all"},
    {"depth": 4, "activation": "leaky_relu", "skip": True},
    {"depth": 3, "class_labels": [1, -1, 1, -1]},
    {"depth": 2, "activation": "polynomial_relu", "power": 2.0},
    {"depth": 3, "activation": "normalized_polynomial_relu", "power": 2.5},
]
POLYGONS = [shape for shape in SHAPES if "polynomial" not in shape.get("activation", "")]


def random_net(seed=0, dim=5, width=8, **options):
    """A random network that gives both labels."""
    net = rf.DeepNet.init(width=width, dim=dim, scale=1.0, seed=seed, **options)
    theta = net.theta
    net = net.with_theta(theta + 0.4 * np.random.default_rng(seed).standard_normal(len(theta)))
    if len(np.unique(classified(net)[1])) == 2:
        return net
    return random_net(seed + 100, dim, width, **options)


def classified(net, n=12, seed=1):
    X = 2 * np.random.default_rng(seed).standard_normal((n, net.dim))
    return X, np.where(net(X) >= 0, 1.0, -1.0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_crossings_are_those_of_a_fine_grid(shape):
    net = random_net(**shape)
    X, y = classified(net)
    u = np.random.default_rng(2).standard_normal(X.shape)
    longest = np.full(len(X), 20.0)
    found = first_crossings(net, X, u, y, longest=longest, grid=5_000)
    grid = np.linspace(0, 20, 10_001)
    for i in range(len(X)):
        flipped = y[i] * net(X[i] + grid[:, None] * u[i]) <= 0
        expected = grid[flipped.argmax()] if flipped.any() else np.inf
        # The grid's first flip comes up to one of its steps late.
        assert found[i] == expected or expected - 2.1e-3 <= found[i] <= expected + 1e-9
        if np.isfinite(found[i]) and found[i] > 0:
            assert y[i] * net((X[i] + found[i] * (1 + 1e-9) * u[i])[None])[0] <= 1e-9


SHALLOW = [
    {},
    {"activation": "leaky_relu", "slope": 0.3},
    {"skip": True, "bias": "all"},
    {"bias": "none"},
    {"class_labels": [1, -1]},
    {"class_labels": [1, -1, 1, 1, -1, 1]},
    {"class_labels": [1, -1, -1, 1, -1], "activation": "leaky_relu", "bias": "all"},
    {"class_labels": [1, -1, -1], "skip": True, "bias": "none"},
]


def brute_first_flip(net, x, u, y, longest):
    """From values of the network where y N(x + t u) may have corners: at kinks, and where two
    outputs meet within a piece; between them it is a line.
    """
    bias = np.zeros(len(net.weights[0])) if net.biases[0] is None else net.biases[0]
    kinks = -(net.weights[0] @ x + bias) / (net.weights[0] @ u)
    ends = np.unique([0.0, *kinks[(kinks > 0) & (kinks < longest)], longest])
    corners = list(ends)
    for a, b in itertools.pairwise(ends):
        at_a, at_b = net.logits(np.stack([x + a * u, x + b * u]))
        before, after = at_a[:, None] - at_a, at_b[:, None] - at_b
        meet = before * after < 0
        corners += list(a + (b - a) * before[meet] / (before - after)[meet])
    t = np.unique(corners)
    margin = y * net(x + t[:, None] * u)
    # Of dead networks that are 0 up to rounding.
    flipped = margin <= 1e-13
    if not flipped.any():
        return np.inf
    i = flipped.argmax()
    if i == 0:
        return 0.0
    share = margin[i - 1] / (margin[i - 1] - margin[i])
    return t[i - 1] + min(share, 1.0) * (t[i] - t[i - 1])


@pytest.mark.parametrize("shape", SHALLOW, ids=str)
@pytest.mark.parametrize(("seed", "width"), [(0, 8), (1, 40)])
def test_all_kinks_at_once_give_the_first_flip_of_brute_force(shape, seed, width):
    net = random_net(seed, width=width, depth=2, **shape)
    X, y = classified(net, n=30)
    rng = np.random.default_rng(100 + seed)
    u, longest = rng.standard_normal(X.shape), rng.uniform(0, 8, len(X))
    y[:2] *= -1
    found = first_crossings(net, X, u, y, longest=longest)
    expected = [brute_first_flip(net, *ray) for ray in zip(X, u, y, longest, strict=True)]
    assert 5 <= np.isfinite(found).sum() < 30
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    piece_by_piece = _walk(net, X, u, y, longest)
    np.testing.assert_allclose(found, piece_by_piece, rtol=0, atol=1e-9)


@pytest.mark.parametrize("longest", [2.0, np.inf])
def test_a_flip_and_its_return_between_two_kinks_are_seen(longest):
    # Own outputs 1 - t and t - 1 and a rival of 1/4 from 0 on: flipped from 3/4 to 5/4 alone. The
    # only kinks are at 3 and later.
    net = rf.DeepNet(
        [np.array([[1.0], [1.0]]), np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])],
        [np.array([0.0, -3.0]), np.array([1.0, -1.0, 0.25])],
        class_labels=[1, 1, -1],
    )
    ray = (np.zeros((1, 1)), np.ones((1, 1)), np.ones(1))
    assert first_crossings(net, *ray, longest=np.array([longest])) == pytest.approx(0.75)
    assert first_crossings(net, *ray, longest=np.array([0.7])) == np.inf


def test_a_network_flips_where_its_last_unit_dies():
    # Sums of 60 units' outputs end at 0 but for rounding, and the network is 0 from there on.
    rng = np.random.default_rng(0)
    start, fall, output = rng.uniform(0.1, 1, (3, 60))
    net = rf.DeepNet([-fall[:, None], output[None]], [start, None])
    found = first_crossings(
        net, np.zeros((1, 1)), np.ones((1, 1)), np.ones(1), longest=np.array([np.inf])
    )
    assert found == pytest.approx((start / fall).max(), rel=1e-12)


@pytest.mark.parametrize("shape", POLYGONS[:3], ids=str)
def test_crossings_agree_with_those_of_the_two_layer_network(shape):
    net = random_net(**shape)
    data = rf.Dataset(*classified(net))
    direction = np.random.default_rng(4).standard_normal(net.dim)
    exact = rf.universal_perturbation(net.to_two_layer(), data, direction=direction)
    inside, basis = restricted(net)
    unit = direction / np.linalg.norm(direction)
    shifts = -data.y[:, None] * (unit @ basis)
    norms = first_crossings(inside, data.X @ basis, shifts, data.y, longest=np.full(data.n, np.inf))
    np.testing.assert_allclose(np.sort(norms), exact.curve.norm, rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_in_the_input_are_those_of_finite_differences(shape):
    net = random_net(**shape)
    X, y = classified(net)
    h = 1e-6
    steps = h * np.eye(net.dim)
    expected = np.stack([(y * net(X + s) - y * net(X - s)) / (2 * h) for s in steps], axis=1)
    np.testing.assert_allclose(input_gradients(net, X, y), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", POLYGONS[:3], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_two_layer_network_has_a_proved_radius(shape, seed):
    net = random_net(seed=seed, **shape)
    X, y = classified(net)
    np.testing.assert_allclose(net.to_two_layer()(X), net(X), rtol=1e-12, atol=1e-12)
    found = rf.min_perturbation(net, X, y)
    assert found.proved.all()


@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_what_is_proved_of_two_layers(seed):
    from reluflow._targets import targets_for
    from reluflow.robustness._deep_search import search_deep

    clusters = rf.ClusterModel.orthogonal(4, 200, 0.5, seed=seed)
    data = clusters.sample(24, seed)
    net = rf.gradient_flow(rf.DeepNet.init(2, 20, 200, seed=seed), data, log_inverse_loss=20.0).net
    exact = rf.min_perturbation(net, data.X, data.y, clusters=clusters)
    bounds = search_deep(net, data.X, data.y, *targets_for(data.X, data.y, clusters))
    assert exact.proved.all()
    # Upper bounds, and on trained networks tight ones.
    assert (bounds.radius >= exact.radius * (1 - 1e-9)).all()
    assert np.median(bounds.radius / exact.radius) <= 1 + 1e-6
    assert (bounds.lower_bound <= exact.radius * (1 + 1e-9)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bounds_are_valid_and_perturbations_flip(shape):
    net = random_net(**shape)
    X, y = classified(net)
    found = rf.min_perturbation(net, X, y)
    finite = np.isfinite(found.radius)
    assert finite.any()
    np.testing.assert_allclose(
        np.linalg.norm(found.perturbation[finite], axis=1), found.radius[finite], rtol=1e-8
    )
    assert found.flips == 1.0
    # Nothing shorter than the lower bound flips.
    rng = np.random.default_rng(3)
    for _ in range(200):
        delta = rng.standard_normal(X.shape)
        delta *= (found.lower_bound * (1 - 1e-9) / np.linalg.norm(delta, axis=1))[:, None]
        assert (y * net(X + np.where(np.isfinite(delta), delta, 0)) > -1e-12).all()


@pytest.mark.parametrize("shape", POLYGONS, ids=str)
def test_no_two_inputs_differ_by_more_than_the_lipschitz_constant(shape):
    net = random_net(**shape)
    rng = np.random.default_rng(5)
    A, B = 3 * rng.standard_normal((2, 4000, net.dim))
    slopes = np.abs(net(A) - net(B)) / np.linalg.norm(A - B, axis=1)
    assert slopes.max() <= lipschitz(net)


def test_a_misclassified_point_has_radius_zero_and_a_constant_network_none():
    net = random_net(depth=3)
    X, y = classified(net)
    found = rf.min_perturbation(net, X, -y)
    assert (found.radius == 0).all()
    assert found.proved.all()
    assert set(found.method) == {"misclassified"}
    positive = rf.DeepNet([np.eye(2), np.eye(2), np.ones((1, 2))], [None, None, np.ones(1)])
    never = rf.min_perturbation(positive, np.eye(2), [1, 1])
    assert np.isinf(never.radius).all()
    assert (never.perturbation == 0).all()
    assert not never.proved.any()


def test_half_of_the_examples_flip_near_the_universal_norm():
    # Depth does not change the norm at which the shift along the means flips half of the examples:
    # sqrt(d/k), within a few percent at this noise.
    clusters = rf.ClusterModel.orthogonal(8, 2000, 0.2, seed=0)
    data = clusters.sample(64, 1)
    for depth in (2, 3, 4):
        net = rf.DeepNet.init(depth, 50, 2000, seed=2)
        flow = rf.gradient_flow(net, data, log_inverse_loss=100.0)
        found = rf.universal_perturbation(flow.net, clusters, n=200)
        assert found.norm_50 / found.scale == pytest.approx(1.0, abs=0.07)
        assert 1.0 <= found.norm_95 / found.scale <= 1.4


def test_strict_flips_are_for_two_layers():
    net = random_net(depth=3)
    X, y = classified(net)
    with pytest.raises(ValueError, match="definition='strict' is for two-layer networks"):
        rf.min_perturbation(net, X, y, definition="strict")
    with pytest.raises(ValueError, match="definition='strict' is for two-layer networks"):
        rf.universal_perturbation(net, rf.Dataset(X, y), definition="strict")
    with pytest.raises(ValueError, match="only a network of depth 2 with one output"):
        net.to_two_layer()


def trained_on_clusters(depth, noise=0.5, **options):
    clusters = rf.ClusterModel.orthogonal(4, 200, noise, seed=0)
    data = clusters.sample(24, 1)
    net = rf.DeepNet.init(depth, 20, 200, seed=2, **options)
    loss = "logistic" if "class_labels" in options else "exponential"
    return rf.gradient_flow(net, data, loss=loss, log_inverse_loss=20.0).net, clusters


def test_the_search_for_a_shift_finds_what_is_proved_of_two_layers():
    from reluflow.robustness._deep_shift import DeepShiftSearch
    from reluflow.robustness._rays import DeepRays

    net, clusters = trained_on_clusters(2)
    data = clusters.sample(60, 3)
    exact = rf.universal_perturbation(net, clusters, examples=data, direction="optimised")
    assert exact.proved
    rays = DeepRays(net, data, -data.y)
    means = clusters.labels @ clusters.means
    means /= np.linalg.norm(means)
    along = np.sort(rays.crossings(means))[56]
    found = DeepShiftSearch(rays, clusters, 57, np.inf).run(means, along)
    norm = np.linalg.norm(found.z)
    assert found.floor <= exact.norm <= norm * (1 + 1e-9)
    assert norm <= exact.norm * 1.005
    assert norm < along


@pytest.mark.parametrize(
    "shape",
    [
        {"depth": 3},
        {"depth": 4, "activation": "leaky_relu"},
        {"depth": 3, "class_labels": [1.0, -1.0, 1.0, -1.0]},
        {"depth": 2, "activation": "normalized_polynomial_relu", "bias": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("signed", [True, False])
def test_an_optimised_shift_flips_what_it_says(shape, signed):
    net, clusters = trained_on_clusters(**shape)
    data = clusters.sample(40, 3)
    asked = {"examples": data, "flip": 0.9 if signed else 0.45, "signed": signed}
    found = rf.universal_perturbation(net, clusters, direction="optimised", n=40, **asked)
    if not np.isfinite(found.norm):
        assert found.status == "not_reached"
        return
    assert found.floor <= found.norm <= found.means_norm
    moved = data.X + np.outer(
        -data.y if signed else np.ones(40), 1.0001 * found.norm * found.direction
    )
    assert (data.y * net(moved) <= 0).mean() >= asked["flip"] - 0.05
    assert 0 <= found.held_out <= 1
    assert np.linalg.norm(found.direction) == pytest.approx(1)
    along = rf.universal_perturbation(net, clusters, direction=found.direction, **asked)
    assert along.norm == pytest.approx(found.norm, rel=1e-9)


def test_a_search_without_time_returns_the_means():
    net, clusters = trained_on_clusters(3)
    found = rf.universal_perturbation(net, clusters, direction="optimised", n=20, max_seconds=0.0)
    assert found.status == "max_seconds"
    # Along the means as the network sees them.
    assert found.norm <= found.means_norm
