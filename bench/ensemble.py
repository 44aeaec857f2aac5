"""Many small flows at once: one thread against two, and against torch and JAX with vmap.

256 problems with n = 100 examples and m = 50 neurons, one a seed: in the reduced coordinates of
`draw`, whose number is 160 whatever the dimension, and in 2,000 coordinates as a script would draw
them. Contenders get the same arrays. reluflow's time is that of `gradient_flow_ensemble` over the
number of its gradients, integrator and preparation included, in the form that it chooses itself and
in the primal form, which computes the gradient that the peers compute; a peer's is one gradient and
one update of all networks in one vmapped call, over their number. Two threads for all, in float64.

    python -m bench.ensemble [--runs 256] [--repeats 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics

from bench import topic
from bench.gradient_step import RATE, RTOL
from bench.timing import interleaved, ratios

PACKAGES = ["numpy", "torch==2.13.0", "jax", "jaxlib"]
THREADS = 2
# About as many gradients as a flow to log(1/L) = 10 takes; fewer where one takes long.
GRADIENTS, LONG_GRADIENTS = 301, 61
DIMS = {"reduced": 100_000, "ambient": 2000}
PEERS, TWO_THREADS = 5.0, 1.9


def drawn(runs, coordinates):
    """Networks and data sets, one a seed."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(10, DIMS[coordinates], 1.0)
    problems = [
        rf.draw(clusters, 100, 50, init_scale=1e-2, coordinates=coordinates, seed=seed)
        for seed in range(runs)
    ]
    return [problem.net for problem in problems], [problem.data for problem in problems]


def gradients(form, coordinates):
    """How many a flow takes."""
    return LONG_GRADIENTS if (form, coordinates) == ("primal", "ambient") else GRADIENTS


def reluflow_ensemble(nets, data, form, threads, evaluations):
    import reluflow as rf

    def call():
        rf.gradient_flow_ensemble(
            nets,
            data,
            form=form,
            log_inverse_loss=1e100,
            max_evaluations=evaluations,
            rtol=RTOL,
            num_threads=threads,
        )

    return call


def stacked(nets, data):
    import numpy as np

    parameters = [np.stack([getattr(net, name) for net in nets]) for name in ("W", "b", "v")]
    return parameters, [np.stack([getattr(one, name) for one in data]) for name in ("X", "y")]


def torch_vmap(parameters, examples):
    import torch

    torch.set_num_threads(THREADS)
    parameters = [torch.tensor(a) for a in parameters]
    examples = [torch.from_numpy(a) for a in examples]

    def loss(W, b, v, X, y):
        return torch.logsumexp(-y * (torch.relu(X @ W.T + b) @ v), 0)

    gradients = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))

    def call():
        for parameter, gradient in zip(parameters, gradients(*parameters, *examples), strict=True):
            parameter -= RATE * gradient

    return call


def jax_vmap(parameters, examples):
    import jax
    import jax.numpy as jnp

    parameters, examples = ([jnp.asarray(a) for a in arrays] for arrays in (parameters, examples))

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


def measure(options):
    """Both kinds of coordinates."""
    found = topic.Findings()
    runs = 16 if options.quick else options.runs
    for coordinates in DIMS:
        measure_coordinates(found, coordinates, runs, options.repeats)
        print(f"{coordinates} done", flush=True)
    return found


def measure_coordinates(found, coordinates, runs, repeats):
    """Peers, and one thread against two."""
    nets, data = drawn(runs, coordinates)
    arrays = stacked(nets, data)
    contenders = {
        (form, threads): reluflow_ensemble(nets, data, form, threads, gradients(form, coordinates))
        for form in ("auto", "primal")
        for threads in (1, THREADS)
    }
    contenders |= {"torch vmap": torch_vmap(*arrays), "JAX vmap": jax_vmap(*arrays)}
    times = interleaved(contenders, repeats=repeats)
    a_gradient = {
        name: samples.over(runs * (gradients(name[0], coordinates) if type(name) is tuple else 1))
        for name, samples in times.items()
    }
    where = f"{runs} runs, d = {nets[0].dim:,}"
    for form in ("auto", "primal"):
        others = {name: a_gradient[name] for name in ("torch vmap", "JAX vmap")}
        ours, aim = a_gradient[form, THREADS], PEERS if form == "auto" else None
        found.compare(f"{where}, {name_of(form)}", ours, others, aim=aim)
    for form in ("auto", "primal"):
        low, middle, high = ratios(a_gradient[form, 1].wall, a_gradient[form, THREADS].wall)
        found.facts += [
            topic.Fact(
                f"{where}, {name_of(form)}: one thread over {THREADS}",
                middle,
                aim=TWO_THREADS,
                note=f"{low:.2f} to {high:.2f}",
            ),
            topic.Fact(
                f"{where}, {name_of(form)}: a gradient on one thread",
                1e6 * statistics.median(a_gradient[form, 1].cpu),
                "us of processor",
            ),
        ]


def name_of(form):
    """As tables call it."""
    return "Gram form" if form == "auto" else "primal form"


def arguments(parser):
    parser.add_argument("--runs", type=int, default=256)


if __name__ == "__main__":
    topic.main("bench.ensemble", __doc__, measure, PACKAGES, threads=THREADS, more=arguments)
