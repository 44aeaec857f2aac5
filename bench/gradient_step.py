"""One gradient step of the flow against NumPy, torch and JAX.

Prints, for every shape (n, d, m), the time of each contender over that of reluflow's primal and
Gram forms: medians of interleaved repeats, float64. reluflow's time is that of a flow less that of
its first gradient, over the number of the others, integrator included; a peer's is one gradient and
one update.

    python -m bench.gradient_step [--threads 1] [--repeats 7] [--shapes 300,1000,100 ...]
        [--forms gram] [--evaluations 31]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys

from bench.environment import run_inside
from bench.timing import interleaved, median_ratio

SHAPES = [
    (200, 500, 50),
    (500, 2000, 200),
    (1000, 1000, 1000),
    (2000, 10000, 100),
    (300, 300, 5000),
    (100, 110, 20),
]
FORMS = ("primal", "gram")
PACKAGES = ["numpy", "torch==2.13.0", "jax", "jaxlib"]
RATE = 1e-6


def limit_threads(threads: int) -> None:
    """Before any numerical library is loaded: the same cores and threads for everyone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["JAX_ENABLE_X64"] = "1"


def reluflow_flow(X, y, W, v, form, threads, evaluations):
    """So many gradients of a flow."""
    import reluflow as rf

    data, net = rf.Dataset(X, y), rf.TwoLayerNet(W, v * 0, v)

    def call():
        rf.gradient_flow(
            net,
            data,
            form=form,
            log_inverse_loss=1e100,
            max_evaluations=evaluations,
            num_threads=threads,
        )

    return call


def numpy_step(X, y, W, v):
    import numpy as np

    def call():
        Z = X @ W.T
        A = np.maximum(Z, 0)
        q = y * (A @ v)
        p = np.exp(q.min() - q)
        g = y * p / p.sum()
        G = (Z > 0) * np.outer(g, v)
        return W + RATE * (G.T @ X), v + RATE * (A.T @ g), RATE * G.sum(0)

    return call


def torch_step(X, y, W, v, threads):
    import torch

    torch.set_num_threads(threads)
    X, y = torch.tensor(X), torch.tensor(y)
    W, v = torch.tensor(W, requires_grad=True), torch.tensor(v, requires_grad=True)
    b = torch.zeros(len(v), dtype=torch.float64, requires_grad=True)

    def call():
        loss = torch.logsumexp(-y * (torch.relu(X @ W.T + b) @ v), 0)
        gradients = torch.autograd.grad(loss, (W, b, v))
        with torch.no_grad():
            for parameter, gradient in zip((W, b, v), gradients, strict=True):
                parameter -= RATE * gradient

    return call


def jax_step(X, y, W, v):
    import jax
    import jax.numpy as jnp

    X, y = jnp.asarray(X), jnp.asarray(y)

    def loss(parameters):
        W, b, v = parameters
        return jax.scipy.special.logsumexp(-y * (jax.nn.relu(X @ W.T + b) @ v))

    @jax.jit
    def update(parameters):
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, jax.grad(loss)(parameters))

    state = [(jnp.asarray(W), jnp.zeros(len(v)), jnp.asarray(v))]

    def call():
        state[0] = update(state[0])
        jax.block_until_ready(state[0])

    return call


def measure(shape, options):
    """Ratios and milliseconds of one shape."""
    import numpy as np

    n, d, m = shape
    threads = options.threads
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    W = 1e-2 * rng.standard_normal((m, d)) / np.sqrt(d)
    v = 1e-2 * np.where(np.arange(m) % 2, -1.0, 1.0)
    peers = {
        "numpy": numpy_step(X, y, W, v),
        "torch": torch_step(X, y, W, v, threads),
        "jax": jax_step(X, y, W, v),
    }
    flows = {
        (form, count): reluflow_flow(X, y, W, v, form, threads, count)
        for form in options.forms
        for count in (1, options.evaluations)
    }
    measured = interleaved({**flows, **peers}, repeats=options.repeats)
    times = {peer: measured[peer] for peer in peers}
    for form in options.forms:
        pairs = zip(measured[form, options.evaluations], measured[form, 1], strict=True)
        times[form] = [(long - short) / (options.evaluations - 1) for long, short in pairs]
    return {
        "shape": shape,
        "threads": threads,
        "milliseconds": {name: 1e3 * statistics.median(t) for name, t in times.items()},
        "ratios": {
            f"{peer}/{form}": median_ratio(times[peer], times[form])
            for form in options.forms
            for peer in peers
        },
    }


def as_shape(text):
    """n,d,m"""
    n, d, m = map(int, text.split(","))
    return n, d, m


def main() -> None:
    """Prints the table and, with --json, writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shapes", nargs="*", type=as_shape, default=SHAPES, metavar="n,d,m")
    parser.add_argument("--forms", nargs="*", default=FORMS, choices=FORMS)
    parser.add_argument("--evaluations", type=int, default=31)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    run_inside("bench.gradient_step", PACKAGES)
    limit_threads(options.threads)
    rows = []
    for shape in options.shapes:
        row = measure(shape, options)
        rows.append(row)
        if len(rows) == 1:
            names = "  ".join(f"{name:>12}" for name in row["ratios"])
            milliseconds = "  ".join(f"{form + ' ms':>10}" for form in options.forms)
            print(f"{'n,d,m':>16}  {milliseconds}  {names}")
        ratios = "  ".join(f"{ratio:12.2f}" for ratio in row["ratios"].values())
        ours = "  ".join(f"{row['milliseconds'][form]:10.3f}" for form in options.forms)
        print(f"{','.join(map(str, shape)):>16}  {ours}  {ratios}")
        sys.stdout.flush()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
