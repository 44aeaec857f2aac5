"""The experiment on networks of any depth."""

from __future__ import annotations

import numpy as np
import pytest

from reluflow.experiments import SpecError, read_study
from reluflow.experiments.deep import DEEP, deep_margin


def settings(**given):
    return DEEP.complete(
        {"n_clusters": 4, "dim": 400, "noise": 0.0, "width": 16, "per_cluster": 2, **given}
    )


@pytest.mark.parametrize("depth", [2, 3])
def test_without_noise_everything_is_known(depth):
    # docs/theory.md, sections 6 and 9: the shift flips all at sqrt(d/k) = 10, which is the radius
    # of every mean, too, at any depth. Clusters are unequally large, which moves it a little.
    # Narrow deep networks may also end in two chains for one label, with a smaller margin.
    outputs = DEEP.outputs
    given = settings(depth=depth, width=50, bias="none", per_cluster=20, log_inverse_loss=1e5)
    found = DEEP.run(given, outputs).scalars
    assert found["flow_status"] == "converged"
    assert found["train_error"] == found["test_error"] == 0
    assert found["universal_norm_50"] == pytest.approx(10, abs=0.15)
    assert found["universal_ratio_95"] == pytest.approx(1, abs=0.03)
    assert found["radius_median"] == pytest.approx(10, abs=0.15)
    assert found["radius_over_root_d"] == pytest.approx(0.5, abs=0.01)
    assert found["theory_radius"] == found["theory_universal"] == 10
    assert found["normalized_margin"] == pytest.approx(found["theory_normalized_margin"], rel=0.02)
    assert found["limit_status"] == "converged"
    # Equal examples share multipliers in any way.
    assert found["two_layer_status"] in ("converged", "degenerate")
    assert found["limit_stationarity"] <= 1e-8
    assert found["limit_margin_ratio"] == pytest.approx(1, abs=1e-6)
    assert found["limit_normalized_margin"] == pytest.approx(
        found["theory_normalized_margin"], rel=1e-6
    )


def test_the_margin_of_two_layers_is_its_own():
    assert deep_margin(3.0, 2) == 3.0
    # 4 / (2 L)^(L/2) at L = 4 is 4 / 8^2.
    assert deep_margin(3.0, 4) == pytest.approx(3.0 / 16)


def test_outputs_do_not_depend_on_what_else_is_asked_for():
    given = settings(noise=0.5, depth=3, seed=2, test_points=5)
    together = DEEP.run(given, DEEP.outputs)
    for name in DEEP.outputs:
        alone = DEEP.run(given, (name,))
        for key, value in alone.scalars.items():
            assert value == together.scalars[key], key
        for key, array in alone.arrays.items():
            np.testing.assert_array_equal(array, together.arrays[key])


def test_networks_are_told_apart_by_name():
    outputs = ("flow",)
    names = {
        DEEP.run(settings(**given, max_evaluations=1), outputs).scalars["network"]
        for given in (
            {},
            {"depth": 3},
            {"skip": True},
            {"activation": "leaky_relu"},
            {"activation": "normalized_polynomial_relu"},
            {"targets": "clusters"},
        )
    }
    assert len(names) == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 7}, "depth must be from 2 to 6; got 7"),
        ({"activation": "tanh"}, "activation='tanh' is unknown; use one of relu, leaky_relu"),
        ({"slope": 1.0}, "slope must be below 1; got 1"),
        ({"n_clusters": 500}, "n_clusters=500 orthogonal means need dim >= 500; dim=400"),
        (
            {"targets": "clusters"},
            "KKT points are for one output; leave out the output 'certificate'",
        ),
        ({"skip": True}, "the network is not homogeneous; leave out the output 'certificate'"),
        ({"bias": "all"}, "the network is not homogeneous; leave out the output 'certificate'"),
    ],
    ids=str,
)
def test_impossible_combinations_are_refused(given, message):
    fixed = {"n_clusters": 4, "dim": 400, "noise": 1.0, **given}
    with pytest.raises(SpecError, match=message):
        read_study({"experiment": "deep", "fixed": fixed})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 5}, "limits are of depth 2 to 4; leave out the output 'limit'"),
        ({"activation": "polynomial_relu"}, "limits are of relu and leaky_relu; leave out"),
        ({"skip": True}, "the network is not homogeneous; leave out the output 'limit'"),
    ],
    ids=str,
)
def test_limits_are_of_networks_that_are_polished(given, message):
    fixed = {"n_clusters": 4, "dim": 400, "noise": 1.0, **given}
    with pytest.raises(SpecError, match=message):
        read_study({"experiment": "deep", "outputs": ["limit"], "fixed": fixed})


@pytest.mark.parametrize("name", ["depth", "architectures", "cluster-labels"])
@pytest.mark.parametrize("quick", [True, False])
def test_studies_are_possible_and_priced(name, quick):
    study = read_study(name, quick=quick)
    costs = [DEEP.cost(run.settings, study.outputs) for run in study.runs()]
    assert all(0 < cost.seconds < 300 and cost.bytes > 0 for cost in costs)
