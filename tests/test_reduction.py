"""Given data in the span of their examples: the same problem in fewer coordinates."""

from __future__ import annotations

import numpy as np
import pytest

import reluflow as rf

N, WIDTH, DIM = 12, 8, 60


def given(dim=DIM, seed=0, scale=0.3):
    """Clusters with one example repeated, so that the data are of deficient rank, and biases."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, dim)) + 2 * np.outer(np.arange(N) % 3 - 1, np.ones(dim))
    X[5] = X[3]
    X[7] = X[2] + X[4]
    y = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
    net = rf.TwoLayerNet.init(WIDTH, dim, scale, seed=rng)
    return rf.TwoLayerNet(net.W, 0.1 * rng.standard_normal(WIDTH), net.v), rf.Dataset(X, y)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_inner_products_are_kept_for_data_of_any_rank():
    net, data = given()
    reduction = rf.Reduction.of(net, data)
    assert (reduction.dim, reduction.data.dim, reduction.net.dim) == (N + WIDTH,) * 3
    for found, expected in [
        (reduction.data.X @ reduction.data.X.T, data.X @ data.X.T),
        (reduction.net.W @ reduction.data.X.T, net.W @ data.X.T),
        (reduction.net.W @ reduction.net.W.T, net.W @ net.W.T),
        (reduction.frame.T @ reduction.frame, np.eye(N + WIDTH)),
    ]:
        assert np.abs(found - expected).max() < 1e-13 * max(1, np.abs(expected).max())
    # X = L Q^T: triangular, and nothing of it in the last directions.
    np.testing.assert_array_equal(np.triu(reduction.data.X, 1), 0)
    np.testing.assert_array_equal(reduction.data.y, data.y)


def test_lifting_gives_everything_back():
    net, data = given()
    reduction = rf.Reduction.of(net, data)
    lifted = reduction.lift(reduction.net)
    assert relative(lifted.W, net.W) < 1e-13
    np.testing.assert_array_equal(lifted.b, net.b)
    fresh = np.random.default_rng(1).standard_normal((5, DIM))
    assert relative(reduction.net(reduction.project(fresh)), net(fresh)) < 1e-13


def test_few_dimensions_are_no_obstacle():
    net, data = given(dim=4)
    reduction = rf.Reduction.of(net, data)
    assert reduction.dim == 4
    assert relative(reduction.lift(reduction.net).W, net.W) < 1e-13


@pytest.mark.parametrize("form", ["gram", "primal"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_flow_is_the_same(form, bias):
    """Against the flow of all d coordinates, step by step."""
    net, data = given(dim=400)
    if not bias:
        net = rf.TwoLayerNet(net.W, np.zeros(WIDTH), net.v)
    reduction = rf.Reduction.of(net, data)
    settings = {"log_inverse_loss": 30.0, "bias": bias, "num_threads": 1}
    ambient = rf.gradient_flow(net, data, form="primal", **settings)
    reduced = rf.gradient_flow(reduction.net, reduction.data, form=form, **settings)
    assert ambient.status == reduced.status == "converged"
    assert ambient.evaluations == reduced.evaluations > 200
    for name in ("log_inverse_loss", "rescaled_time", "norm", "normalized_margin"):
        assert (
            relative(getattr(reduced.trajectory, name), getattr(ambient.trajectory, name)) < 1e-10
        )
    lifted = reduction.lift(reduced.net)
    assert relative(lifted.W, ambient.net.W) < 1e-10
    assert relative(lifted.v, ambient.net.v) < 1e-10
    # What no example sees has not moved.
    outside = np.eye(400) - reduction.frame[:, :N] @ reduction.frame[:, :N].T
    assert np.abs((lifted.W - net.W) @ outside).max() < 1e-13 * np.abs(net.W).max() * 400


def test_the_limit_is_found_in_the_span_and_lifted():
    clusters = rf.ClusterModel.orthogonal(4, 500, 0.3)
    data = clusters.sample(20, seed=0)
    net = rf.TwoLayerNet.init(6, 500, 1e-3, seed=1)
    limit = rf.flow_limit(net, data)
    assert limit.status == "converged"
    assert limit.net.dim == limit.flow.net.dim == 500
    # The residuals hold in all d coordinates, and the flow kept what it could not see.
    residuals = rf.kkt_residuals(limit.net, data, limit.multipliers, limit.clarke)
    assert residuals.worst < 1e-12
    ambient = rf.gradient_flow(
        net, data, form="primal", log_inverse_loss=limit.flow.log_inverse_loss
    )
    assert relative(limit.flow.net.W, ambient.net.W) < 0.05
    Q = rf.Reduction.of(net, data).frame[:, :20]
    kept = limit.flow.net.W - limit.flow.net.W @ Q @ Q.T
    assert relative(kept, net.W - net.W @ Q @ Q.T) < 1e-9


def test_what_does_not_fit_is_refused():
    net, data = given()
    with pytest.raises(ValueError, match="has 60 columns; the network takes 61"):
        rf.Reduction.of(rf.TwoLayerNet.init(2, 61, 1.0, seed=0), data)
    reduction = rf.Reduction.of(net, data)
    with pytest.raises(ValueError, match="X must have 60 columns; it has 20"):
        reduction.project(np.zeros((1, 20)))
    with pytest.raises(ValueError, match="net must take 20 coordinates; it takes 60"):
        reduction.lift(net)
