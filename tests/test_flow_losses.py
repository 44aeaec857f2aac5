"""Flows of losses that have minimisers: what is reported instead of a limit direction."""

from __future__ import annotations

import json

import numpy as np
import pytest

import reluflow as rf
from flow_problems import angle, closed_form_problem, cluster_problem

WITH_MINIMISERS = ("hinge", "squared", "cross_entropy")


@pytest.mark.parametrize("loss", WITH_MINIMISERS)
@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_symmetric_problem_ends_where_the_loss_of_one_margin_is_least(loss, backend):
    # All margins are equal to q = ||theta||^2 R / (4 sqrt p) along the flow, so that it ends where
    # l(q) is least: at q = 1, or where sigmoid(q) = 1 - a/2. The last step of a hinge flow, whose
    # loss becomes 0, lands beyond 1 by up to its tolerance.
    p, R = 3, 3.0
    data, net = closed_form_problem(p, R, 0.05)
    flow = rf.gradient_flow(
        net, data, bias=False, loss=loss, label_smoothing=0.2, log_inverse_loss=30, backend=backend
    )
    expected = np.log(0.9 / 0.1) if loss == "cross_entropy" else 1.0
    np.testing.assert_allclose(flow.margins, expected, rtol=2e-3 if loss == "hinge" else 1e-6)
    np.testing.assert_allclose(flow.net.norm**2 * R / (4 * np.sqrt(p)), flow.margins, rtol=1e-12)
    assert flow.status == ("stationary" if loss == "cross_entropy" else "converged")
    assert not flow.tends_to_kkt_point
    assert "last iterate" in str(flow)


@pytest.mark.parametrize("loss", WITH_MINIMISERS)
@pytest.mark.parametrize("method", ["auto", "rkc2"])
def test_flow_ends_at_loss_or_gradient_tolerance(loss, method):
    problem = cluster_problem(seed=1, n=30, d=100, width=12)
    flow = rf.gradient_flow(
        problem.net, problem.data, loss=loss, log_inverse_loss=8, method=method, max_seconds=60
    )
    assert flow.status == ("stationary" if loss == "cross_entropy" else "converged")
    assert (flow.margins > 0).all()
    assert (np.diff(flow.trajectory.log_inverse_loss) >= 0).all()
    json.dumps(flow.to_dict(), allow_nan=False)
    if loss == "cross_entropy":
        # The least loss is the entropy of the smoothed label, and the problem can reach it.
        entropy = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
        assert flow.log_inverse_loss == pytest.approx(np.log(1 / entropy), rel=1e-10)


@pytest.mark.parametrize("loss", WITH_MINIMISERS)
def test_forms_and_backends_agree(loss):
    problem = cluster_problem(seed=3)
    nets = [
        rf.gradient_flow(
            problem.net,
            problem.data,
            loss=loss,
            log_inverse_loss=1.0,
            rtol=1e-4,
            form=form,
            backend=backend,
        ).net
        for form, backend in (("gram", "native"), ("primal", "native"), ("primal", "numpy"))
    ]
    for net in nets[1:]:
        assert angle(net, nets[0]) < 1e-8


def test_stuck_and_dead_are_named_for_every_loss():
    stuck = rf.Dataset([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], [1, 1, -1])
    net = rf.TwoLayerNet([[0.1, 0.0], [0.0, 0.1]], [0, 0], [0.1, -0.1])
    for loss in WITH_MINIMISERS:
        flow = rf.gradient_flow(net, stuck, bias=False, loss=loss, log_inverse_loss=10)
        assert flow.status == "stuck_points"
        assert flow.stuck_points.tolist() == [1]
    dead = rf.TwoLayerNet([[-0.1, 0.0], [0.0, 0.1]], [0, 0], [0.1, -0.1])
    for loss in WITH_MINIMISERS:
        flow = rf.gradient_flow(dead, rf.Dataset(np.eye(2), [1, -1]), bias=False, loss=loss)
        assert flow.status in ("dead_class", "converged")
        assert flow.margins[0] == 0.0


def test_limit_of_a_loss_without_one_is_refused():
    problem = cluster_problem()
    for loss in WITH_MINIMISERS:
        with pytest.raises(ValueError, match="tends to one of them and to no KKT point"):
            rf.flow_limit(problem.net, problem.data, loss=loss)
