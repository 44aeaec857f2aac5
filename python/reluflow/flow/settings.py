"""How flows are followed: options checked once, for one flow or many."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    FloatArray,
    as_number,
    as_positive_int,
    one_of,
    require_both_classes,
    require_memory,
)
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow.result import (
    LOSSES,
    MARGIN_MAXIMISING,
    DeepFlowResult,
    FlowResult,
    Trajectory,
)
from reluflow.flow.targets import training_margins
from reluflow.network import TwoLayerNet, require_dim

METHODS = ("auto", "bogacki-shampine", "rkc2")
FORMS = ("auto", "gram", "primal", "span")

Observer = Callable[[float, float, float], None]

# Beyond, the stiffness of the loss costs RKC2 more steps than its stages save.
_FARTHEST = {"bogacki-shampine": 1e100, "rkc2": 1e7}


@dataclass(frozen=True)
class FlowSettings:
    """Checked options of `gradient_flow`.

    Attributes are those of `gradient_flow`, None replaced by what it stands for.
    """

    kernel: ModuleType
    loss: str
    label_smoothing: float
    log_inverse_loss: float
    train_output: bool
    bias: bool
    rtol: float
    method: str
    form: str
    backend: str
    num_threads: int
    max_evaluations: float
    max_seconds: float

    @classmethod
    def of(
        cls,
        *,
        loss: str,
        label_smoothing: float,
        log_inverse_loss: float,
        train_output: bool,
        bias: bool,
        rtol: float,
        method: str,
        form: str,
        backend: str,
        num_threads: int | None,
        max_evaluations: int | None,
        max_seconds: float | None,
    ) -> FlowSettings:
        """Refuses what no flow can be followed with."""
        one_of("loss", loss, LOSSES)
        label_smoothing = as_number("label_smoothing", label_smoothing, at_least=0)
        if loss == "cross_entropy" and not 0 < label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must lie in (0, 1) with loss='cross_entropy'; "
                f"got {label_smoothing:g}; without smoothing it is loss='logistic'"
            )
        method = "bogacki-shampine" if one_of("method", method, METHODS) == "auto" else method
        target = as_number("log_inverse_loss", log_inverse_loss)
        farthest = _FARTHEST[method]
        if target > farthest:
            other = "; use method='bogacki-shampine' beyond" if farthest < 1e100 else ""
            raise ValueError(
                f"log_inverse_loss must be at most 1e{round(math.log10(farthest))} "
                f"with method={method!r}; "
                f"got {target:g}{other}"
            )
        return cls(
            kernel=kernels(backend),
            loss=loss,
            label_smoothing=label_smoothing,
            log_inverse_loss=target,
            train_output=train_output,
            bias=bias,
            rtol=as_number("rtol", rtol, above=0),
            method=method,
            form=one_of("form", form, FORMS),
            backend=backend,
            num_threads=resolve_num_threads(num_threads),
            max_evaluations=_or_infinity("max_evaluations", max_evaluations),
            max_seconds=math.inf
            if max_seconds is None
            else as_number("max_seconds", max_seconds, at_least=0),
        )

    def require(self, net: Any, data: Any) -> None:
        """Refuses a problem that these options cannot be used on."""
        if not isinstance(net, TwoLayerNet | DeepNet) or not isinstance(data, Dataset):
            raise TypeError(
                "gradient_flow takes a TwoLayerNet or a DeepNet and a Dataset; "
                f"got {type(net).__name__} and {type(data).__name__}"
            )
        require_both_classes("data.y", data.y)
        if isinstance(net, DeepNet):
            return
        require_dim("data.X", data.dim, net)
        if self.form == "span":
            raise ValueError("form='span' is for deep networks; use 'gram', 'primal' or 'auto'")
        if not self.bias and net.b.any():
            raise ValueError(
                "bias=False needs a network with zero biases; "
                f"{np.count_nonzero(net.b)} are not zero"
            )
        form = self.form_for(data)
        require_memory(f"the {form} flow", _working_bytes(form, data, net))

    def form_for(self, data: Dataset) -> str:
        """The cheaper form, unless one was asked for."""
        if self.form != "auto":
            return self.form
        return "gram" if data.n < 2 * data.dim else "primal"

    def options(self) -> tuple[Any, ...]:
        """What the kernels take after form and problem."""
        # The ramp's error is of its own order, and should not exceed that of a step.
        ramp = self.rtol if self.method == "rkc2" else 0.0
        return (
            getattr(self.kernel.FlowMethod, self.method.replace("-", "_")),
            ramp,
            self.log_inverse_loss,
            self.rtol,
            self.max_evaluations,
            self.max_seconds,
            self.num_threads,
        )

    def margin_loss(self) -> Any:
        """The kernels' own name of the loss."""
        kind = getattr(self.kernel.Loss, self.loss)
        return self.kernel.MarginLoss(kind, self.label_smoothing)

    def result(
        self, outcome: Any, net: TwoLayerNet | DeepNet, data: Dataset, form: str, seconds: float
    ) -> FlowResult:
        """What a kernel returned, as a result."""
        kind: Any = DeepFlowResult if isinstance(net, DeepNet) else FlowResult
        trajectory, margins = outcome.trajectory, outcome.margins
        status = Status(outcome.status.name)
        if outcome.accepted_steps == 0 and status in (Status.MAX_SECONDS, Status.INTERRUPTED):
            # The first gradient was cut short, and with it all that the kernel knew of the start.
            trajectory, margins = self._start(net, data)
        result: FlowResult = kind(
            net=net,
            status=status,
            log_inverse_loss=float(trajectory[-1, 0]),
            evaluations=int(trajectory[-1, 4]),
            margins=margins,
            trajectory=Trajectory(*np.ascontiguousarray(trajectory.T)),
            stuck_points=outcome.unreachable,
            normalized_margin=float(trajectory[-1, 3]),
            accepted_steps=int(outcome.accepted_steps),
            rejected_steps=int(outcome.rejected_steps),
            form=form,
            method=self.method,
            loss=self.loss,
            provenance=provenance(backend=self.backend, num_threads=self.num_threads),
            seconds=seconds,
        )
        return result

    def _start(self, net: TwoLayerNet | DeepNet, data: Dataset) -> tuple[FloatArray, FloatArray]:
        """Trajectory and margins of a flow that has not moved, no gradient counted."""
        margins = training_margins(net, data) if isinstance(net, DeepNet) else net.margins(data)
        log_loss, _ = self.kernel.log_loss_weights(margins, self.margin_loss())
        degree = net.degree if isinstance(net, DeepNet) else 2.0
        row = [-log_loss, 0.0, net.norm, float(margins.min()) / net.norm**degree, 0.0]
        return np.array([row]), margins


def require_margin_maximising(loss: str) -> None:
    """Refuses a loss whose flow has no limit direction."""
    if one_of("loss", loss, LOSSES) not in MARGIN_MAXIMISING:
        raise ValueError(
            f"loss={loss!r} has minimisers, so that its flow tends to one of them and to no KKT "
            f"point; use one of {', '.join(MARGIN_MAXIMISING)}, or gradient_flow"
        )


def _working_bytes(form: str, data: Dataset, net: TwoLayerNet) -> float:
    n, d, m = float(data.n), float(data.dim), float(net.width)
    # The vectors of a step; the examples as the kernel keeps them, and copies on the way there.
    state = 2 * n * m if form == "gram" else m * d
    kept = 2 * n * n if form == "gram" else 4 * n * d
    return 8 * (7 * state + kept + 2 * n * m + 2 * m * d)


def _or_infinity(name: str, value: int | None) -> float:
    return math.inf if value is None else float(as_positive_int(name, value))
