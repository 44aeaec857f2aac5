"""The page and the figure of what `bench.peers` found.

python -m bench.page [docs/benchmarks.json]    # writes benchmarks.md and images beside it
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from bench.environment import ROOT
from bench.topic import Comparison, Fact, Findings

# Title of every topic, and what is compared.
TITLES = {
    "gradient-step": (
        "Gradient step, one thread",
        "One gradient and update in float64 on shapes n, d, m. The primal form computes the "
        "gradient that the others compute; the Gram form follows the same trajectory in the span "
        "of the examples. The share of the peak is that of dense products, 4 n (d + 1) m and "
        "2 n² m operations, in the fused multiply-adds which one core does in registers meanwhile, "
        "measured next to each shape. It may exceed 1: products with activation patterns need "
        "fewer operations ([theory](theory.md), section 3.4).",
    ),
    "gradient-step-2-threads": (
        "Gradient step, two threads",
        "The same with two threads for everyone.",
    ),
    "growth": (
        "Growth with n, m and d",
        "Time a step at n = 300, m = 100, one thread, on the same arrays; and exponents of n, m "
        "and d, by least squares in logarithms, beside those of the operation counts 4 n d m "
        "(primal) and 2 n² m (Gram).",
    ),
    "whole-flow": (
        "Whole flow, against solvers",
        "n = 100, d = 2000, k = 10, σ = 1, m = 50, one thread. Solvers follow the same rescaled "
        "flow at the largest tolerance that makes them no less accurate than reluflow.",
    ),
    "descent": (
        "Whole flow, against gradient descent",
        "The same problem. Constant-step descent in torch has arrived when its loss is as small "
        "and its angle to the limit of the flow at most 1 % larger. Large rates jump to a small "
        "loss elsewhere and stand still there; the others are stopped after a while, which makes "
        "their ratios lower bounds.",
    ),
    "ensemble": (
        "Ensemble",
        "Many flows at once, n = 100, m = 50, a gradient of one; two threads for everyone. The "
        "vmapped steps and the primal form compute the same gradients, the Gram form the same "
        "trajectories.",
    ),
    "radii": (
        "Smallest perturbations",
        "The demo's network; reluflow's radii are exact and proved, the attacks' are upper bounds. "
        "SCIP solves the same problem as a mixed-integer program.",
    ),
    "universal": (
        "Universal shift",
        "The demo's network; the norm at which each direction flips 95 % of the examples is found "
        "exactly for all of them.",
    ),
    "draws": ("Fresh draws", "One thread."),
    "sweeps": (
        "Sweeps",
        "What the engine and its store cost. The script makes the same flows in a pool of as many "
        "processes, and stores nothing.",
    ),
    "memory": ("Memory", "Each in a process of its own, libraries not counted."),
    "footprint": ("Import and wheel", "Import times without the start of Python."),
    "busy": (
        "On a busy machine",
        "Two threads beside two other busy processes: slowdown over that of a fair share of the "
        "cores, where 1 is fair.",
    ),
}


def table(result: dict[str, Any]) -> str:
    """All that was found, in Markdown."""
    lines = [*machine_lines(result["machine"])]
    for name, topic in result["topics"].items():
        title, text = TITLES[name]
        found = Findings.from_dict(topic["found"])
        lines += ["", f"## {title}", "", text, "", measured_line(topic)]
        if found.comparisons:
            lines += ["", *comparison_lines(found.comparisons)]
        if found.facts:
            lines += ["", *fact_lines(found.facts)]
    return "\n".join(lines) + "\n"


def page(result: dict[str, Any]) -> str:
    """`docs/benchmarks.md`."""
    head = """# Benchmarks

<!-- Written by `python -m bench.page` from benchmarks.json: not to be edited. -->

The last measurement of `python -m bench.peers`, which makes an environment with the other packages
and measures all of this anew. A ratio is a contender's time over reluflow's: the median over
interleaved repeats, with quartiles; above 1 reluflow is faster. Beside wall time stands the time of
all processors. The load is that of the machine, before and after a topic: where it is more than the
topic's own threads, ratios still compare contenders that were hindered alike, but times, shares of
the peak and what two threads bring say little.

![Times of other packages over reluflow's](images/benchmarks.svg)

"""
    return head + table(result)


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """Where it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"Machine: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gigabytes']} GB, {machine['system']}, Python {machine['python']}; "
        f"{versions}.",
    ]


def measured_line(topic: dict[str, Any]) -> str:
    """When, and how quiet the machine was."""
    kind = "**Small sizes, a trial run.** " if topic["quick"] else ""
    peak = max(topic["peak"])
    return (
        f"{kind}{topic['date'].replace('T', ' ').removesuffix('+00:00')} UTC; load "
        f"{topic['load'][0]:.1f} before, {topic['load'][1]:.1f} after; {topic['seconds']:.0f} s, "
        f"{topic['cpu_seconds']:.0f} s of processors; peak of one core {peak:.1f} GFLOP/s."
    )


