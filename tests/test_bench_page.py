"""The page of benchmarks: made from results alone, and never by hand."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks.json"


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of `bench`, which is beside the package and not in it."""
    monkeypatch.syspath_prepend(str(ROOT))
    yield lambda name: importlib.import_module(f"bench.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "bench"]:
        del sys.modules[name]


def one_topic(bench, **more):
    """Results of one topic with a comparison, a lower bound and two facts."""
    topic = bench("topic")
    samples = bench("timing").Samples
    found = topic.Findings()
    # Pairs of 4/2, 6/2 and 10/2: median 3, quartiles 2.5 and 4; processors 1/2.
    ours, theirs = samples([2.0, 2.0, 2.0], [2.0] * 3), samples([4.0, 6.0, 10.0], [1.0] * 3)
    found.compare("a case", ours, {"a peer": theirs}, aim=2.0)
    found.compare("a case", ours, {"a slow one": theirs}, aim=4.0, note="a lower bound")
    found.facts = [
        topic.Fact("size", 2.5, "MB", aim=3.0, at_most=True),
        topic.Fact("share", 0.75, aim=0.8),
    ]
    entry = {
        "date": "2026-01-02T03:04+00:00",
        "quick": False,
        "load": [0.1, 0.2],
        "seconds": 5.0,
        "cpu_seconds": 4.0,
        "peak": [50.0, 51.0],
        "found": found.to_dict(),
        **more,
    }
    machine = {
        "processor": "a processor",
        "cores": 2,
        "memory_gigabytes": 8,
        "system": "Linux",
        "python": "3",
        "versions": {"reluflow": "0"},
    }
    return {"machine": machine, "topics": {"footprint": entry}}, found


def test_ratios_are_medians_with_quartiles(bench):
    row = one_topic(bench)[1].comparisons[0]
    assert (row.low, row.ratio, row.high) == (2.5, 3.0, 4.0)
    assert (row.seconds, row.ours, row.cpu_ratio) == (6.0, 2.0, 0.5)


def test_missed_aims_are_told(bench):
    found = one_topic(bench)[1]
    assert found.missed == ["a case: a slow one", "share"]
    again = bench("topic").Findings.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found


def test_the_page_shows_machine_date_load_and_verdicts(bench):
    text = bench("page").page(one_topic(bench)[0])
    assert "a processor, 2 cores, 8 GB" in text
    assert "2026-01-02 03:04 UTC; load 0.1 before, 0.2 after" in text
    assert "| a case | a peer | 6 s | 2 s | 3 (2.5 to 4) | 0.5 | ≥ 2, reached |" in text
    assert "| a case | a slow one | 6 s | 2 s | ≥ 3 (2.5 to 4) | ≥ 0.5 | ≥ 4, **missed** |" in text
    assert "| size | 2.5 MB | ≤ 3, reached |" in text
    assert "| share | 0.75 | ≥ 0.8, **missed** |" in text
    assert "trial run" not in text
    assert "trial run" in bench("page").page(one_topic(bench, quick=True)[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234.5, "1,234"), (2.5e6, "2.5e+06"), (3e-5, "3.0e-05"), (math.nan, "–")],
)
def test_numbers_are_short(bench, value, text):
    assert bench("page").number(value) == text


def test_the_page_and_its_figure_are_written(bench, tmp_path):
    file = tmp_path / "benchmarks.json"
    file.write_text(json.dumps(one_topic(bench)[0]), encoding="utf-8")
    bench("page").write(file, tmp_path)
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8").startswith("# Benchmarks")
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "benchmarks.svg",
        "benchmarks.png",
    }


def test_every_topic_has_a_title(bench):
    assert list(bench("page").TITLES) == list(bench("peers").TOPICS)


def test_the_published_page_is_what_its_results_say(bench):
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert page == bench("page").page(results)
