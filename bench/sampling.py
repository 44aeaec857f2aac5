"""Fresh examples and normals a second, against NumPy and torch.

How many times faster reluflow draws and classifies a fresh example than NumPy does in the ambient
dimension, for networks whose weights have rank R; and normals against
`numpy.random.Generator.standard_normal` and torch. With several threads only reluflow's draws and
NumPy's matrix products use them.

    python -m bench.sampling [--threads 1] [--repeats 7] [--dim 1000] [--quick] [--json FILE]
"""

from __future__ import annotations

import math
import statistics

from bench import topic
from bench.timing import interleaved

PACKAGES = ["numpy", "torch==2.13.0"]
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


def compare_draws(found, rank, options):
    """One draw and its classification."""
    import reluflow as rf

    net = network(rank, options.dim)
    clusters = rf.ClusterModel.orthogonal(CLUSTERS, options.dim, NOISE)
    times = interleaved(
        {
            "reluflow": reluflow_errors(net, clusters, options.threads),
            "NumPy": numpy_errors(net, clusters),
        },
        repeats=options.repeats,
    )
    found.compare(
        f"a fresh example, d = {options.dim:,}, rank {rank}",
        times["reluflow"].over(OURS),
        {"NumPy": times["NumPy"].over(THEIRS)},
    )


def compare_normals(found, repeats):
    """Standard normals in float64, one thread."""
    import numpy as np
    import torch

    from reluflow._dispatch import core

    torch.set_num_threads(1)
    rng, out = np.random.default_rng(0), np.empty(NORMALS)
    tensor = torch.empty(NORMALS, dtype=torch.float64)
    times = interleaved(
        {
            "reluflow": lambda: core.standard_normals(1, 0, NORMALS),
            "NumPy": lambda: rng.standard_normal(out=out),
            "torch": tensor.normal_,
        },
        repeats=repeats,
    )
    a_normal = {name: samples.over(NORMALS) for name, samples in times.items()}
    ours = a_normal.pop("reluflow")
    found.compare("a standard normal", ours, a_normal)
    found.facts.append(
        topic.Fact("standard normals", 1e-6 / statistics.median(ours.cpu), "M/s of processor")
    )


def measure(options):
    """Normals, then draws."""
    found = topic.Findings()
    compare_normals(found, options.repeats)
    for rank in RANKS[:2] if options.quick else RANKS:
        compare_draws(found, rank, options)
    return found


def arguments(parser):
    parser.add_argument("--dim", type=int, default=1000)


if __name__ == "__main__":
    topic.main("bench.sampling", __doc__, measure, PACKAGES, more=arguments)
