"""The limit of gradient flow: flow, predict, flow further, until predictions agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, overload

import numpy as np

from reluflow._results import Status
from reluflow._threads import one_blas_thread
from reluflow._validation import BoolArray, FloatArray, as_number, require_memory
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow import FlowResult, gradient_flow, require_margin_maximising
from reluflow.kkt.deep_limit import DeepFlowLimit, deep_flow_limit
from reluflow.kkt.groups import NeuronGroups
from reluflow.kkt.point import (
    DEEP_TOL,
    TOL,
    KKTPoint,
    Setting,
    assembled,
    checked_starts,
    require_of_two_layers,
    without_solution,
)
from reluflow.kkt.prediction import FAR, TENFOLD, Clock, FlowPrediction, frozen_at, settled
from reluflow.kkt.program import gram_matrix
from reluflow.kkt.solve import Solved, solve_groups
from reluflow.network import TwoLayerNet
from reluflow.reduction import Reduction, pays_off

# Relative difference of multipliers within which predictions agree.
_AGREEMENT = 1e-8
# Of the flow, in neurons that are predicted to die: more than this is worth a word.
_LARGE_SHARE = 0.1


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
    predictions : tuple of FlowPrediction
        All of them, in order.
    """

    flow: FlowResult
    angle_to_flow: float
    share_to_die: float
    frozen_at: float
    predictions: tuple[FlowPrediction, ...]

    @property
    def settled(self) -> bool:
        """Whether two predictions agree near the flow, or three where that is still far."""
        return settled(self.predictions, self.angle_to_flow)

    @property
    def uncertainties(self) -> tuple[str, ...]:
        """What else than the status says is not certain, as sentences."""
        found = list(super().uncertainties)
        others = {
            round(p.normalized_margin / self.normalized_margin, 8)
            for p in self.predictions
            if p.status == Status.CONVERGED
        }
        if self.status == Status.CONVERGED and len(others) > 1:
            found.append(
                "several KKT points are possible: earlier moments of the flow predicted others"
            )
        if self.status == Status.CONVERGED and self.share_to_die > _LARGE_SHARE:
            found.append(
                f"neurons that hold {self.share_to_die:.2g} of the flow are predicted to die; "
                "while they live, another limit is possible"
            )
        if self.status == Status.CONVERGED and self.angle_to_flow > FAR:
            found.append(
                f"the flow is still {self.angle_to_flow:.2g} rad from it; follow it further "
                "(log_inverse_loss=) to be surer"
            )
        return tuple(found)

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


