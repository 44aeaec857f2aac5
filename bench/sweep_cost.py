"""Fits the cost model of studies on this machine.

Measures the processor time of every output over a range of sizes, one thread, and prints for each
term of the model the coefficient that fits best, and how far the model as it stands is off.

    python -m bench.sweep_cost [--repeats 2]
"""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np

from reluflow._threads import one_blas_thread
from reluflow.experiments.built_in import DOUBLE_EDGE, ON_DIGITS, size_of
from reluflow.experiments.outputs import OUTPUTS, gradients
from reluflow.experiments.trained import TrainedOnClusters, TrainedOnDigits

PROBLEMS = [
    {"n_clusters": k, "dim": dim, "noise": noise, "per_cluster": p, "width": m, **more}
    for k, dim, noise, p, m, more in [
        (2, 2000, 1.0, 5, 10, {}),
        (2, 2000, 1.0, 200, 20, {"log_inverse_loss": 1e4}),
        (8, 2000, 0.2, 10, 100, {}),
        (8, 2000, 3.0, 20, 50, {"log_inverse_loss": 10.0}),
        (8, 4000, 3.0, 10, 1000, {"error_samples": 8192}),
        (32, 2000, 0.2, 16, 100, {}),
        (64, 2000, 0.5, 4, 50, {"init_scale": 1.0}),
        (2, 100, 3.0, 200, 20, {"coordinates": "ambient", "max_evaluations": 3000}),
    ]
]
IMAGES = [{"n": 50, "width": 20}, {"n": 300, "width": 100, "max_evaluations": 3000}]


def measured(trained):
    """Processor seconds of each output, what they need from one another made by the first."""
    found = {}
    for name, output in OUTPUTS.items():
        start = time.process_time()
        output.measure(trained)
        found[name] = time.process_time() - start
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    with one_blas_thread():
        for seed in range(arguments.repeats):
            for experiment, kind, given in [
                *((DOUBLE_EDGE, TrainedOnClusters, given) for given in PROBLEMS),
                *((ON_DIGITS, TrainedOnDigits, given) for given in IMAGES),
            ]:
                settings = experiment.complete({**given, "seed": seed})
                trained = kind(settings)
                found = measured(trained)
                rows.append((size_of(settings), trained.flow.evaluations, found))
    # The first run of all pays for what is loaded on demand.
    rows = rows[1:]
    expected = [(gradients(size), made) for size, made, _ in rows]
    print("gradients, model over measured:", ratios(expected))
    for name, output in OUTPUTS.items():
        # What takes no time was not done: a certificate of a network that has none, for instance.
        done = [(size, found[name]) for size, _, found in rows if found[name] > 2e-3]
        fitted = fit([output.operations(size) for size, _ in done], [time for _, time in done])
        pairs = [(output.seconds(size), time) for size, time in done]
        print(
            json.dumps(
                {"output": name, "coefficients": fitted, "model over measured": ratios(pairs)}
            )
        )


def fit(counts, times):
    """Coefficients of at least 0 by least squares of the logarithm of the time."""
    from scipy.optimize import least_squares

    counts, times = np.array(counts, dtype=float), np.array(times)
    start = np.log(np.median(times / len(counts.T) / counts.T, axis=1))
    found = least_squares(lambda logs: np.log(counts @ np.exp(logs)) - np.log(times), start)
    return [float(f"{c:.2g}") for c in np.exp(found.x)]


def ratios(pairs):
    """Smallest, typical and largest ratio, as a text."""
    found = np.array([a / b for a, b in pairs])
    middle = math.exp(np.log(found).mean())
    return f"{found.min():.2g} .. {middle:.2g} .. {found.max():.2g}"


if __name__ == "__main__":
    main()
