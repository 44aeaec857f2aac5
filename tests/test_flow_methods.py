"""Integrators: far flows, the stabilised method, and their agreement."""

from __future__ import annotations

import numpy as np
import pytest

import reluflow as rf
from flow_problems import angle, closed_form_problem, cluster_problem


@pytest.mark.parametrize(
    ("method", "target", "rtol"),
    [("bogacki-shampine", 1e100, 1e-2), ("rkc2", 1e6, 1e-3), ("rkc2", 200.0, 1e-6)],
)
@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_methods_follow_the_closed_form_however_far(method, target, rtol, backend):
    p, R, scale = 3, 3.0, 0.05
    data, net = closed_form_problem(p, R, scale)
    flow = rf.gradient_flow(
        net,
        data,
        bias=False,
        log_inverse_loss=target,
        rtol=rtol,
        method=method,
        backend=backend,
    )
    assert flow.status == "converged"
    path = flow.trajectory
    assert np.isfinite(path.norm).all()
    # log(1/L) = ||theta||^2 R / (4 sqrt p), and its logarithm grows by R / sqrt p a unit of tau;
    # steps of third-order error rtol are about rtol^(1/3) units of tau long.
    np.testing.assert_allclose(path.normalized_margin, R / (4 * np.sqrt(p)), rtol=1e-12)
    exact = np.log(scale**2 * R / np.sqrt(p)) + path.rescaled_time * R / np.sqrt(p)
    allowed = 10 * rtol ** (2 / 3) * (1 + path.rescaled_time)
    assert (np.abs(np.log(path.log_inverse_loss) - exact) <= allowed).all()


@pytest.mark.parametrize("form", ["gram", "primal"])
def test_far_flow_costs_the_same_every_decade_and_never_loses_margin(form):
    problem = cluster_problem(seed=2, n=20, d=60, width=10)
    flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=1e100, rtol=1e-2, form=form)
    assert flow.status == "converged"
    assert np.isfinite(flow.net.norm)
    path = flow.trajectory
    spent = np.interp([20, 50, 80], np.log10(path.log_inverse_loss[5:]), path.evaluations[5:])
    assert spent[2] - spent[1] == pytest.approx(spent[1] - spent[0], rel=0.2)
    late = path.log_inverse_loss > 1e3
    assert path.normalized_margin[late].min() > 0.95 * path.normalized_margin[late].max()
    limit = rf.flow_limit(problem.net, problem.data)
    assert path.normalized_margin[-1] == pytest.approx(limit.normalized_margin, rel=0.05)


@pytest.mark.parametrize("train_output", [True, False])
def test_methods_agree_and_closer_with_less_tolerance(train_output):
    problem = cluster_problem(seed=1, n=20, d=60, width=10)
    for rtol in (1e-3, 1e-4):
        flows = [
            rf.gradient_flow(
                problem.net,
                problem.data,
                train_output=train_output,
                log_inverse_loss=1e3,
                rtol=rtol,
                method=method,
            )
            for method in ("bogacki-shampine", "rkc2")
        ]
        assert angle(flows[0].net, flows[1].net) < 20 * rtol
        for flow in flows:
            assert flow.status == "converged"
            assert 1e3 <= flow.log_inverse_loss < 1.2e3


def test_stabilised_method_is_the_cheaper_one_late_in_training():
    problem = cluster_problem(seed=0)
    spent = {}
    for method in ("bogacki-shampine", "rkc2"):
        path = rf.gradient_flow(
            problem.net, problem.data, log_inverse_loss=1e5, rtol=1e-4, method=method
        ).trajectory
        first = path.evaluations[path.log_inverse_loss > 1e3][0]
        spent[method] = path.evaluations[-1] - first
    assert spent["rkc2"] < 0.2 * spent["bogacki-shampine"]


def test_stabilised_backends_and_forms_follow_the_same_trajectory():
    problem = cluster_problem(seed=3, n=16, d=30, width=8)
    nets = [
        rf.gradient_flow(
            problem.net,
            problem.data,
            log_inverse_loss=3.0,
            rtol=1e-4,
            method="rkc2",
            form=form,
            backend=backend,
        ).net
        for form, backend in (("gram", "native"), ("primal", "native"), ("primal", "numpy"))
    ]
    # The number of stages jumps with a rounding of the spectral radius, at the tolerance's level.
    for net in nets[1:]:
        assert angle(net, nets[0]) < 1e-3


def test_stabilised_flow_is_bitwise_the_same_for_any_number_of_threads():
    problem = cluster_problem(seed=1, n=300, d=400, width=130)
    flows = [
        rf.gradient_flow(problem.net, problem.data, method="rkc2", rtol=1e-2, num_threads=threads)
        for threads in (1, 2, 3)
    ]
    for other in flows[1:]:
        np.testing.assert_array_equal(other.net.W, flows[0].net.W)


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_stabilised_method_keeps_to_its_budget(backend):
    problem = cluster_problem()
    for most in (1, 40, 300):
        flow = rf.gradient_flow(
            problem.net,
            problem.data,
            log_inverse_loss=1e6,
            method="rkc2",
            max_evaluations=most,
            backend=backend,
        )
        assert flow.status == "max_evaluations"
        assert flow.evaluations <= most
