"""Memory of a whole training run: reluflow's flow against torch and JAX.

Each in a process of its own: the largest resident memory less that before the problem was drawn,
libraries loaded, over the bytes of the examples. The problem is n = 500, d = 50,000, m = 200.

    python -m bench.memory [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

from bench import topic
from bench.gradient_step import jax_step, problem, reluflow_flow, torch_step

PACKAGES = ["numpy", "torch==2.13.0", "jax", "jaxlib"]
SHAPE, QUICK = (500, 50_000, 200), (200, 5000, 100)
STEPS = 5
CONTENDERS = ("reluflow, gram", "reluflow, primal", "torch", "JAX")


def prepare(name, drawn):
    """What takes the steps."""
    if name.startswith("reluflow"):
        return reluflow_flow(*drawn, name.split()[-1], 1, STEPS)
    step = torch_step(*drawn, 1) if name == "torch" else jax_step(*drawn)
    return lambda: [step() for _ in range(STEPS)]


def resident():
    """Bytes in use now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one(name, shape):
    """Bytes above those in use before the problem was drawn, largest moment."""
    prepare(name, problem(20, 30, 10))()
    before = resident()
    # The highest mark so far is of loading the libraries.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    prepare(name, problem(*shape))()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def measure(options):
    """All contenders; the ratio is of memory, not of time."""
    found, shape = topic.Findings(), QUICK if options.quick else SHAPE
    examples = 8 * shape[0] * shape[1]
    for name in CONTENDERS:
        command = [sys.executable, "-m", "bench.memory", "--one", name, *map(str, shape)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.facts.append(
            topic.Fact(
                f"{', '.join(map(str, shape))}, {name}: peak memory over that of the examples",
                json.loads(done.stdout) / examples,
                note=f"examples {examples / 1e6:.0f} MB",
            )
        )
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], tuple(map(int, sys.argv[3:])))))
    else:
        topic.main("bench.memory", __doc__, measure, PACKAGES)
