"""The shortest shift that flips a given number of examples at once, by local search."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.robustness._least_distance import METRICS, Metric
from reluflow.robustness._row_space import RowSpace

# Relative to the terms of an output: what rounding may leave above 0, and how far below 0 "strict"
# asks it to be.
_ROUNDING = 1e-12
_STRICTLY = 1e-9
# Violations of a cut, relative to the terms of its output, that are none.
_FEASIBLE = 1e-13
_MOST_ROUNDS = 200
# Cuts added a round.
_MOST_NEW = 60
_PROGRESS = 1e-9
# A shift that is longer than the floor by no more than this share is as short as can be.
AT_THE_FLOOR = 1e-6
_MOST_STEPS = 50
# Share of the examples to be given up that is given up at a time.
_GIVEN_UP = 1 / 3
# Parts of the way at which it is asked which examples would flip first.
_STEPS_BACK = (0.99, 0.95, 0.85, 0.7)
# Crossings along a direction at which it is tried, and lengths beyond the last of them: an example
# that has been flipped may be back further on.
_MOST_LENGTHS = 40
_BEYOND = (1 + 1e-9, 1.02, 1.1, 1.3, 2.0, 4.0, 16.0)


@dataclass(frozen=True, eq=False)
class ShiftProblem:
    """Examples that are all moved by u, each with its sign, in the row space of the weights.

    Attributes
    ----------
    rows : ndarray, shape (R, r)
    preactivations : ndarray, shape (n, R)
    output : ndarray, shape (n, R)
        y_i v_j.
    constant : ndarray, shape (n,)
        y_i times what neurons without weights add.
    sign : ndarray, shape (n,)
        Example i is moved by sign_i u.
    terms : ndarray, shape (n,)
        Size of the terms of the output.
    metric : Metric
        The norm of u.
    inside : ndarray, shape (n,)
        It is flipped where y_i N <= -inside_i: 0, or a small part of the terms with "strict".
    """

    rows: FloatArray
    preactivations: FloatArray
    output: FloatArray
    constant: FloatArray
    sign: FloatArray
    terms: FloatArray
    inside: FloatArray
    metric: Metric

    @classmethod
    def of(
        cls,
        rows: FloatArray,
        space: RowSpace,
        preactivations: FloatArray,
        labels: FloatArray,
        sign: FloatArray,
        strict: bool,
        norm: str = "l2",
    ) -> ShiftProblem:
        """The problem of examples with labels (n,); rows L are in the frame of u."""
        output = np.outer(labels, space.output)
        terms = (np.abs(output) * np.abs(preactivations)).sum(axis=1) + abs(space.constant)
        return cls(
            rows,
            preactivations,
            output,
            labels * space.constant,
            sign,
            terms,
            _STRICTLY * terms if strict else np.zeros_like(terms),
            METRICS[norm],
        )

    def moved(self, u: FloatArray) -> FloatArray:
        """Pre-activations after the shift, shape (n, R)."""
        return self.preactivations + np.outer(self.sign, self.rows @ u)

    def excess(self, u: FloatArray) -> FloatArray:
        """y_i N after the shift, and what is needed below 0, shape (n,)."""
        outputs = (self.output * np.maximum(self.moved(u), 0.0)).sum(axis=1)
        return np.asarray(self.constant + outputs + self.inside)

    def flipped(self, u: FloatArray) -> BoolArray:
        """Which examples the shift flips."""
        return self.excess(u) <= _ROUNDING * self.terms

    def cuts(
        self, u: FloatArray, of: IntArray, subsets: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Planes below the convex pieces of examples ``of``, tangent at u: normals and offsets.

        A piece counts the opposing neurons of its subset as active (docs/theory.md, section 7.1).
        Without any it is never negative, and 0 where no supporting neuron is active: the plane is
        that of the supporting neuron that is furthest from it.
        """
        output, moved = self.output[of], self.moved(u)[of]
        active = np.where(output > 0, moved > 0, subsets[of])
        slopes = np.where(active, output, 0.0)
        silent = np.flatnonzero((self.constant[of] == 0) & ~(slopes < 0).any(axis=1))
        furthest = np.where(output > 0, output * moved, -np.inf)[silent].argmax(axis=1)
        slopes[silent] = 0.0
        slopes[silent, furthest] = output[silent, furthest]
        normals = self.sign[of, None] * (slopes @ self.rows)
        offsets = (slopes * self.preactivations[of]).sum(axis=1)
        return normals, offsets + self.constant[of] + self.inside[of]


@dataclass(frozen=True, eq=False)
class CommonShift:
    """What the search found: u, and whether it ended before its time did."""

    u: FloatArray
    finished: bool


def shortest_common_shift(
    problem: ShiftProblem,
    needed: int,
    starts: Iterable[tuple[FloatArray, FloatArray]],
    floor: float,
    deadline: float,
) -> CommonShift | None:
    """A short u that flips at least ``needed`` examples; None where no start does at any length.

    From every start: examples that are flipped there, and for each of them the opposing neurons
    that are active. For fixed examples and subsets the shortest u is a convex problem; its solution
    has other active neurons, and is shorter with those. Examples that hold it up are given up while
    there are more than needed (docs/theory.md, section 7.9).

    Parameters
    ----------
    problem : ShiftProblem
    needed : int
    starts : iterable of pairs of ndarray
        Unit vectors, shape (r,), and the lengths along them at which the examples first flip, (n,).
    floor : float
        Length below which there is no such u; the search ends where it is reached.
    deadline : float
        Of `time.perf_counter`.
    """
    length = problem.metric.length
    best: FloatArray | None = None
    for direction, crossings in starts:
        start = _along(problem, needed, direction, crossings)
        if start is None:
            continue
        if best is not None and time.perf_counter() > deadline:
            return CommonShift(best, False)
        found = _descended(problem, needed, start, deadline)
        if needed < len(problem.sign):
            found = _exchanged(problem, needed, found, deadline)
        if best is None or length(found) < length(best):
            best = found
        if length(best) <= (1 + AT_THE_FLOOR) * floor:
            break
    return None if best is None else CommonShift(best, time.perf_counter() <= deadline)


