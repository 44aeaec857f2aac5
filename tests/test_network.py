"""Two-layer networks and the gradient kernels under them."""

from __future__ import annotations

import numpy as np
import pytest

import reluflow as rf
from reluflow import reference

RTOL = 1e-12


def random_network(rng, n, d, m):
    weights, bias, output = rng.standard_normal((m, d)), rng.standard_normal(m), rng.normal(size=m)
    inputs = rng.standard_normal((n, d))
    labels = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    return weights, bias, output, inputs, labels


def assert_close(actual, expected, scale=None):
    scale = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=RTOL * max(scale, 1e-300))


# Every remainder modulo 16 in n, d and m, at sizes below and above the kernels' blocks.
SHAPES = [
    (16 * (i % 3) + 1 + i, 16 * ((i + 1) % 5) + 16 - i, 16 * ((i + 2) % 6) + 1 + (7 * i) % 16)
    for i in range(16)
] + [(300, 70, 130), (65, 1100, 66), (129, 3, 257), (1, 1, 1)]


def test_shapes_cover_every_remainder():
    for column in range(3):
        assert {shape[column] % 16 for shape in SHAPES} == set(range(16))


LOSSES = (
    ("exponential", 0),
    ("logistic", 0),
    ("hinge", 0),
    ("squared", 0),
    ("cross_entropy", 0.2),
)


def margin_loss(kernel, loss):
    kind, smoothing = loss
    return kernel.MarginLoss(getattr(kernel.Loss, kind), smoothing)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_gram_matrix_agrees_with_reference(native, shape, bias):
    inputs = np.random.default_rng(sum(shape)).standard_normal(shape[:2])
    gram = native.gram_matrix(inputs, bias, 1)
    assert_close(gram, reference.gram_matrix(inputs, bias, 1))
    np.testing.assert_array_equal(gram, gram.T)
    for threads in (2, 3):
        np.testing.assert_array_equal(native.gram_matrix(inputs, bias, threads), gram)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["primal_gradient", "gram_gradient"])
def test_gradient_agrees_with_reference(native, name, shape):
    rng = np.random.default_rng(sum(shape))
    arrays = random_network(rng, *shape)
    for loss in LOSSES:
        for *trained, ramp in ((True, True, 0), (False, True, 0), (True, False, 0.5)):
            expected = reference.primal_gradient(
                *arrays, margin_loss(reference, loss), *trained, 1, ramp
            )
            actual = getattr(native, name)(*arrays, margin_loss(native, loss), *trained, 2, ramp)
            # A margin is a sum of m products: its rounding error carries into the weights.
            assert actual.log_loss == pytest.approx(expected.log_loss, rel=RTOL, abs=RTOL)
            for field in ("margins", "example_weights", "weights", "bias", "output"):
                assert_close(getattr(actual, field), getattr(expected, field))


@pytest.mark.parametrize("shape", [(300, 200, 150), (700, 1300, 40), (130, 40, 3000)])
@pytest.mark.parametrize("name", ["primal_gradient", "gram_gradient"])
def test_gradient_is_bitwise_the_same_for_any_number_of_threads(native, name, shape):
    arrays = random_network(np.random.default_rng(1), *shape)
    results = [
        getattr(native, name)(*arrays, native.Loss.logistic, True, True, threads)
        for threads in (1, 2, 3, 5)
    ]
    for other in results[1:]:
        for field in ("log_loss", "margins", "weights", "bias", "output"):
            np.testing.assert_array_equal(getattr(other, field), getattr(results[0], field))


def test_gradient_is_the_derivative_of_log_loss(kernel):
    # Central differences of log L, at a point where no pre-activation is near its kink.
    rng = np.random.default_rng(7)
    weights, bias, output, inputs, labels = random_network(rng, 6, 4, 3)
    for loss in LOSSES:
        loss_value = margin_loss(kernel, loss)
        gradient = kernel.primal_gradient(
            weights, bias, output, inputs, labels, loss_value, True, True, 1
        )

        def log_loss(W, b, v, loss_value=loss_value):
            margins = labels * kernel.forward(W, b, v, inputs, 1)
            return kernel.log_loss_weights(margins, loss_value)[0]

        step = 1e-6
        for field, index in (("weights", (1, 2)), ("bias", (0,)), ("output", (2,))):
            moved = {"weights": weights.copy(), "bias": bias.copy(), "output": output.copy()}
            moved[field][index] += step
            up = log_loss(*moved.values())
            moved[field][index] -= 2 * step
            down = log_loss(*moved.values())
            assert -getattr(gradient, field)[index] == pytest.approx(
                (up - down) / (2 * step), abs=1e-7
            )


