"""The experiments on adversarial training, and the frontier of error and radius."""

from __future__ import annotations

import numpy as np
import pytest

import reluflow as rf
from reluflow.experiments import SpecError, read_study
from reluflow.experiments.adversarial import (
    ADVERSARIAL,
    clusters_a_neuron,
    neurons_a_label,
    theory_price,
)
from reluflow.experiments.frontier import FRONTIER


def settings(**given):
    given = {"n_clusters": 4, "dim": 100, "noise": 0.0, "t": 0.75, "width": 16, **given}
    return ADVERSARIAL.complete({"per_cluster": 2, "test_points": 6, "rtol": 0.05, **given})


def test_what_is_measured_of_adversarial_training():
    found = ADVERSARIAL.run(settings(), ADVERSARIAL.outputs).scalars
    assert found["flow_status"] == "converged"
    assert found["robust_train_accuracy"] == 1
    assert found["price_over_theory"] == pytest.approx(1, abs=0.1)
    # At noise-free means a robust training accuracy of 1 bounds all radii from below.
    assert found["trained_for_over_root_d"] == pytest.approx(0.375)
    assert 0.375 < found["radius_over_root_d"] < found["largest_radius_over_root_d"]
    assert found["search_worse_than_descent"] == 0
    assert found["exact_accuracy"] == 0
    assert 0 <= found["descent_overstates"] <= 1
    again = ADVERSARIAL.run(settings(), ADVERSARIAL.outputs[:1]).scalars
    assert all(found[name] == value for name, value in again.items())


def test_participation_counts_clusters_of_a_neuron_and_neurons_of_a_label():
    # Four clusters of length 2 on the axes, labels +, -, +, -. Of the neurons of label + one serves
    # both clusters alike, another is parallel to it; the one of - serves one cluster.
    clusters = rf.ClusterModel(2 * np.eye(4), [1, -1, 1, -1], 1.0)
    both, second = np.array([1.0, 0, 1, 0]), np.eye(4)[1]
    averaging = rf.TwoLayerNet([both, 3 * both, second], np.zeros(3), [1, 2, -5])
    # Masses sqrt 2, 6 sqrt 2 and 5; two clusters, two, and one.
    mass = 7 * np.sqrt(2)
    expected = (2 * mass + 5) / (mass + 5)
    assert clusters_a_neuron(averaging, clusters) == pytest.approx(expected)
    # Parallel neurons are one, whatever their masses.
    assert neurons_a_label(averaging) == pytest.approx(1)
    decoupled = rf.TwoLayerNet(np.eye(4), np.zeros(4), clusters.labels)
    assert clusters_a_neuron(decoupled, clusters) == pytest.approx(1)
    assert neurons_a_label(decoupled) == pytest.approx(2)
    # Activity on clusters of the other label, and neurons that serve no cluster, do not count.
    idle = rf.TwoLayerNet([both + 9 * second, -both, second], np.zeros(3), [1, 1, -1])
    length = np.sqrt(83)
    assert clusters_a_neuron(idle, clusters) == pytest.approx((2 * length + 1) / (length + 1))


def test_neurons_leave_clusters_beyond_the_threshold():
    # One neuron serves both clusters of its label below t* = .54, each has its own beyond.
    given = {"width": 30, "per_cluster": 1, "bias": False, "init_scale": 1e-8}
    below, beyond = (ADVERSARIAL.run(settings(**given, t=t), ("flow",)).scalars for t in (0.3, 1.0))
    assert below["clusters_a_neuron"] == pytest.approx(2, abs=0.02)
    assert below["neurons_a_label"] == pytest.approx(1, abs=0.02)
    assert beyond["clusters_a_neuron"] < 1.3
    assert beyond["neurons_a_label"] == pytest.approx(2, abs=0.15)


def test_training_on_examples_of_descent_costs_more():
    given = {"t": 0.4, "width": 40, "per_cluster": 1, "bias": False}
    searched, descent = (
        ADVERSARIAL.run(settings(**given, inner=inner), ADVERSARIAL.outputs).scalars
        for inner in ("search", "pgd")
    )
    assert descent["network"] == "k = 4, noise 0, trained by PGD-10"
    assert searched["network"] == "k = 4, noise 0"
    assert descent["flow_status"] == searched["flow_status"] == "converged"
    assert descent["price"] > 1.05 * searched["price"]
    assert descent["search_worse_than_descent"] == 0