def comparison_lines(rows: list[Comparison]) -> list[str]:
    """A table of ratios."""
    lines = [
        "| case | contender | its time | reluflow's | ratio (quartiles) | processor time | aim | |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        bound = "≥ " if is_bound(row) else ""
        cells = [
            row.case,
            row.contender,
            duration(row.seconds),
            duration(row.ours),
            f"{bound}{number(row.ratio)} ({number(row.low)} to {number(row.high)})",
            f"{bound}{number(row.cpu_ratio)}",
            verdict(row, "≥"),
            row.note,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def fact_lines(rows: list[Fact]) -> list[str]:
    """A table of single numbers."""
    lines = ["| what | measured | aim | |", "|---|--:|---|---|"]
    for row in rows:
        sign = "≤" if row.at_most else "≥"
        value = f"{number(row.value)} {row.unit}".strip()
        lines.append(f"| {row.name} | {value} | {verdict(row, sign)} | {row.note} |")
    return lines


def verdict(row: Comparison | Fact, sign: str) -> str:
    """The aim, and whether it is reached."""
    if row.aim is None:
        return ""
    return f"{sign} {row.aim:g}, {'reached' if row.met else '**missed**'}"


def is_bound(row: Comparison) -> bool:
    """Whether the contender was stopped before it had arrived."""
    return "a lower bound" in row.note


def number(value: float) -> str:
    """Three digits, thousands in full."""
    if math.isnan(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """In a unit that suits."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def draw(result: dict[str, Any], folder: Path) -> None:
    """Steps, their growth and their share of the peak on the left; everything else on the right."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = {n: Findings.from_dict(t["found"]) for n, t in result["topics"].items()}
    # Text of an SVG as text, and the same bytes for the same numbers.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reluflow", "font.size": 8}):
        figure = Figure(figsize=(12, 9.5), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.35))
        steps, growth, peak = left.subplots(3, 1)
        draw_steps(steps, found.get("gradient-step", Findings()))
        draw_growth(growth, found.get("growth", Findings()))
        draw_peak(peak, found.get("gradient-step", Findings()))
        draw_rest(right.subplots(), found)
        for kind in ("svg", "png"):
            metadata = {"Date": None} if kind == "svg" else {}
            figure.savefig(folder / f"benchmarks.{kind}", dpi=110, metadata=metadata)


def draw_steps(ax: Any, found: Findings) -> None:
    """Ratios to the primal form, by shape."""
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = [row for row in found.comparisons if row.case.endswith("primal")]
    cases = list(dict.fromkeys(row.case.removesuffix(", primal") for row in rows))
    for marker, peer in zip("os^D", dict.fromkeys(row.contender for row in rows), strict=False):
        mine = [row for row in rows if row.contender == peer]
        x = [cases.index(row.case.removesuffix(", primal")) for row in mine]
        ax.plot(x, [row.ratio for row in mine], marker, label=peer, markersize=5)
    ax.axhline(1, color="black", linewidth=1)
    ax.set_xticks(range(len(cases)), cases, rotation=15)
    ax.set(yscale="log", title="a gradient step: time over reluflow's primal form, one thread")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", linewidth=0.3)
    if rows:
        ax.legend()


def draw_growth(ax: Any, found: Findings) -> None:
    """Time a step against d."""
    for marker, (name, (x, y)) in zip("osD", found.series.items(), strict=False):
        label = name if name == "torch" else f"reluflow, {name}"
        ax.plot(x, [1e3 * seconds for seconds in y], f"{marker}-", label=label, markersize=4)
    title = "milliseconds of processor a step, n = 300, m = 100"
    ax.set(xscale="log", yscale="log", xlabel="d", title=title)
    ax.grid(which="major", linewidth=0.3)
    if found.series:
        ax.legend()


def draw_peak(ax: Any, found: Findings) -> None:
    """Share of the peak by shape, both forms."""
    tail = ": share of the FMA peak"
    rows = [fact for fact in found.facts if fact.name.endswith(tail)]
    cases = list(dict.fromkeys(row.name.rsplit(", ", 1)[0] for row in rows))
    for offset, form in ((-0.2, "primal"), (0.2, "gram")):
        mine = [row for row in rows if row.name.endswith(f"{form}{tail}")]
        x = [cases.index(row.name.rsplit(", ", 1)[0]) + offset for row in mine]
        ax.bar(x, [row.value for row in mine], width=0.4, label=form)
        for place, row in zip(x, mine, strict=True):
            if row.aim:
                ax.plot([place - 0.2, place + 0.2], [row.aim] * 2, color="black", linewidth=1)
    ax.set_xticks(range(len(cases)), cases, rotation=15)
    highest = max((row.value for row in rows), default=1.0)
    title = "dense products / FMA peak, one thread (line: aim)"
    ax.set(ylim=(0, 1.25 * max(1.0, highest)), title=title, xlabel="n, d, m")
    if rows:
        ax.legend(ncols=2, loc="upper right")


def draw_rest(ax: Any, found: dict[str, Findings]) -> None:
    """Every other ratio as a dot; an arrow where it is a lower bound."""
    shown = [name for name in found if not name.startswith(("gradient-step", "growth"))]
    labels: list[str] = []
    for colour, name in enumerate(shown):
        for row in found[name].comparisons:
            marker = ">" if is_bound(row) else "o"
            ax.plot(row.ratio, len(labels), marker, color=f"C{colour}", markersize=5)
            ax.plot([row.low, row.high], [len(labels)] * 2, color=f"C{colour}", linewidth=1)
            labels.append(f"{row.case}: {row.contender}")
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ax.invert_yaxis()
    ax.set(
        xscale="log",
        xlabel="time over reluflow's (arrow: stopped before it arrived)",
    )
    ax.grid(axis="x", linewidth=0.3)


def write(file: Path, folder: Path) -> None:
    """Page and figure of a file of results, into a folder."""
    result = json.loads(file.read_text(encoding="utf-8"))
    images = folder / "images"
    images.mkdir(exist_ok=True)
    draw(result, images)
    (folder / "benchmarks.md").write_text(page(result), encoding="utf-8")


def main() -> None:
    """Writes the page beside its results."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "benchmarks.json"
    write(file, file.parent)


if __name__ == "__main__":
    main()
