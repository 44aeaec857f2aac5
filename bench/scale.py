"""The theorem's own scale: what the dimension costs, and what it does not.

Prints how long it takes to build a problem in 10^12 dimensions; the whole experiment there over the
same in 10^4; a step of the flow on given data in all coordinates over one in the few that matter,
and how far the trajectories differ; and the whole experiment, limit included, where the theorems'
assumption holds for ten clusters with noise 1. Times are processor time of all threads, so that
other work on the machine does not count, and wall time where it is what was promised.

    python -m bench.scale [--threads 2] [--repeats 5] [--json FILE] [--skip-large]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time

from bench.topic import limit_threads

HUGE, SMALL = 10**12, 10**4
# (d, k, sigma) of the large experiment; n = ceil(k ln(d)^2).
LARGE = (51_500_000, 10, 1.0)


def building(repeats):
    """Milliseconds to draw a problem with 200 examples and 200 neurons."""
    import reluflow as rf

    clusters = rf.ClusterModel.orthogonal(10, HUGE, 1.0)
    times = [clock(lambda seed=s: rf.draw(clusters, 200, 200, seed=seed)) for s in range(repeats)]
    return {"milliseconds": 1e3 * statistics.median(times)}


def any_dimension(repeats, threads):
    """Processor time of the whole experiment in 10^12 dimensions over that in 10^4."""
    import reluflow as rf

    def run(dim, seed):
        rf.double_edge(
            rf.ClusterModel.orthogonal(4, dim, 0.1), 200, 100, seed=seed, num_threads=threads
        )

    run(SMALL, 0)
    pairs = [
        (clock(lambda s=seed: run(HUGE, s)), clock(lambda s=seed: run(SMALL, s)))
        for seed in range(repeats)
    ]
    return {
        "seconds": {
            "1e12": statistics.median(huge for huge, _ in pairs),
            "1e4": statistics.median(small for _, small in pairs),
        },
        "ratio": statistics.median(huge / small for huge, small in pairs),
    }


def given_data(threads):
    """Seconds a gradient at d = 20,000, n = 300, m = 100, and differences of trajectories."""
    import numpy as np

    import reluflow as rf

    data = rf.ClusterModel.orthogonal(10, 20_000, 1.0).sample(300, seed=0)
    net = rf.TwoLayerNet.init(100, 20_000, 1e-3, seed=1)
    start = time.process_time()
    reduction = rf.Reduction.of(net, data)
    reducing = time.process_time() - start
    ways = {
        "ambient": (net, data, "primal"),
        "gram": (net, data, "gram"),
        "reduced": (reduction.net, reduction.data, "primal"),
    }
    seconds, flows = {}, {}
    for name, (start_net, examples, form) in ways.items():
        few, many = (
            clock_of(rf.gradient_flow, start_net, examples, form, most, threads)
            for most in ((8, 40) if name == "ambient" else (40, 400))
        )
        seconds[name] = (many[0] - few[0]) / (many[1].evaluations - few[1].evaluations)
        flows[name] = clock_of(rf.gradient_flow, start_net, examples, form, 120, threads)[1]
    reached = flows["ambient"].net
    lifted = reduction.lift(flows["reduced"].net)
    difference = {
        name: float(np.abs(found.W - reached.W).max() / np.abs(reached.W).max())
        for name, found in (("gram", flows["gram"].net), ("reduced", lifted))
    }
    return {
        "seconds_a_gradient": seconds,
        "seconds_to_reduce": reducing,
        "ratio": {name: seconds["ambient"] / seconds[name] for name in ("gram", "reduced")},
        "relative_difference": difference,
        "gradients_compared": flows["ambient"].evaluations,
    }


def large(threads):
    """Wall time and memory of the whole experiment, in a process of its own."""
    words = [sys.executable, "-m", "bench.scale", "--threads", str(threads), "--only-large"]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def run_large(threads):
    """The whole experiment where the assumption holds."""
    import reluflow as rf

    dim, k, noise = LARGE
    n = math.ceil(k * math.log(dim) ** 2)
    start = time.perf_counter()
    result = rf.double_edge(
        rf.ClusterModel.orthogonal(k, dim, noise), n, 100, limit=True, num_threads=threads
    )
    return {
        "n": n,
        "wall_seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time(),
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "assumption_holds": result.assumption.holds,
        "limit": result.limit.status.value,
        "stationarity": result.limit.stationarity,
        "summary": result.summary,
    }


def clock(call):
    """Processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def clock_of(flow, net, data, form, most, threads):
    """Processor seconds of a flow, and the flow."""
    start = time.process_time()
    found = flow(
        net, data, form=form, log_inverse_loss=1e4, max_evaluations=most, num_threads=threads
    )
    return time.process_time() - start, found


def main() -> None:
    """Prints the figures and, with --json, writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="file to write the results to")
    parser.add_argument("--skip-large", action="store_true", help="leave out the longest part")
    parser.add_argument("--only-large", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit_threads(options.threads)
    if options.only_large:
        print(json.dumps(run_large(options.threads)))
        return
    found = {
        "building": building(4 * options.repeats),
        "any_dimension": any_dimension(options.repeats, options.threads),
        "given_data": given_data(options.threads),
    }
    print(f"building d = 1e12, n = m = 200: {found['building']['milliseconds']:.1f} ms")
    both = found["any_dimension"]
    print(
        f"double_edge at d = 1e12: {both['seconds']['1e12']:.2f} s, at d = 1e4: "
        f"{both['seconds']['1e4']:.2f} s, ratio {both['ratio']:.3f}"
    )
    given = found["given_data"]
    for name, ratio in given["ratio"].items():
        print(
            f"a gradient at d = 20,000, n = 300, m = 100, {name}: "
            f"{1e3 * given['seconds_a_gradient'][name]:.2f} ms, {ratio:.0f} times faster than "
            f"in all coordinates; weights differ by {given['relative_difference'][name]:.1e} "
            f"after {given['gradients_compared']} gradients"
        )
    if not options.skip_large:
        found["large"] = large(options.threads)
        one = found["large"]
        print(
            f"double_edge at d = {LARGE[0]:,}, k = {LARGE[1]}, noise {LARGE[2]:g}, n = {one['n']}, "
            f"width 100, limit included: {one['wall_seconds']:.1f} s wall, "
            f"{one['processor_seconds']:.1f} s of processors, {one['gigabytes']:.2f} GB; "
            f"limit {one['limit']}, stationarity {one['stationarity']:.1e}"
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
