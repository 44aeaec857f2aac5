"""Sequential quadratic programming for the max-margin problem of a deep network.

    min 1/2 ||theta||^2   subject to   q_p >= 1 for every piece p of the margins.

The pieces (`reluflow.kkt.deep_pieces`) are smooth, so that Newton's method on the KKT conditions,
which is what sequential quadratic programming is (Nocedal & Wright 2006, chapter 18), converges
quadratically. A quadratic program is solved by Clarabel (Goulart & Chen 2024), or as linear
equations where the support of the one before is still right, which its optimality conditions say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.optimize import nnls

from reluflow._validation import FloatArray
from reluflow.kkt.deep_pieces import Linearised, Model, Pieces
from reluflow.kkt.deep_units import Units

_MAX_ITERATIONS = 50
# How near its kink a unit is tried on both sides: at the start of a late flow, and at the end.
_NEAR, _NEAREST = 0.05, 1e-6
_NARROWING = 0.3
# A residual that is small enough, and iterations without a smaller one.
_ENOUGH = 1e-10
_PATIENCE = 8
# Of the largest multiplier: below it a piece is not part of the support.
_SUPPORT = 1e-9
# A piece of another moment is one of this moment, too, where it is not below the margin.
_BELOW = 1e-9
# Relative stationarity from which on a solution is near, and distances to kinks that are none.
_CLOSE, _SAME_SIDE = 1e-3, 1e-10
# Of equations: what they may leave, relative to the margin 1 and to the largest multiplier.
_LEFT = 1e-9
_RIDGE = 1e-14
_LONGEST = 0.5
# Added to the diagonal of a Hessian until it is positive definite.
_FIRST_RIDGE, _STIFFER = 1e-3, 4.0
# What violating a constraint costs, over ||theta||^2.
_ELASTIC = 2.0


@dataclass(frozen=True)
class Polished:
    """A point of the iteration with the multipliers of its pieces.

    Attributes
    ----------
    units : Units
    layers : list of ndarray
        Weights of one unit a group.
    pieces : Pieces
    multipliers : ndarray, shape (p,)
    residual : float
        The largest of the relative residuals, distances of multiplied pieces to their kinks among
        them.
    iterations : int
        Quadratic programs solved.
    """

    units: Units
    layers: list[FloatArray]
    pieces: Pieces
    multipliers: FloatArray
    residual: float
    iterations: int


def polish(units: Units, layers: list[FloatArray], model: Model) -> Polished | None:
    """The best point of the iteration from a merged network that classifies every example.

    None where a quadratic program has no solution, or a layer is left without units.
    """
    scale = float(model.margins(layers).min()) ** (-1 / len(layers))
    layers = [scale * weights for weights in layers]
    near, before, best, waited = _NEAR, None, None, 0
    for iteration in range(_MAX_ITERATIONS):
        smaller = units.reduced(layers)
        if smaller is not None:
            (units, layers), before = smaller, None
        if min(units.counts) == 0:
            return best
        pieces, multipliers = _with_multipliers(model, layers, model.pieces(layers, near), before)
        at = model.linearised(layers, pieces)
        J = at.gradients()
        if before is not None:
            multipliers = _fewest(model, layers, pieces, J, at.margins, multipliers)
            residual = _residual(model, layers, pieces, J, at.margins, multipliers)
            waited += 1
            if best is None or residual < best.residual:
                best = Polished(units, layers, pieces, multipliers, residual, iteration)
                waited = 0
            if residual <= _ENOUGH or waited >= _PATIENCE:
                return best
        solved = _step(layers, at, J, multipliers)
        if solved is None:
            return best
        step, multipliers = solved
        before = (pieces, multipliers)
        layers = _moved(layers, step)
        near = max(_NARROWING * near, _NEAREST)
    return best


def _with_multipliers(
    model: Model,
    layers: list[FloatArray],
    pieces: Pieces,
    before: tuple[Pieces, FloatArray] | None,
) -> tuple[Pieces, FloatArray]:
    """Pieces with the multipliers that they had, and those of before that still carry some."""
    if before is None:
        return pieces, np.zeros(len(pieces))
    older, carried = before
    place = {key: p for p, key in enumerate(pieces.keys())}
    supported = carried > _SUPPORT * carried.max()
    floor = model.margins(layers)[older.example] - _BELOW
    valid = supported & (model.linearised(layers, older).margins >= floor)
    keys = older.keys()
    kept = [p for p in np.flatnonzero(valid) if keys[p] not in place]
    multipliers = np.zeros(len(pieces))
    for key, value in zip(keys, carried, strict=True):
        if key in place:
            multipliers[place[key]] = max(0.0, value)
    if not kept:
        return pieces, multipliers
    left = np.array(kept, dtype=np.int64)
    return pieces.joined(older.subset(left)), np.concatenate([multipliers, carried[left]])


def _fewest(
    model: Model,
    layers: list[FloatArray],
    pieces: Pieces,
    J: FloatArray,
    margins: FloatArray,
    lam: FloatArray,
) -> FloatArray:
    """Multipliers of independent pieces at the sides of the examples, near a solution.

    Interior points leave something on constraints with room, and share it among dependent ones.
    """
    active = lam > lam.max() * (margins - 1)
    theta, carried = _flat(layers), np.where(active, lam, 0.0)
    left = float(np.linalg.norm(theta - carried @ J) / np.linalg.norm(theta))
    if left > _CLOSE:
        return lam
    columns = np.flatnonzero(
        (np.abs(margins - 1) <= _CLOSE) & (model.gaps(layers, pieces) <= max(left, _SAME_SIDE))
    )
    if len(columns) == 0:
        return carried
    lengths = np.linalg.norm(J[columns], axis=1)
    try:
        basic, without = nnls((J[columns] / lengths[:, None]).T, theta)
    except RuntimeError:
        return carried
    if without > 10 * max(left, _SAME_SIDE) * np.linalg.norm(theta):
        return carried
    found = np.zeros(len(lam))
    found[columns] = basic / lengths
    return found


def _residual(
    model: Model,
    layers: list[FloatArray],
    pieces: Pieces,
    J: FloatArray,
    margins: FloatArray,
    lam: FloatArray,
) -> float:
    theta = _flat(layers)
    stationarity = np.linalg.norm(theta - lam @ J) / np.linalg.norm(theta)
    feasibility = max(0.0, float((1 - model.margins(layers)).max()))
    complementarity = np.abs(lam * (margins - 1)).max() / max(lam.max(), 1e-300)
    gap = model.gaps(layers, pieces)[lam > 0].max(initial=0.0)
    return float(max(stationarity, feasibility, complementarity, gap))


def _step(
    layers: list[FloatArray], at: Linearised, J: FloatArray, lam: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    """Step and multipliers of the quadratic program.

    The Hessian of the Lagrangian is negative along the layers' scales, which constraints hold
    fixed: squares of the active constraints, which are zero at the solution, make it positive.
    """
    theta, room = _flat(layers), at.margins - 1
    solution = None
    H = np.eye(len(theta))
    if lam.any():
        H, factor = _positive_definite(H - at.hessian(lam), J, lam, float(theta @ theta))
        solution = _on_support(factor, theta, J, room, lam)
    if solution is None:
        # No multiplier of a KKT point is larger than their sum, ||theta||^2 / L.
        solution = _solve(H, theta, J, room, _ELASTIC * float(theta @ theta))
    if solution is None:
        return None
    step, multipliers = solution
    length = float(np.linalg.norm(step) / np.linalg.norm(theta))
    return step * min(1.0, _LONGEST / max(length, 1e-300)), multipliers


def _positive_definite(
    curvature: FloatArray, J: FloatArray, lam: FloatArray, size: float
) -> tuple[FloatArray, FloatArray]:
    """The Hessian, with squares of the active constraints' changes added, and its factor.

    Those are given at a solution, so that Newton's step stays what it is. A multiple of the
    identity does the rest where constraints are degenerate.
    """
    stiff = curvature + (J.T * (size * lam / lam.sum())) @ J
    factor, ridge = _factor(stiff), _FIRST_RIDGE
    while factor is None:
        stiff[np.diag_indices_from(stiff)] += ridge
        factor, ridge = _factor(stiff), _STIFFER * ridge
    return stiff, factor


def _factor(H: FloatArray) -> FloatArray | None:
    try:
        return np.asarray(scipy.linalg.cholesky(H, lower=True, check_finite=False))
    except np.linalg.LinAlgError:
        return None


def _on_support(
    factor: FloatArray, slope: FloatArray, J: FloatArray, room: FloatArray, lam: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    """As `_solve`, with the pieces that carry ``lam`` active and no others; None where it is not.

    Active pieces may depend on each other. Then their multipliers are not unique, and those near
    ``lam`` are taken.
    """
    support = lam > _SUPPORT * lam.max(initial=0.0)
    if not support.any():
        return None
    active, carried = J[support], lam[support]
    half = _lower(factor, active.T)
    pull = _lower(factor, slope) - half @ carried
    squares = half.T @ half
    squares[np.diag_indices_from(squares)] += _RIDGE * np.trace(squares)
    inner = _factor(squares)
    if inner is None:
        return None
    change = _lower(inner, _lower(inner, half.T @ pull - room[support]), transposed=True)
    step = -_lower(factor, pull - half @ change, transposed=True)
    multipliers = np.zeros(len(lam))
    multipliers[support] = carried + change
    fits = np.abs(active @ step + room[support]).max() <= _LEFT
    holds = (J @ step + room).min() >= -_LEFT
    if not fits or not holds or multipliers.min() < -_LEFT * multipliers.max():
        return None
    return step, np.maximum(multipliers, 0)


def _lower(factor: FloatArray, right: FloatArray, *, transposed: bool = False) -> FloatArray:
    solved: Any = scipy.linalg.solve_triangular(
        factor, right, lower=True, trans="T" if transposed else "N", check_finite=False
    )
    return np.asarray(solved)


def _solve(
    H: FloatArray, slope: FloatArray, J: FloatArray, room: FloatArray, cost: float
) -> tuple[FloatArray, FloatArray] | None:
    """min 1/2 d^T H d + slope . d + cost . e  subject to  J d + room + e >= 0, e >= 0.

    With the multipliers of the first constraints. Violations e keep it solvable far from a
    solution, where linearised constraints may contradict each other; they are 0 where multipliers
    stay below the cost (Nocedal & Wright 2006, section 18.5).
    """
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.direct_solve_method = "faer"
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    p, size = len(room), len(slope)
    elastic = scipy.sparse.identity(p, format="csc")
    quadratic: Any = scipy.sparse.csc_matrix(np.triu(H))
    bounds: Any = scipy.sparse.vstack(
        [scipy.sparse.csc_matrix(-J), scipy.sparse.csc_matrix((p, size))]
    )
    found = clarabel.DefaultSolver(
        scipy.sparse.block_diag([quadratic, scipy.sparse.csc_matrix((p, p))], format="csc"),
        np.concatenate([slope, np.full(p, cost)]),
        scipy.sparse.hstack([bounds, scipy.sparse.vstack([-elastic, -elastic])], format="csc"),
        np.concatenate([room, np.zeros(p)]),
        [clarabel.NonnegativeConeT(2 * p)],
        settings,
    ).solve()
    step, multipliers = np.array(found.x)[:size], np.array(found.z)[:p]
    if not (np.isfinite(step).all() and np.isfinite(multipliers).all()):
        return None
    return step, np.clip(multipliers, 0, cost)


def _flat(layers: list[FloatArray]) -> FloatArray:
    return np.concatenate([weights.ravel() for weights in layers])


def _moved(layers: list[FloatArray], step: FloatArray) -> list[FloatArray]:
    ends = np.cumsum([weights.size for weights in layers])[:-1]
    return [
        weights + part.reshape(weights.shape)
        for weights, part in zip(layers, np.split(step, ends), strict=True)
    ]
