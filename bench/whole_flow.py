"""A whole flow to log(1/L) = 10, to L = 1e-8 and to its limit, against solvers and descent.

n = 100, d = 2000, k = 10, sigma = 1, m = 50, one thread, float64. Accuracy is the angle between the
end and that of a flow of tolerance 1e-5. SciPy's solve_ivp and diffrax, compiled beforehand, follow
the same rescaled flow, log-domain weights included, at the largest of some tolerances that makes
them no less accurate than reluflow is at its own; where none does in the time that there is, the
ratio is that of the last that was tried, a lower bound. Constant-step gradient descent in torch
starts from the same network and has arrived when its loss is as small and its angle to the limit of
the flow at most 1 % larger than reluflow's. Large rates jump to a small loss somewhere else, and
stand still there; small ones follow the flow. Where the time of one is up before it arrives, the
ratio is a lower bound, and beside it stands a projection: the time t of the flow, where
d tau = L dt, that is left, over the rate, at the measured steps a second.

    python -m bench.whole_flow [--against solvers descent] [--repeats 5] [--budget 40] [--quick]
        [--json FILE]
"""

from __future__ import annotations

import math
import statistics
import time

from bench import topic
from bench.timing import Samples, interleaved

PACKAGES = ["numpy", "scipy", "torch==2.13.0", "jax", "jaxlib", "diffrax"]
TARGETS = {"log(1/L) = 10": 10.0, "L = 1e-8": 8 * math.log(10)}
SCIPY = ("RK23", "RK45")
DIFFRAX = ("Bosh3", "Tsit5")
TOLERANCES = (1e-3, 5e-4, 2.5e-4, 1e-4)
# What takes longer is timed once.
LONG = 2.0
AGAINST = ("solvers", "descent")
SLACK = 1.01
RATES = (8.0, 2.0, 1 / 2, 1 / 8, 1 / 32, 1 / 128)
# Below the last target by so much in log(1/L) a step of descent moves nothing any more.
STILL = 30.0
DESCENT, SOLVERS = 1000.0, 10.0


def problem():
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(10, 2000, 1.0)
    return rf.draw(clusters, 100, 50, init_scale=1e-2, coordinates="ambient", seed=0)


def flow(drawn, target, **options):
    import reluflow as rf

    return rf.gradient_flow(
        drawn.net, drawn.data, log_inverse_loss=target, num_threads=1, **options
    )


def angle(first, second):
    """In radians, exact for small ones too."""
    import numpy as np

    chord = np.linalg.norm(first / np.linalg.norm(first) - second / np.linalg.norm(second))
    return 2 * math.asin(min(1.0, float(chord) / 2))


def parameters(net):
    import numpy as np

    return np.concatenate([net.W.ravel(), net.b, net.v])


def scipy_solver(drawn, solver, target):
    """End of the rescaled flow in NumPy by tolerance, or None where it did not get there."""
    import numpy as np
    from scipy.integrate import solve_ivp

    X, y = drawn.data.X, drawn.data.y
    m, d = drawn.net.W.shape

    def weights(theta):
        W, b, v = theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:]
        Z = X @ W.T + b
        A = np.maximum(Z, 0)
        q = y * (A @ v)
        p = np.exp(q.min() - q)
        return Z, A, v, p, math.log(p.mean()) - q.min()

    def velocity(tau, theta):
        Z, A, v, p, _ = weights(theta)
        g = y * p / p.sum()
        G = np.where(Z > 0, np.outer(g, v), 0)
        return np.concatenate([(G.T @ X).ravel(), G.sum(0), A.T @ g])

    def arrived(tau, theta):
        return -weights(theta)[4] - target

    arrived.terminal = True
    start = parameters(drawn.net)
    scale = np.linalg.norm(start) / math.sqrt(start.size)

    def end(rtol):
        found = solve_ivp(
            velocity, (0, 1e6), start, method=solver, rtol=rtol, atol=rtol * scale, events=arrived
        )
        return found.y[:, -1] if found.status == 1 else None

    return end


