"""Gradient flow: closed forms, agreement of backends and forms, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import threading

import numpy as np
import pytest

import reluflow as rf
from flow_problems import closed_form_problem, cluster_problem
from reluflow._dispatch import core


@pytest.mark.parametrize("form", ["gram", "primal"])
@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("p", [1, 3])
def test_flow_follows_the_closed_form(p, form, backend):
    R, scale, target = 3.0, 0.05, 200.0
    data, net = closed_form_problem(p, R, scale)
    result = rf.gradient_flow(
        net, data, bias=False, log_inverse_loss=target, rtol=1e-6, form=form, backend=backend
    )
    assert result.status == "converged"
    path = result.trajectory
    size = scale * np.exp(R * path.rescaled_time / (2 * np.sqrt(p)))
    np.testing.assert_allclose(path.log_inverse_loss, size**2 * R / np.sqrt(p), rtol=3e-4)
    np.testing.assert_allclose(path.norm, 2 * size, rtol=2e-4)  # ||theta||^2 = 4 r^2
    np.testing.assert_allclose(path.normalized_margin, R / (4 * np.sqrt(p)), rtol=1e-4)


def test_the_target_is_reached_closely():
    problem = cluster_problem()
    for target in (0.5, 1.0, 30.0, 1e4):
        result = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=target)
        assert result.status == "converged"
        assert target <= result.log_inverse_loss <= 1.2 * target


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
@pytest.mark.parametrize("train_output", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_forms_and_backends_follow_the_same_trajectory(loss, train_output, bias):
    problem = cluster_problem(seed=3)
    results = [
        rf.gradient_flow(
            problem.net,
            problem.data,
            loss=loss,
            train_output=train_output,
            bias=bias,
            log_inverse_loss=2.0,
            rtol=1e-4,
            form=form,
            backend=backend,
        )
        for form, backend in (("gram", "native"), ("primal", "native"), ("primal", "numpy"))
    ]
    first = results[0].net
    for other in results[1:]:
        assert other.evaluations == results[0].evaluations
        for name in ("W", "b", "v"):
            expected = getattr(first, name)
            error = np.linalg.norm(getattr(other.net, name) - expected)
            assert error <= 1e-9 * max(np.linalg.norm(expected), 1e-12)
    if not bias:
        assert not first.b.any()
    if not train_output:
        np.testing.assert_array_equal(first.v, problem.net.v)


@pytest.mark.parametrize("form", ["gram", "primal"])
def test_flow_is_bitwise_the_same_for_any_number_of_threads(form):
    problem = cluster_problem(seed=1, n=300, d=400, width=130)
    results = [
        rf.gradient_flow(problem.net, problem.data, form=form, num_threads=threads)
        for threads in (1, 2, 3, 5)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.net.W, results[0].net.W)
        np.testing.assert_array_equal(other.trajectory.norm, results[0].trajectory.norm)


@pytest.mark.parametrize("bias", [True, False])
def test_a_known_gram_matrix_changes_no_bit(bias):
    problem = cluster_problem(seed=3, n=150, d=170)
    net = rf.TwoLayerNet(problem.net.W, 0 * problem.net.b, problem.net.v)
    gram = core.gram_matrix(problem.data.X, bias, 2)  # of the instruction set that flows use
    options = {"bias": bias, "form": "gram", "max_evaluations": 40}
    computed = rf.gradient_flow(net, problem.data, **options)
    given = rf.gradient_flow(net, problem.data, gram=gram, **options)
    np.testing.assert_array_equal(given.net.W, computed.net.W)
    with pytest.raises(ValueError, match=r"each of the 150 examples; got shape \(3, 3\)"):
        rf.gradient_flow(net, problem.data, gram=gram[:3, :3])


def test_far_losses_do_not_underflow():
    problem = cluster_problem(seed=2, n=20, d=60, width=10)
    result = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=1e4, rtol=1e-4)
    assert result.status == "converged"
    assert np.isfinite(result.net.norm)
    np.testing.assert_allclose(result.margins, result.net.margins(problem.data), rtol=1e-9)
    # Lyu & Li 2020: the smoothed margin log(1/(n L)) / ||theta||^2 never falls once n L < 1; the
    # integrator keeps that to its own tolerance, rtol.
    path = result.trajectory
    separated = path.log_inverse_loss > np.log(20)
    smoothed = ((path.log_inverse_loss - np.log(20)) / path.norm**2)[separated]
    assert (np.diff(smoothed) > -1e-4 * smoothed[:-1]).all()


def test_trajectory_is_logarithmically_spaced_and_ends_where_the_flow_ends():
    problem = cluster_problem()
    result = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=1e3)
    path = result.trajectory
    assert path.log_inverse_loss[-1] == result.log_inverse_loss
    assert path.rescaled_time[0] == 0.0
    assert (np.diff(path.rescaled_time) > 0).all()
    between = (path.log_inverse_loss > 1) & (path.log_inverse_loss < 1e3)
    assert 25 <= between.sum() <= 31  # ten a decade, three decades


def test_stuck_points_are_named():
    # One neuron a label; the example at (0, -1) activates neither positive neuron.
    data = rf.Dataset([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], [1, 1, -1])
    net = rf.TwoLayerNet([[0.1, 0.0], [0.0, 0.1]], [0, 0], [0.1, -0.1])
    for backend in ("native", "numpy"):
        result = rf.gradient_flow(net, data, bias=False, log_inverse_loss=10, backend=backend)
        assert result.status == "stuck_points"
        assert result.stuck_points.tolist() == [1]
        # The loss stalls at (number of stuck examples) / n.
        assert result.log_inverse_loss == pytest.approx(np.log(3), rel=1e-4)
        assert "stuck examples      1" in str(result)


def test_dead_class_is_named():
    data = rf.Dataset(np.eye(2), [1, -1])
    net = rf.TwoLayerNet([[-0.1, 0.0], [0.0, 0.1]], [0, 0], [0.1, -0.1])
    for backend in ("native", "numpy"):
        result = rf.gradient_flow(net, data, bias=False, log_inverse_loss=10, backend=backend)
        assert result.status == "dead_class"
        assert result.stuck_points.tolist() == [0]


def test_a_network_at_rest_is_not_separable_or_dead():
    data = rf.Dataset(np.eye(2), [1, -1])
    result = rf.gradient_flow(rf.TwoLayerNet(np.zeros((2, 2)), [0, 0], [0, 0]), data)
    assert result.status == "dead_class"


def test_not_separable_is_named():
    # Without bias, on collinear inputs, a positive and a negative neuron cannot tell x = 1 from
    # x = 2: y N is +N(1) and -2 N(1). The flow comes to rest between them.
    data = rf.Dataset([[1.0], [2.0]], [1, -1])
    net = rf.TwoLayerNet([[0.5], [0.4]], [0, 0], [0.5, -0.4])
    result = rf.gradient_flow(net, data, bias=False, log_inverse_loss=10, max_seconds=60)
    assert result.status == "not_separable"


def test_budgets_end_the_flow_with_what_there_is():
    problem = cluster_problem()
    by_count = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=1e9, max_evaluations=50)
    assert by_count.status == "max_evaluations"
    assert by_count.evaluations <= 50
    by_time = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=1e9, max_seconds=0)
    assert by_time.status == "max_seconds"
    np.testing.assert_array_equal(by_time.net.W, problem.net.W)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("options", [{}, {"class_labels": [1, -1, 1, -1]}], ids=str)
def test_without_any_time_the_start_is_returned(options):
    clusters = rf.ClusterModel.orthogonal(4, 60, 1.0, seed=0)
    data = clusters.sample(40, 1)
    nets = [rf.DeepNet.init(3, 20, 60, seed=0, **options)]
    if not options:
        nets.append(rf.TwoLayerNet.init(20, 60, 1.0, seed=0))
    for net in nets:
        flow = rf.gradient_flow(net, data, loss="logistic", max_seconds=0)
        whole = rf.gradient_flow(net, data, loss="logistic", log_inverse_loss=-10.0)
        assert flow.status == "max_seconds"
        assert flow.evaluations == 0
        np.testing.assert_allclose(flow.margins, whole.margins, rtol=1e-12, atol=1e-12)
        assert flow.log_inverse_loss == pytest.approx(whole.log_inverse_loss, rel=1e-12)
        assert flow.normalized_margin == pytest.approx(whole.normalized_margin, rel=1e-12)


def test_ctrl_c_returns_what_there_is():
    problem = cluster_problem(n=200, d=400, width=100)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    result = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=1e99, rtol=1e-7)
    timer.cancel()
    assert result.status == "interrupted"
    assert result.evaluations > 1
    assert np.isfinite(result.net.norm)


def test_progress_is_reported():
    problem = cluster_problem()
    seen = []
    rf.gradient_flow(problem.net, problem.data, progress=lambda *state: seen.append(state))
    assert seen
    assert seen[-1][0] >= 1.0


def test_the_result_speaks_json():
    problem = cluster_problem()
    result = rf.gradient_flow(problem.net, problem.data)
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["status"] == "converged"
    assert "log(1/L)" in str(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "0-1"}, "loss='0-1' is unknown; use one of exponential, logistic, hinge"),
        ({"loss": "cross_entropy", "label_smoothing": 0}, r"must lie in \(0, 1\) with"),
        ({"label_smoothing": -1}, "label_smoothing must be at least 0; got -1"),
        ({"rtol": 0}, "rtol must be above 0; got 0"),
        ({"log_inverse_loss": float("nan")}, "log_inverse_loss must be a number"),
        ({"log_inverse_loss": 1e101}, "at most 1e100"),
        ({"num_threads": 0}, "num_threads must be at least 1; got 0"),
        ({"max_evaluations": 1.5}, "max_evaluations must be an integer"),
        ({"max_seconds": -1}, "max_seconds must be at least 0; got -1"),
        ({"log_inverse_loss": 1e8, "method": "rkc2"}, "at most 1e7 with method='rkc2'"),
        ({"method": "euler"}, "method='euler' is unknown"),
        ({"form": "dual"}, "form='dual' is unknown"),
        ({"backend": "torch"}, "backend='torch' is unknown"),
    ],
)
def test_bad_options_are_refused(options, message):
    problem = cluster_problem()
    with pytest.raises(ValueError, match=message):
        rf.gradient_flow(problem.net, problem.data, **options)


def test_bad_problems_are_refused():
    problem = cluster_problem()
    with pytest.raises(ValueError, match=r"data\.X has 3 columns; the network takes 200"):
        rf.gradient_flow(problem.net, rf.Dataset(np.eye(3), [1, -1, 1]))
    biased = rf.TwoLayerNet(problem.net.W, np.ones(20), problem.net.v)
    with pytest.raises(ValueError, match="bias=False needs a network with zero biases"):
        rf.gradient_flow(biased, problem.data, bias=False)
    with pytest.raises(TypeError, match="takes a TwoLayerNet or a DeepNet and a Dataset"):
        rf.gradient_flow(problem.net, (problem.data.X, problem.data.y))


@pytest.mark.parametrize(("form", "numbers"), [("primal", 2 * 4000 * 100), ("gram", 2 * 4000**2)])
def test_what_does_not_fit_is_refused_before_anything_is_allocated(monkeypatch, form, numbers):
    # At least the examples as the kernel keeps them: by row and by column, or their Gram matrix and
    # the strips of it.
    X = np.random.default_rng(0).standard_normal((4000, 100))
    data = rf.Dataset(X, np.tile([1, -1], 2000))
    net = rf.TwoLayerNet.init(3, 100, 1.0)
    monkeypatch.setattr("reluflow._validation.available_memory", lambda: 8.0 * numbers)
    with pytest.raises(MemoryError, match=rf"the {form} flow needs .* GiB; .* GiB are available"):
        rf.gradient_flow(net, data, form=form)
