"""The limit of gradient flow: flow, predict, flow further, until predictions agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from reluflow._results import Result, Status
from reluflow._validation import FloatArray, as_number
from reluflow.data import Dataset
from reluflow.flow import FlowResult, gradient_flow, require_margin_maximising
from reluflow.kkt.point import KKTPoint, kkt_point
from reluflow.network import TwoLayerNet

# Relative difference of multipliers within which predictions agree.
_AGREEMENT = 1e-8
_TENFOLD = 10.0


@dataclass(frozen=True)
class Prediction(Result):
    """What was predicted at one moment of the flow.

    Attributes
    ----------
    log_inverse_loss : float
    status : Status
        Of the KKT point computed there.
    normalized_margin : float
    agrees : bool
        Whether it is the same KKT point as at the moment before.
    """

    log_inverse_loss: float
    status: Status
    normalized_margin: float
    agrees: bool


@dataclass(frozen=True, eq=False)
class FlowLimit(KKTPoint):
    """The KKT point that a gradient flow tends to, and the flow.

    Attributes
    ----------
    flow : FlowResult
        The flow, up to where the prediction was accepted.
    angle_to_flow : float
        Angle in radians between the parameters of the flow and of the limit.
    share_to_die : float
        Share of ||theta||^2 that the flow still holds in neurons that are zero in the limit.
    frozen_at : float
        log(1/L) from which on the prediction was the returned one.
    predictions : tuple of Prediction
        All of them, in order.
    """

    flow: FlowResult
    angle_to_flow: float
    share_to_die: float
    frozen_at: float
    predictions: tuple[Prediction, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but networks and matrices, JSON-ready."""
        result = super().to_dict()
        result["flow"] = self.flow.to_dict()
        return result

    def __str__(self) -> str:
        return "\n".join(
            [
                super().__str__(),
                f"  angle to the flow   {self.angle_to_flow:.3g} rad "
                f"at log(1/L) = {self.flow.log_inverse_loss:.4g}",
                f"  prediction froze    at log(1/L) = {self.frozen_at:.4g}",
                f"  share still to die  {self.share_to_die:.3g}",
            ]
        )


def flow_limit(
    net: TwoLayerNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    log_inverse_loss: float = 0.1,
    max_log_inverse_loss: float = 1e5,
    tol: float = 1e-12,
    **flow_settings: Any,
) -> FlowLimit:
    """Where gradient flow from ``net`` tends to: the KKT point, to rounding level.

    The flow is followed to log(1/L) = 0.1, 1, 10, ...; at each the KKT point with its activation
    pattern is computed. It is accepted when two in a row are the same point and its own pattern is
    the one that it was computed for.

    Parameters
    ----------
    net : TwoLayerNet
        Start of the flow.
    data : Dataset
    train_output, bias : bool
        Whether v and b are trained.
    log_inverse_loss : float
        First value of log(1/L) at which a prediction is made; the next ones are ten times larger.
    max_log_inverse_loss : float
        Last value; then the status is ``not_settled``.
    tol : float
        Residual up to which a KKT point is ``converged``.
    **flow_settings
        Passed to `gradient_flow`: loss, rtol, method, form, backend, num_threads, max_seconds, ...

    Returns
    -------
    FlowLimit
        With the flow's own status where it cannot go on, for instance ``stuck_points``.

    Raises
    ------
    ValueError
        As for `gradient_flow`, and for losses whose flow has no limit direction.
    """
    require_margin_maximising(flow_settings.get("loss", "exponential"))
    target = as_number("log_inverse_loss", log_inverse_loss, above=0)
    last = as_number("max_log_inverse_loss", max_log_inverse_loss, at_least=target)
    settings: dict[str, Any] = {"train_output": train_output, "bias": bias}
    predictions: list[Prediction] = []
    previous: KKTPoint | None = None
    frozen_at = np.inf
    while True:
        flow = gradient_flow(net, data, log_inverse_loss=target, **settings, **flow_settings)
        point = kkt_point(flow, data, tol=tol, **settings)
        agrees = previous is not None and same_point(previous, point)
        frozen_at = min(frozen_at, flow.log_inverse_loss) if agrees else flow.log_inverse_loss
        predictions.append(
            Prediction(flow.log_inverse_loss, point.status, point.normalized_margin, agrees)
        )
        status = _verdict(flow, point, agrees)
        if status is None and target >= last:
            status = Status.NOT_SETTLED
        if status is not None:
            return _limit(point, status, flow, frozen_at, tuple(predictions))
        net, previous, target = flow.net, point, min(_TENFOLD * target, last)


def _verdict(flow: FlowResult, point: KKTPoint, agrees: bool) -> Status | None:
    """How it ends, or None where the flow has to go on."""
    if flow.status != Status.CONVERGED:
        return flow.status
    if agrees and point.status in (Status.CONVERGED, Status.DEGENERATE):
        return point.status
    return None


def same_point(first: KKTPoint, second: KKTPoint) -> bool:
    """Whether two predictions are one KKT point, up to how mass is spread within groups."""
    size = second.multipliers.max()
    change = np.abs(first.multipliers - second.multipliers).max()
    if size == 0 or change > _AGREEMENT * size:
        return False
    return _directions(first) == _directions(second)


def _directions(point: KKTPoint) -> set[tuple[float, bytes]]:
    """Signs and patterns on the support of the live groups: with lam, these are the directions."""
    support = point.multipliers > _AGREEMENT * point.multipliers.max()
    return {
        (group.sign, group.examples[support[group.examples]].tobytes())
        for group in point.groups
        if group.mass > 0
    }


def _limit(
    point: KKTPoint,
    status: Status,
    flow: FlowResult,
    frozen_at: float,
    predictions: tuple[Prediction, ...],
) -> FlowLimit:
    inherited = {field.name: getattr(point, field.name) for field in fields(KKTPoint)}
    inherited["status"] = status
    return FlowLimit(
        **inherited,
        flow=flow,
        angle_to_flow=angle(flow.net, point.net),
        share_to_die=_share_to_die(flow.net, point.net),
        frozen_at=float(frozen_at),
        predictions=predictions,
    )


def angle(first: TwoLayerNet, second: TwoLayerNet) -> float:
    """Angle in radians between the parameters of two networks of one shape.

    From the chord between the normalised parameters, which keeps its digits for small angles.
    """
    a, b = (_parameters(net) / net.norm for net in (first, second))
    return 2 * math.asin(min(1.0, float(np.linalg.norm(a - b)) / 2))


def _parameters(net: TwoLayerNet) -> FloatArray:
    return np.concatenate([net.W.ravel(), net.b, net.v])


def _share_to_die(net: TwoLayerNet, limit: TwoLayerNet) -> float:
    dying = (limit.W == 0).all(axis=1) & (limit.b == 0)
    squares = (net.W**2).sum(axis=1) + net.b**2 + net.v**2
    return float(squares[dying].sum() / squares.sum())
