"""Lower bounds on the smallest perturbation: neuron by neuron, and by a convex relaxation.

Rounding errors are met with one fixed relative margin here; the compiled kernels count them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import BoolArray, FloatArray
from reluflow.reference.convex_pieces import (
    ConvexPiece,
    PointProblem,
    Projection,
    project,
)
from reluflow.reference.proof_trail import ProofTrail
from reluflow.reference.ray_crossing import first_crossing

_MARGIN = 1e-13
# So that whoever follows the proof with another arithmetic finds the same signs decided.
_INTERVAL_MARGIN = 1e-9
_WORTHWHILE = 0.05


@dataclass
class Intervals:
    """low <= z <= high at every u that flips the point and is shorter than some radius."""

    low: FloatArray
    high: FloatArray

    @property
    def undecided(self) -> BoolArray:
        """Which neurons can have either sign."""
        return (self.low < 0) & (self.high > 0)

    def copy(self) -> Intervals:
        """Intervals that change independently of these."""
        return Intervals(self.low.copy(), self.high.copy())


def neuronwise_lower_bound(problem: PointProblem, slack: float) -> float:
    """Root in t of constant + sum_j v_j relu(a_j -+ t ||row_j||), signs against the point."""
    slopes = np.where(problem.supporting, -problem.norms, problem.norms)
    return first_crossing(problem.a, slopes, problem.v, problem.constant - slack, False) * (
        1 - _MARGIN
    )


def interval_margin(problem: PointProblem, radius: float) -> FloatArray:
    """How much wider the intervals are made than they need to be."""
    return np.asarray(_INTERVAL_MARGIN * (np.abs(problem.a) + problem.norms * radius))


def ball_intervals(problem: PointProblem, radius: float) -> Intervals:
    """The intervals of the ball of that radius."""
    reach = problem.norms * radius + interval_margin(problem, radius)
    return Intervals(problem.a - reach, problem.a + reach)


def chord_piece(problem: PointProblem, intervals: Intervals) -> ConvexPiece:
    """Opposing neurons: -relu lies above minus its chord over the interval of z."""
    low, high = intervals.low, intervals.high
    share = np.where(low >= 0, 1.0, 0.0)
    chord = intervals.undecided
    share[chord] = high[chord] / (high - low)[chord]
    share[high <= 0] = 0.0
    slopes = np.where(problem.opposing, problem.v * share, 0.0)
    chord &= problem.opposing
    return ConvexPiece(slopes, problem.constant - float(slopes[chord] @ low[chord]))


def tighten(
    problem: PointProblem,
    radius: float,
    enough: float,
    slack: float,
    max_rounds: int,
    intervals: Intervals,
    trail: ProofTrail,
) -> tuple[float, Projection | None]:
    """Bounds with the chord piece, cuts ``intervals`` down to the cap that its plane leaves of the
    ball, and repeats while that helps. docs/theory.md, section 7.4.
    """
    best, projection = 0.0, None
    for _ in range(max_rounds):
        if (intervals.low > intervals.high).any():
            return radius, projection
        piece = chord_piece(problem, intervals)
        projection = project(problem, piece)
        depth = min(radius, plane_bound(problem, piece, projection.multipliers, slack))
        gain, best = depth - best, max(best, depth)
        if depth > 0:
            trail.plane(projection.multipliers)
        if best >= enough or depth <= 0:
            break
        shrinkage = _cut_to_cap(problem, projection, radius, depth, intervals)
        if shrinkage < _WORTHWHILE and gain < _WORTHWHILE * depth:
            break
    return best, projection


def plane_bound(
    problem: PointProblem, piece: ConvexPiece, multipliers: FloatArray, slack: float
) -> float:
    """Distance of 0 from the plane of ``multipliers``, for outputs off by up to ``slack``."""
    magnitude = abs(piece.constant) + np.abs(multipliers) @ np.abs(problem.a)
    offset = float(piece.constant + multipliers @ problem.a - slack - _MARGIN * magnitude)
    if offset <= 0:
        return 0.0
    length = float(np.linalg.norm(problem.rows.T @ multipliers))
    rounding = _MARGIN * float(np.abs(multipliers) @ problem.norms)
    return offset / (length + rounding)


def _cut_to_cap(
    problem: PointProblem,
    projection: Projection,
    radius: float,
    depth: float,
    intervals: Intervals,
) -> float:
    normal = problem.rows.T @ projection.multipliers
    along = -problem.rows @ normal / np.linalg.norm(normal)
    undecided, before = intervals.undecided, intervals.high - intervals.low
    margin = interval_margin(problem, radius)
    for j in np.flatnonzero(undecided):
        top = _largest_in_cap(along[j], problem.norms[j], radius, depth)
        bottom = _largest_in_cap(-along[j], problem.norms[j], radius, depth)
        intervals.high[j] = min(intervals.high[j], problem.a[j] + top + margin[j])
        intervals.low[j] = max(intervals.low[j], problem.a[j] - bottom - margin[j])
    counted = undecided & problem.opposing
    shrinkage = 1 - (intervals.high - intervals.low)[counted] / before[counted]
    return float(shrinkage.max(initial=0.0))


def _largest_in_cap(along: float, norm: float, radius: float, depth: float) -> float:
    """Largest l . u over ||u|| <= radius, direction . u >= depth; along = direction . l."""
    if radius * along >= depth * norm:
        return radius * norm
    across = np.sqrt(max(0.0, norm**2 - along**2) + _MARGIN * norm**2)
    return float(along * depth + across * np.sqrt(max(0.0, radius**2 - depth**2)))
