"""One gradient step of the flow against NumPy, torch and JAX, on six shapes.

For every shape (n, d, m) the time of each contender over that of reluflow's primal form, and over
that of its Gram form: float64, interleaved repeats. reluflow's time is that of a flow less that of
its first gradient, over the number of the others, integrator included; a peer's is one gradient and
one update. With it the share of the fused multiply-adds of the cores that dense products would take
in reluflow's time, measured next to each shape: of processor time on one thread, of wall time on
more. Fewer operations are done where products with activation patterns are sums.

    python -m bench.gradient_step [--threads 1] [--repeats 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics

from bench import fma_peak, topic
from bench.timing import Samples, interleaved, ratios

SHAPES = [
    (200, 500, 50),
    (500, 2000, 200),
    (1000, 1000, 1000),
    (2000, 10000, 100),
    (300, 300, 5000),
    (100, 110, 20),
]
QUICK = [(200, 500, 50), (100, 110, 20)]
FORMS = ("primal", "gram")
PACKAGES = ["numpy", "torch==2.13.0", "jax", "jaxlib"]
RATE = 1e-6
# Steps so short that the network hardly moves: every example keeps its weight and every neuron its
# part, so that reluflow, which leaves out what is zero, can leave nothing out.
RTOL = 1e-9
# So many operations are timed, in at least so many gradients: a flow takes hundreds, and its
# preparation, which goes over all examples and is not shared by threads, as long as ten of them.
TIMED_OPERATIONS, LEAST_EVALUATIONS = 1e9, 121
# Products of so many operations and less are one small problem; the others are shared by threads.
SMALL = 3e7
OF_PEAK, OF_PEAK_SMALL, TWO_THREADS = 0.80, 0.70, 1.8


def problem(n, d, m):
    """Normal examples with random labels, and a small network."""
    import numpy as np

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    W = rng.standard_normal((m, d))
    W *= 1e-2 / np.sqrt(d)
    return X, y, W, 1e-2 * np.where(np.arange(m) % 2, -1.0, 1.0)


def operations(form, n, d, m):
    """Of the dense matrix products of one gradient."""
    return 4 * n * (d + 1) * m if form == "primal" else 2 * n * n * m


def evaluations(shape):
    """How many gradients a flow is timed for: a multiple of the three of a step, and the first."""
    return 1 + 3 * round(max(LEAST_EVALUATIONS, TIMED_OPERATIONS / operations("gram", *shape)) / 3)


def reluflow_flow(X, y, W, v, form, threads, gradients):
    """So many gradients of a flow."""
    import reluflow as rf

    data, net = rf.Dataset(X, y), rf.TwoLayerNet(W, v * 0, v)

    def call():
        return rf.gradient_flow(
            net,
            data,
            form=form,
            log_inverse_loss=1e100,
            max_evaluations=gradients,
            rtol=RTOL,
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


def torch_step(X, y, W, v, threads, *, compiled=False):
    import torch

    torch.set_num_threads(threads)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    W, v = torch.tensor(W, requires_grad=True), torch.tensor(v, requires_grad=True)
    b = torch.zeros(len(v), dtype=torch.float64, requires_grad=True)

    def log_loss(W, b, v):
        return torch.logsumexp(-y * (torch.relu(X @ W.T + b) @ v), 0)

    if compiled:
        log_loss = torch.compile(log_loss, dynamic=False)

    def call():
        gradients = torch.autograd.grad(log_loss(W, b, v), (W, b, v))
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


def flow_steps(times, key, gradients):
    """Time of one gradient of a flow: a long flow less one of a single gradient."""
    return times[(*key, gradients)].less(times[(*key, 1)]).over(gradients - 1)


def measure(options):
    """All shapes."""
    found = topic.Findings()
    for shape in QUICK if options.quick else SHAPES:
        measure_shape(found, shape, options)
        print(f"{shape} done", flush=True)
    return found


def measure_shape(found, shape, options):
    """Ratios, share of the peak, and what more threads bring."""
    drawn, threads = problem(*shape), options.threads
    peers = {
        "NumPy": numpy_step(*drawn),
        "torch": torch_step(*drawn, threads),
        "torch.compile": torch_step(*drawn, threads, compiled=True),
        "JAX": jax_step(*drawn),
    }
    keys = [(form, used) for form in FORMS for used in sorted({1, threads})]
    many = evaluations(shape)
    # The first flow after the others pays for memory that they gave back: it is not counted.
    flows = {
        (*key, count): reluflow_flow(*drawn, *key, max(1, count))
        for key in keys
        for count in (0, 1, many)
    }
    times = interleaved({**flows, **peers}, repeats=options.repeats)
    peak = fma_peak.measure()
    case = ", ".join(map(str, shape))
    for form in FORMS:
        ours = flow_steps(times, (form, threads), many)
        found.compare(
            f"{case}, {form}",
            ours,
            {name: times[name] for name in peers},
            aim=1.0 if form == "primal" else None,
        )
        found.facts.append(of_peak(shape, form, ours, peak, threads))
        if threads > 1:
            alone = flow_steps(times, (form, 1), many)
            found.facts.append(speed_up(shape, form, alone, ours, threads))


def of_peak(shape, form, ours: Samples, peak, threads):
    """Share of the fused multiply-adds of the cores."""
    taken = statistics.median(ours.cpu if threads == 1 else ours.wall)
    aim = None
    if form == "primal" and threads == 1:
        aim = OF_PEAK_SMALL if shape == min(SHAPES, key=lambda s: operations(form, *s)) else OF_PEAK
    return topic.Fact(
        f"{', '.join(map(str, shape))}, {form}: share of the FMA peak",
        operations(form, *shape) / taken / 1e9 / (peak * threads),
        aim=aim,
        note=f"of {threads} x {peak:.1f} GFLOP/s",
    )


def speed_up(shape, form, alone, together, threads):
    """One thread over several."""
    low, middle, high = ratios(alone.wall, together.wall)
    large = operations("primal", *shape) > SMALL
    return topic.Fact(
        f"{', '.join(map(str, shape))}, {form}: one thread over {threads}",
        middle,
        aim=TWO_THREADS if large and form == "primal" else None,
        note=f"{low:.2f} to {high:.2f}",
    )


if __name__ == "__main__":
    topic.main("bench.gradient_step", __doc__, measure, PACKAGES)
