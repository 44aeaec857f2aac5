"""Data sets, and the Gaussian clusters that they are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._assumption import AssumptionReport, Inequality, check_assumption
from reluflow._conflicts import require_no_conflict, row_blocks
from reluflow._covariance import (
    LowRankNoise,
    as_noise,
    noise_ndim,
    positive_factor,
    triangular_factor,
)
from reluflow._digits import read_digits
from reluflow._loading import read_arrays, write_arrays
from reluflow._validation import (
    FloatArray,
    IntArray,
    as_array,
    as_integers,
    as_labels,
    as_number,
    as_positive_int,
    frozen,
    require_both_classes,
    require_memory,
)

__all__ = [
    "AssumptionReport",
    "ClusterModel",
    "Dataset",
    "Inequality",
    "LowRankNoise",
    "load_dataset",
    "load_digits",
    "save_dataset",
]

# Relative error that is forgiven in squared norms of means where they must be the dimension.
_NORM_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled examples.

    Parameters
    ----------
    X : array_like, shape (n, d)
        Examples, one a row; integers, other floats, Fortran order and strides are converted.
    y : array_like, shape (n,)
        Labels -1 and +1, both present.
    cluster : array_like of int, shape (n,), optional
        The cluster of each example; the examples of one cluster have one label.

    Attributes
    ----------
    X, y : ndarray of float64
        As above, C-contiguous and read-only.
    cluster : ndarray of int64, or None

    Raises
    ------
    ValueError
        If shapes disagree, there are no examples, an entry is not finite, a label is not -1 or +1,
        one class is missing, a cluster has both labels, or two examples are the same point with
        opposite labels: no network separates those.
    TypeError
        If X, y or cluster are not numbers.
    """

    X: FloatArray
    y: FloatArray
    cluster: IntArray | None

    def __init__(self, X: ArrayLike, y: ArrayLike, cluster: ArrayLike | None = None) -> None:
        examples = as_array("X", X, 2)
        n, dim = examples.shape
        if n == 0 or dim == 0:
            raise ValueError(f"X must hold examples, one a row; its shape is {examples.shape}")
        labels = as_labels("y", y, n)
        require_both_classes("y", labels)
        require_no_conflict(examples, labels)
        object.__setattr__(self, "X", frozen(examples))
        object.__setattr__(self, "y", frozen(labels))
        object.__setattr__(
            self, "cluster", None if cluster is None else frozen(_as_clusters(cluster, labels))
        )

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.y)

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return int(self.X.shape[1])

    def __len__(self) -> int:
        return self.n

    def cluster_model(self) -> ClusterModel:
        """The clusters as estimated from the examples.

        Row q of the model belongs to the q-th smallest number in `cluster`. Its mean is the mean
        of its examples, as it is: for real data the norm need not be sqrt(d). Its noise is one
        standard deviation, the square root of the unbiased variance averaged over coordinates:
        sum_i ||x_i - mean||^2 / ((n_q - 1) d) over the n_q examples of cluster q.

        Raises
        ------
        ValueError
            If `cluster` is not known, or a cluster has one example only.
        """
        if self.cluster is None:
            raise ValueError("cluster is not known for this data set; give Dataset(X, y, cluster)")
        members = [self.cluster == q for q in np.unique(self.cluster)]
        for q, rows in zip(np.unique(self.cluster), members, strict=True):
            if rows.sum() < 2:
                raise ValueError(
                    f"cluster {q} has one example; its noise needs at least 2 to be estimated"
                )
        groups = [self.X[rows] for rows in members]
        return ClusterModel(
            means=[group.mean(axis=0) for group in groups],
            labels=[self.y[rows][0] for rows in members],
            noise=[math.sqrt(group.var(axis=0, ddof=1).mean()) for group in groups],
        )

    def __repr__(self) -> str:
        positive = int((self.y > 0).sum())
        clusters = "" if self.cluster is None else f", clusters={len(np.unique(self.cluster))}"
        return (
            f"Dataset(n={self.n}, dim={self.dim}, positive={positive}, "
            f"negative={self.n - positive}{clusters})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class ClusterModel:
    """Gaussian clusters, each with a label: x = mu_q + N(0, Sigma_q), y = y_q, q uniform.

    The setting of Frei et al. 2023, section 2, where ||mu_q|| = sqrt(d). The constructors
    `orthogonal`, `random`, `equicorrelated` and `from_gram` make such means for any dimension:
    they keep the coordinates of the means in a frame of their span, and ``means`` is built when
    asked for.

    Parameters
    ----------
    means : array_like, shape (k, d)
        Cluster means mu_q. Their norms are not checked: means of real data have others.
    labels : array_like, shape (k,)
        Labels -1 and +1, both present.
    noise : float, array_like or LowRankNoise
        A standard deviation; one a cluster, shape (k,); diagonals of the covariances, that is
        variances, shape (k, d); or covariances, shape (k, d, d). Shape (k,) always is one
        standard deviation a cluster, also where k = d. `LowRankNoise` is a standard deviation and
        a few directions with more.
    ambient_dim : int, optional
        The d of the setting, where ``means`` are coordinates in a frame of a larger space.

    Attributes
    ----------
    labels : ndarray, shape (k,)
    noise : float, ndarray or LowRankNoise
        As given; a float, a read-only float64 array, or a `LowRankNoise`.
    dim : int
        Number of coordinates.
    ambient_dim : int
        The d of the setting; ``dim`` unless it was given.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or +1, one class is missing,
        noise is negative, or a covariance is not symmetric and positive semidefinite.
    TypeError
        If an argument is not numbers.
    """

    labels: FloatArray
    noise: float | FloatArray | LowRankNoise
    dim: int
    ambient_dim: int
    # The means are these rows, followed by zeros up to dim.
    _leading: FloatArray

    def __init__(
        self,
        means: ArrayLike,
        labels: ArrayLike,
        noise: ArrayLike | LowRankNoise,
        *,
        ambient_dim: int | None = None,
    ) -> None:
        rows = as_array("means", means, 2)
        if min(rows.shape) == 0:
            raise ValueError(f"means must hold one mean a row; their shape is {rows.shape}")
        self._fill(rows, labels, noise, rows.shape[1], ambient_dim)

    def _fill(
        self,
        leading: FloatArray,
        labels: ArrayLike,
        noise: ArrayLike | LowRankNoise,
        dim: int,
        ambient_dim: int | None = None,
    ) -> None:
        signs = as_labels("labels", labels, len(leading), per="a cluster")
        require_both_classes("labels", signs)
        if ambient_dim is None:
            ambient_dim = dim
        fields = {
            "labels": frozen(signs),
            "noise": as_noise(noise, len(leading), dim),
            "dim": dim,
            "ambient_dim": as_positive_int("ambient_dim", ambient_dim, minimum=dim),
            "_leading": frozen(leading),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _from_leading(
        cls,
        leading: FloatArray,
        labels: ArrayLike | None,
        noise: ArrayLike | LowRankNoise,
        dim: int,
    ) -> ClusterModel:
        model = cls.__new__(cls)
        model._fill(leading, _alternating(len(leading)) if labels is None else labels, noise, dim)
        return model

    @classmethod
    def orthogonal(
        cls,
        n_clusters: int,
        dim: int,
        noise: ArrayLike | LowRankNoise,
        *,
        labels: ArrayLike | None = None,
        seed: Any = None,
    ) -> ClusterModel:
        """Orthogonal means of norm sqrt(dim): multiples of the first axes.

        With isotropic noise any other choice is a rotation of this one.

        Parameters
        ----------
        n_clusters, dim : int
            k >= 2 and d >= k; d may be 10**15.
        noise, labels
            As for `ClusterModel`; labels alternate +1, -1, ... unless they are given.
        seed
            Nothing is random here; taken so that all constructors are called alike.

        Raises
        ------
        ValueError
            If there are more means than dimensions, or as for `ClusterModel`.
        """
        n_clusters, dim = _as_sizes(n_clusters, dim)
        if n_clusters > dim:
            raise ValueError(
                f"n_clusters={n_clusters} orthogonal means need as many dimensions; dim={dim}"
            )
        return cls._from_leading(math.sqrt(dim) * np.eye(n_clusters), labels, noise, dim)

    @classmethod
    def random(
        cls,
        n_clusters: int,
        dim: int,
        noise: ArrayLike | LowRankNoise,
        *,
        labels: ArrayLike | None = None,
        seed: Any = None,
    ) -> ClusterModel:
        """Means of norm sqrt(dim) in directions uniform on the sphere.

        With isotropic noise the first axes are chosen to span the means, which is a rotation: the
        coordinates are those of a Gaussian matrix after Gram-Schmidt (`gaussian_rows`), scaled to
        norm sqrt(dim). With `LowRankNoise` the axes after those of its factors are.

        Parameters
        ----------
        n_clusters, dim : int
            k >= 2 and d; d may be 10**15.
        noise, labels
            As for `ClusterModel`; labels alternate +1, -1, ... unless they are given.
        seed : int, Generator or None
            As for `numpy.random.default_rng`.

        Raises
        ------
        ValueError
            As for `ClusterModel`.
        """
        n_clusters, dim = _as_sizes(n_clusters, dim)
        rng = np.random.default_rng(seed)
        # Other than isotropic noise singles out axes, to which the means must then be oblique.
        singled = noise.factors.shape[1] if isinstance(noise, LowRankNoise) else 0
        if dim < singled + n_clusters or (not singled and noise_ndim(noise) > 1):
            rows = rng.standard_normal((n_clusters, dim))
        else:
            rows = gaussian_rows(n_clusters, singled, dim, rng)
        rows *= math.sqrt(dim) / np.linalg.norm(rows, axis=1, keepdims=True)
        return cls._from_leading(rows, labels, noise, dim)

    @classmethod
    def equicorrelated(
        cls,
        n_clusters: int,
        dim: int,
        noise: ArrayLike | LowRankNoise,
        *,
        correlation: float,
        labels: ArrayLike | None = None,
        seed: Any = None,
    ) -> ClusterModel:
        """Means of norm sqrt(dim) with the same cosine between any two.

        The coordinates are the symmetric square root of the Gram matrix d ((1 - c) I + c J).

        Parameters
        ----------
        n_clusters, dim : int
            k >= 2 and d >= k; d may be 10**15.
        noise, labels
            As for `ClusterModel`; labels alternate +1, -1, ... unless they are given.
        correlation : float
            The cosine c, in (-1/(k - 1), 1).
        seed
            Nothing is random here; taken so that all constructors are called alike.

        Raises
        ------
        ValueError
            If the correlation is out of range, there are more means than dimensions, or as for
            `ClusterModel`.
        """
        n_clusters, dim = _as_sizes(n_clusters, dim)
        cosine = as_number("correlation", correlation)
        lowest = -1 / (n_clusters - 1)
        if not lowest < cosine < 1:
            raise ValueError(
                f"correlation must lie in ({lowest:g}, 1) for {n_clusters} clusters; got {cosine:g}"
            )
        if n_clusters > dim:
            raise ValueError(
                f"n_clusters={n_clusters} equicorrelated means need as many dimensions; dim={dim}"
            )
        across, along = math.sqrt(1 - cosine), math.sqrt(1 + (n_clusters - 1) * cosine)
        root = across * np.eye(n_clusters) + (along - across) / n_clusters
        return cls._from_leading(math.sqrt(dim) * root, labels, noise, dim)

    @classmethod
    def from_gram(
        cls, gram: ArrayLike, labels: ArrayLike, noise: ArrayLike | LowRankNoise, dim: int
    ) -> ClusterModel:
        """Means of norm sqrt(dim) with given inner products.

        Parameters
        ----------
        gram : array_like, shape (k, k)
            Inner products: symmetric, positive semidefinite, ``dim`` on the diagonal, of rank at
            most ``dim``.
        labels, noise
            As for `ClusterModel`.
        dim : int
            d; it may be 10**15.

        Raises
        ------
        ValueError
            If ``gram`` is not such a matrix, or as for `ClusterModel`.
        """
        dim = as_positive_int("dim", dim)
        products = as_array("gram", gram, 2)
        if products.shape[0] != products.shape[1] or len(products) == 0:
            raise ValueError(f"gram must be a square matrix; its shape is {products.shape}")
        error = float(np.abs(products.diagonal() / dim - 1).max())
        if error > _NORM_TOLERANCE:
            raise ValueError(
                f"gram must have dim={dim} on its diagonal; it differs by {error:.3g} relative"
            )
        factor = positive_factor("gram", products)
        if factor.shape[1] > dim:
            raise ValueError(f"gram has rank {factor.shape[1]}, more than dim={dim} dimensions")
        return cls._from_leading(factor, labels, noise, dim)

    def with_noise_scaled(self, scale: float) -> ClusterModel:
        """The same clusters, the standard deviations of their noise times ``scale`` > 0."""
        scale = as_number("scale", scale, above=0)
        if isinstance(self.noise, LowRankNoise):
            noise: ArrayLike | LowRankNoise = self.noise.scaled(scale)
        else:
            noise = np.asarray(self.noise) * (scale if self.isotropic else scale**2)
        model = type(self).__new__(type(self))
        model._fill(self._leading, self.labels, noise, self.dim, self.ambient_dim)
        return model

    @property
    def n_clusters(self) -> int:
        """Number of clusters k."""
        return len(self.labels)

    @cached_property
    def means(self) -> FloatArray:
        """Cluster means, shape (k, d), read-only.

        Raises
        ------
        MemoryError
            If they do not fit; `coordinates` and `gram` always do.
        """
        if self._leading.shape[1] == self.dim:
            return self._leading
        require_memory(f"means, {self.n_clusters} x {self.dim}", 8.0 * self.n_clusters * self.dim)
        means = np.zeros((self.n_clusters, self.dim))
        means[:, : self._leading.shape[1]] = self._leading
        means.setflags(write=False)
        return means

    @cached_property
    def coordinates(self) -> FloatArray:
        """The means in an orthonormal frame of a space that holds them, shape (k, r), r <= k.

        For `orthogonal`, `random`, `equicorrelated` and `from_gram` with isotropic noise the frame
        is the first r axes: the means are these rows followed by zeros.
        """
        if self._leading.shape[1] <= self.n_clusters:
            return self._leading
        return frozen(triangular_factor(self._leading))

    @cached_property
    def gram(self) -> FloatArray:
        """Inner products of the means, shape (k, k), read-only."""
        return frozen(self._leading @ self._leading.T)

    @property
    def isotropic(self) -> bool:
        """Whether every covariance is a multiple of the identity by its form."""
        return not isinstance(self.noise, LowRankNoise) and np.ndim(self.noise) <= 1

    @property
    def explicit_dim(self) -> int | None:
        """Directions that means and low-rank noise are written in; None for general covariances.

        All others are alike: `reduced` keeps as many of them as are asked for.
        """
        explicit = self._explicit
        return None if explicit is None else explicit[0].shape[1]

    @cached_property
    def _explicit(self) -> tuple[FloatArray, float | FloatArray | LowRankNoise] | None:
        """Means and noise in as few coordinates as they take."""
        if isinstance(self.noise, LowRankNoise):
            means, factors = self._leading, self.noise.factors
            columns = factors.transpose(0, 2, 1).reshape(-1, factors.shape[1])
            dim = max(means.shape[1], columns.shape[1])
            rows = np.zeros((len(means) + len(columns), dim))
            rows[: len(means), : means.shape[1]] = means
            rows[len(means) :, : columns.shape[1]] = columns
            if dim > len(rows):
                rows = triangular_factor(rows)
            parts = rows[len(means) :].reshape(len(factors), -1, rows.shape[1])
            noise = LowRankNoise(self.noise.scale, parts.transpose(0, 2, 1))
            return frozen(rows[: len(means)]), noise
        return (self.coordinates, self.noise) if self.isotropic else None

    def reduced(self, extra: int) -> ClusterModel:
        """The same clusters in `explicit_dim` + ``extra`` coordinates.

        An orthonormal frame of the means and of the directions of low-rank noise comes first, then
        ``extra`` of the other directions, which are all alike.

        Parameters
        ----------
        extra : int

        Raises
        ------
        ValueError
            If covariances are general, which single out every direction, or there are not so many
            directions.
        """
        if self._explicit is None:
            raise ValueError(
                "clusters have covariances that are neither multiples of the identity nor "
                "LowRankNoise, which reduced coordinates cannot carry; use coordinates='ambient'"
            )
        leading, noise = self._explicit
        dim = leading.shape[1] + as_positive_int("extra", extra, minimum=0)
        if dim > self.dim:
            raise ValueError(f"extra={extra} asks for {dim} coordinates; there are {self.dim}")
        model = ClusterModel.__new__(ClusterModel)
        model._fill(leading, self.labels, noise, dim, self.ambient_dim)
        return model

    @cached_property
    def noise_scale(self) -> FloatArray:
        """sqrt of the largest eigenvalue of each covariance, shape (k,), read-only."""
        if isinstance(self.noise, LowRankNoise):
            return frozen(np.array([self.noise.largest(q) for q in range(self.n_clusters)]))
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.ndim <= 1:
            return frozen(np.broadcast_to(noise, self.n_clusters))
        variances = noise if noise.ndim == 2 else np.linalg.eigvalsh(noise)
        return frozen(np.sqrt(np.maximum(variances.max(axis=1), 0.0)))

    @cached_property
    def _covariance_factors(self) -> list[FloatArray]:
        """C_q with C_q C_q^T = Sigma_q, shape (d, rank), where full covariances were given."""
        return [
            positive_factor("noise", covariance)
            for covariance in np.asarray(self.noise, dtype=np.float64)
        ]

    def noise_factor(self, W: ArrayLike, q: int) -> FloatArray:
        """F with F F^T = W Sigma_q W^T: W x is distributed as W mu_q + F g, g standard normal.

        Parameters
        ----------
        W : array_like, shape (m, d)
        q : int
            Cluster, 0 <= q < k.

        Returns
        -------
        ndarray, shape (m, r), r <= min(m, d)
            C-contiguous, zero above the diagonal.

        Raises
        ------
        ValueError
            If W has another number of columns than d, or there is no cluster q.
        """
        weights = as_array("W", W, 2)
        if weights.shape[1] != self.dim:
            raise ValueError(f"W must have dim={self.dim} columns; it has {weights.shape[1]}")
        q = self._as_cluster(q)
        if self.isotropic:
            return float(self.noise_scale[q]) * triangular_factor(weights)
        if isinstance(self.noise, LowRankNoise):
            return triangular_factor(self.noise.color(weights, q))
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.ndim == 2:
            return triangular_factor(weights * np.sqrt(noise[q]))
        return triangular_factor(weights @ self._covariance_factors[q])

    def _as_cluster(self, q: int) -> int:
        q = as_positive_int("q", q, minimum=0)
        if q >= self.n_clusters:
            raise ValueError(f"q must be below n_clusters={self.n_clusters}; got {q}")
        return q

    def sample(self, n: int, seed: Any = None) -> Dataset:
        """n independent examples, their clusters uniform.

        Parameters
        ----------
        n : int
            Number of examples.
        seed : int, Generator or None
            As for `numpy.random.default_rng`.

        Raises
        ------
        ValueError
            If all n examples fall on clusters of one label.
        MemoryError
            If n x d numbers do not fit, before they are allocated.
        """
        n = as_positive_int("n", n)
        require_memory(f"a sample of n={n} examples, dim={self.dim}", 8.0 * n * self.dim)
        rng = np.random.default_rng(seed)
        cluster = rng.integers(self.n_clusters, size=n)
        labels = self.labels[cluster]
        if (labels == labels[0]).all():
            raise ValueError(
                f"all n={n} examples fell on clusters of label {labels[0]:+g}; "
                "draw more, or take another seed"
            )
        X = rng.standard_normal((n, self.dim))
        for rows in row_blocks(n, self.dim):
            X[rows] = self.color(X[rows], cluster[rows])
            X[rows, : self._leading.shape[1]] += self._leading[cluster[rows]]
        X.setflags(write=False)
        return Dataset(X, labels, cluster)

    def color(self, white: FloatArray, cluster: IntArray) -> FloatArray:
        """Standard normal rows, shape (n, d), turned into noise of the given clusters, (n,)."""
        if isinstance(self.noise, LowRankNoise):
            colored = np.empty_like(white)
            for q in np.unique(cluster):
                colored[cluster == q] = self.noise.color(white[cluster == q], int(q))
            return colored
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.ndim <= 1:
            return white * self.noise_scale[cluster, None]
        if noise.ndim == 2:
            return white * np.sqrt(noise[cluster])
        colored = np.empty_like(white)
        for q in np.unique(cluster):
            factor = self._covariance_factors[q]
            colored[cluster == q] = white[cluster == q, : factor.shape[1]] @ factor.T
        return colored

    def assumption(self, n: int) -> AssumptionReport:
        """Assumption 2.2 of Frei et al. 2023 for n examples, term by term.

        The d in it is `ambient_dim`. Printing the report shows a table.

        Parameters
        ----------
        n : int
            Number of training examples.
        """
        return check_assumption(
            as_positive_int("n", n),
            self.labels,
            self.gram,
            self.ambient_dim,
            float(self.noise_scale.max()),
        )

    def __repr__(self) -> str:
        noise = f"array{self.noise.shape}" if isinstance(self.noise, np.ndarray) else self.noise
        ambient = "" if self.ambient_dim == self.dim else f", ambient_dim={self.ambient_dim}"
        return (
            f"ClusterModel(n_clusters={self.n_clusters}, dim={self.dim}{ambient}, noise={noise}, "
            f"positive={int((self.labels > 0).sum())}, negative={int((self.labels < 0).sum())})"
        )


def load_dataset(path: str | Path) -> Dataset:
    """Reads a data set from a file.

    Parameters
    ----------
    path : str or Path
        ``.npz`` with arrays X, y and optionally cluster; or ``.csv`` or ``.parquet`` with columns
        x0, x1, ..., y and optionally cluster.

    Raises
    ------
    OSError
        If the file is missing, truncated, or of another kind.
    ValueError
        If arrays or columns are unknown or missing, a cell is not a number, or as for `Dataset`.
        Pickled objects in an .npz file are refused, never executed.
    TypeError
        As for `Dataset`.
    """
    path = Path(path)
    arrays = read_arrays(path)
    try:
        return Dataset(**arrays)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None


def save_dataset(data: Dataset, path: str | Path) -> None:
    """Writes a data set to a file that `load_dataset` reads back exactly.

    Parameters
    ----------
    data : Dataset
    path : str or Path
        Ends in ``.npz``, ``.csv`` or ``.parquet``.

    Raises
    ------
    OSError
        If the name ends otherwise, or the file cannot be written.
    """
    arrays = {"X": data.X, "y": data.y}
    write_arrays(
        Path(path), arrays if data.cluster is None else {**arrays, "cluster": data.cluster}
    )


def load_digits() -> Dataset:
    """The 1,797 handwritten digits that scikit-learn ships: even (+1) against odd (-1).

    Images of 8 x 8 pixels, d = 64 (Alpaydin & Kaynak 1998, UCI Machine Learning Repository). The
    mean image is subtracted and every example is scaled to norm sqrt(d) = 8. The clusters are the
    ten digits.
    """
    return Dataset(*read_digits())


def _as_clusters(value: ArrayLike, labels: FloatArray) -> IntArray:
    cluster = as_integers("cluster", value)
    if len(cluster) != len(labels):
        raise ValueError(
            f"cluster must have one number an example: {len(labels)}; it has {len(cluster)}"
        )
    numbers, group = np.unique(cluster, return_inverse=True)
    positive = np.bincount(group, weights=labels > 0)
    mixed = (positive > 0) & (positive < np.bincount(group))
    if mixed.any():
        raise ValueError(
            f"cluster {numbers[mixed][0]} has examples of both labels; a cluster has one label"
        )
    return cluster


def gaussian_rows(count: int, explicit: int, dim: int, rng: np.random.Generator) -> FloatArray:
    """``count`` standard normal vectors of ``dim`` coordinates, up to a rotation of the tail.

    The first ``explicit`` coordinates stay as they are. Gram-Schmidt turns the rest into a lower
    triangle with independent entries: chi with dim - explicit - i degrees of freedom on the
    diagonal, N(0, 1) below it (Bartlett 1933). Shape (count, explicit + count).
    """
    rows = rng.standard_normal((count, explicit + count))
    triangle = np.tril(rows[:, explicit:], -1)
    degrees = float(dim) - explicit - np.arange(count)
    np.fill_diagonal(triangle, np.sqrt(rng.chisquare(degrees)))
    rows[:, explicit:] = triangle
    return rows


def _as_sizes(n_clusters: int, dim: int) -> tuple[int, int]:
    return as_positive_int("n_clusters", n_clusters, minimum=2), as_positive_int("dim", dim)


def _alternating(n_clusters: int) -> FloatArray:
    return np.where(np.arange(n_clusters) % 2 == 0, 1.0, -1.0)
