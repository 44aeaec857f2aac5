"""Two-layer ReLU networks."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import core
from reluflow._threads import resolve_num_threads
from reluflow._validation import FloatArray, as_array, as_number, as_positive_int
from reluflow.data import Dataset

if TYPE_CHECKING:
    import torch

_ARRAYS = ("W", "b", "v")


@dataclass(frozen=True, eq=False)
class TwoLayerNet:
    """N(x) = sum_j v_j relu(w_j . x + b_j).

    Parameters
    ----------
    W : array_like, shape (m, d)
        Weights of the hidden layer, one neuron a row.
    b : array_like, shape (m,)
        Biases.
    v : array_like, shape (m,)
        Output weights.

    Raises
    ------
    ValueError
        If shapes disagree or an entry is not finite.
    """

    W: FloatArray
    b: FloatArray
    v: FloatArray

    def __init__(self, W: ArrayLike, b: ArrayLike, v: ArrayLike) -> None:
        weights, bias, output = as_array("W", W, 2), as_array("b", b, 1), as_array("v", v, 1)
        m = len(weights)
        if m == 0 or len(bias) != m or len(output) != m:
            raise ValueError(
                f"W, b and v must have one row a neuron and at least one neuron; their shapes "
                f"are {weights.shape}, {bias.shape} and {output.shape}"
            )
        for name, array in zip(_ARRAYS, (weights, bias, output), strict=True):
            object.__setattr__(self, name, _frozen(array))

    @classmethod
    def init(
        cls, width: int, dim: int, scale: float, *, bias: bool = True, seed: Any = None
    ) -> TwoLayerNet:
        """A balanced random network, small where ``scale`` is.

        Rows are w_j ~ N(0, scale^2 dim^(-3/2) I), so that ||w_j|| is about scale / dim^(1/4);
        biases are zero; |v_j| = ||w_j||, half of the signs positive. On inputs of norm sqrt(dim)
        every neuron then contributes of order scale^2, whatever the dimension.

        Parameters
        ----------
        width, dim : int
            Number of neurons m >= 2 and of input coordinates d.
        scale : float
            Size of the initialisation, above 0.
        bias : bool
            Whether biases are meant to be trained; they start at zero either way.
        seed : int, Generator or None
            As for `numpy.random.default_rng`.
        """
        width = as_positive_int("width", width, minimum=2)
        dim = as_positive_int("dim", dim)
        scale = as_number("scale", scale, above=0)
        rng = np.random.default_rng(seed)
        W = rng.standard_normal((width, dim)) * (scale / dim**0.75)
        v = np.linalg.norm(W, axis=1) * alternating_signs(width)
        return cls(W, np.zeros(width), v)

    @property
    def width(self) -> int:
        """Number of hidden neurons m."""
        return len(self.v)

    @property
    def dim(self) -> int:
        """Number of input coordinates d."""
        return int(self.W.shape[1])

    @property
    def norm(self) -> float:
        """Euclidean norm of all parameters (W, b, v)."""
        return float(np.sqrt((self.W**2).sum() + (self.b**2).sum() + (self.v**2).sum()))

    def __call__(self, X: ArrayLike, *, num_threads: int | None = None) -> FloatArray:
        """Outputs N(x), shape (n,), for the rows of X, shape (n, d)."""
        inputs = as_array("X", X, 2)
        require_dim("X", inputs.shape[1], self)
        threads = resolve_num_threads(num_threads)
        return core.forward(self.W, self.b, self.v, inputs, threads)

    def margins(self, data: Dataset) -> FloatArray:
        """Margins y_i N(x_i), shape (n,)."""
        return data.y * self(data.X)

    def normalized_margin(self, data: Dataset) -> float:
        """min_i y_i N(x_i) / ||theta||^2, invariant under scaling (Lyu & Li 2020)."""
        return float(self.margins(data).min() / self.norm**2)

    def scaled(self, c: float) -> TwoLayerNet:
        """All parameters times c: outputs are multiplied by c^2."""
        c = as_number("c", c)
        return TwoLayerNet(c * self.W, c * self.b, c * self.v)

    def save(self, path: str | Path) -> None:
        """Writes W, b and v to an .npz file."""
        np.savez_compressed(Path(path), W=self.W, b=self.b, v=self.v)

    @classmethod
    def load(cls, path: str | Path) -> TwoLayerNet:
        """Reads what `save` wrote; pickled objects are refused.

        Raises
        ------
        OSError
            If the file is missing, or is not an .npz file with W, b and v.
        """
        path = Path(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = [archive[name] for name in _ARRAYS]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
            raise OSError(f"{path} is not a saved network (.npz with W, b, v): {error}") from None
        return cls(*arrays)

    def to_torch(self) -> torch.nn.Sequential:
        """The same network as a float64 ``torch.nn.Sequential(Linear, ReLU, Linear)``."""
        import torch

        hidden = torch.nn.Linear(self.dim, self.width, dtype=torch.float64)
        output = torch.nn.Linear(self.width, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            hidden.weight.copy_(torch.tensor(self.W))
            hidden.bias.copy_(torch.tensor(self.b))
            output.weight.copy_(torch.tensor(self.v[None, :]))
        return torch.nn.Sequential(hidden, torch.nn.ReLU(), output)

    @classmethod
    def from_torch(cls, module: torch.nn.Module) -> TwoLayerNet:
        """A network from a module that holds exactly two linear layers, the last without bias.

        Raises
        ------
        ValueError
            If the module has another structure.
        """
        import torch

        layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        if len(layers) != 2 or layers[1].out_features != 1:
            raise ValueError(
                "module must hold two torch.nn.Linear layers, the second with one output; "
                f"it holds {[(layer.in_features, layer.out_features) for layer in layers]}"
            )
        hidden, output = layers
        if output.bias is not None and bool((output.bias != 0).any()):
            raise ValueError("module's output layer has a bias; a TwoLayerNet has none")
        bias = torch.zeros(hidden.out_features) if hidden.bias is None else hidden.bias
        return cls(
            hidden.weight.detach().double().cpu().numpy(),
            bias.detach().double().cpu().numpy(),
            output.weight.detach().double().cpu().numpy()[0],
        )

    def __repr__(self) -> str:
        return f"TwoLayerNet(width={self.width}, dim={self.dim}, norm={self.norm:.6g})"


def alternating_signs(width: int) -> FloatArray:
    """+1, -1, +1, ...: neurons are exchangeable, so this is a balanced random choice of signs."""
    return np.where(np.arange(width) % 2 == 0, 1.0, -1.0)


class HasDim(Protocol):
    """A network of some kind."""

    @property
    def dim(self) -> int:
        """Number of input coordinates."""


def require_dim(name: str, dim: int, net: HasDim) -> None:
    """Refuses inputs of another dimension than the network's."""
    if dim != net.dim:
        raise ValueError(f"{name} has {dim} columns; the network takes {net.dim}")


def _frozen(array: FloatArray) -> FloatArray:
    array = array.copy()
    array.setflags(write=False)
    return array
