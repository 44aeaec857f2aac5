"""Exact radii: how many are proved, how fast, and what other packages find on the same points.

Networks are trained by gradient flow on fresh draws with orthogonal means (d = 2000, sigma = 0.2,
16 examples a cluster, log(1/L) = 30) from initialisations 1e-3 to 10, of width 50 to 400, with 4,
10 and 16 clusters. For each: the share of fresh points whose radius is proved to 1e-6 with
``--seconds`` a point, the largest gap, processor milliseconds a point, and for every peer the mean
and the smallest ratio of its strictly flipping perturbations to the radius. Then, at
initialisations up to 0.1: foolbox's Brendel-Bethge attack and SCIP (a big-M model in the row space
of the weights, with a time limit) on a few points, time beside SCIP and tuned DDN, the median time
a point at widths 100 and 1000, and brute force over subsets on small random networks, degenerate
ones among them.

    python -m bench.radii [--quick] [--many] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from bench.attacks import ALONE, adv_lib_fmn
from bench.environment import ROOT, run_inside
from bench.mixed_integer import scip
from bench.topic import limit_threads

PACKAGES = [
    "numpy",
    "torch==2.13.0",
    "foolbox==3.3.4",
    "adversarial-robustness-toolbox==1.20.1",
    "pyscipopt",
    "numba",
    "tqdm",
]
INITIALISATIONS = (1e-3, 0.1, 0.3, 1.0, 3.0, 10.0)
WIDTHS = (50, 100, 200, 400)
CLUSTERS = (4, 10, 16)
SMALL = 0.1
# A perturbation this much shorter than the radius contradicts it; less is rounding.
SHORTER = 1 - 1e-9


def trained(init_scale, width, clusters, points, seed=0):
    """A network, its cluster model, and fresh examples."""
    import reluflow as rf

    model = rf.ClusterModel.orthogonal(clusters, 2000, 0.2)
    problem = rf.draw(model, 16 * clusters, width, init_scale=init_scale, seed=seed)
    flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=30, num_threads=1)
    return flow.net, problem.clusters, problem.clusters.sample(points, seed + 1)


def exact(net, model, data, seconds, threads):
    """Radii with ``seconds`` for every point by itself, and processor seconds a point."""
    import numpy as np

    import reluflow as rf

    start = time.process_time()
    found = rf.min_perturbation(
        net, data.X, data.y, clusters=model, max_nodes=8, num_threads=threads
    )
    radius, lower, proved = found.radius.copy(), found.lower_bound.copy(), found.proved.copy()
    used = np.full(data.n, (time.process_time() - start) / data.n)
    for i in np.flatnonzero(~proved):
        one, start = slice(i, i + 1), time.process_time()
        more = rf.min_perturbation(
            net,
            data.X[one],
            data.y[one],
            clusters=model,
            max_nodes=10**6,
            max_seconds=seconds,
            num_threads=threads,
        )
        radius[i], lower[i], proved[i] = more.radius[0], more.lower_bound[0], more.proved[0]
        used[i] += time.process_time() - start
    return radius, lower, proved, used


def measure(name, attack, net, data, radius):
    """One peer on the points that are classified rightly."""
    import numpy as np

    counted = np.isfinite(radius) & (radius > 0)
    X, y, radius = data.X[counted], data.y[counted], radius[counted]
    start, processor = time.perf_counter(), time.process_time()
    attacked = np.asarray(attack(net, X, y), dtype=np.float64)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    attacked = np.where(np.isfinite(attacked), attacked, X)
    flipped = y * net(attacked) < 0
    ratio = np.linalg.norm(attacked - X, axis=1)[flipped] / radius[flipped]
    return {
        "peer": name,
        "points": len(radius),
        "flipped": int(flipped.sum()),
        "mean_ratio": float(ratio.mean()) if len(ratio) else None,
        "smallest_ratio": float(ratio.min()) if len(ratio) else None,
        "below": int((ratio < SHORTER).sum()),
        "seconds": seconds / len(radius),
        "processor_seconds": processor / len(radius),
    }


def gradient_peers(typical):
    """Name and attack(net, X, y) -> attacked X; ``typical`` is a length."""
    from reluflow.robustness._attack_adapters import adapter

    return {
        "foolbox DDN tuned": adapter("foolbox DDN tuned", typical),
        "adv-lib fmn": adv_lib_fmn(200, 4 * typical),
        "art DeepFool": adapter("art DeepFool", typical),
    }


def brendel_bethge(typical):
    """foolbox's boundary attack, started beyond the boundary by a tuned DDN attack."""
    import numpy as np
    import torch

    from reluflow.robustness._attack_adapters import adapter, logits

    start = adapter("foolbox DDN tuned", typical)

    def run(net, X, y):
        import foolbox

        scale = float(np.median(np.abs(net(X)))) or 1.0
        beyond = X + 1.5 * (start(net, X, y) - X)
        box = float(np.abs(beyond).max() + 4 * typical)
        model = foolbox.PyTorchModel(logits(net, scale).float(), bounds=(-box, box), device="cpu")
        inputs, starts = torch.tensor(X).float(), torch.tensor(beyond).float()
        labels = torch.tensor((y > 0).astype(np.int64))
        attack = foolbox.attacks.L2BrendelBethgeAttack(steps=300, lr=1e-2)
        found = attack(model, inputs, labels, starting_points=starts, epsilons=None)[0]
        return found.detach().numpy()

    return run


