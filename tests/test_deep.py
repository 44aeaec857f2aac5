"""Networks of any depth: outputs, gradients, and the flow of their kernels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reluflow.data import Dataset
from reluflow.deep_network import ACTIVATIONS, BIASES, DeepNet

SHAPES = [
    {"depth": 2, "bias": "first"},
    {"depth": 3, "bias": "all"},
    {"depth": 4, "bias": "none", "skip": True},
    {"depth": 3, "bias": "first", "class_labels": [1, -1, 1, -1]},
]


def random_net(seed=0, dim=5, width=6, **options):
    """A network far from its initialisation, every parameter different from zero."""
    net = DeepNet.init(width=width, dim=dim, scale=1.0, seed=seed, **options)
    theta = net.theta
    return net.with_theta(theta + 0.5 * np.random.default_rng(seed).standard_normal(len(theta)))


def examples(net, n=7, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, net.dim))
    if net.outputs > 1:
        return X, np.arange(n, dtype=float) % net.outputs
    return X, np.where(np.arange(n) % 3 == 0, -1.0, 1.0)


def architecture(net, kernel):
    parameter = net.slope if net.activation == "leaky_relu" else net.power
    return kernel.Architecture(
        [net.dim, *map(len, net.weights)],
        [bias is not None for bias in net.biases],
        getattr(kernel.Activation, net.activation),
        parameter,
        net.skip is not None,
    )


def unit(net, weights, bias, x):
    """One hidden unit, from its definition."""
    z = float(weights @ x) + bias
    if net.activation == "leaky_relu":
        return z if z > 0 else net.slope * z
    value = max(z, 0.0)
    if net.activation == "relu":
        return value
    norm = math.sqrt(float(weights @ weights) + bias**2)
    return value**net.power / (norm ** (net.power - 1) if "normalized" in net.activation else 1)


def outputs(net, x):
    """The network, unit by unit."""
    entering = x
    for layer, (weights, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        shift = np.zeros(len(weights)) if bias is None else bias
        if layer + 1 < net.depth:
            entering = np.array(
                [unit(net, w, b, entering) for w, b in zip(weights, shift, strict=True)]
            )
        else:
            entering = weights @ entering + shift
    return entering + (0 if net.skip is None else net.skip @ x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_follow_the_definition(kernel, shape, activation):
    net = random_net(activation=activation, power=2.5, slope=0.3, **shape)
    X, _ = examples(net)
    expected = np.array([outputs(net, x) for x in X])
    found = kernel.deep_forward(architecture(net, kernel), net.theta, X, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_is_that_of_finite_differences(kernel, shape, activation, loss):
    net = random_net(activation=activation, power=2.5, slope=0.3, **shape)
    X, targets = examples(net)
    loss = getattr(kernel.Loss, loss)

    def log_loss(theta):
        return kernel.deep_gradient(architecture(net, kernel), theta, X, targets, loss, 1)[0]

    theta = net.theta
    velocity = kernel.deep_gradient(architecture(net, kernel), theta, X, targets, loss, 1)[3]
    # Central differences err by h^2 |f'''| / 6 + eps |f| / h, below 1e-8 here off the kinks.
    h = 1e-6
    steps = h * np.eye(len(theta))
    slopes = [(log_loss(theta + s) - log_loss(theta - s)) / (2 * h) for s in steps]
    np.testing.assert_allclose(-velocity, slopes, atol=2e-7 * np.abs(velocity).max())


def test_cross_entropy_is_the_logistic_loss_of_the_margins(kernel):
    net = random_net(depth=2, class_labels=[1, -1, 1])
    X, targets = examples(net)
    z = np.array([outputs(net, x) for x in X])
    # -log softmax_own, averaged over the examples.
    own = z[np.arange(len(z)), targets.astype(int)]
    cross_entropy = (np.log(np.exp(z).sum(axis=1)) - own).mean()
    found = kernel.deep_gradient(
        architecture(net, kernel), net.theta, X, targets, kernel.Loss.logistic, 1
    )
    assert found[0] == pytest.approx(math.log(cross_entropy), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_flow_of_either_backend_is_the_same(native, shape):
    from reluflow import reference

    net = random_net(width=16, **shape)
    X, targets = examples(net)
    ends = []
    for kernel in (native, reference):
        outcome = kernel.deep_gradient_flow(
            architecture(net, kernel),
            net.theta,
            X,
            targets,
            kernel.Loss.logistic,
            kernel.FlowMethod.bogacki_shampine,
            2.0,
            1e-3,
            0.3,
            math.inf,
            math.inf,
            1,
            None,
        )
        ends.append((outcome.status.name, outcome.theta, outcome.trajectory))
    assert ends[0][0] == ends[1][0] == "converged"
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ends[0][2], ends[1][2], rtol=1e-8)


def test_gradients_are_bitwise_the_same_for_any_number_of_threads(native):
    net = random_net(depth=3, dim=300, width=80)
    X, targets = examples(net, n=130)
    one, *others = (
        native.deep_gradient(
            architecture(net, native), net.theta, X, targets, native.Loss.exponential, threads
        )
        for threads in (1, 2, 3, 5)
    )
    for other in others:
        np.testing.assert_array_equal(one[3], other[3])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_outputs_are_homogeneous(activation, depth):
    net = random_net(depth=depth, activation=activation, power=2.0, bias="none")
    X, _ = examples(net)
    # With power 2 a layer takes degree q to 2 q + 1, or, divided by the norm, to 2 q.
    degree = {
        "polynomial_relu": 2**depth - 1,
        "normalized_polynomial_relu": 2 ** (depth - 1),
    }.get(activation, depth)
    assert net.degree == degree
    np.testing.assert_allclose(net.scaled(1.3)(X), 1.3**degree * net(X), rtol=1e-10)


def test_a_network_with_classes_decides_between_their_labels():
    net = random_net(depth=2, class_labels=[1, -1, 1, -1])
    X, _ = examples(net)
    z = net.logits(X)
    expected = np.maximum(z[:, 0], z[:, 2]) - np.maximum(z[:, 1], z[:, 3])
    np.testing.assert_array_equal(net(X), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_saved_network_comes_back(tmp_path, shape):
    net = random_net(activation="leaky_relu", slope=0.2, **shape)
    net.save(tmp_path / "net.npz")
    loaded = DeepNet.load(tmp_path / "net.npz")
    X, _ = examples(net)
    np.testing.assert_array_equal(loaded.theta, net.theta)
    np.testing.assert_array_equal(loaded(X), net(X))
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(OSError, match="is not a saved deep network"):
        DeepNet.load(tmp_path / "other.npz")


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
@pytest.mark.parametrize("bias", BIASES)
def test_a_drawn_network_is_balanced(depth, bias):
    net = DeepNet.init(depth, 40, 30, 0.3, bias=bias, seed=3)
    np.testing.assert_allclose(np.linalg.norm(net.weights[0], axis=1), 0.3)
    np.testing.assert_allclose(np.abs(net.weights[-1]), 0.3)
    assert [b is not None for b in net.biases] == {
        "none": [False] * depth,
        "first": [True] + [False] * (depth - 1),
        "all": [True] * depth,
    }[bias]
    for hidden in net.weights[1:-1]:
        # The norm of 1,600 entries N(0, s^2) is 40 s within 1 / sqrt(3,200) of it, one sigma.
        assert np.linalg.norm(hidden) == pytest.approx(40 * 0.3 / math.sqrt(40), rel=0.08)


def test_units_of_a_drawn_network_favour_one_output_each():
    net = DeepNet.init(2, 8, 30, 0.3, class_labels=[1, -1, 1], seed=3)
    np.testing.assert_array_equal(net.weights[1].argmax(axis=0), [0, 1, 2, 0, 1, 2, 0, 1])
    # Balanced: as long as the input weights.
    np.testing.assert_allclose(np.linalg.norm(net.weights[1], axis=0), 0.3)
    np.testing.assert_allclose(net.weights[1].sum(axis=0), 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 7}, r"depth must be one of 2, 3, 4, 5, 6; got 7"),
        ({"activation": "tanh"}, r"activation='tanh' is unknown; use one of relu, leaky_relu, "),
        ({"power": 0.5}, r"power must be at least 1; got 0\.5"),
        ({"slope": 1.0}, r"slope must be below 1; got 1"),
        ({"bias": "last"}, r"bias='last' is unknown; use one of none, first, all"),
        ({"class_labels": [1, 1]}, r"class_labels must give each of the 2 outputs"),
        ({"class_labels": [1, 0]}, r"class_labels must be -1 or \+1"),
        ({"scale": 0}, r"scale must be above 0; got 0"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeepNet.init(**{"depth": 2, "width": 4, "dim": 3, **options})


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"weights\[1\] has 5 columns; the layer below has 4"):
        DeepNet([np.ones((4, 3)), np.ones((1, 5))])
    with pytest.raises(ValueError, match=r"biases\[0\] must have length 4; it has 3"):
        DeepNet([np.ones((4, 3)), np.ones((1, 4))], [np.ones(3), None])
    with pytest.raises(ValueError, match=r"skip must have shape \(1, 3\)"):
        DeepNet([np.ones((4, 3)), np.ones((1, 4))], skip=np.ones((1, 4)))
    with pytest.raises(ValueError, match="X has 2 columns; the network takes 3"):
        DeepNet([np.ones((4, 3)), np.ones((1, 4))])(np.ones((2, 2)))
    data = Dataset(np.eye(3)[:2], [1, -1])
    assert DeepNet([np.ones((4, 3)), np.ones((1, 4))]).margins(data).tolist() == [4, -4]
