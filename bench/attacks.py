"""Smallest perturbations against gradient attacks on the same points of one trained network.

The network is that of the demo: orthogonal means, d = 2000, k = 10, sigma = 0.2, n = 200, width
100. For every attack the time over that of reluflow's radii, interleaved, the mean and largest
ratio of its perturbations to them, the share of the points that strictly flip (evaluated in
float64), and the share of those that are shorter than reluflow's radius, which must be none. And
for one of the points SCIP, which is exact too: a mixed-integer program with a time limit.

    python -m bench.attacks [--points 50] [--repeats 7] [--scip-seconds 60] [--quick] [--json FILE]
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

from bench import topic
from bench.mixed_integer import scip
from bench.timing import interleaved, once

PACKAGES = ["numpy", "torch==2.13.0", "foolbox==3.3.4", "adversarial-robustness-toolbox==1.20.1"]
PACKAGES += ["pyscipopt", "tqdm"]
# Its attack needs torch alone; what it asks for besides serves other attacks.
ALONE = ("adv-lib==0.2.8",)


def trained(points, threads, init_scale=1e-3):
    """The network of the demo, its clusters, and fresh examples."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(10, 2000, 0.2)
    problem = rf.draw(clusters, 200, 100, init_scale=init_scale, coordinates="ambient", seed=0)
    flow = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=100.0, num_threads=threads)
    return flow.net, problem.clusters, problem.clusters.sample(points, 1)


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

    names = ("foolbox DDN tuned", "foolbox DDN", "foolbox DeepFool", "art DeepFool")
    return {
        **{name: adapter(name, typical) for name in names},
        "adv-lib fmn, 200 steps": adv_lib_fmn(200, 4 * typical),
    }


def measure(options):
    """Gradient attacks on all points, SCIP on one."""
    import torch

    torch.set_num_threads(options.threads)
    found = topic.Findings()
    points = 10 if options.quick else options.points
    net, clusters, data = trained(points, options.threads, options.init_scale)
    beside_attacks(found, net, clusters, data, options)
    beside_scip(found, net, clusters, data, 5.0 if options.quick else options.scip_seconds)
    return found


def radii(net, clusters, X, y, threads=1):
    """reluflow's, as a call without arguments."""
    import reluflow as rf

    return lambda: rf.min_perturbation(net, X, y, clusters=clusters, num_threads=threads)


def beside_attacks(found, net, clusters, data, options):
    """Times in turn, and what each attack finds."""
    import reluflow as rf

    typical = math.sqrt(clusters.ambient_dim / clusters.n_clusters)
    attacks = peers(typical)
    calls = {"reluflow": radii(net, clusters, data.X, data.y, options.threads)}
    calls |= {name: (lambda run=run: run(net, data.X, data.y)) for name, run in attacks.items()}
    times = interleaved(calls, repeats=options.repeats)
    compared = rf.compare_attacks(
        net, data.X, data.y, attacks, clusters=clusters, num_threads=options.threads
    )
    for name, row in compared.table.iloc[1:].iterrows():
        found.compare(
            f"smallest perturbations of {data.n} examples",
            times["reluflow"],
            {str(name): times[name]},
            note=f"mean ratio to the radius {row['mean_ratio']:.5f}, largest "
            f"{row['largest_ratio']:.4f}, strictly flipped {row['strictly_flipped']:.0%}",
        )
    found.facts += [
        topic.Fact(
            "share of reluflow's radii that are proved", float(compared.radii.proved.mean()), aim=1
        ),
        topic.Fact(
            "share of points for which some attack was shorter",
            float(compared.table["shorter"].max()),
            aim=0,
            at_most=True,
        ),
    ]


def beside_scip(found, net, clusters, data, seconds):
    """One example by itself, timed once: it takes long."""
    import numpy as np

    X, y = data.X[:1], data.y[:1]
    ours = radii(net, clusters, X, y)
    radius = ours().radius
    solver, finished = scip(seconds, radius)
    shortest = []
    times = interleaved({"reluflow": ours}, repeats=1)
    times["SCIP"] = once(lambda: shortest.append(solver(net, X, y)))
    length = float(np.linalg.norm(shortest[0] - X))
    what = "proved" if finished[0] else f"not proved within {seconds:g} s, a lower bound"
    found.compare(
        "smallest perturbation of one example",
        times["reluflow"],
        {"SCIP": times["SCIP"]},
        note=f"timed once; {what}; ratio to the radius {length / radius[0]:.5f}",
    )


def arguments(parser):
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--init-scale", type=float, default=1e-3)
    parser.add_argument("--scip-seconds", type=float, default=60.0, help="time limit of SCIP")


if __name__ == "__main__":
    topic.main("bench.attacks", __doc__, measure, PACKAGES, alone=ALONE, more=arguments)
