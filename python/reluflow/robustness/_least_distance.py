"""The shortest vector that satisfies linear inequalities, in several norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.optimize import linprog, nnls

from reluflow._validation import FloatArray

# Residual of the least squares below which the inequalities contradict one another.
_CONTRADICTION = 1e-8
# In units of the distance, which is guessed before it is known, and guessed again.
_GUESSES = 4


def least_distance(
    normals: FloatArray, offsets: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    """The shortest u with normals u + offsets <= 0, and its multipliers.

    Least-distance programming by non-negative least squares (Lawson & Hanson 1974, chapter 23),
    followed by the least-norm solution of the inequalities that are active.

    Parameters
    ----------
    normals : ndarray, shape (c, r)
    offsets : ndarray, shape (c,)

    Returns
    -------
    tuple of ndarray, or None
        u, shape (r,), and multipliers, shape (c,), with u = -normals^T multipliers; None where no u
        satisfies all of them.
    """
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 0
    if (offsets[~usable] > 0).any():
        return None
    multipliers = np.zeros(len(offsets))
    rows, right = normals[usable] / lengths[usable, None], offsets[usable] / lengths[usable]
    unit = float(right.max(initial=0.0))
    if unit <= 0:
        return np.zeros(normals.shape[1]), multipliers
    for _ in range(_GUESSES):
        system = np.vstack([-rows.T, right / unit])
        target = np.zeros(len(system))
        target[-1] = 1.0
        weights, residual = nnls(system, target, maxiter=50 * (len(rows) + 1))
        if residual < _CONTRADICTION:
            return None
        # The distance in these units: residual^2 = 1/(1 + distance^2).
        distance = float(np.sqrt(max(1 / residual**2 - 1, 0.0)))
        if 0.1 < distance < 10:
            break
        unit *= max(distance, 1e-3)
    active = np.flatnonzero(weights > 0)
    found, *_ = np.linalg.lstsq(rows[active], -right[active], rcond=None)
    pull, *_ = np.linalg.lstsq(-rows[active].T, found, rcond=None)
    inside = np.flatnonzero(usable)[active]
    multipliers[inside] = np.maximum(pull, 0.0) / lengths[inside]
    return found, multipliers


def least_l1(normals: FloatArray, offsets: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """As `least_distance` for the sum of absolute values: a linear program in u = p - q.

    The multipliers are those of the program, zero for inequalities that are not active.
    """
    dim = normals.shape[1]
    return _solved(
        np.ones(2 * dim),
        scipy.sparse.csr_array(np.hstack([normals, -normals])),
        -offsets,
        lambda x: x[:dim] - x[dim:],
        (0, None),
    )


def least_linf(normals: FloatArray, offsets: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """As `least_distance` for the largest absolute value: a linear program in u and its length."""
    dim = normals.shape[1]
    # The planes, then u_i - t <= 0 and -u_i - t <= 0 for the length t.
    sparse: Any = scipy.sparse
    planes = sparse.csr_array(np.hstack([normals, np.zeros((len(normals), 1))]))
    ones = sparse.csr_array(np.ones((dim, 1)))
    unit = sparse.eye_array(dim, format="csr")
    rows = sparse.vstack(
        [planes, sparse.hstack([unit, -ones]), sparse.hstack([-unit, -ones])], format="csr"
    )
    right = np.concatenate([-offsets, np.zeros(2 * dim)])
    solved = _solved(
        np.concatenate([np.zeros(dim), [1.0]]), rows, right, lambda x: x[:dim], (None, None)
    )
    return None if solved is None else (solved[0], solved[1][: len(normals)])


def _solved(
    cost: FloatArray,
    rows: Any,
    right: FloatArray,
    vector: Callable[[FloatArray], FloatArray],
    bounds: tuple[float | None, float | None],
) -> tuple[FloatArray, FloatArray] | None:
    # In units of the largest right side, so that tolerances are relative.
    unit = float(np.abs(right).max(initial=0.0)) or 1.0
    # The stubs of SciPy know of no sparse constraints.
    program: Any = linprog
    found = program(cost, A_ub=rows, b_ub=right / unit, bounds=bounds, method="highs")
    if found.x is None:
        return None
    multipliers = np.maximum(-np.asarray(found.ineqlin.marginals), 0.0)
    return unit * vector(np.asarray(found.x)), multipliers


class Metric(NamedTuple):
    """A norm: its length, its dual's, and the shortest vector below planes."""

    length: Callable[[FloatArray], float]
    dual_lengths: Callable[[FloatArray], FloatArray]
    shortest: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray] | None]


def _order(order: float) -> Callable[[FloatArray], float]:
    return lambda u: float(np.linalg.norm(u, order))


def _row_order(order: float) -> Callable[[FloatArray], FloatArray]:
    return lambda rows: np.asarray(np.linalg.norm(rows, order, axis=1))


METRICS = {
    "l2": Metric(_order(2), _row_order(2), least_distance),
    "l1": Metric(_order(1), _row_order(np.inf), least_l1),
    "linf": Metric(_order(np.inf), _row_order(1), least_linf),
}
