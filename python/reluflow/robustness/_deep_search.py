"""Small perturbations of deep networks: a search that bounds the smallest one from above."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray, IntArray
from reluflow.deep_network import DeepNet
from reluflow.robustness._deep_rays import (
    first_crossings,
    flip_margin,
    piecewise_linear,
    restricted,
)

# Directions that are followed further, of each point: the shortest after their first crossing.
_FOLLOWED = 4
# The same at depth 2, where a ray costs little: with many outputs the shortest at first is often
# not the shortest in the end.
_FOLLOWED_SHALLOW = 40
_RANDOM_STARTS = 2
_ROUNDS = 100
_SMALLEST_TURN = 1e-4
# Points on a ray that is being turned, where the network is no polygon along it.
_GRID = 16
# Searched as far as this, relative to the largest distance to a target.
_REACH = 4.0


@dataclass(frozen=True)
class DeepBounds:
    """Bounds on smallest perturbations.

    Attributes
    ----------
    radius : ndarray, shape (n,)
        Norm of the shortest perturbation found, infinite where none was.
    lower_bound : ndarray, shape (n,)
        The margin over a Lipschitz constant; 0 where none is known.
    perturbation : ndarray, shape (n, d)
        Of norm ``radius``; zero where that is 0 or infinite.
    finished : bool
        Whether the search was not cut short.
    """

    radius: FloatArray
    lower_bound: FloatArray
    perturbation: FloatArray
    finished: bool


def search_deep(
    net: DeepNet,
    X: FloatArray,
    y: FloatArray,
    targets: FloatArray,
    chosen: IntArray,
    *,
    max_seconds: float = np.inf,
) -> DeepBounds:
    """Shortest perturbations by turning rays, from several starts.

    Along a direction u the first flip is found exactly (`first_crossings`); u is then turned
    towards the normal of the boundary there, as far as that shortens the flip. Starts are the
    gradient at the point, the directions to its targets (of the other label), and random ones.
    Rays are no longer turned once ``max_seconds`` are over.

    Parameters
    ----------
    targets : ndarray, shape (p, d)
    chosen : ndarray of int, shape (n, s)
        Which targets to try for every point, -1 for none.
    """
    inside, basis = restricted(net)
    points = X @ basis
    finished = True
    radius = np.where(flip_margin(inside, points, y) <= 0, 0.0, np.inf)
    best = np.zeros_like(points)
    open_points = np.flatnonzero(radius > 0)
    if len(open_points):
        rays = _Rays.start(inside, points, y, open_points, targets @ basis, chosen)
        finished = rays.turn(time.monotonic() + max_seconds)
        radius[open_points], best[open_points] = rays.shortest(len(points), open_points)
    with np.errstate(invalid="ignore"):
        perturbation = np.where(np.isfinite(radius)[:, None], radius[:, None] * best, 0.0)
    margins = np.maximum(flip_margin(inside, points, y), 0.0)
    lower = np.minimum(margins / lipschitz(inside), radius)
    return DeepBounds(radius, lower, perturbation @ basis.T, finished)


def lipschitz(net: DeepNet) -> float:
    """A Lipschitz constant of N in x: the product of the layers' spectral norms.

    Of networks with classes, that of the difference of any two outputs. Infinite for polynomial
    activations, which have none.
    """
    if not piecewise_linear(net):
        return np.inf
    below = float(np.prod([np.linalg.norm(weights, 2) for weights in net.weights[:-1]]))
    last, skip = net.weights[-1], net.skip
    if net.class_labels is None:
        direct = 0.0 if skip is None else float(np.linalg.norm(skip))
        return below * float(np.linalg.norm(last)) + direct
    direct = 0.0 if skip is None else _largest_difference(skip)
    return below * _largest_difference(last) + direct


def _largest_difference(rows: FloatArray) -> float:
    pairs = ((p, q) for p in range(len(rows)) for q in range(p))
    return max(float(np.linalg.norm(rows[p] - rows[q])) for p, q in pairs)


@dataclass
class _Rays:
    """Rays from points, several a point, each as long as its first flip."""

    net: DeepNet
    points: FloatArray
    labels: FloatArray
    owner: IntArray
    directions: FloatArray
    lengths: FloatArray

    @classmethod
    def start(
        cls,
        net: DeepNet,
        points: FloatArray,
        labels: FloatArray,
        open_points: IntArray,
        targets: FloatArray,
        chosen: IntArray,
    ) -> _Rays:
        # Fixed, so that the same search finds the same.
        rng = np.random.default_rng(0)
        owner, directions = [], []
        slopes = input_gradients(net, points[open_points], labels[open_points])
        for row, i in enumerate(open_points):
            own = chosen[i][chosen[i] >= 0]
            starts = [-slopes[row][None], targets[own] - points[i]]
            starts.append(rng.standard_normal((_RANDOM_STARTS, points.shape[1])))
            if len(own):
                starts.append((targets[own].mean(axis=0) - points[i])[None])
            stacked = np.concatenate(starts)
            directions.append(stacked)
            owner.append(np.full(len(stacked), i))
        u, owners = np.concatenate(directions), np.concatenate(owner)
        reach = _REACH * max(
            float(np.linalg.norm(u, axis=1).max()), float(np.linalg.norm(points, axis=1).max())
        )
        norms = np.linalg.norm(u, axis=1, keepdims=True)
        u, owners = (u / np.where(norms > 0, norms, 1))[norms[:, 0] > 0], owners[norms[:, 0] > 0]
        longest = np.full(len(u), reach)
        lengths = first_crossings(net, points[owners], u, labels[owners], longest=longest)
        rays = cls(net, points, labels, owners, u, lengths)
        shallow = net.depth == 2 and piecewise_linear(net)
        return rays.keep(_FOLLOWED_SHALLOW if shallow else _FOLLOWED)

    def keep(self, count: int) -> _Rays:
        """The shortest rays of every point that flip."""
        order = np.lexsort((self.lengths, self.owner))
        order = order[np.isfinite(self.lengths[order])]
        owner = self.owner[order]
        first = (
            np.concatenate([[True], owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, bool)
        )
        begin = np.maximum.accumulate(np.where(first, np.arange(len(owner)), 0))
        order = order[np.arange(len(owner)) - begin < count]
        return _Rays(
            self.net,
            self.points,
            self.labels,
            self.owner[order],
            self.directions[order],
            self.lengths[order],
        )

    def turn(self, deadline: float) -> bool:
        """Turns every ray towards the boundary's normal while that shortens it.

        Returns whether it came to an end before the deadline.
        """
        share = np.ones(len(self.owner))
        for _ in range(_ROUNDS):
            moving = np.flatnonzero(share >= _SMALLEST_TURN)
            if len(moving) == 0:
                break
            if time.monotonic() >= deadline:
                return False
            owner, u, r = self.owner[moving], self.directions[moving], self.lengths[moving]
            ends = self.points[owner] + r[:, None] * u
            normals = -input_gradients(self.net, ends, self.labels[owner])
            sizes = np.linalg.norm(normals, axis=1, keepdims=True)
            normals = normals / np.where(sizes > 0, sizes, 1)
            turned = (1 - share[moving, None]) * u + share[moving, None] * normals
            turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)
            lengths = first_crossings(
                self.net, self.points[owner], turned, self.labels[owner], longest=r, grid=_GRID
            )
            shorter = lengths < r * (1 - 1e-12)
            self.directions[moving[shorter]] = turned[shorter]
            self.lengths[moving[shorter]] = lengths[shorter]
            share[moving] = np.where(shorter, np.minimum(1.0, 2 * share[moving]), share[moving] / 4)
        return True

    def shortest(self, n: int, open_points: IntArray) -> tuple[FloatArray, FloatArray]:
        """Length and direction of the shortest ray of each of ``open_points``."""
        lengths = np.full(n, np.inf)
        directions = np.zeros((n, self.points.shape[1]))
        for ray in np.argsort(-self.lengths, kind="stable"):
            lengths[self.owner[ray]] = self.lengths[ray]
            directions[self.owner[ray]] = self.directions[ray]
        return lengths[open_points], directions[open_points]


def input_gradients(net: DeepNet, points: FloatArray, labels: FloatArray) -> FloatArray:
    """Gradients of y N in x, shape (n, d)."""
    entering, preactivations = points, []
    for layer, (weights, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        z = entering @ weights.T + (0.0 if bias is None else bias)
        preactivations.append(z)
        if layer + 1 < net.depth:
            entering = net.activations(layer, z)
    outputs = preactivations[-1] + (0.0 if net.skip is None else points @ net.skip.T)
    gradient = at_outputs = _margin_slopes(net, outputs, labels)
    for layer in reversed(range(net.depth)):
        gradient = gradient @ net.weights[layer]
        if layer > 0:
            gradient = gradient * net.activation_slopes(layer - 1, preactivations[layer - 1])
    return gradient if net.skip is None else gradient + at_outputs @ net.skip


def _margin_slopes(net: DeepNet, outputs: FloatArray, labels: FloatArray) -> FloatArray:
    """Gradient of y N in the outputs: the leading own one less the leading rival."""
    if net.class_labels is None:
        return labels[:, None]
    own = net.class_labels == labels[:, None]
    slopes = np.zeros_like(outputs)
    rows = np.arange(len(outputs))
    slopes[rows, np.where(own, outputs, -np.inf).argmax(axis=1)] = 1.0
    slopes[rows, np.where(own, -np.inf, outputs).argmax(axis=1)] = -1.0
    return slopes
