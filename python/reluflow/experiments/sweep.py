"""Runs a study: everything that is missing in its store, on any executor."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reluflow._results import Result
from reluflow._threads import available_threads
from reluflow._validation import available_memory
from reluflow.experiments.engine import Call, Outcome, Pool, run_all
from reluflow.experiments.spec import Run, Study, read_study
from reluflow.experiments.store import DONE, FAILED, POSTPONED, Row, Store, timestamp

if TYPE_CHECKING:
    import pandas as pd

# What the interpreter and the libraries take in every worker process, and what starting it takes.
_WORKER_BYTES = 250e6
_START_SECONDS = 2.0


@dataclass(frozen=True)
class Plan(Result):
    """What running a study would take.

    Attributes
    ----------
    study : str
    experiment : str
    runs : int
        All runs of the study.
    stored : int
        Those that the store has already.
    failed : int
        Those that failed before, and are run again only when asked to.
    missing : int
        Those that would be run.
    postponed : int
        Those that would not, because each is predicted to take longer than the study allows a run.
    core_seconds : float
        Estimated time of the missing runs on one core of this machine.
    longest_seconds : float
        Estimated time of the longest of them.
    jobs : int
        Workers that the estimate is for.
    wall_seconds : float
        Estimated time on that many worker processes, from their start.
    run_bytes : float
        Estimated memory of the largest run.
    total_bytes : float
        With that many workers at once.
    available_bytes : float or None
        Memory that is free.
    measured_ratio : float or None
        Time of the study's stored runs over the model's estimate of it, by which the estimate of
        the others was corrected; None where there are none.
    """

    study: str
    experiment: str
    runs: int
    stored: int
    failed: int
    missing: int
    postponed: int
    core_seconds: float
    longest_seconds: float
    jobs: int
    wall_seconds: float
    run_bytes: float
    total_bytes: float
    available_bytes: float | None
    measured_ratio: float | None

    def __str__(self) -> str:
        basis = "from the cost model"
        if self.measured_ratio is not None:
            basis = f"{self.measured_ratio:.2g} times the model's, as for the runs in the store"
        lines = [
            f"study {self.study}: {self.runs:,} runs of {self.experiment}",
            f"  in the store        {self.stored:,} done, {self.failed:,} failed",
            f"  to run              {self.missing:,}",
            f"  time on one core    {duration(self.core_seconds)} ({basis})",
            f"  longest run         {duration(self.longest_seconds)}",
            f"  time on {self.jobs} worker{'s' * (self.jobs != 1):<9} "
            f"{duration(self.wall_seconds)}",
            f"  memory              {_gigabytes(self.total_bytes)} for {self.jobs} at once, "
            f"the largest run {_gigabytes(self.run_bytes)}",
        ]
        if self.postponed:
            lines.append(f"  postponed           {self.postponed:,} long ones, unless asked for")
        if self.available_bytes is not None and self.total_bytes > self.available_bytes:
            lines.append(
                f"  only {_gigabytes(self.available_bytes)} of memory are free: use fewer jobs"
            )
        return "\n".join(lines)


def plan(
    spec: str | Path | Mapping[str, Any] | Study,
    *,
    quick: bool = False,
    store: str | Path | None = None,
    jobs: int | None = None,
    retry_failed: bool = False,
    long_runs: bool = False,
) -> Plan:
    """What `sweep` would do with the same arguments, without doing it.

    Parameters
    ----------
    spec, quick, store, jobs, retry_failed, long_runs
        As for `sweep`.

    Raises
    ------
    SpecError, StoreError
        As for `sweep`.
    """
    study = read_study(spec, quick=quick)
    runs = list(study.runs())
    path = store_path(study, store)
    statuses: dict[str, str] = {}
    seconds: dict[str, float] = {}
    if path.exists():
        with Store(path) as opened:
            statuses, seconds = opened.statuses(), opened.seconds()
    costs = {run.key: study.experiment.cost(run.settings, study.outputs) for run in runs}
    missing = _missing(runs, statuses, resume=True, retry_failed=retry_failed)
    missing, postponed = _by_length(study, missing, long_runs)
    known = [run.key for run in runs if run.key in seconds]
    modelled = sum(costs[key].seconds for key in known)
    ratio = sum(seconds[key] for key in known) / modelled if modelled > 0 else None
    scale = 1.0 if ratio is None else ratio
    each = [scale * costs[run.key].seconds for run in missing]
    workers = available_threads() if jobs is None else jobs
    largest = max((costs[run.key].bytes for run in missing), default=0.0)
    return Plan(
        study=study.name,
        experiment=study.experiment.name,
        runs=len(runs),
        stored=sum(statuses.get(run.key) == DONE for run in runs),
        failed=sum(statuses.get(run.key) == FAILED for run in runs),
        missing=len(missing),
        postponed=len(postponed),
        core_seconds=sum(each),
        longest_seconds=max(each, default=0.0),
        jobs=workers,
        wall_seconds=max([sum(each) / workers, *each]) + _START_SECONDS * bool(each),
        run_bytes=largest,
        total_bytes=workers * (largest + _WORKER_BYTES),
        available_bytes=available_memory(),
        measured_ratio=ratio,
    )


def sweep(
    spec: str | Path | Mapping[str, Any] | Study,
    *,
    executor: str | Executor | None = None,
    store: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    quick: bool = False,
    jobs: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    long_runs: bool = False,
    command: str | None = None,
) -> pd.DataFrame:
    """Runs a study and returns its table, one run a row.

    Every run is stored as soon as it is finished, short ones in batches of a quarter of a second.
    Ctrl-C, a crash or a full disk lose at most the runs that were under way: the same call goes on
    where it stopped, and ends with the same rows.

    Parameters
    ----------
    spec : path, str, mapping or Study
        A TOML file, the name of a study that comes with the package, or what such a file holds as
        a dictionary.
    executor : str, Executor or None
        ``"processes"`` (None means these), ``"threads"``, ``"dask"``, ``"mpi"``, or any
        ``concurrent.futures.Executor``, such as Dask's ``client.get_executor()``. A run uses one
        thread, and its numbers do not depend on the executor.
    store : path or None
        SQLite file of the results, made if need be; None means ``<study>.sqlite`` here.
    resume : bool
        Whether runs that the store has are taken from it. If not, all are run again.
    progress : bool
        Whether a bar with the time left is shown on standard error.
    quick : bool
        The quick size of the study.
    jobs : int or None
        Workers to start; None means one a core. A given executor has its own.
    scheduler : str or None
        Address of a Dask scheduler, for ``executor="dask"``; None starts a local cluster.
    retry_failed : bool
        Whether runs that failed before are run again.
    long_runs : bool
        Whether runs are made that are predicted to take longer than the study's
        ``max_run_seconds``; otherwise they are rows with status ``postponed`` and the prediction.
    command : str or None
        What to write down as the way to reproduce the study; None means this call.

    Returns
    -------
    DataFrame
        As `Store.frame`. Runs that failed are in it, with their reason.

    Raises
    ------
    SpecError
        If the study is wrong anywhere; nothing has run then.
    StoreError
        If the store cannot be read or written, or another driver uses it.
    WorkersLostError
        If the workers end and cannot be replaced.
    KeyboardInterrupt
        After Ctrl-C, when everything has been called back and the store is closed.
    """
    study = read_study(spec, quick=quick)
    pool = Pool("processes" if executor is None else executor, jobs, scheduler)
    runs = list(study.runs())
    path = store_path(study, store)
    with Store(path, write=True) as opened:
        change = opened.begin(study, runs, command or _call(study, path))
        if change is not None:
            say(str(change))
        missing = _missing(runs, opened.statuses(), resume=resume, retry_failed=retry_failed)
        missing, postponed = _by_length(study, missing, long_runs)
        opened.add((_postponed_row(study, run, pool.name), {}) for run in postponed)
        if missing:
            _run(study, missing, pool, opened, progress)
        return opened.frame(study.name)


def store_path(study: Study, store: str | Path | None) -> Path:
    """Where a study is stored unless another file is named."""
    return Path(f"{study.name}.sqlite") if store is None else Path(store)


def _missing(
    runs: list[Run], statuses: Mapping[str, str], *, resume: bool, retry_failed: bool
) -> list[Run]:
    kept = set() if not resume else {DONE} if retry_failed else {DONE, FAILED}
    return [run for run in runs if statuses.get(run.key) not in kept]


def _by_length(study: Study, runs: list[Run], long_runs: bool) -> tuple[list[Run], list[Run]]:
    """Runs to make now, and those that are predicted to take longer than the study allows."""
    if long_runs or math.isinf(study.max_run_seconds):
        return runs, []
    long = {run.key for run in runs if _seconds(study, run) > study.max_run_seconds}
    return (
        [run for run in runs if run.key not in long],
        [run for run in runs if run.key in long],
    )


def _seconds(study: Study, run: Run) -> float:
    return study.experiment.cost(run.settings, study.outputs).seconds


def _postponed_row(study: Study, run: Run, executor: str) -> Row:
    cost = study.experiment.cost(run.settings, study.outputs)
    reason = (
        f"predicted to take {duration(cost.seconds)} of one core and {_gigabytes(cost.bytes)}; "
        "sweep --long makes it"
    )
    now = timestamp()
    outcome = Outcome(run.key, POSTPONED, reason, started=now, finished=now)
    return _row(study, run, outcome, executor)


def _run(study: Study, missing: list[Run], pool: Pool, store: Store, progress: bool) -> None:
    by_key = {run.key: run for run in missing}
    calls = [_call_of(study, run) for run in missing]
    costs = {call.key: call.cost for call in calls}
    with sweep_progress(progress, study.name, sum(costs.values()), len(calls)) as advance:
        for batch in run_all(calls, pool):
            store.add((_row(study, by_key[one.key], one, pool.name), one.arrays) for one in batch)
            for one in batch:
                advance(costs[one.key], one.status == FAILED)


def _call_of(study: Study, run: Run) -> Call:
    experiment = study.experiment
    cost = experiment.cost(run.settings, study.outputs)
    return Call(
        key=run.key,
        run=experiment.run,
        settings=run.settings,
        outputs=study.outputs,
        cost=cost.seconds,
        memory=cost.bytes,
        together=experiment.together,
    )


def _row(study: Study, run: Run, outcome: Outcome, executor: str) -> Row:
    return Row(
        key=run.key,
        experiment=study.experiment.name,
        numerics=study.experiment.numerics,
        settings=run.settings,
        status=outcome.status,
        reason=outcome.reason,
        scalars=outcome.scalars,
        version=outcome.version,
        instruction_set=outcome.instruction_set,
        seconds=outcome.seconds,
        started=outcome.started,
        finished=outcome.finished,
        host=outcome.host,
        executor=executor,
        threads=1,
    )


def _call(study: Study, path: Path) -> str:
    words = ["reluflow", "sweep", study.origin, "--store", str(path)]
    return shlex.join(words + ["--quick"] * study.quick)


def say(line: str) -> None:
    """One line for a person, on standard error."""
    print(line, file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds as a person says it."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    for unit, size, limit in (("min", 60.0, 7200.0), ("h", 3600.0, 172800.0)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"


Advance = Callable[[float, bool], None]


@contextlib.contextmanager
def sweep_progress(progress: bool, name: str, total_cost: float, runs: int) -> Iterator[Advance]:
    """Shows runs, failures and the time left, which follows from the cost of what is left."""
    if not progress:
        yield lambda cost, failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    state = _State(total_cost, runs)
    with bar:
        task = bar.add_task(name, total=1.0, state=str(state))

        def advance(cost: float, failed: bool) -> None:
            state.count(cost, failed)
            bar.update(task, completed=state.share, state=str(state))

        yield advance


class _State:
    """Progress as a share of the whole cost."""

    def __init__(self, total_cost: float, runs: int) -> None:
        self.total_cost = total_cost
        self.runs = runs
        self.done = 0
        self.failed = 0
        self.cost = 0.0
        self.begin = time.monotonic()

    def count(self, cost: float, failed: bool) -> None:
        self.done += 1
        self.failed += failed
        self.cost += cost

    @property
    def share(self) -> float:
        return self.cost / self.total_cost if self.total_cost > 0 else self.done / self.runs

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        left = ""
        if 0 < self.done < self.runs:
            elapsed = time.monotonic() - self.begin
            left = f", {duration(elapsed * (1 - self.share) / self.share)} left"
        return f"{self.done:,} of {self.runs:,} runs{failed}{left}"
