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
from reluflow.reference.network import LossGradient, primal_gradient
from reluflow.reference.stepping import (
    BogackiShampine,
    FlowMethod,
    RungeKuttaChebyshev,
    velocity_of,
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
class FlowOutcome:
    """Where a flow ended; trajectory columns as in the compiled kernel."""

    status: FlowStatus
    trajectory: FloatArray
    unreachable: IntArray
    margins: FloatArray
    accepted_steps: float
    rejected_steps: float
    seconds: float
    weights: FloatArray
    bias: FloatArray
    output: FloatArray


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
    gram: bool,
    method: FlowMethod,
    kink_ramp: float,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
) -> FlowOutcome:
    """Follows d theta / d tau = -grad log L until log(1/L) reaches ``log_inverse_loss``."""
    m, d = weights.shape

    def gradient(theta: FloatArray) -> LossGradient:
        W, b, v = _unpack(theta, m, d)
        return primal_gradient(
            W, b, v, inputs, labels, loss, train_output, train_bias, 1, kink_ramp
        )

    theta = np.concatenate([weights.ravel(), bias, output])
    rests = margin_loss(loss).has_minimizer
    flow = _Flow(gradient, inputs, labels, theta, method, rests, progress)
    status = FlowStatus.converged
    start = time.perf_counter()
    deadline = start + max_seconds
    try:
        while flow.log_inverse_loss < log_inverse_loss:
            stopped = flow.why_stop(max_evaluations, log_inverse_loss, deadline)
            if stopped is not None:
                status = stopped
                break
            flow.step(rtol)
    except KeyboardInterrupt:
        status = FlowStatus.interrupted
    W, b, v = _unpack(flow.theta, m, d)
    return FlowOutcome(
        status,
        np.array(flow.finished_records()),
        flow.unreachable,
        flow.here.margins,
        flow.accepted,
        flow.rejected,
        time.perf_counter() - start,
        W,
        b,
        v,
    )


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
    gradient: Callable[[FloatArray], LossGradient]
    inputs: FloatArray
    labels: FloatArray
    theta: FloatArray
    method: FlowMethod
    comes_to_rest: bool
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
        self.stepper = steppers[self.method](self._evaluate)
        self.here = self._evaluate(self.theta)
        speed = np.linalg.norm(velocity_of(self.here))
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

    def why_stop(self, max_evaluations: float, target: float, deadline: float) -> FlowStatus | None:
        """The reason not to take another step, if there is one; else the step is ready."""
        if time.perf_counter() >= deadline:
            return FlowStatus.max_seconds
        ended = self._at_rest() or self._stuck()
        if ended is not None:
            return ended
        stepper = self.stepper
        if self.evaluations + stepper.evaluations_to_prepare > max_evaluations:
            return FlowStatus.max_evaluations
        velocity = velocity_of(self.here)
        stepper.prepare(self.theta, velocity)
        # d log(1/L) / d tau = ||grad log L||^2: aim just beyond the target.
        missing = target - self.log_inverse_loss
        aim = missing + max(1e-3 * missing, 1e-6 * abs(target))
        self.h = stepper.longest(min(self.h, aim / float(velocity @ velocity)))
        if self.evaluations + stepper.evaluations(self.h) > max_evaluations:
            return FlowStatus.max_evaluations
        speed, size = np.linalg.norm(velocity), np.linalg.norm(self.theta)
        if self.h * speed <= np.finfo(float).eps * size:
            return FlowStatus.step_underflow
        return None

    def step(self, rtol: float) -> None:
        """One trial step, accepted or not."""
        h = self.h
        trial = self.stepper.attempt(self.theta, velocity_of(self.here), h)
        scale = rtol * max(np.linalg.norm(self.theta), np.linalg.norm(trial.end))
        error = float(np.linalg.norm(trial.error) / scale)
        self.just_rejected = not self._acceptable(error, trial.gradient.log_loss)
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

    def _acceptable(self, error: float, log_loss: float) -> bool:
        if not error <= 1.0:
            return False
        # L may be 0 where it has minimisers; there it also never rises, whatever the tolerance.
        return log_loss <= self.here.log_loss if self.comes_to_rest else bool(np.isfinite(log_loss))

    def _at_rest(self) -> FlowStatus | None:
        speed = float(np.linalg.norm(velocity_of(self.here)))
        gradient = np.exp(self.here.log_loss) * speed / np.linalg.norm(self.theta)
        self.largest_gradient = max(self.largest_gradient, gradient)
        minimal = self.comes_to_rest and gradient <= _STATIONARY * self.largest_gradient
        if speed > 0 and not minimal:
            return None
        if minimal and self.here.margins.min() > 0:
            return FlowStatus.stationary
        return self._name(self._unreachable()) or FlowStatus.not_separable

    def finished_records(self) -> list[list[float]]:
        """The records, with the last moment at their end."""
        if self.records[-1][1] < self.tau:
            self.records.append(self._record())
        return self.records

    def _evaluate(self, theta: FloatArray) -> LossGradient:
        self.evaluations += 1
        return self.gradient(theta)

    def _record(self) -> list[float]:
        norm = float(np.linalg.norm(self.theta))
        margin = float(self.here.margins.min()) / norm**2
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
        unreachable = self._unreachable()
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

    def _unreachable(self) -> IntArray:
        W, b, v = _unpack(self.theta, len(self.here.output), self.inputs.shape[1])
        active = self.inputs @ W.T + b > 0
        helpful = self.labels[:, None] * v > 0
        return np.flatnonzero(~(active & helpful).any(1))

    def _name(self, unreachable: IntArray) -> FlowStatus | None:
        if len(unreachable) == 0:
            return None
        self.unreachable = unreachable
        for label in (-1.0, 1.0):
            if (self.labels[unreachable] == label).sum() == (self.labels == label).sum():
                return FlowStatus.dead_class
        return FlowStatus.stuck_points


def _unpack(theta: FloatArray, m: int, d: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    return theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:]
