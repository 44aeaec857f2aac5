"""Fresh examples and normals a second, against NumPy.

Prints nanoseconds a draw and, as ratios of interleaved repeats, how many times faster reluflow
draws and classifies a fresh example than NumPy does in the ambient dimension, for networks whose
weights have rank R; and normals against `numpy.random.Generator.standard_normal`. With several
threads only reluflow's draws and NumPy's matrix products use them.

    python -m bench.sampling [--threads 1] [--repeats 7] [--dim 1000]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics

from bench.gradient_step import limit_threads
from bench.timing import interleaved, median_ratio

WIDTH = 100
CLUSTERS = 10
RANKS = [2, 10, 40, 100]
NOISE = 1.0
# Fresh examples a call: reluflow's calls amortise what is computed once a network.
OURS, THEIRS = 2**20, 2**11
NORMALS = 2**15


def network(rank, dim):
    """A network of the width above whose weights span ``rank`` directions."""
    import numpy as np

    import reluflow as rf

    rng = np.random.default_rng(rank)
    W = rng.standard_normal((WIDTH, rank)) @ rng.standard_normal((rank, dim)) / math.sqrt(dim)
    return rf.TwoLayerNet(W, rng.standard_normal(WIDTH), rng.standard_normal(WIDTH))


def reluflow_errors(net, clusters, threads):
    """Draws and classifies OURS fresh examples."""
    import reluflow as rf

    def call():
        rf.test_error(
            net,
            clusters,
            method="sampling",
            rel_error=1e-9,
            max_samples=OURS,
            num_threads=threads,
        )

    return call


def numpy_errors(net, clusters):
    """Draws and classifies THEIRS fresh examples in the ambient dimension."""
    import numpy as np

    rng = np.random.default_rng(0)
    X = np.empty((THEIRS, clusters.dim))

    def call():
        cluster = rng.integers(clusters.n_clusters, size=THEIRS)
        rng.standard_normal(out=X)
        X.__imul__(clusters.noise)
        X.__iadd__(clusters.means[cluster])
        outputs = np.maximum(X @ net.W.T + net.b, 0) @ net.v
        return np.bincount(cluster, clusters.labels[cluster] * outputs <= 0)

    return call


def measure_draws(rank, dim, threads, repeats):
    """Nanoseconds a draw, and NumPy's time over reluflow's."""
    import reluflow as rf

    net, clusters = network(rank, dim), rf.ClusterModel.orthogonal(CLUSTERS, dim, NOISE)
    times = interleaved(
        {
            "reluflow": reluflow_errors(net, clusters, threads),
            "numpy": numpy_errors(net, clusters),
        },
        repeats=repeats,
    )
    a_draw = {
        "reluflow": [t / OURS for t in times["reluflow"]],
        "numpy": [t / THEIRS for t in times["numpy"]],
    }
    return {
        "rank": rank,
        "nanoseconds": {name: 1e9 * statistics.median(t) for name, t in a_draw.items()},
        "ratio": median_ratio(a_draw["numpy"], a_draw["reluflow"]),
    }


def measure_normals(repeats):
    """Millions of normals a second, and NumPy's time over reluflow's."""
    import numpy as np

    from reluflow._dispatch import core

    rng, out = np.random.default_rng(0), np.empty(NORMALS)
    times = interleaved(
        {
            "reluflow": lambda: core.standard_normals(1, 0, NORMALS),
            "numpy": lambda: rng.standard_normal(out=out),
        },
        repeats=repeats,
    )
    return {
        "millions_a_second": {
            name: NORMALS / statistics.median(t) / 1e6 for name, t in times.items()
        },
        "ratio": median_ratio(times["numpy"], times["reluflow"]),
    }


def main() -> None:
    """Prints the tables and, with --json, writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dim", type=int, default=1000)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    limit_threads(options.threads)
    normals = measure_normals(options.repeats)
    speeds = normals["millions_a_second"]
    print(
        f"normals, one thread: {speeds['reluflow']:.0f} M/s, NumPy {speeds['numpy']:.0f} M/s, "
        f"ratio {normals['ratio']:.2f}"
    )
    print(f"{'rank':>5}  {'ns a draw':>10}  {'NumPy':>10}  {'ratio':>8}")
    draws = []
    for rank in RANKS:
        row = measure_draws(rank, options.dim, options.threads, options.repeats)
        draws.append(row)
        ns = row["nanoseconds"]
        print(f"{rank:>5}  {ns['reluflow']:10.1f}  {ns['numpy']:10.0f}  {row['ratio']:8.1f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"normals": normals, "draws": draws}, file, indent=1)


if __name__ == "__main__":
    main()
