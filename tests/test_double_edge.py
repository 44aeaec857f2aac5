"""The whole experiment: what it measures, what it puts beside it, and what it says of both."""

from __future__ import annotations

import importlib
import json
import math

import numpy as np
import pytest

import reluflow as rf
from reluflow import theory
from reluflow.report import wording

# The function of the same name hides it.
module = importlib.import_module("reluflow.experiments.double_edge")

QUICK = {"log_inverse_loss": 20, "test_points": 12, "max_samples": 2048, "num_threads": 1}


@pytest.fixture(scope="module")
def clusters():
    return rf.ClusterModel.orthogonal(4, 400, 0.2)


@pytest.fixture(scope="module")
def result(clusters):
    return rf.double_edge(clusters, n=40, width=10, seed=1, **QUICK)


def rows(result):
    return {row.quantity: row for row in result.comparison}


def test_every_prediction_stands_beside_a_measurement(clusters, result):
    found = rows(result)
    for prediction in theory.predictions(clusters, 40):
        row = found[prediction.quantity]
        np.testing.assert_equal(row.theory, prediction.value)
        assert (row.kind, row.source) == (prediction.kind, prediction.source)
        assert row.measured is not None or prediction.quantity.startswith("log10 test error")
        assert row.quantity in str(result)


def test_lengths_agree_with_theory(result):
    """Noise 0.2 against means of length 20, and half of what the means are apart is 14."""
    for name in (
        "universal perturbation, norm that flips 95 %",
        "median smallest perturbation, trained network",
        "median smallest perturbation, robust network",
        "smallest perturbation, one neuron a cluster",
    ):
        assert rows(result)[name].ratio == pytest.approx(1, abs=0.06), name


def test_the_limit_is_measured_beside_the_flow(result):
    found = rows(result)
    assert result.limit.status == "converged"
    margin = found["normalised margin, limit of the flow"]
    assert margin.measured == result.limit.normalized_margin > result.flow.normalized_margin
    assert margin.theory == found["normalised margin"].theory
    assert result.summary["limit_stationarity"] < 1e-12
    # The margin that d -> infinity has, section 6 of docs/theory.md.
    assert margin.ratio == pytest.approx(1, abs=0.03)
    shift = found["universal perturbation, norm that flips 95 %, limit of the flow"].measured
    net, points = result.limit.net, result.test_data
    moved = points.X - points.y[:, None] * 1.0001 * shift * result.universal.direction
    assert np.mean(points.y * net(moved) <= 0) >= 0.95


def test_what_stands_beside_the_assumption(clusters, result):
    report, found = clusters.assumption(40), rows(result)
    assert found["assumption: dimension, at least"].measured == 400
    assert found["assumption: dimension, at least"].theory == report.smallest_dim
    assert found["assumption: training examples, at least"].measured == 40
    assert found["assumption: clusters, at most"].measured == 4
    assert found["assumption: noise, at most"].measured == 0.2
    assert found["assumption: separation of clusters, at most"].measured == report.separation.left


def test_caveats_say_whether_the_limit_is_global(result):
    said = f"Whether it is global: {result.limit.probe.sentence}."
    assert said in " ".join(wording.caveats(result))


def test_the_limit_can_be_left_out(clusters):
    result = rf.double_edge(clusters, n=40, width=10, limit=False, **QUICK)
    assert result.limit is None
    assert not any("limit" in row.quantity for row in result.comparison)
    assert not any("limit_" in name for name in result.summary)


def test_a_limit_that_is_not_known_says_so(clusters, monkeypatch):
    real = module.flow_limit

    def unsettled(*arguments, **settings):
        return real(*arguments, max_log_inverse_loss=0.1, **settings)

    monkeypatch.setattr(module, "flow_limit", unsettled)
    result = rf.double_edge(clusters, n=40, width=10, **QUICK)
    assert result.limit.status == "not_settled"
    assert not any("limit" in row.quantity for row in result.comparison)
    assert result.summary["limit_radius_median"] is None
    assert "The limit of the flow is not known: Not settled" in " ".join(wording.caveats(result))
    assert "limit of the flow: Not settled" in str(result)


