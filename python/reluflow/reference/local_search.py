"""Descent from many starts to small perturbations that flip a point.

docs/theory.md, section 7.2.
"""

from __future__ import annotations

import itertools

import numpy as np

from reluflow._validation import BoolArray, FloatArray
from reluflow.reference.convex_pieces import PointProblem, Projection, piece_of, project
from reluflow.reference.ray_crossing import first_crossing

_NEIGHBOURS = 6
_PAIRED_TARGETS = 4
_IRRATIONALS = np.sqrt([2.0, 3.0, 5.0, 7.0])


class LocalSearch:
    """Descends from piece to piece: project, and go on with what is active there."""

    def __init__(self, problem: PointProblem) -> None:
        self.problem = problem
        self.visited: set[bytes] = set()
        self.best: Projection | None = None
        self.subset = np.zeros(len(problem.v), dtype=bool)

    @property
    def distance(self) -> float:
        """Of the best point found."""
        return np.inf if self.best is None else self.best.distance

    def from_ray(self, slopes: FloatArray) -> None:
        """Starts where the half-line with these slopes of the pre-activations flips the point."""
        problem = self.problem
        t = first_crossing(problem.a, slopes, problem.v, problem.constant, strict=False)
        if np.isfinite(t):
            self.from_subset(problem.opposing & (problem.a + t * slopes > 0))

    def from_subset(self, subset: BoolArray) -> None:
        """Starts from the piece of a subset, and stops at one that was looked at before."""
        while subset.tobytes() not in self.visited:
            self.visited.add(subset.tobytes())
            projection = project(self.problem, piece_of(self.problem, subset))
            if not np.isfinite(projection.distance):
                return
            if projection.distance < self.distance:
                self.best, self.subset = projection, subset
            subset = self.problem.opposing & (projection.z > 0)

    def improve(self) -> None:
        """Adds or leaves out single opposing neurons, those nearest to their kinks first."""
        previous = np.inf
        while self.best is not None and self.best.distance < previous:
            previous = self.best.distance
            opposing = np.flatnonzero(self.problem.opposing)
            depth = np.abs(self.best.z[opposing]) / self.problem.norms[opposing]
            centre = self.subset
            for j in opposing[np.argsort(depth, kind="stable")[:_NEIGHBOURS]]:
                neighbour = centre.copy()
                neighbour[j] = not neighbour[j]
                self.from_subset(neighbour)

    def along_gradients(self) -> None:
        """Along the gradient of N, and with supporting or opposing neurons counting as active."""
        v = self.problem.v
        gradient = np.where(self.problem.a > 0, v, 0.0)
        self._from_multipliers(gradient)
        self._from_multipliers(np.maximum(gradient, 0) + np.minimum(v, 0))
        self._from_multipliers(np.maximum(v, 0))
        self._from_multipliers(v)
        self._from_multipliers(np.minimum(v, 0))

    def widely(self, targets: FloatArray) -> None:
        """Mixtures that fill the space evenly (Kronecker sequences); targets, one by one, in pairs
        and together; the pieces without and with all opposing neurons.
        """
        v = self.problem.v
        for irrational in _IRRATIONALS:
            self._from_multipliers(v * (np.arange(1, len(v) + 1) * irrational % 1))
        active = [self.problem.opposing & (z > 0) for z in targets]
        for z in targets:
            self.from_ray(z - self.problem.a)
        for t in range(1, len(targets) + 1):
            self.from_ray(targets[:t].mean(axis=0) - self.problem.a)
            self.from_subset(np.logical_or.reduce(active[:t]))
        for s, t in itertools.combinations(range(min(len(targets), _PAIRED_TARGETS)), 2):
            self.from_ray((targets[s] + targets[t]) / 2 - self.problem.a)
            self.from_subset(active[s] | active[t])
        self.from_subset(np.zeros(len(self.problem.v), dtype=bool))
        self.from_subset(self.problem.opposing.copy())
        self.improve()

    def _from_multipliers(self, multipliers: FloatArray) -> None:
        self.from_ray(-(self.problem.rows @ (self.problem.rows.T @ multipliers)))
