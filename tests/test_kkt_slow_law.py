"""The slow law: measured decay of dying groups beside the predicted exponents."""

from __future__ import annotations

import json

import numpy as np
import pytest

import reluflow as rf
from flow_problems import cluster_problem


def nested_patterns(p, sizes):
    """Orthonormal examples, p a label; one neuron on each label's p, and one on the first s.

    Where the neuron on all p lives, lam_i = 1/sqrt(p) (docs/theory.md, section 5, case 1), and a
    neuron on s of them has a = lam (x_1 + ... + x_s): rho = sqrt(s/p). Its pre-activations on the
    others are negative and never move, because the examples are orthogonal.
    """
    data = rf.Dataset(np.eye(2 * p), np.repeat([1.0, -1.0], p))
    rows = [np.repeat([1.0, 0.0], p), np.repeat([0.0, 1.0], p)]
    output = [np.sqrt(p), -np.sqrt(p)]
    for size in sizes:
        row = np.where(np.arange(2 * p) < size, 1.0, -1.0)
        row[p:] = 0
        rows.append(0.05 * row)
        output.append(0.05 * np.sqrt(size))
    return data, rf.TwoLayerNet(0.1 * np.array(rows), np.zeros(len(rows)), 0.1 * np.array(output))


def test_nested_groups_die_with_the_exponent_of_theory():
    p, sizes = 9, (1, 4)
    data, net = nested_patterns(p, sizes)
    limit = rf.flow_limit(net, data, bias=False)
    law = rf.slow_law(limit, data, bias=False, rtol=1e-4, from_log_inverse_loss=1e3)
    assert law.status == "converged"
    assert law.log_inverse_loss[-1] >= 100 * law.log_inverse_loss[0] * 0.99
    dying = {len(g.neurons) and int(g.neurons[0]): g for g in law.groups if g.rho < 1}
    assert sorted(dying) == [2, 3]
    for neuron, size in zip((2, 3), sizes, strict=True):
        group = dying[neuron]
        assert group.rho == pytest.approx(np.sqrt(size / p), abs=1e-9)
        assert group.predicted == pytest.approx(1 - np.sqrt(size / p), abs=1e-9)
        # Neurons on fewer examples start unbalanced, and forget that like their share.
        assert group.measured == pytest.approx(group.predicted, abs=0.02)
        assert group.kept_pattern
    for group in law.groups:
        if group.rho == 1:
            assert abs(group.measured) < 0.01
    assert "predicted" in str(law)
    json.dumps(law.to_dict(), allow_nan=False)


def test_dying_neurons_of_clusters_follow_the_law():
    problem = cluster_problem(seed=0, n=60, d=500, k=6, width=30, noise=0.3)
    limit = rf.flow_limit(problem.net, problem.data)
    law = rf.slow_law(limit, problem.data)
    dying = [group for group in law.groups if group.rho < 1 and group.kept_pattern]
    assert dying
    for group in dying:
        assert group.measured == pytest.approx(group.predicted, abs=0.01)
    total = sum(group.share for group in law.groups)
    assert (total <= 1 + 1e-12).all()


def test_budget_ends_the_measurement_with_what_there_is():
    problem = cluster_problem(seed=0, n=20, d=60, width=10)
    limit = rf.flow_limit(problem.net, problem.data)
    law = rf.slow_law(limit, problem.data, max_seconds=0)
    assert law.status == "max_seconds"
    assert len(law.log_inverse_loss) == 0
    assert "never" in str(law)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_output": False}, "groups of fixed output never die"),
        ({"from_log_inverse_loss": 0.01}, "from_log_inverse_loss must be at least"),
        ({"from_log_inverse_loss": 1e3, "to_log_inverse_loss": 1e3}, "to_log_inverse_loss must"),
        ({"moments_per_decade": 0}, "moments_per_decade must be at least 1"),
        ({"max_seconds": -1}, "max_seconds must be at least 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    problem = cluster_problem(seed=0, n=20, d=60, width=10)
    limit = rf.flow_limit(problem.net, problem.data)
    with pytest.raises(ValueError, match=message):
        rf.slow_law(limit, problem.data, **options)


def test_only_limits_are_taken():
    problem = cluster_problem(seed=0, n=20, d=60, width=10)
    with pytest.raises(TypeError, match="takes a FlowLimit; got TwoLayerNet"):
        rf.slow_law(problem.net, problem.data)
