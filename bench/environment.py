"""An environment of their own for the peers, which the project itself never depends on."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_INSIDE = "RELUFLOW_BENCH_ENVIRONMENT"


def run_inside(module: str, packages: list[str], alone: tuple[str, ...] = ()) -> None:
    """Runs ``python -m module`` with the same arguments where ``packages`` are installed.

    Packages of ``alone`` are installed without what they ask for. Returns at once when it is
    already running there; otherwise does not return. The environment is kept in the user's cache
    and made anew when the list of packages changes; reluflow itself is installed from this tree
    every time.
    """
    if os.environ.get(_INSIDE) == module:
        return
    python = _environment(packages, alone)
    environment = {**os.environ, _INSIDE: module, "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", module, *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode)


def _environment(packages: list[str], alone: tuple[str, ...]) -> Path:
    key = hashlib.sha256("\n".join([sys.version, *packages, *alone]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "reluflow-bench" / key
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        print(f"making an environment with {', '.join([*packages, *alone])}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        _pip(python, "install", "-q", *packages)
        if alone:
            _pip(python, "install", "-q", "--no-deps", *alone)
        finished.touch()
    _pip(python, "install", "-q", str(ROOT))
    return python


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", *arguments], check=True)
