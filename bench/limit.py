"""Limits of flows on a grid of problems, and the time that a limit takes.

The grid: 67 settings of clusters k, examples n, width m, noise, dimension, means and bias, three
seeds each. Every run reports how it ended; of those that converged the residuals at full width
must be at most 1e-12, and the rest say why not. The KKT point predicted at log(1/L) = 1 is compared
with the one at 30. The timings run from the initial network to the certified limit, each in a
process of its own, with its peak memory.

    python -m bench.limit [--threads 2] [--runs 201] [--skip-grid] [--timings small|all|none]
"""

from __future__ import annotations

import argparse
import collections
import json
import resource
import subprocess
import sys
import time

from bench.topic import limit_threads

CLUSTERS, WIDTHS, EXAMPLES = (2, 4, 8, 16, 32), (10, 30, 100, 300, 1000), (20, 50, 100, 200, 500)
NOISE, DIMS = (0.05, 0.1, 0.2, 0.5, 1.0), (100, 300, 1000, 3000, 10_000)
SETTINGS, SEEDS = 67, 3
RESIDUAL = 1e-12
# Of the multipliers, within which two predictions are one.
AGREEMENT = 1e-8

TIMED = {
    "n = m = 200": {"k": 10, "d": 2000, "n": 200, "m": 200, "noise": 1.0},
    "n = m = 1000": {"k": 10, "d": 5000, "n": 1000, "m": 1000, "noise": 1.0},
    "k = 10, smallest d of the assumption": {
        "k": 10,
        "d": 51_500_000,
        "n": 3160,
        "m": 100,
        "noise": 1.0,
    },
    "k = 32, smallest d of the assumption": {
        "k": 32,
        "d": 682_123_744,
        "n": 13_240,
        "m": 100,
        "noise": 1.0,
    },
}
LARGE = "k = 32, smallest d of the assumption"