def _along(
    problem: ShiftProblem, needed: int, direction: FloatArray, crossings: FloatArray
) -> FloatArray | None:
    """The first of some points along a direction that flips enough."""
    lengths = np.sort(crossings[np.isfinite(crossings)])[needed - 1 :]
    if len(lengths) == 0:
        return None
    few = lengths[np.linspace(0, len(lengths) - 1, min(_MOST_LENGTHS, len(lengths))).astype(int)]
    for length in (*(_BEYOND[0] * few), *(factor * lengths[-1] for factor in _BEYOND)):
        point = np.asarray(length * direction)
        if problem.flipped(point).sum() >= needed:
            return point
    return None


def _descended(problem: ShiftProblem, needed: int, u: FloatArray, deadline: float) -> FloatArray:
    """The end of the descent from a u that flips enough."""
    length = problem.metric.length
    chosen = np.flatnonzero(problem.flipped(u))
    for _ in range(_MOST_STEPS):
        found = _shortest(problem, chosen, u, deadline)
        if found is None:
            return u
        point, weight = found
        if len(chosen) > needed:
            chosen = _without_the_heaviest(chosen, weight, needed)
            u = point
            continue
        if length(point) >= (1 - _PROGRESS) * length(u):
            return point if length(point) < length(u) else u
        u = point
    return u


def _without_the_heaviest(chosen: IntArray, weight: FloatArray, needed: int) -> IntArray:
    spare = len(chosen) - needed
    count = max(1, int(_GIVEN_UP * spare))
    heaviest = np.argsort(-weight, kind="stable")[:count]
    # Examples without weight hold nothing up; one that costs nothing to keep is given up only when
    # nothing else is left.
    holding = heaviest[weight[heaviest] > 0]
    given_up = holding if len(holding) else np.argsort(weight, kind="stable")[:spare]
    return np.delete(chosen, given_up)


def _exchanged(problem: ShiftProblem, needed: int, u: FloatArray, deadline: float) -> FloatArray:
    """Tries the examples that would flip first at a shorter shift, as long as that helps."""
    improved = True
    while improved and time.perf_counter() <= deadline:
        improved = False
        for part in _STEPS_BACK:
            everything = np.arange(len(problem.sign))
            normals, _ = problem.cuts(part * u, everything, problem.moved(part * u) > 0)
            reach = problem.excess(part * u) / np.maximum(np.linalg.norm(normals, axis=1), 1e-300)
            chosen = np.sort(np.argsort(reach, kind="stable")[:needed])
            found = _shortest(problem, chosen, part * u, deadline)
            if found is None or not problem.flipped(found[0]).sum() >= needed:
                continue
            point = _descended(problem, needed, found[0], deadline)
            if problem.metric.length(point) < (1 - 1e-6) * problem.metric.length(u):
                u, improved = point, True
                break
    return u


def _shortest(
    problem: ShiftProblem, chosen: IntArray, u: FloatArray, deadline: float
) -> tuple[FloatArray, FloatArray] | None:
    """The shortest shift that flips all ``chosen`` on the pieces that are active at u, and how much
    each of them holds it up; None where there is none, or time is over.

    Cutting planes (Kelley 1960): a piece is the maximum of planes, and the shortest point below
    those found so far shows which are missing. Planes that do not hold anything are forgotten.
    """
    subsets = problem.moved(u) > 0
    owner, (normals, offsets) = chosen, problem.cuts(u, chosen, subsets)
    longest = -1.0
    for _ in range(_MOST_ROUNDS):
        if time.perf_counter() > deadline:
            return None
        solved = _with_working_set(problem.metric, normals, offsets)
        if solved is None:
            return None
        point, multipliers = solved
        new_normals, new_offsets = problem.cuts(point, chosen, subsets)
        violation = new_normals @ point + new_offsets
        violated = np.flatnonzero(violation > _FEASIBLE * problem.terms[chosen])
        length = problem.metric.length(point)
        if len(violated) == 0 or length <= longest * (1 - 1e-12):
            weight = np.bincount(owner, multipliers, minlength=len(problem.sign))[chosen]
            return point, np.asarray(weight, dtype=np.float64)
        longest = length
        worst = violated[np.argsort(-violation[violated], kind="stable")[:_MOST_NEW]]
        held = multipliers > 0
        owner = np.concatenate([owner[held], chosen[worst]])
        normals = np.concatenate([normals[held], new_normals[worst]])
        offsets = np.concatenate([offsets[held], new_offsets[worst]])
    return None


def _with_working_set(
    metric: Metric, normals: FloatArray, offsets: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    """The shortest vector below many planes, most of which do not matter."""
    lengths = np.maximum(np.linalg.norm(normals, axis=1), 1e-300)
    working = np.argsort(-offsets / lengths, kind="stable")[:_MOST_NEW]
    for _ in range(_MOST_ROUNDS):
        solved = metric.shortest(normals[working], offsets[working])
        if solved is None:
            return None
        point, found = solved
        values = (normals @ point + offsets) / lengths
        values[working] = -np.inf
        violated = np.flatnonzero(values > 1e-12 * np.linalg.norm(point))
        if len(violated) == 0:
            multipliers = np.zeros(len(offsets))
            multipliers[working] = found
            return point, multipliers
        worst = violated[np.argsort(-values[violated], kind="stable")[:_MOST_NEW]]
        working = np.concatenate([working[found > 0], worst])
    return None
