"""Noise of Gaussian clusters: its accepted forms, and factors of covariance matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from reluflow._results import Result
from reluflow._validation import FloatArray, as_array, as_number, frozen

# Rounding that is forgiven, relative to the largest entry or eigenvalue: asymmetry of a matrix,
# and eigenvalues below zero.
_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class LowRankNoise(Result):
    """Covariances that are a multiple of the identity and a part of low rank.

    Sigma_q = scale_q^2 I + C_q C_q^T: noise scale_q g + C_q h with g and h standard normal.

    Parameters
    ----------
    scale : float or array_like, shape (k,)
        Standard deviation in all directions, one for all clusters or one a cluster.
    factors : array_like, shape (e, r) or (k, e, r)
        First e <= d rows of C, for all clusters, or of the C_q; rows of zeros follow up to d. What
        lies in few axes therefore takes no arrays of length d, which may be 10**15.

    Attributes
    ----------
    scale : ndarray, shape (1,) or (k,)
    factors : ndarray, shape (1, e, r) or (k, e, r)

    Raises
    ------
    ValueError
        If an entry is not finite, a scale is negative, or the factors are empty.
    TypeError
        If an argument is not numbers.
    """

    scale: FloatArray
    factors: FloatArray

    def __init__(self, scale: ArrayLike, factors: ArrayLike) -> None:
        scales = as_array("scale", np.atleast_1d(np.asarray(scale)), 1)
        if (scales < 0).any() or len(scales) == 0:
            raise ValueError(f"scale must be numbers that are not negative; got {scales}")
        ndim = 3 if noise_ndim(factors) == 3 else 2
        parts = as_array("factors", factors, ndim)
        if parts.size == 0:
            raise ValueError(f"factors must not be empty; their shape is {parts.shape}")
        object.__setattr__(self, "scale", frozen(scales))
        object.__setattr__(self, "factors", frozen(parts if ndim == 3 else parts[None]))

    def scaled(self, c: float) -> LowRankNoise:
        """Standard deviations times c in all directions."""
        return LowRankNoise(c * self.scale, c * self.factors)

    def scale_of(self, q: int) -> float:
        """Standard deviation of cluster q in the directions that C_q leaves alone."""
        return float(self.scale[q % len(self.scale)])

    def largest(self, q: int) -> float:
        """sqrt of the largest eigenvalue of Sigma_q."""
        return float(np.hypot(self.scale_of(q), self._axes[q % len(self.factors)][1][0]))

    def color(self, white: FloatArray, q: int) -> FloatArray:
        """Standard normal rows, shape (n, d), as noise of cluster q.

        With C_q = U diag(s) V^T, the map is the symmetric root of Sigma_q,
        scale I + U diag(sqrt(scale^2 + s^2) - scale) U^T.
        """
        scale, (directions, size) = self.scale_of(q), self._axes[q % len(self.factors)]
        explicit = white[:, : len(directions)]
        colored: FloatArray = scale * white
        stretch = np.hypot(scale, size) - scale
        colored[:, : len(directions)] += (explicit @ directions * stretch) @ directions.T
        return colored

    @cached_property
    def _axes(self) -> list[tuple[FloatArray, FloatArray]]:
        """Left singular vectors and singular values of each factor."""
        found = []
        for factor in self.factors:
            directions, sizes, _ = np.linalg.svd(factor, full_matrices=False)
            found.append((directions, sizes))
        return found

    def require_fit(self, n_clusters: int, dim: int) -> None:
        """Refuses what does not belong to so many clusters in so many dimensions."""
        counts = {"scale": len(self.scale), "factors": len(self.factors)}
        for name, count in counts.items():
            if count not in (1, n_clusters):
                raise ValueError(
                    f"noise.{name} must be one for all clusters or one for each of {n_clusters}; "
                    f"there are {count}"
                )
        if self.factors.shape[1] > dim:
            raise ValueError(
                f"noise.factors have {self.factors.shape[1]} rows; the clusters' dim is {dim}"
            )

    def __repr__(self) -> str:
        return f"LowRankNoise(scale={self.scale.tolist()}, factors=array{self.factors.shape})"


def as_noise(value: Any, n_clusters: int, dim: int) -> float | FloatArray | LowRankNoise:
    """Noise in one of its forms: a float, an array (k,), (k, d) or (k, d, d), or of low rank."""
    if isinstance(value, LowRankNoise):
        value.require_fit(n_clusters, dim)
        return value
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