def grid():
    """The settings, from a low-discrepancy sequence over the lists above."""
    from scipy.stats import qmc

    points = qmc.Halton(5, scramble=False).random(SETTINGS)
    found = []
    for i, place in enumerate((5 * points).astype(int)):
        k, m, n, noise, d = (
            values[p]
            for values, p in zip((CLUSTERS, WIDTHS, EXAMPLES, NOISE, DIMS), place, strict=True)
        )
        means, bias = ("orthogonal", "random")[i % 2], bool(i // 2 % 2)
        found.append({"k": k, "m": m, "n": n, "noise": noise, "d": d, "means": means, "bias": bias})
    return found


def problem(setting, seed):
    """Training set and initial network."""
    import reluflow as rf

    make = getattr(rf.ClusterModel, setting.get("means", "orthogonal"))
    k, d, n, m = (setting[name] for name in "kdnm")
    clusters = make(k, d, setting["noise"], seed=seed)
    coordinates = "reduced" if d >= k + n + m else "ambient"
    bias = setting.get("bias", True)
    return rf.draw(clusters, n, m, bias=bias, coordinates=coordinates, seed=seed)


def measure(setting, seed, threads):
    """One run of the grid."""
    import numpy as np

    import reluflow as rf

    drawn, bias = problem(setting, seed), setting["bias"]
    start = time.process_time()
    limit = rf.flow_limit(drawn.net, drawn.data, bias=bias, num_threads=threads)
    seconds = time.process_time() - start
    settings = {"bias": bias, "rtol": 1e-2, "num_threads": threads}
    points, net = [], drawn.net
    for target in (1.0, 30.0):
        flow = rf.gradient_flow(net, drawn.data, log_inverse_loss=target, **settings)
        net = flow.net
        points.append(rf.kkt_point(flow, drawn.data, bias=bias, correct_pattern=True))
    early, late = (point.multipliers for point in points)
    return {
        **setting,
        "seed": seed,
        "status": limit.status.value,
        "flow": limit.flow.status.value,
        "residual": limit.residuals.worst,
        "stationarity": limit.stationarity,
        "feasibility": limit.feasibility,
        "complementarity": limit.complementarity,
        "live groups": sum(group.mass > 0 for group in limit.groups),
        "pattern changes": limit.pattern_changes,
        "log_inverse_loss": limit.flow.log_inverse_loss,
        "agree": bool(np.abs(early - late).max() <= AGREEMENT * np.abs(late).max()),
        "predicted": [point.status.value for point in points],
        "cpu_seconds": seconds,
    }


def describe(run):
    """One line."""
    named = " ".join(
        f"{name}={run[name]}" for name in ("k", "m", "n", "noise", "d", "means", "bias", "seed")
    )
    return (
        f"{named}: {run['status']} at log(1/L) = {run['log_inverse_loss']:.3g}, residual "
        f"{run['residual']:.1e}; at 1 and 30: {', '.join(run['predicted'])}"
    )


def run_grid(runs, threads):
    """All runs, with a summary printed; False where the grid asks for more."""
    found = []
    for index, setting in enumerate(grid()):
        seeds = range(min(SEEDS, runs - SEEDS * index))
        found.extend(measure(setting, seed, threads) for seed in seeds)
        print(f"\r{len(found)} of {runs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    ended = collections.Counter(run["status"] for run in found)
    converged = [run for run in found if run["status"] == "converged"]
    print(f"{len(found)} runs: " + ", ".join(f"{n} {status}" for status, n in ended.items()))
    for name in ("stationarity", "feasibility", "complementarity", "residual"):
        print(f"  largest {name} of the converged: {max(run[name] for run in converged):.1e}")
    print(f"  processor seconds, the slowest: {max(run['cpu_seconds'] for run in found):.1f}")
    for run in found:
        if run["status"] != "converged":
            print(f"  not converged: {describe(run)}")
    agree = sum(run["agree"] for run in found)
    print(f"prediction at log(1/L) = 1 equals that at 30: {agree} of {len(found)}")
    for run in found:
        if not run["agree"]:
            print(f"  differs: {describe(run)}")
    enough = min(len(converged), agree) >= 0.95 * len(found)
    return found, enough and all(run["residual"] <= RESIDUAL for run in converged)


def timed(name, threads):
    """One limit, in this process."""
    import reluflow as rf

    setting, flow_limit = TIMED[name], rf.flow_limit  # asked for here, libraries are loaded
    start = time.perf_counter()
    drawn = problem(setting, 0)
    drawing = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    limit = flow_limit(drawn.net, drawn.data, num_threads=threads)
    return {
        "name": name,
        **setting,
        "status": limit.status.value,
        "residual": limit.residuals.worst,
        "drawing_seconds": drawing,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "gradients": sum(prediction.evaluations for prediction in limit.predictions),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "assumption": bool(drawn.clusters.assumption(setting["n"]).holds),
    }


def run_timings(names, threads):
    """Each in its own process, libraries loaded; what the first call of a process costs counts."""
    found = []
    for name in names:
        command = [sys.executable, "-m", "bench.limit", "--one", name, "--threads", str(threads)]
        outcome = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(outcome.stdout))
        row = found[-1]
        print(
            f"{name}: {row['status']}, residual {row['residual']:.1e}, {row['seconds']:.2f} s "
            f"({row['cpu_seconds']:.2f} s of processors, {row['gradients']} gradients; drawing "
            f"{row['drawing_seconds']:.2f} s), {row['peak_gigabytes']:.2f} GB, assumption "
            f"{'holds' if row['assumption'] else 'does not hold'}",
            flush=True,
        )
    return found


def main() -> None:
    """Prints the tables and, with --json, writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=SETTINGS * SEEDS)
    parser.add_argument("--skip-grid", action="store_true")
    parser.add_argument("--timings", choices=("none", "small", "all"), default="small")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    limit_threads(options.threads)
    if options.one:
        print(json.dumps(timed(options.one, options.threads)))
        return
    results, passed = {}, True
    if options.timings != "none":
        names = [name for name in TIMED if options.timings == "all" or name != LARGE]
        results["timings"] = run_timings(names, options.threads)
    if not options.skip_grid:
        results["grid"], passed = run_grid(options.runs, options.threads)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    if not passed:
        raise SystemExit("the grid does not reach what it should")


if __name__ == "__main__":
    main()
