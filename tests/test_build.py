"""How the package was built, and how the instruction set is chosen."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import reluflow
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
    heavy = (
        "matplotlib",
        "pandas",
        "pyarrow",
        "sklearn",
        "torch",
        "jax",
        "rich",
        "typer",
        "jinja2",
        "scipy.stats",
    )
    done = run(f"import sys, reluflow; print([m for m in {heavy!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]"


def test_import_leaves_scipy_for_later():
    done = run("import sys, reluflow; print([m for m in ('scipy', 'sqlite3') if m in sys.modules])")
    assert done.stdout.strip() == "[]"


def test_public_names_are_there_when_asked_for():
    names = [name for name in reluflow.__all__ if getattr(reluflow, name) is None]
    assert names == []
    assert set(reluflow.__all__) <= set(dir(reluflow))
    assert reluflow.gradient_flow is reluflow.flow.gradient_flow
    assert reluflow.theory.__name__ == "reluflow.theory"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = reluflow.nonsense


def test_type_checkers_are_told_all_public_names():
    stub = ast.parse(Path(reluflow.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    (told,) = [node.value for node in stub.body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(told) == sorted(reluflow.__all__)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity here")
def test_threads_respect_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert _threads.available_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity here")
def test_no_more_threads_than_the_process_may_use():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from reluflow._threads import resolve_num_threads as used; print(used(3), used(1))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.split() == [b"1", b"1"]


def set_cgroups(monkeypatch, folder, own, files):
    """A process in the cgroups ``own``, with ``files`` below the root of all cgroups."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    monkeypatch.setattr(_threads, "_CGROUPS", folder)
    monkeypatch.setattr(_threads, "_OWN_CGROUPS", folder / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("own", "files", "threads"),
    [
        # Version 2: a container that sees itself as the root; 2.5 cores need three threads.
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        # A slice of systemd: the root has no such file, and the tightest on the way counts.
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "200000 100000"}, 2),
        # Of a neighbour's quota nothing is felt.
        ("0::/a\n", {"b/cpu.max": "100000 100000"}, 64),
        # Version 1, where -1 is no quota.
        (
            "5:memory:/x\n2:cpu,cpuacct:/job\n0::/\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "600000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        # A container that is told its path outside, where its own cgroup is the root.
        (
            "2:cpu:/docker/0123\n",
            {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"},
            1,
        ),
    ],
)
def test_threads_respect_the_quotas_of_cgroups(monkeypatch, tmp_path, own, files, threads):
    set_cgroups(monkeypatch, tmp_path, own, files)
    assert _threads.available_threads() == threads


def test_without_cgroups_all_cores_are_used(monkeypatch, tmp_path):
    set_cgroups(monkeypatch, tmp_path, "", {})
    (tmp_path / "own").unlink()
    assert _threads.available_threads() == 64
