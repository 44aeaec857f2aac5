"""Many small flows at once: one thread against two, and against torch and JAX with vmap.

256 problems with n = 100 examples and m = 50 neurons, in the coordinates of `draw`. reluflow's time
is that of `gradient_flow_ensemble` over the number of its gradients, integrator included; a peer's
is one gradient and one update of all networks in one vmapped call, over their number. Float64,
medians of interleaved repeats.

    python -m bench.ensemble [--runs 256] [--repeats 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics

from bench.environment import run_inside
from bench.gradient_step import RATE, limit_threads
from bench.timing import interleaved, median_ratio

PACKAGES = ["numpy", "torch==2.13.0", "jax", "jaxlib"]
THREADS = 2
EVALUATIONS = 61


def drawn(runs):
    """Networks and data sets, one a seed."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(10, 100_000, 1.0)
    problems = [rf.draw(clusters, 100, 50, init_scale=1e-2, seed=seed) for seed in range(runs)]
    return [problem.net for problem in problems], [problem.data for problem in problems]


def reluflow_ensemble(nets, data, form, threads):
    import reluflow as rf

    def call():
        rf.gradient_flow_ensemble(
            nets,
            data,
            form=form,
            log_inverse_loss=1e100,
            max_evaluations=EVALUATIONS,
            num_threads=threads,
        )

    return call


def stacked(nets, data):
    import numpy as np

    parameters = [np.stack([getattr(net, name) for net in nets]) for name in ("W", "b", "v")]
    return parameters, [np.stack([getattr(one, name) for one in data]) for name in ("X", "y")]


def torch_vmap(nets, data):
    import torch

    torch.set_num_threads(THREADS)
    parameters, examples = ([torch.tensor(a) for a in arrays] for arrays in stacked(nets, data))

    def loss(W, b, v, X, y):
        return torch.logsumexp(-y * (torch.relu(X @ W.T + b) @ v), 0)

    gradients = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))

    def call():
        for parameter, gradient in zip(parameters, gradients(*parameters, *examples), strict=True):
            parameter -= RATE * gradient

    return call


def jax_vmap(nets, data):
    import jax
    import jax.numpy as jnp

    parameters, examples = ([jnp.asarray(a) for a in arrays] for arrays in stacked(nets, data))

    def loss(parameters, X, y):
        W, b, v = parameters
        return jax.scipy.special.logsumexp(-y * (jax.nn.relu(X @ W.T + b) @ v))

    @jax.jit
    def update(parameters, X, y):
        gradients = jax.vmap(jax.grad(loss))(parameters, X, y)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradients)

    state = [parameters]

    def call():
        state[0] = update(state[0], *examples)
        jax.block_until_ready(state[0])

    return call


def measure(runs, repeats):
    """Microseconds a gradient, and ratios."""
    nets, data = drawn(runs)
    contenders = {
        f"{form}, {threads} thread{'s' * (threads > 1)}": reluflow_ensemble(
            nets, data, form, threads
        )
        for form in ("gram", "primal")
        for threads in (1, THREADS)
    }
    contenders |= {"torch vmap": torch_vmap(nets, data), "JAX vmap": jax_vmap(nets, data)}
    load = os.getloadavg()[0]
    times = interleaved(contenders, repeats=repeats)
    for name in contenders:
        gradients = runs * (1 if "vmap" in name else EVALUATIONS)
        times[name] = [1e6 * t / gradients for t in times[name]]
    ratios = {
        f"one thread / {form}, {THREADS} threads": median_ratio(
            times[f"{form}, 1 thread"], times[f"{form}, {THREADS} threads"]
        )
        for form in ("gram", "primal")
    }
    for peer in ("torch vmap", "JAX vmap"):
        for form in ("gram", "primal"):
            ours = times[f"{form}, {THREADS} threads"]
            ratios[f"{peer} / {form}, {THREADS} threads"] = median_ratio(times[peer], ours)
    return {
        "runs": runs,
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "microseconds": {name: statistics.median(t) for name, t in times.items()},
        "spread": {name: [min(t), max(t)] for name, t in times.items()},
        "ratios": ratios,
    }


def main() -> None:
    """Prints the table and, with --json, writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    run_inside("bench.ensemble", PACKAGES)
    limit_threads(THREADS)
    found = measure(options.runs, options.repeats)
    print(f"load {found['load_before']:.1f} before, {found['load_after']:.1f} after")
    for name, microseconds in found["microseconds"].items():
        low, high = found["spread"][name]
        print(f"{name:>20} {microseconds:9.2f} us a gradient  ({low:.2f} to {high:.2f})")
    for name, ratio in found["ratios"].items():
        print(f"{name:>36} {ratio:7.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
