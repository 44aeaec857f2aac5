"""The commands of studies and the page of a study."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

import reluflow as rf
from reluflow import _cli_sweep
from reluflow.report.study import write_study_reports
from reluflow.report.study_tables import mean_of, means_table, slope_of

HERE = Path(__file__).parent

STUDY = """
name = "powers"
title = "Powers <of> x"
question = "How does x^k grow?"
text = \"\"\"
One & the same.

Two.\"\"\"
experiment = "sweep_experiments:ARITHMETIC"
replicates = 3

[fixed]
fails_at = 4.0

[axes]
x = [1, 2, 4, 8]
k = [1, 2]

[quick]
replicates = 1

[[figures]]
name = "growth"
title = "Growth"
x = "x"
y = ["value"]
by = "k"
x_scale = "log"
y_scale = "log"
slope = true
x_label = "x"
y_label = "value"

[[figures]]
name = "plane"
kind = "map"
x = "x"
by = "k"
y = ["value"]
x_label = "x"
y_label = "value"
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs a command line in a folder with the study; returns code and output."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.chdir(tmp_path)
    Path("powers.toml").write_text(STUDY)
    app = typer.Typer()
    _cli_sweep.register(app)

    def command(*arguments):
        return CliRunner().invoke(app, arguments, obj=" ".join(["reluflow", *arguments]))

    return command


def test_a_dry_run_says_what_it_takes_and_makes_nothing(command):
    told = command("sweep", "powers.toml", "--dry-run", "--jobs", "2")
    assert told.exit_code == 0
    assert "24 runs" in told.output
    assert "time on 2 workers" in told.output
    assert not Path("powers.sqlite").exists()
    found = json.loads(command("sweep", "powers.toml", "--quick", "--dry-run", "--json").output)
    assert (found["runs"], found["missing"]) == (8, 8)


def test_sweep_export_and_report(command):
    told = command("sweep", "powers.toml", "--executor", "threads")
    assert told.exit_code == 1, told.output
    assert "powers: 24 runs in powers.sqlite, 6 failed" in told.output
    assert "6 runs failed, the first with ArithmeticError: x is 4" in told.output
    again = command("sweep", "powers.toml", "--executor", "threads", "--json")
    assert '{"study": "powers", "runs": 24, "failed": 6, "postponed": 0, ' in again.output

    told = command("export", "powers.sqlite", "--csv", "a.csv", "--parquet", "a.parquet")
    assert told.exit_code == 0, told.output
    with Path("a.csv").open(newline="") as text:
        assert len(list(csv.DictReader(text))) == len(pd.read_parquet("a.parquet")) == 24
    assert command("export", "powers.sqlite").exit_code != 0

    told = command("report", "powers.sqlite")
    assert told.exit_code == 0, told.exception
    assert "Report: powers-report/index.html" in told.output.replace(str(Path.cwd()) + "/", "")
    assert_page(Path("powers-report"))
    # A report replaces an earlier one, and nothing else.
    assert command("report", "powers.sqlite").exit_code == 0
    Path("powers-report/notes.txt").write_text("mine")
    refused = command("report", "powers.sqlite")
    assert isinstance(refused.exception, FileExistsError)
    assert Path("powers-report/notes.txt").read_text() == "mine"


