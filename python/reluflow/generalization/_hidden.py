"""Fresh examples as the hidden layer sees them, and where the network errs on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import qr

from reluflow._validation import BoolArray, FloatArray, require_memory
from reluflow.data import ClusterModel
from reluflow.network import TwoLayerNet

# Neurons whose part of the output varies less than this share of all of it stand still.
_STILL = 1e-15


@dataclass(frozen=True, eq=False)
class Region:
    """The standard normal g with constant + sum_j output_j relu(offset_j + factor_j . g) <= 0.

    "< 0" where ``strict``. offset and output (R,), factor (R, r).
    """

    offset: FloatArray
    factor: FloatArray
    output: FloatArray
    constant: float
    strict: bool

    @property
    def rank(self) -> int:
        """Number r of coordinates of g."""
        return int(self.factor.shape[1])

    def margins(self, g: FloatArray) -> FloatArray:
        """The function at the rows of g, shape (n,)."""
        active = np.maximum(self.offset + g @ self.factor.T, 0.0)
        return np.asarray(self.constant + active @ self.output)

    def contains(self, g: FloatArray) -> BoolArray:
        """Which rows of g belong to the region."""
        margins = self.margins(g)
        return np.asarray(margins < 0 if self.strict else margins <= 0)

    @cached_property
    def holds_origin(self) -> bool:
        """Whether the mean itself belongs to the region."""
        return bool(self.contains(np.zeros((1, self.rank)))[0])

    def complement(self) -> Region:
        """Everything else."""
        return replace(self, output=-self.output, constant=-self.constant, strict=not self.strict)

    def gradient(self) -> FloatArray:
        """Of the function at the origin, shape (r,)."""
        return np.asarray((self.output * (self.offset > 0)) @ self.factor)


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """Fresh examples of cluster q have the pre-activations offsets[q] + scales[q] factors[q] g.

    offsets (k, m), scales (k,), and factors (k, m, r) or, where the covariances are multiples of
    each other, (1, m, r); output weights (m,) and labels (k,).
    """

    offsets: FloatArray
    factors: FloatArray
    scales: FloatArray
    output: FloatArray
    labels: FloatArray
    dim: int

    @classmethod
    def of(cls, net: TwoLayerNet, clusters: ClusterModel) -> HiddenLayer:
        """Of a network on clusters of its dimension."""
        k = clusters.n_clusters
        distinct = 1 if clusters.isotropic else k
        require_memory(
            f"noise of {distinct} x {net.width} pre-activations",
            16.0 * distinct * net.width * min(net.width, net.dim),
        )
        if clusters.isotropic:
            noisiest = int(clusters.noise_scale.argmax())
            factors = [compressed(clusters.noise_factor(net.W, noisiest))]
            largest = clusters.noise_scale[noisiest]
            scales = clusters.noise_scale / (largest if largest > 0 else 1.0)
        else:
            factors = [compressed(clusters.noise_factor(net.W, q)) for q in range(k)]
            scales = np.ones(k)
        return cls(
            np.ascontiguousarray(clusters.means @ net.W.T + net.b),
            _stacked(factors),
            scales,
            net.v,
            clusters.labels,
            net.dim,
        )

    @property
    def n_clusters(self) -> int:
        """Number of clusters k."""
        return len(self.labels)

    def factor(self, q: int) -> FloatArray:
        """Of cluster q alone, shape (m, r), of full column rank."""
        factor = self.scales[q] * self.factors[min(q, len(self.factors) - 1)]
        return np.ascontiguousarray(factor[:, factor.any(axis=0)])

    def moving(self, q: int) -> BoolArray:
        """Neurons whose part of the output varies within cluster q, shape (m,)."""
        size = np.abs(self.output) * np.linalg.norm(self.factor(q), axis=1)
        return np.asarray(size > _STILL * size.sum())

    def region(self, q: int, *, strict: bool) -> Region:
        """Where the network errs on cluster q."""
        moving = self.moving(q)
        output = self.labels[q] * self.output
        still = np.maximum(self.offsets[q, ~moving], 0.0) @ output[~moving]
        return Region(
            offset=np.ascontiguousarray(self.offsets[q, moving]),
            factor=np.ascontiguousarray(self.factor(q)[moving]),
            output=np.ascontiguousarray(output[moving]),
            constant=float(still),
            strict=strict,
        )

    def opposite(self, q: int) -> FloatArray:
        """Pre-activations (p, R) at the means of the other label, the nearest first."""
        moving = self.moving(q)
        means = self.offsets[self.labels != self.labels[q]][:, moving]
        distances = ((means - self.offsets[q, moving]) ** 2).sum(axis=1)
        return np.ascontiguousarray(means[np.argsort(distances, kind="stable")])


def compressed(factor: FloatArray) -> FloatArray:
    """A factor of F F^T with as many columns as its numerical rank.

    QR with pivoting (Businger & Golub 1965) of F^T; rows of R at rounding level are left out.
    """
    m, r = factor.shape
    R, pivots = qr(factor.T, mode="r", pivoting=True)
    diagonal = np.abs(R.diagonal())
    negligible = diagonal.max(initial=0.0) * np.finfo(float).eps * max(m, r)
    rank = int((diagonal > negligible).sum())
    result = np.zeros((m, rank))
    result[pivots] = R[:rank].T
    return result


def _stacked(factors: list[FloatArray]) -> FloatArray:
    """(k, m, r) with the largest rank; columns of zeros fill up the others."""
    rank = max(factor.shape[1] for factor in factors)
    return np.stack([np.pad(f, ((0, 0), (0, rank - f.shape[1]))) for f in factors])
