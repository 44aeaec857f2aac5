"""One step of the flow: the Bogacki-Shampine pair, and the stabilised method RKC2."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from reluflow._validation import FloatArray


class FlowMethod(enum.Enum):
    """Integrators of a flow."""

    bogacki_shampine = "bogacki_shampine"
    rkc2 = "rkc2"


class Evaluation(Protocol):
    """What the integrator sees of a model at one theta."""

    @property
    def log_loss(self) -> float:
        """log L."""

    @property
    def margins(self) -> FloatArray:
        """Of the examples."""

    @property
    def example_weights(self) -> FloatArray:
        """Of the margins' gradients in the velocity."""

    @property
    def velocity(self) -> FloatArray:
        """-grad log L as one vector."""


@dataclass(frozen=True)
class Attempt:
    """Where a step ends, the gradient there, and the estimate of its error."""

    end: FloatArray
    gradient: Evaluation
    error: FloatArray


@dataclass
class BogackiShampine:
    """Bogacki & Shampine (1989): orders 3 and 2, the last stage is the first of the next step."""

    evaluate: Callable[[FloatArray], Evaluation]
    evaluations_to_prepare: int = 0

    def prepare(self, theta: FloatArray, velocity: FloatArray) -> None:
        """Nothing: the step length follows from the error alone."""

    def longest(self, h: float) -> float:
        """Any length can be tried."""
        return h

    def evaluations(self, h: float) -> int:
        """Of a step of length h."""
        return 3

    def attempt(self, theta: FloatArray, k1: FloatArray, h: float) -> Attempt:
        """A step of length h from theta with velocity k1."""
        k2 = self.evaluate(theta + h / 2 * k1).velocity
        k3 = self.evaluate(theta + 3 * h / 4 * k2).velocity
        end = theta + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
        gradient = self.evaluate(end)
        solution_minus_embedded = (
            (2 / 9 - 7 / 24) * k1
            + (1 / 3 - 1 / 4) * k2
            + (4 / 9 - 1 / 3) * k3
            - 1 / 8 * gradient.velocity
        )
        return Attempt(end, gradient, h * solution_minus_embedded)


_MOST_STAGES = 1000
_DAMPING = 2 / 13
_STAGES_SQUARED_PER_REACH = 1.54
_MOST_POWER_ITERATIONS = 50
_RADIUS_TOLERANCE = 0.05
_RADIUS_SAFETY = 1.2


@dataclass
class RungeKuttaChebyshev:
    """Sommeijer, Shampine & Verwer (1998): s stages reach like s^2 along the negative axis."""

    evaluate: Callable[[FloatArray], Evaluation]
    evaluations_to_prepare: int = _MOST_POWER_ITERATIONS
    radius: float = 0.0
    direction: FloatArray = field(default_factory=lambda: np.zeros(0))

    def prepare(self, theta: FloatArray, velocity: FloatArray) -> None:
        """Estimates the spectral radius of the velocity's derivative by a power method."""
        speed = np.linalg.norm(velocity)
        if not speed > 0:
            return
        size = np.sqrt(np.finfo(float).eps) * np.linalg.norm(theta)
        if not len(self.direction):
            self.direction = velocity / speed
        for _ in range(_MOST_POWER_ITERATIONS):
            change = self.evaluate(theta + size * self.direction).velocity - velocity
            length = float(np.linalg.norm(change))
            if not 0 < length < np.inf:
                return
            self.direction = change / length
            previous, self.radius = self.radius, length / float(size)
            if abs(self.radius - previous) <= _RADIUS_TOLERANCE * self.radius:
                return

    def longest(self, h: float) -> float:
        """The longest step up to h that the most stages can take."""
        if self.radius == 0:
            return h
        reach = (_MOST_STAGES - 1) ** 2 - 1
        return min(h, reach / (_STAGES_SQUARED_PER_REACH * _RADIUS_SAFETY * self.radius))

    def evaluations(self, h: float) -> int:
        """Of a step of length h: one a stage."""
        reach = _STAGES_SQUARED_PER_REACH * _RADIUS_SAFETY * self.radius * h
        return max(2, 1 + int(np.sqrt(1 + reach)))

    def attempt(self, theta: FloatArray, velocity: FloatArray, h: float) -> Attempt:
        """A step of length h from theta with that velocity."""
        stages = self.evaluations(h)
        w0 = 1 + _DAMPING / stages**2
        value, slope, curvature = _chebyshev(stages, w0)
        w1 = slope[stages] / curvature[stages]
        b = np.concatenate([[0.0, 0.0], curvature[2:] / slope[2:] ** 2])
        b[:2] = b[2]
        a = 1 - b * value
        before, last = theta, theta + b[1] * w1 * h * velocity
        for j in range(2, stages + 1):
            mu, nu = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2]
            mu_velocity = 2 * b[j] * w1 / b[j - 1]
            stage = self.evaluate(last).velocity
            following = (
                (1 - mu - nu) * theta
                + mu * last
                + nu * before
                + mu_velocity * h * stage
                - a[j - 1] * mu_velocity * h * velocity
            )
            before, last = last, following
        gradient = self.evaluate(last)
        error = 0.8 * (theta - last) + 0.4 * h * (velocity + gradient.velocity)
        return Attempt(last, gradient, error)


def _chebyshev(degree: int, x: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """T_0 .. T_degree and their first two derivatives at x, by their recurrences."""
    value, slope, curvature = (np.zeros(degree + 1) for _ in range(3))
    value[:2], slope[1] = [1, x], 1
    for j in range(2, degree + 1):
        value[j] = 2 * x * value[j - 1] - value[j - 2]
        slope[j] = 2 * (x * slope[j - 1] + value[j - 1]) - slope[j - 2]
        curvature[j] = 2 * (x * curvature[j - 1] + 2 * slope[j - 1]) - curvature[j - 2]
    return value, slope, curvature
