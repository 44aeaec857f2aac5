"""Gradient flow in rescaled time: an embedded Bogacki-Shampine pair with error control.

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
from reluflow.reference.losses import Loss
from reluflow.reference.network import LossGradient, primal_gradient


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


@dataclass(frozen=True)
class FlowOutcome:
    """Where a flow ended; trajectory columns as in the compiled kernel."""

    status: FlowStatus
    trajectory: FloatArray
    unreachable: IntArray
    margins: FloatArray
    accepted_steps: float
    rejected_steps: float
    weights: FloatArray
    bias: FloatArray
    output: FloatArray


# Bogacki & Shampine (1989): solution weights, and solution minus embedded solution.
_SOLUTION = np.array([2 / 9, 1 / 3, 4 / 9])
_ERROR = np.array([2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8])
_ORDER = 3

_RECORDS_PER_DECADE = 10
_NEGLIGIBLE_WEIGHT = 1e-6
_STEPS_BETWEEN_STUCK_CHECKS = 16
_STALL_WINDOW = 2000
_STALL_LOSS_CHANGE = 1e-6
_STALL_NORM_CHANGE = 1e-3


def gradient_flow(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    loss: Loss,
    train_output: bool,
    train_bias: bool,
    gram: bool,
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
        return primal_gradient(W, b, v, inputs, labels, loss, train_output, train_bias, 1)

    flow = _Flow(gradient, inputs, labels, _pack(weights, bias, output), progress)
    status = FlowStatus.converged
    deadline = time.perf_counter() + max_seconds
    try:
        while flow.log_inverse_loss < log_inverse_loss:
            stopped = flow.why_stop(max_evaluations, deadline)
            if stopped is not None:
                status = stopped
                break
            flow.step(rtol, log_inverse_loss)
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
        W,
        b,
        v,
    )


@dataclass
class _Flow:
    gradient: Callable[[FloatArray], LossGradient]
    inputs: FloatArray
    labels: FloatArray
    theta: FloatArray
    progress: Callable[[float, float, float], None] | None
    accepted: int = 0
    rejected: int = 0
    tau: float = 0.0
    unreachable: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self.evaluations = 0
        self.here = self._evaluate(self.theta)
        speed = np.linalg.norm(_velocity(self.here))
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

    def why_stop(self, max_evaluations: float, deadline: float) -> FlowStatus | None:
        """The reason not to take another step, if there is one."""
        if time.perf_counter() >= deadline:
            return FlowStatus.max_seconds
        if self.evaluations + _ORDER > max_evaluations:
            return FlowStatus.max_evaluations
        speed = np.linalg.norm(_velocity(self.here))
        if speed == 0:
            return self._name(self._unreachable()) or FlowStatus.not_separable
        stuck = self._stuck()
        if stuck is not None:
            return stuck
        if self.h * speed <= np.finfo(float).eps * np.linalg.norm(self.theta):
            return FlowStatus.step_underflow
        return None

    def step(self, rtol: float, target: float) -> None:
        """One trial step, accepted or not."""
        k1 = _velocity(self.here)
        # d log(1/L) / d tau = ||grad log L||^2: aim just beyond the target.
        self.h = min(self.h, 1.001 * (target - self.log_inverse_loss) / float(k1 @ k1))
        h = self.h
        k2 = _velocity(self._evaluate(self.theta + h / 2 * k1))
        k3 = _velocity(self._evaluate(self.theta + 3 * h / 4 * k2))
        end = self.theta + h * (_SOLUTION @ np.stack([k1, k2, k3]))
        there = self._evaluate(end)
        difference = h * (_ERROR @ np.stack([k1, k2, k3, _velocity(there)]))
        scale = rtol * max(np.linalg.norm(self.theta), np.linalg.norm(end))
        error = float(np.linalg.norm(difference) / scale)
        self.just_rejected = not (error <= 1.0 and np.isfinite(there.log_loss))
        if self.just_rejected:
            self.rejected += 1
            shrink = 0.9 * error ** (-1 / _ORDER) if np.isfinite(error) else 0.0
            self.h *= max(0.2, shrink)
            return
        self.accepted += 1
        self.theta, self.here = end, there
        self.tau += h
        factor = 0.9 * max(error, 1e-10) ** (-0.7 / _ORDER) * self.previous_error ** (0.4 / _ORDER)
        self.previous_error = max(error, 1e-4)
        self.h *= min(5.0, max(0.2, factor))
        self._note()

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
        weights = self.here.example_weights
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


def _velocity(gradient: LossGradient) -> FloatArray:
    return _pack(gradient.weights, gradient.bias, gradient.output)


def _pack(weights: FloatArray, bias: FloatArray, output: FloatArray) -> FloatArray:
    return np.concatenate([weights.ravel(), bias, output])


def _unpack(theta: FloatArray, m: int, d: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    return theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:]
