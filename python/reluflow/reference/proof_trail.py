"""The steps of a proof that no perturbation shorter than some bound flips a point.

What is known at a node of the proof's tree are intervals of the pre-activations; the root starts
with those of the ball. docs/theory.md, section 7.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray, IntArray

# A plane bounds a node and cuts its intervals down to a cap; a convex quadratic bounds it, and may
# cut them down to an ellipsoid; a branch has a neuron inactive in `child`, active in `child` + 1.
PLANE, BOUND, ELLIPSOID, BRANCH = range(4)


@dataclass(frozen=True)
class ProofStep:
    """sigma_j or s_j at supporting neurons and k_j at opposing ones; none at a branch."""

    kind: int
    node: int
    radius: float
    eta: float = 0.0
    neuron: int = -1
    child: int = -1
    multipliers: FloatArray | None = None
    slopes: FloatArray | None = None


class ProofTrail:
    """Takes down the steps of one point's proof."""

    def __init__(self) -> None:
        self.steps: list[ProofStep] = []
        self._node, self._radius, self._nodes = 0, 0.0, 1

    def enter(self, node: int, radius: float) -> None:
        """The node that the next steps are taken at, and the radius they look for less than."""
        self._node, self._radius = node, radius

    def plane(self, multipliers: FloatArray) -> None:
        """Of all neurons, at most 0 at opposing ones."""
        supporting = np.maximum(multipliers, 0)
        self.steps.append(ProofStep(PLANE, self._node, self._radius, multipliers=supporting))

    def quadratic(
        self, kind: int, eta: float, s: FloatArray, k: FloatArray, slopes: FloatArray
    ) -> None:
        """A minorant with multipliers (eta, s, k), and the slopes of its parabolas at 0."""
        step = ProofStep(kind, self._node, self._radius, eta, multipliers=s + k, slopes=slopes)
        self.steps.append(step)

    def branch(self, neuron: int) -> int:
        """Returns the first of two children."""
        child = self._nodes
        self._nodes += 2
        self.steps.append(
            ProofStep(BRANCH, self._node, self._radius, neuron=int(neuron), child=child)
        )
        return child


@dataclass(frozen=True)
class ProofSteps:
    """The steps of all points as flat arrays; ``first`` says where a step's multipliers begin."""

    point: IntArray
    kind: IntArray
    node: IntArray
    neuron: IntArray
    child: IntArray
    radius: FloatArray
    eta: FloatArray
    first: IntArray
    multiplier_neuron: IntArray
    multiplier: FloatArray
    slope: FloatArray

    @classmethod
    def of(cls, trails: Sequence[ProofTrail]) -> ProofSteps:
        """Flattens the trails of points 0, 1, ..."""
        steps = [(point, step) for point, trail in enumerate(trails) for step in trail.steps]
        values = [
            np.zeros(0) if step.multipliers is None else step.multipliers for _, step in steps
        ]
        used = [np.flatnonzero(value) for value in values]
        slopes = [
            np.zeros(len(value)) if step.slopes is None else step.slopes
            for (_, step), value in zip(steps, values, strict=True)
        ]

        def integers(name: str) -> IntArray:
            return np.array([getattr(step, name) for _, step in steps], dtype=np.int64)

        return cls(
            point=np.array([point for point, _ in steps], dtype=np.int64),
            kind=integers("kind"),
            node=integers("node"),
            neuron=integers("neuron"),
            child=integers("child"),
            radius=np.array([step.radius for _, step in steps]),
            eta=np.array([step.eta for _, step in steps]),
            first=np.cumsum([0, *map(len, used)]).astype(np.int64),
            multiplier_neuron=np.concatenate([*used, np.zeros(0)]).astype(np.int64),
            multiplier=np.concatenate(
                [*(v[j] for v, j in zip(values, used, strict=True)), np.zeros(0)]
            ),
            slope=np.concatenate([*(v[j] for v, j in zip(slopes, used, strict=True)), np.zeros(0)]),
        )
