"""The engine: the same rows from any executor, whatever is killed on the way."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

import reluflow as rf
from reluflow.experiments import WorkersLostError, plan, read_store
from reluflow.experiments.engine import Call, Pool, run_all
from reluflow.experiments.registry import Record

HERE = Path(__file__).parent
VOLATILE = ["host", "executor", "threads", "started", "finished"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def steady(frame):
    """The columns that may not differ between two runs of a study."""
    return frame[[c for c in frame if not c.endswith("seconds") and c not in VOLATILE]]


def numbers(**fixed):
    return {
        "name": "numbers",
        "experiment": "sweep_experiments:ARITHMETIC",
        "fixed": fixed,
        "axes": {"x": {"linear": [0, 3], "count": 10}, "k": [1, 2]},
    }


FLOWS = {
    "name": "flows",
    "outputs": ["flow"],
    "replicates": 3,
    "fixed": {"dim": 500, "noise": 0.3, "per_cluster": 5, "width": 16, "log_inverse_loss": 5},
    "axes": {"n_clusters": [2, 6], "bias": [True, False], "means": ["orthogonal", "random"]},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "flows.sqlite"
    return rf.sweep(FLOWS, store=path, executor="threads", jobs=1, progress=False)


class Immediate(Executor):
    """An executor of somebody else: calls are made at once, by whoever hands them over."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("kind", ["processes", "threads", "given", "of somebody else"])
def test_rows_do_not_depend_on_the_executor(tmp_path, undisturbed, kind):
    executor = {"given": ThreadPoolExecutor(3), "of somebody else": Immediate()}.get(kind, kind)
    frame = rf.sweep(
        FLOWS, store=tmp_path / "a.sqlite", executor=executor, jobs=2, progress=False
    ) if isinstance(executor, str) else rf.sweep(
        FLOWS, store=tmp_path / "a.sqlite", executor=executor, progress=False
    )  # fmt: skip
    assert (frame.status == "done").all()
    pd.testing.assert_frame_equal(steady(frame), steady(undisturbed), check_exact=True)
    if not isinstance(executor, str):
        # It is still usable: only its owner ends it.
        assert executor.submit(int, "3").result() == 3
        executor.shutdown()


def test_dask_gives_the_same_rows(tmp_path, undisturbed):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        frame = rf.sweep(
            FLOWS, store=tmp_path / "a.sqlite", executor=client.get_executor(), progress=False
        )
        address = cluster.scheduler_address
        again = rf.sweep(
            FLOWS,
            store=tmp_path / "b.sqlite",
            executor="dask",
            scheduler=address,
            progress=False,
        )
    for one in (frame, again):
        pd.testing.assert_frame_equal(steady(one), steady(undisturbed), check_exact=True)


def mpi_environment():
    """The environment with an mpiexec on PATH; MPI from PyPI has it beside the interpreter."""
    pytest.importorskip("mpi4py")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if shutil.which("mpiexec", path=path) is None:
        pytest.skip("no mpiexec")
    return {**os.environ, "PATH": path}


@pytest.mark.parametrize("launcher", [[], ["mpiexec", "-n", "3"]], ids=["spawned", "launched"])
def test_mpi_makes_the_same_rows(tmp_path, launcher):
    environment = mpi_environment()
    study = tmp_path / "flows.toml"
    study.write_text(
        'name = "flows"\noutputs = ["flow"]\nreplicates = 4\n'
        "[fixed]\nn_clusters = 2\ndim = 200\nnoise = 0.1\nper_cluster = 3\nwidth = 6\n"
    )
    under = [*launcher, sys.executable] + ["-m", "mpi4py.futures"] * bool(launcher)
    command = [*under, "-m", "reluflow", "sweep", study, "--executor", "mpi", "--jobs", "2"]
    ended = subprocess.run(
        [*command, "--store", tmp_path / "a.sqlite"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    undisturbed = rf.sweep(study, store=tmp_path / "u.sqlite", executor="threads", progress=False)
    stored = read_store(tmp_path / "a.sqlite")
    assert stored.executor.eq("mpi").all()
    pd.testing.assert_frame_equal(steady(stored), steady(undisturbed), check_exact=True)


def test_mpi_without_a_launcher_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("mpi4py")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="finds no mpiexec on PATH"):
        rf.sweep(numbers(), store=tmp_path / "a.sqlite", executor="mpi", progress=False)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import json
import reluflow as rf

if __name__ == "__main__":
    document, store, executor = json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
    rf.sweep(document, store=store, executor=executor, jobs=2, progress=False)
    print("finished")
"""


@pytest.fixture
def start(tmp_path):
    """Starts a sweep in a process of its own, as a user's script would."""
    import json

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    started = []

    def start(document, store, executor="processes"):
        command = [sys.executable, script, str(HERE), json.dumps(document), store, executor]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_rows(store, count, process):
    """Waits until so many runs are stored."""
    while process.poll() is None:
        try:
            if len(read_store(store)) >= count:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.02)


