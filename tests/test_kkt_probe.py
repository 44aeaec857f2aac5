"""The probe for larger margins, on points whose maximal f(u) is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

import reluflow as rf
from exact_cases import CASES


def probed(name, **settings):
    case = CASES[name]
    point = rf.kkt_point(case.net, case.data, bias=case.bias)
    return case, rf.global_probe(point, case.data, bias=case.bias, **settings)


def value(case, probe):
    """f(u), by its definition."""
    z = case.data.X @ probe.direction + probe.direction_bias
    return abs((case.multipliers * case.data.y) @ np.maximum(z, 0))


@pytest.mark.parametrize("name", ["orthogonal, blocks", "orthogonal, blocks, bias"])
def test_blocks_are_not_the_maximum_margin(name):
    # Two blocks a label have orthogonal unit directions a_1, a_2, and u = (a_1 + a_2)/sqrt 2 is
    # active on both: f(u) = u . (a_1 + a_2) = sqrt 2.
    case, probe = probed(name)
    assert probe.value == pytest.approx(np.sqrt(2), rel=1e-9)
    assert probe.unique_multipliers
    assert probe.larger_margin_exists
    assert np.hypot(np.linalg.norm(probe.direction), probe.direction_bias) == pytest.approx(1)
    assert value(case, probe) == pytest.approx(probe.value)


@pytest.mark.parametrize(
    "name",
    ["orthogonal, one block a label", "equicorrelated, positive", "two points, acute", "XOR"],
)
def test_maximum_margins_are_not_denied(name):
    # Orthogonal: f(u) <= ||sum_own lam x|| = 1. Two points and equicorrelated: one direction a
    # label, the shortest of the only pattern. XOR: lam |x_i| = 1, and two examples of one label are
    # opposite, so that u is active on one of them.
    _, probe = probed(name)
    assert probe.value == pytest.approx(1, abs=1e-8)
    assert not probe.larger_margin_exists


def test_without_unique_multipliers_nothing_is_proved():
    # Each block twice: multipliers of copies can be shifted.
    case = CASES["orthogonal, blocks"]
    data = rf.Dataset(np.vstack([case.data.X] * 2), np.tile(case.data.y, 2))
    point = rf.kkt_point(case.net, data, bias=False)
    probe = rf.global_probe(point, data, bias=False)
    assert probe.value == pytest.approx(np.sqrt(2), rel=1e-9)
    assert not probe.unique_multipliers
    assert not probe.larger_margin_exists
    assert "undecided" in str(probe)


def test_points_say_so():
    case = CASES["orthogonal, blocks"]
    limit = rf.flow_limit(case.net, case.data, bias=False, probe_starts=16, num_threads=1)
    assert limit.probe.larger_margin_exists
    assert "not the maximum-margin network: a larger normalised margin exists" in str(limit)
    fields = json.loads(json.dumps(limit.to_dict()))
    assert fields["probe"]["larger_margin_exists"] is True
    # The network with one block a label, on the same data, has the larger margin.
    both = rf.TwoLayerNet(
        [case.data.X[case.data.y == s].sum(axis=0) for s in (1, -1)], [0, 0], [1, -1]
    )
    assert (
        rf.kkt_point(both, case.data, bias=False).normalized_margin > 1.01 * limit.normalized_margin
    )


def test_bad_input():
    case = CASES["orthogonal, blocks"]
    point = rf.kkt_point(case.net, case.data, bias=False)
    with pytest.raises(ValueError, match="starts"):
        rf.global_probe(point, case.data, bias=False, starts=0)
    other = rf.Dataset(case.data.X[3:8], case.data.y[3:8])
    with pytest.raises(ValueError, match="point has 9 multipliers; data 5 examples"):
        rf.global_probe(point, other, bias=False)
    inconsistent = rf.TwoLayerNet(-case.net.W, case.net.b, case.net.v)
    stuck = rf.kkt_point(inconsistent, case.data, bias=False)
    with pytest.raises(ValueError, match="point must be a KKT point; its status is"):
        rf.global_probe(stuck, case.data, bias=False)
