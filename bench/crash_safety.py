"""What a sweep of 200 small runs ends with when it is killed again and again.

Runs the same study undisturbed in threads, processes and Dask; in processes whose driver is killed
with SIGKILL at ten random moments and started again; and in a Dask cluster of separate worker
processes of which one is killed twice. Prints for each what its rows and arrays
hash to, the columns that may differ between two runs aside, and fails unless all are the same.

    python -m bench.crash_safety [--runs 200] [--kills 10] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil

from reluflow.experiments import Store, read_study, sweep
from reluflow.experiments.registry import VOLATILE

JOBS = 2


def study(runs):
    """Small runs with numbers of every kind, arrays among them."""
    return {
        "name": "small",
        "outputs": ["flow", "limit", "error", "universal", "radii"],
        "replicates": runs // 4,
        "fixed": {
            "dim": 500,
            "noise": 0.5,
            "per_cluster": 5,
            "width": 16,
            "log_inverse_loss": 5.0,
            "test_points": 10,
            "shifted_points": 100,
            "error_samples": 4096,
        },
        "axes": {"n_clusters": [2, 6], "bias": [True, False]},
    }


def started(document, store, executor):
    """A sweep in a process of its own."""
    command = [sys.executable, "-m", "bench.crash_safety", "--sweep", json.dumps(document)]
    # What is killed leaves semaphores, and Python warns of them.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([*command, "--store", str(store), "--executor", executor], env=quiet)


def finished_runs(store):
    """How many runs a store has, while it is written."""
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            return reader.execute("SELECT count(*) FROM runs").fetchone()[0]
    except sqlite3.Error:
        return 0


def wait_until(store, count, process):
    """Waits until so many runs are stored, or the sweep has ended."""
    while process.poll() is None and finished_runs(store) < count:
        time.sleep(0.005)


def workers(process):
    """Worker processes of a sweep."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(process.pid).children(recursive=True)
        return [one for one in found if any("spawn_main" in word for word in one.cmdline())]
    return []


def driver_killed(document, store, moments, rng):
    """A sweep whose driver is killed at each moment and started again; how often it was."""
    kills = 0
    for moment in moments:
        process = started(document, store, "processes")
        wait_until(store, moment, process)
        time.sleep(0.1 * rng.random())
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert started(document, store, "processes").wait() == 0
    return kills


def worker_killed(document, store, moment, rng):
    """A sweep on Dask, one worker of which is killed, and killed again when it is back."""
    process = started(document, store, "dask")
    wait_until(store, moment, process)
    others, kills = set(), 0
    while kills < 2 and process.poll() is None:
        time.sleep(0.1 + 0.4 * rng.random())
        found = [one for one in workers(process) if one.pid not in others]
        if found:
            victim = rng.choice(found)
            others |= {one.pid for one in found}
            victim.kill()
            kills += 1
    assert process.wait() == 0
    return kills


def digest(store):
    """A hash of all rows and arrays, and the number of rows."""
    with Store(store) as opened:
        frame = opened.frame()
        arrays = [opened.arrays(key) for key in frame["key"]]
    steady = frame.drop(columns=[name for name in frame if name in VOLATILE])
    found = hashlib.sha256(steady.to_csv(index=False).encode())
    for one in arrays:
        for name, array in one.items():
            found.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    assert (frame["status"] == "done").all()
    return found.hexdigest()[:16], len(frame)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--executor", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sweep:
        options = {"executor": given.executor, "store": given.store, "jobs": JOBS}
        sweep(json.loads(given.sweep), progress=False, **options)
        return
    document, rng = study(given.runs), random.Random(given.seed)
    count = len(read_study(document))
    with tempfile.TemporaryDirectory() as folder:

        def moments(number):
            return sorted(rng.randrange(count) for _ in range(number))

        def undisturbed(store, executor):
            assert started(document, store, executor).wait() == 0
            return 0

        cases = {
            "threads": lambda store: undisturbed(store, "threads"),
            "processes": lambda store: undisturbed(store, "processes"),
            "Dask": lambda store: undisturbed(store, "dask"),
            "processes, driver killed": lambda store: driver_killed(
                document, store, moments(given.kills), rng
            ),
            "Dask, a worker killed twice": lambda store: worker_killed(
                document, store, rng.randrange(count // 4), rng
            ),
        }
        print(f"{'':<28}{'kills':>6}{'rows':>6}  hash of rows and arrays")
        hashes = set()
        for number, (name, make) in enumerate(cases.items()):
            store = Path(folder) / f"{number}.sqlite"
            kills = make(store)
            found, rows = digest(store)
            print(f"{name:<28}{kills:>6}{rows:>6}  {found}", flush=True)
            hashes.add(found)
    if len(hashes) != 1:
        raise SystemExit("the rows differ")
    print("all the same, bit for bit")


if __name__ == "__main__":
    main()
