"""Runs many calls on any executor, the longest first, and hands each result on as it comes."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import queue
import shutil
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from reluflow._dispatch import instruction_set
from reluflow._provenance import __version__
from reluflow._threads import available_threads, one_blas_thread
from reluflow._validation import FloatArray, as_positive_int, one_of
from reluflow.experiments.registry import Record, Runner, Scalar, Settings, Together
from reluflow.experiments.store import DONE, FAILED, timestamp

T = TypeVar("T")

EXECUTORS = ("processes", "threads", "dask", "mpi")
# Calls handed over for each worker: enough that none waits, few enough to call them back.
_AHEAD = 3
# Times that a call is run alone after its worker died with it, before it is given up.
_TRIES_ALONE = 2
# Seconds without an outcome after which lost workers are looked for.
_PATIENCE = 5.0
# Outcomes that are handed on together.
_MOST_AT_ONCE = 100
# Of a batch: seconds, and bytes beyond which nothing is added. Short, so that little is lost with
# its worker; and a share of a worker's part of the whole, so that none waits at the end.
_BATCH_SECONDS, _BATCH_BYTES, _BATCH_SHARE = 0.25, 64e6, 1 / 8


@dataclass(frozen=True)
class Call:
    """One call of an experiment; those with the same ``together`` can be made in batches."""

    key: str
    run: Runner
    settings: Settings
    outputs: tuple[str, ...]
    cost: float
    memory: float = 0.0
    together: Together | None = None


Batch = tuple[Call, ...]


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and where."""

    key: str
    status: str
    reason: str
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    arrays: Mapping[str, FloatArray] = field(default_factory=dict)
    seconds: float = 0.0
    started: str = ""
    finished: str = ""
    host: str = ""
    version: str = __version__
    instruction_set: str = instruction_set


class WorkersLostError(OSError):
    """The workers are gone and cannot be started again."""


def batches(calls: Sequence[Call], workers: int) -> list[Batch]:
    """All calls, the longest first; short ones that can be made together in batches."""
    seconds = min(_BATCH_SECONDS, _BATCH_SHARE * sum(call.cost for call in calls) / workers)
    made: list[list[Call]] = []
    room = (0.0, 0.0)
    for call in sorted(calls, key=lambda call: -call.cost):
        left, free = room[0] - call.cost, room[1] - call.memory
        if made and min(left, free) >= 0 and _made_together(made[-1][0], call):
            made[-1].append(call)
        else:
            made.append([call])
            left, free = seconds - call.cost, _BATCH_BYTES - call.memory
        room = left, free
    return [tuple(batch) for batch in made]


def _made_together(first: Call, other: Call) -> bool:
    return (
        first.together is not None
        and first.together == other.together
        and first.outputs == other.outputs
    )


def execute(batch: Batch) -> list[Outcome]:
    """Makes calls, on one thread; an exception becomes an outcome with its reason."""
    with one_blas_thread():
        clock = time.perf_counter()
        starts = _starts(batch)
        share = (time.perf_counter() - clock) / len(batch)
        return [_outcome(call, start, share) for call, start in zip(batch, starts, strict=True)]


def _starts(batch: Batch) -> Sequence[Callable[[], Record]]:
    """What makes each record, after what all have in common is done."""
    together = batch[0].together
    if together is not None and len(batch) > 1:
        # If it fails, each call is made alone and tells its own reason.
        with contextlib.suppress(Exception):
            return together([call.settings for call in batch], batch[0].outputs)
    return [partial(call.run, call.settings, call.outputs) for call in batch]


def _outcome(call: Call, start: Callable[[], Record], share: float) -> Outcome:
    """What a call finds; ``share`` is its part of the seconds spent on its batch."""
    started, clock = timestamp(), time.perf_counter()
    status, reason, record = DONE, "", Record()
    try:
        found = start()
        found.require_free_names(call.settings)
        record = found
    except Exception as error:
        status, reason = FAILED, _reason(error)
    return Outcome(
        key=call.key,
        status=status,
        reason=reason,
        scalars=dict(record.scalars),
        arrays=dict(record.arrays),
        seconds=time.perf_counter() - clock + share,
        started=started,
        finished=timestamp(),
        host=socket.gethostname(),
    )


def _reason(error: BaseException) -> str:
    """One line: what was raised, and where in the code."""
    text = " ".join(str(error).split()) or "no message"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


