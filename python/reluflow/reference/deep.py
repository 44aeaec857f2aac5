"""Fully connected networks of any depth: outputs, and the gradient of log L by the chain rule."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from reluflow._validation import FloatArray, IntArray
from reluflow.reference.flow import Ending, Model, Options, follow
from reluflow.reference.losses import Loss, MarginLoss, log_loss_weights, margin_loss
from reluflow.reference.stepping import FlowMethod


class Activation(enum.Enum):
    """What a hidden unit makes of its pre-activation z, with incoming weights and bias (w, b).

    max(z, 0); that, with slope ``parameter`` below 0; max(z, 0)^parameter; and that over
    ||(w, b)||^(parameter - 1) (Min & Vidal 2024).
    """

    relu = "relu"
    leaky_relu = "leaky_relu"
    polynomial_relu = "polynomial_relu"
    normalized_polynomial_relu = "normalized_polynomial_relu"


@dataclass(frozen=True)
class Architecture:
    """Shape of a network. Its parameters are one vector: layer by layer the weights, one unit a
    row, and the biases where the layer has them; then the skip connection's weights."""

    widths: Sequence[int]
    biased: Sequence[bool]
    activation: Activation
    parameter: float
    skip: bool

    @property
    def size(self) -> int:
        """Number of parameters."""
        layers = zip(self.widths[:-1], self.widths[1:], self.biased, strict=True)
        size = sum(out * (inside + biased) for inside, out, biased in layers)
        return size + self.skip * self.widths[0] * self.widths[-1]

    @property
    def degree(self) -> float:
        """Degree of homogeneity of the outputs in all parameters.

        Without biases above the first layer and without a skip connection.
        """
        kind = self.activation
        power = self.parameter if "polynomial" in kind.value else 1.0
        # ||(w, b)||^(power - 1) takes the degree of the unit's own weights back to 1.
        divided = power - 1 if kind is Activation.normalized_polynomial_relu else 0.0
        degree = 1.0
        for _ in self.widths[2:]:
            degree = power * degree - divided + 1
        return degree


@dataclass(frozen=True)
class _Layer:
    weights: FloatArray
    bias: FloatArray  # empty where there is none

    @property
    def norms(self) -> FloatArray:
        extra = self.bias**2 if len(self.bias) else 0.0
        return np.asarray(np.sqrt((self.weights**2).sum(axis=1) + extra))


def _layers(architecture: Architecture, theta: FloatArray) -> tuple[list[_Layer], FloatArray]:
    """The layers' views of theta, and the skip connection's (empty where there is none)."""
    layers, begin = [], 0
    widths = architecture.widths
    for inside, out, biased in zip(widths[:-1], widths[1:], architecture.biased, strict=True):
        bias = begin + out * inside
        end = bias + out * biased
        layers.append(_Layer(theta[begin:bias].reshape(out, inside), theta[bias:end]))
        begin = end
    return layers, theta[begin:].reshape(-1, widths[0])


def _activate(architecture: Architecture, z: FloatArray, norms: FloatArray) -> FloatArray:
    kind, p = architecture.activation, architecture.parameter
    if kind is Activation.leaky_relu:
        return np.where(z > 0, z, p * z)
    positive = np.maximum(z, 0)
    if kind is Activation.relu:
        return positive
    if kind is Activation.polynomial_relu:
        return np.asarray(positive**p)
    return np.asarray(norms * (positive / np.where(norms > 0, norms, 1)) ** p)


def _slope(architecture: Architecture, z: FloatArray, norms: FloatArray) -> FloatArray:
    """Derivative of the activation in z."""
    kind, p = architecture.activation, architecture.parameter
    if kind is Activation.leaky_relu:
        return np.where(z > 0, 1.0, p)
    active = (z > 0).astype(np.float64)
    if kind is Activation.relu:
        return active
    base = np.where(z > 0, z, 1)
    if kind is Activation.normalized_polynomial_relu:
        base = base / np.where(norms > 0, norms, 1)
    return np.asarray(active * p * base ** (p - 1))


