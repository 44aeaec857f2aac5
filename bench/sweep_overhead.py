"""What the engine and the store cost a run, and what a second core brings.

The time a run of a study of trivial runs, for each executor; the throughput of a study of real runs
on two workers over that on one; and the same runs in `concurrent.futures` by hand, with nothing
stored or resumed, over the study.

    python -m bench.sweep_overhead [--runs 10000] [--flows 200] [--quick] [--json FILE]
"""

from __future__ import annotations

import concurrent.futures
import tempfile
import time
from pathlib import Path

import reluflow as rf
from bench import topic
from bench.timing import Samples
from reluflow.experiments import Experiment, Record, Setting

WORKERS = 2


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
    "fixed": {
        "n_clusters": 8,
        "dim": 2000,
        "noise": 0.2,
        "per_cluster": 20,
        "width": 100,
        "init_scale": 1e-3,
        "log_inverse_loss": 100.0,
    },
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


def study(folder, runs, jobs):
    """Seconds a run; the difference of a long and a short study leaves out what starting takes."""
    short, long = (
        seconds({**FLOWS, "replicates": count}, folder / f"{jobs}-{count}.sqlite", jobs=jobs)
        for count in (runs // 10, runs)
    )
    return (long - short) / (runs - runs // 10)


def by_hand(runs):
    """Seconds a flow of a script with a pool of as many processes, started beforehand."""
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(one_flow, range(2 * WORKERS)))
        start = time.perf_counter()
        list(pool.map(one_flow, range(runs)))
        return (time.perf_counter() - start) / runs


def one_flow(seed):
    """What a run of the study does, without the study."""
    fixed = FLOWS["fixed"]
    clusters = rf.ClusterModel.orthogonal(fixed["n_clusters"], fixed["dim"], fixed["noise"])
    examples = fixed["n_clusters"] * fixed["per_cluster"]
    drawn = rf.draw(clusters, examples, fixed["width"], init_scale=fixed["init_scale"], seed=seed)
    target = fixed["log_inverse_loss"]
    flow = rf.gradient_flow(drawn.net, drawn.data, log_inverse_loss=target, num_threads=1)
    return flow.normalized_margin


def measure(options):
    """Overheads, and throughput on one worker and two."""
    runs, flows = (500, 40) if options.quick else (options.runs, options.flows)
    found = topic.Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for executor in ("processes", "threads"):
            each = overhead(folder, runs, executor)
            found.facts.append(
                topic.Fact(f"a trivial run, {executor}", 1e3 * each, "ms", note=f"of {runs:,}")
            )
        one, two = (study(folder, flows, jobs) for jobs in (1, WORKERS))
    found.facts += [
        topic.Fact("runs a second, 1 worker", 1 / one, note=f"{flows} flows"),
        topic.Fact(f"runs a second, {WORKERS} workers", 1 / two),
        topic.Fact(f"{WORKERS} workers over 1", one / two),
    ]
    # Processor times of workers that outlive the measurement cannot be asked for.
    nothing = [float("nan")]
    found.compare(
        f"a run of a study, {WORKERS} workers",
        Samples([two], nothing),
        {"concurrent.futures by hand": Samples([by_hand(flows)], nothing)},
        note="timed once",
    )
    return found


def arguments(parser):
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--flows", type=int, default=200)


if __name__ == "__main__":
    topic.main("bench.sweep_overhead", __doc__, measure, None, threads=WORKERS, more=arguments)
