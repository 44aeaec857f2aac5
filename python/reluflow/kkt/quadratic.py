"""Convex quadratic programs over multipliers lam >= 0 and kink forces 0 <= t_r <= lam_e(r).

    min 1/2 x^T H x - h^T x,   x = (lam, t)

Each t_r belongs to one example e(r); several may belong to the same. This is the shape of the
best-multiplier problem and of the KKT conditions with output weights fixed (docs/theory.md,
sections 4.7 and 4.8). H is dense, and most multipliers are zero: a working set of examples is
solved by a dense interior-point method (Mehrotra 1992), which finds the active constraints, and
finished to rounding level by solving with these as equations; then violated examples join.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from reluflow._validation import BoolArray, FloatArray, IntArray

_MAX_ROUNDS = 20
_MAX_ITERATIONS = 60
_MAX_CHANGES = 30
# Mean complementarity, relative to its start, at which the active constraints are known.
_GAP = 1e-12
# Of the mean diagonal of H: picks one solution where H is singular, below every other error.
_RIDGE = 1e-14
# Of the largest gradient, or value: below it counts as zero.
_ZERO = 1e-11

_AT_ZERO, _FREE, _AT_MULTIPLIER = 0, 1, 2


class QuadraticProgram(NamedTuple):
    """min 1/2 x^T H x - h^T x over x = (lam, t), lam >= 0, 0 <= t_r <= lam[example[r]]."""

    H: FloatArray
    h: FloatArray
    example: IntArray

    @property
    def n(self) -> int:
        """Number of multipliers."""
        return len(self.h) - len(self.example)


def solve(program: QuadraticProgram, working: BoolArray) -> FloatArray:
    """The minimiser x = (lam, t).

    Parameters
    ----------
    program : QuadraticProgram
    working : ndarray of bool, shape (n,)
        Guess of the examples whose multipliers are not zero; others join where they must.
    """
    n, example = program.n, program.example
    x = np.zeros(len(program.h))
    for _ in range(_MAX_ROUNDS):
        kept = np.concatenate([working, working[example]])
        position = np.cumsum(working) - 1
        x[:] = 0
        x[kept] = _solve_dense(
            QuadraticProgram(
                program.H[np.ix_(kept, kept)], program.h[kept], position[example[working[example]]]
            )
        )
        joining = (_entering_slope(program, x) < -_flat(program)) & ~working
        if not joining.any():
            break
        working = working | joining
    return _feasible(n, example, x)


def _flat(program: QuadraticProgram) -> float:
    return _ZERO * float(np.abs(program.h).max())


def _entering_slope(program: QuadraticProgram, x: FloatArray) -> FloatArray:
    """Derivative in each multiplier that takes along the kink forces which gain from it."""
    slope = program.H @ x - program.h
    entering = slope[: program.n].copy()
    np.add.at(entering, program.example, np.minimum(slope[program.n :], 0))
    return entering


def _solve_dense(program: QuadraticProgram) -> FloatArray:
    approximate, active = _interior_point(program)
    polished = _polish(program, active)
    return approximate if polished is None else polished


# --- interior point -------------------------------------------------------------------------------


def _interior_point(program: QuadraticProgram) -> tuple[FloatArray, _ActiveSet]:
    """A minimiser to about the square root of rounding, and its active constraints.

    Constraints A x >= 0 are homogeneous and the start is strictly inside, so slacks s = A x hold
    exactly throughout; w are their multipliers.
    """
    A = _constraints(program)
    scale = max(float(np.abs(program.h).max()), 1e-300)
    H, h = program.H / scale, program.h / scale
    size = float(np.sqrt(len(h) / max(np.trace(H), 1e-300)))
    x = np.concatenate([np.full(program.n, size), np.full(len(program.example), size / 2)])
    s = A @ x
    w = 1 / s
    first = float(s @ w) / len(s)
    for _ in range(_MAX_ITERATIONS):
        mu = float(s @ w) / len(s)
        residual = H @ x - h - A.T @ w
        if mu <= _GAP * first and np.abs(residual).max() <= 1e-10:
            break
        factor = _factor(H + _outer(A, w / s, program))
        if factor is None:
            break
        dx, ds, dw = _newton_step(A, factor, residual, s, w, 0.0)
        reach = min(_longest(s, ds), _longest(w, dw))
        target = (float((s + reach * ds) @ (w + reach * dw)) / len(s) / mu) ** 3 * mu
        dx, ds, dw = _newton_step(A, factor, residual, s, w, target - ds * dw)
        primal, dual = 0.995 * _longest(s, ds), 0.995 * _longest(w, dw)
        step = min(primal, dual)
        x, s, w = x + step * dx, s + step * ds, w + step * dw
    return x, _identify(program, s, w)


def _constraints(program: QuadraticProgram) -> Any:
    """Rows lam_i, t_r and lam_e(r) - t_r."""
    identity = scipy.sparse.identity(len(program.h), format="csr")
    owners, forces = identity[program.example], identity[program.n :]
    return scipy.sparse.vstack([identity, owners - forces], format="csr")


def _outer(A: Any, weights: FloatArray, program: QuadraticProgram) -> FloatArray:
    product: FloatArray = (A.T @ A.multiply(weights[:, None])).toarray()
    ridge = _RIDGE * np.trace(program.H) / len(program.H)
    product[np.diag_indices_from(product)] += max(float(ridge), 1e-300)
    return product


def _factor(matrix: FloatArray) -> tuple[FloatArray, bool] | None:
    try:
        factor = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return factor


def _newton_step(
    A: Any,
    factor: tuple[FloatArray, bool],
    residual: FloatArray,
    s: FloatArray,
    w: FloatArray,
    target: FloatArray | float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    pull = target / s - w
    dx = scipy.linalg.cho_solve(factor, A.T @ pull - residual, check_finite=False)
    ds = A @ dx
    return dx, ds, pull - w / s * ds


def _longest(value: FloatArray, change: FloatArray) -> float:
    """The longest step up to 1 that keeps value + step * change nonnegative."""
    shrinking = change < 0
    return float(np.min(-value[shrinking] / change[shrinking], initial=1.0))


# --- active set -----------------------------------------------------------------------------------


class _ActiveSet(NamedTuple):
    """Which multipliers are free, and where each kink force stands."""

    support: BoolArray  # (n,)
    kinks: IntArray  # (r,) of _AT_ZERO, _FREE, _AT_MULTIPLIER


def _identify(program: QuadraticProgram, s: FloatArray, w: FloatArray) -> _ActiveSet:
    n, r = program.n, len(program.example)
    active = w * np.abs(s).max() > s * np.abs(w).max()
    kinks = np.full(r, _FREE)
    kinks[active[n + r :]] = _AT_MULTIPLIER
    kinks[active[n : n + r]] = _AT_ZERO
    return _ActiveSet(~active[:n], kinks)


def _polish(program: QuadraticProgram, active: _ActiveSet) -> FloatArray | None:
    """Solves with the active constraints as equations, and corrects them until they stand."""
    seen = set()
    for _ in range(_MAX_CHANGES):
        key = active.support.tobytes() + active.kinks.tobytes()
        if key in seen:
            return None
        seen.add(key)
        x = _on_active_set(program, active)
        if x is None:
            return None
        changed = _corrected(program, active, x)
        if (changed.support == active.support).all() and (changed.kinks == active.kinks).all():
            return x
        active = changed
    return None


def _on_active_set(program: QuadraticProgram, active: _ActiveSet) -> FloatArray | None:
    n = program.n
    alive = active.support[program.example]
    free = np.flatnonzero((active.kinks == _FREE) & alive)
    carriers = np.concatenate([np.flatnonzero(active.support), free + n])
    riders = np.flatnonzero((active.kinks == _AT_MULTIPLIER) & alive)
    if len(carriers) == 0:
        return np.zeros(len(program.h))
    # A column moves its carrier, and with a multiplier all kink forces that equal it.
    position = np.cumsum(active.support) - 1
    rows = np.concatenate([carriers, riders + n])
    columns = np.concatenate([np.arange(len(carriers)), position[program.example[riders]]])
    basis: Any = scipy.sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(len(program.h), len(carriers))
    )
    reduced: FloatArray = basis.T @ (basis.T @ program.H).T
    reduced[np.diag_indices_from(reduced)] += _RIDGE * np.trace(reduced) / len(reduced)
    factor = _factor(reduced)
    if factor is None:
        return None
    x: FloatArray = basis @ scipy.linalg.cho_solve(factor, basis.T @ program.h, check_finite=False)
    return x


def _corrected(program: QuadraticProgram, active: _ActiveSet, x: FloatArray) -> _ActiveSet:
    """The active set that the signs of values and derivatives at x ask for."""
    n, example = program.n, program.example
    lam, t = x[:n], x[n:]
    slope = (program.H @ x - program.h)[n:]
    flat, small = _flat(program), _ZERO * float(np.abs(x).max())
    support = np.where(active.support, lam > -small, _entering_slope(program, x) < -flat)
    fresh = (support & ~active.support)[example]

    kinks = active.kinks.copy()
    kinks[(active.kinks == _AT_ZERO) & (slope < -flat)] = _FREE
    kinks[(active.kinks == _AT_MULTIPLIER) & (slope > flat)] = _FREE
    kinks[(active.kinks == _FREE) & (t < -small)] = _AT_ZERO
    kinks[(active.kinks == _FREE) & (t > lam[example] + small)] = _AT_MULTIPLIER
    kinks[fresh] = np.where(slope[fresh] < 0, _AT_MULTIPLIER, _AT_ZERO)
    kinks[~support[example]] = _AT_ZERO
    return _ActiveSet(support, kinks)


def _feasible(n: int, example: IntArray, x: FloatArray) -> FloatArray:
    """x with violations at rounding level removed."""
    lam = np.maximum(x[:n], 0)
    return np.concatenate([lam, np.clip(x[n:], 0, lam[example])])
