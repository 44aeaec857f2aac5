"""The command line: exit codes, one-line errors, machine-readable output."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import reluflow as rf
from reluflow import experiments, report
from reluflow.cli import main, run_command

TINY = ["--dim", "60", "--clusters", "4", "-n", "24", "--width", "8", "--log-inverse-loss", "10"]
TINY += ["--test-points", "6"]


def refused(capsys, *arguments):
    """The one line on standard error of a command that refuses its input."""
    assert run_command(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("reluflow: ")
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "examples.csv"
    rf.save_dataset(rf.ClusterModel.orthogonal(4, 20, 0.3).sample(60, seed=0), path)
    return path


def test_version(capsys):
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"reluflow {rf.__version__}\n"


@pytest.mark.parametrize("command", [[], ["demo"], ["run"], ["info"]])
def test_help(capsys, command):
    assert run_command([*command, "--help"]) == 0
    assert "Usage: reluflow" in capsys.readouterr().out


def test_no_command_is_no_success(capsys):
    assert "--help" in refused(capsys)


def test_info(capsys):
    assert run_command(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == rf.__version__
    assert found["instruction_set"] in found["instruction_sets_usable"]
    assert set(found["instruction_sets_usable"]) <= set(found["instruction_sets_built"])
    assert {"compiler", "eigen", "openmp", "threads"} <= set(found)
    assert run_command(["info"]) == 0
    assert found["compiler"] in capsys.readouterr().out


def test_run_writes_a_report_and_prints_json_alone(capsys, tmp_path, monkeypatch):
    # Drawing is test_report's.
    monkeypatch.setattr(report.write, "FIGURES", {})
    monkeypatch.setattr(report.write, "render_page", lambda result, figures, command: command)
    folder = tmp_path / "report"
    assert run_command(["run", *TINY, "--json", "--out", str(folder)]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed.pop("report") == str(folder)
    assert printed == json.loads((folder / "summary.json").read_text("utf-8"))
    assert "quantity" in captured.err
    assert (folder / "index.html").read_text("utf-8").startswith("reluflow run --dim 60")


def test_run_without_a_folder_shows_the_table(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command(["run", *TINY]) == 0
    captured = capsys.readouterr()
    assert "double-edge ratio" in captured.out
    assert "--out" in captured.err
    assert max(map(len, captured.out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "means", [["--means", "random"], ["--means", "equicorrelated", "--correlation", "0.2"]]
)
def test_kinds_of_means(capsys, means):
    assert run_command(["run", *TINY, *means, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_clusters"] == 4


def test_run_on_a_file(capsys, csv):
    arguments = ["--width", "8", "--log-inverse-loss", "5", "--test-points", "5", "--json"]
    assert run_command(["run", "--data", str(csv), "-n", "40", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["dim"]) == (40, 20)


def test_the_numbers_do_not_depend_on_threads(capsys):
    found = []
    for threads in ("1", "2"):
        assert run_command(["run", *TINY, "--json", "--threads", threads]) == 0
        numbers = json.loads(capsys.readouterr().out)
        found.append({key: numbers[key] for key in ("radius_median", "normalized_margin")})
    assert found[0] == found[1]


def test_a_flow_that_ends_early_is_no_success(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    whole = experiments.double_edge

    def stopped(*args, **settings):
        result = whole(*args, **settings)
        object.__setattr__(result.flow, "status", rf.Status.MAX_SECONDS)
        return result

    monkeypatch.setattr(experiments, "double_edge", stopped)
    monkeypatch.setattr(report, "write_report", lambda result, out, command: out.mkdir() or out)
    assert run_command(["run", *TINY, "--out", str(folder)]) == 1
    assert "max_seconds" in capsys.readouterr().err
    assert folder.is_dir()


def test_a_flow_that_gets_stuck_is_reported(capsys, tmp_path):
    # A narrow network on many oblique means: some examples activate no neuron of their label.
    problem = ["--means", "random", "--dim", "50", "--clusters", "20", "--noise", "0.3"]
    problem += ["-n", "100", "--width", "20", "--seed", "1"]
    rest = ["--test-points", "5", "--json", "--out", str(tmp_path / "report")]
    assert run_command(["run", *problem, *rest]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["kkt_stationarity"] is None
    last = captured.err.splitlines()[-1]
    assert last.startswith("reluflow: ")
    assert last.removeprefix("reluflow: ") in (tmp_path / "report" / "index.html").read_text(
        "utf-8"
    )


def test_an_interrupt_is_130(capsys, monkeypatch):
    def interrupt(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "double_edge", interrupt)
    assert run_command(["run", *TINY]) == 130
    assert capsys.readouterr().err == "reluflow: interrupted\n"


def test_something_unexpected_is_1_and_points_to_debug(capsys, monkeypatch):
    def fail(*args, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr(experiments, "double_edge", fail)
    assert run_command(["run", *TINY]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "a bug" in error
    assert "--debug" in error
    assert run_command(["run", *TINY, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--foo"], "--foo"),
        (["bogus"], "bogus"),
        (["run", "-n", "many"], "-n"),
        (["run", "-n", "0"], "n must be at least 1"),
        (["run", "--noise", "-1"], "noise"),
        (["run", "--noise", "nan"], "noise"),
        (["run", "--dim", "5", "--clusters", "10"], "n_clusters=10"),
        (["run", "--clusters", "1"], "n_clusters"),
        (["run", "--means", "sideways"], "sideways"),
        (["run", "--means", "equicorrelated"], "--correlation"),
        (["run", "--correlation", "0.2"], "--correlation"),
        (["run", "--means", "equicorrelated", "--correlation", "2"], "correlation"),
        (["run", "--loss", "hinge"], "hinge"),
        (["run", "--width", "0"], "width"),
        (["run", "--threads", "0"], "num_threads"),
        (["run", "--init-scale", "0"], "scale"),
        (["run", "--log-inverse-loss", "nan"], "log_inverse_loss"),
        (["run", "--seed", "-1"], "non-negative"),
        (["run", "--data", "digits", "--dim", "10"], "--dim"),
        (["run", "--data", "missing.csv"], "missing.csv"),
        (["run", "--data", "examples.txt"], "examples.txt"),
        (["run", "--dim", "1000000000000", "-n", "1000000000"], "GiB"),
        (["run", "--data", "digits", "-n", "100000"], "at most"),
        (["demo", "--out", "/dev/null/report"], "/dev/null/report"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *arguments)


def test_a_truncated_file(capsys, tmp_path):
    path = tmp_path / "examples.npz"
    rf.save_dataset(rf.ClusterModel.orthogonal(2, 10, 0.3).sample(20, seed=0), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "examples.npz" in refused(capsys, "run", "--data", str(path))


def test_pickled_objects_are_never_loaded(capsys, tmp_path):
    path = tmp_path / "examples.npz"
    np.savez(path, X=np.array([{}], dtype=object), y=np.ones(1))
    assert "pickled" in refused(capsys, "run", "--data", str(path))


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("x0,x1,weight,y", "1,2,3,1", "weight"),
        ("x0,x1", "1,2", "y"),
        ("x0,x1,y", "1,2,0", "2 * "),
        ("x0,x1,y", "1,nan,1", "x1"),
    ],
)
def test_unusable_tables(capsys, tmp_path, header, row, says):
    path = tmp_path / "examples.csv"
    path.write_text(f"{header}\n{row}\n3,4,1\n")
    assert says in refused(capsys, "run", "--data", str(path))


def test_an_unwritable_folder_is_said_before_anything_is_computed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "double_edge", lambda *args, **settings: 1 / 0)
    (tmp_path / "report").write_text("a file")
    assert "it is a file" in refused(capsys, "demo", "--out", str(tmp_path / "report"))


def test_debug_shows_the_traceback_and_keeps_the_code(capsys):
    assert run_command(["run", "-n", "0", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("reluflow: ")


def test_main_leaves_with_the_code():
    with pytest.raises(SystemExit) as caught:
        main(["run", "--foo"])
    assert caught.value.code == 2


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from reluflow.cli import run_command; run_command(['--help']);"
        "heavy = {'matplotlib', 'pandas', 'sklearn', 'pyarrow', 'jinja2'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_study_is_run_and_reported(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(
        'name = "small"\noutputs = ["universal"]\n[fixed]\ndim = 60\nnoise = 0.1\n'
        "per_cluster = 5\nwidth = 6\n[axes]\nn_clusters = [2, 4]\n"
    )
    assert run_command(["run", "small.toml", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == 2
    assert found["report"] == str(tmp_path / "small-report" / "index.html") or (
        found["report"] == "small-report/index.html"
    )
    assert (tmp_path / "small-report" / "index.html").exists()
    assert (tmp_path / "small.sqlite").exists()


def test_a_study_has_settings_of_its_own(capsys):
    line = refused(capsys, "run", "theorem", "--dim", "100", "--no-limit")
    assert "--dim, --limit cannot be combined with a study" in line
    assert "study 'theorm' is unknown" in refused(capsys, "run", "theorm")


def test_a_folder_that_is_taken_is_refused_before_a_study_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    assert "mine.txt" in refused(capsys, "run", "theorem", "--out", "notes")
    assert not (tmp_path / "theorem.sqlite").exists()
