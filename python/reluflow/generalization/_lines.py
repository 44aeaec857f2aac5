"""Line sampling with the exact piecewise-linear integral (docs/theory.md, section 8.4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri_exp

from reluflow._validation import FloatArray
from reluflow.generalization import _log_estimate as log_estimate
from reluflow.generalization._design_points import DesignPoints
from reluflow.generalization._hidden import Region
from reluflow.generalization._log_estimate import LogEstimate
from reluflow.generalization._settings import LINES, Settings, Stream

_FEWEST = 64
# Pre-activations that are held at a time.
_MOST_NUMBERS = 2**20


# Share of the lines that are moved to where more of them count; the others stay as they are, so
# that no weight is above 1/(1 - _MOVED).
_MOVED = 0.8
# Lines whose gradients say where to, and the move below which there is none.
_PILOT, _SMALLEST_MOVE = 1024, 0.2
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class _Cell:
    """The points nearer to one design point than to the others, in lines towards it."""

    def __init__(self, region: Region, points: FloatArray, index: int, stream: Stream) -> None:
        self.region, self.stream = region, stream
        centre = points[index]
        self.direction = centre / np.linalg.norm(centre)
        self.slopes = region.factor @ self.direction
        others = np.delete(points, index, axis=0)
        # g is in the cell where (centre - other) . g >= (|centre|^2 - |other|^2)/2 for all others.
        self.normals = centre - others
        self.levels = (centre @ centre - (others**2).sum(axis=1)) / 2
        self.advance = self.normals @ self.direction
        self.move = np.zeros(region.rank)
        self.logs = np.zeros(0)
        # The last lines drawn, and log of what they hold.
        self.last = np.zeros((0, region.rank)), np.zeros(0)

    def draw(self, count: int, settings: Settings) -> None:
        """Integrates along ``count`` more lines."""
        rank = self.region.rank
        most = max(_FEWEST, _MOST_NUMBERS // max(rank, len(self.slopes)))
        while count > 0:
            rows = min(count, most)
            across = settings.normals(self.stream, rows, rank)
            across -= np.outer(across @ self.direction, self.direction)
            log_weights = self._moved(across, settings)
            lower, upper = self._ends(across)
            logs = settings.kernel.log_line_masses(
                self.region.offset + across @ self.region.factor.T,
                self.slopes,
                self.region.output,
                self.region.constant,
                lower,
                upper,
                self.region.strict,
                settings.num_threads,
            )
            self.last = across, logs
            self.logs = np.concatenate([self.logs, logs + log_weights])
            count -= rows
            if settings.seconds_left() <= 0:
                return

    def start_anew(self) -> None:
        """Forgets the lines drawn so far, and moves those to come by what they tell.

        The mean of the normal law that is nearest to the law of u in the region, in the sense of
        Kullback & Leibler, is the mean of the gradient of log p(u) under it; here under the law
        of u itself (docs/theory.md, section 8.4).
        """
        across, logs = (values[:_PILOT] for values in self.last)
        meets = np.isfinite(logs) & (logs < 0)
        if not meets.any():
            return
        across, logs = across[meets], logs[meets]
        t = -ndtri_exp(logs)
        z = self.region.offset + across @ self.region.factor.T + np.outer(t, self.slopes)
        normals = (self.region.output * (z > 0)) @ self.region.factor
        falls = normals @ self.direction
        facing = falls < 0
        if not facing.any():
            return
        # p(u) = Phi(-t(u)) for a single crossing; along u it moves by -normals/falls.
        normals, falls, t, logs = normals[facing], falls[facing], t[facing], logs[facing]
        hazard = np.exp(-(t**2) / 2 - _HALF_LOG_TWO_PI - logs)
        gradients = (hazard / falls)[:, None] * normals
        move = gradients.mean(axis=0)
        move -= (move @ self.direction) * self.direction
        if float(np.linalg.norm(move)) >= _SMALLEST_MOVE:
            self.move = move
            self.logs = np.zeros(0)

    def _moved(self, across: FloatArray, settings: Settings) -> FloatArray:
        """Moves most of the lines, in place; log weights that make up for it."""
        if not self.move.any():
            return np.zeros(len(across))
        chosen = settings.uniforms(self.stream, len(across)) < _MOVED
        across[chosen] += self.move
        tilt = across @ self.move - self.move @ self.move / 2
        return -np.asarray(np.logaddexp(math.log(_MOVED) + tilt, math.log(1 - _MOVED)))

    def _ends(self, across: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where each line is inside the cell."""
        lower, upper = np.full(len(across), -np.inf), np.full(len(across), np.inf)
        gap = self.levels - across @ self.normals.T
        for column, advance in zip(gap.T, self.advance, strict=True):
            if advance > 0:
                np.maximum(lower, column / advance, out=lower)
            elif advance < 0:
                np.minimum(upper, column / advance, out=upper)
            else:
                upper[column > 0] = -np.inf
        return lower, upper

    def spread(self, shift: float) -> float:
        """Standard deviation of the values drawn so far, times exp(-shift)."""
        return float(np.exp(self.logs - shift).std()) if shift > -math.inf else 0.0