@overload
def flow_limit(
    net: DeepNet,
    data: Dataset,
    *,
    bias: bool = True,
    log_inverse_loss: float = 0.1,
    max_log_inverse_loss: float = 1e5,
    rtol: float = 1e-2,
    tol: float | None = None,
    max_seconds: float | None = None,
    **flow_settings: Any,
) -> DeepFlowLimit: ...
@overload
def flow_limit(
    net: TwoLayerNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    log_inverse_loss: float = 0.1,
    max_log_inverse_loss: float = 1e5,
    rtol: float = 1e-2,
    tol: float | None = None,
    max_seconds: float | None = None,
    probe_starts: int = 0,
    **flow_settings: Any,
) -> FlowLimit: ...
def flow_limit(
    net: TwoLayerNet | DeepNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    log_inverse_loss: float = 0.1,
    max_log_inverse_loss: float = 1e5,
    rtol: float = 1e-2,
    tol: float | None = None,
    max_seconds: float | None = None,
    probe_starts: int = 0,
    **flow_settings: Any,
) -> FlowLimit | DeepFlowLimit:
    """Where gradient flow from ``net`` tends to: the KKT point, to rounding level.

    The flow is followed to log(1/L) = 0.1, 1, 10, ...; at each the KKT point with its activation
    pattern is computed; where the solution has another pattern than the flow, it is computed again
    for that one, until the two agree. A point is accepted when two in a row are the same, three
    where the flow is still more than 0.5 rad away, and its own pattern is the one that it was
    computed for. Where the dimension is far above n + m, all of it happens in the span of data and
    network (`reluflow.Reduction`), and only the answer has d coordinates.

    Of a `DeepNet` of depth 2 to 4 (see `kkt_point`) predictions are made from where every example
    is classified, and two are the same if groups, multipliers and normalised margin are.

    Parameters
    ----------
    net : TwoLayerNet or DeepNet
        Start of the flow.
    data : Dataset
    train_output, bias : bool
        Whether v and b are trained; a `DeepNet` trains all that it has.
    log_inverse_loss : float
        First value of log(1/L) at which a prediction is made; the next ones are ten times larger.
    max_log_inverse_loss : float
        Last value; then the status is ``not_settled``.
    rtol : float
        Error allowed a step of the flow: the limit needs its pattern alone.
    tol : float or None
        Residual up to which a KKT point is ``converged``; None means 1e-12, and 1e-8 for a
        `DeepNet`.
    max_seconds : float or None
        Time after which the flow is not followed further; then the status is ``max_seconds``.
    probe_starts : int
        Starts of `global_probe` from the limit, which asks whether a larger margin exists; 0 leaves
        it out. Of two layers.
    **flow_settings
        Passed to `gradient_flow`: loss, method, form, backend, num_threads, progress, ...

    Returns
    -------
    FlowLimit or DeepFlowLimit
        With the flow's own status where it cannot go on, for instance ``stuck_points``.

    Raises
    ------
    ValueError
        As for `gradient_flow`, for losses whose flow has no limit direction, and for deep networks
        whose KKT points are not found (see `kkt_point`).
    TypeError
        If ``net`` is no network.
    """
    if not isinstance(net, TwoLayerNet | DeepNet):
        raise TypeError(f"net must be a TwoLayerNet or a DeepNet; got {type(net).__name__}")
    require_margin_maximising(flow_settings.get("loss", "exponential"))
    if isinstance(net, TwoLayerNet) and pays_off(net, data):
        reduction = Reduction.of(net, data)
        found = flow_limit(
            reduction.net,
            reduction.data,
            train_output=train_output,
            bias=bias,
            log_inverse_loss=log_inverse_loss,
            max_log_inverse_loss=max_log_inverse_loss,
            tol=tol,
            rtol=rtol,
            max_seconds=max_seconds,
            probe_starts=probe_starts,
            **flow_settings,
        )
        flow = replace(found.flow, net=reduction.lift(found.flow.net))
        return replace(found, net=reduction.lift(found.net), flow=flow)
    target = as_number("log_inverse_loss", log_inverse_loss, above=0)
    last = as_number("max_log_inverse_loss", max_log_inverse_loss, at_least=target)
    if isinstance(net, DeepNet):
        require_of_two_layers(
            {"train_output=False": not train_output, "probe_starts": bool(probe_starts)}
        )
        flow_settings |= {"bias": bias, "rtol": rtol}
        tol = as_number("tol", DEEP_TOL if tol is None else tol, at_least=0)
        return deep_flow_limit(net, data, target, last, tol, max_seconds, flow_settings)
    tol = as_number("tol", TOL if tol is None else tol, at_least=0)
    setting = Setting(train_output, bias, tol, checked_starts(probe_starts, train_output))
    clock = Clock(max_seconds)
    predictor = _Predictor(data, setting, flow_settings.get("num_threads"))
    while True:
        flow = gradient_flow(
            net,
            data,
            log_inverse_loss=target,
            train_output=train_output,
            bias=bias,
            rtol=rtol,
            max_seconds=clock.remaining(),
            gram=predictor.gram(),
            **flow_settings,
        )
        prediction = predictor.predict(flow)
        status = _verdict(flow, prediction)
        if status is None and clock.remaining() == 0:
            status = Status.MAX_SECONDS
        if status is None and target >= last:
            status = Status.NOT_SETTLED
        if status is not None:
            limit = predictor.limit(flow, status)
            if limit.settled or flow.status != Status.CONVERGED or target >= last:
                return limit
            if clock.remaining() == 0:
                return replace(limit, status=Status.MAX_SECONDS)
        net, target = flow.net, min(TENFOLD * target, last)