def assert_page(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    drawn = {f"figures/{n}.{k}" for n in ("growth", "plane") for k in ("svg", "pdf", "csv")}
    assert found == {"index.html", "runs.csv", "means.csv", "study.toml", *drawn}
    page = (folder / "index.html").read_text()
    for text in (
        "Powers &lt;of&gt; x",
        "How does x^k grow?",
        "One &amp; the same.",
        "18 of 24 runs finished, <strong>6 failed</strong>",
        "ArithmeticError: x is 4",
        "reluflow sweep powers.toml --executor threads",
        "fails_at = 4.0",
    ):
        assert text in page, text
    # Self-contained: nothing is fetched.
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<svg") == 2
    assert (folder / "study.toml").read_text() == STUDY
    table = pd.read_csv(folder / "figures" / "growth.csv")
    assert table.x.tolist() == [1, 2, 8] * 2
    assert table.k.tolist() == [1, 1, 1, 2, 2, 2]
    # value = x^k up to 1e-3.
    np.testing.assert_allclose(table.value, table.x**table.k, atol=5e-3)


def test_what_is_postponed_is_in_the_table_and_on_the_page(command):
    # Runs with k = 1 are predicted to take 2e-3 s, those with k = 2 3e-3 s.
    text = STUDY.replace("replicates = 3", "replicates = 1\nmax_run_seconds = 0.0025")
    Path("powers.toml").write_text(text.replace("fails_at = 4.0", "fails_at = 0.0"))
    told = command("sweep", "powers.toml", "--dry-run")
    assert "postponed           4 long ones, unless asked for" in told.output
    told = command("sweep", "powers.toml", "--executor", "threads")
    assert told.exit_code == 0, told.output
    assert told.output.count("one was not made: predicted to take 0.003 s of one core") == 4
    frame = rf.experiments.read_store("powers.sqlite")
    assert frame["status"].tolist() == ["done", "postponed"] * 4
    assert frame["value"].isna().tolist() == [False, True] * 4
    assert command("report", "powers.sqlite").exit_code == 0
    page = Path("powers-report/index.html").read_text()
    assert "4 of 8 runs finished, <strong>4 left out as too long</strong>" in page
    assert page.count("not made: predicted to take 0.003 s of one core and 0.00 GB") == 4
    assert "Nothing: every run was finished" not in page
    # Asked for, they are made, and stay.
    assert command("sweep", "powers.toml", "--executor", "threads", "--long").exit_code == 0
    for _ in range(2):
        assert set(rf.experiments.read_store("powers.sqlite")["status"]) == {"done"}
        command("sweep", "powers.toml", "--executor", "threads")


def test_a_study_under_way_has_a_page(command, tmp_path):
    command("sweep", "powers.toml", "--quick", "--executor", "threads")
    # Asking for more adds members, which are then missing.
    study = rf.experiments.read_study("powers.toml")
    with rf.experiments.Store("powers.sqlite", write=True) as store:
        store.begin(study, list(study.runs()), "command")
    (page,) = write_study_reports("powers.sqlite", tmp_path / "out")
    assert "<strong>16 not run yet</strong>" in page.read_text()


def test_means_and_intervals():
    # Student's t with 3 degrees of freedom: 3.18245 at 97.5 %. Values 1, 2, 3, 6: mean 3,
    # deviations -2, -1, 0, 3, variance 14/3, standard error sqrt(14/3)/2.
    found = mean_of([1, 2, None, 3, math.nan, 6, -math.inf])
    half = 3.182446305 * math.sqrt(14 / 3) / 2
    assert (found.mean, found.count, found.infinite) == (3, 4, 1)
    assert found.low == pytest.approx(3 - half)
    assert found.high == pytest.approx(3 + half)
    lone = mean_of([5.0])
    assert lone.mean == 5
    assert math.isnan(lone.low)
    assert math.isnan(mean_of([]).mean)


def test_a_table_has_a_row_a_combination():
    frame = pd.DataFrame({"a": [2, 2, 1, 1], "seed": [0, 1, 0, 1], "y": [1.0, 3.0, 5.0, -math.inf]})
    table = means_table(frame, ["a"], ["y"])
    assert table.a.tolist() == [2, 1]
    assert table.y.tolist() == [2.0, 5.0]
    assert table.runs.tolist() == [2, 2]
    assert table.y_infinite.tolist()[1] == 1


def test_an_exponent_and_its_interval():
    # Seed s has y = x^(-1/2 + s/100) exactly, s = -1, 0, 1: mean -1/2, standard error
    # 0.01/sqrt(3), t with 2 degrees of freedom.
    x = np.array([2.0, 8.0, 32.0])
    frame = pd.concat(
        pd.DataFrame({"x": x, "y": 3 * x ** (-0.5 + s / 100), "seed": s}) for s in (-1, 0, 1)
    )
    slope = slope_of(frame, "x", "y")
    assert slope.exponent == pytest.approx(-0.5)
    assert slope.high - slope.exponent == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3))
    assert slope.seeds == 3
    assert slope_of(frame[frame.x == 2], "x", "y") is None
