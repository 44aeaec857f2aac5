"""Design points: the local minima of |g| on an error region (docs/theory.md, section 8.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, logsumexp

from reluflow._validation import BoolArray, FloatArray
from reluflow.generalization._hidden import Region
from reluflow.generalization._settings import Settings

# Points that lie so much further away, in (distance^2 - smallest^2)/2, weigh too little.
_NEGLIGIBLE = 30.0
_MOST_POINTS = 24
# Points nearer to each other than this, in standard deviations, are one.
_SAME = 1.5
_RANDOM_RAYS = 24
_STEPS = np.array([1.0, 1.25, 1.6, 2.0, 3.0, 5.0])
_LONGEST_DESCENT = 30
_MOST_PIECES = 300
_PAIRED = 4
# Of the function, so that "< 0" reads "+ margin <= 0".
_STRICTNESS = 1e-9
_RTOL = 1e-6
_NODES = 20
# A pre-activation this small, relative to its terms, leaves open on which side it is.
_KINK = 1e-9


@dataclass(frozen=True, eq=False)
class DesignPoints:
    """Local minima of |g| on a region, the nearest first.

    Attributes
    ----------
    points : ndarray, shape (c, r)
    multipliers : ndarray, shape (c, R)
        Each point is -factor^T of these.
    lower_bound : float
        No point of the region is nearer; proved.
    empty : bool
        Whether the region is proved to be empty.
    """

    points: FloatArray
    multipliers: FloatArray
    lower_bound: float
    empty: bool

    @property
    def distances(self) -> FloatArray:
        """Norms of the points, shape (c,)."""
        return np.asarray(np.linalg.norm(self.points, axis=1))

    @property
    def log_tails(self) -> FloatArray:
        """log Phi(-distance), shape (c,): what a half-space behind each point would hold."""
        return np.asarray(log_ndtr(-self.distances))

    @property
    def log_first_order(self) -> float:
        """FORM with several points: the sum over the half-spaces (Hasofer & Lind 1974)."""
        return min(0.0, float(logsumexp(self.log_tails))) if len(self.points) else -math.inf

    def merged(self, other: DesignPoints) -> DesignPoints:
        """All points of both, each once."""
        points = np.vstack([self.points, other.points])
        multipliers = np.vstack([self.multipliers, other.multipliers])
        return _kept(points, multipliers, max(self.lower_bound, other.lower_bound))


def design_points(region: Region, targets: FloatArray, settings: Settings) -> DesignPoints:
    """Design points of a region from many starts.

    The nearest one is what `min_perturbation` finds, with its proof; the others come from descents
    (section 7.2) that start at its piece, at pieces that are active at ``targets`` (p, R), and
    where random rays have entered the region.
    """
    nearest = _nearest(region, targets, settings)
    if nearest.empty:
        return nearest
    starts = [_starting_pieces(region, targets), _pieces_on_rays(region, nearest, 0)]
    if len(nearest.points):
        starts.insert(0, _active(region, nearest.points))
    return nearest.merged(_descend(region, np.vstack(starts), settings))


def search_anew(region: Region, known: DesignPoints, settings: Settings) -> DesignPoints:
    """``known``, and what other random rays lead to."""
    found = _descend(region, _pieces_on_rays(region, known, 1), settings)
    return known.merged(found)


def _nearest(region: Region, targets: FloatArray, settings: Settings) -> DesignPoints:
    norms = np.linalg.norm(region.factor, axis=1)
    outcome = settings.kernel.min_perturbations(
        region.factor,
        region.output,
        region.constant,
        float(np.abs(region.output) @ norms) * (1 + 1e-9),
        region.offset[None],
        np.ones(1),
        np.zeros(1),
        targets,
        np.arange(len(targets))[None],
        region.strict,
        _RTOL,
        _NODES,
        settings.seconds_left(),
        settings.num_threads,
        False,
    )
    if outcome.stopped.name == "interrupted":
        raise KeyboardInterrupt
    radius, lower_bound = float(outcome.radius[0]), float(outcome.lower_bound[0])
    multipliers = -outcome.coefficients
    empty = math.isinf(lower_bound)
    found = math.isfinite(radius) and outcome.coefficients.any()
    points = outcome.coefficients @ region.factor
    return DesignPoints(
        points if found else points[:0],
        multipliers if found else multipliers[:0],
        lower_bound,
        empty,
    )


def _active(region: Region, g: FloatArray) -> BoolArray:
    """Opposing neurons that are active at the rows of g."""
    return np.asarray((region.offset + g @ region.factor.T > 0) & (region.output < 0))


def _starting_pieces(region: Region, targets: FloatArray) -> BoolArray:
    """None, all, those active at each target, at pairs, and at the first two, three, ..."""
    opposing = region.output < 0
    active = (targets > 0) & opposing
    pairs = [active[i] | active[j] for i in range(min(_PAIRED, len(active))) for j in range(i)]
    unions = np.logical_or.accumulate(active, axis=0)
    return np.vstack([np.zeros_like(opposing), opposing, active, *pairs, unions])


def _pieces_on_rays(region: Region, known: DesignPoints, stream: int) -> BoolArray:
    """Pieces that are active where random rays, of either sign, are inside the region."""
    rng = np.random.default_rng([stream, region.rank])
    directions = rng.standard_normal((_RANDOM_RAYS, region.rank))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = float(known.distances.min()) if len(known.points) else math.sqrt(region.rank)
    rays = np.vstack([directions, -directions])
    points = (_STEPS[:, None, None] * max(reach, 1.0) * rays).reshape(-1, region.rank)
    return _active(region, points[region.contains(points)])


def _descend(region: Region, pieces: BoolArray, settings: Settings) -> DesignPoints:
    """Projects onto convex pieces, and on to the pieces active there, until nothing moves."""
    descent = _Descent(region, settings)
    for _ in range(_LONGEST_DESCENT):
        pieces = descent.unvisited(pieces)
        if len(pieces) == 0 or settings.seconds_left() <= 0:
            break
        pieces = descent.step(pieces)
    return descent.minima()


class _Descent:
    """Pieces that were projected onto, and the points at which descents came to rest."""

    def __init__(self, region: Region, settings: Settings) -> None:
        self.region, self.settings = region, settings
        self.opposing = region.output < 0
        self.norms = np.linalg.norm(region.factor, axis=1)
        scale = abs(region.constant) + float(np.abs(region.output) @ np.abs(region.offset))
        self.margin = _STRICTNESS * scale if region.strict else 0.0
        self.distances: dict[bytes, float] = {}
        # Point, multipliers, and the pieces beside it that must not come nearer.
        self.rests: list[tuple[FloatArray, FloatArray, list[bytes]]] = []

    def unvisited(self, pieces: BoolArray) -> BoolArray:
        """Each piece once, if there is room for it."""
        new = []
        for piece in pieces:
            key = _key(piece)
            if key not in self.distances and len(self.distances) < _MOST_PIECES:
                self.distances[key] = math.inf
                new.append(piece)
        return np.array(new, dtype=np.bool_).reshape(len(new), len(self.opposing))

    def step(self, pieces: BoolArray) -> BoolArray:
        """Projects onto the pieces; returns those to go on with."""
        g, coefficients, pieces = self._projected(pieces)
        z = self.region.offset + g @ self.region.factor.T
        size = np.abs(self.region.offset) + np.linalg.norm(g, axis=1)[:, None] * self.norms
        at_kink = (np.abs(z) <= _KINK * size) & self.opposing
        active = (z > 0) & self.opposing
        following = [active & ~at_kink, active | at_kink]
        still = (((pieces ^ active) & ~at_kink) == 0).all(axis=1)
        for i in np.flatnonzero(still):
            beside = [_key(each[i]) for each in following]
            self.rests.append((g[i], -coefficients[i], beside))
        return np.vstack(following)

    def _projected(self, pieces: BoolArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        region = self.region
        projections = self.settings.kernel.subset_projections(
            region.factor,
            region.output,
            region.constant + self.margin,
            np.tile(region.offset, (len(pieces), 1)),
            np.ones(len(pieces)),
            pieces.astype(np.float64),
            self.settings.num_threads,
        )
        for piece, distance in zip(pieces, projections.distance, strict=True):
            self.distances[_key(piece)] = float(distance)
        finite = np.isfinite(projections.distance)
        coefficients = projections.coefficients[finite]
        return coefficients @ region.factor, coefficients, pieces[finite]

    def minima(self) -> DesignPoints:
        """Points at rest from which no piece beside them leads nearer."""
        points, multipliers = [], []
        for point, multiplier, beside in self.rests:
            nearest = min(self.distances.get(key, math.inf) for key in beside)
            if nearest >= float(np.linalg.norm(point)) * (1 - _KINK):
                points.append(point)
                multipliers.append(multiplier)
        return _kept(
            np.array(points).reshape(len(points), self.region.rank),
            np.array(multipliers).reshape(len(points), len(self.opposing)),
            0.0,
        )


def _key(piece: BoolArray) -> bytes:
    return np.packbits(piece).tobytes()


def _kept(points: FloatArray, multipliers: FloatArray, lower_bound: float) -> DesignPoints:
    """The nearest points, each once, without those that are too far away to matter."""
    distances = np.linalg.norm(points, axis=1)
    chosen: list[int] = []
    # A point at the mean itself has no direction.
    for i in np.argsort(distances, kind="stable")[(distances == 0).sum() :]:
        far = len(chosen) and (distances[i] ** 2 - distances[chosen[0]] ** 2) / 2 > _NEGLIGIBLE
        if far or len(chosen) == _MOST_POINTS:
            break
        if _apart(points[i], points[chosen]):
            chosen.append(int(i))
    return DesignPoints(points[chosen], multipliers[chosen], lower_bound, False)


def _apart(point: FloatArray, others: Sequence[FloatArray] | FloatArray) -> bool:
    return all(float(np.linalg.norm(point - other)) > _SAME for other in others)
