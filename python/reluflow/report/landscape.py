"""A network's outputs on a plane through an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reluflow._validation import FloatArray
from reluflow.network import TwoLayerNet

if TYPE_CHECKING:
    from reluflow.experiments import DoubleEdge

# Share of a vector that must lie outside a direction for the two to span a plane.
_INDEPENDENT = 1e-6
# How far from the median the radius of a typical example may be, relative.
_TYPICAL = 0.05


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane through an example along which a landscape is drawn.

    Attributes
    ----------
    index : int
        The example, as a row of ``test_data``.
    label : float
        Its label y.
    origin : ndarray, shape (d,)
        The example itself.
    axes : ndarray, shape (2, d)
        Orthonormal: along the universal perturbation, in the sense that flips this label; and
        towards the nearest mean of the other label.
    own_mean, opposite_mean : ndarray, shape (2,)
        Those cluster means, projected on the plane; the second lies in it.
    """

    index: int
    label: float
    origin: FloatArray
    axes: FloatArray
    own_mean: FloatArray
    opposite_mean: FloatArray

    def project(self, displacement: FloatArray) -> FloatArray:
        """Coordinates on the plane of a displacement from the example."""
        return self.axes @ displacement

    def outputs(self, net: TwoLayerNet, x: FloatArray, y: FloatArray) -> FloatArray:
        """y N on the grid with these coordinates, shape (len(y), len(x))."""
        restricted = TwoLayerNet(net.W @ self.axes.T, net.W @ self.origin + net.b, net.v)
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        return self.label * restricted(grid).reshape(len(y), len(x))


def typical_plane(result: DoubleEdge) -> Plane:
    """The plane through the test example whose radius is the median one."""
    index = _typical_example(result)
    x, label = result.test_data.X[index], float(result.test_data.y[index])
    means, labels = result.clusters.means, result.clusters.labels
    distances = np.linalg.norm(means - x, axis=1)
    own = _nearest(distances, labels == label)
    opposite = _nearest(distances, labels != label)
    along = -label * result.universal.direction
    along = along / np.linalg.norm(along)
    across = _across(along, [means[opposite] - x, means[own], *np.eye(2, len(x))])
    axes = np.stack([along, across])
    return Plane(index, label, x, axes, axes @ (means[own] - x), axes @ (means[opposite] - x))


def _typical_example(result: DoubleEdge) -> int:
    """An example of median radius, one that both networks classify if there is one as typical."""
    trained, robust = result.radii.radius, result.robust_radii.radius
    right = np.isfinite(trained) & (trained > 0)
    if not right.any():
        return 0
    distance = np.abs(trained - np.median(trained[right]))
    both = right & np.isfinite(robust) & (robust > 0)
    typical = distance <= _TYPICAL * np.median(trained[right])
    return _nearest(distance, both & typical if (both & typical).any() else right)


def _nearest(distances: FloatArray, allowed: np.ndarray) -> int:
    return int(np.argmin(np.where(allowed, distances, np.inf)))


def _across(along: FloatArray, candidates: list[FloatArray]) -> FloatArray:
    """Unit vector across ``along`` in the plane with the first candidate that spans one with it."""
    for candidate in candidates:
        rest = candidate - (candidate @ along) * along
        length = float(np.linalg.norm(rest))
        if length > _INDEPENDENT * float(np.linalg.norm(candidate)):
            return rest / length
    raise ValueError("the examples have one coordinate; a plane needs two")
