"""Branch and bound of one point: threads that share nodes, budgets, and proofs of whole trees."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import reluflow as rf
from reluflow.certificates.radius_check import BRANCH, check_radii


def crowded(rank=40, opposing=80, share=0.5, supporting=10):
    """A point whose few supporting neurons many opposing ones near their kinks can outweigh."""
    rng = np.random.default_rng(1)
    W = rng.standard_normal((supporting + opposing, rank)) / np.sqrt(rank)
    v = np.append(np.ones(supporting), np.full(opposing, -2 * share * supporting / opposing))
    b = np.append(np.full(supporting, 1.5), 0.5 * rng.standard_normal(opposing) - 0.6)
    return rf.TwoLayerNet(W, b, v), np.zeros((1, rank))


def hard():
    """One that needs far more nodes than any budget here."""
    return crowded(opposing=160, share=2.0)


@pytest.mark.parametrize("max_nodes", [20, 1000])
def test_nodes_are_the_same_for_any_number_of_threads(max_nodes):
    net, x = crowded()
    results = [
        rf.min_perturbation(
            net, x, [1], max_nodes=max_nodes, num_threads=threads, keep_certificates=True
        )
        for threads in (1, 2, 3, 5)
    ]
    first = results[0]
    assert first.nodes[0] > 16
    assert first.proved[0] == (max_nodes == 1000)
    for other in results[1:]:
        for field in ("radius", "lower_bound", "perturbation", "nodes"):
            np.testing.assert_array_equal(getattr(other, field), getattr(first, field))
        for field in ("node", "neuron", "child", "multiplier", "eta"):
            np.testing.assert_array_equal(
                getattr(other.certificates.steps, field), getattr(first.certificates.steps, field)
            )


def test_a_tree_that_threads_shared_is_proved_anew():
    net, x = crowded()
    found = rf.min_perturbation(net, x, [1], max_nodes=1000, num_threads=2, keep_certificates=True)
    assert found.method == ("branching",)
    assert (found.certificates.steps.kind == BRANCH).sum() > 16
    checked = check_radii(found.certificates)
    assert checked.verified
    assert checked.exact.all()


def test_more_nodes_only_raise_the_bound():
    net, x = hard()
    bounds = []
    for nodes in (0, 1, 5, 16, 17, 40):
        found = rf.min_perturbation(net, x, [1], max_nodes=nodes, num_threads=2)
        assert found.nodes[0] == nodes
        assert found.lower_bound[0] <= found.radius[0]
        bounds.append(found.lower_bound[0])
    assert (np.diff(bounds) >= -1e-12).all()
    assert not found.proved[0]


def test_a_bound_that_is_not_tight_is_proved_anew():
    net, x = hard()
    found = rf.min_perturbation(net, x, [1], max_nodes=2, keep_certificates=True)
    checked = check_radii(found.certificates)
    assert checked.verified
    assert not checked.exact.any()
    assert found.certificates.lower_bound[0] > 0.97 * found.radius[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_budget_ends_a_tree(threads):
    net, x = hard()
    start = time.perf_counter()
    found = rf.min_perturbation(
        net, x, [1], max_nodes=10**7, max_seconds=0.5, num_threads=threads, keep_certificates=True
    )
    assert time.perf_counter() - start < 30
    assert found.status == "max_seconds"
    assert 0 < found.lower_bound[0] < found.radius[0]
    assert check_radii(found.certificates).verified


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_ends_a_tree(threads):
    net, x = hard()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    found = rf.min_perturbation(net, x, [1], max_nodes=10**7, num_threads=threads)
    timer.join()
    assert found.status == "interrupted"
    assert 0 < found.lower_bound[0] < found.radius[0]
