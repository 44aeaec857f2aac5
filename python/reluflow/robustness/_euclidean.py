"""Smallest Euclidean perturbations of two-layer networks: search, proof, and a second look."""

from __future__ import annotations

import time
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from reluflow._provenance import provenance
from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.network import TwoLayerNet
from reluflow.robustness._certified import certificates_of
from reluflow.robustness._definition import is_flipped, is_strict
from reluflow.robustness._merging import Merging, merged_network
from reluflow.robustness._row_space import RowSpace
from reluflow.robustness.perturbations import OVERSHOOT, Perturbations, status_of

# How the kernels' proofs read in a result.
_METHODS = {
    "none": "local search",
    "already_flipped": "misclassified",
    "neuronwise": "Lipschitz",
    "certificate": "certificate",
    "relaxation": "relaxation",
    "dual": "dual bound",
    "branching": "branching",
    "never_flips": "never flips",
}

# Shifts of the pre-activations, relative to their terms, for a point whose check fails.
_NUDGES = tuple(10.0**exponent for exponent in range(-14, -8))
# How much longer than its radius a perturbation may be.
_LENGTH = 1 + 1e-8
_ROWS_AT_ONCE = 512
# The share of rtol that proofs use up; the rest is for the roundings of whoever checks them.
_USED = 0.99


class Settings(NamedTuple):
    """How points are solved."""

    kernel: ModuleType
    backend: str
    definition: str
    rtol: float
    max_nodes: int
    deadline: float
    threads: int
    keep_certificates: bool


class Examples(NamedTuple):
    """Points, labels, and the targets of each."""

    points: FloatArray
    labels: FloatArray
    targets: FloatArray
    order: IntArray

    def chosen(self, rows: BoolArray) -> Examples:
        return self._replace(
            points=self.points[rows], labels=self.labels[rows], order=self.order[rows]
        )


def solve(
    net: TwoLayerNet, examples: Examples, settings: Settings, slack: FloatArray | float = 0.0
) -> Perturbations:
    """Perturbations of a network whose outputs count as known up to ``slack``."""
    points, labels, targets, order = examples
    kernel, _, definition, rtol, nodes, deadline, threads, keep = settings
    space = RowSpace.of(net)
    preactivations = space.preactivations(points)
    outcome = kernel.min_perturbations(
        space.rows,
        space.output,
        space.constant,
        space.lipschitz,
        preactivations,
        labels,
        space.rounding(points) + slack,
        space.preactivations(targets),
        order,
        is_strict(definition),
        _USED * rtol,
        nodes,
        max(0.0, deadline - time.perf_counter()),
        threads,
        keep,
    )
    check = _Check(net, space, points, labels, definition, threads)
    perturbation, flipped = check.perturbations(kernel, preactivations, outcome)
    moved = np.isfinite(outcome.radius) & (outcome.radius > 0)
    proved = np.array([proof.name != "none" for proof in outcome.proofs], dtype=np.bool_)
    return Perturbations(
        radius=outcome.radius,
        lower_bound=outcome.lower_bound,
        perturbation=perturbation,
        proved=proved,
        method=tuple(_METHODS[proof.name] for proof in outcome.proofs),
        nodes=outcome.nodes,
        flips=float(flipped[moved].mean()) if moved.any() else 1.0,
        definition=definition,
        rtol=rtol,
        status=status_of(outcome.stopped.name, proved),
        provenance=provenance(backend=settings.backend, num_threads=threads),
        seconds=0.0,
        certificates=certificates_of(
            net, space, points, labels, definition, rtol, outcome, perturbation, flipped
        )
        if keep
        else None,
    )


def merged_first(
    net: TwoLayerNet, examples: Examples, settings: Settings, tolerance: float
) -> Perturbations:
    """What the merged network decides in spite of its error is decided; the rest is solved."""
    merged, error = merged_network(net, tolerance)
    if merged.width == net.width:
        return replace(solve(net, examples, settings), merging=Merging(tolerance, net.width, 0, 0))
    points, labels = examples.points, examples.labels
    rough = solve(merged, examples, settings)
    radius = _crossings(net, examples, rough.perturbation, settings)
    # No perturbation below the radius meets outputs that differ by more than this.
    slack = error * (np.sqrt((points**2).sum(axis=1) + 1) + radius)
    tried = np.isfinite(slack) & (radius > 0)
    lower = np.zeros(len(points))
    found = solve(merged, examples.chosen(tried), settings, slack[tried])
    lower[tried] = np.minimum(found.lower_bound, radius[tried])
    length = np.linalg.norm(rough.perturbation, axis=1)
    scale = np.divide(radius, length, out=np.zeros_like(length), where=tried)
    perturbation = rough.perturbation * scale[:, None]
    moved = points + (1 + OVERSHOOT) * perturbation
    decided = tried & (lower >= (1 - settings.rtol) * radius)
    for at, flipped in ((points, False), (moved, True)):
        margins = labels * net(at, num_threads=settings.threads)
        decided &= is_flipped(margins, settings.definition) == flipped
    rest = solve(net, examples.chosen(~decided), settings)
    method = np.empty(len(points), dtype=object)
    method[tried], method[~decided] = found.method, rest.method
    nodes = rough.nodes.copy()
    nodes[tried] += found.nodes
    nodes[~decided] += rest.nodes
    proved = decided.copy()
    proved[~decided], perturbation[~decided] = rest.proved, rest.perturbation
    radius[~decided], lower[~decided] = rest.radius, rest.lower_bound
    own = int((np.isfinite(rest.radius) & (rest.radius > 0)).sum())
    done = int(decided.sum())
    return replace(
        rest,
        radius=radius,
        lower_bound=lower,
        perturbation=perturbation,
        proved=proved,
        method=tuple(method.tolist()),
        nodes=nodes,
        flips=(done + own * rest.flips) / (done + own) if done + own else 1.0,
        merging=Merging(tolerance, merged.width, error, done),
    )


