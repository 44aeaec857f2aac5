"""The shortest vector that satisfies linear inequalities."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

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
