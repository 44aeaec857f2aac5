"""KKT points of deep networks."""

from __future__ import annotations

import numpy as np
import pytest

import reluflow as rf
from reluflow.kkt.deep import margin_gradients
from reluflow.kkt.deep_pieces import Model, Pieces
from reluflow.kkt.deep_residuals import deep_residuals
from reluflow.kkt.deep_units import Units, layers_of, with_layers


def trained(depth, noise, *, k=4, dim=300, seed=0, bias="first", **options):
    clusters = rf.ClusterModel.orthogonal(k, dim, noise, seed=seed)
    data = clusters.sample(6 * k, seed + 1)
    net = rf.DeepNet.init(depth, 30, dim, bias=bias, seed=seed + 2, **options)
    return rf.gradient_flow(net, data, log_inverse_loss=200.0, bias=bias != "none"), data


def flat(layers):
    return np.concatenate([weights.ravel() for weights in layers])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_flow_has_a_kkt_point_near_it(depth, seed):
    flow, data = trained(depth, 0.5, seed=seed)
    point = rf.kkt_point(flow, data)
    assert point.status == "converged"
    assert point.stationarity <= 1e-8
    assert point.feasibility <= 1e-10
    assert point.dual_feasibility == 0
    assert (point.multipliers >= 0).all()
    assert point.net.margins(data).min() == pytest.approx(1, abs=1e-10)
    assert point.normalized_margin == pytest.approx(point.net.normalized_margin(data))
    # What the flow still has to go raises the margin, and is no more than a corner.
    assert point.normalized_margin > flow.normalized_margin
    assert point.angle < 1
    assert point.net.weights[0].shape == flow.net.weights[0].shape
    # Multipliers without weights at kinks leave a few percent at the very same point.
    assert rf.certify_kkt(point.net, data).stationarity > 1e3 * point.stationarity
    assert "groups a layer" in str(point)
    assert set(point.to_dict()) >= {"stationarity", "kinks", "groups"}


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_margin_of_a_chain_is_that_of_two_layers_to_a_power(depth):
    # docs/theory.md, section 9: exact without noise, and within 0.5 % of it with noise.
    two, data = trained(2, 0.5)
    gamma = rf.flow_limit(two.net.to_two_layer(), data).normalized_margin
    flow, same = trained(depth, 0.5)
    np.testing.assert_array_equal(same.X, data.X)
    found = rf.kkt_point(flow, data).normalized_margin
    assert found == pytest.approx(4 * gamma / (2 * depth) ** (depth / 2), rel=5e-3)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_without_noise_the_margin_is_known(depth, seed):
    # Section 5, case 1: orthogonal points of norm sqrt(d), one block of h = k/2 a label, have
    # gamma_2 = 1 / (2 sum rho_B) with rho_B = sqrt(h/d).
    k, dim = 4, 300
    flow, data = trained(depth, 0.0, k=k, dim=dim, bias="none", seed=seed)
    point = rf.kkt_point(flow, data)
    assert point.status == "converged"
    gamma = 1 / (4 * np.sqrt((k / 2) / dim))
    assert point.normalized_margin == pytest.approx(
        4 * gamma / (2 * depth) ** (depth / 2), rel=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
def test_two_layers_have_the_kkt_point_of_their_own_solver(seed):
    flow, data = trained(2, 0.5, seed=seed)
    found = rf.kkt_point(flow, data)
    expected = rf.flow_limit(flow.net.to_two_layer(), data)
    assert expected.status == "converged"
    assert found.normalized_margin == pytest.approx(expected.normalized_margin, rel=1e-9)
    np.testing.assert_allclose(
        found.multipliers, expected.multipliers, atol=1e-7 * expected.multipliers.max()
    )
    fresh = rf.ClusterModel.orthogonal(4, 300, 0.5, seed=seed).sample(20, 9).X
    np.testing.assert_allclose(found.net(fresh), expected.net(fresh), rtol=1e-6)
    # Clarke weights, neuron by neuron, are those of the other solver's check.
    shares = np.zeros((data.n, 30))
    np.add.at(
        shares, found.pieces.example, found.piece_multipliers[:, None] * found.pieces.masks[0]
    )
    shares /= np.where(found.multipliers > 0, found.multipliers, 1)[:, None]
    net = found.net
    other = rf.kkt_residuals(net.to_two_layer(), data, found.multipliers, shares)
    assert other.worst <= 1e-8


def test_the_answer_is_the_same_outside_the_span_of_the_data():
    # n = 24 examples in 20 dimensions: nothing is reduced.
    flow, data = trained(3, 0.3, dim=20)
    assert flow.form == "primal"
    point = rf.kkt_point(flow, data)
    assert point.status == "converged"
    wide = rf.Dataset(np.pad(data.X, ((0, 0), (0, 30))), data.y)
    first = np.pad(flow.net.weights[0], ((0, 0), (0, 30)))
    net = flow.net.like([first, *flow.net.weights[1:]], flow.net.biases, None)
    assert rf.kkt_point(net, wide).normalized_margin == pytest.approx(
        point.normalized_margin, rel=1e-9
    )


def test_a_leaky_network_is_polished_too():
    flow, data = trained(3, 0.3, activation="leaky_relu", slope=0.1)
    point = rf.kkt_point(flow, data)
    assert point.status == "converged"
    assert point.clarke_violation <= 1e-8


def grouped_layers(rng):
    """A network of exactly parallel units, its groups, and its layers with one unit a group."""
    spread = []
    for units, groups in ((9, 3), (7, 2)):
        P = np.zeros((units, groups))
        P[np.arange(units), np.arange(units) % groups] = rng.uniform(0.5, 2, units)
        spread.append(P / np.linalg.norm(P, axis=0))
    small = [rng.standard_normal(shape) for shape in ((3, 5), (2, 3), (1, 2))]
    units = Units(tuple(spread))
    return units, small, units.lifted(small)


def test_merging_parallel_units_keeps_function_and_norm():
    rng = np.random.default_rng(0)
    units, small, wide = grouped_layers(rng)
    X = rng.standard_normal((11, 5))
    np.testing.assert_allclose(rf.DeepNet(wide)(X), rf.DeepNet(small)(X), rtol=1e-12, atol=1e-12)
    assert np.linalg.norm(flat(wide)) == pytest.approx(np.linalg.norm(flat(small)))
    for merged, given in zip(units.merged(wide), small, strict=True):
        np.testing.assert_allclose(merged, given, atol=1e-12)
    assert units.share_outside(wide) == pytest.approx(0, abs=1e-12)
    found = Units.of(wide, 0.01)
    assert found.counts == (3, 2)
    merged = found.merged(wide)
    np.testing.assert_allclose(rf.DeepNet(merged)(X), rf.DeepNet(small)(X), rtol=1e-10, atol=1e-12)


def test_pieces_are_the_margins_on_both_sides_of_harmful_kinks():
    # The margin is the smallest of its pieces: with every unit called near its kink, and helpful
    # units as they are.
    rng = np.random.default_rng(1)
    layers = [rng.standard_normal(shape) for shape in ((3, 4), (3, 3), (1, 3))]
    model = Model(rng.standard_normal((12, 4)), np.where(np.arange(12) % 2 == 0, 1.0, -1.0), 0.0)
    pieces = model.pieces(layers, np.inf)
    values = model.linearised(layers, pieces).margins
    smallest = np.full(12, np.inf)
    np.minimum.at(smallest, pieces.example, values)
    np.testing.assert_allclose(smallest, model.margins(layers), atol=1e-12)
    assert len(pieces) > 12
    own = model.pieces(layers, -1.0)
    assert len(own) == 12
    assert model.gaps(layers, own).max() == 0


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_derivatives_of_pieces_are_those_of_finite_differences(slope):
    rng = np.random.default_rng(2)
    shapes = ((3, 4), (2, 3), (2, 2), (1, 2))
    layers = [rng.standard_normal(shape) for shape in shapes]
    model = Model(rng.standard_normal((6, 4)), np.sign(rng.standard_normal(6)), slope)
    pieces, multipliers = model.pieces(layers, 0.1), None
    at = model.linearised(layers, pieces)
    multipliers = rng.uniform(0, 1, len(pieces))
    theta, ends = flat(layers), np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def moved(step):
        parts = np.split(theta + step, ends)
        return model.linearised([p.reshape(s) for p, s in zip(parts, shapes, strict=True)], pieces)

    # Multilinear in the layers: central differences are exact but for rounding and third order.
    h = 1e-4
    steps = h * np.eye(len(theta))
    slopes = np.stack([(moved(s).margins - moved(-s).margins) / (2 * h) for s in steps], axis=1)
    np.testing.assert_allclose(at.gradients(), slopes, atol=1e-7)
    bends = [multipliers @ (moved(s).gradients() - moved(-s).gradients()) / (2 * h) for s in steps]
    np.testing.assert_allclose(at.hessian(multipliers), bends, atol=1e-7)


def test_residuals_are_those_of_the_definition():
    rng = np.random.default_rng(3)
    net = rf.DeepNet.init(3, 5, 4, 1.0, seed=3)
    net = net.with_theta(net.theta + 0.3 * rng.standard_normal(len(net.theta)))
    data = rf.Dataset(rng.standard_normal((6, 4)), [1, -1, 1, -1, 1, -1])
    model = Model(np.column_stack([data.X, np.ones(6)]), data.y, 0.0)
    pieces, lam = model.pieces(layers_of(net), 0.0), rng.uniform(0, 1, 6)
    found = deep_residuals(net, data, pieces, lam)
    left = net.theta - lam @ margin_gradients(net, data.X, data.y)
    q = net.margins(data)
    assert found.stationarity == pytest.approx(np.linalg.norm(left) / net.norm, rel=1e-10)
    assert found.feasibility == pytest.approx(max(0, (1 - q).max()))
    assert found.complementarity == pytest.approx(np.abs(lam * (q - 1)).max() / lam.max())
    assert found.clarke_violation == 0
    # The other side of a kink that is far away is no Clarke weight.
    flipped = Pieces(pieces.example, (1 - pieces.masks[0], pieces.masks[1]))
    assert deep_residuals(net, data, flipped, lam).clarke_violation > 1e-3
    np.testing.assert_array_equal(with_layers(net, layers_of(net)).theta, net.theta)


def test_units_without_groups_are_not_solved():
    clusters = rf.ClusterModel.orthogonal(4, 40, 0.5, seed=0)
    data = clusters.sample(12, 1)
    flow = rf.gradient_flow(rf.DeepNet.init(3, 60, 40, 3.0, seed=2), data, log_inverse_loss=3.0)
    point = rf.kkt_point(flow, data)
    assert point.status == "not_solved"
    assert "flow further" in str(point)
    assert (point.multipliers == 0).all()
    assert point.stationarity == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"depth": 5}, "net has depth 5; KKT points are found for depths 2, 3, 4"),
        ({"depth": 6}, "net has depth 6; KKT points are found for depths 2, 3, 4"),
        ({"depth": 2, "activation": "polynomial_relu"}, "net has the activation polynomial_relu"),
        ({"depth": 3, "skip": True}, "net has a skip connection"),
        ({"depth": 3, "bias": "all"}, r"net has biases in layers \[1, 2\]"),
        ({"depth": 2, "class_labels": [1, -1]}, "net has 2 outputs; KKT points are for networks"),
        ({"depth": 3}, "net must classify every example"),
    ],
    ids=str,
)
def test_other_networks_are_refused(net, message):
    data = rf.Dataset(np.eye(3), [1, -1, 1])
    with pytest.raises(ValueError, match=message):
        rf.kkt_point(rf.DeepNet.init(width=4, dim=3, seed=0, **net), data)