def _crossings(
    net: TwoLayerNet, examples: Examples, directions: FloatArray, settings: Settings
) -> FloatArray:
    """Where the network itself flips along these directions, shape (n,)."""
    lengths = np.linalg.norm(directions, axis=1)
    radius = np.full(len(lengths), np.inf)
    ones = np.ones(1)
    for i in np.flatnonzero(lengths > 0):
        direction = directions[i] / lengths[i]
        radius[i] = settings.kernel.ray_crossings(
            (net.W @ examples.points[i] + net.b)[None],
            net.W @ direction,
            ones,
            net.v,
            0.0,
            examples.labels[i : i + 1],
            is_strict(settings.definition),
            1,
        )[0]
    return radius


class _Check:
    """Maps perturbations back to d coordinates and evaluates them in the network itself."""

    def __init__(
        self,
        net: TwoLayerNet,
        space: RowSpace,
        points: FloatArray,
        labels: FloatArray,
        definition: str,
        threads: int,
    ) -> None:
        self.net, self.space, self.points, self.labels = net, space, points, labels
        self.definition, self.threads = definition, threads

    def perturbations(
        self, kernel: ModuleType, preactivations: FloatArray, outcome: Any
    ) -> tuple[FloatArray, BoolArray]:
        """Perturbations (n, d), and which of them flip."""
        found = np.isfinite(outcome.radius) & (outcome.radius > 0)
        perturbation = self.space.perturbations(outcome.coefficients)
        perturbation[~found] = 0.0
        stubborn = np.flatnonzero(found)
        stubborn = stubborn[~self._flip(stubborn, perturbation[stubborn])]
        for nudge in _NUDGES:
            if len(stubborn) == 0:
                break
            nudged = self._nudged(kernel, preactivations, outcome, stubborn, nudge)
            short = np.linalg.norm(nudged, axis=1) <= _LENGTH * outcome.radius[stubborn]
            helped = short & self._flip(stubborn, nudged)
            perturbation[stubborn[helped]] = nudged[helped]
            stubborn = stubborn[~helped]
        flipped = np.isfinite(outcome.radius)
        flipped[stubborn] = False
        return perturbation, flipped

    def _nudged(
        self,
        kernel: ModuleType,
        preactivations: FloatArray,
        outcome: Any,
        rows: IntArray,
        nudge: float,
    ) -> FloatArray:
        """Nearest points of the same convex pieces with every pre-activation shifted against the
        flip: a little further inside, where rounding can do no harm.
        """
        space, labels = self.space, self.labels[rows]
        norms = np.linalg.norm(space.weights, axis=1)
        reach = np.linalg.norm(self.points[rows], axis=1) + outcome.radius[rows]
        shift = nudge * (np.outer(reach, norms) + np.abs(space.bias))
        shifted = preactivations[rows] + np.sign(np.outer(labels, space.output)) * shift
        projections = kernel.subset_projections(
            space.rows,
            space.output,
            space.constant,
            np.ascontiguousarray(shifted),
            labels,
            np.ascontiguousarray(outcome.subsets[rows]),
            self.threads,
        )
        return space.perturbations(projections.coefficients) / (1 + OVERSHOOT)

    def _flip(self, rows: IntArray, perturbation: FloatArray) -> BoolArray:
        flipped = np.zeros(len(rows), dtype=np.bool_)
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(begin, begin + _ROWS_AT_ONCE)
            moved = self.points[rows[part]] + (1 + OVERSHOOT) * perturbation[part]
            margins = self.labels[rows[part]] * self.net(moved, num_threads=self.threads)
            flipped[part] = is_flipped(margins, self.definition)
        return flipped
