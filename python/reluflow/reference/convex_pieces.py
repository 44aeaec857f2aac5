"""Convex pieces of a network, and the point of one piece's flipped set that is nearest to 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from reluflow._validation import BoolArray, FloatArray

_FEASIBLE = 1e-13
_MOST_CUTS = 2000


@dataclass(frozen=True)
class PointProblem:
    """The smallest u with N(u) = constant + sum_j v_j relu(a_j + rows_j . u) <= 0."""

    rows: FloatArray
    a: FloatArray
    v: FloatArray
    constant: float

    @property
    def supporting(self) -> BoolArray:
        """Which neurons have v > 0."""
        return self.v > 0

    @property
    def opposing(self) -> BoolArray:
        """Which neurons have v < 0."""
        return self.v < 0

    @property
    def norms(self) -> FloatArray:
        """Of the rows."""
        norms: FloatArray = np.linalg.norm(self.rows, axis=1)
        return norms


@dataclass(frozen=True)
class ConvexPiece:
    """constant + sum_supporting v_j relu(z_j) + sum_opposing slopes_j z_j."""

    slopes: FloatArray
    constant: float


def piece_of(problem: PointProblem, subset: BoolArray) -> ConvexPiece:
    """The piece on which the opposing neurons of ``subset`` count as active."""
    return ConvexPiece(np.where(problem.opposing & subset, problem.v, 0.0), problem.constant)


@dataclass(frozen=True)
class Projection:
    """The point of {piece <= 0} nearest to 0 and the multipliers sigma that prove it.

    No point is nearer than (sigma . a + constant) / ||rows^T sigma||; point = -scale rows^T sigma.
    """

    distance: float
    lower_bound: float
    multipliers: FloatArray
    scale: float
    z: FloatArray

    @property
    def coefficients(self) -> FloatArray:
        """c with point = rows^T c; zero where there is no point."""
        found = np.isfinite(self.distance)
        return -self.scale * self.multipliers if found else np.zeros_like(self.multipliers)


def project(problem: PointProblem, piece: ConvexPiece) -> Projection:
    """Cutting planes (Kelley 1960): the piece is the maximum of planes, one for each choice of
    sigma_j in {0, v_j} at supporting neurons; collect those that the nearest point so far violates.
    """
    a, supporting = problem.a, problem.supporting
    sigma = piece.slopes + np.where(supporting & (a > 0), problem.v, 0.0)
    if piece.constant + sigma @ a <= 0:
        return Projection(0.0, 0.0, sigma, 0.0, a)
    cuts = [sigma]
    while len(cuts) <= _MOST_CUTS:
        multipliers, scale = _nearest(problem, piece, np.array(cuts))
        normal = problem.rows.T @ multipliers
        distance = scale * float(np.linalg.norm(normal))
        if np.isinf(scale):
            return Projection(np.inf, np.inf, multipliers, np.inf, a)
        slopes = -scale * (problem.rows @ normal)
        z = a + slopes
        sigma = piece.slopes + np.where(supporting & (z > 0), problem.v, 0.0)
        terms = np.where(supporting, problem.v, np.abs(piece.slopes))
        magnitude = abs(piece.constant) + terms @ (np.abs(a) + np.abs(slopes))
        if piece.constant + sigma @ z <= _FEASIBLE * magnitude:
            return Projection(distance, distance, multipliers, scale, z)
        cuts.append(sigma)
    return Projection(np.inf, distance, multipliers, scale, z)


def _nearest(
    problem: PointProblem, piece: ConvexPiece, cuts: FloatArray
) -> tuple[FloatArray, float]:
    """Least-distance programming (Lawson & Hanson 1974, chapter 23): the u nearest to 0 with
    (sigma . a + constant) + (rows^T sigma) . u <= 0 for every cut, by non-negative least squares.

    Returns the multipliers of the one plane through that u, and infinity when there is no such u.
    """
    normals, offsets = cuts @ problem.rows, cuts @ problem.a + piece.constant
    lengths = np.linalg.norm(normals, axis=1)
    rounding = 8 * np.finfo(float).eps * len(problem.a) * (np.abs(cuts) @ problem.norms)
    if ((lengths <= rounding) & (offsets > 0)).any():
        return cuts[int(np.argmax((lengths <= rounding) & (offsets > 0)))], np.inf
    weights, empty = np.ones(1), False
    unit = float((offsets / lengths).max())
    if len(cuts) > 1:
        # In units of the distance, which grows with every cut, found by repetition.
        for _ in range(4):
            system = np.vstack([-normals.T / lengths, offsets / lengths / unit])
            target = np.zeros(len(system))
            target[-1] = 1.0
            weights, residual = nnls(system, target, maxiter=100 * len(cuts))
            empty = bool(residual < 1e-7)
            if empty:
                break
            found = float(np.sqrt(max(1 / residual**2 - 1, 0.0)))
            unit *= max(found, 1e-3)
            if 0.5 < found < 2:
                break
    multipliers = (weights / lengths) @ cuts / (weights / lengths).sum()
    if empty:
        return multipliers, np.inf
    normal = problem.rows.T @ multipliers
    return multipliers, float((piece.constant + multipliers @ problem.a) / (normal @ normal))