def _forward(
    architecture: Architecture, theta: FloatArray, inputs: FloatArray
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Inputs and pre-activations of every layer; the last pre-activations are the outputs."""
    layers, skip = _layers(architecture, theta)
    entering, preactivations = [inputs], []
    for layer in layers:
        z = entering[-1] @ layer.weights.T + (layer.bias if len(layer.bias) else 0.0)
        preactivations.append(z)
        entering.append(_activate(architecture, z, layer.norms))
    if architecture.skip:
        preactivations[-1] = preactivations[-1] + inputs @ skip.T
    return entering[:-1], preactivations


def deep_forward(
    architecture: Architecture, theta: FloatArray, inputs: FloatArray, num_threads: int
) -> FloatArray:
    """Outputs (n, outputs) for every row of ``inputs``."""
    return _forward(architecture, theta, inputs)[1][-1]


def _margins(outputs: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Margins, and their derivatives in the outputs."""
    if outputs.shape[1] == 1:
        return targets * outputs[:, 0], targets[:, None]
    own = np.zeros(outputs.shape, dtype=bool)
    own[np.arange(len(targets)), targets.astype(np.int64)] = True
    rivals = np.where(own, -np.inf, outputs)
    others = logsumexp(rivals, axis=1)
    slopes = np.where(own, 1.0, -np.exp(rivals - others[:, None]))
    return outputs[own] - others, slopes


def deep_gradient(
    architecture: Architecture,
    theta: FloatArray,
    inputs: FloatArray,
    targets: FloatArray,
    loss: Loss | MarginLoss,
    num_threads: int,
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """log L, margins, example weights, and -grad log L as one vector.

    ``targets`` are labels -1 and +1 with one output, and classes 0, 1, .. with more: the margin is
    then the output of the own class less the log-sum-exp of the others.
    """
    layers, _ = _layers(architecture, theta)
    entering, preactivations = _forward(architecture, theta, inputs)
    margins, slopes = _margins(preactivations[-1], targets)
    log_loss, weights = log_loss_weights(margins, loss)
    gradient = weights[:, None] * slopes
    skip = (gradient.T @ inputs).ravel() if architecture.skip else np.zeros(0)
    parts: list[FloatArray] = []
    for at in reversed(range(len(layers))):
        layer, z = layers[at], preactivations[at]
        radial = np.zeros(len(layer.weights))
        if at + 1 < len(layers):
            if architecture.activation is Activation.normalized_polynomial_relu:
                norms = np.where(layer.norms > 0, layer.norms, 1)
                radial = (1 - architecture.parameter) * (gradient * entering[at + 1]).sum(0)
                radial = radial / norms**2
            gradient = gradient * _slope(architecture, z, layer.norms)
        moved = gradient.T @ entering[at] + radial[:, None] * layer.weights
        moved_bias = gradient.sum(0) + radial * layer.bias if len(layer.bias) else np.zeros(0)
        parts = [moved.ravel(), moved_bias, *parts]
        gradient = gradient @ layer.weights
    return log_loss, margins, weights, np.concatenate([*parts, skip])


def _unreachable(architecture: Architecture, theta: FloatArray, inputs: FloatArray) -> IntArray:
    """Examples that a layer without active units hides from all parameters."""
    leaks = architecture.activation is Activation.leaky_relu and architecture.parameter != 0
    silent = np.zeros(len(inputs), dtype=bool)
    if leaks or architecture.skip:
        return np.flatnonzero(silent)
    preactivations = _forward(architecture, theta, inputs)[1]
    for layer, biased in enumerate(architecture.biased):
        if biased:
            silent[:] = False
        if layer + 1 < len(preactivations):
            silent |= ~(preactivations[layer] > 0).any(axis=1)
    return np.flatnonzero(silent)


@dataclass(frozen=True)
class _Evaluation:
    log_loss: float
    margins: FloatArray
    example_weights: FloatArray
    velocity: FloatArray


@dataclass(frozen=True)
class DeepFlowOutcome(Ending):
    """Where the flow of a deep network ended."""

    theta: FloatArray


def deep_gradient_flow(
    architecture: Architecture,
    theta: FloatArray,
    inputs: FloatArray,
    targets: FloatArray,
    loss: Loss | MarginLoss,
    method: FlowMethod,
    log_inverse_loss: float,
    rtol: float,
    largest_move: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
) -> DeepFlowOutcome:
    """Follows d theta / d tau = -grad log L, refusing steps that raise log L by more than rtol."""

    def evaluate(at: FloatArray) -> _Evaluation:
        return _Evaluation(*deep_gradient(architecture, at, inputs, targets, loss, 1))

    model = Model(
        evaluate,
        lambda at: _unreachable(architecture, at, inputs),
        architecture.degree,
        margin_loss(loss).has_minimizer,
    )
    options = Options(log_inverse_loss, rtol, max_evaluations, method, largest_move, descend=True)
    ending, end = follow(model, theta, targets, options, max_seconds, progress)
    return DeepFlowOutcome(**vars(ending), theta=end)
