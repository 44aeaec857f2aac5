"""The search for the shortest shift that flips so many examples of a data set."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reluflow._results import Status
from reluflow._targets import cluster_means
from reluflow._validation import FloatArray
from reluflow.data import ClusterModel, Dataset
from reluflow.robustness._common_shift import ShiftProblem, shortest_common_shift
from reluflow.robustness._rays import TwoLayerRays
from reluflow.robustness._row_space import RowSpace
from reluflow.robustness.minimal import min_perturbation

# Principal axes of the single perturbations along which the search starts, both ways.
_MOST_AXES = 3


@dataclass(frozen=True, eq=False)
class FoundShift:
    """The best shift, shape (d,), or None where none flips enough; a floor; how it ended."""

    z: FloatArray | None
    floor: float
    status: Status


@dataclass(frozen=True, eq=False)
class ShiftSearch:
    """What is searched, and for how long.

    Attributes
    ----------
    rays : TwoLayerRays
    source : ClusterModel or Dataset
        Where means come from.
    needed : int
        Examples to flip.
    definition : str
    deadline : float
        Of `time.perf_counter`.
    """

    rays: TwoLayerRays
    source: ClusterModel | Dataset
    needed: int
    definition: str
    deadline: float

    def run(self, means: FloatArray, norm_of_means: float) -> FoundShift:
        """The search; ``means`` is a unit vector, along which ``norm_of_means`` flips enough."""
        data, sign, space = self.rays.data, self.rays.sign, self.rays.space
        single = min_perturbation(
            self.rays.net,
            data.X,
            data.y,
            definition=self.definition,
            clusters=self.source,
            max_seconds=self._half_of_the_time(),
            num_threads=self.rays.threads,
        )
        floor = float(np.sort(single.lower_bound)[self.needed - 1])
        rows, frame = _frame(space)
        problem = ShiftProblem.of(
            rows, space, self.rays.preactivations, data.y, sign, self.rays.strict
        )
        starts = (
            (frame.T @ unit, self.rays.crossings(unit))
            for unit in _starts(self._along(means), sign[:, None] * single.perturbation, frame)
        )
        found = shortest_common_shift(problem, self.needed, starts, floor, self.deadline)
        if found is None:
            return FoundShift(None, floor, Status.NOT_REACHED)
        z = frame @ found.u
        if not float(np.linalg.norm(z)) < norm_of_means:
            z = norm_of_means * means
        return FoundShift(z, floor, Status.CONVERGED if found.finished else Status.MAX_SECONDS)

    def _half_of_the_time(self) -> float | None:
        if math.isinf(self.deadline):
            return None
        return max(0.0, self.deadline - time.perf_counter()) / 2

    def _along(self, means: FloatArray) -> FloatArray:
        """Directions along means, one a row: along the labels, or towards and from all of them."""
        if (self.rays.sign == -self.rays.data.y).all():
            return means[None]
        everything = cluster_means(self.source)[0].sum(axis=0)
        return np.stack([means, -means, -everything, everything])


def _starts(means: FloatArray, single: FloatArray, frame: FloatArray) -> Iterator[FloatArray]:
    """Unit vectors in the row space: along means, and what single perturbations have in common."""
    found = single[single.any(axis=1)] @ frame
    vectors = [*(means @ frame)]
    if len(found):
        _, _, axes = np.linalg.svd(found, full_matrices=False)
        vectors += [found.mean(axis=0), *axes[:_MOST_AXES], *-axes[:_MOST_AXES]]
    for vector in vectors:
        length = float(np.linalg.norm(vector))
        if length > 0:
            yield frame @ (vector / length)


def _frame(space: RowSpace) -> tuple[FloatArray, FloatArray]:
    """Weights in an orthonormal frame of a space that holds them, and the frame, shape (d, r)."""
    width, dim = space.weights.shape
    if dim <= width:
        return space.weights, np.eye(dim)
    frame, triangle = np.linalg.qr(space.weights.T)
    return np.ascontiguousarray(triangle.T), np.asarray(frame)
