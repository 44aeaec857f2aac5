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
_WHEEL = "RELUFLOW_BENCH_WHEEL"
# What a wheel is made of.
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "CMakeLists.txt", "cmake", "cpp", "python")


def run_inside(module: str, packages: list[str], alone: tuple[str, ...] = ()) -> None:
    """Runs ``python -m module`` with the same arguments where ``packages`` are installed.

    Packages of ``alone`` are installed without what they ask for. Returns at once when it is
    already running there; otherwise does not return. The environment is kept in the user's cache
    and made anew when the list of packages changes; reluflow itself is built anew when this tree
    changes.
    """
    if os.environ.get(_INSIDE) == module:
        return
    python, wheel = _environment(packages, alone)
    environment = {**os.environ, _INSIDE: module, _WHEEL: str(wheel), "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", module, *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode)


def run_module(module: str, arguments: list[str]) -> None:
    """Runs ``python -m module`` in the environment that this is already running in."""
    environment = {**os.environ, _INSIDE: module}
    command = [sys.executable, "-m", module, *arguments]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)


def wheel_file() -> Path:
    """The wheel of reluflow that is installed in the environment."""
    return Path(os.environ[_WHEEL])


def _environment(packages: list[str], alone: tuple[str, ...]) -> tuple[Path, Path]:
    key = hashlib.sha256("\n".join([sys.version, *packages, *alone]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "reluflow-bench"
    folder = cache / key
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        print(f"making an environment with {', '.join([*packages, *alone])}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        _pip(python, "install", "-q", *packages)
        if alone:
            _pip(python, "install", "-q", "--no-deps", *alone)
        finished.touch()
    wheel = _wheel(python, cache)
    installed = folder / "wheel"
    if not installed.exists() or installed.read_text(encoding="utf-8") != str(wheel):
        _pip(python, "install", "-q", str(wheel))
        _pip(python, "install", "-q", "--no-deps", "--force-reinstall", str(wheel))
        installed.write_text(str(wheel), encoding="utf-8")
    return python, wheel


def _wheel(python: Path, cache: Path) -> Path:
    folder = cache / f"wheel-{_tree_key()}"
    if not list(folder.glob("*.whl")):
        print("building reluflow", file=sys.stderr)
        _pip(python, "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


def _tree_key() -> str:
    """Of all that a wheel is made of, and of how it is built."""
    digest = hashlib.sha256(f"{sys.version} {os.environ.get('SKBUILD_CMAKE_DEFINE')}".encode())
    for name in _SOURCES:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", *arguments], check=True)