def children(process):
    """Processes whose parent, or its parent, is ``process``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    near = {pid for pid, parent in parents.items() if parent == process.pid}
    return near | {pid for pid, parent in parents.items() if parent in near}


def require_gone(workers):
    """No worker outlives its driver."""
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_rows(tmp_path, start):
    slow = numbers(sleep=0.05)
    undisturbed = rf.sweep(
        slow, store=tmp_path / "u.sqlite", executor="threads", jobs=2, progress=False
    )
    store = tmp_path / "a.sqlite"
    rng = random.Random(5)
    workers = set()
    for stored in (0, 3, 8, 13):
        process = start(slow, store)
        wait_for_rows(store, stored, process)
        time.sleep(0.05 * rng.random())
        workers |= children(process)
        process.kill()
        process.wait()
    assert start(slow, store).communicate()[0] == "finished\n"
    resumed = read_store(store)
    pd.testing.assert_frame_equal(steady(resumed), steady(undisturbed), check_exact=True)
    require_gone(workers)


@pytest.mark.parametrize("executor", ["processes", "threads"])
def test_ctrl_c_ends_the_sweep_and_keeps_what_was_finished(tmp_path, start, executor):
    store = tmp_path / "a.sqlite"
    process = start(numbers(sleep=0.3), store, executor)
    wait_for_rows(store, 2, process)
    workers = children(process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in told
    assert 2 <= len(read_store(store)) < 20
    require_gone(workers)
    assert plan(numbers(sleep=0.3), store=store).missing == 20 - len(read_store(store))


@pytest.mark.parametrize("executor", ["threads", "dask"])
def test_ctrl_c_ends_the_command_whatever_its_workers_do(tmp_path, executor):
    study = tmp_path / "numbers.toml"
    study.write_text(
        'name = "numbers"\nexperiment = "sweep_experiments:ARITHMETIC"\nreplicates = 4\n'
        "[fixed]\nx = 1.0\nsleep = 60.0\n"
    )
    store = tmp_path / "a.sqlite"
    command = [sys.executable, "-m", "reluflow", "sweep", study, "--store", store]
    process = subprocess.Popen(
        [*command, "--executor", executor, "--jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not store.exists():
        time.sleep(0.02)
    time.sleep(1)
    workers = children(process)
    process.send_signal(signal.SIGINT)
    # A run sleeps for a minute.
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "reluflow: interrupted; what was finished is in" in told
    require_gone(workers)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    import json

    command = [sys.executable, script, HERE, json.dumps(numbers()), tmp_path / "a.sqlite"]
    ended = subprocess.run(
        [*command, "processes"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode != 0
    assert "call sweep under if __name__ == '__main__':" in ended.stderr


def test_a_run_that_ends_its_worker_fails_alone(tmp_path):
    # x runs over 0, 1/3, .., 3, so x = 1 is there for k = 1 and k = 2.
    document = numbers(dies_at=1.0)
    frame = rf.sweep(document, store=tmp_path / "a.sqlite", jobs=2, progress=False)
    dead = frame[frame.status == "failed"]
    assert dead.x.tolist() == [1.0, 1.0]
    assert dead.reason.str.startswith("WorkerDied: its worker process ended").all()
    assert len(frame) == 20


def test_a_killed_worker_costs_nothing(tmp_path, start):
    slow = numbers(sleep=0.1)
    undisturbed = rf.sweep(
        slow, store=tmp_path / "u.sqlite", executor="threads", jobs=2, progress=False
    )
    store = tmp_path / "a.sqlite"
    process = start(slow, store)
    wait_for_rows(store, 4, process)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process)}
    workers = [pid for pid, command in commands.items() if b"spawn_main" in command]
    os.kill(random.Random(1).choice(workers), signal.SIGKILL)
    assert process.communicate()[0] == "finished\n"
    pd.testing.assert_frame_equal(steady(read_store(store)), steady(undisturbed), check_exact=True)


def test_killed_dask_workers_cost_nothing(tmp_path, start):
    pytest.importorskip("distributed")
    slow = numbers(sleep=0.3)
    store = tmp_path / "a.sqlite"
    process = start(slow, store, "dask")
    rng = random.Random(2)
    for stored in (2, 8):
        wait_for_rows(store, stored, process)
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process)}
        workers = [pid for pid, command in commands.items() if b"spawn_main" in command]
        os.kill(rng.choice(workers), signal.SIGKILL)
    assert process.communicate()[0] == "finished\n"
    undisturbed = rf.sweep(
        numbers(sleep=0.3), store=tmp_path / "u.sqlite", executor="threads", jobs=9, progress=False
    )
    pd.testing.assert_frame_equal(steady(read_store(store)), steady(undisturbed), check_exact=True)


def test_dask_workers_that_their_cluster_gave_up_are_replaced(tmp_path, start, monkeypatch):
    pytest.importorskip("distributed")
    # A worker takes longer to start again.
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "10ms")
    store = tmp_path / "a.sqlite"
    process = start(numbers(sleep=0.3), store, "dask")
    wait_for_rows(store, 2, process)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process)}
    for pid in (pid for pid, command in commands.items() if b"spawn_main" in command):
        os.kill(pid, signal.SIGKILL)
    assert process.communicate()[0] == "finished\n"
    assert len(read_store(store)) == 20


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for workers in /proc")
@pytest.mark.parametrize("after", [0.0, 0.2, 0.5])
def test_interrupted_while_workers_start_it_says_one_line(tmp_path, after):
    command = [sys.executable, "-m", "reluflow", "sweep", "losses", "--quick", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--store", tmp_path / "a.sqlite"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and len(children(process)) < 3:  # a tracker and two workers
        time.sleep(0.01)
    time.sleep(after)
    # As a terminal does: to all of the group.
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.startswith("reluflow: interrupted; what was finished is in ")
    assert len(said.splitlines()) == 1


def recorded(settings, outputs):
    settings["order"].append(settings["cost"])
    return Record()


def test_the_longest_run_first():
    order = []
    costs = [3.0, 1.0, 7.0, 5.0, 2.0]
    calls = [Call(str(cost), recorded, {"order": order, "cost": cost}, (), cost) for cost in costs]
    outcomes = [one for batch in run_all(calls, Pool("threads", 1)) for one in batch]
    assert order == sorted(costs, reverse=True)
    assert {one.key for one in outcomes} == {str(cost) for cost in costs}


def test_leaving_early_calls_everything_back():
    seen = threading.Event()
    order = []
    calls = [Call(str(i), recorded, {"order": order, "cost": i}, (), i) for i in range(500)]
    for _ in run_all(calls, Pool("threads", 1)):
        seen.set()
        break
    assert seen.is_set()
    assert len(order) < 500


class Gone(Executor):
    """An executor whose workers are gone."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_lost_workers_of_others_are_told(tmp_path):
    with pytest.raises(WorkersLostError, match="the workers are gone"):
        rf.sweep(numbers(), store=tmp_path / "a.sqlite", executor=Gone(), progress=False)


