"""Limits that are predicted at one moment of a flow after the other, until predictions agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from reluflow._results import Result, Status

# Where the flow is still this far from the limit, in rad, one more prediction has to agree.
FAR = 0.5
# How much further in log(1/L) the next prediction is made.
TENFOLD = 10.0


@dataclass(frozen=True)
class FlowPrediction(Result):
    """What was predicted at one moment of the flow.

    Attributes
    ----------
    log_inverse_loss : float
    status : Status
        Of the KKT point computed there, before a check at full width.
    normalized_margin : float
        Of that point; nan where there is none.
    pattern_changes : int
        How often the flow's patterns were replaced by those of the solution.
    agrees : bool
        Whether it is the same KKT point as at the moment before.
    evaluations : int
        Gradients of the flow since the moment before.
    """

    log_inverse_loss: float
    status: Status
    normalized_margin: float
    pattern_changes: int
    agrees: bool
    evaluations: int


def settled(predictions: Sequence[FlowPrediction], angle_to_flow: float) -> bool:
    """Whether two predictions agree near the flow, or three where that is still far."""
    near = angle_to_flow <= FAR
    return all(p.agrees for p in predictions[-1 if near else -2 :])


def frozen_at(predictions: Sequence[FlowPrediction]) -> float:
    """log(1/L) from which on predictions were the last one."""
    frozen = len(predictions) - 1
    while predictions[frozen].agrees:
        frozen -= 1
    return predictions[frozen].log_inverse_loss


class Clock:
    """What is left of a time limit."""

    def __init__(self, max_seconds: float | None) -> None:
        self._limit = max_seconds
        self._start = time.perf_counter()

    def remaining(self) -> float | None:
        """Seconds, None without a limit."""
        if self._limit is None:
            return None
        return max(0.0, self._limit - (time.perf_counter() - self._start))
