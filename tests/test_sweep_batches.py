"""Short runs are made in batches: their records are those that each has alone."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import reluflow as rf
from reluflow.experiments import engine, trained
from reluflow.experiments.built_in import DOUBLE_EDGE, ON_DIGITS
from reluflow.experiments.engine import Call, batches, execute
from reluflow.experiments.registry import Record

WORKERS = 2
MEGABYTE = 1e6


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def nothing(settings, outputs):
    return Record()


def all_together(many, outputs):
    return [Record for _ in many]


def others_together(many, outputs):
    return [Record for _ in many]


def calls(costs, together=all_together, memory=0.0, outputs=()):
    return [
        Call(f"{together}{i}{outputs}", nothing, {}, outputs, cost, memory, together)
        for i, cost in enumerate(costs)
    ]


def drawn_costs(count, mean):
    return np.random.default_rng(0).exponential(mean, count).tolist()


@pytest.mark.parametrize(("count", "mean"), [(1, 1e-3), (7, 1e-2), (500, 1e-2), (60, 0.2)])
def test_batches_are_short_and_hold_every_call_once(count, mean):
    many = calls(drawn_costs(count, mean))
    made = batches(many, WORKERS)
    flat = [call for batch in made for call in batch]
    assert sorted(call.key for call in flat) == sorted(call.key for call in many)
    assert [call.cost for call in flat] == sorted((call.cost for call in many), reverse=True)
    # A worker gets at least eight of them, so that none has much to do when the others are done.
    most = min(0.25, sum(call.cost for call in many) / (8 * WORKERS))
    for batch in made:
        assert len(batch) == 1 or sum(call.cost for call in batch) <= most
    # No two neighbours fit into one.
    for one, other in pairwise(made):
        assert sum(call.cost for call in one) + other[0].cost > most


def test_a_batch_keeps_to_its_memory():
    made = batches(calls([1e-3] * 100, memory=20 * MEGABYTE), WORKERS)
    assert {len(batch) for batch in made} == {3, 1}
    assert {len(batch) for batch in batches(calls([1e-3] * 9, memory=1e9), WORKERS)} == {1}


def test_only_calls_of_one_kind_are_made_together():
    kinds = [calls([1e-3] * 90), calls([1e-3] * 90, others_together)]
    kinds += [calls([1e-3] * 90, outputs=("flow",)), calls([1e-3] * 90, None)]
    made = batches([call for kind in kinds for call in kind], WORKERS)
    for batch in made:
        assert len({(call.together, call.outputs) for call in batch}) == 1
    assert max(len(batch) for batch in made) > 1
    assert all(len(batch) == 1 for batch in made if batch[0].together is None)


def test_time_of_a_batch_is_shared_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def passes(seconds):
        now[0] += seconds
        return Record()

    def together(many, outputs):
        passes(8.0)
        return [partial(passes, seconds) for seconds in (1.0, 0.0, 2.0, 5.0)]

    outcomes = execute(tuple(calls([1e-3] * 4, together)))
    assert [one.seconds for one in outcomes] == [3.0, 2.0, 4.0, 7.0]


def numbers(**fixed):
    return {
        "name": "numbers",
        "experiment": "sweep_experiments:IN_BATCHES",
        "fixed": fixed,
        "axes": {"x": list(range(40)), "k": [1, 2]},
    }


def test_one_that_fails_fails_alone(tmp_path):
    frame = rf.sweep(
        numbers(fails_at=7), store=tmp_path / "a.sqlite", executor="threads", progress=False
    )
    failed = frame[frame.status == "failed"]
    assert failed.x.tolist() == [7, 7]
    assert failed.reason.str.startswith("ArithmeticError: x is 7 and that is that").all()


def test_one_that_ends_its_worker_fails_alone(tmp_path):
    frame = rf.sweep(numbers(dies_at=7), store=tmp_path / "a.sqlite", jobs=2, progress=False)
    failed = frame[frame.status == "failed"]
    assert failed.x.tolist() == [7, 7]
    assert failed.reason.str.startswith("WorkerDied").all()


def clusters(**changed):
    given = {"n_clusters": 2, "dim": 300, "noise": 0.3, "per_cluster": 4, "width": 8}
    return DOUBLE_EDGE.complete({**given, "test_points": 20, "shifted_points": 20, **changed})


def digits(**changed):
    return ON_DIGITS.complete({"n": 200, "width": 6, "log_inverse_loss": 3, **changed})


MANY = {
    "clusters": (
        DOUBLE_EDGE,
        [
            *[clusters(seed=seed) for seed in range(3)],
            clusters(width=5, log_inverse_loss=7),
            clusters(loss="logistic"),
            clusters(bias=False, log_inverse_loss=7),
            clusters(network="limit"),
            clusters(n_clusters=4, noise=1.0, max_evaluations=20),
        ],
        ("flow", "limit", "radii"),
    ),
    "digits": (
        ON_DIGITS,
        [digits(seed=1), digits(seed=2), digits(width=8, seed=1)],
        ("flow", "universal"),
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_records_of_many_are_those_of_each(name):
    experiment, many, outputs = MANY[name]
    for settings, start in zip(many, experiment.together(many, outputs), strict=True):
        alone, found = experiment.run(settings, outputs), start()
        np.testing.assert_equal(found.scalars, alone.scalars)
        np.testing.assert_equal(found.arrays, alone.arrays)


@pytest.mark.parametrize(
    ("network", "outputs", "followed"),
    [
        ("flow", ("flow",), 2),
        ("flow", ("limit", "radii"), 2),
        ("limit", ("flow", "radii"), 2),
        ("flow", ("limit",), 0),
        ("limit", ("limit", "radii"), 0),
    ],
)
def test_only_flows_that_are_measured_are_followed(monkeypatch, network, outputs, followed):
    counts = []

    def counted(nets, *arguments, **options):
        counts.append(len(nets))
        return rf.gradient_flow_ensemble(nets, *arguments, **options)

    monkeypatch.setattr(trained, "gradient_flow_ensemble", counted)
    DOUBLE_EDGE.together([clusters(network=network, seed=seed) for seed in (0, 1)], outputs)
    assert sum(counts) == followed