@pytest.mark.parametrize("option", ["train_output", "bias", "correct_pattern", "probe_starts"])
def test_options_of_two_layers_are_refused(option):
    data = rf.Dataset(np.eye(3), [1, -1, 1])
    asked = {option: option in ("correct_pattern", "probe_starts")}
    with pytest.raises(ValueError, match=f"{option}.* is for two-layer networks"):
        rf.kkt_point(rf.DeepNet.init(3, 4, 3, seed=0), data, **asked)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_limit_of_a_flow_of_depth_2_is_that_of_two_layers(seed):
    clusters = rf.ClusterModel.orthogonal(4, 300, 0.5, seed=seed)
    data, net = clusters.sample(24, seed + 1), rf.DeepNet.init(2, 30, 300, seed=seed + 2)
    found = rf.flow_limit(net, data, num_threads=1)
    expected = rf.flow_limit(net.to_two_layer(), data, num_threads=1)
    assert found.status == expected.status == "converged"
    assert found.normalized_margin == pytest.approx(expected.normalized_margin, rel=1e-10)
    np.testing.assert_allclose(
        found.multipliers, expected.multipliers, atol=1e-7 * expected.multipliers.max()
    )


@pytest.mark.parametrize("depth", [3, 4])
def test_the_limit_of_a_deep_flow_is_that_of_a_much_longer_one(depth):
    _, data = trained(depth, 0.5)
    net = rf.DeepNet.init(depth, 30, data.dim, seed=2)
    limit = rf.flow_limit(net, data)
    assert limit.status == "converged"
    assert limit.stationarity <= 1e-8
    assert limit.settled
    assert limit.frozen_at < limit.flow.log_inverse_loss
    far = rf.gradient_flow(net, data, log_inverse_loss=1e5)
    expected = rf.kkt_point(far, data)
    assert limit.normalized_margin == pytest.approx(expected.normalized_margin, rel=1e-9)
    # The flow gets nearer to it, like a power of 1/log(1/L).
    assert expected.angle < limit.angle_to_flow == limit.angle
    # Before groups had formed there was no point.
    assert limit.predictions[0].status == "not_solved"
    assert np.isnan(limit.predictions[0].normalized_margin)
    assert limit.predictions[-1].agrees
    assert "prediction froze" in str(limit)
    assert limit.to_dict()["flow"]["status"] == "converged"


