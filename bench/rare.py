"""Test errors far below what sampling sees: accuracy, coverage and time.

- A linear classifier against Phi(-radius/sigma), P from 0.46 to 1e-1,100,000: largest error in
  log10 P, and how many intervals of so many seeds cover, in a space of many dimensions too.
- Intervals of means of log-normal weights: how often the delta method's, the bootstrap's and
  those that are reported cover.
- Two neurons against a one-dimensional integral, P from 0.2 to 1e-300.
- Trained networks against plain draws at P = 1e-2 .. 1e-5: scores, and whether all of them together
  pass as standard normal.
- A design point that the lines are not told of: what is reported.
- Seconds of processor time and width of the 95 % interval for networks trained from a small start.

    python -m bench.rare [--seeds 100] [--draws 20000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time

from bench.topic import limit_threads

BETAS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0]
THEOREM = 2269.0
TARGETS = [-2.0, -3.0, -4.0, -5.0]
LOG_10 = math.log(10)


def log10_phi(t):
    """log10 of the normal distribution function."""
    from scipy.special import log_ndtr

    return float(log_ndtr(t)) / LOG_10


def linear_case(beta, dim, *, cancelling=0):
    """Clusters at distance beta sigma from a hyperplane; neurons that cancel raise the rank."""
    import numpy as np

    import reluflow as rf

    rng = np.random.default_rng(0)
    w = np.zeros(dim)
    w[:2] = 0.6, 0.8
    W, b, v = rng.normal(size=(cancelling, dim)), rng.normal(size=cancelling), np.ones(cancelling)
    net = rf.TwoLayerNet(
        np.vstack([w, -w, W, W]), np.concatenate([[0, 0], b, b]), np.concatenate([[1, -1], v, -v])
    )
    means = np.zeros((2, dim))
    means[:, 0] = math.sqrt(dim), -math.sqrt(dim)
    return net, rf.ClusterModel(means, [1, -1], 0.6 * math.sqrt(dim) / beta)


def linear(seeds):
    """Errors and coverage for every method, in the classifier's own line and in 12 dimensions."""
    import reluflow as rf

    rows = []
    for method in ("line", "importance"):
        for cancelling in (0, 12):
            for beta in [*BETAS, THEOREM]:
                net, clusters = linear_case(beta, 16, cancelling=cancelling)
                truth, worst, covered = log10_phi(-beta), 0.0, 0
                for seed in range(seeds):
                    found = rf.test_error(net, clusters, method=method, seed=seed, rel_error=0.015)
                    worst = max(worst, abs(found.log10_probability - truth))
                    covered += found.interval[0] <= truth <= found.interval[1]
                rows.append(
                    {
                        "method": method,
                        "dimensions": max(1, cancelling),
                        "beta": beta,
                        "log10": truth,
                        "largest_error": worst,
                        "covered": covered,
                        "seeds": seeds,
                    }
                )
    return rows


def intervals(seeds):
    """Coverage of log-normal means by their effective sample size."""
    import numpy as np

    from reluflow.generalization import _log_estimate

    rows = []
    for n in (100, 1000, 10_000):
        for sd in (0.3, 1.0, 1.5, 2.0):
            rng = np.random.default_rng(0)
            covered, effective = np.zeros(3), []
            for seed in range(10 * seeds):
                logs = sd * rng.standard_normal(n) - sd**2 / 2
                found = _log_estimate.stratified([(0.0, logs)], (seed,))
                effective.append(found.effective)
                ends = (
                    _log_estimate.delta_interval(found),
                    _log_estimate.bootstrap_interval(found),
                    [end * LOG_10 for end in _log_estimate.interval(found)],
                )
                covered += [low <= 0 <= high for low, high in ends]
            shares = dict(
                zip(("delta", "bootstrap", "reported"), covered / (10 * seeds), strict=True)
            )
            rows.append({"n": n, "sd": sd, "effective": float(np.median(effective)), **shares})
    return rows


def two_neurons():
    """Errors against the integral."""
    import reluflow as rf

    k, dim, rows = 10, 2000, []
    clusters = rf.ClusterModel.orthogonal(k, dim, 1.0)
    W = [clusters.means[clusters.labels == label].sum(0) / dim for label in (1, -1)]
    net = rf.TwoLayerNet(W, [0, 0], [1, -1])
    for noise in (20.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.38):
        exact = rf.theory.log10_two_neuron_error(dim, k, noise)
        found = rf.test_error(net, clusters.with_noise_scaled(noise), rel_error=0.01)
        rows.append(
            {
                "noise": noise,
                "log10": exact,
                "error": found.log10_probability - exact,
                "width": found.interval[1] - found.interval[0],
            }
        )
    return rows


