"""A given problem in the few coordinates that its flow can tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from reluflow._validation import FloatArray, as_array, require_memory
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet, require_dim

# The frame costs about as much as this many passes over the data in all coordinates, and pays off
# where they are so many times more than the few.
_TIMES_FEWER = 2


@dataclass(frozen=True, eq=False)
class Reduction:
    """A network and a data set in an orthonormal frame of their span.

    Inner products among examples and weights are those of the given problem, so that flows, KKT
    points and outputs are the same. The frame is the orthogonal factor of [X^T W^T] (Householder
    QR; Golub & Van Loan 2013, section 5.2): first come min(n, d) directions that span the examples,
    X = L Q^T with L triangular, then those of what the weights have beside them. That part meets no
    example and stays where it is along the flow; `lift` gives it back. docs/theory.md, section 3.2.

    Attributes
    ----------
    net : TwoLayerNet
        The network on the reduced coordinates.
    data : Dataset
        The examples: L, and zeros.
    frame : ndarray, shape (d, r)
        Orthonormal columns.
    """

    net: TwoLayerNet
    data: Dataset
    frame: FloatArray

    @classmethod
    def of(cls, net: TwoLayerNet, data: Dataset) -> Reduction:
        """The reduction of a network and a data set of one dimension.

        Raises
        ------
        ValueError
            If their dimensions differ.
        MemoryError
            If the frame would not fit.
        """
        require_dim("data.X", data.dim, net)
        rows = data.n + net.width
        require_memory(f"a frame of {rows} vectors, dim={data.dim}", 24.0 * rows * data.dim)
        stacked = np.concatenate([data.X, net.W]).T
        frame, triangle = scipy.linalg.qr(
            stacked, mode="economic", overwrite_a=True, check_finite=False
        )
        coordinates = np.ascontiguousarray(triangle.T)
        return cls(
            TwoLayerNet(coordinates[data.n :], net.b, net.v),
            Dataset(coordinates[: data.n], data.y, data.cluster),
            frame,
        )

    @property
    def dim(self) -> int:
        """Number of reduced coordinates."""
        return int(self.frame.shape[1])

    def project(self, X: ArrayLike) -> FloatArray:
        """Points of d coordinates, shape (n, d), as networks in the frame see them, (n, r)."""
        points = as_array("X", X, 2)
        if points.shape[1] != len(self.frame):
            raise ValueError(f"X must have {len(self.frame)} columns; it has {points.shape[1]}")
        return np.asarray(points @ self.frame)

    def lift(self, net: TwoLayerNet) -> TwoLayerNet:
        """A network of the reduced coordinates in all d of them."""
        if net.dim != self.dim:
            raise ValueError(f"net must take {self.dim} coordinates; it takes {net.dim}")
        return TwoLayerNet(net.W @ self.frame.T, net.b, net.v)


def pays_off(net: TwoLayerNet, data: Dataset) -> bool:
    """Whether work that goes over the data again and again is better done after a reduction."""
    return data.dim >= _TIMES_FEWER * (data.n + net.width)