def diffrax_solver(drawn, solver, target):
    """The same in JAX, compiled at the first call."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optimistix

    X, labels = jnp.asarray(drawn.data.X), jnp.asarray(drawn.data.y)
    start = tuple(jnp.asarray(a) for a in (drawn.net.W, drawn.net.b, drawn.net.v))
    size = sum(a.size for a in start)
    scale = np.linalg.norm(parameters(drawn.net)) / math.sqrt(size)

    def log_loss(theta):
        W, b, v = theta
        q = labels * (jax.nn.relu(X @ W.T + b) @ v)
        return jax.scipy.special.logsumexp(-q) - math.log(len(labels))

    def velocity(t, theta, _):
        return jax.tree.map(jnp.negative, jax.grad(log_loss)(theta))

    # diffrax passes these by name.
    def arrived(t, y, args, **_):
        return -log_loss(y) - target

    @jax.jit
    def solve(theta, rtol):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            getattr(diffrax, solver)(),
            t0=0.0,
            t1=1e6,
            dt0=None,
            y0=theta,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * scale),
            event=diffrax.Event(arrived, optimistix.Newton(1e-8, 1e-8)),
            max_steps=100_000,
            throw=False,
        )

    def end(rtol):
        found = solve(start, rtol)
        jax.block_until_ready(found.ys)
        if found.result != diffrax.RESULTS.event_occurred:
            return None
        return np.concatenate([np.asarray(a[-1]).ravel() for a in found.ys])

    return end


def no_less_accurate(end, exact, accuracy, budget):
    """The largest tolerance that suffices, or the last that was tried; its angle and its time."""
    begun = time.perf_counter()
    for rtol in TOLERANCES:
        wall, cpu = time.perf_counter(), time.process_time()
        reached = end(rtol)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        off = math.inf if reached is None else angle(reached, exact)
        if off <= accuracy or time.perf_counter() - begun > budget:
            break
    return rtol, off, Samples([wall], [cpu])


def compare_solvers(found, drawn, name, options):
    """SciPy and diffrax to one target."""
    target = TARGETS[name]
    exact = parameters(flow(drawn, target, rtol=1e-5).net)
    accuracy = angle(parameters(flow(drawn, target).net), exact)
    ends = {
        **{f"diffrax {solver}": diffrax_solver(drawn, solver, target) for solver in DIFFRAX},
        **{f"SciPy {solver}": scipy_solver(drawn, solver, target) for solver in SCIPY},
    }
    if options.quick:
        ends = {solver: ends[solver] for solver in ("diffrax Bosh3", "diffrax Tsit5")}
    for solver, end in ends.items():
        if solver.startswith("diffrax"):
            end(TOLERANCES[0])  # compiles
        rtol, off, once = no_less_accurate(end, exact, accuracy, options.budget)
        print(f"{name}, {solver}: rtol {rtol}, {off:.1e} of {accuracy:.1e}", flush=True)
        calls = {"reluflow": lambda: flow(drawn, target)}
        note = f"rtol {rtol:g}, {off:.1e} rad from the exact flow, reluflow {accuracy:.1e}"
        if once.wall[0] <= LONG:
            calls[solver] = lambda end=end, rtol=rtol: end(rtol)
        else:
            note += "; timed once"
        if off > accuracy:
            note += "; less accurate, so a lower bound"
        times = interleaved(calls, repeats=options.repeats)
        ours = times["reluflow"]
        often = Samples(once.wall * options.repeats, once.cpu * options.repeats)
        found.compare(
            f"flow to {name}",
            ours,
            {solver: times.get(solver, often)},
            aim=SOLVERS if name == "L = 1e-8" else None,
            note=note,
        )


class Descent:
    """Constant-step gradient descent in torch."""

    def __init__(self, drawn, rate):
        import torch

        self.rate, self.steps, self.seconds, self.cpu = rate, 0, 0.0, 0.0
        self._X, self._y = torch.tensor(drawn.data.X), torch.tensor(drawn.data.y)
        start = (drawn.net.W, drawn.net.b, drawn.net.v)
        self._state = [torch.tensor(a, requires_grad=True) for a in start]

    def run(self, steps):
        """So many steps more."""
        import torch

        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            gradients = torch.autograd.grad(self._loss(), self._state)
            with torch.no_grad():
                for parameter, gradient in zip(self._state, gradients, strict=True):
                    parameter -= self.rate * gradient
        self.steps += steps
        self.seconds += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu

    def _loss(self):
        import torch

        W, b, v = self._state
        return torch.exp(-self._y * (torch.relu(self._X @ W.T + b) @ v)).mean()

    @property
    def log_inverse_loss(self):
        """log(1/L) now; -infinity where descent has blown up."""
        loss = self._loss().item()
        return -math.log(loss) if 0 < loss < math.inf else -math.inf

    @property
    def parameters(self):
        import torch

        return torch.cat([parameter.detach().ravel() for parameter in self._state]).numpy()


def compare_descent(found, drawn, rate, limit, ends, budget):
    """One rate against reluflow's time to every target."""
    descent = Descent(drawn, rate)
    waiting, every, level, off = dict(ends), 20, 0.0, math.nan
    while (
        waiting and descent.seconds < budget and -math.inf < level < STILL + max(TARGETS.values())
    ):
        descent.run(every)
        every = min(2 * every, 1000)
        level = descent.log_inverse_loss
        off = angle(descent.parameters, limit) if level > -math.inf else math.nan
        for name, (ours, end) in list(waiting.items()):
            if level >= TARGETS[name] and off <= SLACK * angle(parameters(end.net), limit):
                del waiting[name]
                note = f"{descent.steps:,} steps, {off:.3f} rad from the limit"
                found.comparisons.append(descent_row(name, descent, ours, note))
    where = f"after {descent.steps:,} steps: log(1/L) = {level:.4g}, {off:.3f} rad from the limit"
    if descent.seconds < budget:
        if waiting:
            found.facts.append(stranded(rate, where, waiting))
        return
    path = max(ends.values(), key=lambda pair: pair[1].log_inverse_loss)[1].trajectory
    for name, (ours, end) in waiting.items():
        its = angle(parameters(end.net), limit)
        note = f"not there {where}, reluflow {its:.3f}; a lower bound"
        left = (flow_time(path, TARGETS[name]) - flow_time(path, level)) / rate
        if left > 0:
            seconds = descent.seconds * (1 + left / descent.steps)
            note += f", projected: {seconds / statistics.median(ours.wall):.2g}"
        found.comparisons.append(descent_row(name, descent, ours, note))
    found.facts.append(
        topic.Fact(
            f"torch descent, rate {rate:g}: time t of its steps over the flow's to that loss",
            descent.steps * rate / flow_time(path, level),
            note=f"log(1/L) = {level:.2f}; near 1 the projection can be trusted",
        )
    )


