"""Depth and other architectures: accuracy, universal perturbations, limits and radii.

- ReLU networks of depth 2, 3 and 4 on k = 4 .. 64 orthogonal clusters (d = 2000, noise 1, eight
  examples a cluster, 50 units a layer): training and test accuracy, the norms of the shift along
  the means that flip 50 % and 95 % over sqrt(d/k), and the polished limit: residuals, and its
  normalised margin over 4 gamma_2 / (2L)^(L/2), gamma_2 being that of the two-layer limit of the
  same data by its own solver.
- Median smallest perturbations found at depth 2, k = 8 .. 64: ReLU, normalised polynomial ReLU of
  power 3, and one output a cluster, at noise 0.2 and 1; with the slope in k of the first.
- Seconds of a flow of depth 3 to log(1/L) = 200 with n = 128, m = 50.

    python -m bench.depth [--quick] [--seeds 2] [--threads 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time

from bench.environment import run_inside
from bench.topic import limit_threads

DIM, NOISE, PER_CLUSTER, WIDTH = 2000, 1.0, 8, 50
DEPTHS = (2, 3, 4)
CLUSTERS, QUICK_CLUSTERS = (4, 8, 16, 32, 64), (4, 8, 16)
RADIUS_CLUSTERS, QUICK_RADIUS_CLUSTERS = (8, 16, 32, 64), (8, 16)
TARGET = 200.0
# What must be reached.
HALF, MOST = (0.93, 1.07), (1.05, 1.40)
MARGIN, RADIUS, SLOPE = 5e-3, 0.58, (-0.6, -0.4)
STATIONARITY, FEASIBILITY = 1e-8, 1e-10
FLOW_SECONDS = 2.0

ARCHITECTURES = {
    "ReLU": {"activation": "relu", "width": 100, "log_inverse_loss": 50.0},
    "normalised, p = 3": {
        "activation": "normalized_polynomial_relu",
        "power": 3.0,
        "bias": "none",
        "width": 256,
        "log_inverse_loss": 50.0,
    },
    "an output a cluster, noise 0.2": {
        "targets": "clusters",
        "noise": 0.2,
        "log_inverse_loss": 100.0,
    },
    "an output a cluster": {"targets": "clusters", "log_inverse_loss": 100.0},
}
# Units a cluster of networks with one output a cluster, which share them.
UNITS_A_CLUSTER = 16


def settings(k, seed, **given):
    """Settings of the experiment ``deep``."""
    from reluflow.experiments.deep import DEEP

    fixed = {"n_clusters": k, "dim": DIM, "noise": NOISE, "per_cluster": PER_CLUSTER, "seed": seed}
    return DEEP.complete({**fixed, **given})


def of_depth(k, depth, seed):
    """One network of the first table."""
    import reluflow as rf
    from reluflow.experiments.deep import TrainedDeep, deep_margin, measure_flow, measure_universal

    start = time.process_time()
    trained = TrainedDeep(settings(k, seed, depth=depth, width=WIDTH, log_inverse_loss=TARGET))
    flow, shift = measure_flow(trained).scalars, measure_universal(trained).scalars
    flowing = time.process_time() - start
    start = time.process_time()
    point = rf.kkt_point(trained.flow, trained.data)
    polishing = time.process_time() - start
    first = rf.TwoLayerNet.init(WIDTH, DIM, 1e-2, seed=seed)
    two_layers = rf.flow_limit(first, trained.data)
    return {
        "k": k,
        "depth": depth,
        "seed": seed,
        "train": 1 - flow["train_error"],
        "test": 1 - flow["test_error"],
        "50 %": shift["universal_ratio_50"],
        "95 %": shift["universal_ratio_95"],
        "kkt": point.status.value,
        "stationarity": point.stationarity,
        "feasibility": point.feasibility,
        "smallest dual": float(point.piece_multipliers.min()),
        "two layers": two_layers.status.value,
        "margin ratio": point.normalized_margin / deep_margin(two_layers.normalized_margin, depth),
        "flow cpu": flowing,
        "polish cpu": polishing,
    }


def reaches(row):
    """Whether a network of the first table is as it must be."""
    return (
        row["train"] == row["test"] == 1
        and HALF[0] <= row["50 %"] <= HALF[1]
        and MOST[0] <= row["95 %"] <= MOST[1]
        and row["kkt"] == "converged"
        and row["stationarity"] <= STATIONARITY
        and row["feasibility"] <= FEASIBILITY
        and row["smallest dual"] >= 0
        and abs(row["margin ratio"] - 1) <= MARGIN
    )


def of_architecture(name, k, seed):
    """Median radius of one network over sqrt(d)."""
    from reluflow.experiments.deep import TrainedDeep, measure_flow, measure_radii

    start = time.process_time()
    architecture = {"width": UNITS_A_CLUSTER * k, **ARCHITECTURES[name]}
    given = settings(k, seed, **{"test_points": 20, "shifted_points": 200, **architecture})
    trained = TrainedDeep(given)
    flow = measure_flow(trained).scalars
    return {
        "network": name,
        "k": k,
        "seed": seed,
        "flow": flow["flow_status"],
        "train": 1 - flow["train_error"],
        "radius over root d": measure_radii(trained).scalars["radius_over_root_d"],
        "1/sqrt(k)": 1 / math.sqrt(k),
        "cpu": time.process_time() - start,
    }


def slope_in_k(rows):
    """Of log radius against log k, by least squares, over all ReLU networks."""
    points = [
        (math.log(row["k"]), math.log(row["radius over root d"]))
        for row in rows
        if row["network"] == "ReLU"
    ]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def timed_flow(threads):
    """A flow of depth 3, after one that warms up."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(16, DIM, NOISE, seed=0)
    data, net = clusters.sample(128, 1), rf.DeepNet.init(3, WIDTH, DIM, seed=2)
    wall, cpu = [], []
    for _ in range(4):
        start, used = time.perf_counter(), time.process_time()
        flow = rf.gradient_flow(net, data, log_inverse_loss=TARGET, num_threads=threads)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return {
        "status": flow.status.value,
        "log_inverse_loss": flow.log_inverse_loss,
        "evaluations": flow.evaluations,
        "threads": threads,
        "seconds": statistics.median(wall[1:]),
        "cpu seconds": statistics.median(cpu[1:]),
    }


