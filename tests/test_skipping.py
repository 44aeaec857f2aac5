"""Examples without weight, dead neurons, and neurons that move like others, are left out."""

from __future__ import annotations

import numpy as np
import pytest

import reluflow as rf
from flow_problems import cluster_problem
from reluflow import reference

FIELDS = ("weights", "bias", "output")


def problem(rng, n=60, d=30, m=24):
    W, b, v = rng.standard_normal((m, d)), rng.standard_normal(m), rng.standard_normal(m)
    X = rng.standard_normal((n, d))
    return W, b, v, X, np.where(rng.random(n) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize("name", ["primal_gradient", "gram_gradient"])
@pytest.mark.parametrize("rest", [8, 16, 40])
def test_dead_neurons_change_no_bit_of_the_others(native, name, rest):
    # Dead neurons are inactive on all examples; behind the others, in whole SIMD vectors, they
    # leave the order in which outputs are summed as it was.
    W, b, v, X, y = problem(np.random.default_rng(rest))
    m = len(v)
    dead = np.concatenate([W, np.ones((rest, W.shape[1]))]), np.append(b, np.full(rest, -1e3))
    gradient = getattr(native, name)
    alone = gradient(W, b, v, X, y, native.Loss.exponential, True, True, 1)
    both = gradient(
        *dead, np.append(v, np.ones(rest)), X, y, native.Loss.exponential, True, True, 1
    )
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(both, field)[:m], getattr(alone, field))
        assert not getattr(both, field)[m:].any()


@pytest.mark.parametrize("name", ["primal_gradient", "gram_gradient"])
@pytest.mark.parametrize("far", [1, 7, 200])
def test_examples_without_weight_change_no_bit(native, name, far):
    # exp(-q) underflows beside the others where q is above them by more than 745. The first neuron
    # alone is active on those examples.
    W, b, v, X, y = problem(np.random.default_rng(far))
    W[0], v[0] = 0, 1
    W[0, 0] = 1
    probe = np.zeros((far, X.shape[1]))
    probe[:, 0] = 1e6
    W[1:, 0] = -np.abs(W[1:, 0])
    gradient = getattr(native, name)
    alone = gradient(W, b, v, X, y, native.Loss.exponential, True, True, 1)
    X_far, y_far = np.concatenate([X, probe]), np.append(y, np.ones(far))
    both = gradient(W, b, v, X_far, y_far, native.Loss.exponential, True, True, 1)
    assert not both.example_weights[len(y) :].any()
    for field in FIELDS:
        if name == "primal_gradient" or field == "output":
            np.testing.assert_array_equal(getattr(both, field), getattr(alone, field))
        else:  # from coefficients to weights by another product, whose order depends on n
            np.testing.assert_allclose(
                getattr(both, field), getattr(alone, field), rtol=1e-13, atol=1e-15
            )


@pytest.mark.parametrize("name", ["primal_gradient", "gram_gradient"])
@pytest.mark.parametrize("threads", [1, 3])
def test_neurons_of_one_pattern_move_alike(native, name, threads):
    # Ten directions, each with many neurons of other lengths and output weights, one of them 0.
    rng = np.random.default_rng(5)
    W, b, _, X, y = problem(rng, n=300, d=200, m=10)
    length = rng.uniform(0.5, 2, 120)
    kind = np.arange(120) % 10
    v = np.where(np.arange(120) == 13, 0.0, rng.standard_normal(120)) / 100
    arrays = length[:, None] * W[kind], length * b[kind], v, X, y
    gradient = getattr(native, name)(*arrays, native.Loss.exponential, True, True, threads)
    expected = reference.primal_gradient(*arrays, reference.Loss.exponential, True, True, 1)
    for field in FIELDS:
        error = getattr(gradient, field) - getattr(expected, field)
        assert np.abs(error).max() <= 1e-13 * np.abs(getattr(expected, field)).max()
    assert not gradient.weights[13].any()


@pytest.mark.parametrize("form", ["primal", "gram"])
@pytest.mark.parametrize("bias", [True, False])
def test_dead_neurons_of_a_flow_never_move(form, bias):
    start = cluster_problem(seed=4, n=40, d=30, width=16)
    net, data = start.net, start.data
    # Inactive on every example: opposite to a direction in which all examples are shifted.
    X = data.X + 100 * np.eye(30)[0]
    dead = np.zeros((24, 30))
    dead[:, 0] = -1e-3
    shifted = rf.Dataset(X, data.y)
    wide = rf.TwoLayerNet(
        np.concatenate([net.W, dead]), np.append(net.b, np.zeros(24)), np.append(net.v, dead[:, 0])
    )
    options = {"form": form, "bias": bias, "max_evaluations": 400, "log_inverse_loss": 1e3}
    flow = rf.gradient_flow(wide, shifted, **options)
    np.testing.assert_array_equal(flow.net.W[16:], dead)
    np.testing.assert_array_equal(flow.net.v[16:], dead[:, 0])
    reference = rf.gradient_flow(wide, shifted, backend="numpy", **options)
    assert flow.evaluations == reference.evaluations
    np.testing.assert_allclose(flow.net.W, reference.net.W, rtol=1e-6, atol=1e-9)


def test_late_flows_skip_most_examples_and_keep_their_threads_bits():
    start = cluster_problem(seed=1, n=300, d=400, width=130)
    for form in ("gram", "primal"):
        flows = [
            rf.gradient_flow(
                start.net,
                start.data,
                log_inverse_loss=1e6,
                rtol=1e-2,
                form=form,
                max_evaluations=900,
                num_threads=threads,
            )
            for threads in (1, 2, 3)
        ]
        spread = flows[0].margins - flows[0].margins.min()
        assert (spread > 745).mean() > 0.5
        for other in flows[1:]:
            np.testing.assert_array_equal(other.net.W, flows[0].net.W)
