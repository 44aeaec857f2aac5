"""Forward pass and gradients of log L, in the primal and in the Gram form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray
from reluflow.reference.losses import Loss, MarginLoss, log_loss_weights


@dataclass(frozen=True)
class LossGradient:
    """log L, and -grad log L with respect to weights (m, d), bias (m,) and output (m,)."""

    log_loss: float
    margins: FloatArray
    example_weights: FloatArray
    weights: FloatArray
    bias: FloatArray
    output: FloatArray

    @property
    def velocity(self) -> FloatArray:
        """-grad log L as one vector."""
        return np.concatenate([self.weights.ravel(), self.bias, self.output])


def forward(
    weights: FloatArray, bias: FloatArray, output: FloatArray, inputs: FloatArray, num_threads: int
) -> FloatArray:
    """N(x) = sum_j v_j relu(w_j . x + b_j) for every row of ``inputs``."""
    return np.maximum(inputs @ weights.T + bias, 0.0) @ output


def gram_matrix(inputs: FloatArray, bias_feature: bool, num_threads: int) -> FloatArray:
    """x_i . x_l of the rows, plus 1 where a bias feature is part of them."""
    gram: FloatArray = inputs @ inputs.T + float(bias_feature)
    return gram


def primal_gradient(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    num_threads: int,
    kink_ramp: float = 0.0,
) -> LossGradient:
    """The gradient as the chain rule writes it; a kink ramp of 0 is none."""
    preactivations = inputs @ weights.T + bias
    activations = np.maximum(preactivations, 0.0)
    margins = labels * (activations @ output)
    log_loss, example_weights = log_loss_weights(margins, loss)
    signed = example_weights * labels
    backpropagated = np.where(preactivations > 0, signed[:, None] * output, 0.0)
    if kink_ramp > 0:
        backpropagated *= _ramp(preactivations, backpropagated, kink_ramp)
    return LossGradient(
        log_loss,
        margins,
        example_weights,
        weights=backpropagated.T @ inputs,
        bias=backpropagated.sum(0) if train_bias else np.zeros_like(bias),
        output=activations.T @ signed if train_output else np.zeros_like(output),
    )


def gram_gradient(
    weights: FloatArray,
    bias: FloatArray,
    output: FloatArray,
    inputs: FloatArray,
    labels: FloatArray,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    num_threads: int,
    kink_ramp: float = 0.0,
) -> LossGradient:
    """The same gradient; the forms differ in what the flow carries along, not in one gradient."""
    return primal_gradient(
        weights, bias, output, inputs, labels, loss, train_output, train_bias, 1, kink_ramp
    )


def _ramp(preactivations: FloatArray, backpropagated: FloatArray, ramp: float) -> FloatArray:
    """min(1, z / (ramp rms(z_j))) where an example pushes a neuron towards its kink, else 1."""
    width = ramp * np.sqrt((preactivations**2).mean(0))
    slope = np.minimum(1.0, preactivations / np.where(width > 0, width, 1.0))
    return np.where(backpropagated < 0, slope, 1.0)
