"""Examples that are all shifted along one direction, each with its sign."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from reluflow._validation import FloatArray
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import TwoLayerNet
from reluflow.robustness._deep_rays import first_crossings, piecewise_linear, restricted
from reluflow.robustness._row_space import RowSpace


@dataclass(frozen=True, eq=False)
class TwoLayerRays:
    """Rays of a two-layer network, in the row space of its weights.

    Attributes
    ----------
    net : TwoLayerNet
    data : Dataset
    sign : ndarray, shape (n,)
        Example i is moved by sign_i times the shift.
    strict : bool
    space : RowSpace
    preactivations : ndarray, shape (n, R)
    kernel : module
    threads : int
    """

    net: TwoLayerNet
    data: Dataset
    sign: FloatArray
    strict: bool
    space: RowSpace
    preactivations: FloatArray
    kernel: ModuleType
    threads: int

    @classmethod
    def of(
        cls,
        net: TwoLayerNet,
        data: Dataset,
        sign: FloatArray,
        strict: bool,
        kernel: ModuleType,
        threads: int,
    ) -> TwoLayerRays:
        """Rays from the examples of a data set."""
        space = RowSpace.of(net)
        preactivations = space.preactivations(data.X)
        return cls(net, data, sign, strict, space, preactivations, kernel, threads)

    def crossings(self, unit: FloatArray) -> FloatArray:
        """Norms at which x_i + sign_i norm unit first flips, shape (n,); infinite where never."""
        norms: FloatArray = self.kernel.ray_crossings(
            self.preactivations,
            self.space.weights @ unit,
            self.sign,
            self.space.output,
            self.space.constant,
            self.data.y,
            self.strict,
            self.threads,
        )
        return norms


@dataclass(frozen=True, eq=False)
class DeepRays:
    """Rays of a deep network.

    Attributes
    ----------
    net : DeepNet
    data : Dataset
    sign : ndarray, shape (n,)
    """

    net: DeepNet
    data: Dataset
    sign: FloatArray

    def crossings(self, unit: FloatArray) -> FloatArray:
        """Norms at which x_i + sign_i norm unit first flips, shape (n,); infinite where never."""
        X = self.data.X
        # Along a polynomial network's rays a grid is searched, which needs an end.
        reach = 4 * float(np.linalg.norm(X, axis=1).max())
        longest = np.full(len(X), np.inf if piecewise_linear(self.net) else reach)
        inside, basis = restricted(self.net)
        shifts = self.sign[:, None] * (unit @ basis)
        return first_crossings(inside, X @ basis, shifts, self.data.y, longest=longest)