def test_limits_of_deep_flows_that_do_not_come_about():
    _, data = trained(3, 0.5)
    net = rf.DeepNet.init(3, 30, data.dim, seed=2)
    assert rf.flow_limit(net, data, max_log_inverse_loss=1.0).status == "not_settled"
    assert rf.flow_limit(net, data, max_seconds=0.0).status == "max_seconds"
    cut = rf.flow_limit(net, data, max_evaluations=5)
    assert cut.status == "max_evaluations"
    # Not yet classified: the network as it is, without multipliers.
    assert cut.stationarity == pytest.approx(1)
    assert not cut.multipliers.any()


def test_what_has_no_limit_is_refused():
    data = rf.Dataset(np.eye(3), [1, -1, 1])
    net = rf.DeepNet.init(3, 4, 3, seed=0)
    with pytest.raises(TypeError, match="net must be a TwoLayerNet or a DeepNet; got Dataset"):
        rf.flow_limit(data, data)
    for option in ({"train_output": False}, {"probe_starts": 2}):
        with pytest.raises(ValueError, match=r"is for two-layer networks; leave it out"):
            rf.flow_limit(net, data, **option)
    with pytest.raises(ValueError, match="KKT points are found for depths 2, 3, 4"):
        rf.flow_limit(rf.DeepNet.init(5, 4, 3, seed=0), data)
    with pytest.raises(ValueError, match="bias=False needs a network without biases"):
        rf.flow_limit(net, data, bias=False)
    with pytest.raises(ValueError, match="loss='hinge' has minimisers"):
        rf.flow_limit(net, data, loss="hinge")
