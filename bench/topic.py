"""What a benchmark finds, and the command line that all of them share."""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.environment import run_inside
from bench.timing import Samples, ratios

_VERDICTS = {None: "", True: "  reached", False: "  NOT REACHED"}


@dataclass(frozen=True)
class Comparison:
    """A contender's time over reluflow's on one case; ``low`` and ``high`` are quartiles."""

    case: str
    contender: str
    seconds: float
    ours: float
    ratio: float
    low: float
    high: float
    cpu_ratio: float
    aim: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Case and contender."""
        return f"{self.case}: {self.contender}"

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached, or None where there is none."""
        return None if self.aim is None else self.ratio >= self.aim


@dataclass(frozen=True)
class Fact:
    """A number that stands alone; ``at_most`` tells which side of ``aim`` is the good one."""

    name: str
    value: float
    unit: str = ""
    aim: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached, or None where there is none."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.at_most else self.value >= self.aim


@dataclass
class Findings:
    """All that one benchmark found; ``series`` are curves, name -> (x, y)."""

    comparisons: list[Comparison] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    series: dict[str, list[list[float]]] = field(default_factory=dict)

    def compare(
        self,
        case: str,
        ours: Samples,
        others: Mapping[str, Samples],
        *,
        aim: float | None = None,
        note: str = "",
    ) -> None:
        """Adds the times of others over ours on the same repeats."""
        for name, theirs in others.items():
            low, middle, high = ratios(theirs.wall, ours.wall)
            self.comparisons.append(
                Comparison(
                    case=case,
                    contender=name,
                    seconds=statistics.median(theirs.wall),
                    ours=statistics.median(ours.wall),
                    ratio=middle,
                    low=low,
                    high=high,
                    cpu_ratio=ratios(theirs.cpu, ours.cpu)[1],
                    aim=aim,
                    note=note,
                )
            )

    @property
    def missed(self) -> list[str]:
        """Names of the comparisons and facts whose aim is not reached."""
        return [row.name for row in (*self.comparisons, *self.facts) if row.met is False]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Findings:
        """The inverse of `to_dict`."""
        return cls(
            [Comparison(**row) for row in found["comparisons"]],
            [Fact(**row) for row in found["facts"]],
            found["series"],
        )

    def __str__(self) -> str:
        lines = [
            f"{c.case:>44} {c.contender:>34} {c.ratio:9.3g} ({c.low:.3g} to {c.high:.3g})"
            f"  cpu {c.cpu_ratio:.3g}  {c.seconds:.3g} s over {c.ours:.3g} s"
            f"{_VERDICTS[c.met]}  {c.note}"
            for c in self.comparisons
        ]
        for fact in self.facts:
            verdict = _VERDICTS[fact.met]
            lines.append(f"{fact.name:>79} {fact.value:9.4g} {fact.unit}{verdict}  {fact.note}")
        return "\n".join(lines)


def limit_threads(threads: int) -> None:
    """Before any numerical library is loaded: the same cores and threads for everyone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["JAX_ENABLE_X64"] = "1"


def main(
    module: str,
    description: str,
    measure: Callable[[argparse.Namespace], Findings],
    packages: list[str] | None,
    *,
    alone: tuple[str, ...] = (),
    threads: int = 1,
    repeats: int = 7,
    more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Runs a benchmark where ``packages`` are installed; prints what it found and writes it.

    Without packages it runs where it was started.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it ends")
    parser.add_argument("--json", type=Path, help="file to write the findings to")
    if more:
        more(parser)
    options = parser.parse_args()
    if packages is not None:
        run_inside(module, packages, alone)
    limit_threads(options.threads)
    found = measure(options)
    print(f"load {os.getloadavg()[0]:.1f}")
    print(found)
    if options.json:
        options.json.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
