"""What the engine and the store cost a run, and what a second core brings.

The time a run of a study of trivial runs, for each executor; a study of small flows on one worker
process and on two; and the same flows in a pool of `concurrent.futures` by hand, one after another,
with nothing stored or resumed: its time over that of the study, on the same workers, in turn.

    python -m bench.sweep_overhead [--runs N] [--flows N] [--repeats 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import reluflow as rf
from bench import topic
from bench.timing import Samples, ratios
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


def on_workers(folder, flows, workers, repeats):
    """Seconds a run of the study and of the script, in turn, on processes started beforehand."""
    ours, by_hand = [], []
    # Processor times of workers that outlive the measurement cannot be asked for.
    unknown = [float("nan")] * repeats
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for repeat in range(-1, repeats):
            document = {**FLOWS, "replicates": flows if repeat >= 0 else 4 * workers}
            store = folder / f"{workers}-{repeat}.sqlite"
            study = seconds(document, store, executor=pool) / document["replicates"]
            start = time.perf_counter()
            list(pool.map(one_flow, range(document["replicates"])))
            script = (time.perf_counter() - start) / document["replicates"]
            # The first of all loads the libraries.
            if repeat >= 0:
                ours.append(study)
                by_hand.append(script)
    return Samples(ours, unknown), Samples(by_hand, unknown)


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
    found, ours = topic.Findings(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for executor in ("processes", "threads"):
            each = overhead(folder, runs, executor)
            found.facts.append(
                topic.Fact(f"a trivial run, {executor}", 1e3 * each, "ms", note=f"of {runs:,}")
            )
        for workers in range(1, WORKERS + 1):
            ours[workers], by_hand = on_workers(folder, flows, workers, options.repeats)
            found.compare(
                f"a run of a study, {workers} worker{'s' * (workers > 1)}",
                ours[workers],
                {"concurrent.futures by hand": by_hand},
                note=f"{flows} flows",
            )
    for workers, samples in ours.items():
        rate = 1 / statistics.median(samples.wall)
        found.facts.append(topic.Fact(f"runs a second, workers: {workers}", rate))
    low, middle, high = ratios(ours[1].wall, ours[WORKERS].wall)
    found.facts.append(
        topic.Fact(f"{WORKERS} workers over 1", middle, note=f"{low:.2f} to {high:.2f}")
    )
    return found


def arguments(parser):
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--flows", type=int, default=200)


if __name__ == "__main__":
    topic.main("bench.sweep_overhead", __doc__, measure, None, threads=WORKERS, more=arguments)
