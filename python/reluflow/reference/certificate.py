"""Lower bounds from minorants around a projection. docs/theory.md, sections 7.5 and 7.6."""

from __future__ import annotations

import numpy as np

from reluflow._validation import FloatArray
from reluflow.reference.convex_pieces import PointProblem, Projection
from reluflow.reference.minorant import (
    Minorant,
    ShorMultipliers,
    closed_form_multipliers,
    everywhere,
)
from reluflow.reference.perturbation_bounds import Intervals
from reluflow.reference.proof_trail import BOUND, ELLIPSOID, ProofTrail
from reluflow.reference.shor_ascent import ShorAscent

_ROUNDS, _PATIENCE = 12, 2
_FIRST_LEVEL, _LEVEL_FACTOR, _LAST_LEVEL = 10.0, 0.7, 3.0
_STEPS, _FIRST_STEPS = 2, 12
_WORTHWHILE_GAIN = 0.05


def closed_form_bound(
    problem: PointProblem,
    intervals: Intervals,
    projection: Projection,
    slack: float,
    known: float,
    trail: ProofTrail,
) -> float:
    """What the closed-form multipliers of a projection prove."""
    unbounded = everywhere(intervals)
    multipliers = closed_form_multipliers(problem, intervals, unbounded, projection)
    centre = _centre(problem, projection)
    minorant = Minorant(problem, intervals, unbounded, multipliers, centre, slack)
    if minorant.lower_bound > known:
        trail.quadratic(BOUND, multipliers.eta, multipliers.s, multipliers.k, minorant.slopes)
    return minorant.lower_bound


def dual_bound(
    problem: PointProblem,
    projection: Projection,
    start: ShorMultipliers | None,
    radius: float,
    enough: float,
    slack: float,
    intervals: Intervals,
    trail: ProofTrail,
) -> tuple[float, int | None, ShorMultipliers | None]:
    """Lower bound, the neuron to branch on, and multipliers to start from nearby.

    The closed form around a projection, and what an ascent makes of it or of ``start``; each
    minorant cuts ``intervals`` down, which makes the next one tighter.
    """
    centre = _centre(problem, projection)
    z = problem.a + problem.rows @ centre
    best: float = 0.0
    idle, level = 0, _FIRST_LEVEL
    widest: int | None = None

    def apply(minorant: Minorant, multipliers: ShorMultipliers) -> None:
        nonlocal best, widest
        widest = minorant.widest_gap
        if minorant.factor is not None:
            best = max(best, minorant.lower_bound)
            m = multipliers
            trail.quadratic(ELLIPSOID, m.eta, m.s, m.k, minorant.slopes)
            minorant.cut(radius, intervals)

    for _ in range(_ROUNDS):
        if (intervals.low > intervals.high).any():
            return radius, None, start
        before = best
        closed_form = closed_form_multipliers(problem, intervals, intervals, projection)
        exact = Minorant(problem, intervals, intervals, closed_form, centre, slack)
        decided = exact.widest_gap is None
        if decided or exact.lower_bound > before:
            apply(exact, closed_form)
        if decided or best >= enough:
            break
        ascent = _started(problem, intervals, closed_form, start, z)
        ascent.climb(level, radius**2, enough**2, _FIRST_STEPS if start is None else _STEPS)
        if not ascent.value > 0:
            break
        start = ascent.multipliers
        minorant = Minorant(problem, intervals, intervals, start, ascent.centre, slack)
        apply(minorant, start)
        idle = 0 if best - before >= _WORTHWHILE_GAIN * (radius - before) else idle + 1
        level = max(_LAST_LEVEL, _LEVEL_FACTOR * level)
        if best >= enough or idle == _PATIENCE:
            break
    return best, widest, start


def _centre(problem: PointProblem, projection: Projection) -> FloatArray:
    return np.asarray(-projection.scale * (problem.rows.T @ projection.multipliers))


def _started(
    problem: PointProblem,
    intervals: Intervals,
    closed_form: ShorMultipliers,
    other: ShorMultipliers | None,
    z: FloatArray,
) -> ShorAscent:
    """At the better of two starts."""
    ascent = ShorAscent(problem, intervals, closed_form, z)
    if other is None:
        return ascent
    second = ShorAscent(problem, intervals, other, z)
    return second if second.value > ascent.value else ascent
