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

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.reference.convex_pieces import (
    PointProblem,
    Projection,
    piece_of,
    project,
)
from reluflow.reference.perturbation_bounds import (
    Intervals,
    ball_intervals,
    closed_form_multipliers,
    neuronwise_lower_bound,
    plane_bound,
    shor_lower_bound,
    tighten,
)
from reluflow.reference.ray_crossing import first_crossing

_ROOT_ROUNDS, _NODE_ROUNDS = 12, 4
_NEIGHBOURS = 6
_PAIRED_TARGETS = 4
_MOST_ENUMERATED = 10
_STRICTNESS = 1e-9
_CLOSED = 1e-8
_IRRATIONALS = np.sqrt([2.0, 3.0, 5.0, 7.0])


class Proof(enum.Enum):
    """What proved a radius."""

    none = 0
    already_flipped = 1
    neuronwise = 2
    certificate = 3
    relaxation = 4
    branching = 5
    never_flips = 6


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
    for solver in solvers:
        solver.bracket(lipschitz)
    stopped = StopReason.none
    try:
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
        stopped,
    )


class _LocalSearch:
    """Descends from piece to piece: project, and go on with what is active there."""

    def __init__(self, problem: PointProblem) -> None:
        self.problem = problem
        self.visited: set[bytes] = set()
        self.best: Projection | None = None
        self.subset = np.zeros(len(problem.v), dtype=bool)

    @property
    def distance(self) -> float:
        return np.inf if self.best is None else self.best.distance

    def from_ray(self, slopes: FloatArray) -> None:
        problem = self.problem
        t = first_crossing(problem.a, slopes, problem.v, problem.constant, strict=False)
        if np.isfinite(t):
            self.from_subset(problem.opposing & (problem.a + t * slopes > 0))

    def from_subset(self, subset: BoolArray) -> None:
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


