"""All comparisons with other packages in one command, in one environment.

Runs the topics one after the other, each with interleaved repeats, and writes a table, a JSON file
and a figure: how many times the time of reluflow each peer takes, and which fraction of the fused
multiply-adds of a core, measured in the same run, the gradient step reaches. The load of the
machine before and after every topic is part of the result: on a busy one ratios still compare
contenders that were hindered alike, times and fractions do not say much.

    python -m bench.peers [--out FOLDER] [--topics NAME ...] [--repeats 7]
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import attacks, fma_peak
from bench.environment import ROOT, run_inside

PACKAGES = ["numpy", "torch==2.13.0", "jax", "jaxlib", "foolbox==3.3.4", "tqdm"]
FAR = ["--shapes", "300,1000,100", "300,10000,100", "300,100000,100"]
FAR += ["--forms", "gram", "--evaluations", "1001"]
# Command line of every topic; all but attacks take --repeats and --json.
TOPICS = {
    "gradient step": ["bench.gradient_step", "--threads", "1"],
    "gradient step, 2 threads": ["bench.gradient_step", "--threads", "2"],
    "step against d": ["bench.gradient_step", *FAR],
    "whole flow": ["bench.whole_flow"],
    "ensemble": ["bench.ensemble"],
    "fresh draws": ["bench.sampling", "--threads", "1"],
    "attacks": ["bench.attacks", "--points", "50"],
    "import": [],
}


def run_topic(name: str, repeats: int, folder: Path) -> dict:
    """What a topic found, with the load around it."""
    before, start = os.getloadavg()[0], time.perf_counter()
    found = import_seconds(repeats) if name == "import" else run_module(name, repeats, folder)
    return {
        "found": found,
        "load": [before, os.getloadavg()[0]],
        "seconds": time.perf_counter() - start,
    }


def run_module(name: str, repeats: int, folder: Path):
    """The JSON of a topic that is a module of its own."""
    module, *arguments = TOPICS[name]
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "RELUFLOW_BENCH_ENVIRONMENT": module}
    if module == "bench.attacks":
        done = subprocess.run(
            [*command, "--json"], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        done.check_returncode()
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.json"
    command += ["--repeats", str(repeats), "--json", str(file)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    return json.loads(file.read_text(encoding="utf-8"))


def import_seconds(repeats: int) -> dict:
    """Seconds to start Python with an import, less those to start it without."""
    packages = {"nothing": "pass", "reluflow": "import reluflow"}
    packages |= {name: f"import {name}" for name in ("numpy", "torch", "jax")}
    times: dict[str, list[float]] = {name: [] for name in packages}
    for _ in range(repeats):
        for name, text in packages.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], check=True)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {name: medians[name] - medians["nothing"] for name in packages if name != "nothing"}


def ratios(name: str, found) -> Iterator[tuple[str, str, float]]:
    """Case, contender and its time over reluflow's, for every comparison of a topic."""
    if name == "import":
        for peer in ("torch", "jax"):
            yield "import", peer, found[peer] / found["reluflow"]
    elif name == "ensemble":
        for pair, ratio in found["ratios"].items():
            peer, _, case = pair.partition(" / ")
            yield case, peer, ratio
    elif name == "fresh draws":
        yield "normals", "numpy", found["normals"]["ratio"]
        for row in found["draws"]:
            yield f"rank {row['rank']}", "numpy", row["ratio"]
    elif name == "whole flow":
        for row in found[1:]:
            yield "to L = 1e-8", row["name"], row["ratio"]
    elif name == "attacks":
        for row in found[1:]:
            yield "smallest perturbation", row["method"], row["times_ours"]
    else:
        for row in found:
            for pair, ratio in row["ratios"].items():
                peer, _, form = pair.partition("/")
                yield f"{','.join(map(str, row['shape']))} {form}", peer, ratio


def fractions_of_peak(found, peak: float) -> Iterator[tuple[str, float]]:
    """Products of a primal gradient, 4 n (d + 1) m operations, over peak and time, by shape."""
    for row in found:
        n, d, m = row["shape"]
        rate = 4 * n * (d + 1) * m / (1e-3 * row["milliseconds"]["primal"]) / 1e9
        yield ",".join(map(str, row["shape"])), rate / (peak * row["threads"])


def table(result: dict) -> str:
    """The whole result in Markdown."""
    lines = [
        f"Measured on {result['date']} on {result['processor']}, {result['cores']} cores; "
        f"{result['peak']:.1f} GFLOP/s of fused multiply-adds on one core.",
        "",
        "| topic | case | contender | times reluflow's time | load |",
        "|---|---|---|---|---|",
    ]
    for name, topic in result["topics"].items():
        load = f"{topic['load'][0]:.1f} to {topic['load'][1]:.1f}"
        for case, peer, ratio in ratios(name, topic["found"]):
            lines.append(f"| {name} | {case} | {peer} | {ratio:.2f} | {load} |")
    for name in ("gradient step", "gradient step, 2 threads"):
        if name in result["topics"]:
            lines += ["", f"| {name}: n,d,m | fraction of the peak |", "|---|---|"]
            found = result["topics"][name]["found"]
            for shape, fraction in fractions_of_peak(found, result["peak"]):
                lines.append(f"| {shape} | {fraction:.2f} |")
    return "\n".join(lines) + "\n"


def draw(result: dict, file: Path) -> None:
    """Every ratio as a dot, one row a case, on a logarithmic axis."""
    from matplotlib.figure import Figure

    rows = [
        (f"{name}: {case}", peer, ratio)
        for name, topic in result["topics"].items()
        for case, peer, ratio in ratios(name, topic["found"])
    ]
    cases = list(dict.fromkeys(case for case, _, _ in rows))
    figure = Figure(figsize=(8, 1 + 0.22 * len(cases)), layout="constrained")
    ax = figure.subplots()
    peers = dict.fromkeys(peer for _, peer, _ in rows)
    for peer, marker in zip(peers, itertools.cycle("os^Dv<>Pp*Xd"), strict=False):
        points = [(ratio, cases.index(case)) for case, other, ratio in rows if other == peer]
        ax.plot(*zip(*points, strict=True), marker, markersize=5, label=peer)
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks(range(len(cases)), cases, fontsize=7)
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="time over reluflow's time (right of 1: reluflow is faster)")
    ax.grid(axis="x")
    ax.legend(fontsize=7)
    figure.savefig(file)


def main() -> None:
    """Runs the topics and writes what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--topics", nargs="*", default=list(TOPICS), choices=list(TOPICS))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    options.out = options.out.resolve()
    run_inside("bench.peers", PACKAGES, attacks.ALONE)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "peak": fma_peak.measure(),
        "topics": {},
    }
    for name in options.topics:
        print(f"--- {name}", flush=True)
        result["topics"][name] = run_topic(name, options.repeats, options.out)
        (options.out / "peers.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (options.out / "peers.md").write_text(table(result), encoding="utf-8")
    draw(result, options.out / "peers.svg")
    print(table(result))


if __name__ == "__main__":
    main()