def by_lines(
    region: Region,
    design: DesignPoints,
    cluster: int,
    first_round: int,
    lines: int,
    settings: Settings,
) -> LogEstimate:
    """log P of a region by at most so many lines, in rounds that double their number."""
    rounding, bound = rounding_of(region, design), bound_of(region, design)
    cells = _cells(region, design, cluster)
    if region.rank == 1:
        for cell in cells:
            cell.draw(1, settings)
        log_value = float(logsumexp([cell.logs[0] for cell in cells]))
        return log_estimate.exact(log_value, rounding=rounding, draws=len(cells))
    hurried = settings.seconds_left() <= 0
    wanted = _first_shares(design, min(_FEWEST if hurried else first_round, lines))
    spent = 0
    while True:
        for cell, count in zip(cells, wanted, strict=True):
            cell.draw(int(count), settings)
        first, spent = spent == 0, spent + int(wanted.sum())
        strata = [(0.0, cell.logs) for cell in cells]
        seed = (settings.key, cluster)
        estimate = log_estimate.stratified(strata, seed, rounding=rounding, bound=bound)
        left = lines - spent
        if estimate.half_width <= settings.rel_error or left <= 0 or settings.seconds_left() <= 0:
            return estimate
        wanted = _shares(cells, min(spent, left))
        if first and left >= spent:
            for cell in cells:
                cell.start_anew()
            wanted = np.maximum(wanted, _FEWEST)


def _cells(region: Region, design: DesignPoints, cluster: int) -> list[_Cell]:
    points = design.points
    if len(points) == 0:
        gradient = region.gradient()
        points = -gradient[None] if gradient.any() else np.eye(1, region.rank)
    return [_Cell(region, points, i, Stream(LINES, cluster, i)) for i in range(len(points))]


def _first_shares(design: DesignPoints, lines: int) -> NDArray[np.int64]:
    """More lines where a half-space would hold more."""
    if len(design.points) < 2:
        return np.array([lines])
    weights = np.maximum(np.exp(design.log_tails - design.log_tails.max()), 0.05)
    wanted = np.ceil(lines * weights / weights.sum()).astype(np.int64)
    return np.asarray(np.maximum(wanted, _FEWEST))


def _shares(cells: list[_Cell], lines: int) -> NDArray[np.int64]:
    """In proportion to standard deviations (Neyman 1934), and some everywhere."""
    shift = max(float(cell.logs.max()) for cell in cells)
    spreads = np.array([cell.spread(shift) for cell in cells])
    total = spreads.sum()
    shares = spreads / total if total > 0 else np.full(len(cells), 1 / len(cells))
    return np.asarray(np.ceil(lines * (0.9 * shares + 0.1 / len(cells))).astype(np.int64))


def rounding_of(region: Region, design: DesignPoints) -> float:
    """By how much rounding may change log P: a crossing t with relative error e moves -t^2/2."""
    roundings = sum(region.factor.shape) + 16.0
    distance = float(design.distances.min()) if len(design.points) else 0.0
    return float((1 + distance**2) * roundings * np.finfo(float).eps)


def bound_of(region: Region, design: DesignPoints) -> float:
    """What lies outside the ball without errors."""
    return log_estimate.log_outside_ball(design.lower_bound, region.rank)