def test_what_is_no_executor_is_refused(tmp_path):
    for executor, error in (("process", ValueError), (3, TypeError)):
        with pytest.raises(error, match="executor"):
            rf.sweep(numbers(), store=tmp_path / "a.sqlite", executor=executor)
    with pytest.raises(ValueError, match="scheduler is for executor='dask' alone"):
        rf.sweep(numbers(), store=tmp_path / "a.sqlite", scheduler="tcp://nowhere:1")
    assert not (tmp_path / "a.sqlite").exists()


def test_the_bar_tells_runs_and_time_left(tmp_path, capsys):
    rf.sweep(numbers(fails_at=0.0), store=tmp_path / "a.sqlite", executor="threads", jobs=2)
    told = capsys.readouterr()
    assert "20 of 20 runs, 2 failed" in told.err
    assert told.out == ""


def test_a_plan_learns_from_the_store(tmp_path):
    store = tmp_path / "a.sqlite"
    before = plan(numbers(), store=store, jobs=2)
    # cost: 1e-3 (1 + k) seconds for k = 1, 2 and 10 values of x.
    assert before.core_seconds == pytest.approx(10 * (2e-3 + 3e-3))
    # Two seconds to start the workers.
    assert before.wall_seconds == pytest.approx(2 + before.core_seconds / 2)
    assert (before.runs, before.missing, before.measured_ratio) == (20, 20, None)
    assert "20 runs of sweep_experiments:ARITHMETIC" in str(before)
    rf.sweep(numbers(), store=store, executor="threads", progress=False)
    wider = numbers()
    wider["axes"]["k"] = [1, 2, 3]
    after = plan(wider, store=store)
    assert (after.runs, after.stored, after.missing) == (30, 20, 10)
    assert after.measured_ratio > 0
    # What is missing costs 10 times 1e-3 (1 + 3) seconds in the model.
    assert after.core_seconds == pytest.approx(after.measured_ratio * 10 * 4e-3)
