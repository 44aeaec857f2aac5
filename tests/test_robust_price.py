"""Prices of robust networks: closed forms, the linear program, and what training reaches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import reluflow as rf
from reluflow import theory


@pytest.mark.parametrize("k", [2, 8, 64])
def test_a_clean_network_costs_the_root_of_2k(k):
    assert theory.averaging_price(k, 0.0) == pytest.approx(math.sqrt(2 * k), rel=1e-12)
    # gamma = sqrt(d)/(2 price) is the normalised margin of section 5, n_c to infinity.
    gamma = theory.limiting_normalized_margin(400.0, k, 10**9 * k, 0.0)
    assert math.sqrt(400) / (2 * theory.averaging_price(k, 0.0)) == pytest.approx(gamma)


@pytest.mark.parametrize("t", [0.05, 0.25, 0.45, 0.75])
def test_the_averaging_share_minimises_the_price(t):
    # sqrt(2k) sqrt(1 + a^2) over the smaller of the two margins, minimised by brute force.
    def price(a):
        margin = min(1 - t * math.sqrt((1 + a * a) / 2), (1 + a) * (1 - t))
        return math.sqrt(2 * 8) * math.sqrt(1 + a * a) / margin

    found = minimize_scalar(price, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    assert theory.averaging_price(8, t) == pytest.approx(found.fun, rel=1e-7)
    assert theory.averaging_share(t) == pytest.approx(found.x, abs=1e-4)


@pytest.mark.parametrize(("k", "t"), [(2, 0.25), (4, 0.45), (6, 0.3)])
def test_the_averaging_network_has_its_margin(k, t):
    # In units of the means: W = P - aQ, Q - aP scaled to margin 1, by the search in the balls.
    h, a = k // 2, theory.averaging_share(t)
    P, Q = np.repeat([1.0, 0.0], h), np.repeat([0.0, 1.0], h)
    net = rf.TwoLayerNet([P - a * Q, Q - a * P], [0, 0], [1, -1])
    data = rf.Dataset(np.eye(k), np.repeat([1.0, -1.0], h))
    margin = rf.adversarial_examples(net, data, t / math.sqrt(k)).margins.min()
    # Balanced, half the squared norm of the parameters is sum_j |v_j| ||w_j||.
    price = 2 * math.sqrt(h * (1 + a * a)) / margin
    assert price == pytest.approx(theory.averaging_price(k, t), rel=1e-9)


@pytest.mark.parametrize(("k", "expected"), [(4, 0.537), (8, 0.455), (16, 0.425)])
def test_averaging_stops_being_optimal_at_its_threshold(k, expected):
    # Independently: the linear program is as dear as averaging before, and cheaper beyond.
    found = theory.averaging_threshold(k)
    assert found == pytest.approx(expected, abs=5e-4)
    below, beyond = found - 0.03, found + 0.12
    before = theory.infinite_width_price(k, below)
    assert before.lower_bound == pytest.approx(theory.averaging_price(k, below), rel=2e-3)
    assert theory.infinite_width_price(k, beyond).price < 0.998 * theory.averaging_price(k, beyond)


def test_with_more_clusters_the_threshold_falls_towards_two_fifths():
    # The neuron that leaves out one cluster of its label is the first to be worth its price.
    assert theory.averaging_threshold(64) == pytest.approx(0.4059, abs=2e-4)


@pytest.mark.parametrize(
    ("k", "t", "expected"), [(2, 0.25, 2.443), (4, 0.75, 6.8242), (8, 0.5, 6.4362)]
)
def test_the_linear_program_has_its_price(k, t, expected):
    found = theory.infinite_width_price(k, t)
    # To the resolution of its grid of neurons.
    assert found.price == pytest.approx(expected, rel=1e-3)
    assert found.lower_bound <= found.price * (1 + 1e-9)
    # The network that it names has that price, its margins proved by exact radii: with the margin
    # taken off by a neuron without weights, nothing flips within the ball.
    net, data = found.net, rf.Dataset(np.eye(k), np.repeat([1.0, -1.0], k // 2), np.arange(k))
    mass = float((np.abs(net.v) * np.linalg.norm(net.W, axis=1)).sum())
    margin = mass / found.price
    lowered = rf.TwoLayerNet(
        np.vstack([net.W, np.zeros(k)]), np.append(net.b, 1.0), np.append(net.v, -margin)
    )
    exact = rf.min_perturbation(lowered, data.X[:1], [1], clusters=data, max_nodes=20)
    radius = t / math.sqrt(k)
    assert exact.radius[0] == pytest.approx(radius, rel=1e-3)


@pytest.mark.parametrize(
    ("k", "t", "width"),
    [(2, 0.25, 50), (4, 0.45, 50), (4, 0.75, 50), (8, 0.25, 200), (8, 0.5, 100)],
)
def test_trained_networks_reach_the_price(k, t, width):
    # Noise-free: one example a cluster says everything. Below the threshold a start needs a neuron
    # of each label that is active on all its clusters: docs/theory.md, section 10.4.
    clusters = rf.ClusterModel.orthogonal(k, 100, 0.0, seed=0)
    data = rf.Dataset(clusters.means, clusters.labels, np.arange(k))
    prices = []
    for seed in range(2):
        flow = rf.gradient_flow(
            rf.TwoLayerNet.init(width, 100, 1e-5, bias=False, seed=seed),
            data,
            bias=False,
            adversarial_radius=t * math.sqrt(100 / k),
            log_inverse_loss=1e3,
            rtol=3e-2,
            num_threads=1,
        )
        assert flow.status == "converged"
        prices.append(math.sqrt(100) / (2 * flow.normalized_margin))
    expected = (
        theory.averaging_price(k, t) if t < 0.455 else theory.infinite_width_price(k, t).price
    )
    np.testing.assert_allclose(prices, expected, rtol=0.05)
    # None is cheaper than the program, but for its resolution and the search in the balls.
    assert min(prices) > 0.995 * expected


def test_starts_without_a_neuron_for_all_clusters_of_a_label_end_dearer():
    # The very same start, with and without the neurons that are active on all four means of their
    # label: without adversary the limit with them is sqrt(2k), without them above it.
    k, dim = 8, 100
    clusters = rf.ClusterModel.orthogonal(k, dim, 0.0, seed=0)
    data = rf.Dataset(clusters.means, clusters.labels, np.arange(k))
    start = rf.TwoLayerNet.init(200, dim, 1e-5, bias=False, seed=0)
    active = start.W @ clusters.means.T > 0
    helpful = clusters.labels == np.sign(start.v)[:, None]
    full = (active | ~helpful).all(axis=1)
    assert full.any()
    limits = [
        rf.flow_limit(rf.TwoLayerNet(start.W[kept], start.b[kept], start.v[kept]), data, bias=False)
        for kept in (np.ones(200, dtype=bool), ~full)
    ]
    with_them, without = (math.sqrt(dim) / (2 * limit.normalized_margin) for limit in limits)
    assert with_them == pytest.approx(theory.averaging_price(k, 0.0), rel=1e-6)
    assert without > 1.05 * with_them


@pytest.mark.parametrize("bias", [0.0, 0.2, 1 - math.sqrt(0.5), 0.5, 0.8])
def test_the_explicit_network_has_its_radius(bias):
    k, d = 8, 64
    clusters = rf.ClusterModel.orthogonal(k, d, 0.0)
    net = rf.robust_network(clusters, bias=bias)
    exact = rf.min_perturbation(net, clusters.means, clusters.labels, clusters=clusters)
    assert exact.proved.all()
    np.testing.assert_allclose(exact.radius, theory.explicit_radius(d, k, bias), rtol=1e-6)


def test_the_best_explicit_radius_is_half_the_distance_of_two_means():
    assert theory.explicit_radius(2.0, 64, 1 - math.sqrt(0.5)) == pytest.approx(1.0)
    assert theory.explicit_radius(1.0, 8, 0.5) == pytest.approx(theory.robust_radius(1.0))
    assert theory.explicit_radius(9.0, 8, 0.0) == pytest.approx(theory.decoupled_radius(9.0, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.averaging_price(8, 1.0), "t must be below 1"),
        (lambda: theory.averaging_price(8, -0.1), "t must be at least 0"),
        (lambda: theory.averaging_threshold(5), "n_clusters must be even"),
        (lambda: theory.infinite_width_price(18, 0.5), "must be even and at most 16; got 18"),
        (lambda: theory.infinite_width_price(4, 1.5), r"t must be below sqrt\(k/2\) = 1.41421"),
        (lambda: theory.explicit_radius(1.0, 8, 1.0), "bias must be below 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
