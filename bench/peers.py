"""All comparisons with other packages, in one environment, topic by topic.

Every topic is a module of its own with interleaved repeats. What it finds goes into one JSON file,
with date, load of the machine before and after, wall and processor time: topics can be measured one
at a time, and a later run takes up where an earlier one was stopped. From that file a table, a
figure and the page `docs/benchmarks.md` are made. On a busy machine ratios still compare contenders
that were hindered alike; times, shares of the peak and what two threads bring do not say much.

    python -m bench.peers                       # the topics that are missing in build/peers
    python -m bench.peers --topic growth,busy   # these, anew
    python -m bench.peers --publish             # ... and writes the page and its figure into docs
    python -m bench.peers --quick --out FOLDER  # small sizes, to see that everything ends
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import environment, fma_peak, page
from bench.topic import Findings

PACKAGES = [
    "numpy",
    "scipy",
    "torch==2.13.0",
    "jax",
    "jaxlib",
    "diffrax",
    "foolbox==3.3.4",
    "adversarial-robustness-toolbox==1.20.1",
    "pyscipopt",
    "numba",
    "tqdm",
]
# Its attack needs torch alone; what it asks for besides serves other attacks.
ALONE = ("adv-lib==0.2.8",)
SHOWN = ["reluflow", "numpy", "scipy", "torch", "jax", "diffrax", "foolbox", "adv-lib"]
SHOWN += ["adversarial-robustness-toolbox", "pyscipopt"]
# Module of every topic, with its command line.
TOPICS: dict[str, list[str]] = {
    "gradient-step": ["bench.gradient_step", "--threads", "1"],
    "gradient-step-2-threads": ["bench.gradient_step", "--threads", "2", "--repeats", "5"],
    "growth": ["bench.step_growth"],
    "whole-flow": ["bench.whole_flow", "--against", "solvers", "--budget", "25"],
    "descent": ["bench.whole_flow", "--against", "descent"],
    "ensemble": ["bench.ensemble"],
    "radii": ["bench.attacks"],
    "universal": ["bench.universal"],
    "draws": ["bench.sampling"],
    "sweeps": ["bench.sweep_overhead"],
    "memory": ["bench.memory"],
    "footprint": ["bench.footprint"],
    "busy": ["bench.busy"],
}
DOCS = environment.ROOT / "docs"


def machine() -> dict[str, Any]:
    """Where this runs, and with which packages."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gigabytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in SHOWN},
    }


def processor() -> str:
    """Its name, and the widest vectors that it has."""
    name, flags = platform.machine(), ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        name = value.strip() if key.startswith("model name") else name
        flags = value if key.startswith("flags") else flags
    widest = next((v for v in ("avx512f", "avx2", "sse4_2") if v in flags.split()), "")
    return f"{name} {widest}".strip()


def run_topic(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a topic found, and under which circumstances."""
    module, *arguments = TOPICS[name]
    file = folder / f"{name}.json"
    arguments += ["--json", str(file)]
    arguments += ["--quick"] if options.quick else []
    arguments += ["--repeats", str(options.repeats)] if options.repeats else []
    load, start, cpu = os.getloadavg()[0], time.perf_counter(), children_seconds()
    peak = fma_peak.measure()
    environment.run_module(module, arguments)
    found = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "quick": options.quick,
        "load": [load, os.getloadavg()[0]],
        "seconds": time.perf_counter() - start,
        "cpu_seconds": children_seconds() - cpu,
        "peak": [peak, fma_peak.measure()],
        "found": found,
    }


def children_seconds() -> float:
    """Processor seconds of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def earlier(file: Path) -> dict[str, Any]:
    """What was measured before on this machine, or nothing."""
    here = machine()
    if not file.exists():
        return {"machine": here, "topics": {}}
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if result["machine"] != here:
        changed = [key for key in here if result["machine"].get(key) != here[key]]
        sys.exit(f"{file} was measured with another {', '.join(changed)}; use another --out")
    return result


def write(result: dict[str, Any], file: Path) -> None:
    """Never half."""
    ordered = {name: result["topics"][name] for name in TOPICS if name in result["topics"]}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({**result, "topics": ordered}, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def topics_of(text: str) -> list[str]:
    """Names with commas between them."""
    names = text.split(",")
    for name in names:
        if name not in TOPICS:
            raise argparse.ArgumentTypeError(f"no topic {name!r}; there are {', '.join(TOPICS)}")
    return names


def main() -> None:
    """Runs topics and writes what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topic", type=topics_of, help=", ".join(TOPICS))
    parser.add_argument("--out", type=Path, default=environment.ROOT / "build" / "peers")
    parser.add_argument("--repeats", type=int, help="instead of each topic's own number")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    environment.run_inside("bench.peers", PACKAGES, ALONE)
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "benchmarks.json"
    result = earlier(file)
    failed = []
    for name in options.topic or [name for name in TOPICS if name not in result["topics"]]:
        print(f"--- {name}", flush=True)
        try:
            result["topics"][name] = run_topic(name, options, folder)
        except subprocess.CalledProcessError as error:
            failed.append(f"{name} (exit code {error.returncode})")
            continue
        write(result, file)
    page.write(file, folder)
    print(page.table(result))
    if options.publish:
        (DOCS / "benchmarks.json").write_bytes(file.read_bytes())
        page.write(DOCS / "benchmarks.json", DOCS)
    missed = [
        f"{name}: {what}"
        for name, topic in result["topics"].items()
        for what in Findings.from_dict(topic["found"]).missed
    ]
    if missed:
        print("aims that were missed:", *missed, sep="\n  ")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
