"""Small perturbations in the sum of absolute values and in the largest one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.robustness._common_shift import ShiftProblem, shortest_common_shift
from reluflow.robustness._least_distance import METRICS
from reluflow.robustness._row_space import RowSpace

# Targets that a search starts towards.
_MOST_TARGETS = 3
# Rounding of norms in lower bounds.
_MARGIN = 1e-9


@dataclass(frozen=True, eq=False)
class NormBounds:
    """Bounds on smallest perturbations in one norm.

    Attributes
    ----------
    radius : ndarray, shape (n,)
        Norm of the shortest perturbation found, infinite where none was.
    lower_bound : ndarray, shape (n,)
        y N(x) over sum_j |v_j| ||w_j||, the dual norm of the weights.
    perturbation : ndarray, shape (n, d)
    finished : bool
        Whether the search was not cut short.
    """

    radius: FloatArray
    lower_bound: FloatArray
    perturbation: FloatArray
    finished: bool


def search_in_norm(
    norm: str,
    space: RowSpace,
    points: FloatArray,
    labels: FloatArray,
    targets: FloatArray,
    chosen: IntArray,
    strict: bool,
    deadline: float,
    kernel: ModuleType,
) -> NormBounds:
    """Local search as for Euclidean perturbations (docs/theory.md, section 7.2), each projection a
    linear program.

    Parameters
    ----------
    norm : {"l1", "linf"}
    targets : ndarray, shape (p, d)
    chosen : ndarray of int, shape (n, s)
        Which targets to try for every point, -1 for none.
    """
    metric = METRICS[norm]
    n, preactivations = len(points), space.preactivations(points)
    radius, perturbation = np.full(n, np.inf), np.zeros_like(points)
    margins = labels * (np.maximum(preactivations, 0.0) @ space.output + space.constant)
    lipschitz = float(np.abs(space.output) @ metric.dual_lengths(space.weights))
    surely = np.maximum(margins - space.rounding(points), 0.0) * (1 - _MARGIN)
    lower = np.full(n, np.inf) if lipschitz == 0 else surely / lipschitz
    flipped: BoolArray = margins < 0 if strict else margins <= 0
    radius[flipped] = lower[flipped] = 0.0
    finished = True
    for i in np.flatnonzero(~flipped):
        if time.perf_counter() > deadline:
            finished = False
            break
        problem = ShiftProblem.of(
            space.weights, space, preactivations[[i]], labels[[i]], np.ones(1), strict, norm
        )
        towards = targets[chosen[i][chosen[i] >= 0][:_MOST_TARGETS]] - points[i]
        starts = (
            (unit, _crossing(kernel, space, preactivations[[i]], labels[[i]], unit, strict))
            for unit in _starts(problem, towards, norm)
        )
        found = shortest_common_shift(problem, 1, starts, float(lower[i]), deadline)
        if found is not None:
            radius[i], perturbation[i] = metric.length(found.u), found.u
            finished = finished and found.finished
    return NormBounds(radius, np.minimum(lower, radius), perturbation, finished)


def _crossing(
    kernel: ModuleType,
    space: RowSpace,
    preactivations: FloatArray,
    labels: FloatArray,
    unit: FloatArray,
    strict: bool,
) -> FloatArray:
    crossing: FloatArray = kernel.ray_crossings(
        preactivations,
        space.weights @ unit,
        np.ones(1),
        space.output,
        space.constant,
        labels,
        strict,
        1,
    )
    return crossing


def _starts(problem: ShiftProblem, towards: FloatArray, norm: str) -> Iterator[FloatArray]:
    """Unit vectors (Euclidean): steepest in the norm, with the opposing neurons as they are and all
    active, and towards targets.
    """
    output, z = problem.output[0], problem.preactivations[0]
    for active in (z > 0, (z > 0) | (output < 0), output < 0):
        gradient = np.where(active, output, 0.0) @ problem.rows
        steepest = -np.sign(gradient)
        if norm == "l1":
            steepest *= np.abs(gradient) == np.abs(gradient).max()
        yield from _unit(steepest)
        yield from _unit(-gradient)
    for vector in towards:
        yield from _unit(vector)


def _unit(vector: FloatArray) -> Iterator[FloatArray]:
    length = float(np.linalg.norm(vector))
    if length > 0:
        yield vector / length
