"""What importing reluflow costs, and how large its wheel is.

Seconds to start Python with an import less those to start it without, interleaved; which of the
packages that are only loaded on demand an import brings along, which must be none; and the bytes of
the wheel that is installed, with the instruction sets in it.

    python -m bench.footprint [--repeats 9] [--json FILE]
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import time
import zipfile

from bench import topic
from bench.environment import wheel_file
from bench.timing import Samples

PACKAGES = ["numpy", "scipy", "torch==2.13.0", "jax", "jaxlib"]
IMPORTED = {
    "nothing": "pass",
    "reluflow": "import reluflow",
    "all of reluflow": "import reluflow; [getattr(reluflow, name) for name in reluflow.__all__]",
    "NumPy": "import numpy",
    "torch": "import torch",
    "JAX": "import jax",
}
ON_DEMAND = (
    "matplotlib",
    "pandas",
    "pyarrow",
    "sklearn",
    "torch",
    "jax",
    "rich",
    "typer",
    "jinja2",
)
IMPORT_SECONDS, WHEEL_MEGABYTES = 0.3, 3.0


def children_seconds():
    """Processor seconds of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def import_times(repeats):
    """Samples of every import, the start of Python taken off."""
    times = {name: Samples([], []) for name in IMPORTED}
    for _ in range(1 + repeats):
        for name, text in IMPORTED.items():
            wall, cpu = time.perf_counter(), children_seconds()
            subprocess.run([sys.executable, "-c", text], check=True)
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(children_seconds() - cpu)
    # The first of each reads files that later ones find in memory.
    warm = {name: Samples(each.wall[1:], each.cpu[1:]) for name, each in times.items()}
    return {name: warm[name].less(warm["nothing"]) for name in IMPORTED if name != "nothing"}


def loaded_on_import():
    """Of the packages that are for later, those that an import loads."""
    text = f"import sys, reluflow; print(*[m for m in {ON_DEMAND!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    return done.stdout.split()


def measure(options):
    """Import and wheel."""
    found = topic.Findings()
    times = import_times(options.repeats)
    peers = {name: times[name] for name in ("torch", "JAX")}
    found.compare("import", times["reluflow"], peers)
    for kind in ("wall", "cpu"):
        found.facts.append(
            topic.Fact(
                f"import reluflow, {'wall' if kind == 'wall' else 'processor'} time",
                statistics.median(getattr(times["reluflow"], kind)),
                "s",
                aim=IMPORT_SECONDS,
                at_most=True,
                note=f"of it NumPy {statistics.median(getattr(times['NumPy'], kind)):.3f} s",
            )
        )
    found.facts.append(
        topic.Fact(
            "the same, and all public names, processor time",
            statistics.median(times["all of reluflow"].cpu),
            "s",
            note="SciPy included; they are loaded when they are first asked for",
        )
    )
    heavy = loaded_on_import()
    found.facts.append(
        topic.Fact(
            "packages for later that an import loads",
            len(heavy),
            aim=0,
            at_most=True,
            note=", ".join(heavy) or f"none of {', '.join(ON_DEMAND)}",
        )
    )
    wheel = wheel_file()
    levels = re.findall(r"_core_(\w+?)\.", " ".join(zipfile.ZipFile(wheel).namelist()))
    found.facts.append(
        topic.Fact(
            "wheel",
            os.path.getsize(wheel) / 1e6,
            "MB",
            aim=WHEEL_MEGABYTES,
            at_most=True,
            note=f"instruction sets {', '.join(sorted(levels))}",
        )
    )
    return found


if __name__ == "__main__":
    topic.main("bench.footprint", __doc__, measure, PACKAGES, repeats=9)
