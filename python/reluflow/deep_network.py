"""Fully connected networks of any depth and of other activations than the plain ReLU."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    FloatArray,
    as_array,
    as_labels,
    as_number,
    as_positive_int,
    frozen,
    one_of,
)
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet, alternating_signs, require_dim

ACTIVATIONS = ("relu", "leaky_relu", "polynomial_relu", "normalized_polynomial_relu")
BIASES = ("none", "first", "all")
DEPTHS = range(2, 7)
# Scales from which training starts in bounded time: plateaus grow like scale^-(depth - 2).
_SCALES = {2: 0.1, 3: 0.1, 4: 0.2, 5: 0.3, 6: 0.4}
# Of polynomial activations at depth 2: from larger ones the units do not align with the clusters.
_POLYNOMIAL_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class DeepNet:
    """A fully connected network of depth 2 to 6.

    Its layers are affine maps; between them every unit applies the activation to its
    pre-activation z = w . x + b:

    - ``relu``: max(z, 0);
    - ``leaky_relu``: z above 0, ``slope`` z below;
    - ``polynomial_relu``: max(z, 0)^power;
    - ``normalized_polynomial_relu``: max(z, 0)^power / ||(w, b)||^(power - 1), of degree 1 in the
      unit's weights (Min & Vidal 2024).

    With several outputs, one a class, the network decides between the labels of the classes: its
    value is the largest output of a class labelled +1 less the largest of one labelled -1.

    Parameters
    ----------
    weights : sequence of array_like
        One matrix a layer, (units, inputs of the layer), the last with one row an output.
    biases : sequence of array_like or None
        One vector a layer, or None where a layer has no biases; None means no biases at all.
    activation : str
        One of the above.
    slope : float
        Slope of ``leaky_relu`` below 0, in [0, 1).
    power : float
        Power of the polynomial activations, at least 1.
    skip : array_like or None
        Weights (outputs, d) of a linear connection from the inputs to the outputs.
    class_labels : array_like or None
        Labels -1 or +1 of the outputs, where there are several.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, or an option does not exist.

    References
    ----------
    Min & Vidal 2024, "Can implicit bias imply adversarial robustness?", section 3; Li et al. 2024,
    on networks trained to tell clusters apart.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray | None, ...]
    activation: str
    slope: float
    power: float
    skip: FloatArray | None
    class_labels: FloatArray | None

    def __init__(
        self,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike | None] | None = None,
        *,
        activation: str = "relu",
        slope: float = 0.1,
        power: float = 3.0,
        skip: ArrayLike | None = None,
        class_labels: ArrayLike | None = None,
    ) -> None:
        layers = tuple(
            frozen(as_array(f"weights[{layer}]", given, 2)) for layer, given in enumerate(weights)
        )
        as_depth(len(layers))
        given = [None] * len(layers) if biases is None else list(biases)
        if len(given) != len(layers):
            raise ValueError(
                f"biases must have one entry a layer: {len(layers)}; it has {len(given)}"
            )
        vectors = tuple(
            None if bias is None else frozen(as_array(f"biases[{layer}]", bias, 1))
            for layer, bias in enumerate(given)
        )
        slope = as_number("slope", slope, at_least=0)
        if slope >= 1:
            raise ValueError(f"slope must be below 1; got {slope:g}")
        fields: dict[str, Any] = {
            "weights": layers,
            "biases": vectors,
            "activation": one_of("activation", activation, ACTIVATIONS),
            "slope": slope,
            "power": as_number("power", power, at_least=1),
            "skip": None if skip is None else frozen(as_array("skip", skip, 2)),
            "class_labels": None
            if class_labels is None
            else frozen(as_labels("class_labels", class_labels, len(layers[-1]), per="an output")),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._require_shapes()

    def _require_shapes(self) -> None:
        for layer in range(1, self.depth):
            above, below = self.weights[layer].shape, self.weights[layer - 1].shape
            if above[1] != below[0]:
                raise ValueError(
                    f"weights[{layer}] has {above[1]} columns; the layer below has {below[0]} units"
                )
        for layer, bias in enumerate(self.biases):
            units = len(self.weights[layer])
            if bias is not None and len(bias) != units:
                raise ValueError(f"biases[{layer}] must have length {units}; it has {len(bias)}")
        if self.skip is not None and self.skip.shape != (self.outputs, self.dim):
            raise ValueError(
                f"skip must have shape {(self.outputs, self.dim)}; its shape is {self.skip.shape}"
            )
        if self.outputs > 1 and (self.class_labels is None or np.ptp(self.class_labels) == 0):
            raise ValueError(
                f"class_labels must give each of the {self.outputs} outputs a label -1 or +1, "
                "with both among them"
            )

    @classmethod
    def init(
        cls,
        depth: int,
        width: int,
        dim: int,
        scale: float | None = None,
        *,
        bias: str = "first",
        activation: str = "relu",
        slope: float = 0.1,
        power: float = 3.0,
        skip: bool = False,
        class_labels: ArrayLike | None = None,
        seed: Any = None,
    ) -> DeepNet:
        """A balanced random network, small where ``scale`` is.

        Rows of the first layer are random directions of norm ``scale``; entries of hidden layers
        are N(0, scale^2 / width); output weights are +-``scale``, half of the signs positive;
        biases and skip connection are zero. Where there are several outputs, signs are random; at
        depth 2 each unit has the weight ``scale`` to one output instead, in turn, and 0 to the
        others, so that an output needs a few units: the only one may die.

        Parameters
        ----------
        depth : int
            Number of layers, 2 to 6.
        width : int
            Units in every hidden layer, at least 2.
        dim : int
            Number of input coordinates d.
        scale : float or None
            Size of the initialisation; None takes one from which training starts in bounded time:
            0.1 for depth 2 and 3, 0.2 for 4, 0.3 for 5, 0.4 for 6, and 1e-3 for polynomial
            activations at depth 2. A plateau before the loss falls grows like scale^-(depth - 2).
        bias : {"first", "none", "all"}
            Which layers have biases.
        activation, slope, power, class_labels
            As for the class.
        skip : bool
            Whether there is a linear connection from the inputs to the outputs.
        seed : int, Generator or None
            As for `numpy.random.default_rng`.
        """
        as_depth(depth)
        width = as_positive_int("width", width, minimum=2)
        dim = as_positive_int("dim", dim)
        polynomial = depth == 2 and "polynomial" in activation
        default = _POLYNOMIAL_SCALE if polynomial else _SCALES[depth]
        scale = default if scale is None else as_number("scale", scale, above=0)
        one_of("bias", bias, BIASES)
        outputs = 1 if class_labels is None else len(as_labels("class_labels", class_labels))
        rng = np.random.default_rng(seed)
        first = rng.standard_normal((width, dim))
        first *= scale / np.linalg.norm(first, axis=1, keepdims=True)
        hidden = [
            rng.standard_normal((width, width)) * (scale / math.sqrt(width))
            for _ in range(depth - 2)
        ]
        signs = alternating_signs(width)[None]
        if outputs > 1 and depth == 2:
            signs = np.equal.outer(np.arange(outputs), np.arange(width) % outputs).astype(float)
        elif outputs > 1:
            # With one output each, units above the first layer may leave clusters that none serves.
            signs = rng.choice([-1.0, 1.0], (outputs, width))
        weights = [first, *hidden, scale * signs]
        biased = {"none": 0, "first": 1, "all": depth}[bias]
        return cls(
            weights,
            [np.zeros(len(w)) if layer < biased else None for layer, w in enumerate(weights)],
            activation=activation,
            slope=slope,
            power=power,
            skip=np.zeros((outputs, dim)) if skip else None,
            class_labels=class_labels,
        )

    @property
    def depth(self) -> int:
        """Number of layers L."""
        return len(self.weights)

    @property
    def dim(self) -> int:
        """Number of input coordinates d."""
        return int(self.weights[0].shape[1])

    @property
    def outputs(self) -> int:
        """Number of outputs, one or one a class."""
        return len(self.weights[-1])

    @property
    def degree(self) -> float:
        """Power of c by which outputs grow when all parameters are multiplied by c.

        Exact where no layer above the first has biases and there is no skip connection.
        """
        return float(self.architecture().degree)

    @property
    def theta(self) -> FloatArray:
        """All parameters as one vector: layer by layer weights and biases, then the skip's."""
        parts: list[FloatArray] = []
        for weights, bias in zip(self.weights, self.biases, strict=True):
            parts += [weights.ravel()] if bias is None else [weights.ravel(), bias]
        return np.concatenate(parts if self.skip is None else [*parts, self.skip.ravel()])

    @property
    def norm(self) -> float:
        """Euclidean norm of all parameters."""
        return float(np.linalg.norm(self.theta))

    def with_theta(self, theta: FloatArray) -> DeepNet:
        """A network of the same shape with other parameters, ordered as in `theta`."""
        begin = 0

        def take(shape: Iterable[int]) -> FloatArray:
            nonlocal begin
            size = math.prod(shape)
            begin += size
            return theta[begin - size : begin].reshape(tuple(shape))

        weights, biases = [], []
        for matrix, bias in zip(self.weights, self.biases, strict=True):
            weights.append(take(matrix.shape))
            biases.append(None if bias is None else take(bias.shape))
        return self.like(weights, biases, None if self.skip is None else take(self.skip.shape))

    def like(
        self,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike | None],
        skip: ArrayLike | None,
    ) -> DeepNet:
        """A network of the same activation and classes with other parameters."""
        return DeepNet(
            weights,
            biases,
            activation=self.activation,
            slope=self.slope,
            power=self.power,
            skip=skip,
            class_labels=self.class_labels,
        )

    def architecture(self, backend: str = "native") -> Any:
        """The shape as a backend's kernels take it."""
        kernel = kernels(backend)
        parameter = self.slope if self.activation == "leaky_relu" else self.power
        return kernel.Architecture(
            [self.dim, *(len(weights) for weights in self.weights)],
            [bias is not None for bias in self.biases],
            getattr(kernel.Activation, self.activation),
            parameter,
            self.skip is not None,
        )

    def logits(self, X: ArrayLike, *, num_threads: int | None = None) -> FloatArray:
        """All outputs, shape (n, outputs), for the rows of X, shape (n, d)."""
        inputs = as_array("X", X, 2)
        require_dim("X", inputs.shape[1], self)
        threads = resolve_num_threads(num_threads)
        values: FloatArray = kernels("native").deep_forward(
            self.architecture("native"), self.theta, inputs, threads
        )
        return values

    def __call__(self, X: ArrayLike, *, num_threads: int | None = None) -> FloatArray:
        """Values N(x), shape (n,), whose sign is the label, for the rows of X, shape (n, d)."""
        logits = self.logits(X, num_threads=num_threads)
        if self.class_labels is None:
            return logits[:, 0].copy()
        positive = self.class_labels > 0
        return np.asarray(logits[:, positive].max(axis=1) - logits[:, ~positive].max(axis=1))

    def margins(self, data: Dataset) -> FloatArray:
        """Margins y_i N(x_i), shape (n,)."""
        return data.y * self(data.X)

    def normalized_margin(self, data: Dataset) -> float:
        """min_i y_i N(x_i) / ||theta||^degree, invariant under scaling (Lyu & Li 2020)."""
        return float(self.margins(data).min() / self.norm**self.degree)

    def scaled(self, c: float) -> DeepNet:
        """All parameters times c."""
        return self.with_theta(as_number("c", c) * self.theta)

    def unit_norms(self, layer: int) -> FloatArray:
        """||(w, b)|| of the units of a layer, 1 where that is 0."""
        bias = self.biases[layer]
        squares = (self.weights[layer] ** 2).sum(axis=1) + (0.0 if bias is None else bias**2)
        return np.asarray(np.sqrt(np.where(squares > 0, squares, 1.0)))

    def activations(self, layer: int, z: FloatArray) -> FloatArray:
        """What a hidden layer makes of its pre-activations (n, units)."""
        if self.activation == "leaky_relu":
            return np.where(z > 0, z, self.slope * z)
        positive = np.maximum(z, 0)
        if self.activation == "relu":
            return positive
        norms = self._divisors(layer)
        return np.asarray(norms * (positive / norms) ** self.power)

    def activation_slopes(self, layer: int, z: FloatArray) -> FloatArray:
        """Derivative of `activations` in z, the left one at kinks."""
        if self.activation == "leaky_relu":
            return np.where(z > 0, 1.0, self.slope)
        if self.activation == "relu":
            return (z > 0).astype(np.float64)
        scaled = np.maximum(z, 0) / self._divisors(layer)
        return np.asarray(self.power * scaled ** (self.power - 1) * (z > 0))

    def _divisors(self, layer: int) -> FloatArray | float:
        normalized = self.activation == "normalized_polynomial_relu"
        return self.unit_norms(layer) if normalized else 1.0

    def to_two_layer(self) -> TwoLayerNet:
        """The same function as a two-layer ReLU network, so that its radii can be proved.

        Of depth 2, with one output and a piecewise linear activation: s z below 0 is -s relu(-z),
        a skip connection is relu(u . x) - relu(-u . x), and an output bias a unit without weights.

        Raises
        ------
        ValueError
            If the network is of another kind.
        """
        if not self.is_two_layer:
            raise ValueError(
                "only a network of depth 2 with one output and activation relu or leaky_relu is a "
                f"two-layer ReLU network; this one has depth {self.depth}, {self.outputs} "
                f"output(s) and activation {self.activation}"
            )
        W, v = self.weights[0], self.weights[1][0]
        b = np.zeros(len(W)) if self.biases[0] is None else self.biases[0]
        rows, shifts, output = [W], [b], [v]
        if self.activation == "leaky_relu" and self.slope > 0:
            rows, shifts, output = [W, -W], [b, -b], [v, -self.slope * v]
        if self.skip is not None:
            rows += [self.skip, -self.skip]
            shifts.append(np.zeros(2))
            output.append(np.array([1.0, -1.0]))
        if self.biases[1] is not None:
            rows.append(np.zeros((1, self.dim)))
            shifts.append(np.ones(1))
            output.append(self.biases[1])
        return TwoLayerNet(np.concatenate(rows), np.concatenate(shifts), np.concatenate(output))

    @property
    def is_two_layer(self) -> bool:
        """Whether `to_two_layer` can be called."""
        return self.depth == 2 and self.outputs == 1 and self.activation in ACTIVATIONS[:2]

    def save(self, path: str | Path) -> None:
        """Writes the network to an .npz file."""
        arrays: dict[str, Any] = {
            "activation": np.array(self.activation),
            "slope": np.array(self.slope),
            "power": np.array(self.power),
        }
        for layer, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"weights{layer}"] = weights
            if bias is not None:
                arrays[f"bias{layer}"] = bias
        for name in ("skip", "class_labels"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        np.savez_compressed(Path(path), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> DeepNet:
        """Reads what `save` wrote; pickled objects are refused.

        Raises
        ------
        OSError
            If the file is missing, or is not such a file.
        """
        path = Path(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            depth = sum(name.startswith("weights") for name in arrays)
            return cls(
                [arrays[f"weights{layer}"] for layer in range(depth)],
                [arrays.get(f"bias{layer}") for layer in range(depth)],
                activation=str(arrays["activation"]),
                slope=float(arrays["slope"]),
                power=float(arrays["power"]),
                skip=arrays.get("skip"),
                class_labels=arrays.get("class_labels"),
            )
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
            raise OSError(f"{path} is not a saved deep network (.npz): {error}") from None

    def __repr__(self) -> str:
        widths = "-".join(str(len(weights)) for weights in self.weights)
        return f"DeepNet({self.dim}-{widths}, {self.activation}, norm={self.norm:.6g})"


def as_depth(depth: Any) -> int:
    """A number of layers that networks may have."""
    layers = as_positive_int("depth", depth)
    if layers not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}; got {layers}")
    return layers
