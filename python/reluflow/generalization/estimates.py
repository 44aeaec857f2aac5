"""Results: probabilities of errors, over all clusters, by class and by cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._results import Result, Status
from reluflow.generalization._log_estimate import Interval

DEFINITIONS = {"nonstrict": "y N(x) <= 0", "strict": "y N(x) < 0"}


@dataclass(frozen=True)
class ClusterError(Result):
    """Test error on the examples of one cluster.

    Attributes
    ----------
    label : float
        -1 or +1.
    log10_probability : float
        log10 of the probability of an error; -inf where none was seen, nan without examples.
    interval : tuple of float
        95 % interval of it.
    samples, errors : int
        Fresh examples, or lines, that were drawn, and those among them on which the network errs;
        0 where the probability is known exactly.
    first_order : float
        log10 of the first-order value (FORM): half-spaces behind the design points. nan where
        design points were not searched for.
    distance : float
        Of the nearest design point from the mean, in standard deviations of the noise (the
        reliability index); negative where the mean itself is misclassified, nan as above.
    design_points : int
        Number of design points that were found.
    effective_samples : float
        (sum of weights)^2 / (sum of their squares); infinite where nothing is left to chance.
    """

    label: float
    log10_probability: float
    interval: Interval
    samples: int
    errors: int
    first_order: float = math.nan
    distance: float = math.nan
    design_points: int = 0
    effective_samples: float = math.nan


@dataclass(frozen=True)
class ClassError(Result):
    """Test error on the examples of one label; attributes as for `ClusterError`."""

    label: float
    log10_probability: float
    interval: Interval


@dataclass(frozen=True)
class ErrorCheck(Result):
    """The second, independent estimate of the same probability.

    Attributes
    ----------
    method : str
        ``"importance"`` or ``"line"``.
    log10_probability : float
        log10 of the probability of an error.
    interval : tuple of float
        95 % interval of it.
    agrees : bool
        Whether the two estimates, over all clusters and in each, differ by no more than their
        errors explain.
    score : float
        Largest difference over its standard deviation.
    """

    method: str
    log10_probability: float
    interval: Interval
    agrees: bool
    score: float


@dataclass(frozen=True)
class ErrorEstimate(Result):
    """Probability that a fresh example is misclassified.

    Attributes
    ----------
    log10_probability : float
        log10 of the probability; -inf where no error was seen.
    interval : tuple of float
        95 % interval of it; the lower end is -inf where no error was seen.
    per_cluster : tuple of ClusterError
        The same, cluster by cluster.
    per_class : tuple of ClassError
        The same for each label.
    method : str
        ``"line"``, ``"importance"`` or ``"sampling"``; ``"exact"`` where the outputs do not vary
        within a cluster; ``"given"`` where given examples were counted.
    samples, errors : int
        Fresh examples, or lines, that were drawn, and those on which the network errs.
    first_order : float
        log10 of the first-order value (FORM), half-spaces behind the design points; nan where
        design points were not searched for.
    effective_samples : float
        (sum of weights)^2 / (sum of their squares); infinite where nothing is left to chance. No
        interval can be trusted where it is small, and the status then says so.
    check : ErrorCheck or None
        A second, independent estimate, where one was made.
    definition : str
        ``"nonstrict"``: y N(x) <= 0 is an error; ``"strict"``: y N(x) < 0.
    status : Status
        How the computation ended; prints as a sentence.
    provenance : dict
        Version, backend, instruction set and number of threads.
    seconds : float
        Wall time.
    """

    log10_probability: float
    interval: Interval
    per_cluster: tuple[ClusterError, ...]
    per_class: tuple[ClassError, ...]
    method: str
    samples: int
    errors: int
    first_order: float
    effective_samples: float
    check: ErrorCheck | None
    definition: str
    status: Status
    provenance: dict[str, Any]
    seconds: float

    @property
    def probability(self) -> float:
        """The probability itself; 0 where it underflows."""
        return float(10.0**self.log10_probability)

    def __str__(self) -> str:
        worst = max(
            range(len(self.per_cluster)),
            key=lambda q: np.nan_to_num(self.per_cluster[q].log10_probability, nan=-math.inf),
        )
        shown = self.per_cluster[worst]
        of_worst = as_text(shown.log10_probability, shown.interval)
        lines = [
            f"Test error {as_text(self.log10_probability, self.interval)}",
            f"  method              {self.method}",
            f"  evidence            {self._evidence()}",
        ]
        if not math.isnan(self.first_order):
            lines.append(f"  first order         {_probability(self.first_order)}")
        if self.check is not None:
            word = "agrees" if self.check.agrees else "DISAGREES"
            lines.append(
                f"  check               {self.check.method} {word}: "
                f"{as_text(self.check.log10_probability, self.check.interval)}"
            )
        return "\n".join(
            [
                *lines,
                f"  definition          {self.definition}: {DEFINITIONS[self.definition]}",
                f"  worst cluster       {worst}: {of_worst}",
                f"  seconds             {self.seconds:.3g}",
                f"  {self.status}",
            ]
        )

    def _evidence(self) -> str:
        if self.method == "exact":
            return "exact: the outputs do not vary within a cluster, nothing was drawn"
        if self.method == "line":
            drawn = f"{self.samples:,} lines"
        elif self.method == "importance":
            drawn = f"{self.samples:,} weighted examples"
        else:
            return f"{self.errors:,} errors in {self.samples:,} fresh examples"
        if math.isinf(self.effective_samples):
            return f"{drawn}, nothing left to chance"
        return f"{drawn}, worth {self.effective_samples:,.0f} of equal weight"


def as_text(log10_probability: float, interval: Interval) -> str:
    """A probability with its interval, in words."""
    lower, upper = interval
    if math.isnan(log10_probability):
        return "unknown: no fresh example was drawn"
    if lower == upper:
        return f"{_probability(log10_probability)} exactly"
    if log10_probability == -math.inf:
        return f"below 10^{upper:.2f} (95 %)"
    return (
        f"{_probability(log10_probability)} (95 %: {_probability(lower)} to {_probability(upper)})"
    )


def _probability(log10_probability: float) -> str:
    if log10_probability == -math.inf or log10_probability > -4:
        return f"{10.0**log10_probability:.3g}"
    return f"10^{log10_probability:.{_digits(log10_probability)}f}"


def _digits(log10_probability: float) -> int:
    return 2 if log10_probability > -1e5 else 1