def stranded(rate, where, waiting):
    """A rate that will never arrive."""
    return topic.Fact(
        f"torch descent, rate {rate:g}: targets that it can still reach",
        0,
        note=f"of {len(waiting)}; it stands still or has blown up {where}",
    )


def descent_row(name, descent, ours, note):
    """What descent took so far over reluflow's time, at least; timed once."""
    over = [descent.seconds / seconds for seconds in ours.wall]
    return topic.Comparison(
        case=f"flow to {name}, direction too",
        contender=f"torch descent, rate {descent.rate:g}",
        seconds=descent.seconds,
        ours=statistics.median(ours.wall),
        ratio=statistics.median(over),
        low=min(over),
        high=max(over),
        cpu_ratio=descent.cpu / statistics.median(ours.cpu),
        aim=DESCENT if name == "L = 1e-8" else None,
        note=note,
    )


def flow_time(path, target):
    """t, the integral of exp(log(1/L)) d tau, log(1/L) taken linear between recorded moments."""
    import numpy as np

    keep = path.log_inverse_loss <= target
    level, tau = path.log_inverse_loss[keep], path.rescaled_time[keep]
    rise = np.diff(level)
    mean = np.where(np.abs(rise) < 1e-9, np.exp(level[:-1]), np.diff(np.exp(level)) / rise)
    return float((mean * np.diff(tau)).sum())


def limit_of(found, drawn, repeats):
    """The limit of the flow, with the time that it takes."""
    import reluflow as rf

    point = rf.flow_limit(drawn.net, drawn.data, num_threads=1)
    times: Samples = interleaved(
        {"limit": lambda: rf.flow_limit(drawn.net, drawn.data, num_threads=1)}, repeats=repeats
    )["limit"]
    found.facts += [
        topic.Fact("flow to its limit, reluflow", statistics.median(times.wall), "s"),
        topic.Fact("the same, processors", statistics.median(times.cpu), "s"),
        topic.Fact("largest residual of the limit", point.residuals.worst, note=str(point.status)),
    ]
    return parameters(point.net)


def measure(options):
    """All targets."""
    import torch

    torch.set_num_threads(1)
    found, drawn = topic.Findings(), problem()
    limit = limit_of(found, drawn, options.repeats)
    for name, target in TARGETS.items():
        end = parameters(flow(drawn, target).net)
        found.facts.append(
            topic.Fact(f"angle between flow at {name} and its limit", angle(end, limit), "rad")
        )
    if "solvers" in options.against:
        for name in TARGETS:
            compare_solvers(found, drawn, name, options)
    if "descent" in options.against:
        compare_descents(found, drawn, limit, options)
    return found


def compare_descents(found, drawn, limit, options):
    """All rates."""
    calls = {name: lambda target=target: flow(drawn, target) for name, target in TARGETS.items()}
    times = interleaved(calls, repeats=options.repeats)
    ends = {name: (times[name], calls[name]()) for name in TARGETS}
    rates, budget = ((8.0, 1 / 8), 5.0) if options.quick else (RATES, options.budget)
    for rate in rates:
        compare_descent(found, drawn, rate, limit, ends, budget)
        print(f"descent with rate {rate:g} done", flush=True)


def arguments(parser):
    parser.add_argument("--against", nargs="*", choices=AGAINST, default=AGAINST)
    parser.add_argument(
        "--budget", type=float, default=40.0, help="seconds of each descent, or search"
    )


if __name__ == "__main__":
    topic.main("bench.whole_flow", __doc__, measure, PACKAGES, repeats=5, more=arguments)
