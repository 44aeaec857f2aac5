"""What every result has in common: a status that reads as a sentence, and ``to_dict()``."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np


class Status(str, enum.Enum):
    """How a computation ended. Compares equal to its short name; prints as a sentence."""

    CONVERGED = "converged"
    MAX_EVALUATIONS = "max_evaluations"
    MAX_SAMPLES = "max_samples"
    MAX_SECONDS = "max_seconds"
    INTERRUPTED = "interrupted"
    STUCK_POINTS = "stuck_points"
    DEAD_CLASS = "dead_class"
    NOT_SEPARABLE = "not_separable"
    NOT_ROBUSTLY_SEPARABLE = "not_robustly_separable"
    STEP_UNDERFLOW = "step_underflow"
    STATIONARY = "stationary"
    APPROXIMATE = "approximate"
    INCONSISTENT_PATTERN = "inconsistent_pattern"
    DEGENERATE = "degenerate"
    NOT_SETTLED = "not_settled"
    NOT_SOLVED = "not_solved"
    NOT_PROVED = "not_proved"
    NOT_REACHED = "not_reached"
    PROVED = "proved"
    UNPROVED = "unproved"
    VERIFIED = "verified"
    REFUSED = "refused"
    FEW_EFFECTIVE = "few_effective"
    ESTIMATES_DISAGREE = "estimates_disagree"

    @property
    def sentence(self) -> str:
        """What happened, and what a person can do about it."""
        return _SENTENCES[self]

    def __str__(self) -> str:
        return self.sentence


_SENTENCES = {
    Status.CONVERGED: "Converged: the requested accuracy was reached.",
    Status.MAX_EVALUATIONS: (
        "Stopped at max_evaluations before the target; raise it, or go on from the returned result."
    ),
    Status.MAX_SAMPLES: (
        "Stopped at max_samples before the requested accuracy; raise it, or rely on the interval."
    ),
    Status.MAX_SECONDS: (
        "Stopped at max_seconds before the target; raise it, or go on from the returned result."
    ),
    Status.INTERRUPTED: "Interrupted; the result holds what had been reached.",
    Status.STUCK_POINTS: (
        "Stuck: some examples activate no neuron of their own label, so their margin cannot grow; "
        "use a wider network or another seed."
    ),
    Status.DEAD_CLASS: (
        "Dead class: no neuron of one label is active on any example of that label; use a wider "
        "network or another seed."
    ),
    Status.NOT_SEPARABLE: (
        "Not separable: the flow came to rest with an example on the wrong side; use a wider "
        "network, or check for conflicting labels."
    ),
    Status.NOT_ROBUSTLY_SEPARABLE: (
        "Not robustly separable: an example can be moved to the wrong side within "
        "adversarial_radius, and nothing is left to gain; the reason says why."
    ),
    Status.STEP_UNDERFLOW: (
        "The step size fell to rounding level before the target; the problem is too stiff or too "
        "badly scaled for rtol."
    ),
    Status.STATIONARY: (
        "Stationary: every example is classified and the gradient of the loss has vanished before "
        "the target; the last iterate is reported, which is a minimiser, not a max-margin network."
    ),
    Status.APPROXIMATE: (
        "Approximate: these are the best multipliers, and the residuals they leave; the network is "
        "not a KKT point to the tolerance."
    ),
    Status.INCONSISTENT_PATTERN: (
        "Inconsistent pattern: the solution for the neurons' present activation pattern has "
        "another pattern, so the flow must still change it; flow further and try again."
    ),
    Status.DEGENERATE: (
        "Degenerate: the point satisfies the KKT conditions, but its equations are dependent, so "
        "that its multipliers are not unique and other KKT points may lie nearby."
    ),
    Status.NOT_SETTLED: (
        "Not settled: predictions of the limit along the flow still differ, and other KKT points "
        "are possible; raise max_log_inverse_loss."
    ),
    Status.NOT_SOLVED: (
        "Not solved: the program of the limit was not solved to the tolerance; see the residuals, "
        "and flow further."
    ),
    Status.NOT_PROVED: (
        "Not all proved: where proved is False the radius is an upper bound, and lower_bound what "
        "could be shown; raise max_nodes."
    ),
    Status.PROVED: "Proved: an exact KKT point lies within the stated radius.",
    Status.UNPROVED: ("Not proved: no exact KKT point was shown to be near; the reason says why."),
    Status.VERIFIED: "Verified: everything that the certificate states was proved anew.",
    Status.REFUSED: "Refused: the certificate does not prove what it states.",
    Status.NOT_REACHED: (
        "Not reached: along this direction that fraction flips at no norm; see curve for what does."
    ),
    Status.FEW_EFFECTIVE: (
        "Too few effective draws: a handful of draws carries the estimate, so that neither it nor "
        "its interval can be trusted; raise max_samples."
    ),
    Status.ESTIMATES_DISAGREE: (
        "Two independent estimates disagree beyond their errors, so that at least one of them "
        "misses part of the region; the interval spans both; raise max_samples."
    ),
}


class Result:
    """Mixin of the frozen result dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values: arrays become lists, nan and infinities None."""
        return {
            field.name: plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }


def plain(value: Any) -> Any:
    """``value`` made of dicts, lists, strings, numbers, booleans and None alone."""
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
