"""Ensembles: many flows in one call, each bit for bit what it is alone."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import reluflow as rf
from flow_problems import cluster_problem


def problems(count=7):
    # Narrow and wide networks, so that both kinds of products take part.
    drawn = [
        cluster_problem(seed=seed, n=20 + seed, d=60, width=10 + 9 * seed) for seed in range(count)
    ]
    return [one.net for one in drawn], [one.data for one in drawn]


def assert_equal(first, second):
    assert first.status == second.status
    assert first.evaluations == second.evaluations
    for name in ("W", "b", "v"):
        np.testing.assert_array_equal(getattr(first.net, name), getattr(second.net, name))
    np.testing.assert_array_equal(first.margins, second.margins)
    np.testing.assert_array_equal(first.trajectory.norm, second.trajectory.norm)


@pytest.mark.parametrize(
    "options", [{}, {"form": "primal"}, {"method": "rkc2", "rtol": 1e-2}, {"loss": "squared"}]
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_flow_is_the_one_it_is_alone(options, threads):
    nets, data = problems()
    flows = rf.gradient_flow_ensemble(
        nets, data, log_inverse_loss=3.0, num_threads=threads, **options
    )
    assert len(flows) == len(nets)
    for net, examples, flow in zip(nets, data, flows, strict=True):
        assert_equal(flow, rf.gradient_flow(net, examples, log_inverse_loss=3.0, **options))
        assert flow.status == "converged"
        assert flow.seconds > 0


def test_backends_agree():
    nets, data = problems(3)
    native, twin = (
        rf.gradient_flow_ensemble(nets, data, backend=backend) for backend in ("native", "numpy")
    )
    for first, second in zip(native, twin, strict=True):
        np.testing.assert_allclose(first.net.W, second.net.W, rtol=1e-7, atol=1e-10)


def test_one_data_set_serves_all():
    problem = cluster_problem(n=20, d=60, width=10)
    nets = [rf.TwoLayerNet.init(10, 60, 1e-2, seed=seed) for seed in range(4)]
    flows = rf.gradient_flow_ensemble(nets, problem.data)
    for net, flow in zip(nets, flows, strict=True):
        assert_equal(flow, rf.gradient_flow(net, problem.data))


def test_a_stuck_flow_does_not_hold_up_the_others():
    data = rf.Dataset([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], [1, 1, -1])
    net = rf.TwoLayerNet([[0.1, 0.0], [0.0, 0.1]], [0, 0], [0.1, -0.1])
    nets, others = problems(3)
    mixed = [nets[0], net, nets[1]], [others[0], data, others[1]]
    flows = rf.gradient_flow_ensemble(*mixed, bias=False, log_inverse_loss=10)
    assert [flow.status for flow in flows] == ["converged", "stuck_points", "converged"]
    assert flows[1].stuck_points.tolist() == [1]


@pytest.mark.parametrize("threads", [1, 2])
def test_time_is_shared_and_what_had_not_begun_is_as_it_was(threads):
    nets, data = problems()
    flows = rf.gradient_flow_ensemble(nets, data, max_seconds=0, num_threads=threads)
    for net, examples, flow in zip(nets, data, flows, strict=True):
        assert flow.status == "max_seconds"
        assert flow.evaluations == 0
        margins = net.margins(examples)
        np.testing.assert_allclose(flow.margins, margins, rtol=1e-12)
        assert flow.log_inverse_loss == pytest.approx(-np.log(np.exp(-margins).mean()))
        np.testing.assert_array_equal(flow.net.W, net.W)
    start = time.perf_counter()
    slow = {"log_inverse_loss": 1e100, "rtol": 1e-8, "num_threads": threads}
    flows = rf.gradient_flow_ensemble(nets, data, max_seconds=0.3, **slow)
    assert time.perf_counter() - start < 5
    assert {flow.status.value for flow in flows} == {"max_seconds"}


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_returns_what_there_is(threads):
    nets, data = problems()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    flows = rf.gradient_flow_ensemble(
        nets, data, log_inverse_loss=1e100, rtol=1e-8, num_threads=threads, max_seconds=60
    )
    timer.cancel()
    assert {flow.status.value for flow in flows} == {"interrupted"}
    assert max(flow.evaluations for flow in flows) > 1


def test_progress_counts_finished_flows():
    nets, data = problems()
    seen = []
    rf.gradient_flow_ensemble(nets, data, progress=seen.append)
    assert seen[-1] == len(nets)
    assert seen == sorted(seen)

    def fail(done):
        raise RuntimeError("observer failed")

    with pytest.raises(RuntimeError, match="observer failed"):
        rf.gradient_flow_ensemble(nets, data, progress=fail)


def test_bad_ensembles_are_refused():
    nets, data = problems(3)
    with pytest.raises(ValueError, match="got 0 networks and 0 data sets"):
        rf.gradient_flow_ensemble([], data[0])
    with pytest.raises(ValueError, match="got 3 networks and 2 data sets"):
        rf.gradient_flow_ensemble(nets, data[:2])
    with pytest.raises(ValueError, match=r"problem 1: data\.X has 2 columns; the network takes 60"):
        rf.gradient_flow_ensemble(nets, [data[0], rf.Dataset(np.eye(2), [1, -1]), data[2]])
    with pytest.raises(TypeError, match="problem 2: an ensemble takes TwoLayerNets; got NoneType"):
        rf.gradient_flow_ensemble([*nets[:2], None], data)
