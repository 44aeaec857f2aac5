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
from reluflow.reference.network import primal_gradient


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

    weights: FloatArray
    bias: FloatArray
    output: FloatArray


@dataclass(frozen=True)
class Evaluation:
    """What the integrator sees of a model at one theta."""

    log_loss: float
    margins: FloatArray
    example_weights: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class Model:
    """A model to follow: -grad log L, the examples that cannot learn, and a scale-free margin."""

    evaluate: Callable[[FloatArray], Evaluation]
    unreachable: Callable[[FloatArray], IntArray]
    degree: float = 2.0


@dataclass(frozen=True)
class Options:
    """As in the compiled kernel."""

    log_inverse_loss: float
    rtol: float
    max_evaluations: float = np.inf
    largest_move: float = np.inf
    descend: bool = False


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

    def evaluate(theta: FloatArray) -> Evaluation:
        W, b, v = _unpack(theta, m, d)
        at = primal_gradient(W, b, v, inputs, labels, loss, train_output, train_bias, 1)
        velocity = _pack(at.weights, at.bias, at.output)
        return Evaluation(at.log_loss, at.margins, at.example_weights, velocity)

    def unreachable(theta: FloatArray) -> IntArray:
        W, b, v = _unpack(theta, m, d)
        helpful = labels[:, None] * v > 0
        return np.flatnonzero(~((inputs @ W.T + b > 0) & helpful).any(1))

    ending, theta = follow(
        Model(evaluate, unreachable),
        _pack(weights, bias, output),
        labels,
        Options(log_inverse_loss, rtol, max_evaluations),
        max_seconds,
        progress,
    )
    W, b, v = _unpack(theta, m, d)
    return FlowOutcome(**vars(ending), weights=W, bias=b, output=v)


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
        self.here = self._evaluate(self.theta)
        speed = np.linalg.norm(self.here.velocity)
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
        """The reason not to take another step, if there is one."""
        if time.perf_counter() >= deadline:
            return FlowStatus.max_seconds
        if self.evaluations + _ORDER > self.options.max_evaluations:
            return FlowStatus.max_evaluations
        speed = np.linalg.norm(self.here.velocity)
        if speed == 0:
            return self._name(self.model.unreachable(self.theta)) or FlowStatus.not_separable
        stuck = self._stuck()
        if stuck is not None:
            return stuck
        if self.h * speed <= np.finfo(float).eps * np.linalg.norm(self.theta):
            return FlowStatus.step_underflow
        return None

    def step(self) -> None:
        """One trial step, accepted or not."""
        k1 = self.here.velocity
        speed = float(np.linalg.norm(k1))
        # d log(1/L) / d tau = ||grad log L||^2: aim just beyond the target.
        missing = self.options.log_inverse_loss - self.log_inverse_loss
        move = self.options.largest_move * float(np.linalg.norm(self.theta))
        self.h = min(self.h, 1.001 * missing / speed**2, move / speed)
        h = self.h
        k2 = self._evaluate(self.theta + h / 2 * k1).velocity
        k3 = self._evaluate(self.theta + 3 * h / 4 * k2).velocity
        end = self.theta + h * (_SOLUTION @ np.stack([k1, k2, k3]))
        there = self._evaluate(end)
        difference = h * (_ERROR @ np.stack([k1, k2, k3, there.velocity]))
        scale = self.options.rtol * max(np.linalg.norm(self.theta), np.linalg.norm(end))
        error = float(np.linalg.norm(difference) / scale)
        rise = there.log_loss - self.here.log_loss
        rises = self.options.descend and rise > self.options.rtol
        self.just_rejected = rises or not (error <= 1.0 and np.isfinite(there.log_loss))
        if self.just_rejected:
            self.rejected += 1
            shrink = 0.9 * error ** (-1 / _ORDER) if np.isfinite(error) else 0.0
            self.h *= 0.5 if rises else max(0.2, shrink)
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

    def _name(self, unreachable: IntArray) -> FlowStatus | None:
        if len(unreachable) == 0:
            return None
        self.unreachable = unreachable
        for label in np.unique(self.labels[unreachable]):
            if (self.labels[unreachable] == label).sum() == (self.labels == label).sum():
                return FlowStatus.dead_class
        return FlowStatus.stuck_points


def _pack(weights: FloatArray, bias: FloatArray, output: FloatArray) -> FloatArray:
    return np.concatenate([weights.ravel(), bias, output])


def _unpack(theta: FloatArray, m: int, d: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    return theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:]
