"""Multipliers of deep networks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

import reluflow as rf
from reluflow.kkt.deep import margin_gradients


@pytest.mark.parametrize(
    "shape",
    [
        {"depth": 2},
        {"depth": 3, "bias": "none"},
        {"depth": 4, "activation": "leaky_relu", "slope": 0.3},
        {"depth": 2, "activation": "polynomial_relu", "power": 2.0},
        {"depth": 3, "activation": "normalized_polynomial_relu", "power": 2.5},
    ],
    ids=str,
)
def test_gradients_of_margins_are_those_of_finite_differences(shape):
    net = rf.DeepNet.init(width=6, dim=4, scale=1.0, seed=0, **shape)
    rng = np.random.default_rng(1)
    net = net.with_theta(net.theta + 0.3 * rng.standard_normal(len(net.theta)))
    X, y = rng.standard_normal((5, 4)), np.array([1.0, -1, 1, 1, -1])
    h = 1e-6
    steps = h * np.eye(len(net.theta))
    expected = [
        y * (net.with_theta(net.theta + s)(X) - net.with_theta(net.theta - s)(X)) / (2 * h)
        for s in steps
    ]
    found = margin_gradients(net, X, y)
    np.testing.assert_allclose(found.T, expected, rtol=1e-5, atol=1e-6)
    # Euler: a function of degree r in theta has theta . gradient = r times its value.
    np.testing.assert_allclose(found @ net.theta, net.degree * y * net(X), rtol=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_a_balanced_chain_is_a_kkt_point(depth):
    # q = a^L R for both examples, every weight of either chain is a and the gradient of its margin
    # is a^(L-1) R in each of the chain's weights: theta = lam g with lam = a^(2-L) / R.
    a, R = 0.7, 3.0
    eye = np.eye(2)
    net = rf.DeepNet([a * eye, *(a * eye for _ in range(depth - 2)), a * np.array([[1.0, -1.0]])])
    data = rf.Dataset(np.pad(R * eye, ((0, 0), (0, 6))), [1, -1])
    wide = rf.DeepNet([np.pad(net.weights[0], ((0, 0), (0, 6))), *net.weights[1:]])
    for n, given in ((net, rf.Dataset(R * eye, [1, -1])), (wide, data)):
        found = rf.certify_kkt(n, given)
        assert found.status == "converged"
        assert found.stationarity <= 1e-14
        scale = R ** (-1 / depth)
        np.testing.assert_allclose(found.multipliers, scale ** (2 - depth) / R, rtol=1e-12)
        assert found.normalized_margin == pytest.approx(R / (2 * depth) ** (depth / 2))


def test_multipliers_are_the_best_ones():
    clusters = rf.ClusterModel.orthogonal(4, 80, 0.3, seed=0)
    data = clusters.sample(12, 1)
    flow = rf.gradient_flow(rf.DeepNet.init(3, 10, 80, seed=1), data, log_inverse_loss=30.0)
    found = rf.certify_kkt(flow.net, data)
    theta = found.net.theta
    gradients = margin_gradients(found.net, data.X, data.y)
    other = lsq_linear(gradients.T, theta, bounds=(0, np.inf), tol=1e-14)
    best = np.linalg.norm(other.x @ gradients - theta) / np.linalg.norm(theta)
    assert found.stationarity == pytest.approx(best, rel=1e-6)
    assert found.stationarity < 0.2
    assert found.net.margins(data).min() == pytest.approx(1.0)
    assert found.status == "approximate"
    assert "one side of kinks; along a flow that stays near 3e-2" in str(found)


def test_networks_without_a_max_margin_problem_are_refused():
    data = rf.Dataset(np.eye(3)[:2], [1, -1])
    with pytest.raises(ValueError, match=r"net has biases in layers \[1, 2\]"):
        rf.certify_kkt(rf.DeepNet.init(3, 4, 3, bias="all", seed=0), data)
    with pytest.raises(ValueError, match="net has a skip connection"):
        rf.certify_kkt(rf.DeepNet.init(3, 4, 3, skip=True, seed=0), data)
    with pytest.raises(ValueError, match="net has 2 outputs"):
        rf.certify_kkt(rf.DeepNet.init(2, 4, 3, class_labels=[1, -1], seed=0), data)
    with pytest.raises(ValueError, match="net must classify every example"):
        rf.certify_kkt(rf.DeepNet([np.eye(3), np.ones((1, 3))]), data)
