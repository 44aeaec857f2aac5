"""One shift for all examples: reluflow's against ART's universal perturbation and descent in torch.

The network is that of the demo: orthogonal means, d = 2000, k = 10, sigma = 0.2, n = 200, width
100; 200 fresh examples x, each shifted by -y z. Every contender gives a direction; the norm at
which it flips 95 % of the examples is then found exactly, by reluflow, for all of them, so that
lengths compare like with like. One thread; float64, but ART hands out float32.

    python -m bench.universal [--points 200] [--repeats 3] [--quick] [--json FILE]
"""

from __future__ import annotations

import math

from bench import topic
from bench.attacks import trained
from bench.timing import interleaved

PACKAGES = ["numpy", "torch==2.13.0", "adversarial-robustness-toolbox==1.20.1", "tqdm"]
FLIP = 0.95
STEPS = 300
# A coordinate that carries the label is read by its sign; no shift changes that.
LABEL = 1e9


def descent_direction(net, data, norm):
    """z on the sphere of radius ``norm`` that lowers the margins, by projected descent in torch."""
    import torch

    model = net.to_torch()
    X, y = torch.tensor(data.X), torch.tensor(data.y)

    def call():
        z = torch.zeros(X.shape[1], dtype=torch.float64, requires_grad=True)
        for _ in range(STEPS):
            margins = y * model(X - y[:, None] * z).reshape(-1)
            (gradient,) = torch.autograd.grad(torch.relu(margins).mean(), z)
            with torch.no_grad():
                z -= 0.1 * norm * gradient / gradient.norm().clamp_min(1e-300)
                z *= min(1.0, norm / float(z.norm()))
        return z.detach().numpy()

    return call


def art_direction(net, data, norm, rounds):
    """ART's universal perturbation of DeepFool steps: float32, and alike for all examples.

    So the examples are mirrored where a shift is to go against their label.
    """
    import numpy as np
    import torch
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    typical = float(np.median(np.abs(net(data.X))))

    class Mirrored(torch.nn.Module):
        """Of u = -y x: class 1 where x - y z keeps its label, as -y (u + z) = x - y z."""

        def __init__(self):
            super().__init__()
            self.output = net.to_torch()

        def forward(self, inputs):
            inputs = inputs.double()
            label = torch.sign(inputs[:, -1:])
            margin = label * self.output(-label * inputs[:, :-1]).reshape(-1, 1) / typical
            return torch.cat([-margin, margin], dim=1)

    classifier = PyTorchClassifier(
        Mirrored(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(data.dim + 1,),
        nb_classes=2,
        device_type="cpu",
    )
    y = data.y[:, None]
    inputs = np.hstack([-y * data.X, LABEL * y])

    def call():
        attack = UniversalPerturbation(
            classifier,
            attacker="deepfool",
            attacker_params={"verbose": False, "max_iter": 20},
            delta=1 - FLIP,
            max_iter=rounds,
            eps=norm,
            norm=2,
            verbose=False,
        )
        attack.generate(inputs)
        return np.asarray(attack.noise, dtype=np.float64).reshape(-1)[:-1]

    return call


def measure(options):
    """Time and length of every direction."""
    import numpy as np
    import torch

    import reluflow as rf

    torch.set_num_threads(options.threads)
    points = 40 if options.quick else options.points
    net, clusters, data = trained(points, options.threads)
    scale = math.sqrt(clusters.ambient_dim / clusters.n_clusters)

    def ours(direction):
        return rf.universal_perturbation(
            net, clusters, examples=data, direction=direction, flip=FLIP, num_threads=1
        )

    directions = {
        "torch, projected descent": descent_direction(net, data, scale),
        "ART UniversalPerturbation": art_direction(net, data, scale, 1 if options.quick else 3),
    }
    calls = {kind: lambda kind=kind: ours(kind) for kind in ("means", "optimised")}
    times = interleaved({**calls, **directions}, repeats=options.repeats)
    found = topic.Findings()
    lengths = {f"reluflow, {kind}": ours(kind).norm for kind in calls}
    for name, direction in directions.items():
        z = direction()
        lengths[name] = ours(z).norm if np.any(z) else math.inf
    for kind in calls:
        others = {name: times[name] for name in directions}
        found.compare(f"universal shift, reluflow {kind}", times[kind], others)
    best = ours("optimised")
    for name, length in lengths.items():
        found.facts.append(
            topic.Fact(
                f"norm that flips {FLIP:.0%}, {name}",
                length,
                note=f"{length / best.norm:.4f} times reluflow's optimised",
            )
        )
    found.facts.append(
        topic.Fact(f"no shift flips {FLIP:.0%} below", best.floor, note=f"proved: {best.proved}")
    )
    return found


def arguments(parser):
    parser.add_argument("--points", type=int, default=200)


if __name__ == "__main__":
    topic.main("bench.universal", __doc__, measure, PACKAGES, repeats=3, more=arguments)
