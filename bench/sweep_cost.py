"""Fits the cost model of studies on this machine, or checks it on the studies that ship.

Without ``--check``: measures the processor time of every output of runs of those studies, one
thread, and prints for each the coefficients that fit best, and how far the model as it stands is
off. With it: makes every run of every study in its quick size and prints, study by study, the
processor time that the model predicts and what it took; fails where they differ by more than a
factor of 2.

    python -m bench.sweep_cost [--full 7] [--limit 25]
    python -m bench.sweep_cost --check [--studies losses digits]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict

import numpy as np
from scipy.optimize import least_squares

from reluflow._threads import one_blas_thread
from reluflow.experiments import cost_model, read_study, shipped_studies
from reluflow.experiments.deep import MEASURES, TrainedDeep
from reluflow.experiments.outputs import OUTPUTS
from reluflow.experiments.trained import TrainedOnClusters, TrainedOnDigits

# Of each experiment: what is trained, what measures it, and what its time is modelled by.
MODELLED = {
    "double-edge": (TrainedOnClusters, OUTPUTS, cost_model.TWO_LAYERS, cost_model.size_of),
    "digits": (TrainedOnDigits, OUTPUTS, cost_model.TWO_LAYERS, cost_model.size_of),
    "deep": (TrainedDeep, MEASURES, cost_model.DEEP, cost_model.deep_size_of),
}


def sampled(name, full, limit):
    """The quick size of a study, one seed, and some runs of its full size that are not too long."""
    study = read_study(name, quick=True)
    yield from ((study, run) for run in study.runs() if run.settings["seed"] == study.seed)
    study = read_study(name)
    cost = study.experiment.cost
    affordable = [run for run in study.runs() if cost(run.settings, study.outputs).seconds <= limit]
    chosen = random.Random(1).sample(affordable, min(full, len(affordable)))
    yield from ((study, run) for run in chosen)


def output_times(study, run):
    """Processor seconds of each output, what they need from one another made by the first."""
    kind, measures, _, _ = MODELLED[study.experiment.name]
    trained = kind(run.settings)
    found = {}
    for name in dict.fromkeys((run.settings.get("network", "flow"), *study.outputs)):
        start = time.process_time()
        measures[name](trained)
        found[name] = time.process_time() - start
    return found


def fit(counts, times):
    """Coefficients of at least 0 that fit the logarithm of the time; outliers count less."""
    counts, times = np.array(counts, dtype=float), np.array(times)
    seen = counts.any(axis=0)
    used = counts[:, seen]
    start = np.log(np.median(times) / (used.max(axis=0) * used.shape[1]))
    found = least_squares(
        lambda logs: np.log(used @ np.exp(logs)) - np.log(times), start, loss="soft_l1"
    )
    coefficients = np.zeros(counts.shape[1])
    coefficients[seen] = np.exp(found.x)
    return coefficients


def fit_all(names, full, limit):
    """Prints the best coefficients of every output."""
    rows = defaultdict(list)
    for name in names:
        for study, run in sampled(name, full, limit):
            if study.experiment.name not in MODELLED:
                continue
            _, _, models, size_of = MODELLED[study.experiment.name]
            for output, seconds in output_times(study, run).items():
                # What takes no time was not done.
                if seconds > 1e-3:
                    rows["deep" if models is cost_model.DEEP else "two layers", output].append(
                        (models[output], size_of(run.settings), seconds)
                    )
    for (kind, output), measured in rows.items():
        counts = [model.operations(size) for model, size, _ in measured]
        times = [seconds for _, _, seconds in measured]
        found = {
            "output": f"{output}, {kind}",
            "coefficients": [float(f"{one:.2g}") for one in fit(counts, times)],
            "model over measured": ratios((m.seconds(size), t) for m, size, t in measured),
        }
        print(json.dumps(found), flush=True)


def ratios(pairs):
    """Smallest, typical and largest ratio, as a text."""
    found = np.array([a / b for a, b in pairs])
    middle = np.exp(np.log(found).mean())
    return f"{found.min():.2g} .. {middle:.2g} .. {found.max():.2g}"


def check(names):
    """Prints predicted and actual processor time of every study in its quick size."""
    print(f"{'study, quick size':<24}{'runs':>6}{'predicted s':>13}{'took s':>10}{'ratio':>8}")
    total, off = np.zeros(2), []
    for name in names:
        study = read_study(name, quick=True)
        runs = list(study.runs())
        predicted = sum(study.experiment.cost(r.settings, study.outputs).seconds for r in runs)
        start = time.process_time()
        for run in runs:
            study.experiment.run(run.settings, study.outputs)
        took = time.process_time() - start
        total += predicted, took
        ratio = predicted / took
        off += [name] * (not 0.5 <= ratio <= 2)
        print(
            f"{name:<24}{len(runs):>6}{predicted:>13.1f}{took:>10.1f}{ratio:>8.2f}",
            flush=True,
        )
    print(f"{'all':<30}{total[0]:>13.1f}{total[1]:>10.1f}{total[0] / total[1]:>8.2f}")
    if off:
        raise SystemExit(f"off by more than a factor of 2: {', '.join(off)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--studies", nargs="*", default=list(shipped_studies()))
    parser.add_argument("--full", type=int, default=7, help="runs of each full size that are timed")
    parser.add_argument("--limit", type=float, default=25.0, help="seconds of such a run at most")
    given = parser.parse_args()
    with one_blas_thread():
        if given.check:
            check(given.studies)
        else:
            fit_all(given.studies, given.full, given.limit)


if __name__ == "__main__":
    main()
