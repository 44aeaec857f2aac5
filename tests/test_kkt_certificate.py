"""The independent residual check and the best multipliers, on KKT points in closed form."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import reluflow as rf
from exact_cases import CASES, orthogonal_blocks, two_points
from reluflow.kkt import certify_kkt, kkt_residuals

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def residuals(case, multipliers=None, clarke=None, net=None):
    return kkt_residuals(
        case.net if net is None else net,
        case.data,
        case.multipliers if multipliers is None else multipliers,
        case.clarke if clarke is None else clarke,
        train_output=case.train_output,
        bias=case.bias,
    )


def certificate(case, net=None, **settings):
    return certify_kkt(
        case.net if net is None else net,
        case.data,
        train_output=case.train_output,
        bias=case.bias,
        **settings,
    )


@cases
def test_exact_points_have_no_residual(case):
    found = residuals(case)
    assert found.worst <= 1e-12
    assert found.normalized_margin == pytest.approx(case.normalized_margin, rel=1e-12)


@cases
def test_residuals_see_each_condition(case):
    lam, s = case.multipliers, case.clarke
    size = np.abs(lam).max()

    assert residuals(case, multipliers=lam * (1 + 1e-3)).stationarity > 1e-4
    assert residuals(case, multipliers=lam - 2 * size).dual_feasibility > 0.1
    smaller = rf.TwoLayerNet(0.9 * case.net.W, 0.9 * case.net.b, case.net.v)
    assert residuals(case, net=smaller).feasibility == pytest.approx(0.1)  # N is linear in (W, b)
    assert residuals(case, net=smaller).complementarity == pytest.approx(0.1)
    assert residuals(case, clarke=s + 0.5).clarke_violation >= 0.5
    assert residuals(case, clarke=s - 1.5).clarke_violation >= 0.5


def test_clarke_violation_is_the_relative_gap():
    # Orthogonal examples: on its own example, s = 0.25 instead of 1 leaves relu(z) - s z =
    # 0.75 z, relative to ||w|| ||(x, 1)|| with z = ||w|| R: 0.75 R / sqrt(R^2 + 1).
    case = two_points(angle=2.0, radii=(2.0, 2.0))
    clarke = case.clarke.copy()
    clarke[0, 0] = 0.25
    assert residuals(case, clarke=clarke).clarke_violation == pytest.approx(0.75 * 2 / np.sqrt(5))


@cases
def test_best_multipliers_of_exact_points(case):
    # Neither the scale nor (with v trained) where the margins stand may matter.
    net = case.net.scaled(3.0) if case.train_output else case.net
    found = certificate(case, net)
    assert found.status == "converged"
    assert found.residuals.worst <= 1e-10
    np.testing.assert_allclose(found.multipliers, case.multipliers, rtol=1e-9)
    np.testing.assert_allclose(found.clarke, case.clarke, atol=1e-8)
    assert found.normalized_margin == pytest.approx(case.normalized_margin, rel=1e-12)
    assert found.net.margins(case.data).min() == pytest.approx(1)


def test_kinks_are_listed_as_neuron_example_value():
    case = CASES["two points, acute"]
    kinks = certificate(case).kinks
    assert sorted(zip(kinks.neuron, kinks.example, strict=True)) == [(0, 1), (1, 0)]
    np.testing.assert_allclose(kinks.value, np.cos(0.8))


def test_without_kink_weights_an_exact_point_looks_wrong():
    # One group's residual without its kink: t ||x~_2|| out of ||theta||, for each of two groups.
    # angle 0.8, radii 1.5 and 0.6: refused weights leave several percent of ||theta||.
    case = CASES["two points, acute"]
    without = kkt_residuals(
        case.net, case.data, case.multipliers, np.round(case.clarke - 0.2), bias=False
    )
    assert without.stationarity > 1e-2
    assert certificate(case, kink_tol=0).stationarity <= 1e-10


def perturbed(net, size, seed=0):
    rng = np.random.default_rng(seed)
    return rf.TwoLayerNet(net.W + size * rng.standard_normal(net.W.shape), net.b, net.v)


def test_a_tolerance_for_kinks_is_needed_near_a_kkt_point():
    # 1e-5 away from an exact point the kinks are off zero: without a tolerance the residual is of
    # the order of the missing kink forces, with it of the order of the distance.
    case = CASES["equicorrelated, positive"]
    net = perturbed(case.net, 1e-5)
    strict, tolerant = certificate(case, net, kink_tol=0), certificate(case, net)
    assert strict.stationarity > 1e-2
    assert strict.clarke_violation == 0
    assert tolerant.status == "approximate"
    assert tolerant.stationarity < 1e-4
    assert 0 < tolerant.clarke_violation < 1e-4
    np.testing.assert_allclose(tolerant.multipliers, case.multipliers, rtol=1e-3)


def flowed(log_inverse_loss=100.0, **settings):
    clusters = rf.ClusterModel.orthogonal(4, 200, 0.5)
    problem = rf.draw(clusters, 40, 20, init_scale=0.1, seed=0, bias=settings.get("bias", True))
    flow = rf.gradient_flow(
        problem.net, problem.data, log_inverse_loss=log_inverse_loss, num_threads=1, **settings
    )
    assert flow.status == "converged"
    return flow, problem.data


def test_flow_in_closed_form_is_a_kkt_point_throughout():
    # docs/theory.md, section 5, case 7: only the size of the network changes along this flow, and
    # case 1 with one block a label says lam_i = 1/(R^2 rho), rho = sqrt(p)/R.
    p, R = 3, 2.0
    y = np.repeat([1.0, -1.0], p)
    data = rf.Dataset(R * np.eye(2 * p), y)
    own = np.stack([y > 0, y < 0]) / np.sqrt(p)
    start = rf.TwoLayerNet(0.1 * own, [0, 0], [0.1, -0.1])
    flow = rf.gradient_flow(start, data, bias=False, log_inverse_loss=100.0, num_threads=1)
    found = certify_kkt(flow.net, data, bias=False)
    assert found.residuals.worst <= 1e-10
    np.testing.assert_allclose(found.multipliers, 1 / (R * np.sqrt(p)), rtol=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_certificate_improves_along_a_flow(bias):
    # The direction approaches its limit like 1/log(1/L) (docs/theory.md, section 2.5).
    early, data = flowed(3.0, bias=bias)
    late, _ = flowed(300.0, bias=bias)
    first, last = (certify_kkt(flow.net, data, bias=bias) for flow in (early, late))
    assert last.stationarity < first.stationarity / 4
    assert last.stationarity < 0.03
    assert last.complementarity < 0.05
    assert last.feasibility <= 1e-12
    assert last.multipliers.min() >= 0


def test_multipliers_are_optimal():
    """No admissible change of multipliers or shared kink forces lowers the residual.

    Checked against an independent solver: SciPy's bounded least squares on the full-width
    equations, with s_ij as they were found.
    """
    from scipy.optimize import nnls

    flow, data = flowed(30.0)
    found = certify_kkt(flow.net, data, kink_tol=0)
    net, s = found.net, found.clarke
    active = np.maximum(data.X @ net.W.T + net.b, 0)
    columns = [
        np.concatenate(
            [
                (data.y[i] * (net.v * s[i])[:, None] * data.X[i]).ravel(),
                data.y[i] * net.v * s[i],
                data.y[i] * active[i],
            ]
        )
        for i in range(data.n)
    ]
    theta = np.concatenate([net.W.ravel(), net.b, net.v])
    lam, residual = nnls(np.array(columns).T, theta)
    np.testing.assert_allclose(found.multipliers, lam, rtol=1e-7, atol=1e-9 * lam.max())
    assert found.stationarity == pytest.approx(residual / np.linalg.norm(theta), rel=1e-9)


def test_fixed_output_flow():
    flow, data = flowed(200.0, train_output=False)
    found = certify_kkt(flow.net, data, train_output=False)
    assert found.stationarity < 0.03
    np.testing.assert_array_equal(found.net.v, flow.net.v)
    assert found.net.margins(data).min() == pytest.approx(1)


def test_more_examples_than_dimensions():
    # The Gram matrix is singular; the program is still convex.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3))
    data = rf.Dataset(X, np.where(X[:, 0] + 0.5 * np.abs(X[:, 1]) > 0, 1, -1))
    net = rf.TwoLayerNet.init(40, 3, 0.3, seed=1)
    flow = rf.gradient_flow(net, data, log_inverse_loss=10.0, num_threads=1, max_seconds=20)
    assert flow.margins.min() > 0
    found = certify_kkt(flow.net, data)
    assert found.stationarity < 0.5
    assert found.multipliers.min() >= 0


def test_unclassified_examples_are_refused():
    case = orthogonal_blocks()
    flipped = rf.TwoLayerNet(case.net.W, case.net.b, -case.net.v)
    with pytest.raises(ValueError, match=r"9 of 9 margins are not above 0.*example \d; train"):
        certificate(case, flipped)


def test_bad_input():
    case = CASES["XOR"]
    other = rf.Dataset(np.eye(3), [1, -1, 1])
    with pytest.raises(ValueError, match=r"data\.X has 3 columns; the network takes 2"):
        certify_kkt(case.net, other)
    with pytest.raises(ValueError, match="bias=False needs a network with zero biases"):
        certify_kkt(rf.TwoLayerNet(case.net.W, np.ones(4), case.net.v), case.data, bias=False)
    with pytest.raises(ValueError, match="kink_tol"):
        certificate(case, kink_tol=-1)
    with pytest.raises(ValueError, match=r"shapes \(4,\) and \(4, 4\)"):
        kkt_residuals(case.net, case.data, np.ones(3), np.eye(4))


def test_certificate_prints_and_converts():
    found = certificate(CASES["two points, acute"])
    text = str(found)
    assert text.startswith("Converged")
    assert "stationarity" in text
    fields = found.to_dict()
    assert json.loads(json.dumps(fields))["kinks"]["value"] == pytest.approx([np.cos(0.8)] * 2)
    assert "net" not in fields
    assert str(certificate(CASES["XOR"], perturbed(CASES["XOR"].net, 1e-2))).startswith("Approx")
    assert dataclasses.is_dataclass(found)
