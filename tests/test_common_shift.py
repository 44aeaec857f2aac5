"""One shift for all examples, its direction optimised: exact cases, bounds and a grid."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import reluflow as rf
from reluflow.robustness._least_distance import least_distance

K, D = 6, 60
SCALE = math.sqrt(D / K)


@pytest.fixture(scope="module")
def clusters():
    return rf.ClusterModel.orthogonal(K, D, 0.0)


@pytest.fixture(scope="module")
def averaging(clusters):
    """Two neurons, w+- = sum_{+-} mu_q / d, v = +-1."""
    signs = np.array([1.0, -1.0])
    W = np.stack([clusters.means[clusters.labels == sign].sum(axis=0) for sign in signs]) / D
    return rf.TwoLayerNet(W, np.zeros(2), signs)


@pytest.fixture(scope="module")
def trained():
    clusters = rf.ClusterModel.orthogonal(6, 300, 1.5)
    problem = rf.draw(clusters, 80, 20, seed=0)
    net = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=20, num_threads=1).net
    return net, problem.clusters


def optimised(net, source, **settings):
    return rf.universal_perturbation(
        net, source, direction="optimised", num_threads=1, **{"n": 60, **settings}
    )


def shifted(net, data, result, factor):
    z = factor * result.norm * result.direction
    sign = -data.y if result.signed else np.ones(data.n)
    return data.y * net(data.X + sign[:, None] * z)


class TestExactCases:
    @pytest.mark.parametrize("definition", ["nonstrict", "strict"])
    @pytest.mark.parametrize("flip", [0.3, 1.0])
    def test_noise_free_means(self, averaging, clusters, definition, flip):
        # Every mean has radius sqrt(d/k), so nothing shorter flips any, and z along the means
        # flips all (docs/theory.md, section 6.2).
        result = optimised(averaging, clusters, definition=definition, flip=flip)
        assert result.norm == pytest.approx(SCALE, rel=1e-7)
        assert result.floor == pytest.approx(SCALE, rel=1e-6)
        assert result.means_norm == pytest.approx(SCALE, rel=1e-7)
        assert result.proved
        assert "the shortest there is" in str(result)

    def test_the_same_shift_for_both_labels(self, averaging, clusters):
        # With p and q the moves of the two pre-activations, positive means flip where
        # relu(1 + p) <= relu(q) and negative ones where relu(1 + q) <= relu(p). If q > 0 the
        # second asks for p >= 1 + q and the first for q >= 1 + p: both labels flip only where
        # p, q <= -1 and N = 0. The shortest way there is -2/k sum mu: norm 2 sqrt(d/k).
        result = optimised(averaging, clusters, flip=1.0, signed=False)
        assert result.norm == pytest.approx(2 * SCALE, rel=1e-7)
        assert result.flipped == 1
        assert math.isinf(result.means_norm)
        assert "x + z" in str(result)

    def test_where_zero_does_not_count_only_one_label_can_be_flipped(self, averaging, clusters):
        data = clusters.sample(60, 0)
        assert optimised(averaging, data, flip=1.0, signed=False, definition="strict").status == (
            "not_reached"
        )
        share = max((data.y > 0).mean(), (data.y < 0).mean())
        result = optimised(averaging, data, flip=share, signed=False, definition="strict")
        assert result.norm == pytest.approx(SCALE, rel=1e-6)
        assert result.flipped == pytest.approx(share)

    def test_one_example_has_its_radius(self, trained):
        net, clusters = trained
        data = clusters.sample(30, 0)
        radius = rf.min_perturbation(net, data.X, data.y, clusters=clusters).radius
        result = optimised(net, data, flip=1 / 30)
        assert result.norm == pytest.approx(radius.min(), rel=1e-6)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_against_a_grid_in_the_plane(signed, seed):
    """Two dimensions: all directions to half a degree, all lengths to 0.5 %."""
    rng = np.random.default_rng(seed)
    net = rf.TwoLayerNet(
        rng.standard_normal((6, 2)), 0.3 * rng.standard_normal(6), [1, -1, 1, -1, 1, -1]
    )
    X = rng.standard_normal((10, 2))
    y = np.where(net(X) >= 0, 1.0, -1.0)
    if abs(y.sum()) == len(y):
        y[0] *= -1
    data, needed = rf.Dataset(X, y), 7
    angles, lengths = np.linspace(0, 2 * np.pi, 721)[:-1], np.geomspace(0.05, 50, 1400)
    sign = -y if signed else np.ones(10)
    best = math.inf
    for angle in angles:
        direction = np.array([np.cos(angle), np.sin(angle)])
        moved = X[None] + (lengths[:, None] * sign)[..., None] * direction
        flipped = (y * net(moved.reshape(-1, 2)).reshape(-1, 10) <= 0).sum(axis=1) >= needed
        if flipped.any():
            best = min(best, float(lengths[np.argmax(flipped)]))
    result = optimised(net, data, flip=0.7, signed=signed)
    if math.isinf(best):
        assert result.floor <= result.norm
    else:
        # A local search may stop early; the grid is coarser by a percent.
        assert 0.98 * best <= result.norm <= 1.05 * best
        assert (shifted(net, data, result, 1 + 1e-9) <= 0).sum() >= needed
    assert result.floor <= (1 + 1e-9) * result.norm


class TestTrained:
    @pytest.mark.parametrize("flip", [0.5, 0.95])
    def test_between_the_floor_and_the_means(self, trained, flip):
        net, clusters = trained
        data = clusters.sample(60, 0)
        result = optimised(net, data, flip=flip)
        means = rf.universal_perturbation(net, data, flip=flip)
        assert result.means_norm == means.norm
        assert result.floor <= result.norm < 0.99 * means.norm
        radii = rf.min_perturbation(net, data.X, data.y, clusters=data)
        needed = math.ceil(flip * 60)
        assert result.floor == pytest.approx(np.sort(radii.lower_bound)[needed - 1])
        counted = (shifted(net, data, result, 1 + 1e-9) <= 0).mean()
        assert result.flipped == counted >= flip
        assert (shifted(net, data, result, 1 - 1e-6) <= 0).mean() < flip

    def test_held_out_examples(self, trained):
        net, clusters = trained
        fresh = clusters.sample(50, 9)
        data = clusters.sample(60, 0)
        result = optimised(net, data, held_out=fresh)
        assert result.held_out == (shifted(net, fresh, result, 1 + 1e-9) <= 0).mean()
        assert math.isnan(optimised(net, data).held_out)
        # Of clusters they are fresh: not those that the direction was found on.
        assert 0.5 < optimised(net, clusters, n=200).held_out <= 1
        with pytest.raises(ValueError, match="held_out has 5 columns"):
            optimised(net, data, held_out=rf.ClusterModel.orthogonal(2, 5, 1).sample(9, 0))

    def test_time_that_is_over_leaves_the_means(self, trained):
        net, clusters = trained
        result = optimised(net, clusters, max_seconds=0)
        assert result.status in ("max_seconds", "converged")
        assert result.norm <= result.means_norm
        assert result.floor <= result.norm

    def test_it_is_reproducible(self, trained):
        net, clusters = trained
        first, again = (optimised(net, clusters, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first.direction, again.direction)
        assert first.held_out == again.held_out
        json.dumps(first.to_dict(), allow_nan=False)

    def test_a_means_direction_says_nothing_of_floors(self, trained):
        net, clusters = trained
        result = rf.universal_perturbation(net, clusters, n=30)
        assert math.isnan(result.floor)
        assert not result.proved
        assert "no z is below" not in str(result)


class TestLeastDistance:
    def test_two_lines(self):
        # x + y >= 2 and x >= 1: (1, 1), where only the first holds it up.
        point, multipliers = least_distance(
            np.array([[-1.0, -1.0], [-1.0, 0.0]]), np.array([2.0, 1.0])
        )
        np.testing.assert_allclose(point, [1, 1])
        np.testing.assert_allclose(multipliers, [1, 0], atol=1e-12)

    @pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
    @pytest.mark.parametrize("seed", range(5))
    def test_optimality(self, seed, size):
        """u = -normals^T multipliers, multipliers >= 0 only where an inequality is tight."""
        rng = np.random.default_rng(seed)
        normals, offsets = rng.standard_normal((12, 5)), size * rng.random(12)
        solved = least_distance(normals, offsets)
        if solved is None:
            return
        point, multipliers = solved
        values = normals @ point + offsets
        assert values.max() <= 1e-10 * size
        np.testing.assert_allclose(point, -normals.T @ multipliers, atol=1e-9 * size)
        assert (multipliers >= 0).all()
        assert np.abs(multipliers * values).max() <= 1e-9 * size**2

    def test_contradictions(self):
        assert least_distance(np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])) is None
        assert least_distance(np.array([[0.0]]), np.array([1.0])) is None
        point, _ = least_distance(np.array([[1.0], [0.0]]), np.array([-1.0, 0.0]))
        assert point == 0