def test_many_examples_have_a_nearer_target_and_no_certificate(clusters, monkeypatch):
    monkeypatch.setattr(module, "_MANY", 30)
    settings = {**QUICK, "log_inverse_loss": None}
    result = rf.double_edge(clusters, n=40, width=10, **settings)
    assert result.settings["log_inverse_loss"] == 100
    assert result.certificate is None
    assert result.summary["kkt_stationarity"] is None
    assert "angle to the limit" in {figure.name for figure in wording.key_figures(result)}
    assert "Not every training example is classified" not in " ".join(wording.caveats(result))
    few = rf.double_edge(clusters, n=20, width=10, **settings)
    assert few.settings["log_inverse_loss"] == 1e4
    assert few.certificate is not None


def test_the_limit_is_computed_where_it_is_affordable(clusters, monkeypatch):
    """300 gradients of 2 n^2 m operations each, n = 40 and m = 10."""
    problem = rf.draw(clusters, 40, 10)
    assert module._affordable(problem, 1e-3)
    assert not module._affordable(problem, 1.0)
    monkeypatch.setattr(module, "_MOST_OPERATIONS", 300 * 2 * 40**2 * 10 - 1)
    assert not module._affordable(problem, 1e-3)


def test_the_definition_reaches_theory(clusters):
    result = rf.double_edge(clusters, n=40, width=10, definition="strict", **QUICK)
    robust = rows(result)["median smallest perturbation, robust network"]
    assert robust.theory == pytest.approx(math.sqrt(200))
    assert robust.ratio == pytest.approx(1, abs=0.05)


def test_clusters_without_examples_are_reported():
    clusters = rf.ClusterModel.orthogonal(12, 3000, 0.1)
    result = rf.double_edge(clusters, n=8, width=6, seed=0, **QUICK)
    missing = sorted(set(range(12)) - set(result.data.cluster.tolist()))
    assert result.missing_clusters.tolist() == missing
    assert f"no training example of cluster {missing[0]}, " in str(result)
    caveat = f"No training example fell on {len(missing)} of the clusters: {missing[0]}, "
    assert caveat in " ".join(wording.caveats(result))


@pytest.mark.parametrize(
    ("noise", "dim"),
    [
        (rf.LowRankNoise(0.2, [[1.0], [1.0], [0.0], [0.0], [2.0]]), 5 + 40 + 10),
        (np.full((4, 400), 0.04), 400),
    ],
)
def test_noise_decides_the_coordinates(noise, dim):
    """Of low rank: reduced, with one more direction than means. Variances: all dimensions."""
    clusters = rf.ClusterModel.orthogonal(4, 400, noise)
    result = rf.double_edge(clusters, n=40, width=10, **QUICK)
    assert result.data.dim == dim
    assert result.clusters.ambient_dim == 400
    json.dumps(result.to_dict(), allow_nan=False)
    assert rows(result)["median smallest perturbation, trained network"].ratio < 1.1
    assert wording.noise(result)


def test_data_sets_have_no_assumption_and_no_limit_unless_asked(clusters):
    data = clusters.sample(60, seed=0)
    result = rf.double_edge(data, width=10, limit=True, **QUICK)
    assert result.assumption is None
    assert not any("assumption" in row.quantity for row in result.comparison)
    # 400 dimensions are many for 48 examples and 10 neurons: found in their span, and lifted.
    assert result.limit.net.dim == 400
    assert rf.double_edge(data, width=10, **QUICK).limit is None


@pytest.mark.parametrize("dim", [10**12, 10**15])
def test_any_dimension(dim):
    clusters = rf.ClusterModel.orthogonal(4, dim, 1.0)
    result = rf.double_edge(clusters, n=40, width=10, **QUICK)
    assert result.limit.status == "converged"
    for row in result.comparison:
        if "perturbation" in row.quantity and "order" not in row.quantity:
            assert row.ratio == pytest.approx(1, abs=0.05), row
    json.dumps(result.to_dict(), allow_nan=False)


def test_bad_input_is_one_line(clusters):
    with pytest.raises(ValueError, match="n must be given for a ClusterModel"):
        rf.double_edge(clusters)
    with pytest.raises(TypeError, match="must be a ClusterModel or a Dataset; got list"):
        rf.double_edge([1, 2], 3)
