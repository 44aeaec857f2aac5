"""Importance sampling with a defensive mixture at the design points (docs/theory.md, 8.3)."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtri_exp, softmax

from reluflow._validation import BoolArray, FloatArray
from reluflow.generalization import _log_estimate as log_estimate
from reluflow.generalization._design_points import DesignPoints
from reluflow.generalization._hidden import Region
from reluflow.generalization._lines import bound_of, rounding_of
from reluflow.generalization._log_estimate import LogEstimate
from reluflow.generalization._settings import IMPORTANCE, Settings, Stream

# Shares of the mixture: half-spaces behind the design points, Gaussians at them, the law itself,
# and the law widened until it reaches the nearest of them.
_TAILS, _AT_POINTS, _LAW, _WIDE = 0.6, 0.3, 0.05, 0.05
_FIRST_ROUND, _FEWEST = 4096, 256
_MOST_NUMBERS = 2**20


class Mixture:
    """Proposals for the law of the g in a region, their densities relative to the normal law's."""

    def __init__(self, points: FloatArray, rank: int) -> None:
        self.rank = rank
        self.distances = np.linalg.norm(points, axis=1)
        self.points = points
        self.directions = points / np.where(self.distances > 0, self.distances, 1.0)[:, None]
        self.log_tails = log_ndtr(-self.distances)
        reach = float(self.distances.min(initial=np.inf))
        self.width = math.sqrt(1 + reach**2 / rank) if math.isfinite(reach) else 2.0
        self.shares = self._shares()

    def _shares(self) -> FloatArray:
        """Of each half-space, each Gaussian, the law and the widened law."""
        count = len(self.points)
        if count == 0:
            return np.array([0.5, 0.5])
        each = 0.5 / count + 0.5 * softmax(self.log_tails)
        return np.concatenate([_TAILS * each, _AT_POINTS * each, [_LAW, _WIDE]])

    def draw(self, settings: Settings, stream: Stream, count: int) -> FloatArray:
        """Rows of g, shape (count, r)."""
        g = settings.normals(stream, count, self.rank)
        which, quantile = settings.uniforms(stream, 2 * count).reshape(2, count)
        ends = np.cumsum(self.shares)
        part = np.searchsorted(ends, which * ends[-1], side="right").clip(max=len(ends) - 1)
        points = len(self.points)
        for i in range(points):
            behind, at = part == i, part == points + i
            along = -ndtri_exp(self.log_tails[i] + np.log1p(-quantile[behind]))
            g[behind] += np.outer(along - g[behind] @ self.directions[i], self.directions[i])
            g[at] += self.points[i]
        g[part == 2 * points + 1] *= self.width
        return g

    def log_weights(self, g: FloatArray) -> FloatArray:
        """log of the normal density over that of the mixture."""
        along = g @ self.directions.T
        squares = (g**2).sum(axis=1)
        wide = squares * (1 - self.width**-2) / 2 - self.rank * math.log(self.width)
        densities = np.column_stack(
            [
                np.where(along >= self.distances, -self.log_tails, -np.inf),
                along * self.distances - self.distances**2 / 2,
                np.zeros(len(g)),
                wide,
            ]
        )
        return -np.asarray(logsumexp(densities + np.log(self.shares), axis=1))


class Sampler:
    """Draws from a mixture, and log weights of those that count."""

    def __init__(self, mixture: Mixture, stream: Stream) -> None:
        self.mixture, self.stream = mixture, stream
        self.logs = np.zeros(0)

    def draw(self, region: Region, count: int, settings: Settings) -> None:
        """So many more draws, or fewer when the time is over."""
        most = max(64, _MOST_NUMBERS // max(region.factor.shape))
        while count > 0:
            rows = min(count, most)
            g = self.mixture.draw(settings, self.stream, rows)
            self.add(g, region.contains(g))
            count -= rows
            if settings.seconds_left() <= 0:
                return

    def add(self, g: FloatArray, counted: BoolArray) -> None:
        """Weights of the rows that count, and nothing for the others."""
        logs = np.full(len(g), -np.inf)
        logs[counted] = self.mixture.log_weights(g[counted])
        self.logs = np.concatenate([self.logs, logs])


def by_importance(
    region: Region,
    design: DesignPoints,
    cluster: int,
    samples: int,
    rel_error: float,
    settings: Settings,
) -> LogEstimate:
    """log P of a region by at most so many draws."""
    rounding, bound = rounding_of(region, design), bound_of(region, design)
    sampler = Sampler(Mixture(design.points, region.rank), Stream(IMPORTANCE, cluster))
    wanted = min(_FIRST_ROUND if settings.seconds_left() > 0 else _FEWEST, samples)
    while True:
        sampler.draw(region, wanted, settings)
        strata, seed = [(0.0, sampler.logs)], (settings.key, cluster, 1)
        estimate = log_estimate.stratified(strata, seed, rounding=rounding, bound=bound)
        left = samples - estimate.draws
        if estimate.half_width <= rel_error or left <= 0 or settings.seconds_left() <= 0:
            return estimate
        wanted = min(estimate.draws, left)
