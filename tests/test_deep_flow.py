"""Gradient flow of deep networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reluflow as rf
from reluflow.deep_network import ACTIVATIONS

CLUSTERS = rf.ClusterModel.orthogonal(4, 60, 0.2, seed=0)
DATA = CLUSTERS.sample(16, 1)


def chains(depth, s, R):
    """Two orthogonal examples of norm R, one a label, and one balanced chain of units for each."""
    eye = np.eye(2)
    weights = [s * eye, *(s * eye for _ in range(depth - 2)), np.array([[s, -s]])]
    return rf.DeepNet(weights), rf.Dataset(R * eye, [1, -1])


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_the_flow_follows_the_closed_form_of_a_chain(depth, backend):
    # Every weight of both chains is a(tau): the margins are a^L R, and so is log(1/L); each example
    # carries half of the weight, so a' = R a^(L-1) / 2, whence a = s exp(R tau / 2) for L = 2 and
    # a^(2-L) = s^(2-L) - (L - 2) R tau / 2 beyond.
    s, R, target = 0.5, 3.0, 60.0
    net, data = chains(depth, s, R)
    flow = rf.gradient_flow(net, data, log_inverse_loss=target, rtol=1e-7, backend=backend)
    assert flow.status == "converged"
    tau = flow.trajectory.rescaled_time[-1]
    if depth == 2:
        a = s * math.exp(R * tau / 2)
    else:
        a = (s ** (2 - depth) - (depth - 2) * R * tau / 2) ** (1 / (2 - depth))
    assert flow.log_inverse_loss == pytest.approx(a**depth * R, rel=1e-4)
    assert flow.net.norm == pytest.approx(a * math.sqrt(2 * depth), rel=1e-5)
    np.testing.assert_allclose(flow.margins, flow.log_inverse_loss, rtol=1e-12)
    # ||theta||^2 = 2 L a^2.
    assert flow.normalized_margin == pytest.approx(R / (2 * depth) ** (depth / 2), rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"skip": True}, {"class_labels": [1, -1, 1, -1]}], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_flow_in_the_span_is_the_flow(activation, options):
    net = rf.DeepNet.init(3, 20, 60, 0.5, activation=activation, power=2.0, seed=3, **options)
    loss = "logistic" if "class_labels" in options else "exponential"
    spanned, primal = (
        rf.gradient_flow(net, DATA, loss=loss, log_inverse_loss=1.5, form=form, rtol=1e-4)
        for form in ("span", "primal")
    )
    assert spanned.form == "span"
    assert spanned.status == primal.status == "converged"
    np.testing.assert_allclose(spanned.net.theta, primal.net.theta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(spanned.margins, primal.margins, rtol=1e-6)


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_training_starts_from_the_default_scale_and_separates(depth):
    clusters = rf.ClusterModel.orthogonal(4, 500, 0.5, seed=0)
    data = clusters.sample(24, 1)
    net = rf.DeepNet.init(depth, 20, 500, seed=2)
    flow = rf.gradient_flow(net, data, log_inverse_loss=20.0)
    assert flow.status == "converged"
    assert isinstance(flow, rf.DeepFlowResult)
    assert (flow.net.margins(data) > 0).all()
    np.testing.assert_allclose(flow.net.margins(data), flow.margins, rtol=1e-6)
    assert flow.normalized_margin == pytest.approx(flow.net.normalized_margin(data), rel=1e-9)
    # Within the integrator's tolerance at its kinks the loss only falls.
    assert (np.diff(flow.trajectory.log_inverse_loss) > 0).all()


def test_one_output_a_cluster_learns_the_clusters():
    net = rf.DeepNet.init(2, 30, 60, class_labels=CLUSTERS.labels, seed=1)
    flow = rf.gradient_flow(net, DATA, loss="logistic", log_inverse_loss=5.0)
    assert flow.status == "converged"
    assert (flow.net.logits(DATA.X).argmax(axis=1) == DATA.cluster).all()
    assert (flow.net.margins(DATA) > 0).all()


def test_a_layer_that_is_silent_on_an_example_is_named():
    # The second example activates no unit of the first layer.
    net = rf.DeepNet([np.array([[1.0, -1.0], [1.0, -2.0]]), np.eye(2), np.array([[1.0, -1.0]])])
    data = rf.Dataset(np.eye(2), [1, -1])
    flow = rf.gradient_flow(net, data, log_inverse_loss=5.0)
    assert flow.status == "dead_class"
    assert flow.stuck_points.tolist() == [1]


def test_a_dead_network_ends_at_once():
    net = rf.DeepNet([-np.ones((2, 2)), np.eye(2), np.array([[1.0, -1.0]])])
    flow = rf.gradient_flow(net, rf.Dataset(np.eye(2), [1, -1]))
    assert flow.status == "dead_class"
    assert flow.stuck_points.tolist() == [0, 1]


def test_the_flow_is_bitwise_the_same_for_any_number_of_threads():
    net = rf.DeepNet.init(3, 90, 60, seed=3)
    one, *others = (
        rf.gradient_flow(net, DATA, log_inverse_loss=3.0, num_threads=threads)
        for threads in (1, 2, 3, 5)
    )
    for other in others:
        np.testing.assert_array_equal(one.net.theta, other.net.theta)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "gram"}, "form='gram' is for two-layer networks"),
        ({"train_output": False}, "train_output=False is for two-layer networks"),
        ({"bias": False}, r"bias=False needs a network without biases; layers \[0\] have some"),
        ({"method": "rkc2"}, "method='rkc2' is for two-layer networks"),
        ({"loss": "absolute"}, "loss='absolute' is unknown; use one of exponential, logistic"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message):
    net = rf.DeepNet.init(3, 6, 60, seed=0)
    with pytest.raises(ValueError, match=message):
        rf.gradient_flow(net, DATA, **options)


def test_bad_problems_are_refused():
    with pytest.raises(ValueError, match=r"data.X has 60 columns; the network takes 5"):
        rf.gradient_flow(rf.DeepNet.init(3, 6, 5, seed=0), DATA)
    with pytest.raises(ValueError, match="form='span' is for deep networks"):
        rf.gradient_flow(rf.TwoLayerNet.init(4, 60, 0.1, seed=0), DATA, form="span")
    net = rf.DeepNet.init(2, 6, 60, class_labels=CLUSTERS.labels, seed=0)
    with pytest.raises(ValueError, match="data must say which cluster each example is of"):
        rf.gradient_flow(net, rf.Dataset(DATA.X, DATA.y))
    three = rf.DeepNet.init(2, 6, 60, class_labels=[1, -1, 1], seed=0)
    with pytest.raises(ValueError, match=r"data.cluster must lie in 0..2, .* from 0 to 3"):
        rf.gradient_flow(three, DATA)
    other = rf.DeepNet.init(2, 6, 60, class_labels=-CLUSTERS.labels, seed=0)
    with pytest.raises(ValueError, match=r"class_labels and data\.y disagree on 16 of 16"):
        rf.gradient_flow(other, DATA)