class _Predictor:
    """Predicts limits of one flow at one moment after the other."""

    def __init__(self, data: Dataset, setting: Setting, num_threads: int | None) -> None:
        self._data, self._setting, self._num_threads = data, setting, num_threads
        self._K: FloatArray | None = None
        self._solved: Solved | None = None
        self._stuck = np.empty(0, dtype=np.int64)
        self._predictions: list[FlowPrediction] = []

    def predict(self, flow: FlowResult) -> FlowPrediction:
        """The KKT point with the pattern of the flow, near the one before."""
        before, data = self._solved, self._data
        groups = NeuronGroups.of(flow.net, data)
        self._stuck, self._solved = groups.unreached(), None
        if not len(self._stuck):
            with one_blas_thread():
                self._solved = solve_groups(
                    flow.net,
                    groups,
                    self.gram(),
                    data.y,
                    train_output=self._setting.train_output,
                    correct=True,
                    near=before,
                )
        nothing = without_solution(data, self._stuck)
        self._predictions.append(_prediction(flow, before, self._solved, nothing))
        return self._predictions[-1]

    def gram(self) -> FloatArray:
        """Inner products of the examples, which flow and predictions share."""
        if self._K is None:
            require_memory("the Gram matrix", 8.0 * 3 * self._data.n**2)
            self._K = gram_matrix(
                self._data, bias=self._setting.bias, num_threads=self._num_threads
            )
        return self._K

    def limit(self, flow: FlowResult, status: Status) -> FlowLimit:
        """The last prediction, spread over the neurons and checked."""
        with one_blas_thread():
            point = assembled(flow.net, self._data, self._solved, self._stuck, self._setting)
        return _limit(point, status, flow, tuple(self._predictions))


def _prediction(
    flow: FlowResult, before: Solved | None, solved: Solved | None, nothing: Status
) -> FlowPrediction:
    if solved is None:
        return FlowPrediction(flow.log_inverse_loss, nothing, math.nan, 0, False, flow.evaluations)
    return FlowPrediction(
        flow.log_inverse_loss,
        solved.status,
        _normalized_margin(flow, solved),
        solved.corrections,
        before is not None and same_solution(before, solved),
        flow.evaluations,
    )


def _normalized_margin(flow: FlowResult, solved: Solved) -> float:
    """1 / ||theta||^2 of the solution: docs/theory.md, sections 4.2 and 4.7."""
    squares = float(solved.found.solution.lam.sum())
    if solved.program.fixed_mass is None:
        return 1 / (2 * squares)
    return 1 / (squares + float((flow.net.v**2).sum()))


def _verdict(flow: FlowResult, prediction: FlowPrediction) -> Status | None:
    """How it ends, or None where the flow has to go on."""
    if flow.status != Status.CONVERGED:
        return flow.status
    if prediction.agrees and prediction.status in (Status.CONVERGED, Status.DEGENERATE):
        return prediction.status
    return None


def same_solution(first: Solved, second: Solved) -> bool:
    """Whether two predictions are one KKT point, up to how mass is spread within groups."""
    lam, other = second.found.solution.lam, first.found.solution.lam
    if np.abs(lam - other).max() > _AGREEMENT * lam.max():
        return False
    support = lam > _AGREEMENT * lam.max()
    return _directions(first, support) == _directions(second, support)


def _directions(solved: Solved, support: BoolArray) -> set[tuple[float, bytes]]:
    """Signs and patterns on the support of the live groups: with lam, these are the directions."""
    program = solved.program
    return {
        (float(program.sign[g]), program.pattern[g, support].tobytes())
        for g in np.flatnonzero(solved.found.active.live)
    }


def _limit(
    point: KKTPoint, status: Status, flow: FlowResult, predictions: tuple[FlowPrediction, ...]
) -> FlowLimit:
    inherited = {field.name: getattr(point, field.name) for field in fields(KKTPoint)}
    # The check at full width has the last word.
    accepted = status in (Status.CONVERGED, Status.DEGENERATE)
    inherited["status"] = point.status if accepted else status
    return FlowLimit(
        **inherited,
        flow=flow,
        angle_to_flow=angle(flow.net, point.net),
        share_to_die=_share_to_die(flow.net, point.net),
        frozen_at=frozen_at(predictions),
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
