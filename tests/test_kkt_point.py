"""KKT points to rounding level, and limits of flows."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import reluflow as rf
from exact_cases import CASES, closed_form_flow
from reluflow.kkt import certify_kkt, flow_limit, kkt_point

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def settings(case):
    return {"train_output": case.train_output, "bias": case.bias}


@cases
def test_exact_points_are_found_from_their_pattern(case):
    # Directions turned and sizes changed, patterns kept: what a flow would hand over.
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.5, 2.0, case.net.width)
    start = rf.TwoLayerNet(case.net.W * sizes[:, None], case.net.b * sizes, case.net.v)
    found = kkt_point(start, case.data, **settings(case))
    assert found.status == "converged"
    assert found.residuals.worst <= 1e-12
    np.testing.assert_allclose(found.multipliers, case.multipliers, rtol=1e-12)
    np.testing.assert_allclose(found.clarke, case.clarke, atol=1e-12)
    assert found.normalized_margin == pytest.approx(case.normalized_margin, rel=1e-12)
    # The exact case spreads masses over neurons in the same ratio of v_j^2.
    np.testing.assert_allclose(found.net.W, case.net.W, atol=1e-12)
    np.testing.assert_allclose(found.net.v, case.net.v, atol=1e-12)


def drawn(k=4, d=200, n=40, width=20, noise=0.5, seed=0, bias=True, random=False, scale=1e-2):
    make = rf.ClusterModel.random if random else rf.ClusterModel.orthogonal
    clusters = make(k, d, noise, seed=seed)
    coordinates = "reduced" if d >= k + n + width else "ambient"
    return rf.draw(
        clusters, n, width, init_scale=scale, seed=seed, bias=bias, coordinates=coordinates
    )


GRID = [
    {"k": 2, "d": 2000, "n": 30, "noise": 1.0},
    {"k": 4, "d": 100, "n": 60, "noise": 0.2, "bias": False},
    {"k": 8, "d": 500, "n": 80, "noise": 0.5, "random": True},
    {"k": 16, "d": 1000, "n": 60, "noise": 0.3, "random": True, "bias": False, "width": 60},
    {"k": 16, "d": 20000, "n": 100, "noise": 0.05, "random": True},
    {"k": 6, "d": 300, "n": 50, "noise": 1.0, "seed": 3},
]


@pytest.mark.parametrize("settings", GRID, ids=str)
@pytest.mark.parametrize("train_output", [True, False])
def test_limits_are_kkt_points_to_rounding(settings, train_output):
    problem, bias = drawn(**settings), settings.get("bias", True)
    limit = flow_limit(
        problem.net, problem.data, bias=bias, train_output=train_output, rtol=1e-2, num_threads=1
    )
    assert limit.status == "converged"
    assert limit.residuals.worst <= 1e-12
    assert limit.net.margins(problem.data).min() == pytest.approx(1, abs=1e-12)
    # The certificate, which knows nothing of groups or programs, agrees.
    again = certify_kkt(limit.net, problem.data, bias=bias, train_output=train_output, kink_tol=0)
    assert again.stationarity <= 1e-9
    if train_output:
        # docs/theory.md, section 4.2: gamma = 1/(2 sum lam), and masses sum to the same.
        assert limit.normalized_margin == pytest.approx(1 / (2 * limit.multipliers.sum()))
        assert sum(g.mass for g in limit.groups) == pytest.approx(limit.multipliers.sum())


def test_the_flow_approaches_its_predicted_limit():
    # Predicted early; the distance must then fall about like 1/log(1/L): docs/theory.md, 2.5.
    problem = drawn()
    limit = flow_limit(problem.net, problem.data, rtol=1e-2, num_threads=1)
    assert limit.flow.log_inverse_loss <= 11
    distances, norm = [], limit.net.norm
    for target in (30.0, 300.0):
        flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=target, num_threads=1)
        late = kkt_point(flow, problem.data).net
        # Function, not spread: outputs of both normalised networks on the examples.
        difference = flow.net.scaled(1 / flow.net.norm)(problem.data.X) - late.scaled(
            1 / late.norm
        )(problem.data.X)
        distances.append(np.abs(difference).max())
        assert late.norm == pytest.approx(norm, rel=1e-10)
    assert distances[1] < distances[0] / 3


def test_spread_keeps_the_flows_ratio_within_groups():
    problem = drawn()
    flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=30.0, num_threads=1)
    point = kkt_point(flow, problem.data)
    for group in point.groups:
        if group.mass > 0:
            flowed, limit = flow.net.v[group.neurons] ** 2, point.net.v[group.neurons] ** 2
            np.testing.assert_allclose(limit / limit.sum(), flowed / flowed.sum(), rtol=1e-12)
            assert limit.sum() == pytest.approx(group.mass)


def test_dying_groups_have_directions_shorter_than_one():
    # rho_g is the minimum of a convex problem; SciPy's bounded least squares is the oracle.
    from scipy.optimize import lsq_linear

    problem = drawn(**GRID[3])
    flow = rf.gradient_flow(
        problem.net, problem.data, log_inverse_loss=1.0, bias=False, num_threads=1
    )
    point = kkt_point(flow, problem.data, bias=False)
    dying = [group for group in point.groups if group.mass == 0]
    assert dying
    lam, X = point.multipliers, problem.data.X
    for group in dying:
        harmful = (problem.data.y * group.sign < 0) & (lam > 0)
        own = lam[group.examples] @ X[group.examples]
        best = lsq_linear(X[harmful].T, own, bounds=(0, lam[harmful]), tol=1e-14)
        assert group.rho == pytest.approx(np.sqrt(2 * best.cost), rel=1e-6)
        assert group.rho <= 1 + 1e-10
        assert group.decay_exponent == 1 - group.rho


def test_far_from_the_flow_three_predictions_have_to_agree():
    clusters = rf.ClusterModel.random(16, 2000, 0.3, seed=1)
    problem = rf.draw(clusters, 100, 100, seed=2)
    limit = rf.flow_limit(problem.net, problem.data)
    assert limit.status == "converged"
    # At log(1/L) = 1 most of the flow is in neurons that will die.
    assert limit.flow.log_inverse_loss >= 10
    assert [p.agrees for p in limit.predictions[-2:]] == [True, True]
    assert limit.settled
    near = rf.draw(rf.ClusterModel.orthogonal(4, 2000, 0.3), 40, 50, seed=2)
    limit = rf.flow_limit(near.net, near.data)
    assert limit.angle_to_flow < 0.5
    assert len(limit.predictions) == 2


def test_the_flow_in_closed_form_has_its_limit_from_the_start():
    case = closed_form_flow()
    limit = flow_limit(case.net, case.data, bias=False, num_threads=1)
    assert limit.status == "converged"
    np.testing.assert_allclose(limit.multipliers, case.multipliers, rtol=1e-12)
    np.testing.assert_allclose(limit.clarke, case.clarke, atol=1e-12)
    assert limit.normalized_margin == pytest.approx(case.normalized_margin, rel=1e-12)
    assert limit.angle_to_flow <= 1e-12
    assert limit.frozen_at <= 0.2


# Few dimensions, many groups; the last ones are those on which block pivoting or Newton's
# iteration alone, without twins, brackets and corrected patterns, did not end.
MANY_GROUPS = [
    {"k": 8, "d": 60, "n": 60, "width": 60, "noise": 0.5, "random": True, "scale": 1.0},
    {"k": 4, "d": 30, "n": 80, "width": 50, "noise": 0.8, "random": True, "scale": 0.1},
    {"k": 2, "d": 6, "n": 40, "width": 60, "noise": 0.3, "random": True, "scale": 1.0},
    {"k": 10, "d": 12, "n": 40, "width": 40, "noise": 0.2, "random": True, "scale": 0.1},
]


@pytest.mark.parametrize("settings", MANY_GROUPS, ids=str)
def test_limits_with_many_groups(settings):
    problem = drawn(**settings, bias=False)
    limit = flow_limit(problem.net, problem.data, bias=False, num_threads=1)
    assert limit.status in ("converged", "degenerate")
    assert limit.residuals.worst <= 1e-12
    live = [group for group in limit.groups if group.mass > 0]
    assert len(limit.groups) >= 4
    # Neurons are in one group each, and those outside of live groups are zero.
    alive = np.concatenate([group.neurons for group in live])
    assert len(np.unique(alive)) == len(alive)
    assert sorted(alive) == np.flatnonzero(limit.net.v).tolist()
    assert all(group.rho <= 1 + 1e-9 for group in limit.groups)


def test_groups_that_differ_off_the_support_are_one():
    # w_1 = x_1 has margin 5 on the third example: its multiplier is 0. A neuron that sees it and
    # one that does not have one direction, and share their group's mass in the ratio of v_j^2.
    X, y = [[1.0, 0], [0, 1], [5, -1]], [1, -1, 1]
    net = rf.TwoLayerNet([[1.0, 0], [0.1, 1], [0, 1]], np.zeros(3), [1.0, 2, -1])  # z_3 = 5, -0.5
    point = kkt_point(net, rf.Dataset(X, y), bias=False)
    assert point.status == "converged"
    np.testing.assert_allclose(point.multipliers, [1, 1, 0], atol=1e-12)
    assert sorted(group.neurons.tolist() for group in point.groups) == [[0, 1], [2]]
    assert (point.net.v**2)[:2] == pytest.approx([0.2, 0.8])


def test_unreached_examples_are_named():
    # No neuron of label +1 is active on example 1.
    data = rf.Dataset([[1.0, 0], [-1, 0], [0, 1]], [1, 1, -1])
    net = rf.TwoLayerNet([[1.0, -1], [0, 1]], [0, 0], [1, -1])
    point = kkt_point(net, data, bias=False)
    assert point.status == "stuck_points"
    assert point.stuck_points.tolist() == [1]
    assert "stuck examples      1" in str(point)
    assert np.isfinite(point.stationarity)
    limit = flow_limit(net, data, bias=False, num_threads=1, max_evaluations=2000)
    assert limit.status in ("stuck_points", "dead_class")
    assert limit.flow.stuck_points.tolist() == [1]


@pytest.mark.parametrize(
    ("W", "expected", "stuck"),
    [
        ([[-1.0, -1], [-1, -1]], "dead_class", [0, 1, 2]),  # no neuron is active anywhere
        ([[-1.0, -1], [1, 1]], "dead_class", [0, 1]),  # none of label +1
        ([[1.0, -0.5], [1, 1]], "stuck_points", [1]),  # one example of label +1
    ],
)
def test_stuck_examples_and_dead_classes_end_with_their_indices(W, expected, stuck):
    # The negative example is opposite to the positive ones, so that nothing pushes a positive
    # neuron to where it would see more.
    data = rf.Dataset([[1.0, 0], [0, 1], [0.7, 0.7]], [1, 1, -1])
    net = rf.TwoLayerNet(W, [0, 0], [1, -1] * np.linalg.norm(W, axis=1))
    point = kkt_point(net, data, bias=False)
    assert point.status == expected
    assert point.stuck_points.tolist() == stuck
    assert np.isfinite(point.stationarity)
    limit = flow_limit(net, data, bias=False, num_threads=1)
    assert limit.status in ("dead_class", "stuck_points")
    assert set(stuck) <= set(limit.stuck_points)
    assert np.isfinite(limit.stationarity)
    assert "stuck examples" in str(limit)


def test_one_sided_death_on_the_way():
    # The only positive neuron, w = (0.05, -1), sees its example x_1 = (1, 0) with z = 0.05, and the
    # three of label -1 with z > 0.5. They push it along -(1.1, -0.5), three times as hard as x_1
    # pushes it along (1, 0): w . x_1 falls below 0, where nothing brings it back.
    X = [[1.0, 0], [1, -0.5], [1.1, -0.6], [1.2, -0.5]]
    net = rf.TwoLayerNet([[0.05, -1.0], [0.5, -0.5]], [0, 0], [1.0, -0.7])
    limit = flow_limit(net, rf.Dataset(X, [1, -1, -1, -1]), bias=False, num_threads=1)
    assert limit.status == "dead_class"
    assert limit.stuck_points.tolist() == [0]
    assert limit.flow.stuck_points.tolist() == [0]
    assert np.isfinite(limit.stationarity)


def test_duplicate_examples_are_degenerate_but_solved():
    # Two copies of an example: only the sum of their multipliers is determined.
    case = CASES["two points, acute"]
    data = rf.Dataset(np.vstack([case.data.X, case.data.X[:1]]), [1, -1, 1])
    point = kkt_point(case.net, data, bias=False)
    assert point.status == "degenerate"
    assert point.residuals.worst <= 1e-12
    assert point.multipliers[[0, 2]].sum() == pytest.approx(case.multipliers[0])


def opposed_pairs():
    """Two examples of each label at a small angle, and a neuron for each one."""
    X = np.array([[1.0, 0.1], [1, -0.1], [-1, 0.1], [-1, -0.1]])
    W = np.array([[0.1, 1.1], [0.1, -1.1], [-0.1, 1.1], [-0.1, -1.1]])
    return rf.TwoLayerNet(W, np.zeros(4), [1, 1, -1, -1]), rf.Dataset(X, [1, 1, -1, -1])


def test_inconsistent_patterns_are_reported():
    # The solution for neurons that see one example each is active on both of a label.
    point = kkt_point(*opposed_pairs(), bias=False)
    assert point.status == "inconsistent_pattern"
    assert point.residuals.worst > 1e-3


def test_inconsistent_patterns_are_corrected():
    # With both examples in the pattern, w = (1, 0) is the shortest vector with w . x >= 1: c a = w,
    # so c = 1, a = (1, 0) = lam_1 x_1 + lam_2 x_2 and lam = 1/2.
    point = kkt_point(*opposed_pairs(), bias=False, correct_pattern=True)
    assert point.status == "converged"
    assert point.pattern_changes == 1
    np.testing.assert_allclose(point.multipliers, 0.5, rtol=1e-12)
    np.testing.assert_allclose(point.net.v**2, 0.5, rtol=1e-12)
    assert any("patterns were replaced" in sentence for sentence in point.uncertainties)
    assert "not certain" in str(point)


def test_time_limits_end_the_flow_with_the_last_point():
    problem = drawn()
    limit = flow_limit(problem.net, problem.data, num_threads=1, max_seconds=0)
    assert limit.status == "max_seconds"


def test_bad_input():
    case = CASES["XOR"]
    with pytest.raises(ValueError, match=r"data\.X has 3 columns; the network takes 2"):
        kkt_point(case.net, rf.Dataset(np.eye(3), [1, -1, 1]))
    with pytest.raises(ValueError, match="bias=False needs"):
        kkt_point(rf.TwoLayerNet(case.net.W, np.ones(4), case.net.v), case.data, bias=False)
    with pytest.raises(ValueError, match=r"data\.X has 3 columns; the network takes 2"):
        flow_limit(case.net, rf.Dataset(np.eye(3), [1, -1, 1]))
    at_rest = rf.gradient_flow(case.net, case.data, bias=False, num_threads=1)
    unseparated = dataclasses.replace(
        at_rest, status=rf.Status.NOT_SEPARABLE, margins=np.array([1.0, -1, 1, 0])
    )
    with pytest.raises(ValueError, match="2 of 4 margins not above 0; it tends to a KKT point"):
        kkt_point(unseparated, case.data, bias=False)
    with pytest.raises(ValueError, match="probe_starts needs train_output=True"):
        flow_limit(case.net, case.data, train_output=False, probe_starts=8)
    with pytest.raises(ValueError, match="max_log_inverse_loss"):
        flow_limit(case.net, case.data, log_inverse_loss=1.0, max_log_inverse_loss=0.5)


def test_results_print_and_convert():
    problem = drawn()
    limit = flow_limit(problem.net, problem.data, rtol=1e-2, num_threads=1)
    text = str(limit)
    assert text.startswith("Converged")
    assert "angle to the flow" in text
    fields = json.loads(json.dumps(limit.to_dict()))
    assert fields["status"] == "converged"
    assert fields["predictions"][-1]["agrees"] is True
    assert fields["groups"][0]["mass"] > 0
