"""The commands of studies: ``sweep``, ``export`` and ``report``."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from reluflow.experiments import shipped_studies

# What the shell calls a command that Ctrl-C ended.
_INTERRUPTED = 130


class Workers(str, Enum):
    """Where runs are made."""

    processes = "processes"
    threads = "threads"
    dask = "dask"
    mpi = "mpi"


StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="A store that sweep wrote; it may be in use.")
]
StudyOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which study of the store.", show_default="the only one"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def register(app: typer.Typer, epilog: str | None = None) -> None:
    """Adds the commands to an application.

    Parameters
    ----------
    app : typer.Typer
        Its context's ``obj`` is the command line as it was typed.
    epilog : str, optional
        Shown below the help of each command.
    """
    app.command("sweep", epilog=epilog)(_sweep)
    app.command("export", epilog=epilog)(_export)
    app.command("report", epilog=epilog)(_report)


def _sweep(
    context: typer.Context,
    study: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help=f"One of {', '.join(shipped_studies())}; or a .toml file."
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="The quick size of the study.")] = False,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where results go.", show_default="NAME.sqlite"),
    ] = None,
    executor: Annotated[
        Workers, typer.Option(metavar="KIND", help="processes, threads, dask or mpi.")
    ] = Workers.processes,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Dask scheduler.", show_default="a local cluster is started"
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Workers.", show_default="one a core")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run and what it would take.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed before.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Run a study: everything that its store does not have yet."""
    from reluflow.experiments import plan, read_study, sweep
    from reluflow.experiments.sweep import say, store_path

    read = read_study(study, quick=quick)
    if dry_run:
        planned = plan(read, store=store, jobs=jobs, retry_failed=retry)
        print(json.dumps(planned.to_dict()) if json_ else planned)
        return
    path = store_path(read, store)
    try:
        frame = sweep(
            read,
            executor=executor.value,
            store=path,
            progress=sys.stderr.isatty(),
            jobs=jobs,
            scheduler=scheduler,
            retry_failed=retry,
            command=context.obj,
        )
    except KeyboardInterrupt:
        say(f"reluflow: interrupted; what was finished is in {path}: the same command goes on")
        raise typer.Exit(_INTERRUPTED) from None
    failed = frame.loc[frame["status"] == "failed", "reason"]
    if json_:
        counts = {"study": read.name, "runs": len(frame), "failed": len(failed)}
        print(json.dumps({**counts, "store": str(path)}))
    else:
        print(f"{read.name}: {len(frame):,} runs in {path}, {len(failed):,} failed")
    if len(failed):
        say(f"reluflow: {len(failed):,} runs failed, the first with {failed.iloc[0]}")
        raise typer.Exit(1)


def _export(
    store: StoreArgument,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV to write.", show_default=False)
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet to write.", show_default=False)
    ] = None,
    study: StudyOption = None,
    debug: Debug = False,
) -> None:
    """Write the table of a study, one run a row."""
    from reluflow.experiments import export, read_store

    if csv is None and parquet is None:
        raise typer.BadParameter("name a file to write: --csv FILE or --parquet FILE")
    frame = read_store(store, study)
    export(frame, csv=csv, parquet=parquet)
    for path in (csv, parquet):
        if path is not None:
            print(f"{len(frame):,} runs in {path}")


def _report(
    store: StoreArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the page.", show_default="NAME-report"),
    ] = None,
    study: StudyOption = None,
    debug: Debug = False,
) -> None:
    """Write the page of a study: table, figures, what failed, how to reproduce it."""
    from reluflow.report.study import write_study_reports

    for page in write_study_reports(store, out, study=study):
        print(f"Report: {page}")
