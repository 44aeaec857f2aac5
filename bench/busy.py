"""How much other programs slow down a flow, reluflow's and torch's.

Time of flows on two threads with two other busy processes over the time without, beside the time
that a fair share of the cores would make of it: with two threads and two others on two cores,
twice. Threads that wait for each other by spinning lose far more than their share. Interleaved:
the others are stopped and continued between samples.

    python -m bench.busy [--repeats 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time

from bench import topic
from bench.gradient_step import problem, reluflow_flow, torch_step
from bench.timing import Samples

PACKAGES = ["numpy", "torch==2.13.0"]
THREADS, OTHERS = 2, 2
SHAPES = [(100, 110, 20), (200, 500, 50), (500, 2000, 200), (1000, 1000, 1000)]
QUICK = SHAPES[:2]
# Of one sample: long beside the slices of time that the system deals out.
SECONDS = 0.3
SPIN = "while True: pass"
# No more than so many times what a fair share would take.
OVER_SHARE = 1.25


@contextlib.contextmanager
def busy_processes():
    """Processes that never rest once continued; they start stopped, and end with the block."""
    running = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(OTHERS)]
    try:
        signal_all(running, signal.SIGSTOP)
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def signal_all(running, what):
    """To these processes alone."""
    for process in running:
        process.send_signal(what)


def timed(call, count):
    """Wall and processor seconds a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        call()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def slowdown(call, running, repeats):
    """Samples without and with the others, in turn."""
    call()
    count = max(1, int(SECONDS / timed(call, 1)[0]))
    quiet, loud = Samples([], []), Samples([], [])
    for _ in range(repeats):
        for samples, what in ((quiet, signal.SIGSTOP), (loud, signal.SIGCONT)):
            signal_all(running, what)
            wall, cpu = timed(call, count)
            samples.wall.append(wall)
            samples.cpu.append(cpu)
    signal_all(running, signal.SIGSTOP)
    return quiet, loud


def fair_share(quiet: Samples):
    """Slowdown where every thread that has work gets an equal part of the cores."""
    cores = len(os.sched_getaffinity(0))
    used = min(THREADS, statistics.median(quiet.cpu) / statistics.median(quiet.wall))
    return max(1.0, (used + OTHERS) / cores)


def measure(options):
    """All shapes; torch too, where one step is one call."""
    found = topic.Findings()
    with busy_processes() as running:
        for shape in QUICK if options.quick else SHAPES:
            drawn = problem(*shape)
            calls = {
                f"reluflow, {form}": reluflow_flow(*drawn, form, THREADS, 31)
                for form in ("gram", "primal")
            }
            calls["torch"] = torch_step(*drawn, THREADS)
            for name, call in calls.items():
                quiet, loud = slowdown(call, running, options.repeats)
                found.facts.append(fact(shape, name, quiet, loud))
            print(f"{shape} done", flush=True)
    return found


def fact(shape, name, quiet, loud):
    """Slowdown over the fair one."""
    pairs = [b / a for a, b in zip(quiet.wall, loud.wall, strict=True)]
    times, fair = statistics.median(pairs), fair_share(quiet)
    cpu = statistics.median(loud.cpu) / statistics.median(quiet.cpu)
    return topic.Fact(
        f"{', '.join(map(str, shape))}, {name}: slowdown over that of a fair share",
        times / fair,
        aim=OVER_SHARE if name.startswith("reluflow") else None,
        at_most=True,
        note=f"wall {times:.2f} times ({min(pairs):.2f} to {max(pairs):.2f}), fair {fair:.2f}, "
        f"processors {cpu:.2f} times",
    )


if __name__ == "__main__":
    topic.main("bench.busy", __doc__, measure, PACKAGES, threads=THREADS)