def grid(arguments):
    """One row a network."""
    import numpy as np

    for init in INITIALISATIONS:
        for width in arguments.widths:
            for clusters in CLUSTERS:
                net, model, data = trained(init, width, clusters, arguments.points)
                found = exact(net, model, data, arguments.seconds, arguments.threads)
                radius, lower, proved, used = found
                counted = np.isfinite(radius) & (radius > 0)
                typical = float(np.median(radius[counted])) if counted.any() else 1.0
                gap = (1 - lower[counted] / radius[counted]).max(initial=0.0)
                yield {
                    "init": init,
                    "m": width,
                    "k": clusters,
                    "points": data.n,
                    "proved": int(proved.sum()),
                    "largest_gap": float(gap),
                    "median_ms": float(1e3 * np.median(used)),
                    "largest_ms": float(1e3 * used.max()),
                    "peers": [
                        measure(name, attack, net, data, radius)
                        for name, attack in gradient_peers(typical).items()
                    ],
                }


def print_row(row, header):
    if header:
        names = "".join(f"{peer['peer']:>33}" for peer in row["peers"])
        print(f"{'init':>6}{'m':>5}{'k':>4}{'proved':>9}{'gap':>9}{'ms':>9}{'max ms':>10}{names}")
    peers = ""
    for peer in row["peers"]:
        mean, least = peer["mean_ratio"], peer["smallest_ratio"]
        shown = "none flips" if mean is None else f"mean {mean:.5f}, least {least:.7f}"
        peers += f"{shown:>33}"
    print(
        f"{row['init']:>6g}{row['m']:>5}{row['k']:>4}{row['proved']:>5}/{row['points']:<3}"
        f"{row['largest_gap']:>9.1e}{row['median_ms']:>9.3f}{row['largest_ms']:>10.1f}{peers}",
        flush=True,
    )


