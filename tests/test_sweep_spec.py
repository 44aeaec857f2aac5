"""Studies: what a file may say, and that everything wrong is refused with its line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reluflow.experiments import SpecError, read_study, shipped_studies
from reluflow.experiments._toml import line_of
from reluflow.experiments.registry import find_experiment, run_key

HERE = Path(__file__).parent
HEAD = 'experiment = "sweep_experiments:ARITHMETIC"\n'


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "study.toml"
        path.write_text(HEAD + text)
        return path

    return write


def test_a_study_is_the_product_of_its_axes_and_replicates(write):
    study = read_study(
        write("replicates = 2\nseed = 5\n[axes]\nx = [1, 2.5, 3]\nk = [0, 4]\n[fixed]\nflag = true")
    )
    runs = list(study.runs())
    assert len(study) == len(runs) == 3 * 2 * 2
    assert [run.position for run in runs] == list(range(12))
    assert [(r.settings["x"], r.settings["k"], r.settings["seed"]) for r in runs[:3]] == [
        (1.0, 0, 5),
        (1.0, 0, 6),
        (1.0, 4, 5),
    ]
    assert list(runs[0].settings) == [
        "x", "k", "word", "flag", "sleep", "fails_at", "dies_at", "shadows_at",
        "seed",
    ]  # fmt: skip
    assert runs[0].settings["flag"] is True
    assert runs[0].settings["word"] == "a"
    assert len({run.key for run in runs}) == 12
    assert study.varied == ("x", "k")
    assert study.name == "study"


def test_ranges(write):
    study = read_study(
        write("[axes]\nx = {linear = [0, 1], count = 5}\nk = {log = [1, 1000], count = 4}")
    )
    assert study.factors[0]["x"] == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert study.factors[1]["k"] == (1, 10, 100, 1000)


def test_an_integer_range_has_every_integer_once(write):
    study = read_study(write("[fixed]\nx = 1\n[axes]\nk = {log = [1, 4], count = 9}"))
    assert study.factors[0]["k"] == (1, 2, 3, 4)


def test_zipped_settings_go_together(write):
    study = read_study(
        write("[axes]\nflag = [true, false]\n[[zipped]]\nx = [1, 2, 3]\nk = [4, 5, 6]")
    )
    assert [(g["flag"], g["x"], g["k"]) for g in study.combinations()] == [
        (flag, x, k) for flag in (True, False) for x, k in ((1, 4), (2, 5), (3, 6))
    ]


def test_random_points(write):
    text = (
        "[random]\ncount = 200\nseed = 3\nx = {log_uniform = [1e-6, 10]}\n"
        "k = {uniform = [2, 6]}\nword = {choice = ['a', 'b']}"
    )
    study = read_study(write(text))
    points = list(study.combinations())
    x = np.array([point["x"] for point in points])
    assert len(points) == 200
    assert 1e-6 <= x.min() < 1e-5 < 1 < x.max() <= 10
    # log10 x is uniform on (-6, 1): mean -2.5, standard error 7/sqrt(12 * 200) = 0.14.
    assert abs(np.log10(x).mean() + 2.5) < 5 * 0.15
    assert {point["k"] for point in points} == {2, 3, 4, 5, 6}
    assert {point["word"] for point in points} == {"a", "b"}
    assert list(read_study(write(text)).combinations()) == points
    assert list(read_study(write(text.replace("seed = 3", "seed = 4"))).combinations()) != points


def test_quick_replaces_what_it_names(write):
    path = write(
        "replicates = 9\n[fixed]\nk = 3\nflag = true\n[axes]\nx = [1, 2, 3]\n"
        "[quick]\nreplicates = 2\n[quick.fixed]\nk = 1\n[quick.axes]\nx = [7]"
    )
    full, quick = read_study(path), read_study(path, quick=True)
    assert (len(full), len(quick)) == (27, 2)
    assert next(quick.runs()).settings["k"] == 1
    assert next(quick.runs()).settings["flag"] is True
    assert quick.quick
    assert not full.quick


def test_a_dictionary_is_a_study_as_a_file_is(write):
    from sweep_experiments import ARITHMETIC

    path = write("[axes]\nx = [1, 2]\n")
    by_name = {"experiment": "sweep_experiments:ARITHMETIC", "axes": {"x": [1, 2]}}
    by_object = {**by_name, "experiment": ARITHMETIC}
    keys = [[run.key for run in read_study(s).runs()] for s in (path, by_name, by_object)]
    assert keys[0] == keys[1] == keys[2]


# Text, the line it is on (the experiment stands on line 1), and what is said.
WRONG = [
    ("replicats = 3\n[axes]\nx = [1]", 2, "replicats: unknown key; use name, title"),
    ("[axes]\nx = [1]\n\ny = [2]", 5, "setting 'y' is unknown; sweep_experiments:ARITHMETIC has x"),
    ("[axes]\n# nothing\nx = []", 4, "axes.x: has no values; an axis needs at least one"),
    ("[axes]\nx = [1, 2, 1.0]", 3, "has the value 1.0 twice"),
    ("[axes]\nx = 3", 3, "must be a list, or {linear = [a, b], count = n}"),
    ("[axes]\nx = ['one']", 3, "x must be a number; got 'one'"),
    ("[axes]\nx = [1]\nk = [2.5]", 4, "k must be an integer; got 2.5"),
    ("[axes]\nx = [1]\nk = [-1]", 4, "k must be at least 0; got -1"),
    ("[axes]\nx = [1]\nword = ['c']", 4, "word='c' is unknown; use one of a, b"),
    ("[axes]\nx = [1]\nflag = [1]", 4, "flag must be true or false; got 1"),
    ("[axes]\nx = [\n1,\n2,\n]\nk = [\n  3,\n  3,\n]", 7, "has the value 3 twice"),
    ("[axes]\nx = [1]\n[fixed]\nk = 1\nx = 2", 3, "x is given twice, also by fixed.x"),
    ("[axes]\nk = [1]", 1, "x is missing (the base); give it in fixed or axes"),
    ("[axes]\nx = {log = [0, 1], count = 3}", 3, "a logarithmic range must start above 0; got 0"),
    ("[axes]\nx = {log = [2, 1], count = 3}", 3, "must go up: [a, b] with a < b; got [2, 1]"),
    ("[axes]\nx = {log = [1, 2]}", 3, "must be a whole number of at least 1; got None"),
    ("[axes]\nx = {log = [1, 2], linear = [1, 2], count = 2}", 3, "must have exactly one of"),
    ("[axes]\nx = {lin = [1, 2], count = 2}", 3, "axes.x.lin: unknown key; use linear, log, count"),
    ("[[zipped]]\nx = [1, 2]\nk = [1]", 2, "must be of one length; they have x 2, k 1"),
    ("[[zipped]]\nx = [1]\n[[zipped]]\nx = [2]", 5, "x is given twice, also by zipped.0.x"),
    ("[random]\nx = {uniform = [0, 1]}", 2, "random.count: must be a whole number of at least 1"),
    ("[random]\ncount = 3\nx = [1]", 4, "must be {uniform = [a, b]}"),
    ("replicates = 0\n[axes]\nx = [1]", 2, "must be a whole number of at least 1; got 0"),
    ("max_run_seconds = 0\n[axes]\nx = [1]", 2, "must be a number above 0; got 0"),
    ("max_run_seconds = 'a'\n[axes]\nx = [1]", 2, "must be a number above 0; got 'a'"),
    ("seed = -1\n[axes]\nx = [1]", 2, "must be a whole number of at least 0; got -1"),
    ("[axes]\nx = [1]\nseed = [1]", 4, "seeds are given by the study's own seed and replicates"),
    ("outputs = ['valu']\n[axes]\nx = [1]", 2, "output 'valu' is unknown; this experiment has va"),
    ("outputs = []\n[axes]\nx = [1]", 2, "must list some of value, noise"),
    ("[axes]\nx = [1, 200]\nk = [1, 9]", 4, "impossible combination: k=9 is too much for x=200"),
    ("[quick]\n[quick.axs]\nx = [1]\n[axes]\nx = [1]", 3, "quick.axs: unknown key"),
    ("[axes]\nx = [1]\n[[figures]]\nname = 'a'\nx = 'x'\nz = 1", 4, "a figure has no 'z'"),
    ("[axes]\nx = [1, 2", 3, "Unclosed array"),
]


@pytest.mark.parametrize(("text", "line", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_refused_with_its_line(write, text, line, message):
    path = write(text)
    with pytest.raises(SpecError) as caught:
        read_study(path)
    told = str(caught.value)
    assert message in told
    assert "\n" not in told
    # The parser itself tells the line in its own words.
    assert re.search(rf"{re.escape(str(path))}(, line {line}:|: .*line {line}\b)", told), told


def test_a_dictionary_is_refused_with_the_place():
    with pytest.raises(SpecError, match=r"axes\.k: k must be at least 0; got -1"):
        read_study({"experiment": "sweep_experiments:ARITHMETIC", "axes": {"x": [1], "k": [-1]}})


@pytest.mark.parametrize("name", ["nothing", "nowhere:AT_ALL", "math:pi", "math:tau_and_more"])
def test_unknown_experiments_are_refused(name):
    with pytest.raises(SpecError, match="experiment"):
        read_study({"experiment": name, "axes": {"x": [1]}})


def test_unknown_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"study 'tradeof' is unknown; use a \.toml file, or one"):
        read_study("tradeof")
    with pytest.raises(FileNotFoundError, match=r"study .* cannot be read: No such file"):
        read_study(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not a text in UTF-8"):
        read_study(tmp_path / "binary.toml")


def test_lines_are_found_through_comments_strings_and_long_arrays():
    text = '# a\ntext = """\n[axes]\nx = 1\n"""\n\n[axes]\n# b\nx = [\n 1,\n]\ny.z = 3\n'
    assert line_of(text, ("text",)) == 2
    assert line_of(text, ("axes",)) == 7
    assert line_of(text, ("axes", "x")) == 9
    assert line_of(text, ("axes", "y", "z")) == 12


def test_a_key_depends_on_the_configuration_alone():
    experiment = find_experiment("sweep_experiments:ARITHMETIC")
    given = {"x": 1, "k": 3, "seed": 4}
    settings = experiment.complete(given)
    key = run_key(experiment, settings, ("value", "noise"))
    shuffled = dict(reversed(settings.items()))
    assert run_key(experiment, shuffled, ("noise", "value")) == key
    # A whole number is the same setting however it is written.
    assert run_key(experiment, experiment.complete({**given, "x": 1.0}), ("value", "noise")) == key
    others = [{**given, "x": np.nextafter(1, 2)}, {**given, "seed": 5}, {**given, "flag": True}]
    keys = {run_key(experiment, experiment.complete(o), ("value", "noise")) for o in others}
    keys |= {run_key(experiment, settings, ("value",))}
    assert len(keys | {key}) == 5


def test_keys_are_the_same_in_every_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from reluflow.experiments.registry import find_experiment, run_key\n"
        "e = find_experiment('sweep_experiments:ARITHMETIC')\n"
        "print(run_key(e, e.complete({'x': 0.1, 'seed': 2}), ('value',)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(HERE)],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    experiment = find_experiment("sweep_experiments:ARITHMETIC")
    here = run_key(experiment, experiment.complete({"x": 0.1, "seed": 2}), ("value",))
    assert found == {f"{here}\n"}


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_in_order(name, quick):
    study = read_study(name, quick=quick)
    assert study.name == name
    assert study.title
    assert study.question
    assert study.figures
    for figure in study.figures:
        assert figure.x in study.varied or figure.x == "theory_radius"
        # "network" is the name that the experiment gives to a combination of varied settings.
        assert figure.by in (None, "network", *study.varied)
        assert figure.x_label
        assert figure.y_label