def test_log_loss_weights_by_hand(kernel):
    # exponential: L = (e^0 + e^-ln 3)/2 = (1 + 1/3)/2 = 2/3, weights 3/4 and 1/4.
    margins = np.array([0.0, np.log(3.0)])
    log_loss, weights = kernel.log_loss_weights(margins, kernel.Loss.exponential)
    assert log_loss == pytest.approx(np.log(2 / 3), rel=1e-14)
    np.testing.assert_allclose(weights, [0.75, 0.25], rtol=1e-14)
    # logistic: sum of losses ln 2 + ln(4/3) = ln(8/3); -slopes 1/2 and 1/4 over that sum.
    log_loss, weights = kernel.log_loss_weights(margins, kernel.Loss.logistic)
    assert log_loss == pytest.approx(np.log(np.log(8 / 3) / 2), rel=1e-14)
    np.testing.assert_allclose(weights, np.array([0.5, 0.25]) / np.log(8 / 3), rtol=1e-14)


def test_log_loss_weights_of_losses_with_minimisers_by_hand(kernel):
    margins = np.array([0.5, 2.0, -1.0])
    # hinge: losses 1/2, 0 and 2, slopes -1, 0 and -1.
    log_loss, weights = kernel.log_loss_weights(margins, kernel.Loss.hinge)
    assert log_loss == pytest.approx(np.log(2.5 / 3), rel=1e-14)
    np.testing.assert_allclose(weights, [0.4, 0, 0.4], rtol=1e-14)
    # squared: losses 1/4, 1 and 4, slopes -1, 2 and -4.
    log_loss, weights = kernel.log_loss_weights(margins, kernel.Loss.squared)
    assert log_loss == pytest.approx(np.log(5.25 / 3), rel=1e-14)
    np.testing.assert_allclose(weights, np.array([1, -2, 4]) / 5.25, rtol=1e-14)
    # cross-entropy with smoothing 1/2 at q = log 3, where the probabilities are 3/4 and 1/4: the
    # targets, so that the loss is their entropy and the slope 0.
    loss = kernel.MarginLoss(kernel.Loss.cross_entropy, 0.5)
    log_loss, weights = kernel.log_loss_weights(np.log([3.0, 3.0]), loss)
    entropy = 0.75 * np.log(4 / 3) + 0.25 * np.log(4)
    assert log_loss == pytest.approx(np.log(entropy), rel=1e-14)
    np.testing.assert_allclose(weights, 0, atol=1e-15)


def test_no_loss_left_has_no_weights(kernel):
    for loss, margins in ((kernel.Loss.hinge, [1.0, 3.0]), (kernel.Loss.squared, [1.0, 1.0])):
        log_loss, weights = kernel.log_loss_weights(np.array(margins), loss)
        assert log_loss == -np.inf
        np.testing.assert_array_equal(weights, 0)


def test_squared_loss_does_not_overflow(kernel):
    # Residuals -(1e200, 3e200): L = 5e400, weights 2 r / sum r^2.
    log_loss, weights = kernel.log_loss_weights(np.array([1e200, 3e200]), kernel.Loss.squared)
    assert log_loss == pytest.approx(np.log(5) + 400 * np.log(10), rel=1e-14)
    np.testing.assert_allclose(weights, [-2e-201, -6e-201], rtol=1e-14)


@pytest.mark.parametrize("scale", [1e3, 1e10, 1e100])
def test_log_loss_weights_neither_overflow_nor_underflow(kernel, scale):
    # With margins (q, q, 2q) and q huge, L = (2/3) e^-q and the weights are (1/2, 1/2, 0).
    margins = scale * np.array([1.0, 1.0, 2.0])
    for loss in (kernel.Loss.exponential, kernel.Loss.logistic):
        log_loss, weights = kernel.log_loss_weights(margins, loss)
        assert log_loss == pytest.approx(-scale + np.log(2 / 3), rel=1e-15)
        np.testing.assert_allclose(weights, [0.5, 0.5, 0.0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (257, 33, 17), (600, 40, 65)])
