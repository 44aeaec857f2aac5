"""Smallest perturbations in the largest and in the summed absolute value: bounds, no proofs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

import reluflow as rf
from reluflow.robustness._least_distance import least_l1, least_linf

ORDERS = {"l1": 1, "linf": np.inf}


def lengths(norm, vectors):
    return np.linalg.norm(vectors, ORDERS[norm], axis=1)


def brute_force(norm, net, x, y):
    """The least of the linear programs of all activation patterns, which are convex regions."""
    m, d = net.W.shape
    best = np.inf
    for pattern in itertools.product([0, 1], repeat=m):
        active = np.array(pattern, dtype=bool)
        slope = y * (net.v * active) @ net.W
        offset = y * (net.v * active) @ (net.W @ x + net.b)
        side = np.where(active, -1.0, 1.0)
        planes = np.vstack([slope, side[:, None] * net.W])
        right = -np.concatenate([[offset], side * (net.W @ x + net.b)])
        if norm == "linf":
            cost = np.r_[np.zeros(d), 1.0]
            box = [np.c_[sign * np.eye(d), -np.ones(d)] for sign in (1, -1)]
            A = np.vstack([np.c_[planes, np.zeros(m + 1)], *box])
            b, bounds = np.r_[right, np.zeros(2 * d)], (None, None)
        else:
            cost, A, b, bounds = np.ones(2 * d), np.c_[planes, -planes], right, (0, None)
        found = linprog(cost, A, b, bounds=bounds)
        if found.status == 0:
            best = min(best, found.fun)
    return best


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_a_linear_classifier_has_the_dual_norm(norm):
    # relu(z) - relu(-z) = z: the distance to w.x + b = 0 is |w.x + b| over the dual norm of w.
    w, b = np.array([3.0, -1.0, 2.0]), 0.5
    net = rf.TwoLayerNet([w, -w], [b, -b], [1.0, -1.0])
    X = np.random.default_rng(0).standard_normal((8, 3))
    found = rf.min_perturbation(net, X, norm=norm)
    dual = np.abs(w).max() if norm == "l1" else np.abs(w).sum()
    np.testing.assert_allclose(found.radius, np.abs(X @ w + b) / dual, rtol=1e-9)
    assert found.flips == 1
    assert not found.proved.any()
    assert "upper bounds" in str(found)


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_against_brute_force(norm, seed):
    rng = np.random.default_rng(seed)
    net = rf.TwoLayerNet(
        rng.standard_normal((4, 3)), 0.5 * rng.standard_normal(4), [1.0, -1.0, 1.0, -1.0]
    )
    X = rng.standard_normal((5, 3))
    y = np.where(net(X) >= 0, 1.0, -1.0)
    found = rf.min_perturbation(net, X, y, norm=norm)
    exact = np.array([brute_force(norm, net, x, label) for x, label in zip(X, y, strict=True)])
    assert (found.lower_bound <= exact * (1 + 1e-9)).all()
    assert (found.radius >= exact * (1 - 1e-7)).all()
    finite = np.isfinite(found.radius)
    np.testing.assert_array_equal(finite, np.isfinite(exact))
    # The search is local; it may miss the best, but hardly ever does on so few neurons.
    assert (found.radius[finite] <= 1.001 * exact[finite]).mean() >= 0.8
    np.testing.assert_allclose(lengths(norm, found.perturbation[finite]), found.radius[finite])


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_a_trained_network(norm):
    """||u||_inf >= ||u||_2 / sqrt(d) and ||u||_1 >= ||u||_2, and the same the other way round."""
    clusters = rf.ClusterModel.orthogonal(4, 100, 0.3)
    data = clusters.sample(40, seed=0)
    net = rf.gradient_flow(
        rf.TwoLayerNet.init(10, 100, 1e-2, seed=1), data, log_inverse_loss=10
    ).net
    fresh = clusters.sample(6, seed=2)
    found = rf.min_perturbation(net, fresh.X, fresh.y, norm=norm, clusters=clusters)
    euclidean = rf.min_perturbation(net, fresh.X, fresh.y, clusters=clusters)
    assert found.norm == norm
    least = euclidean.lower_bound * (0.1 if norm == "linf" else 1.0)
    most = lengths(norm, euclidean.perturbation) * (1 + 1e-6)
    assert (least <= found.radius).all()
    assert (found.radius <= most).all()
    assert (found.lower_bound <= found.radius).all()
    assert (found.lower_bound > 0).all()
    assert found.flips == 1


def test_definitions_and_points_without_a_way():
    net = rf.TwoLayerNet(np.eye(2), np.zeros(2), [1.0, 1.0])
    X = np.array([[1.0, 2.0], [-1.0, -1.0]])
    # N = relu(x1) + relu(x2) is 0 where neither is positive: at (1, 2) moves of 1 and 2.
    found = rf.min_perturbation(net, X, [1.0, 1.0], norm="linf")
    np.testing.assert_allclose(found.radius, [2, 0], rtol=1e-9)
    assert found.method == ("local search", "misclassified")
    assert found.proved.tolist() == [False, True]
    np.testing.assert_allclose(rf.min_perturbation(net, X[:1], norm="l1").radius, 3, rtol=1e-9)
    strict = rf.min_perturbation(net, X, [1.0, 1.0], norm="linf", definition="strict")
    assert np.isinf(strict.radius).all()


def test_time_that_is_over_leaves_valid_bounds():
    net = rf.TwoLayerNet(np.eye(3), np.ones(3), [1.0, -1.0, 1.0])
    found = rf.min_perturbation(net, np.ones((4, 3)), norm="l1", max_seconds=0)
    assert found.status == "max_seconds"
    assert np.isinf(found.radius).all()
    assert (found.lower_bound > 0).all()


def test_bad_input():
    net = rf.TwoLayerNet(np.eye(3), np.ones(3), [1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="norm='l3' is unknown; use one of l2, l1, linf"):
        rf.min_perturbation(net, np.ones((1, 3)), norm="l3")
    with pytest.raises(ValueError, match="keep_certificates needs norm='l2'"):
        rf.min_perturbation(net, np.ones((1, 3)), norm="l1", keep_certificates=True)
    problem = rf.draw(rf.ClusterModel.orthogonal(2, 1000, 0.1), 5, 4)
    with pytest.raises(ValueError, match="norm='linf' depends on the axes"):
        rf.min_perturbation(problem.net, problem.data.X, norm="linf", clusters=problem.clusters)


@pytest.mark.parametrize(("least", "order"), [(least_l1, 1), (least_linf, np.inf)])
def test_shortest_below_planes(least, order):
    # x + y >= 2 and x >= 1.5: (1.5, 0.5) in both norms.
    planes, offsets = np.array([[-1.0, -1.0], [-1.0, 0.0]]), np.array([2.0, 1.5])
    point, multipliers = least(planes, offsets)
    assert (planes @ point + offsets <= 1e-9).all()
    assert np.linalg.norm(point, order) == pytest.approx(2.0 if order == 1 else 1.5)
    assert (multipliers >= 0).all()
    assert least(np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])) is None
