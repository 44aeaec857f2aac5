"""The loss of the smallest margin in a ball around each example, and its gradient.

docs/theory.md, section 10.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.reference.convex_pieces import PointProblem, piece_of
from reluflow.reference.flow import FlowOutcome, Model, Options, follow
from reluflow.reference.losses import Loss, MarginLoss, log_loss_weights, margin_loss
from reluflow.reference.network import LossGradient
from reluflow.reference.stepping import FlowMethod

_PAIRED_TARGETS = 4
_MOST_NEIGHBOURS = 6
_PARALLEL = 0.99
_ENUMERATED = 8
_DESCENT_STEPS = 10
_MOST_SWEEPS = 2000
_TOLERANCE = 1e-13
# Length of all steps of projected gradient descent together, in radii.
_TRAVEL = 2.5


@dataclass(frozen=True)
class AdversarialPoints:
    """Perturbations weights^T coefficients of examples, with margins and multipliers there."""

    example: IntArray
    margins: FloatArray
    multipliers: FloatArray
    coefficients: FloatArray


@dataclass(frozen=True)
class AdversarialFlowOutcome(FlowOutcome):
    """Where a flow on adversarial examples ended."""

    coefficients: FloatArray


@dataclass(frozen=True)
class _Point:
    value: float
    multipliers: FloatArray
    coefficients: FloatArray
    z: FloatArray


def _minimum(problem: PointProblem, subset: BoolArray, radius: float) -> _Point:
    """The smallest value of one piece over the ball, from the plane that is highest there.

    Coordinate ascent on sigma . a - radius ||rows^T sigma||, sigma_j in [0, v_j] at supporting
    neurons; -radius rows^T sigma / ||rows^T sigma|| is where its plane is lowest.
    """
    piece = piece_of(problem, subset)
    supporting = np.flatnonzero(problem.supporting)
    sigma = piece.slopes + np.where(problem.supporting & (problem.a > 0), problem.v, 0.0)
    best = _Point(np.inf, sigma, np.zeros_like(sigma), problem.a)
    for _ in range(_MOST_SWEEPS):
        for j in supporting:
            sigma[j] = 0.0
            sigma[j] = _best_multiplier(problem, sigma, int(j), radius)
        normal = problem.rows.T @ sigma
        length = float(np.linalg.norm(normal))
        bound = piece.constant + sigma @ problem.a - radius * length
        coefficients = -radius / length * sigma if length > 0 else np.zeros_like(sigma)
        z = problem.a + problem.rows @ (problem.rows.T @ coefficients)
        value = float(
            piece.constant + problem.v[supporting] @ np.maximum(z[supporting], 0) + piece.slopes @ z
        )
        if value < best.value:
            best = _Point(value, sigma.copy(), coefficients, z)
        if value - bound <= _TOLERANCE * (np.abs(sigma) @ np.abs(problem.a)):
            break
    return best


def _best_multiplier(problem: PointProblem, sigma: FloatArray, j: int, radius: float) -> float:
    """Where the bound is highest in sigma_j, which is 0 in ``sigma``.

    With t for sigma_j it is a t - radius sqrt(g (t + q/g)^2 + h) and a constant.
    """
    row, a, top = problem.rows[j], problem.a[j], problem.v[j]
    normal = problem.rows.T @ sigma
    g, q = float(row @ row), float(row @ normal)
    steepest = radius * np.sqrt(g)
    if abs(a) >= steepest:
        return float(top if a > 0 else 0.0)
    h = max(0.0, float(normal @ normal) - q * q / g)
    return float(np.clip(a * np.sqrt(h / (g * (steepest**2 - a**2))) - q / g, 0.0, top))


class _BallSearch:
    """Descends from piece to piece: minimise over the ball, and go on with what is active there."""

    def __init__(self, problem: PointProblem, radius: float, spread: float) -> None:
        self.problem, self.radius, self.spread = problem, radius, spread
        self.visited: set[bytes] = set()
        self.found: list[_Point] = []

    @property
    def best(self) -> _Point:
        """The smallest minimum found."""
        return min(self.found, key=lambda point: point.value)

    def minima(self) -> list[_Point]:
        """All within the spread, the smallest first."""
        if self.spread == 0:
            return [self.best]
        limit = self.best.value + self.spread
        return sorted((p for p in self.found if p.value <= limit), key=lambda p: p.value)

    def from_subset(self, subset: BoolArray) -> None:
        """Starts from the piece of a subset, and stops at one that was looked at before."""
        while subset.tobytes() not in self.visited:
            self.visited.add(subset.tobytes())
            point = _minimum(self.problem, subset, self.radius)
            following = self.problem.opposing & (point.z > 0)
            if (following == subset).all() or not self.found:
                self.found.append(point)
            subset = following

    def from_slopes(self, slopes: FloatArray, length: float) -> None:
        """Starts at the end of the ball in a direction."""
        scale = self.radius / length if length > 0 else 0.0
        self.from_subset(self.problem.opposing & (self.problem.a + scale * slopes > 0))

    def from_multipliers(self, multipliers: FloatArray) -> None:
        """Starts along -rows^T multipliers."""
        normal = self.problem.rows.T @ multipliers
        self.from_slopes(-(self.problem.rows @ normal), float(np.linalg.norm(normal)))

    def run(self, targets: FloatArray, distances: FloatArray) -> None:
        """From gradients, towards targets one by one, in prefixes and in pairs; then improves."""
        problem, v = self.problem, self.problem.v
        gradient = np.where(problem.a > 0, v, 0.0)
        self.from_multipliers(gradient)
        self.from_slopes(np.zeros_like(v), 0.0)
        self.from_multipliers(np.maximum(gradient, 0) + np.minimum(v, 0))
        for multipliers in (np.maximum(v, 0), v, np.minimum(v, 0)):
            self.from_multipliers(multipliers)
        slopes = targets - problem.a
        active = [problem.opposing & (z > 0) for z in targets]
        for slope, distance, subset in zip(slopes, distances, active, strict=True):
            self.from_slopes(slope, distance)
            self.from_subset(subset)
        for t in range(1, len(targets) + 1):
            self.from_slopes(slopes[:t].sum(axis=0), float(np.linalg.norm(distances[:t])))
            self.from_subset(np.logical_or.reduce(active[:t]))
        for s, t in itertools.combinations(range(min(len(targets), _PAIRED_TARGETS)), 2):
            length = float(np.hypot(distances[s], distances[t]))
            self.from_slopes(slopes[s] + slopes[t], length)
            self.from_subset(active[s] | active[t])
        self.from_subset(np.zeros(len(v), dtype=bool))
        self.from_subset(problem.opposing.copy())
        descent = _descend(problem, self.radius, _DESCENT_STEPS)
        self.from_subset(problem.opposing & (descent.z > 0))
        opposing = np.flatnonzero(problem.opposing)
        if len(opposing) <= _ENUMERATED:
            for chosen in itertools.product([False, True], repeat=len(opposing)):
                subset = np.zeros(len(v), dtype=bool)
                subset[opposing] = chosen
                self.from_subset(subset)
        self.improve()

    def improve(self) -> None:
        """Groups of parallel opposing neurons added or left out, those nearest to kinks first."""
        previous = np.inf
        while self.best.value < previous:
            previous = self.best.value
            z = self.best.z
            for group in self._groups(z):
                self.from_subset((self.problem.opposing & (z > 0)) ^ group)

    def _groups(self, z: FloatArray) -> list[BoolArray]:
        problem, norms = self.problem, self.problem.norms
        opposing = np.flatnonzero(problem.opposing)
        groups: list[BoolArray] = []
        left = problem.opposing.copy()
        for j in opposing[np.argsort(np.abs(z[opposing]) / norms[opposing], kind="stable")]:
            if len(groups) == _MOST_NEIGHBOURS:
                break
            if left[j]:
                parallel = problem.rows @ problem.rows[j] >= _PARALLEL * norms[j] * norms
                group = left & parallel & ((z > 0) == (z[j] > 0))
                group[j] = True
                left &= ~group
                groups.append(group)
        return groups


def _descend(problem: PointProblem, radius: float, steps: int) -> _Point:
    """Projected gradient descent (Madry et al. 2018): the best iterate."""
    coefficients = np.zeros_like(problem.a)
    best: _Point | None = None
    for step in range(steps + 1):
        z = problem.a + problem.rows @ (problem.rows.T @ coefficients)
        active = np.where(z > 0, problem.v, 0.0)
        value = float(problem.constant + active @ z)
        if best is None or value < best.value:
            best = _Point(value, active, coefficients, z)
        length = float(np.linalg.norm(problem.rows.T @ active))
        if step == steps or length == 0:
            break
        coefficients = coefficients - _TRAVEL * radius / (steps * length) * active
        norm = float(np.linalg.norm(problem.rows.T @ coefficients))
        if norm > radius:
            coefficients = coefficients * (radius / norm)
    assert best is not None
    return best


def adversarial_points(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    targets: FloatArray,
    target_order: IntArray,
    radius: float,
    descent_steps: int,
    spread: float,
    num_threads: int,
) -> AdversarialPoints:
    """Every perturbation found whose margin is within ``spread`` of the smallest of its example."""
    points: list[_Point] = []
    example: list[int] = []
    for i, (x, label) in enumerate(zip(inputs, labels, strict=True)):
        problem = PointProblem(weights, weights @ x + bias, label * output, 0.0)
        if descent_steps > 0:
            found = [_descend(problem, radius, descent_steps)]
        else:
            search = _BallSearch(problem, radius, spread)
            chosen = targets[target_order[i][target_order[i] >= 0]]
            search.run(chosen @ weights.T + bias, np.linalg.norm(chosen - x, axis=1))
            found = search.minima()
        points += found
        example += [i] * len(found)
    return AdversarialPoints(
        np.array(example, dtype=np.int64),
        np.array([point.value for point in points]),
        np.array([point.multipliers for point in points]),
        np.array([point.coefficients for point in points]),
    )


def adversarial_gradient(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    targets: FloatArray,
    target_order: IntArray,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    radius: float,
    descent_steps: int,
    num_threads: int,
) -> LossGradient:
    """The gradient at the minimisers (Danskin 1967).

    Supporting neurons at their kinks count with the shares multipliers / (y v) of their slopes.
    """
    points = adversarial_points(
        weights,
        bias,
        output,
        inputs,
        labels,
        targets,
        target_order,
        radius,
        descent_steps,
        0.0,
        1,
    )
    moved = inputs + points.coefficients @ weights
    log_loss, example_weights = log_loss_weights(points.margins, loss)
    pushes = example_weights[:, None] * points.multipliers
    activations = np.maximum(moved @ weights.T + bias, 0.0)
    return LossGradient(
        log_loss,
        points.margins,
        example_weights,
        weights=pushes.T @ moved,
        bias=pushes.sum(0) if train_bias else np.zeros_like(bias),
        output=activations.T @ (example_weights * labels)
        if train_output
        else np.zeros_like(output),
    )


def adversarial_gradient_flow(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    targets: FloatArray,
    target_order: IntArray,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    radius: float,
    descent_steps: int,
    method: FlowMethod,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
) -> AdversarialFlowOutcome:
    """Follows -grad log L of adversarial examples, as `gradient_flow` that of examples."""
    m, d = weights.shape
    start = time.perf_counter()

    def unpack(theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        return theta[: m * d].reshape(m, d), theta[m * d : -m], theta[-m:]

    def evaluate(theta: FloatArray) -> LossGradient:
        return adversarial_gradient(
            *unpack(theta),
            inputs,
            labels,
            targets,
            target_order,
            loss,
            train_output,
            train_bias,
            radius,
            descent_steps,
            1,
        )

    def unreachable(theta: FloatArray) -> IntArray:
        W, b, v = unpack(theta)
        helpful = labels[:, None] * v > 0
        return np.flatnonzero(~((inputs @ W.T + b > 0) & helpful).any(1))

    ending, theta = follow(
        Model(evaluate, unreachable, comes_to_rest=margin_loss(loss).has_minimizer),
        np.concatenate([weights.ravel(), bias, output]),
        labels,
        Options(log_inverse_loss, rtol, max_evaluations, method),
        max_seconds,
        progress,
    )
    W, b, v = unpack(theta)
    points = adversarial_points(
        W, b, v, inputs, labels, targets, target_order, radius, descent_steps, 0.0, 1
    )
    seconds = time.perf_counter() - start
    return AdversarialFlowOutcome(
        **vars(ending),
        seconds=seconds,
        weights=W,
        bias=b,
        output=v,
        coefficients=points.coefficients,
    )