def trained(init_scale, seed, *, noise=1.0, width=40, k=6, dim=1000, target=100.0):
    """A network trained on clusters, and its clusters."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(k, dim, noise)
    problem = rf.draw(clusters, 20 * k, width, init_scale=init_scale, seed=seed)
    flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=target)
    return flow.net, problem.clusters


def against_sampling(draws):
    """Scores of errors counted in plain draws, cluster by cluster and overall."""
    import reluflow as rf

    rows, scores = [], []
    for init_scale in (1e-3, 3.0):
        for seed, target in enumerate(TARGETS):
            net, clusters = trained(init_scale, seed)
            level = rf.noise_at_error(net, clusters, target, tol=0.02)
            noisy = clusters.with_noise_scaled(level.scale)
            found = rf.test_error(net, noisy, rel_error=0.004, max_samples=2**23, seed=1)
            counted = rf.test_error(
                net, noisy, method="sampling", rel_error=1e-9, max_samples=draws, seed=2
            )
            parts = [
                _score(*pair) for pair in zip(found.per_cluster, counted.per_cluster, strict=True)
            ]
            scores += parts
            rows.append(
                {
                    "init_scale": init_scale,
                    "log10": found.log10_probability,
                    "width": found.interval[1] - found.interval[0],
                    "counted": counted.log10_probability,
                    "score": _score(found, counted),
                    "check": found.check.score,
                    "status": found.status.value,
                    "noise": float(noisy.noise_scale.max()),
                }
            )
    return rows, scores


def _score(found, counted):
    p = 10.0**found.log10_probability
    own = (found.interval[1] - found.interval[0]) / 3.92 * LOG_10 * p
    deviation = math.hypot(math.sqrt(p * (1 - p) / counted.samples), own)
    return (counted.errors / counted.samples - p) / deviation


def missed_design_point():
    """min(6 - x_1, 6 - x_2): the lines are told of the first face alone."""
    import numpy as np

    import reluflow as rf
    from reluflow.generalization import _rare
    from reluflow.generalization._design_points import DesignPoints

    def nearest_alone(region, targets, settings):
        all_found = search(region, targets, settings)
        first = slice(0, 1)
        return DesignPoints(
            all_found.points[first],
            all_found.multipliers[first],
            all_found.lower_bound,
            all_found.empty,
        )

    net = rf.TwoLayerNet([[-1.0, 0, 0], [1, 0, 0], [-1, 1, 0]], [6, -6, 0], [1, -1, -1])
    clusters = rf.ClusterModel(np.array([[0.0, 0, 0], [60, 0, 0]]), [1, -1], 1.0)
    search = _rare.find_design_points
    _rare.find_design_points = nearest_alone
    try:
        found = rf.test_error(net, clusters, method="line")
    finally:
        _rare.find_design_points = search
    whole = rf.test_error(net, clusters)
    return {
        "exact": log10_phi(-6),
        "lines": found.log10_probability,
        "interval": found.interval,
        "status": found.status.value,
        "with_both": whole.log10_probability,
        "status_with_both": whole.status.value,
    }


def timing():
    """Processor seconds and widths at m = 100, from a small start."""
    import reluflow as rf

    rows = []
    cases = [(2000, 0.2, 200), (2000, 1.0, 200), (2000, 3.0, 200), (10**8, 1.0, 400)]
    for dim, noise, n in cases:
        clusters = rf.ClusterModel.orthogonal(10, dim, noise)
        problem = rf.draw(clusters, n, 100, seed=0)
        flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=100.0)
        rf.test_error(flow.net, problem.clusters, num_threads=1)
        start = time.thread_time()
        found = rf.test_error(flow.net, problem.clusters, num_threads=1)
        rows.append(
            {
                "dim": dim,
                "noise": noise,
                "log10": found.log10_probability,
                "first_order": found.first_order,
                "width": found.interval[1] - found.interval[0],
                "check": found.check.score,
                "seconds": time.thread_time() - start,
                "status": found.status.value,
            }
        )
    return rows


def show(title, rows):
    """A table."""
    print(f"\n{title}")
    names = list(rows[0])
    print("  ".join(f"{name:>13}" for name in names))
    for row in rows:
        cells = (f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values())
        print("  ".join(f"{cell:>13}" for cell in cells), flush=True)


def main() -> None:
    """Prints the tables and, with --json, writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--draws", type=int, default=20_000_000)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    limit_threads(1)
    from scipy.stats import kstest, shapiro

    results = {"timing": timing()}
    show("Networks trained from a small start, m = 100, one thread", results["timing"])
    results["two_neurons"] = two_neurons()
    show("Two neurons against the integral", results["two_neurons"])
    results["missed"] = missed_design_point()
    print("\nA design point that lines miss\n", results["missed"])
    results["linear"] = linear(options.seeds)
    show("Linear classifier", results["linear"])
    results["intervals"] = intervals(options.seeds)
    show("Coverage of 95 % intervals of log-normal means", results["intervals"])
    rows, scores = against_sampling(options.draws)
    results["sampling"] = rows
    results["normality"] = {
        "scores": len(scores),
        "largest": max(map(abs, scores)),
        "kolmogorov_smirnov": float(kstest(scores, "norm").pvalue),
        "shapiro": float(shapiro(scores).pvalue),
    }
    show(f"Trained networks against {options.draws:,} plain draws", rows)
    print("\nScores of all clusters together: ", results["normality"])
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
