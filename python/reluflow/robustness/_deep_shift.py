"""The search for a short shift that flips so many examples of a data set, for deep networks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import clarabel
import numpy as np
import scipy.sparse

from reluflow._results import Status
from reluflow._targets import targets_for
from reluflow._validation import FloatArray, IntArray
from reluflow.data import ClusterModel, Dataset
from reluflow.robustness._deep_rays import flip_margin, restricted
from reluflow.robustness._deep_search import input_gradients, lipschitz, search_deep
from reluflow.robustness._rays import DeepRays
from reluflow.robustness._shift_search import FoundShift

# Examples whose own smallest perturbations the search starts from, the first ones.
_SINGLES = 32
_ROUNDS = 40
# Of the way to the linearised solution: the smallest that is tried.
_SMALLEST_TURN = 1e-3
_SHORTER = 1e-4


@dataclass(frozen=True, eq=False)
class DeepShiftSearch:
    """What is searched, and for how long.

    From a shift that flips enough, the margins of the examples that it flips are linearised where
    they cross zero, and the shortest shift that keeps all of these below zero is a least-norm
    problem; the direction turns towards it as far as that makes the exact norm along the ray
    shorter. It ends in a local optimum: an upper bound.

    Attributes
    ----------
    rays : DeepRays
    source : ClusterModel or Dataset
        Where means come from.
    needed : int
        Examples to flip.
    deadline : float
        Of `time.perf_counter`.
    """

    rays: DeepRays
    source: ClusterModel | Dataset
    needed: int
    deadline: float

    def run(self, means: FloatArray, norm_of_means: float) -> FoundShift:
        """The search; ``means`` is a unit vector, along which ``norm_of_means`` flips enough."""
        best, shortest, finished = means, norm_of_means, True
        for start in self._starts(means):
            direction, norm, ended = self._descend(start)
            finished = finished and ended
            if norm < shortest:
                best, shortest = direction, norm
            if not ended:
                break
        if not math.isfinite(shortest):
            return FoundShift(None, self._floor(), Status.NOT_REACHED)
        status = Status.CONVERGED if finished else Status.MAX_SECONDS
        return FoundShift(shortest * best, self._floor(), status)

    def _starts(self, means: FloatArray) -> Iterator[FloatArray]:
        """Unit vectors: along the means, and along what single perturbations have in common."""
        data, sign = self.rays.data, self.rays.sign
        yield means
        few = slice(0, _SINGLES)
        X, y = data.X[few], data.y[few]
        left = max(0.0, self.deadline - time.perf_counter()) / 4
        single = search_deep(self.rays.net, X, y, *targets_for(X, y, self.source), max_seconds=left)
        common = (sign[few, None] * single.perturbation).sum(axis=0)
        length = float(np.linalg.norm(common))
        if length > 0:
            yield common / length

    def _descend(self, unit: FloatArray) -> tuple[FloatArray, float, bool]:
        """Direction and norm of a local optimum, and whether it was reached before the deadline."""
        inside, basis = restricted(self.rays.net)
        points, y, sign = self.rays.data.X @ basis, self.rays.data.y, self.rays.sign
        unit = basis @ (unit @ basis)
        unit /= max(float(np.linalg.norm(unit)), 1e-300)
        crossings = self.rays.crossings(unit)
        norm, share = self._norm(crossings), 1.0
        for _ in range(_ROUNDS):
            if not math.isfinite(norm) or share < _SMALLEST_TURN:
                break
            if time.perf_counter() >= self.deadline:
                return unit, norm, False
            flipped = np.argsort(crossings, kind="stable")[: self.needed]
            at = points[flipped] + (crossings * sign)[flipped, None] * (unit @ basis)
            slopes = input_gradients(inside, at, y[flipped])
            values = flip_margin(inside, at, y[flipped])
            turned = self._linearised(slopes, values, crossings[flipped], flipped, unit @ basis)
            if turned is None:
                break
            target = basis @ turned
            while share >= _SMALLEST_TURN:
                tried = (1 - share) * unit + share * target
                tried /= np.linalg.norm(tried)
                found = self.rays.crossings(tried)
                if self._norm(found) < norm * (1 - _SHORTER):
                    unit, crossings, norm = tried, found, self._norm(found)
                    share = min(1.0, 2 * share)
                    break
                share /= 4
        return unit, norm, True

    def _linearised(
        self,
        slopes: FloatArray,
        values: FloatArray,
        crossings: FloatArray,
        flipped: IntArray,
        unit: FloatArray,
    ) -> FloatArray | None:
        """Direction of the least-norm z with margin + slope . (sign z - where it was) <= 0."""
        sign = self.rays.sign[flipped]
        rows = sign[:, None] * slopes
        limits = crossings * (rows @ unit) - values
        # Examples that are wrong from the start need no shift.
        rows, limits = rows[crossings > 0], limits[crossings > 0]
        size = len(unit)
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_threads = 1
        found = clarabel.DefaultSolver(
            scipy.sparse.identity(size, format="csc"),
            np.zeros(size),
            scipy.sparse.csc_matrix(rows),
            limits,
            [clarabel.NonnegativeConeT(len(limits))],
            settings,
        ).solve()
        z = np.array(found.x)
        length = float(np.linalg.norm(z))
        return z / length if np.isfinite(length) and length > 0 else None

    def _norm(self, crossings: FloatArray) -> float:
        return float(np.partition(crossings, self.needed - 1)[self.needed - 1])

    def _floor(self) -> float:
        """No shift below this flips enough: too many margins are above what it can change."""
        data = self.rays.data
        margins = np.maximum(flip_margin(self.rays.net, data.X, data.y), 0.0)
        return self._norm(np.asarray(margins / lipschitz(self.rays.net)))
