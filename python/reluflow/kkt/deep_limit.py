"""The limit of the flow of a deep network: flow, polish, flow further, until points agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from reluflow._results import Status
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow import DeepFlowResult, gradient_flow
from reluflow.kkt.deep_point import DeepKKTPoint, nearest_deep_point, require_polished
from reluflow.kkt.prediction import TENFOLD, Clock, FlowPrediction, frozen_at, settled
from reluflow.network import require_dim

# Relative differences within which predictions agree: points are found to a residual of 1e-8, and
# the margin moves by its square.
_SAME_MARGIN, _SAME_MULTIPLIERS = 1e-9, 1e-5


@dataclass(frozen=True, eq=False)
class DeepFlowLimit(DeepKKTPoint):
    """The KKT point that the gradient flow of a deep network tends to, and the flow.

    Attributes
    ----------
    flow : DeepFlowResult
        The flow, up to where the prediction was accepted.
    frozen_at : float
        log(1/L) from which on the prediction was the returned one.
    predictions : tuple of FlowPrediction
        All of them, in order.
    """

    flow: DeepFlowResult
    frozen_at: float
    predictions: tuple[FlowPrediction, ...]

    @property
    def angle_to_flow(self) -> float:
        """Angle in radians between the parameters of the flow and of the limit."""
        return self.angle

    @property
    def settled(self) -> bool:
        """Whether two predictions agree near the flow, or three where that is still far."""
        return settled(self.predictions, self.angle_to_flow)

    def to_dict(self) -> dict[str, Any]:
        """Everything but networks and masks, JSON-ready."""
        result = super().to_dict()
        result["flow"] = self.flow.to_dict()
        return result

    def __str__(self) -> str:
        return "\n".join(
            [
                super().__str__(),
                f"  log(1/L) reached    {self.flow.log_inverse_loss:.4g}",
                f"  prediction froze    at log(1/L) = {self.frozen_at:.4g}",
            ]
        )


def deep_flow_limit(
    net: DeepNet,
    data: Dataset,
    target: float,
    last: float,
    tol: float,
    max_seconds: float | None,
    flow_settings: dict[str, Any],
) -> DeepFlowLimit:
    """Where the gradient flow of a deep network tends to.

    Raises
    ------
    ValueError
        If the network is of a kind that is not polished, and as for `gradient_flow`.
    """
    require_dim("data.X", data.dim, net)
    require_polished(net)
    clock = Clock(max_seconds)
    predictions: list[FlowPrediction] = []
    before: DeepKKTPoint | None = None
    while True:
        flow = gradient_flow(
            net,
            data,
            log_inverse_loss=target,
            max_seconds=clock.remaining(),
            **flow_settings,
        )
        assert isinstance(flow, DeepFlowResult)
        point = nearest_deep_point(flow.net, data, tol)
        predictions.append(_prediction(flow, before, point))
        limit = _limit(point, flow, tuple(predictions))
        if flow.status != Status.CONVERGED:
            return replace(limit, status=flow.status)
        if predictions[-1].agrees and limit.settled:
            return limit
        if clock.remaining() == 0:
            return replace(limit, status=Status.MAX_SECONDS)
        if target >= last:
            return replace(limit, status=Status.NOT_SETTLED)
        before, net, target = point, flow.net, min(TENFOLD * target, last)


def _prediction(
    flow: DeepFlowResult, before: DeepKKTPoint | None, point: DeepKKTPoint
) -> FlowPrediction:
    solved = point.status == Status.CONVERGED
    return FlowPrediction(
        log_inverse_loss=flow.log_inverse_loss,
        status=point.status,
        normalized_margin=point.normalized_margin if solved else math.nan,
        pattern_changes=0,
        agrees=before is not None and same_point(before, point),
        evaluations=flow.evaluations,
    )


def same_point(first: DeepKKTPoint, second: DeepKKTPoint) -> bool:
    """Whether two predictions are one KKT point, up to how weights are spread within groups."""
    if first.status != Status.CONVERGED or second.status != Status.CONVERGED:
        return False
    margins = first.normalized_margin, second.normalized_margin
    lam, other = first.multipliers, second.multipliers
    return (
        first.groups == second.groups
        and abs(margins[0] - margins[1]) <= _SAME_MARGIN * margins[1]
        and bool(np.abs(lam - other).max() <= _SAME_MULTIPLIERS * other.max())
    )


def _limit(
    point: DeepKKTPoint, flow: DeepFlowResult, predictions: tuple[FlowPrediction, ...]
) -> DeepFlowLimit:
    inherited = {field.name: getattr(point, field.name) for field in fields(DeepKKTPoint)}
    return DeepFlowLimit(
        **inherited, flow=flow, frozen_at=frozen_at(predictions), predictions=predictions
    )