class Pool:
    """Workers of one kind. Own ones are started and ended here; a given executor is only used.

    Parameters
    ----------
    kind : str or Executor
        One of `EXECUTORS`, or any ``concurrent.futures.Executor``.
    jobs : int or None
        Workers to start; None means one a core.
    scheduler : str or None
        Address of a Dask scheduler; without one a local cluster is started.
    """

    def __init__(
        self, kind: str | Executor, jobs: int | None = None, scheduler: str | None = None
    ) -> None:
        if isinstance(kind, str):
            one_of("executor", kind, EXECUTORS)
        elif not isinstance(kind, Executor) and not hasattr(kind, "submit"):
            raise TypeError(
                f"executor must be one of {', '.join(EXECUTORS)} or a "
                f"concurrent.futures.Executor; got {type(kind).__name__}"
            )
        if scheduler is not None and kind != "dask":
            raise ValueError("scheduler is for executor='dask' alone")
        self.kind = kind
        self.jobs = available_threads() if jobs is None else as_positive_int("jobs", jobs)
        self.scheduler = scheduler
        self.executor: Any = None
        self._cluster: Any = None
        self._close: list[Callable[[], None]] = []

    @property
    def name(self) -> str:
        """What the store calls it."""
        return self.kind if isinstance(self.kind, str) else type(self.kind).__name__

    @property
    def replaceable(self) -> bool:
        """Whether dead workers can be replaced by new ones."""
        return self.kind == "processes"

    def workers(self) -> int:
        """How many calls can run at once."""
        if self.kind in ("processes", "threads"):
            return self.jobs
        for attribute in ("_max_workers", "num_workers"):
            count = getattr(self.executor, attribute, None)
            if isinstance(count, int) and count > 0:
                return count
        client = getattr(self.executor, "_client", None)
        return max(1, len(client.nthreads()), sum(client.nthreads().values())) if client else 64

    def start(self) -> None:
        """Starts the workers."""
        if not isinstance(self.kind, str):
            self.executor = self.kind
        elif self.kind == "threads":
            self.executor = ThreadPoolExecutor(self.jobs, thread_name_prefix="reluflow")
        elif self.kind == "processes":
            self.executor = ProcessPoolExecutor(
                self.jobs,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
            )
            self._require_alive()
        elif self.kind == "dask":
            self.executor = self._dask()
        else:
            self.executor = self._mpi()

    def _require_alive(self) -> None:
        try:
            self.submit(os.getpid).result()
        except BrokenExecutor:
            raise WorkersLostError(
                "worker processes end as soon as they start; in a script, call sweep under "
                "if __name__ == '__main__':"
            ) from None

    def _dask(self) -> Any:
        distributed = _optional("distributed", "executor='dask' needs Dask", "sweep")
        if self.scheduler is None:
            cluster = distributed.LocalCluster(
                n_workers=self.jobs,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=50,
            )
            self._close.append(cluster.close)
            self._cluster = cluster
            client = distributed.Client(cluster)
        else:
            try:
                client = distributed.Client(self.scheduler, timeout=10)
            except OSError as error:
                raise ValueError(f"scheduler={self.scheduler!r} does not answer: {error}") from None
        self._close.append(client.close)
        return client.get_executor(pure=False, retries=3)

    def _mpi(self) -> Any:
        futures = _optional("mpi4py.futures", "executor='mpi' needs mpi4py", "mpi")
        if not _under_mpiexec() and shutil.which("mpiexec") is None:
            # MPI would start the workers with it, and without it hang.
            raise ValueError(
                "executor='mpi' finds no mpiexec on PATH; start the sweep with "
                "'mpiexec -n 8 python -m mpi4py.futures -m reluflow sweep ...'"
            )
        return futures.MPIPoolExecutor(self.jobs)

    def submit(self, call: Callable[..., T], *arguments: object) -> Future[T]:
        """Hands a call over to the workers."""
        # Processes start when they are first needed.
        with _interrupts_held() if self.kind == "processes" else contextlib.nullcontext():
            future: Future[T] = self.executor.submit(call, *arguments)
        return future

    def tend(self) -> None:
        """Starts again workers that a local cluster of Dask has given up.

        It does so with one whose process ended while it started, or took long to start again.
        """
        if self._cluster is not None:
            self._cluster.scale(self.jobs)

    def replace(self) -> None:
        """Ends what is left of the workers and starts new ones."""
        self.stop(cancel=True)
        self.start()

    def stop(self, *, cancel: bool) -> None:
        """Ends the workers; with ``cancel`` at once, whatever they do."""
        executor, self.executor, self._cluster = self.executor, None, None
        if executor is None or not isinstance(self.kind, str):
            return
        if cancel and self.kind == "processes":
            # Taken before the shutdown, which forgets them.
            for process in list((getattr(executor, "_processes", None) or {}).values()):
                process.terminate()
        if self.kind != "dask":
            # Calls under way in threads or behind MPI cannot be ended; nobody waits for them.
            executor.shutdown(wait=not cancel or self.kind == "processes", cancel_futures=cancel)
        while self._close:
            self._close.pop()()