def test_a_network_that_dies_at_its_adversarial_examples_has_no_price():
    # Descent from few neurons near the largest radius: all margins in the balls end at 0.
    given = {"t": 1.25, "inner": "pgd", "per_cluster": 1, "bias": False}
    found = ADVERSARIAL.run(settings(**given), ADVERSARIAL.outputs).scalars
    assert found["flow_status"] == "not_robustly_separable"
    assert found["robust_train_accuracy"] == 0
    for name in ("price", "clusters_a_neuron", "neurons_a_label"):
        assert found[name] is None
    assert found["search_worse_than_descent"] == 0


def test_prices_of_theory_go_to_sixteen_clusters():
    fixed = ADVERSARIAL.complete({"n_clusters": 16, "dim": 100, "noise": 0.0, "t": 0.42})
    expected = rf.theory.averaging_price(16, 0.42)
    assert theory_price(fixed) == pytest.approx(expected, rel=1e-3)
    assert theory_price(fixed | {"n_clusters": 18}) is None
    assert theory_price(fixed | {"n_clusters": 18, "t": 0.4}) is not None
    assert theory_price(fixed | {"t": 3.0}) is None


def test_without_adversary_it_is_the_clean_flow():
    found = ADVERSARIAL.run(settings(t=0.0), ("flow", "radii")).scalars
    assert found["price_over_theory"] == pytest.approx(1, abs=0.05)
    assert found["radius_over_root_d"] == pytest.approx(0.5, abs=0.03)


def test_a_frontier_has_all_networks():
    clusters = rf.ClusterModel.orthogonal(4, 100, 0.5, seed=0)
    found = rf.frontier(clusters, 16, 12, radii=[3.0, 5.0], test_points=6, seed=1, num_threads=1)
    names = [point.network for point in found.points]
    assert names == ["KKT", *2 * ["adversarial"], "early", "explicit, paper", "explicit, best"]
    by_name = {(p.network, p.adversarial_radius): p for p in found.points}
    assert len(by_name) == 6
    best = by_name["explicit, best", 0.0]
    # At small noise there is no trade-off: the explicit network errs least and is most robust.
    assert found.dominating == (best,)
    assert best.log10_error < by_name["KKT", 0.0].log10_error
    assert by_name["adversarial", 5.0].radius > by_name["KKT", 0.0].radius
    assert "explicit, best" in str(found)
    assert len(found.table) == 6
    assert found.plot().get_xlabel() == "log10 of the test error"


def test_a_run_of_the_frontier_is_one_network():
    given = {"n_clusters": 4, "dim": 100, "noise": 1.0, "kind": "explicit, best"}
    found = FRONTIER.run(FRONTIER.complete(given), ()).scalars
    assert found["network"] == "explicit, best"
    assert found["error_exponent"] == -found["log10_error"] > 0
    assert found["largest_radius_over_root_d"] == pytest.approx(np.sqrt(0.5))


def test_bad_frontiers_are_refused():
    clusters = rf.ClusterModel.orthogonal(4, 20, 1.0, seed=0)
    with pytest.raises(TypeError, match="clusters must be a ClusterModel; got Dataset"):
        rf.frontier(clusters.sample(4, 0), 8, 4)
    with pytest.raises(ValueError, match="radii must be above 0; got 0"):
        rf.frontier(clusters, 8, 4, radii=[0.0])


@pytest.mark.parametrize(
    ("experiment", "given", "message"),
    [
        ("adversarial", {"t": 1.0, "n_clusters": 500}, "orthogonal means need dim >= 500"),
        ("adversarial", {"t": -1.0}, "t must be at least 0"),
        ("adversarial", {"t": 1.0, "inner": "fgsm"}, "inner='fgsm' is unknown"),
        ("frontier", {"kind": "KKT", "share": 0.3}, "share is for kind = 'adversarial'"),
        ("frontier", {"kind": "adversarial"}, "share is for kind = 'adversarial', above 0"),
        ("frontier", {"kind": "KKT", "n_clusters": 500}, "orthogonal means need dim >= 500"),
    ],
)
def test_impossible_combinations_are_refused(experiment, given, message):
    fixed = {"n_clusters": 4, "dim": 400, "noise": 1.0, **given}
    with pytest.raises(SpecError, match=message):
        read_study({"experiment": experiment, "fixed": fixed})


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["adversarial-training", "frontier"])
def test_studies_are_possible_and_priced(name, quick):
    study = read_study(name, quick=quick)
    experiment = FRONTIER if name == "frontier" else ADVERSARIAL
    costs = [experiment.cost(run.settings, study.outputs) for run in study.runs()]
    assert all(0 < cost.seconds < 300 and cost.bytes > 0 for cost in costs)
