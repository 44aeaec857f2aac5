"""Convex quadratics below ||u||^2 + eta N(u): lower bounds on the smallest perturbation.

docs/theory.md, sections 7.5 and 7.6. Rounding errors are met with fixed relative margins here; the
compiled kernels count them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray
from reluflow.reference.convex_pieces import PointProblem, Projection
from reluflow.reference.parabola import Parabolas, touching_curvature
from reluflow.reference.perturbation_bounds import Intervals, interval_margin

_MARGIN = 1e-13
_CONVEXITY_MARGIN = 1e-9
_LARGEST_CURVATURE = 1 - 1e-6


@dataclass(frozen=True)
class ShorMultipliers:
    """eta >= 0, 0 <= s_j <= eta v_j at supporting and k_j > 0 at undecided opposing neurons."""

    eta: float
    s: FloatArray
    k: FloatArray


def everywhere(intervals: Intervals) -> Intervals:
    """Intervals for parabolas that hold for all z."""
    return Intervals(np.full_like(intervals.low, -np.inf), np.full_like(intervals.high, np.inf))


def closed_form_multipliers(
    problem: PointProblem, intervals: Intervals, majorants: Intervals, projection: Projection
) -> ShorMultipliers:
    """The parabolas touch at the projection, those that hold everywhere with k_j = w_j / (4 |z_j|),
    w_j = eta |v_j|. ``majorants`` are the intervals on which they hold.
    """
    sigma, v = projection.multipliers, problem.v
    eta = 2 * projection.scale
    s = np.where(problem.supporting, eta * sigma, 0.0)
    if problem.constant == 0 and not sigma[problem.opposing].any():
        # Where the point dies on kinks alone, N takes part no more than they need.
        eta *= float((sigma / v)[problem.supporting].max())
    z = problem.a - projection.scale * (problem.rows @ (problem.rows.T @ sigma))
    curved = problem.opposing & intervals.undecided
    k = np.zeros_like(v)
    touching = touching_curvature(
        -eta * v[curved], z[curved], majorants.low[curved], majorants.high[curved]
    )
    k[curved] = np.minimum(touching, _LARGEST_CURVATURE / problem.norms[curved] ** 2)
    return ShorMultipliers(eta, s, k)


class Minorant:
    """q(u) = ||u||^2 + eta constant + s . z - sum_active w z - sum_undecided (k z^2 + linear z +
    fixed), with w = eta |v| and the parabola above w relu on ``majorants``, around ``centre``.
    """

    def __init__(
        self,
        problem: PointProblem,
        intervals: Intervals,
        majorants: Intervals,
        multipliers: ShorMultipliers,
        centre: FloatArray,
        slack: float,
    ) -> None:
        eta, k = multipliers.eta, multipliers.k
        w = eta * np.abs(problem.v)
        z = problem.a + problem.rows @ centre
        curved = problem.opposing & intervals.undecided
        linear = problem.opposing & (intervals.low >= 0) & (intervals.high > 0)
        terms = multipliers.s * z - np.where(linear, w * z, 0.0)
        q = Parabolas(k[curved], w[curved], majorants.low[curved], majorants.high[curved])
        above = q.k * z[curved] ** 2 + q.linear * z[curved] + q.fixed
        terms[curved] -= above
        self.slopes = np.zeros_like(k)
        self.slopes[curved] = q.linear
        slopes = multipliers.s - np.where(linear, w, 0.0)
        slopes[curved] -= 2 * q.k * z[curved] + q.linear
        gradient = 2 * centre + problem.rows.T @ slopes
        scaled = problem.rows[curved] * np.sqrt(k[curved])[:, None]
        hessian = (1 - _CONVEXITY_MARGIN) * np.eye(len(centre)) - scaled.T @ scaled
        self.problem, self.curved, self.z = problem, curved, z
        self.minimum, self.drop = 0.0, 0.0
        gap = above - w[curved] * np.maximum(z[curved], 0)
        self.widest_gap = int(np.flatnonzero(curved)[np.argmax(gap)]) if curved.any() else None
        self.factor: FloatArray | None = None
        try:
            factor = np.asarray(np.linalg.cholesky(hessian), dtype=np.float64)
        except np.linalg.LinAlgError:
            return
        self.factor = factor
        self.drop = float(np.linalg.norm(np.linalg.solve(factor, gradient))) ** 2 / 4
        value = centre @ centre + eta * (problem.constant - slack) + terms.sum() - self.drop
        self.minimum = float(value * (1 - _MARGIN))

    @property
    def lower_bound(self) -> float:
        """On the radius; 0 where q is not convex."""
        return float(np.sqrt(max(0.0, self.minimum)))

    def cut(self, radius: float, intervals: Intervals) -> None:
        """Intersects with the intervals of the ellipsoid {q <= radius^2}."""
        if self.factor is None:
            return
        room = np.sqrt(max(0.0, radius**2 - self.minimum)) + np.sqrt(self.drop)
        reach = np.linalg.norm(
            np.linalg.solve(self.factor, self.problem.rows[self.curved].T), axis=0
        )
        width = interval_margin(self.problem, radius)
        width[self.curved] += room * reach * (1 + 1e-12)
        low, high = self.z - width, self.z + width
        intervals.low[self.curved] = np.maximum(intervals.low, low)[self.curved]
        intervals.high[self.curved] = np.minimum(intervals.high, high)[self.curved]
