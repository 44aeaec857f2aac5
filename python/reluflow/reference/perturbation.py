"""The smallest perturbation that flips a point: local search from many starts, then proof.

docs/theory.md, section 7. Perturbations live in the row space of the weights: u moves the
pre-activations from a to a + rows u, where rows rows^T = W W^T.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import time
from dataclasses import dataclass, field, replace

import numpy as np

from reluflow._validation import FloatArray, IntArray
from reluflow.reference.certificate import closed_form_bound, dual_bound
from reluflow.reference.convex_pieces import (
    PointProblem,
    Projection,
    piece_of,
    project,
)
from reluflow.reference.local_search import LocalSearch
from reluflow.reference.minorant import ShorMultipliers
from reluflow.reference.perturbation_bounds import (
    Intervals,
    ball_intervals,
    neuronwise_lower_bound,
    plane_bound,
    tighten,
)
from reluflow.reference.proof_trail import ProofSteps, ProofTrail
from reluflow.reference.ray_crossing import first_crossing

_ROOT_ROUNDS, _NODE_ROUNDS = 12, 4
_MOST_ENUMERATED = 10
_STRICTNESS = 1e-9
_CLOSED = 1e-8


class Proof(enum.Enum):
    """What proved a radius."""

    none = 0
    already_flipped = 1
    neuronwise = 2
    certificate = 3
    relaxation = 4
    dual = 5
    branching = 6
    never_flips = 7


class StopReason(enum.Enum):
    """Why the kernel stopped early."""

    none = 0
    interrupted = 1
    deadline = 2


@dataclass(frozen=True)
class PerturbationOutcome:
    """One entry a point; the perturbation is rows^T coefficients."""

    radius: FloatArray
    lower_bound: FloatArray
    coefficients: FloatArray
    subsets: FloatArray
    proofs: list[Proof]
    nodes: IntArray
    steps: ProofSteps
    stopped: StopReason


@dataclass(frozen=True)
class SubsetProjections:
    """One entry a point."""

    distance: FloatArray
    lower_bound: FloatArray
    coefficients: FloatArray


def subset_projections(
    rows: FloatArray,
    output: FloatArray,
    constant: float,
    preactivations: FloatArray,
    labels: FloatArray,
    subsets: FloatArray,
    num_threads: int,
) -> SubsetProjections:
    """Nearest point of one convex piece for each point: ``subsets`` (n, R) marks the opposing
    neurons that count as active.
    """
    projections = []
    for a, y, subset in zip(preactivations, labels, subsets, strict=True):
        problem = PointProblem(rows, a, y * output, y * constant)
        projections.append(project(problem, piece_of(problem, subset != 0)))
    return SubsetProjections(
        np.array([p.distance for p in projections]),
        np.array([p.lower_bound for p in projections]),
        np.array([p.coefficients for p in projections]),
    )


def min_perturbations(
    rows: FloatArray,
    output: FloatArray,
    constant: float,
    lipschitz: float,
    preactivations: FloatArray,
    labels: FloatArray,
    slack: FloatArray,
    targets: FloatArray,
    target_order: IntArray,
    strict: bool,
    rtol: float,
    max_nodes: int,
    max_seconds: float,
    num_threads: int,
    keep_proofs: bool,
) -> PerturbationOutcome:
    """Smallest perturbations of n points with pre-activations (n, R).

    Row i of ``target_order`` (n, s) names rows of ``targets`` (p, R), pre-activations at points
    that are likely to be flipped, the most useful first, filled up with -1. Outputs computed from
    the pre-activations may be off by ``slack``; ``lipschitz`` bounds |N(u) - N(0)| / ||u||.
    """
    deadline = time.perf_counter() + max_seconds
    solvers = [
        _PointSolver(PointProblem(rows, a, y * output, y * constant), strict, rtol, margin)
        for a, y, margin in zip(preactivations, labels, slack, strict=True)
    ]
    stopped = StopReason.none
    try:
        for solver in solvers:
            if time.perf_counter() >= deadline:
                break
            solver.bracket(lipschitz)
        for solver, order in zip(solvers, target_order, strict=True):
            if time.perf_counter() >= deadline:
                stopped = StopReason.deadline
                break
            if solver.proof is Proof.none:
                solver.search(targets[order[order >= 0]])
                solver.prove(max_nodes, deadline)
    except KeyboardInterrupt:
        stopped = StopReason.interrupted
    return PerturbationOutcome(
        np.array([s.radius for s in solvers]),
        np.array([s.lower_bound for s in solvers]),
        np.array([s.coefficients for s in solvers]).reshape(len(solvers), len(output)),
        np.array([s.subset for s in solvers], dtype=float).reshape(len(solvers), len(output)),
        [s.proof for s in solvers],
        np.array([s.nodes for s in solvers], dtype=np.int64),
        ProofSteps.of([s.trail for s in solvers] if keep_proofs else []),
        stopped,
    )


class _PointSolver:
    """Bounds of one point that only ever get better."""

    def __init__(self, problem: PointProblem, strict: bool, rtol: float, slack: float) -> None:
        self.problem, self.strict, self.rtol, self.slack = problem, strict, rtol, slack
        self.radius, self.lower_bound = np.inf, 0.0
        self.coefficients = np.zeros(len(problem.v))
        self.subset = np.zeros(len(problem.v), dtype=bool)
        self.proof, self.nodes = Proof.none, 0
        self.best: Projection | None = None
        self.trail = ProofTrail()
        self.certified_radius = np.inf
        # "N < 0" as "N + margin <= 0" for a margin that no rounding error reaches.
        weights = np.abs(problem.v)
        scale = abs(problem.constant) + float(weights @ np.abs(problem.a))
        scale = scale or float(weights @ problem.norms) or 1.0
        margin = _STRICTNESS * scale if strict else 0.0
        self.searched = LocalSearch(replace(problem, constant=problem.constant + margin))

    @property
    def enough(self) -> float:
        return (1 - self.rtol) * self.radius

    def bracket(self, lipschitz: float) -> None:
        problem = self.problem
        value = problem.constant + float(problem.v @ np.maximum(problem.a, 0))
        if value < 0 or (value == 0 and not self.strict):
            self.radius, self.proof = 0.0, Proof.already_flipped
            return
        self.lower_bound = max(
            neuronwise_lower_bound(problem, self.slack), max(0.0, value - self.slack) / lipschitz
        )
        active = np.where(problem.a > 0, problem.v, 0.0)
        normal = problem.rows.T @ active
        slopes = -problem.rows @ normal
        t = first_crossing(problem.a, slopes, problem.v, problem.constant, self.strict)
        if np.isfinite(t):
            self.radius = t * float(np.linalg.norm(normal))
            self.coefficients = -t * active
            self.subset = problem.opposing & (problem.a + t * slopes > 0)
        self.lower_bound = min(self.lower_bound, self.radius)

    def search(self, targets: FloatArray) -> None:
        """From the cheap starts, and from all others where those do not close the gap."""
        self.searched.along_gradients()
        self._adopt()
        self._certify()
        if np.isinf(self.radius) or self.lower_bound < (1 - _CLOSED) * self.radius:
            self.searched.widely(targets)
            if self.searched.best is None:
                self._enumerate()
            self._adopt()
            self._certify()

    def prove(self, max_nodes: int, deadline: float) -> None:
        if self.proof is not Proof.none or not np.isfinite(self.radius):
            return
        self.trail.enter(0, self.radius)
        intervals = ball_intervals(self.problem, self.radius)
        bound, _ = tighten(
            self.problem, self.radius, self.enough, self.slack, _ROOT_ROUNDS, intervals, self.trail
        )
        self._raise(bound)
        if self._settle(Proof.relaxation) or self.best is None:
            return
        bound, _, multipliers = dual_bound(
            self.problem,
            self.best,
            None,
            self.radius,
            self.enough,
            self.slack,
            intervals,
            self.trail,
        )
        self._raise(bound)
        if self._settle(Proof.dual):
            return
        self._branch(_Node(0.0, 0, intervals, self.best.z, multipliers), max_nodes, deadline)
        self._settle(Proof.branching)

    def _raise(self, bound: float) -> None:
        self.lower_bound = min(self.radius, max(self.lower_bound, bound))

    def _settle(self, proof: Proof) -> bool:
        self.lower_bound = min(self.lower_bound, self.radius)
        proved = np.isfinite(self.radius) and self.lower_bound >= self.enough
        if self.proof is Proof.none and proved:
            self.proof = proof
        return self.proof is not Proof.none

    def _adopt(self) -> None:
        """Takes over the best piece of the search, projected without the margin."""
        if self.searched.best is None:
            return
        exact = project(self.problem, piece_of(self.problem, self.searched.subset))
        if self.best is not None and exact.distance >= self.radius:
            return
        self.best, self.radius = exact, exact.distance
        self.coefficients = exact.coefficients
        self.subset = self.searched.subset

    def _certify(self) -> None:
        if self.best is None or self.radius == self.certified_radius:
            return
        self.certified_radius = self.radius
        # A proof of a larger radius stands no more.
        self.proof = Proof.none
        settled = self._settle(Proof.neuronwise)
        self.trail.enter(0, self.radius)
        intervals = ball_intervals(self.problem, self.radius)
        known = 0.0 if settled else self.lower_bound
        bound = closed_form_bound(self.problem, intervals, self.best, self.slack, known, self.trail)
        if not settled:
            self._raise(bound)
            self._settle(Proof.certificate)

    def _branch(self, root: _Node, max_nodes: int, deadline: float) -> None:
        """Best-first branch and bound over the signs of the undecided opposing neurons.

        One node at a time, where the compiled kernel looks at several.
        """
        open_nodes = [root]
        closed = self.radius
        while open_nodes and open_nodes[0].bound < self.enough:
            if self.nodes >= max_nodes or time.perf_counter() >= deadline:
                break
            node = heapq.heappop(open_nodes)
            self.trail.enter(node.number, self.radius)
            self.nodes += 1
            neuron = self._bound_by_chords(node)
            if node.bound < self.enough:
                neuron = self._bound_by_minorants(node, neuron)
            if node.bound >= self.enough:
                closed = min(closed, node.bound)
                continue
            undecided = np.flatnonzero(self.problem.opposing & node.intervals.undecided)
            if len(undecided) == 0:
                closed = min(closed, self._leaf_bound(node))
                continue
            if neuron is None or neuron not in undecided:
                neuron = int(undecided[0])
            number = self.trail.branch(neuron)
            for end in ("high", "low"):
                child = node.intervals.copy()
                getattr(child, end)[neuron] = 0.0
                heapq.heappush(open_nodes, replace(node, number=number, intervals=child))
                number += 1
        self._raise(min([closed, *(node.bound for node in open_nodes)]))

    def _bound_by_chords(self, node: _Node) -> int | None:
        bound, relaxed = tighten(
            self.problem,
            self.radius,
            self.enough,
            self.slack,
            _NODE_ROUNDS,
            node.intervals,
            self.trail,
        )
        node.bound = max(node.bound, bound)
        if relaxed is not None and np.isfinite(relaxed.distance):
            node.likely = relaxed.z
        return self._widest_gap(node)

    def _bound_by_minorants(self, node: _Node, neuron: int | None) -> int | None:
        """Around the projection onto the piece that is likely to be the best of the node."""
        guess = np.where(node.intervals.undecided, node.likely, node.intervals.high)
        subset = self.problem.opposing & (guess > 0)
        projection = project(self.problem, piece_of(self.problem, subset))
        if projection.distance < self.radius:
            self.searched.from_subset(subset)
            self._adopt()
            self.trail.enter(node.number, self.radius)
        if not 0 < projection.scale < np.inf:
            return neuron
        bound, widest, node.multipliers = dual_bound(
            self.problem,
            projection,
            node.multipliers,
            self.radius,
            self.enough,
            self.slack,
            node.intervals,
            self.trail,
        )
        node.bound = max(node.bound, bound)
        return neuron if widest is None else widest

    def _leaf_bound(self, node: _Node) -> float:
        """All signs are decided: the node is one convex piece, and what is nearest on it flips."""
        low, high = node.intervals.low, node.intervals.high
        opposed = (self.problem.opposing & (high > 0)).any()
        if (low > high).any() or (self.strict and not opposed and self.problem.constant >= 0):
            return np.inf
        active = self.problem.opposing & (high > 0)
        piece = piece_of(self.problem, active)
        multipliers = project(self.problem, piece).multipliers
        self.trail.plane(multipliers)
        bound = max(node.bound, plane_bound(self.problem, piece, multipliers, self.slack))
        if bound < self.enough:
            self.searched.from_subset(active)
            self._adopt()
        return bound

    def _widest_gap(self, node: _Node) -> int | None:
        """The undecided opposing neuron whose chord is furthest from it."""
        candidates = np.flatnonzero(self.problem.opposing & node.intervals.undecided)
        if len(candidates) == 0:
            return None
        low, high = node.intervals.low[candidates], node.intervals.high[candidates]
        z = np.clip(node.likely[candidates], low, high)
        gap = -self.problem.v[candidates] * (high * (z - low) / (high - low) - np.maximum(z, 0))
        return int(candidates[np.argmax(gap)])

    def _enumerate(self) -> None:
        """Looks at every piece when no start led anywhere."""
        opposing = np.flatnonzero(self.problem.opposing)
        if len(opposing) > _MOST_ENUMERATED:
            return
        projections = []
        for bits in itertools.product((False, True), repeat=len(opposing)):
            subset = np.zeros(len(self.problem.v), dtype=bool)
            subset[opposing] = bits
            projection = project(self.searched.problem, piece_of(self.searched.problem, subset))
            projections.append(projection)
            if np.isfinite(projection.distance):
                self.searched.from_subset(subset)
            elif np.isfinite(projection.lower_bound):
                return
        if self.searched.best is None:
            self.radius = self.lower_bound = np.inf
            self.proof = Proof.never_flips
            self._note_subsets(opposing, projections)

    def _note_subsets(self, opposing: IntArray, projections: list[Projection]) -> None:
        """The tree of all subsets of opposing neurons, each a leaf that is shown to be empty."""
        nodes = [0]
        for neuron in opposing:
            children = []
            for node in nodes:
                self.trail.enter(node, np.inf)
                child = self.trail.branch(int(neuron))
                children += [child, child + 1]
            nodes = children
        for node, projection in zip(nodes, projections, strict=True):
            self.trail.enter(node, np.inf)
            self.trail.plane(projection.multipliers)


@dataclass(order=True)
class _Node:
    bound: float
    number: int
    intervals: Intervals = field(compare=False)
    likely: FloatArray = field(compare=False)
    multipliers: ShorMultipliers | None = field(compare=False)
