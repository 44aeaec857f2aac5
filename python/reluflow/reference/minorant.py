"""Convex quadratics below ||u||^2 + eta N(u): lower bounds on the smallest perturbation.

docs/theory.md, sections 7.5 and 7.6. Rounding errors are met with fixed relative margins here; the
compiled kernels count them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reluflow._validation import FloatArray
from reluflow.reference.convex_pieces import PointProblem, Projection
from reluflow.reference.perturbation_bounds import Intervals, interval_margin
from reluflow.reference.proof_trail import BOUND, ELLIPSOID, ProofTrail

_MARGIN = 1e-13
_CONVEXITY_MARGIN = 1e-9
_LARGEST_CURVATURE = 1 - 1e-6
_ROUNDS = 25
_POWER_ITERATIONS = 30
_DAMPINGS = 12
# Largest eigenvalues of sum k_j row_j row_j^T that are tried.
_EIGENVALUES = (0.98, 0.95, 0.88)


@dataclass(frozen=True)
class ShorMultipliers:
    """eta >= 0, 0 <= s_j <= eta v_j at supporting and k_j > 0 at undecided opposing neurons."""

    eta: float
    s: FloatArray
    k: FloatArray


def closed_form_multipliers(
    problem: PointProblem, intervals: Intervals, projection: Projection
) -> ShorMultipliers:
    """k_j = w_j / (4 |z_j|), w_j = eta |v_j|: the minorant touches at the projection."""
    sigma, v = projection.multipliers, problem.v
    eta = 2 * projection.scale
    s = np.where(problem.supporting, eta * sigma, 0.0)
    if problem.constant == 0 and not sigma[problem.opposing].any():
        # Where the point dies on kinks alone, N takes part no more than they need.
        eta *= float((sigma / v)[problem.supporting].max())
    w = eta * np.abs(v)
    z = problem.a - projection.scale * (problem.rows @ (problem.rows.T @ sigma))
    distance = np.maximum(np.abs(z), w * problem.norms**2 / (4 * _LARGEST_CURVATURE))
    k = np.where(problem.opposing & intervals.undecided, w / (4 * distance), 0.0)
    return ShorMultipliers(eta, s, k)


class Minorant:
    """q(u) = ||u||^2 + eta constant + s . z - sum_active w z - sum_undecided (k z^2 + w z / 2 +
    w^2 / (16 k)), with w = eta |v|, expanded around ``centre``.
    """

    def __init__(
        self,
        problem: PointProblem,
        intervals: Intervals,
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
        terms[curved] -= (k * z**2 + w * z / 2)[curved] + w[curved] ** 2 / (16 * k[curved])
        slopes = multipliers.s - np.where(linear, w, 0.0) - np.where(curved, 2 * k * z + w / 2, 0)
        gradient = 2 * centre + problem.rows.T @ slopes
        scaled = problem.rows[curved] * np.sqrt(k[curved])[:, None]
        hessian = (1 - _CONVEXITY_MARGIN) * np.eye(len(centre)) - scaled.T @ scaled
        self.problem, self.curved, self.z = problem, curved, z
        self.minimum, self.drop = 0.0, 0.0
        gap = k * (np.abs(z) - np.divide(w, 4 * k, out=np.zeros_like(w), where=k > 0)) ** 2
        self.widest_gap = int(np.argmax(np.where(curved, gap, -1.0))) if curved.any() else None
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


def closed_form_bound(
    problem: PointProblem,
    intervals: Intervals,
    projection: Projection,
    slack: float,
    known: float,
    trail: ProofTrail,
) -> float:
    """What the closed-form multipliers of a projection prove."""
    multipliers = closed_form_multipliers(problem, intervals, projection)
    centre = _centre(problem, projection)
    bound = Minorant(problem, intervals, multipliers, centre, slack).lower_bound
    if bound > known:
        trail.quadratic(BOUND, multipliers.eta, multipliers.s, multipliers.k)
    return bound


def dual_bound(
    problem: PointProblem,
    projection: Projection,
    radius: float,
    enough: float,
    slack: float,
    intervals: Intervals,
    trail: ProofTrail,
) -> tuple[float, int | None]:
    """Lower bound from minorants around a projection, and the neuron to branch on.

    The closed form, its curvatures lowered as far as convexity asks; each minorant cuts
    ``intervals`` down, which decides signs and makes the next one tighter.
    """
    centre = _centre(problem, projection)
    best: float = 0.0
    widest: int | None = None
    for _ in range(_ROUNDS):
        if (intervals.low > intervals.high).any():
            return radius, None
        closed_form = closed_form_multipliers(problem, intervals, projection)
        exact = Minorant(problem, intervals, closed_form, centre, slack)
        if exact.lower_bound > best:
            trail.quadratic(BOUND, closed_form.eta, closed_form.s, closed_form.k)
        best, widest = max(best, exact.lower_bound), exact.widest_gap
        if best >= enough or widest is None:
            break
        damped = _damp(problem, intervals, closed_form)
        if damped is None:
            break
        minorant = Minorant(problem, intervals, *damped, slack)
        if minorant.factor is not None:
            trail.quadratic(ELLIPSOID, damped[0].eta, damped[0].s, damped[0].k)
        best, widest = max(best, minorant.lower_bound), minorant.widest_gap
        if best >= enough:
            break
        before = (problem.opposing & intervals.undecided).sum()
        minorant.cut(radius, intervals)
        if (problem.opposing & intervals.undecided).sum() == before:
            break
    return best, widest


def _centre(problem: PointProblem, projection: Projection) -> FloatArray:
    return np.asarray(-projection.scale * (problem.rows.T @ projection.multipliers))


def _damp(
    problem: PointProblem, intervals: Intervals, closed_form: ShorMultipliers
) -> tuple[ShorMultipliers, FloatArray] | None:
    """Multipliers with a convex minorant, the best of a few, and where its minimum is."""
    best, chosen = 0.0, None
    k, eigenvector = closed_form.k, np.ones(int((closed_form.k > 0).sum()))
    for eigenvalue in _EIGENVALUES:
        k, eigenvector = _lower(problem, closed_form, k, eigenvector, eigenvalue)
        found = _best_share(problem, intervals, replace(closed_form, k=k))
        if found is not None and found[0] > best:
            best, chosen = found[0], found[1:]
    return chosen


def _lower(
    problem: PointProblem,
    closed_form: ShorMultipliers,
    k: FloatArray,
    eigenvector: FloatArray,
    target: float,
) -> tuple[FloatArray, FloatArray]:
    """Lowers curvatures until the largest eigenvalue x of sum k_j row_j row_j^T is ``target``.

    The factor exp(-e_j) costs the bound about w_j^2/(4 k_j) e_j^2 / 4 and lowers the eigenvalue by
    the share sum_j x_j^2 e_j: e_j in proportion to x_j^2 over that price is the cheapest.
    """
    curved, k, x = closed_form.k > 0, k.copy(), eigenvector
    price = (closed_form.eta * problem.v[curved]) ** 2 / (4 * closed_form.k[curved])
    for damping in range(_DAMPINGS + 1):
        scaled = problem.rows[curved] * np.sqrt(k[curved])[:, None]
        largest = 0.0
        for _ in range(_POWER_ITERATIONS):
            image = scaled @ (scaled.T @ (x / np.linalg.norm(x)))
            largest = float(np.linalg.norm(image))
            if largest == 0:
                break
            x = image / largest
        if largest <= target:
            break
        if damping == _DAMPINGS:
            k[curved] *= target / largest
            break
        direction = x**2 / price
        k[curved] *= np.exp(-(1 - target / largest) / (x**2 @ direction) * direction)
    return k, x


def _best_share(
    problem: PointProblem, intervals: Intervals, multipliers: ShorMultipliers
) -> tuple[float, ShorMultipliers, FloatArray] | None:
    """With t eta and t s the bound is a concave parabola in t: its top, and the minimum there."""
    a, k = problem.a, multipliers.k
    w = multipliers.eta * np.abs(problem.v)
    curved, scaled = k > 0, problem.rows * np.sqrt(k)[:, None]
    hessian = np.eye(problem.rows.shape[1]) - scaled.T @ scaled
    try:
        np.linalg.cholesky(hessian)
    except np.linalg.LinAlgError:
        return None
    weights = multipliers.s - np.where(problem.opposing & (intervals.high > 0), w, 0.0)
    weights[curved] += w[curved] / 2
    fixed, moving = problem.rows.T @ np.where(curved, -2 * k * a, 0.0), problem.rows.T @ weights
    solved = np.linalg.solve(hessian, np.stack([fixed, moving], axis=1))
    slope = multipliers.eta * problem.constant + weights @ a - fixed @ solved[:, 1] / 2
    bend = moving @ solved[:, 1] / 4 + (w[curved] ** 2 / (16 * k[curved])).sum()
    t = max(0.0, float(slope / (2 * bend))) if bend > 0 else 0.0
    value = -(k * a**2)[curved].sum() - fixed @ solved[:, 0] / 4 + t * (slope - t * bend)
    scaled_down = ShorMultipliers(t * multipliers.eta, t * multipliers.s, k)
    return float(value), scaled_down, -(solved @ np.array([1.0, t])) / 2