def beside_solvers(arguments):
    """SCIP, Brendel-Bethge and tuned DDN at width 50 and small initialisations."""
    import numpy as np

    import reluflow as rf

    for init in INITIALISATIONS[:2]:
        for clusters in CLUSTERS:
            net, model, data = trained(init, 50, clusters, 200)
            calls = [
                rf.min_perturbation(net, data.X, data.y, clusters=model, num_threads=1)
                for _ in range(5)
            ]
            ours = min(call.seconds for call in calls) / data.n
            rightly = np.flatnonzero(calls[0].radius > 0)[: arguments.solver_points]
            few = SimpleNamespace(X=data.X[rightly], y=data.y[rightly])
            radius = calls[0].radius[rightly]
            typical = float(np.median(radius))
            model_solver, finished = scip(arguments.scip_seconds, radius)
            peers = {
                "SCIP": (model_solver, few, radius),
                "foolbox BB": (brendel_bethge(typical), few, radius),
                "foolbox DDN tuned": (
                    gradient_peers(typical)["foolbox DDN tuned"],
                    data,
                    calls[0].radius,
                ),
            }
            # It compiles its optimizer first.
            peers["foolbox BB"][0](net, few.X[:1], few.y[:1])
            for name, (attack, points, lengths) in peers.items():
                row = measure(name, attack, net, points, lengths)
                row |= {"init": init, "k": clusters, "times_ours": row["seconds"] / ours}
                if name == "SCIP":
                    row["proved"] = sum(finished)
                yield row


def print_beside_solvers(rows):
    print(f"\n{'peer':<20}{'init':>7}{'k':>4}{'points':>8}{'mean ratio':>12}", end="")
    print(f"{'least ratio':>13}{'s/point':>10}{'times ours':>12}")
    for row in rows:
        mean, least = (row[name] or math.nan for name in ("mean_ratio", "smallest_ratio"))
        note = f"  proved {row['proved']}/{row['points']}" if "proved" in row else ""
        print(
            f"{row['peer']:<20}{row['init']:>7g}{row['k']:>4}{row['points']:>8}{mean:>12.6f}"
            f"{least:>13.7f}{row['seconds']:>10.4f}{row['times_ours']:>12.0f}{note}",
            flush=True,
        )


def speed(arguments):
    """Milliseconds a point in calls of many points, one thread."""
    import reluflow as rf

    for width, points, calls in ((100, 400, 9), (1000, arguments.wide_points, 3)):
        for init in INITIALISATIONS[:2]:
            for clusters in CLUSTERS:
                net, model, data = trained(init, width, clusters, points * calls)
                times, proved = [], 0
                for call in range(calls):
                    part = slice(call * points, (call + 1) * points)
                    start = time.process_time()
                    found = rf.min_perturbation(
                        net, data.X[part], data.y[part], clusters=model, num_threads=1
                    )
                    times.append(1e3 * (time.process_time() - start) / points)
                    proved += int(found.proved.sum())
                yield {
                    "m": width,
                    "init": init,
                    "k": clusters,
                    "points": data.n,
                    "proved": proved,
                    "median_ms": statistics.median(times),
                }


def many(arguments):
    """Ten thousand points at width 1000 on two threads."""
    import reluflow as rf

    net, model, data = trained(1e-3, 1000, 10, 10_000)
    found = rf.min_perturbation(net, data.X, data.y, clusters=model, num_threads=2)
    return {
        "points": data.n,
        "proved": int(found.proved.sum()),
        "seconds": found.seconds,
    }


def brute_force(count):
    """Largest relative difference from an enumeration of all subsets, and how many were proved."""
    import numpy as np

    import reluflow as rf

    sys.path.insert(0, str(ROOT / "tests"))
    import perturbation_oracle as oracle

    rng = np.random.default_rng(0)
    worst, proved = 0.0, 0
    for i in range(count):
        kind = oracle.NETWORK_DEGENERACIES[i % len(oracle.NETWORK_DEGENERACIES)]
        rows, a, v = oracle.random_problem(rng, kind)
        net = rf.TwoLayerNet(rows, a, v)
        found = rf.min_perturbation(net, np.zeros((1, net.dim)), [1.0], max_nodes=1000)
        expected = oracle.smallest_perturbation(rows, a, v)
        radius = float(found.radius[0])
        if radius != expected:
            # Far away, kinks meet at angles that leave the enumeration fewer digits.
            worst = max(worst, abs(radius / expected - 1) / max(1.0, expected / 100))
        proved += int(found.proved[0])
    return {"networks": count, "proved": proved, "largest_difference": worst}


