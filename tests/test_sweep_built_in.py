"""The experiments that come with the package: what they measure, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reluflow as rf
from reluflow.experiments import SpecError, read_study
from reluflow.experiments.built_in import DOUBLE_EDGE, ON_DIGITS
from reluflow.experiments.trained import TrainedOnClusters, TrainedOnDigits, cluster_labels


def settings(**given):
    return DOUBLE_EDGE.complete(
        {"n_clusters": 4, "dim": 900, "noise": 0.0, "per_cluster": 2, "width": 20, **given}
    )


def run(outputs, **given):
    return DOUBLE_EDGE.run(settings(**given), outputs)


def test_with_hardly_any_noise_and_no_bias_everything_is_known():
    # docs/theory.md, section 6: with exactly orthogonal means and no noise the shift flips all
    # at sqrt(d/k) = 15, the two-neuron limit has that radius at every mean, the robust network
    # sqrt(d)/2 = 15. Noise moves each by some standard deviations, here 0.03.
    found = run(
        ("limit", "universal", "radii", "robust", "error"),
        noise=0.03,
        per_cluster=10,
        bias=False,
        network="limit",
        seed=3,
    ).scalars
    assert found["limit_status"] in ("converged", "degenerate")
    for share in (50, 95, 100):
        assert found[f"universal_norm_{share}"] == pytest.approx(15, abs=0.15)
        assert found[f"universal_ratio_{share}"] == pytest.approx(1, abs=0.01)
    assert found["radius_median"] == pytest.approx(15, abs=0.15)
    assert found["robust_radius_median"] == pytest.approx(15, abs=0.15)
    assert found["double_edge_ratio"] == pytest.approx(1, abs=0.01)
    assert found["radius_proved"] == found["robust_radius_proved"] == 1
    assert found["error"] == 0
    assert found["theory_radius"] == found["theory_universal"] == 15
    assert found["theory_robust_radius"] == 15
    assert found["theory_ratio"] == 1
    assert found["theory_error"] == pytest.approx(0, abs=1e-300)


def test_outputs_do_not_depend_on_what_else_is_asked_for():
    outputs = DOUBLE_EDGE.outputs
    together = run(outputs, noise=0.5, seed=2)
    for name in outputs:
        alone = run((name,), noise=0.5, seed=2)
        for key, value in alone.scalars.items():
            assert value == together.scalars[key], key
        for key, array in alone.arrays.items():
            np.testing.assert_array_equal(array, together.arrays[key])


def test_parts_of_a_run_have_random_streams_of_their_own():
    few, many = (TrainedOnClusters(settings(noise=1.0, test_points=points)) for points in (10, 20))
    np.testing.assert_array_equal(few.data.X, many.data.X)
    np.testing.assert_array_equal(few.initial.W, many.initial.W)
    assert not np.isin(few.fresh.X[:, 0], few.data.X[:, 0]).any()
    other = TrainedOnClusters(settings(noise=1.0, seed=1))
    assert not np.array_equal(few.data.X, other.data.X)


@pytest.mark.parametrize(
    ("k", "balance", "negatives"), [(8, 0.5, 4), (7, 0.5, 4), (16, 1 / 16, 1), (3, 0.01, 1)]
)
def test_labels_have_the_asked_for_balance(k, balance, negatives):
    labels = cluster_labels(k, balance)
    expected = min(negatives, k // 2)
    assert (labels < 0).sum() == expected
    assert set(labels) == {-1.0, 1.0}


def test_digits_are_split_into_training_and_test():
    trained = TrainedOnDigits(ON_DIGITS.complete({"n": 150, "seed": 4}))
    assert trained.data.n == 150
    assert trained.population.n == 1797 - 150
    rows = {row.tobytes() for row in trained.data.X}
    assert sum(row.tobytes() in rows for row in trained.population.X) <= 2  # equal images exist
    found = ON_DIGITS.run(ON_DIGITS.complete({"n": 150, "width": 20}), ("error",)).scalars
    assert 0 < found["error"] < 0.3
    assert found["error_samples_used"] == 1797 - 150


def test_an_unknown_limit_is_an_error_and_not_a_number():
    with pytest.raises(ValueError, match=r"the limit is not known\. Stopped at max_evaluations"):
        run(("error",), noise=1.0, network="limit", max_evaluations=5)


def test_a_network_that_does_not_classify_has_no_certificate():
    found = run(("certificate",), noise=1.0, max_evaluations=1).scalars
    assert found["kkt_status"] == "not_classified"
    assert found["stationarity"] is None


def test_last_iterates_of_other_losses_are_measured():
    # Squared loss and cross-entropy end at equal margins where the network can have them.
    for loss in ("squared", "cross_entropy"):
        found = run(
            ("flow", "certificate"), noise=1.0, loss=loss, log_inverse_loss=10.0, per_cluster=5
        ).scalars
        expected = "converged" if loss == "squared" else "stationary"
        assert found["flow_status"] == expected
        assert found["margin_spread"] == pytest.approx(1, abs=0.05)
        assert found["kkt_normalized_margin"] == pytest.approx(found["normalized_margin"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 10}, "one of n and per_cluster has to be given; both is"),
        ({"n_clusters": 1000}, "n_clusters=1000 orthogonal means need dim >= 1000; dim=900"),
        ({"correlation": 0.1}, "correlation is for equicorrelated means; means=orthogonal"),
        (
            {"means": "equicorrelated", "correlation": -0.5},
            r"correlation must lie in \(-0.333333, 1\) for n_clusters=4; got -0.5",
        ),
        ({"balance": 0.6}, "balance must be at most 0.5; got 0.6"),
        ({"width": 900}, r"need dim >= n_clusters \+ n \+ width = 912; dim=900; use coordinates"),
        ({"log_inverse_loss": 1e101}, "log_inverse_loss must be at most"),
        ({"loss": "hinge"}, "loss=hinge has no limit direction; leave out the output 'limit'"),
        (
            {"loss": "squared", "network": "limit"},
            "loss=squared has no limit direction; use network = 'flow'",
        ),
        (
            {"loss": "cross_entropy", "label_smoothing": 1.0},
            r"label_smoothing must lie in \(0, 1\); got 1",
        ),
    ],
)
def test_impossible_combinations_are_refused(given, message):
    fixed = {"n_clusters": 4, "dim": 900, "noise": 1.0, "per_cluster": 2, "width": 20, **given}
    with pytest.raises(SpecError, match=message):
        read_study({"fixed": fixed})


def test_too_many_digits_are_refused():
    with pytest.raises(SpecError, match="n=1790 of 1797 digits leave 7 to test on"):
        read_study({"experiment": "digits", "fixed": {"n": 1790}})


def test_larger_runs_are_expected_to_take_longer():
    sizes = [settings(width=width, noise=1.0) for width in (10, 40, 160)]
    for outputs in (("flow",), DOUBLE_EDGE.outputs):
        costs = [DOUBLE_EDGE.cost(one, outputs) for one in sizes]
        seconds = [cost.seconds for cost in costs]
        assert seconds == sorted(seconds)
        assert all(0 < cost.seconds < 60 and cost.bytes > 0 for cost in costs)
    assert math.isfinite(ON_DIGITS.cost(ON_DIGITS.complete({}), ON_DIGITS.outputs).seconds)


@pytest.mark.parametrize("quick", [True, False])
def test_the_theorem_study_is_where_the_assumption_just_holds(quick):
    study = read_study("theorem", quick=quick)
    combinations = list(study.combinations())
    seen = {(given["noise"], given["n_clusters"]) for given in combinations}
    if not quick:
        assert seen == {(noise, k) for noise in (0.1, 1.0) for k in (2, 4, 8, 10, 16, 32)}
    for given in combinations:
        k, d, noise, n = (given[name] for name in ("n_clusters", "dim", "noise", "n"))
        report = rf.ClusterModel.orthogonal(k, d, noise).assumption(n)
        assert report.holds
        assert report.smallest_dim == d
        assert report.smallest_n == n


def test_the_theorem_study_postpones_one_run():
    """What is predicted to take longer than 15 minutes of one core: k = 32 at noise 1."""
    study = read_study("theorem")
    costs = {
        (run.settings["noise"], run.settings["n_clusters"]): study.experiment.cost(
            run.settings, study.outputs
        ).seconds
        for run in study.runs()
    }
    assert study.max_run_seconds == 900
    assert [size for size, seconds in costs.items() if seconds > 900] == [(1.0, 32)]


def test_ratios_to_theory():
    found = run(("flow", "limit", "radii", "robust"), noise=0.5).scalars
    # Lengths in units of sqrt(d/k) = 15 and of sqrt(d)/2 = 15.
    assert found["radius_ratio"] == pytest.approx(found["radius_median"] / 15)
    assert found["robust_radius_ratio"] == pytest.approx(found["robust_radius_median"] / 15)
    theory = found["theory_normalized_margin"]
    assert found["margin_ratio"] == pytest.approx(found["normalized_margin"] / theory)
    assert found["limit_margin_ratio"] == pytest.approx(found["limit_normalized_margin"] / theory)
    assert "radius_ratio" not in run(("flow",)).scalars
    # d^(-ln(d)/2) at d = 900.
    expected = -(math.log(900) ** 2) / 2 / math.log(10)
    assert found["theory_log10_error_bound"] == pytest.approx(expected)
