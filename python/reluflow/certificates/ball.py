"""Ball arithmetic in NumPy: every result holds the exact one within a radius that is computed too.

Rump, S. M. (2010), Verification methods, Acta Numerica 19, section 2; for sums of products in any
order Higham, N. J. (2002), Accuracy and stability of numerical algorithms, section 3.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reluflow._validation import FloatArray

_UNIT = 2.0**-53
# More than a product of two numbers can lose to underflow.
_TINY = 1e-300


def gamma(terms: int) -> float:
    """A sum of so many rounded products is off by at most this times its absolute values."""
    return terms * _UNIT / (1 - terms * _UNIT)


def up(value: Any) -> Any:
    """The next number above."""
    return np.nextafter(value, np.inf)


def down(value: Any) -> Any:
    """The next number below."""
    return np.nextafter(value, -np.inf)


class Ball:
    """Arrays of real numbers that lie within ``rad`` of ``mid``."""

    # Arrays on the left leave the operation to this class.
    __array_ufunc__ = None

    def __init__(self, mid: FloatArray, rad: FloatArray | None = None) -> None:
        self.mid = np.asarray(mid, dtype=np.float64)
        self.rad = np.zeros_like(self.mid) if rad is None else rad

    @property
    def lower(self) -> Any:
        """Below the numbers."""
        return down(self.mid - self.rad)

    @property
    def upper(self) -> Any:
        """Above the numbers."""
        return up(self.mid + self.rad)

    @property
    def magnitude(self) -> Any:
        """Above their absolute values."""
        return up(np.abs(self.mid) + self.rad)

    @property
    def T(self) -> Ball:
        return Ball(self.mid.T, self.rad.T)

    def __getitem__(self, index: Any) -> Ball:
        return Ball(self.mid[index], self.rad[index])

    def __neg__(self) -> Ball:
        return Ball(-self.mid, self.rad)

    def __add__(self, other: Any) -> Ball:
        other = ball(other)
        mid = self.mid + other.mid
        return Ball(mid, _grown(self.rad + other.rad + _UNIT * np.abs(mid)))

    def __sub__(self, other: Any) -> Ball:
        return self + -ball(other)

    def __rsub__(self, other: Any) -> Ball:
        return ball(other) - self

    def __mul__(self, other: Any) -> Ball:
        other = ball(other)
        mid = self.mid * other.mid
        rad = np.abs(self.mid) * other.rad + self.rad * (np.abs(other.mid) + other.rad)
        return Ball(mid, _grown(rad + _UNIT * np.abs(mid)))

    def __matmul__(self, other: Any) -> Ball:
        other = ball(other)
        left, right = np.abs(self.mid), np.abs(other.mid)
        terms = self.mid.shape[-1]
        rad = gamma(terms + 2) * (left @ right)
        if other.rad.any():
            rad = rad + left @ other.rad
        if self.rad.any():
            rad = rad + self.rad @ (right + other.rad)
        return Ball(self.mid @ other.mid, _grown(rad * (1 + gamma(terms + 8)), terms))

    __radd__, __rmul__ = __add__, __mul__

    def __rmatmul__(self, other: Any) -> Ball:
        return ball(other) @ self

    def sum(self) -> Ball:
        """Of all numbers."""
        return self.reshape(-1) @ np.ones(self.mid.size)

    def reshape(self, *shape: int) -> Ball:
        """As for arrays."""
        return Ball(self.mid.reshape(*shape), self.rad.reshape(*shape))

    def norm_upper(self) -> float:
        """Above the Euclidean norm."""
        return float(norm_upper(self.magnitude))


def ball(value: Any) -> Ball:
    """Numbers as they are, or a ball."""
    return value if isinstance(value, Ball) else Ball(value)


def norm_upper(values: FloatArray) -> Any:
    """Above the Euclidean norm of vectors of exact numbers, along the last axis."""
    squares = (values * values).sum(axis=-1)
    terms = values.shape[-1]
    return up(np.sqrt(squares * (1 + gamma(terms + 4)) + terms * _TINY))


def _grown(rad: FloatArray, terms: int = 1) -> FloatArray:
    # A handful of roundings of numbers that are not negative.
    return np.asarray(rad * (1 + 16 * _UNIT) + terms * _TINY)


def least_eigenvalue(matrix: Ball) -> float:
    """A number above 0 below all eigenvalues of a symmetric matrix, or 0 where none is found.

    A Cholesky factorisation that ends shows that the matrix, lowered by more than the errors of
    the factorisation and the radius of the ball, is positive definite (Rump 2006; Higham 2002,
    theorem 10.3).
    """
    size = len(matrix.mid)
    if size == 0:
        return 1.0
    if not np.isfinite(matrix.mid).all():
        return 0.0
    # The lower triangle alone says everything.
    mid = np.tril(matrix.mid) + np.tril(matrix.mid, -1).T
    estimate = 0.99 * float(np.linalg.eigvalsh(mid)[0])
    trace = float(np.abs(np.diag(mid)).sum())
    rad = np.maximum(matrix.rad, matrix.rad.T)
    error = float(rad.sum(axis=1).max()) + 4 * gamma(2 * size + 4) * trace
    shifted = mid - (estimate + 2 * error) * np.eye(size)
    if estimate <= 0 or (np.diag(shifted) <= 0).any():
        return 0.0
    try:
        factor = np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return 0.0
    return estimate if np.isfinite(factor).all() else 0.0