def summary(results):
    """The figures that matter, one line each."""
    rows, solvers = results["grid"], results["solvers"]
    everything = [peer for row in rows for peer in row["peers"]] + solvers
    small = [row for row in rows if row["init"] <= SMALL]

    def share(chosen):
        return sum(row["proved"] for row in chosen) / sum(row["points"] for row in chosen)

    def least(name):
        return min(row["times_ours"] for row in solvers if row["peer"] == name)

    def slowest(width):
        return max(row["median_ms"] for row in results["speed"] if row["m"] == width)

    below, tried = (sum(peer[name] for peer in everything) for name in ("below", "points"))
    brute = results["brute_force"]
    yield "perturbations of peers below our radius", f"{below} of {tried}", below == 0
    yield "proved at initialisation <= 0.1", f"{share(small):.2%}", share(small) == 1
    yield "proved over the whole grid", f"{share(rows):.2%}", share(rows) >= 0.98
    gap = max(row["largest_gap"] for row in rows)
    yield "largest gap", f"{gap:.1e}", gap <= 1e-3
    yield "median ms a point, m = 100, one thread", f"{slowest(100):.3f}", slowest(100) <= 0.2
    yield "median ms a point, m = 1000, one thread", f"{slowest(1000):.1f}", slowest(1000) <= 50
    yield "SCIP over our time, m = 50, at least", f"{least('SCIP'):.0f}", least("SCIP") >= 1000
    ddn = least("foolbox DDN tuned")
    yield "tuned DDN over our time, m = 50, at least", f"{ddn:.0f}", ddn >= 10
    difference = brute["largest_difference"]
    yield (
        f"brute force on {brute['networks']} networks, largest relative difference",
        f"{difference:.1e}",
        difference <= 1e-9,
    )
    if "many" in results:
        run = results["many"]
        text = f"{run['seconds']:.0f} s, {run['proved']} of {run['points']} proved"
        yield "10,000 points at m = 1000 on two threads", text, run["seconds"] < 300


def run(arguments):
    import torch

    torch.set_num_threads(arguments.threads)
    rows = []
    for row in grid(arguments):
        print_row(row, header=not rows)
        rows.append(row)
    solvers = list(beside_solvers(arguments))
    print_beside_solvers(solvers)
    results = {
        "grid": rows,
        "solvers": solvers,
        "speed": list(speed(arguments)),
        "brute_force": brute_force(arguments.brute),
    }
    print(f"\n{'m':>5}{'init':>8}{'k':>4}{'ms a point (processor)':>25}{'proved':>13}")
    for row in results["speed"]:
        proved = f"{row['proved']}/{row['points']}"
        print(f"{row['m']:>5}{row['init']:>8g}{row['k']:>4}{row['median_ms']:>25.3f}{proved:>13}")
    if arguments.many:
        results["many"] = many(arguments)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few points, widths up to 200")
    parser.add_argument("--many", action="store_true", help="10,000 points at m = 1000 as well")
    parser.add_argument("--points", type=int, help="a network of the grid")
    parser.add_argument("--seconds", type=float, default=10.0, help="for the proof of a point")
    parser.add_argument("--scip-seconds", type=float, help="time limit of SCIP a point")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    arguments = parser.parse_args()
    run_inside("bench.radii", PACKAGES, ALONE)
    limit_threads(arguments.threads)
    quick = arguments.quick
    arguments.points = arguments.points or (4 if quick else 12)
    arguments.scip_seconds = arguments.scip_seconds or (5.0 if quick else 60.0)
    arguments.widths = WIDTHS[:3] if quick else WIDTHS
    arguments.solver_points = 1 if quick else 5
    arguments.wide_points = 20 if quick else 100
    arguments.brute = 200 if quick else 2000
    results = run(arguments)
    print()
    met = True
    for name, value, holds in summary(results):
        print(f"{name:<66}{value:>18}  {'met' if holds else 'NOT MET'}")
        met &= bool(holds)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if not met:
        sys.exit("not every figure was met")


if __name__ == "__main__":
    main()