def _under_mpiexec() -> bool:
    """Whether the workers were started with this process."""
    return bool(importlib.import_module("mpi4py.MPI").COMM_WORLD.Get_size() > 1)


def _optional(module: str, need: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"{need}: pip install 'reluflow[{extra}]'") from None


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes started in it never see it.

    Otherwise each that is still loading libraries would print where it was interrupted.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """A worker ends with the driver, however that ends, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Here, so that the libraries' loading is not counted as time of the first run.
    with one_blas_thread():
        pass
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def run_all(calls: Sequence[Call], pool: Pool) -> Iterator[list[Outcome]]:
    """Outcomes of all calls, in lists as they come, the longest started first.

    Calls whose worker dies are run again, each alone; one whose worker dies again has failed. When
    the iteration is left early, by an exception or Ctrl-C, everything is called back.
    """
    driver = _Driver(calls, pool)
    finished = False
    try:
        with one_blas_thread():
            pool.start()
            yield from driver.outcomes()
        finished = True
    finally:
        if not finished:
            driver.cancel()
        pool.stop(cancel=not finished)


class _Driver:
    def __init__(self, calls: Sequence[Call], pool: Pool) -> None:
        self.pool = pool
        self.calls = calls
        self.waiting: deque[Batch] = deque()
        # Calls of which one may have ended its worker.
        self.suspects: deque[Call] = deque()
        self.running: dict[Future[list[Outcome]], Batch] = {}
        self.done: queue.SimpleQueue[Future[list[Outcome]]] = queue.SimpleQueue()

    def outcomes(self) -> Iterator[list[Outcome]]:
        self.waiting.extend(batches(self.calls, self.pool.workers()))
        while self.waiting or self.running or self.suspects:
            if self.suspects and not self.running:
                yield [self._alone(self.suspects.popleft())]
                continue
            if not self.suspects:
                self._fill()
            if self.running:
                yield [one for future in self._finished() for one in self._outcomes(future)]

    def _finished(self) -> list[Future[list[Outcome]]]:
        """Waits for one batch, and takes what else has come by then."""
        futures = [self._next()]
        with contextlib.suppress(queue.Empty):
            while len(futures) < _MOST_AT_ONCE:
                futures.append(self.done.get_nowait())
        return futures

    def _next(self) -> Future[list[Outcome]]:
        while True:
            with contextlib.suppress(queue.Empty):
                return self.done.get(timeout=_PATIENCE)
            self.pool.tend()

    def _outcomes(self, future: Future[list[Outcome]]) -> list[Outcome]:
        batch = self.running.pop(future, None)
        if batch is None:
            return []
        try:
            return future.result()
        except BrokenExecutor as error:
            self._lost(batch, error)
            return []
        except CancelledError:
            raise WorkersLostError("the workers are gone: their executor was shut down") from None
        except Exception as error:
            return [Outcome(call.key, FAILED, _reason(error)) for call in batch]

    def _fill(self) -> None:
        most = _AHEAD * self.pool.workers()
        while self.waiting and len(self.running) < most:
            batch = self.waiting.popleft()
            try:
                self._submit(batch)
            except BrokenExecutor as error:
                self._lost(batch, error)
                return

    def _submit(self, batch: Batch) -> None:
        future = self.pool.submit(execute, batch)
        self.running[future] = batch
        future.add_done_callback(self.done.put)

    def _lost(self, batch: Batch, error: BrokenExecutor) -> None:
        """All that was handed over may be to blame: each call gets a try of its own."""
        if not self.pool.replaceable:
            raise WorkersLostError(f"the workers are gone: {error}") from None
        lost = list(batch)
        answered: dict[Future[list[Outcome]], Batch] = {}
        for future, other in self.running.items():
            # Of what was handed over, some may have been answered before the workers died.
            if future.done() and future.exception() is None:
                answered[future] = other
            else:
                lost.extend(other)
        self.running = answered
        self.suspects.extend(lost)
        self.pool.replace()

    def _alone(self, call: Call) -> Outcome:
        outcome = None
        for _ in range(_TRIES_ALONE):
            outcome = outcome or self._tried(call)
        if outcome is not None:
            return outcome
        reason = (
            f"WorkerDied: its worker process ended without an answer {_TRIES_ALONE} times, alone "
            "(killed, crashed, or out of memory)"
        )
        return Outcome(call.key, FAILED, reason)

    def _tried(self, call: Call) -> Outcome | None:
        try:
            outcomes = self.pool.submit(execute, (call,)).result()
        except BrokenExecutor:
            self.pool.replace()
            return None
        except Exception as error:
            return Outcome(call.key, FAILED, _reason(error))
        return outcomes[0]

    def cancel(self) -> None:
        for future in self.running:
            future.cancel()
