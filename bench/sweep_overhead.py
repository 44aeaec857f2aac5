"""What the engine and the store cost a run, and what a second core brings.

Prints the time a run of a study of trivial runs, for each executor, and the throughput of a study
of real runs on two workers over that on one.

    python -m bench.sweep_overhead [--runs 10000] [--flows 200]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import reluflow as rf
from reluflow.experiments import Experiment, Record, Setting


def trivial(settings, outputs):
    return Record({"double": 2 * settings["x"]})


TRIVIAL = Experiment(
    name="bench.sweep_overhead:TRIVIAL",
    run=trivial,
    settings=(Setting("x", "integer", "a number", minimum=0),),
)
FLOWS = {
    "name": "flows",
    "outputs": ["flow"],
    "fixed": {"n_clusters": 8, "dim": 2000, "noise": 0.2, "per_cluster": 20, "width": 100},
}


def seconds(document, store, **options):
    """Time of a sweep."""
    start = time.perf_counter()
    frame = rf.sweep(document, store=store, progress=False, **options)
    assert (frame.status == "done").all()
    return time.perf_counter() - start


def overhead(folder, runs, executor):
    """Seconds a trivial run, start of the workers included."""
    document = {"name": "trivial", "experiment": TRIVIAL, "axes": {"x": list(range(runs))}}
    return seconds(document, folder / f"{executor}.sqlite", executor=executor) / runs


def throughput(folder, runs, jobs):
    """Runs a second; the difference of a long and a short study leaves out what starting takes."""
    times = {
        count: seconds({**FLOWS, "replicates": count}, folder / f"{jobs}-{count}.sqlite", jobs=jobs)
        for count in (runs // 10, runs)
    }
    return (runs - runs // 10) / (times[runs] - times[runs // 10])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--flows", type=int, default=200)
    parser.add_argument("--executors", nargs="*", default=["processes", "threads"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            f"{executor}, ms a trivial run": 1e3 * overhead(folder, arguments.runs, executor)
            for executor in arguments.executors
        }
        one, two = (throughput(folder, arguments.flows, jobs) for jobs in (1, 2))
        found |= {"flows a second, 1 worker": one, "flows a second, 2 workers": two}
        found["2 workers over 1"] = two / one
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