def show(row):
    """A line of a table."""
    cells = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
    widths = (max(9, len(name)) for name in row)
    print("  ".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)), flush=True)


def table(title, rows):
    """Prints rows as they come."""
    print(f"\n{title}")
    found = []
    for row in rows:
        if not found:
            print("  ".join(f"{name:>9}" for name in row))
        show(row)
        found.append(row)
    return found


def main() -> None:
    """Prints the tables and, with --json, writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few clusters, one seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of the timed flow")
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    run_inside("bench.depth", ["numpy", "scipy"])
    limit_threads(options.threads)
    seeds = range(1 if options.quick else options.seeds)
    results = {
        "flow": timed_flow(options.threads),
        "depth": table(
            "Networks of depth 2 to 4",
            (
                of_depth(k, depth, seed)
                for k in (QUICK_CLUSTERS if options.quick else CLUSTERS)
                for depth in DEPTHS
                for seed in seeds
            ),
        ),
        "architectures": table(
            "Smallest perturbations found at depth 2, median of 20 fresh examples",
            (
                of_architecture(name, k, seed)
                for name in ARCHITECTURES
                for k in (QUICK_RADIUS_CLUSTERS if options.quick else RADIUS_CLUSTERS)
                for seed in seeds
            ),
        ),
    }
    flow, slope = results["flow"], slope_in_k(results["architectures"])
    kept = {
        name: min(r["radius over root d"] for r in results["architectures"] if r["network"] == name)
        for name in ARCHITECTURES
        if name != "ReLU"
    }
    checks = {
        "every network of the first table reaches what it must": all(
            map(reaches, results["depth"])
        ),
        **{
            f"{name}: radii of at least {radius:.3f} sqrt(d)": radius >= RADIUS
            for name, radius in kept.items()
        },
        f"ReLU falls like k^{slope:.3f}": SLOPE[0] <= slope <= SLOPE[1],
        f"depth 3 to log(1/L) = {TARGET:g}: {flow['seconds']:.2f} s on {flow['threads']} threads "
        f"({flow['cpu seconds']:.2f} s of processors, {flow['evaluations']} gradients)": (
            flow["status"] == "converged" and flow["seconds"] <= FLOW_SECONDS
        ),
    }
    print()
    for sentence, holds in checks.items():
        print(f"{'reached' if holds else 'MISSED '}  {sentence}")
    results["checks"] = checks
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    if not all(checks.values()):
        raise SystemExit("not everything that must be reached is")


if __name__ == "__main__":
    main()
