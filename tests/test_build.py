"""How the package was built, and how the instruction set is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reluflow import _dispatch, _threads


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_every_usable_module_tells_how_it_was_built():
    for level in _dispatch.usable_levels():
        info = _dispatch.load(level).build_info()
        assert info["instruction_set"] == level
        assert {"compiler", "eigen", "openmp"} <= set(info)


def test_the_instruction_set_can_be_chosen():
    for level in _dispatch.usable_levels():
        done = run(
            "import reluflow; from reluflow._dispatch import core;"
            "print(core.build_info()['instruction_set'])",
            RELUFLOW_ISA=level,
        )
        assert done.stdout.strip() == level


def test_an_unusable_instruction_set_fails_loudly():
    done = run("import reluflow", RELUFLOW_ISA="v9")
    assert done.returncode != 0
    assert "RELUFLOW_ISA='v9' cannot be used" in done.stderr


@pytest.mark.parametrize("script", [True, False], ids=["script", "module"])
def test_the_command_says_so_in_one_line(script):
    command = [Path(sys.executable).with_name("reluflow")] if script else ["-m", "reluflow"]
    done = subprocess.run(
        [sys.executable, *command, "info"],
        capture_output=True,
        text=True,
        env={**os.environ, "RELUFLOW_ISA": "v9"},
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("reluflow: RELUFLOW_ISA='v9' cannot be used: built ")
    assert done.stderr.count("\n") == 1


def test_import_is_light():
    heavy = ("matplotlib", "pandas", "pyarrow", "sklearn", "torch", "rich", "typer", "jinja2")
    heavy += ("scipy.stats",)
    done = run(f"import sys, reluflow; print([m for m in {heavy!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity here")
def test_threads_respect_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert _threads.available_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert _threads.resolve_num_threads(3) == 3
