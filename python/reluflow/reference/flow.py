"""Gradient flow in rescaled time: one-step methods with error control.

The state is the whole network; the Gram form, which only makes a step cheaper, has no twin of its
own here.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from reluflow._validation import FloatArray, IntArray
from reluflow.reference.losses import Loss, MarginLoss, margin_loss
from reluflow.reference.network import primal_gradient
from reluflow.reference.stepping import (
    BogackiShampine,
    Evaluation,
    FlowMethod,
    RungeKuttaChebyshev,
)


class FlowStatus(enum.Enum):
    """How a flow ended."""

    converged = 0
    max_evaluations = 1
    max_seconds = 2
    interrupted = 3
    stuck_points = 4
    dead_class = 5
    not_separable = 6
    step_underflow = 7
    stationary = 8


@dataclass(frozen=True)
class Ending:
    """How a flow ended; trajectory columns as in the compiled kernel."""

    status: FlowStatus
    trajectory: FloatArray
    unreachable: IntArray
    margins: FloatArray
    accepted_steps: float
    rejected_steps: float


@dataclass(frozen=True)
class FlowOutcome(Ending):
    """Where the flow of a two-layer network ended."""

    seconds: float
    weights: FloatArray
    bias: FloatArray
    output: FloatArray


@dataclass(frozen=True)
class Model:
    """What is followed: the gradient, and the examples that nothing can learn from.

    ``degree`` is that of homogeneity; ``comes_to_rest`` says whether the loss has minimisers.
    """

    evaluate: Callable[[FloatArray], Evaluation]
    unreachable: Callable[[FloatArray], IntArray]
    degree: float = 2.0
    comes_to_rest: bool = False


@dataclass(frozen=True)
class Options:
    """As in the compiled kernel."""

    log_inverse_loss: float
    rtol: float
    max_evaluations: float
    method: FlowMethod
    largest_move: float = np.inf
    descend: bool = False


# Of the error estimates, in the step length.
_ORDER = 3

_RECORDS_PER_DECADE = 10
_NEGLIGIBLE_WEIGHT = 1e-6
_STEPS_BETWEEN_STUCK_CHECKS = 16
_STALL_WINDOW = 2000
_STALL_LOSS_CHANGE = 1e-6
_STALL_NORM_CHANGE = 1e-3
_STATIONARY = 1e-8


def gradient_flow(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    gram_form: bool,
    method: FlowMethod,
    kink_ramp: float,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
    gram: FloatArray | None = None,
) -> FlowOutcome:
    """Follows d theta / d tau = -grad log L until log(1/L) reaches ``log_inverse_loss``."""
    m, d = weights.shape

    def evaluate(theta: FloatArray) -> Evaluation:
        W, b, v = _unpack(theta, m, d)
        return primal_gradient(
            W, b, v, inputs, labels, loss, train_output, train_bias, 1, kink_ramp
        )

    def unreachable(theta: FloatArray) -> IntArray:
        W, b, v = _unpack(theta, m, d)
        helpful = labels[:, None] * v > 0
        return np.flatnonzero(~((inputs @ W.T + b > 0) & helpful).any(1))

    start = time.perf_counter()
    ending, theta = follow(
        Model(evaluate, unreachable, comes_to_rest=margin_loss(loss).has_minimizer),
        np.concatenate([weights.ravel(), bias, output]),
        labels,
        Options(log_inverse_loss, rtol, max_evaluations, method),
        max_seconds,
        progress,
    )
    W, b, v = _unpack(theta, m, d)
    seconds = time.perf_counter() - start
    return FlowOutcome(**vars(ending), seconds=seconds, weights=W, bias=b, output=v)


def follow(
    model: Model,
    theta: FloatArray,
    labels: FloatArray,
    options: Options,
    max_seconds: float,
    progress: Callable[[float, float, float], None] | None,
) -> tuple[Ending, FloatArray]:
    """Integrates any model from ``theta``; returns how that ended, and where."""
    flow = _Flow(model, labels, options, theta, progress)
    status = FlowStatus.converged
    deadline = time.perf_counter() + max_seconds
    try:
        while flow.log_inverse_loss < options.log_inverse_loss:
            stopped = flow.why_stop(deadline)
            if stopped is not None:
                status = stopped
                break
            flow.step()
    except KeyboardInterrupt:
        status = FlowStatus.interrupted
    ending = Ending(
        status,
        np.array(flow.finished_records()),
        flow.unreachable,
        flow.here.margins,
        flow.accepted,
        flow.rejected,
    )
    return ending, flow.theta


def gradient_flow_ensemble(
    networks: list[tuple[FloatArray, FloatArray, FloatArray]],
    data: list[tuple[FloatArray, FloatArray]],
    gram: list[bool],
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    method: FlowMethod,
    kink_ramp: float,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[int], None] | None,
) -> list[FlowOutcome]:
    """One flow after the other; time left is shared."""
    start = time.perf_counter()
    outcomes = []
    for network, examples, form in zip(networks, data, gram, strict=True):
        left = max_seconds - (time.perf_counter() - start)
        outcomes.append(
            gradient_flow(
                *network,
                *examples,
                loss,
                train_output,
                train_bias,
                form,
                method,
                kink_ramp,
                log_inverse_loss,
                rtol,
                max_evaluations,
                left,
                1,
                None,
            )
        )
        if progress is not None:
            progress(len(outcomes))
        if outcomes[-1].status is FlowStatus.interrupted:
            max_seconds = 0.0
    return outcomes


@dataclass
class _Flow:
    model: Model
    labels: FloatArray
    options: Options
    theta: FloatArray
    progress: Callable[[float, float, float], None] | None
    accepted: int = 0
    rejected: int = 0
    tau: float = 0.0
    unreachable: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self.evaluations = 0
        steppers = {
            FlowMethod.bogacki_shampine: BogackiShampine,
            FlowMethod.rkc2: RungeKuttaChebyshev,
        }
        self.stepper = steppers[self.options.method](self._evaluate)
        self.here = self._evaluate(self.theta)
        speed = np.linalg.norm(self.here.velocity)
        self.largest_gradient = 0.0
        self.h = float(0.01 * np.linalg.norm(self.theta) / speed) if speed > 0 else 0.0
        self.previous_error = 1.0
        self.just_rejected = False
        self.records: list[list[float]] = []
        self.level = -np.inf
        self.window = (0, np.inf, 1.0)
        self._note()

    @property
    def log_inverse_loss(self) -> float:
        return -self.here.log_loss

    def why_stop(self, deadline: float) -> FlowStatus | None:
        """The reason not to take another step, if there is one; else the step is ready."""
        if time.perf_counter() >= deadline:
            return FlowStatus.max_seconds
        ended = self._at_rest() or self._stuck()
        if ended is not None:
            return ended
        stepper, max_evaluations = self.stepper, self.options.max_evaluations
        if self.evaluations + stepper.evaluations_to_prepare > max_evaluations:
            return FlowStatus.max_evaluations
        velocity = self.here.velocity
        stepper.prepare(self.theta, velocity)
        # d log(1/L) / d tau = ||grad log L||^2: aim just beyond the target.
        target = self.options.log_inverse_loss
        missing = target - self.log_inverse_loss
        aim = missing + max(1e-3 * missing, 1e-6 * abs(target))
        speed, size = float(np.linalg.norm(velocity)), float(np.linalg.norm(self.theta))
        move = self.options.largest_move * size / speed
        self.h = stepper.longest(min(self.h, aim / speed**2, move))
        if self.evaluations + stepper.evaluations(self.h) > max_evaluations:
            return FlowStatus.max_evaluations
        if self.h * speed <= np.finfo(float).eps * size:
            return FlowStatus.step_underflow
        return None

    def step(self) -> None:
        """One trial step, accepted or not."""
        h = self.h
        trial = self.stepper.attempt(self.theta, self.here.velocity, h)
        scale = self.options.rtol * max(np.linalg.norm(self.theta), np.linalg.norm(trial.end))
        error = float(np.linalg.norm(trial.error) / scale)
        self.just_rejected = not self._acceptable(error, trial.gradient)
        if self.just_rejected:
            self.rejected += 1
            if error <= 1.0:
                self.h *= 0.5
            else:
                shrink = 0.9 * error ** (-1 / _ORDER) if np.isfinite(error) else 0.0
                self.h *= max(0.2, shrink)
            return
        self.accepted += 1
        self.theta, self.here = trial.end, trial.gradient
        self.tau += h
        factor = 0.9 * max(error, 1e-10) ** (-0.7 / _ORDER) * self.previous_error ** (0.4 / _ORDER)
        self.previous_error = max(error, 1e-4)
        self.h *= min(5.0, max(0.2, factor))
        self._note()

    def _acceptable(self, error: float, end: Evaluation) -> bool:
        if not error <= 1.0:
            return False
        # L may be 0 where it has minimisers; there it also never rises, whatever the tolerance.
        # Where rounding leaves it as it is the gradient has to fall, or steps could go round in a
        # circle.
        rise = end.log_loss - self.here.log_loss
        if self.model.comes_to_rest:
            falls = np.linalg.norm(end.velocity) < np.linalg.norm(self.here.velocity)
            return bool(rise < 0 or (rise == 0 and falls))
        # Where the flow slides along a kink, steps that end beyond it may raise log L a little.
        rises = self.options.descend and rise > self.options.rtol
        return bool(np.isfinite(end.log_loss)) and not rises

    def _at_rest(self) -> FlowStatus | None:
        speed = float(np.linalg.norm(self.here.velocity))
        gradient = np.exp(self.here.log_loss) * speed / np.linalg.norm(self.theta)
        self.largest_gradient = max(self.largest_gradient, gradient)
        minimal = self.model.comes_to_rest and gradient <= _STATIONARY * self.largest_gradient
        if speed > 0 and not minimal:
            return None
        if minimal and self.here.margins.min() > 0:
            return FlowStatus.stationary
        return self._name(self.model.unreachable(self.theta)) or FlowStatus.not_separable

    def finished_records(self) -> list[list[float]]:
        """The records, with the last moment at their end."""
        if self.records[-1][1] < self.tau:
            self.records.append(self._record())
        return self.records

    def _evaluate(self, theta: FloatArray) -> Evaluation:
        self.evaluations += 1
        return self.model.evaluate(theta)

    def _record(self) -> list[float]:
        norm = float(np.linalg.norm(self.theta))
        margin = float(self.here.margins.min()) / norm**self.model.degree
        return [self.log_inverse_loss, self.tau, norm, margin, float(self.evaluations)]

    def _note(self) -> None:
        record = self._record()
        level = -np.inf
        if record[0] > 0:
            level = np.floor(np.log10(record[0]) * _RECORDS_PER_DECADE)
        if not self.records or level > self.level:
            self.records.append(record)
            self.level = level
        if self.progress is not None:
            self.progress(record[0], record[3], record[4])

    def _stuck(self) -> FlowStatus | None:
        if self.just_rejected or self.here.margins.min() > 0:
            return None
        stalled = self._stalled()
        if not stalled and self.accepted % _STEPS_BETWEEN_STUCK_CHECKS != 0:
            return None
        unreachable = self.model.unreachable(self.theta)
        weights = np.abs(self.here.example_weights)
        alone = weights[unreachable].sum() > (1 - _NEGLIGIBLE_WEIGHT) * weights.sum()
        if len(unreachable) and (stalled or alone):
            return self._name(unreachable)
        return FlowStatus.not_separable if stalled else None

    def _stalled(self) -> bool:
        steps, log_loss, norm = self.window
        if steps + 1 < _STALL_WINDOW:
            self.window = (steps + 1, log_loss, norm)
            return False
        now, norm_now = self.here.log_loss, float(np.linalg.norm(self.theta))
        self.window = (0, now, norm_now)
        small_change = log_loss - now < _STALL_LOSS_CHANGE * max(1.0, abs(now))
        return bool(small_change and abs(np.log(norm_now / norm)) < _STALL_NORM_CHANGE)

    def _name(self, unreachable: IntArray) -> FlowStatus | None:
        if len(unreachable) == 0:
            return None
        self.unreachable = unreachable
        for label in np.unique(self.labels[unreachable]):
            if (self.labels[unreachable] == label).sum() == (self.labels == label).sum():
                return FlowStatus.dead_class
        return FlowStatus.stuck_points


def _unpack(theta: FloatArray, m: int, d: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    return theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:]
