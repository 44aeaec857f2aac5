"""Noise of Gaussian clusters: its accepted forms, and factors of covariance matrices."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from reluflow._validation import FloatArray, as_array, as_number, frozen

# Rounding that is forgiven, relative to the largest entry or eigenvalue: asymmetry of a matrix,
# and eigenvalues below zero.
_TOLERANCE = 1e-10


def as_noise(value: Any, n_clusters: int, dim: int) -> float | FloatArray:
    """Noise in one of its four forms: a float, or an array (k,), (k, d) or (k, d, d)."""
    array = as_array("noise", value, noise_ndim(value))
    if noise_ndim(value) == 0:
        return as_number("noise", array.item(), at_least=0)
    shapes = {1: (n_clusters,), 2: (n_clusters, dim), 3: (n_clusters, dim, dim)}
    if shapes.get(array.ndim) != array.shape:
        raise ValueError(
            f"noise must be a number or have shape {shapes[1]}, {shapes[2]} or {shapes[3]}; "
            f"its shape is {array.shape}"
        )
    if array.ndim == 3:
        for q, covariance in enumerate(array):
            _eigen(f"noise[{q}]", covariance)
    elif (array < 0).any():
        where = tuple(int(i) for i in np.argwhere(array < 0)[0])
        raise ValueError(f"noise must not be negative; at index {where} it is {array[where]:g}")
    return frozen(array)


def noise_ndim(value: Any) -> int:
    """Number of dimensions of what was given as noise."""
    try:
        return int(np.ndim(value))
    except ValueError:  # ragged, which as_array explains
        return 1


def positive_factor(name: str, matrix: FloatArray) -> FloatArray:
    """C with C C^T = matrix and as many columns as its rank, but at least one.

    Refuses a matrix that is not symmetric and positive semidefinite.
    """
    values, vectors = _eigen(name, matrix)
    keep = values > len(values) * np.finfo(float).eps * values[-1]
    keep[-1] = True
    return np.ascontiguousarray(vectors[:, keep] * np.sqrt(np.maximum(values[keep], 0.0)))


def triangular_factor(A: FloatArray) -> FloatArray:
    """F with F F^T = A A^T, of min(A.shape) columns, zero above the diagonal."""
    upper = cast(FloatArray, np.linalg.qr(A.T, mode="r"))
    return np.ascontiguousarray(upper.T)


def _eigen(name: str, matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    asymmetry = float(np.abs(matrix - matrix.T).max())
    if asymmetry > _TOLERANCE * float(np.abs(matrix).max()):
        raise ValueError(
            f"{name} must be symmetric; it differs from its transpose by {asymmetry:.3g}"
        )
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[0] < -_TOLERANCE * np.abs(values).max():
        raise ValueError(
            f"{name} must be positive semidefinite; its smallest eigenvalue is {values[0]:.6g}"
        )
    return values, vectors