def test_forward_agrees_with_reference(native, shape):
    weights, bias, output, inputs, _ = random_network(np.random.default_rng(3), *shape)
    expected = reference.forward(weights, bias, output, inputs, 1)
    for threads in (1, 3):
        assert_close(native.forward(weights, bias, output, inputs, threads), expected)


def small_net():
    return rf.TwoLayerNet([[1.0, 0.0], [0.0, 2.0]], [0.0, -1.0], [1.0, -1.0])


def test_outputs_by_hand():
    # relu(3) - relu(2*2 - 1) = 0; relu(-1) - relu(2*1 - 1) = -1.
    np.testing.assert_array_equal(small_net()([[3.0, 2.0], [-1.0, 1.0]]), [0.0, -1.0])


def test_norm_margin_and_scaling_by_hand():
    net = small_net()
    data = rf.Dataset([[3.0, 0.0], [0.0, 2.0]], [1, -1])
    # ||theta||^2 = 1 + 4 + 1 + 1 + 1 = 8; margins are 3 and relu(4 - 1) = 3.
    assert net.norm == pytest.approx(np.sqrt(8))
    np.testing.assert_allclose(net.margins(data), [3.0, 3.0])
    assert net.normalized_margin(data) == pytest.approx(3 / 8)
    assert net.scaled(3.0).normalized_margin(data) == pytest.approx(3 / 8)
    np.testing.assert_allclose(net.scaled(3.0)(data.X), 9 * net(data.X))


def test_init_is_balanced_and_reproducible():
    net = rf.TwoLayerNet.init(400, 1000, 1e-3, seed=5)
    norms = np.linalg.norm(net.W, axis=1)
    np.testing.assert_allclose(np.abs(net.v), norms, rtol=1e-14)
    assert (net.v > 0).sum() == 200
    assert not net.b.any()
    # ||w||^2 is scale^2 d^(-3/2) chi^2_d: mean scale^2 d^(-1/2), relative standard deviation
    # sqrt(2/d) = 0.045 for one neuron and 0.0022 for the mean of 400.
    assert (norms**2).mean() == pytest.approx(1e-6 / np.sqrt(1000), rel=5 * 0.0023)
    np.testing.assert_array_equal(net.W, rf.TwoLayerNet.init(400, 1000, 1e-3, seed=5).W)


def test_save_and_load_round_trip(tmp_path):
    net = small_net()
    net.save(tmp_path / "net.npz")
    loaded = rf.TwoLayerNet.load(tmp_path / "net.npz")
    for name in ("W", "b", "v"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(net, name))


def test_load_refuses_what_is_not_a_network(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        rf.TwoLayerNet.load(tmp_path / "nowhere.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(OSError, match="not a saved network"):
        rf.TwoLayerNet.load(tmp_path / "broken.npz")
    np.savez(tmp_path / "pickled.npz", W=np.array([{}], dtype=object), b=[0.0], v=[0.0])
    with pytest.raises(OSError, match="not a saved network"):
        rf.TwoLayerNet.load(tmp_path / "pickled.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]], [0.0, 0.0], [1.0]), "one row a neuron"),
        (([[np.nan]], [0.0], [1.0]), "W must be finite"),
        (([1.0], [0.0], [1.0]), "W must have 2 dimension"),
        (([["a"]], [0.0], [1.0]), "W must be real numbers"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        rf.TwoLayerNet(*arguments)


def test_inputs_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match="X has 3 columns; the network takes 2"):
        small_net()(np.zeros((1, 3)))


@pytest.mark.parametrize("convert", [np.asfortranarray, lambda x: x.astype(np.float32)])
def test_other_layouts_and_dtypes_are_converted(convert):
    X = np.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(small_net()(convert(X)), small_net()(X))
    np.testing.assert_array_equal(small_net()(X.astype(int)[::2]), small_net()(X[::2].copy()))
