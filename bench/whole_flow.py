"""A whole flow to L = 1e-8 against SciPy's solve_ivp and gradient descent in torch.

n = 100, d = 2000, k = 10, sigma = 1, m = 50. Accuracy is the angle between the end and that of a
flow of tolerance 1e-6. solve_ivp follows the same rescaled flow, log-domain weights included, in
NumPy, at the largest tolerance that makes it no less accurate than reluflow at 1e-3. Constant-step
gradient descent follows the flow in its own time t, where d tau = L dt; its number of steps is the
time that the flow takes over the largest step that neither raises the loss on the way from
log(1/L) = 0.1 to 1 nor leaves the flow by more than that angle, times the measured time of one: a
projection, not a run.

    python -m bench.whole_flow [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time

from bench.environment import run_inside
from bench.gradient_step import limit_threads

PACKAGES = ["numpy", "scipy", "torch==2.13.0"]
TARGET = 8 * math.log(10)
SOLVERS = ("RK23", "RK45", "DOP853")
TOLERANCES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)


def problem():
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(10, 2000, 1.0)
    return rf.draw(clusters, 100, 50, init_scale=1e-2, coordinates="ambient", seed=0)


def flow(drawn, **options):
    import reluflow as rf

    options = {"log_inverse_loss": TARGET, "num_threads": 1, **options}
    return rf.gradient_flow(drawn.net, drawn.data, **options)


def angle(first, second):
    import numpy as np

    return float(np.linalg.norm(first / np.linalg.norm(first) - second / np.linalg.norm(second)))


def parameters(net):
    import numpy as np

    return np.concatenate([net.W.ravel(), net.b, net.v])


def timed(call, repeats):
    """Median seconds of a call, and what it returned."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), found


def solve(drawn, solver, rtol):
    """End of the rescaled flow in NumPy, or None where it did not get there."""
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
        return -weights(theta)[4] - TARGET

    arrived.terminal = True
    start = parameters(drawn.net)
    scale = np.linalg.norm(start) / math.sqrt(start.size)
    found = solve_ivp(
        velocity, (0, 1e6), start, method=solver, rtol=rtol, atol=rtol * scale, events=arrived
    )
    return found.y[:, -1] if found.status == 1 else None


def flow_time(path):
    """t, the integral of exp(log(1/L)) d tau, log(1/L) taken linear between recorded moments."""
    import numpy as np

    level, tau = path.log_inverse_loss, path.rescaled_time
    rise = np.diff(level)
    mean = np.where(np.abs(rise) < 1e-9, np.exp(level[:-1]), np.diff(np.exp(level)) / rise)
    return float((mean * np.diff(tau)).sum())


def descent(drawn, start):
    """A torch step, which returns the loss before it and the parameters after, from a network."""
    import torch

    X, y = torch.tensor(drawn.data.X), torch.tensor(drawn.data.y)
    state = [torch.tensor(a, requires_grad=True) for a in (start.W, start.b, start.v)]

    def step(rate):
        W, b, v = state
        loss = torch.exp(-y * (torch.relu(X @ W.T + b) @ v)).mean()
        gradients = torch.autograd.grad(loss, state)
        with torch.no_grad():
            for parameter, gradient in zip(state, gradients, strict=True):
                parameter -= rate * gradient
        return loss.item(), state

    return step


def descends(drawn, start, rate, accuracy):
    """Whether gradient descent from ``start`` to log(1/L) = 1 stays that close to the flow."""
    import torch

    step, last = descent(drawn, start), math.inf
    while True:
        loss, state = step(rate)
        if not loss <= last:
            return False
        if loss < math.exp(-1):
            break
        last = loss
    end = torch.cat([parameter.detach().ravel() for parameter in state]).numpy()
    exact = flow(drawn, log_inverse_loss=-math.log(loss_of(drawn, end)), rtol=1e-6).net
    return angle(end, parameters(exact)) <= accuracy


def loss_of(drawn, theta):
    """Mean exponential loss of a vector of parameters."""
    import numpy as np

    m, d = drawn.net.W.shape
    hidden = np.maximum(drawn.data.X @ theta[: m * d].reshape(m, d).T + theta[m * d : -m], 0)
    return float(np.exp(-drawn.data.y * (hidden @ theta[-m:])).mean())


def largest_rate(drawn, accuracy):
    """Within a factor 2, from where the loss has begun to fall."""
    start = flow(drawn, log_inverse_loss=0.1, rtol=1e-6).net
    rate = 1.0
    while not descends(drawn, start, rate, accuracy):
        rate /= 2
    return rate


def measure(repeats):
    """One row a contender."""
    import torch

    torch.set_num_threads(1)
    drawn = problem()
    exact = parameters(flow(drawn, rtol=1e-6).net)
    seconds, ours = timed(lambda: flow(drawn), repeats)
    accuracy = angle(parameters(ours.net), exact)
    yield {"name": "reluflow", "seconds": seconds, "angle": accuracy, "ratio": 1.0}
    for solver in SOLVERS:
        for rtol in TOLERANCES:
            taken, end = timed(lambda: solve(drawn, solver, rtol), 1)  # noqa: B023
            if end is not None and angle(end, exact) <= accuracy:
                break
        yield {
            "name": f"SciPy {solver}, rtol {rtol:g}",
            "seconds": taken,
            "angle": math.nan if end is None else angle(end, exact),
            "ratio": taken / seconds,
        }
    rate = largest_rate(drawn, accuracy)
    step = descent(drawn, ours.net)
    one, _ = timed(lambda: [step(rate) for _ in range(50)], repeats)
    steps = flow_time(ours.trajectory) / rate
    yield {
        "name": f"torch, {steps:.2g} steps of {rate:g} (projected)",
        "seconds": steps * one / 50,
        "angle": math.nan,
        "ratio": steps * one / 50 / seconds,
    }


def main() -> None:
    """Prints the table and, with --json, writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    run_inside("bench.whole_flow", PACKAGES)
    limit_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}")
    rows = []
    for row in measure(options.repeats):
        rows.append(row)
        print(
            f"{row['name']:>48} {row['seconds']:12.4g} s  angle {row['angle']:.2e}"
            f"  ratio {row['ratio']:10.4g}",
            flush=True,
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
