"""Smallest perturbations against gradient attacks on the same points of one trained network.

The network is that of the demo: orthogonal means, d = 2000, k = 10, sigma = 0.2, n = 200, width
100. Prints, for every attack, the mean and largest ratio of its perturbations to reluflow's radii,
the share of the points that strictly flip (evaluated in float64), the share of those that are
shorter than reluflow's radius (which must be none), and seconds per 100 points.

    python -m bench.attacks [--points 100] [--threads 1] [--init-scale 1e-3]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from pathlib import Path

from bench.environment import run_inside
from bench.gradient_step import limit_threads

PACKAGES = ["numpy", "torch==2.13.0", "foolbox==3.3.4", "tqdm"]
# Its attack needs torch alone; what it asks for besides serves other attacks.
ALONE = ("adv-lib==0.2.8",)


def trained(arguments):
    """The network of the demo, and fresh examples."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(arguments.clusters, arguments.dim, arguments.noise)
    problem = rf.draw(
        clusters,
        arguments.n,
        arguments.width,
        init_scale=arguments.init_scale,
        coordinates="ambient",
        seed=arguments.seed,
    )
    flow = rf.gradient_flow(
        problem.net,
        problem.data,
        log_inverse_loss=arguments.log_inverse_loss,
        num_threads=arguments.threads,
    )
    data = problem.clusters.sample(arguments.points, arguments.seed + 1)
    return flow.net, problem.clusters, data


def adv_lib_fmn(steps, room):
    """adv-lib's fast minimum-norm attack, loaded without the package's other attacks.

    It takes inputs in [0, 1], so the examples are scaled into a box that leaves ``room`` around.
    """
    import numpy as np
    import torch

    from reluflow.robustness._attack_adapters import logits

    package = importlib.util.find_spec("adv_lib").submodule_search_locations[0]
    path = Path(package) / "attacks" / "fast_minimum_norm.py"
    spec = importlib.util.spec_from_file_location("fast_minimum_norm", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(net, X, y):
        model = logits(net, float(np.median(np.abs(net(X)))))
        low = float(X.min()) - room
        width = float(X.max()) + room - low

        class InBox(torch.nn.Module):
            def forward(self, u):
                return model(low + width * u)

        labels = torch.tensor((y > 0).astype(np.int64))
        found = module.fmn(InBox(), (torch.tensor(X) - low) / width, labels, norm=2, steps=steps)
        return (low + width * found).detach().numpy()

    return run


def peers(typical):
    """Name and attack(net, X, y) -> attacked X; ``typical`` is a length."""
    from reluflow.robustness._attack_adapters import adapter

    names = ("foolbox DDN tuned", "foolbox DDN", "foolbox DeepFool")
    return {
        **{name: adapter(name, typical) for name in names},
        "adv-lib fmn, 200 steps": adv_lib_fmn(200, 4 * typical),
    }


def measure(arguments):
    """One row a method."""
    import torch

    import reluflow as rf

    torch.set_num_threads(arguments.threads)
    net, clusters, data = trained(arguments)
    typical = math.sqrt(clusters.ambient_dim / clusters.n_clusters)
    found = rf.compare_attacks(
        net, data.X, data.y, peers(typical), clusters=clusters, num_threads=arguments.threads
    )
    print(found.radii)
    header = ("method", "mean ratio", "max ratio", "flips", "below", "s/100", "times ours")
    print("{:<26}{:>12}{:>12}{:>8}{:>8}{:>10}{:>12}".format(*header))
    hundred = 100 / data.n
    for name, row in found.table.iterrows():
        yield {
            "method": name,
            "mean_ratio": row["mean_ratio"],
            "max_ratio": row["largest_ratio"],
            "flips": row["strictly_flipped"],
            "below": row["shorter"],
            "seconds_per_100": row["seconds"] * hundred,
            "times_ours": row["seconds"] / found.radii.seconds,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("points", 100),
        ("threads", 1),
        ("dim", 2000),
        ("clusters", 10),
        ("n", 200),
        ("width", 100),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("noise", 0.2), ("init-scale", 1e-3), ("log-inverse-loss", 100.0)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    run_inside("bench.attacks", PACKAGES, ALONE)
    limit_threads(arguments.threads)
    shorter = False
    for row in measure(arguments):
        shorter |= row["below"] > 0
        if arguments.json:
            print(json.dumps(row))
        else:
            print(
                f"{row['method']:<26}{row['mean_ratio']:>12.6f}{row['max_ratio']:>12.6f}"
                f"{row['flips']:>8.2f}{row['below']:>8.2f}{row['seconds_per_100']:>10.3f}"
                f"{row['times_ours']:>12.1f}",
                flush=True,
            )
    if shorter:
        sys.exit("an attack found a shorter perturbation than reluflow")


if __name__ == "__main__":
    main()
