"""Writes a report to a folder, all of it or nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reluflow._results import plain
from reluflow.report import style
from reluflow.report.figures import FIGURES
from reluflow.report.page import GENERATOR, render_page
from reluflow.report.tables import TABLES

if TYPE_CHECKING:
    from reluflow.experiments import DoubleEdge

PAGE = "index.html"
SUMMARY = "summary.json"
_FILES = {
    PAGE,
    SUMMARY,
    *(f"{name}.csv" for name in TABLES),
    *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf")),
}


# Whether a file, named relative to the folder, is one that a report consists of.
Belongs = Callable[[str], bool]


def check_writable(folder: str | Path, belongs: Belongs = _FILES.__contains__) -> Path:
    """Makes sure that a report can go to ``folder`` before anything long is computed for it.

    Returns
    -------
    Path
        The folder, absolute.

    Raises
    ------
    OSError
        If the folder or the place where it would be made cannot be written, if there is a file of
        that name, or if it holds other things than an earlier report, which is replaced.
    """
    target = Path(folder).expanduser().absolute()
    try:
        target = target.resolve()
        _require_free(target, belongs)
        # Creating something is the only test that no permission system gets wrong.
        probe = _beside(next(parent for parent in target.parents if parent.exists()) / "probe")
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise refusal(target, error) from None
    return target


def write_report(result: DoubleEdge, folder: str | Path, *, command: str | None = None) -> Path:
    """Writes index.html, figures (SVG and PDF), summary.json and CSV tables.

    Everything is written to a temporary folder beside the target and moved there at the end: if
    anything fails, the target is as it was. An earlier report is replaced.

    Parameters
    ----------
    result : DoubleEdge
    folder : path
        The folder to make.
    command : str, optional
        A command line that reproduces the result, shown on the page.

    Returns
    -------
    Path
        The folder, absolute.

    Raises
    ------
    OSError
        If the folder cannot be written, or holds other things than an earlier report.
    """
    target = check_writable(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged(target) as staging:
            _write_all(result, staging, command)
    except OSError as error:
        raise refusal(target, error) from None
    return target


def _write_all(result: DoubleEdge, folder: Path, command: str | None) -> None:
    (folder / "figures").mkdir()
    documents = {}
    for name, draw in FIGURES.items():
        figure = style.settle(draw(result))
        documents[name] = style.svg(figure)
        _write(folder / "figures" / f"{name}.svg", documents[name])
        (folder / "figures" / f"{name}.pdf").write_bytes(style.pdf(figure))
    for name, tabulate in TABLES.items():
        tabulate(result).to_csv(folder / f"{name}.csv", index=False)
    summary = json.dumps(plain(result.summary), indent=2, ensure_ascii=False, allow_nan=False)
    _write(folder / SUMMARY, f"{summary}\n")
    _write(folder / PAGE, render_page(result, documents, command))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def staged(target: Path, belongs: Belongs = _FILES.__contains__) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place on success and vanishes on failure."""
    staging = _beside(target)
    staging.mkdir()
    try:
        yield staging
        _replace(target, staging, belongs)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _replace(target: Path, staging: Path, belongs: Belongs) -> None:
    _require_free(target, belongs)
    if not target.exists():
        staging.rename(target)
        return
    # The folder itself stays: it may be somebody's working directory, or a mount.
    retired = _beside(target)
    retired.mkdir()
    try:
        _move_entries(target, retired)
        _move_entries(staging, target)
    except BaseException:
        _move_entries(target, staging)
        _move_entries(retired, target)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)
    staging.rmdir()


def _move_entries(source: Path, destination: Path) -> None:
    for entry in list(source.iterdir()):
        entry.rename(destination / entry.name)


def _beside(target: Path) -> Path:
    return target.with_name(f".reluflow-{secrets.token_hex(6)}")


def _require_free(target: Path, belongs: Belongs) -> None:
    """Refuses to overwrite what is neither empty nor an earlier report."""
    if not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"folder {target} cannot be written: it is a file")
    found = {
        Path(root, name).relative_to(target).as_posix()
        for root, _, names in os.walk(target, onerror=_raise)
        for name in names
    }
    foreign = sorted(name for name in found if not belongs(name)) or (
        [] if _is_ours(target) else sorted(found)
    )
    if foreign:
        raise FileExistsError(
            f"folder {target} holds other things than an earlier report, such as {foreign[0]}; "
            "name a new folder"
        )


def _is_ours(folder: Path) -> bool:
    page = folder / PAGE
    if not page.is_file():
        return False
    with page.open(encoding="utf-8", errors="replace") as text:
        return GENERATOR in text.read(2000)


def _raise(error: OSError) -> None:
    raise error


def refusal(target: Path, error: OSError) -> OSError:
    if error.errno is None:
        return error
    return type(error)(f"folder {target} cannot be written: {error.strerror}")
