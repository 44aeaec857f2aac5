"""The independent check of KKT points of deep networks, at full width.

NumPy alone, straight from the conditions of docs/theory.md, section 9: no groups, no span of the
data, nothing shared with what finds the points.
"""

from __future__ import annotations

import numpy as np

from reluflow._validation import FloatArray
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.kkt.deep_pieces import Pieces
from reluflow.kkt.residuals import KKTResiduals


def deep_residuals(
    net: DeepNet, data: Dataset, pieces: Pieces, multipliers: FloatArray
) -> KKTResiduals:
    """Residuals of the KKT conditions of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1.

    Parameters
    ----------
    net : DeepNet
        Homogeneous, with one output, and as it is: it is not scaled here.
    data : Dataset
    pieces : Pieces
        Masks of all units. The gradient of a margin with every unit's slope taken from them is a
        Clarke subgradient where they agree with the signs of the pre-activations; where they do
        not, ``clarke_violation`` says how far those are from 0.
    multipliers : ndarray, shape (p,)
        Those of the pieces of an example sum to its own.
    """
    inside = net.slope if net.activation == "leaky_relu" else 0.0
    slopes = [inside + (1 - inside) * mask for mask in pieces.masks]
    preactivations, entering = _forward(net, data.X, inside)
    margins = data.y * preactivations[-1][:, 0]
    of_example = np.bincount(pieces.example, weights=multipliers, minlength=data.n)
    largest = max(float(np.abs(of_example).max()), 1e-300)
    # Pieces of one example share what enters; their slopes from above differ.
    back = (multipliers * data.y[pieces.example])[:, None]
    squares, from_above = 0.0, list[FloatArray]()
    for layer in reversed(range(net.depth)):
        bias = net.biases[layer]
        squares += float(
            ((net.weights[layer] - back.T @ entering[layer][pieces.example]) ** 2).sum()
        )
        if bias is not None:
            squares += float(((bias - back.sum(axis=0)) ** 2).sum())
        if layer:
            from_above.insert(0, back @ net.weights[layer])
            back = from_above[0] * slopes[layer - 1]
    return KKTResiduals(
        stationarity=float(np.sqrt(squares)) / net.norm,
        feasibility=float(np.maximum(1 - margins, 0).max()),
        dual_feasibility=float(np.maximum(-multipliers, 0).max()) / largest,
        complementarity=float(np.abs(of_example * (margins - 1)).max()) / largest,
        clarke_violation=_violation(net, preactivations, entering, slopes, pieces, from_above),
        normalized_margin=float(margins.min()) / net.norm**net.depth,
    )


def _forward(
    net: DeepNet, X: FloatArray, inside: float
) -> tuple[list[FloatArray], list[FloatArray]]:
    entering, preactivations = [X], []
    for weights, bias in zip(net.weights, net.biases, strict=True):
        z = entering[-1] @ weights.T + (0.0 if bias is None else bias)
        preactivations.append(z)
        entering.append(np.where(z > 0, z, inside * z))
    return preactivations, entering


def _violation(
    net: DeepNet,
    preactivations: list[FloatArray],
    entering: list[FloatArray],
    slopes: list[FloatArray],
    pieces: Pieces,
    from_above: list[FloatArray],
) -> float:
    """The largest gap |act(z) - s z| / (||w~|| ||h~||) of slopes that the gradients make use of."""
    worst = 0.0
    for layer, slope in enumerate(slopes):
        z, outputs = preactivations[layer], entering[layer + 1]
        bias = net.biases[layer]
        units = np.linalg.norm(net.weights[layer], axis=1)
        inputs = np.linalg.norm(entering[layer], axis=1)
        if bias is not None:
            units, inputs = np.hypot(units, bias), np.hypot(inputs, 1)
        scale = np.outer(inputs, units)
        gap = np.abs(outputs[pieces.example] - slope * z[pieces.example])
        relative = gap / np.where(scale > 0, scale, 1)[pieces.example]
        worst = max(worst, float(relative[from_above[layer] != 0].max(initial=0.0)))
    return worst
