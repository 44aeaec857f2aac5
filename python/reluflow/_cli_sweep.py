"""The commands of studies: ``sweep``, ``export`` and ``report`` of a store."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reluflow._results import plain
from reluflow.experiments import (
    SpecError,
    Store,
    WorkersLostError,
    export,
    plan,
    read_study,
    shipped_studies,
    sweep,
)
from reluflow.experiments.sweep import say, store_path

# What the shell calls a command that Ctrl-C ended.
_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    app.command("sweep")(sweep_command)
    app.command("export")(export_command)


def sweep_command(
    study: Annotated[
        str,
        typer.Argument(help=f"A .toml file, or one of {', '.join(shipped_studies())}."),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="The quick size of the study.")] = False,
    store: Annotated[
        Path | None, typer.Option(help="SQLite file of the results; STUDY.sqlite by default.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="processes, threads, dask or mpi.")
    ] = "processes",
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler; a local cluster by default.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Workers; one a core by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and what it would take.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run again what failed before.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Runs a study: everything that its store does not have yet."""
    read = read_study(study, quick=quick)
    planned = plan(read, store=store, jobs=jobs, retry_failed=retry)
    if dry_run:
        typer.echo(json.dumps(planned.to_dict()) if as_json else str(planned))
        return
    path = store_path(read, store)
    try:
        frame = sweep(
            read,
            executor=executor,
            store=path,
            progress=sys.stderr.isatty(),
            jobs=jobs,
            scheduler=scheduler,
            retry_failed=retry,
            command=_command(study, quick, path),
        )
    except KeyboardInterrupt:
        say(f"interrupted; what was finished is in {path}: run the same command to go on")
        raise typer.Exit(_INTERRUPTED) from None
    except WorkersLostError as error:
        raise OSError(f"{error}; what was finished is in {path}") from None
    failed = int((frame["status"] == "failed").sum())
    if as_json:
        counts = {"study": read.name, "runs": len(frame), "failed": failed, "store": str(path)}
        typer.echo(json.dumps(plain(counts)))
    else:
        typer.echo(f"{read.name}: {len(frame):,} runs in {path}, {failed:,} failed")
    if failed:
        first = frame.loc[frame["status"] == "failed", "reason"].iloc[0]
        say(f"the first that failed: {first}")
        raise typer.Exit(1)


def export_command(
    store: Annotated[Path, typer.Argument(help="A store that sweep wrote.")],
    csv: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Parquet file to write.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Which study, where the store has several.")
    ] = None,
) -> None:
    """Writes the table of a study, one run a row."""
    if csv is None and parquet is None:
        raise ValueError("name a file to write: --csv FILE or --parquet FILE")
    with Store(store) as opened:
        frame = opened.frame(study)
    export(frame, csv=csv, parquet=parquet)
    for path in (csv, parquet):
        if path is not None:
            typer.echo(f"{len(frame):,} runs in {path}")


def _command(study: str, quick: bool, path: Path) -> str:
    words: list[Any] = ["reluflow", "sweep", study, *["--quick"] * quick, "--store", path.name]
    return shlex.join(words)


__all__ = ["SpecError", "register"]
