"""The commands of studies: ``sweep``, ``export`` and ``report``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reluflow.experiments import shipped_studies

if TYPE_CHECKING:
    from reluflow.experiments import Study

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
    long: Annotated[
        bool, typer.Option("--long", help="Also make runs that the study postpones as too long.")
    ] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Run a study: everything that its store does not have yet."""
    from reluflow.experiments import plan, read_study
    from reluflow.experiments.sweep import store_path

    read = read_study(study, quick=quick)
    if dry_run:
        planned = plan(read, store=store, jobs=jobs, retry_failed=retry, long_runs=long)
        print(json.dumps(planned.to_dict()) if json_ else planned)
        return
    made = _make(
        read,
        store_path(read, store),
        executor=executor.value,
        jobs=jobs,
        scheduler=scheduler,
        retry_failed=retry,
        long_runs=long,
        command=context.obj,
    )
    _conclude(made, json_, None)


def run_study(
    name: str, jobs: int | None, out: Path | None, as_json: bool, command: str | None
) -> None:
    """Makes a study that comes with the package, or of a file, and writes its page.

    Parameters
    ----------
    name : str
    jobs : int or None
        Workers; None means one a core.
    out : Path or None
        Folder of the page; ``<study>-report`` by default.
    as_json : bool
        Whether JSON alone is printed on standard output.
    command : str or None
        The command line as it was typed.
    """
    from reluflow.experiments import read_study
    from reluflow.experiments.sweep import store_path
    from reluflow.report.study import check_study_folder, write_study_reports

    read = read_study(name)
    path = store_path(read, None)
    check_study_folder(path, out, read.name)
    made = _make(read, path, executor="processes", jobs=jobs, command=command)
    page = write_study_reports(path, out, study=read.name)[0]
    _conclude(made, as_json, page)


@dataclass(frozen=True)
class _Made:
    """What a study's runs came to."""

    name: str
    store: Path
    statuses: list[str]
    reasons: list[str]

    def count(self, status: str) -> int:
        return self.statuses.count(status)


def _make(read: Study, path: Path, **settings: Any) -> _Made:
    from reluflow.experiments import sweep
    from reluflow.experiments.sweep import say

    try:
        frame = sweep(read, store=path, progress=sys.stderr.isatty(), **settings)
    except KeyboardInterrupt:
        say(f"reluflow: interrupted; what was finished is in {path}: the same command goes on")
        raise typer.Exit(_INTERRUPTED) from None
    return _Made(read.name, path, frame["status"].tolist(), frame["reason"].tolist())


def _conclude(made: _Made, as_json: bool, page: Path | None) -> None:
    """Prints what was made, and leaves with a code."""
    from reluflow.experiments.sweep import say

    failed, postponed = made.count("failed"), made.count("postponed")
    if as_json:
        counts = {"study": made.name, "runs": len(made.statuses), "failed": failed}
        counts |= {"postponed": postponed, "store": str(made.store)}
        print(json.dumps({**counts, "report": str(page)} if page else counts))
    else:
        print(f"{made.name}: {len(made.statuses):,} runs in {made.store}, {failed:,} failed")
        for status, reason in zip(made.statuses, made.reasons, strict=True):
            if status == "postponed":
                print(f"  one was not made: {reason}")
        if page:
            print(f"Report: {page}")
    if failed:
        first = made.reasons[made.statuses.index("failed")]
        say(f"reluflow: {failed:,} runs failed, the first with {first}")
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