class _PointSolver:
    """Bounds of one point that only ever get better."""

    def __init__(self, problem: PointProblem, strict: bool, rtol: float, slack: float) -> None:
        self.problem, self.strict, self.rtol, self.slack = problem, strict, rtol, slack
        self.radius, self.lower_bound = np.inf, 0.0
        self.coefficients = np.zeros(len(problem.v))
        self.subset = np.zeros(len(problem.v), dtype=bool)
        self.proof, self.nodes = Proof.none, 0
        self.best: Projection | None = None
        self.certified_radius = np.inf
        # "N < 0" as "N + margin <= 0" for a margin that no rounding error reaches.
        weights = np.abs(problem.v)
        scale = abs(problem.constant) + float(weights @ np.abs(problem.a))
        scale = scale or float(weights @ problem.norms) or 1.0
        margin = _STRICTNESS * scale if strict else 0.0
        self.searched = _LocalSearch(replace(problem, constant=problem.constant + margin))

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
        if self.lower_bound < (1 - _CLOSED) * self.radius:
            self.searched.widely(targets)
            if self.searched.best is None:
                self._enumerate()
            self._adopt()
            self._certify()

    def prove(self, max_nodes: int, deadline: float) -> None:
        if self.proof is not Proof.none or not np.isfinite(self.radius):
            return
        intervals = ball_intervals(self.problem, self.radius)
        bound, _ = tighten(
            self.problem, self.radius, self.enough, self.slack, _ROOT_ROUNDS, intervals
        )
        self._raise(bound)
        if self._settle(Proof.relaxation):
            return
        self._try_certificate(intervals)
        if self._settle(Proof.certificate):
            return
        self._branch(intervals, max_nodes, deadline)
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
        if self.radius == self.certified_radius or not np.isfinite(self.radius):
            return
        self.certified_radius = self.radius
        # A proof of a larger radius stands no more.
        self.proof = Proof.none
        if not self._settle(Proof.neuronwise):
            self._try_certificate(ball_intervals(self.problem, self.radius))
            self._settle(Proof.certificate)

    def _try_certificate(self, intervals: Intervals) -> None:
        if self.best is None:
            return
        multipliers = closed_form_multipliers(self.problem, intervals, self.best)
        point = -self.best.scale * (self.problem.rows.T @ self.best.multipliers)
        self._raise(shor_lower_bound(self.problem, intervals, multipliers, point, self.slack))

    def _branch(self, intervals: Intervals, max_nodes: int, deadline: float) -> None:
        """Best-first branch and bound over the signs of the undecided opposing neurons."""
        count = itertools.count()
        open_nodes = [_Node(0.0, next(count), intervals)]
        closed = self.radius
        while open_nodes and min(closed, open_nodes[0].bound) < self.enough:
            if self.nodes >= max_nodes or time.perf_counter() >= deadline:
                break
            node = heapq.heappop(open_nodes)
            self.nodes += 1
            bound, relaxed = tighten(
                self.problem, self.radius, self.enough, self.slack, _NODE_ROUNDS, node.intervals
            )
            node.bound = max(node.bound, bound)
            if node.bound < self.enough and relaxed is not None and np.isfinite(relaxed.distance):
                self.searched.from_subset(self.problem.opposing & (relaxed.z > 0))
                self._adopt()
            if node.bound >= self.enough:
                closed = min(closed, node.bound)
                continue
            neuron = self._widest_gap(node.intervals, relaxed)
            if neuron is None:
                closed = min(closed, self._leaf_bound(node))
                continue
            for end in ("low", "high"):
                child = node.intervals.copy()
                getattr(child, end)[neuron] = 0.0
                heapq.heappush(open_nodes, _Node(node.bound, next(count), child))
        bounds = [closed] + [node.bound for node in open_nodes]
        self._raise(min(bounds))

    def _leaf_bound(self, node: _Node) -> float:
        """All signs are decided: the node is one convex piece, and what is nearest on it flips."""
        low, high = node.intervals.low, node.intervals.high
        opposed = (self.problem.opposing & (high > 0)).any()
        if (low > high).any() or (self.strict and not opposed and self.problem.constant >= 0):
            return np.inf
        active = self.problem.opposing & (high > 0)
        piece = piece_of(self.problem, active)
        multipliers = project(self.problem, piece).multipliers
        bound = max(node.bound, plane_bound(self.problem, piece, multipliers, self.slack))
        if bound < self.enough:
            self.searched.from_subset(active)
            self._adopt()
        return bound

    def _widest_gap(self, intervals: Intervals, relaxed: Projection | None) -> int | None:
        """The undecided opposing neuron whose chord is furthest from it."""
        candidates = np.flatnonzero(self.problem.opposing & intervals.undecided)
        if len(candidates) == 0:
            return None
        low, high = intervals.low[candidates], intervals.high[candidates]
        z = np.clip((self.problem.a if relaxed is None else relaxed.z)[candidates], low, high)
        gap = -self.problem.v[candidates] * (high * (z - low) / (high - low) - np.maximum(z, 0))
        return int(candidates[np.argmax(gap)])

    def _enumerate(self) -> None:
        """Looks at every piece when no start led anywhere."""
        opposing = np.flatnonzero(self.problem.opposing)
        if len(opposing) > _MOST_ENUMERATED:
            return
        for bits in itertools.product((False, True), repeat=len(opposing)):
            subset = np.zeros(len(self.problem.v), dtype=bool)
            subset[opposing] = bits
            projection = project(self.searched.problem, piece_of(self.searched.problem, subset))
            if np.isfinite(projection.distance):
                self.searched.from_subset(subset)
            elif np.isfinite(projection.lower_bound):
                return
        if self.searched.best is None:
            self.radius = self.lower_bound = np.inf
            self.proof = Proof.never_flips


@dataclass(order=True)
class _Node:
    bound: float
    number: int
    intervals: Intervals = field(compare=False)
