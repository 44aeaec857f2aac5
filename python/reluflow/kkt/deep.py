"""The best multipliers for a deep network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from reluflow._results import Result, Status
from reluflow._span import Span
from reluflow._validation import FloatArray, as_number, require_memory
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import require_dim


@dataclass(frozen=True, eq=False)
class DeepKKTCertificate(Result):
    """Multipliers that fit a deep network best, and the residuals they leave.

    Every example's gradient is taken on one side of its kinks. A flow slides along kinks, where
    the limit needs gradients between the two sides: at the end of a flow the stationarity therefore
    stays near 3e-2, however far the flow is followed. It bounds from above how far the network is
    from a KKT point.

    Attributes
    ----------
    status : Status
        ``converged`` if every residual is at most ``tol``, else ``approximate``.
    net : DeepNet
        The network, scaled to smallest margin 1.
    stationarity : float
        ||theta - sum_i lam_i grad q_i|| / ||theta||.
    feasibility : float
        max_i (1 - q_i)_+.
    dual_feasibility : float
        max_i (-lam_i)_+ / max_i |lam_i|.
    complementarity : float
        max_i |lam_i (q_i - 1)| / max_i |lam_i|.
    normalized_margin : float
        min_i q_i / ||theta||^degree.
    multipliers : ndarray, shape (n,)
        lam_i >= 0.
    """

    status: Status
    net: DeepNet
    stationarity: float
    feasibility: float
    dual_feasibility: float
    complementarity: float
    normalized_margin: float
    multipliers: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network, JSON-ready."""
        fields = super().to_dict()
        del fields["net"]
        return fields

    def __str__(self) -> str:
        support = int((self.multipliers > 0).sum())
        return "\n".join(
            [
                str(self.status),
                f"  stationarity        {self.stationarity:.3g}, "
                "with gradients on one side of kinks; along a flow that stays near 3e-2",
                f"  feasibility         {self.feasibility:.3g}",
                f"  complementarity     {self.complementarity:.3g}",
                f"  normalised margin   {self.normalized_margin:.6g}",
                f"  support vectors     {support} of {len(self.multipliers)}",
            ]
        )


def certify_deep(net: DeepNet, data: Dataset, tol: float) -> DeepKKTCertificate:
    """How close a deep network is to a KKT point of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1.

    Raises
    ------
    ValueError
        If the network is not homogeneous or has several outputs, or an example is not classified.
    """
    require_dim("data.X", data.dim, net)
    tol = as_number("tol", tol, at_least=0)
    require_homogeneous(net, "KKT certificates")
    parameters = len(net.theta) - len(net.weights[0]) * max(0, data.dim - data.n - 1)
    require_memory("the gradients of all examples", 16.0 * data.n * parameters)
    margins = require_classified(net, data)
    scaled = net.scaled(float(margins.min()) ** (-1 / net.degree))
    inside, X = scaled, data.X
    if data.n + 1 < data.dim:
        # All inner products of parameters and gradients are kept.
        span = Span.of(scaled, data.X)
        inside, X = span.net, span.inputs
    theta = inside.theta
    gradients = margin_gradients(inside, X, data.y)
    # Columns of norm 1, so that large margins do not swamp the others.
    lengths = np.linalg.norm(gradients, axis=1)
    lengths[lengths == 0] = 1.0
    multipliers = nnls((gradients / lengths[:, None]).T, theta)[0] / lengths
    q = scaled.margins(data)
    largest = max(float(multipliers.max()), 1e-300)
    residuals = {
        "stationarity": float(
            np.linalg.norm(theta - multipliers @ gradients) / np.linalg.norm(theta)
        ),
        "feasibility": float(np.maximum(1 - q, 0).max()),
        "dual_feasibility": float(np.maximum(-multipliers, 0).max() / largest),
        "complementarity": float(np.abs(multipliers * (q - 1)).max() / largest),
    }
    return DeepKKTCertificate(
        status=Status.CONVERGED if max(residuals.values()) <= tol else Status.APPROXIMATE,
        net=scaled,
        normalized_margin=scaled.normalized_margin(data),
        multipliers=multipliers,
        **residuals,
    )


def require_classified(net: DeepNet, data: Dataset) -> FloatArray:
    """The margins, all of them positive."""
    margins = net.margins(data)
    if not margins.min() > 0:
        wrong = int((margins <= 0).sum())
        raise ValueError(
            f"net must classify every example; {wrong} of {data.n} margins are not above 0, the "
            f"smallest is {margins.min():.6g} at example {int(margins.argmin())}; train further"
        )
    return margins


def require_homogeneous(net: DeepNet, what: str) -> None:
    """Refuses networks without a max-margin problem of which there could be ``what``."""
    if net.outputs > 1:
        raise ValueError(f"net has {net.outputs} outputs; {what} are for networks with one")
    late = [layer for layer, bias in enumerate(net.biases) if layer > 0 and bias is not None]
    if late or net.skip is not None:
        extra = f"biases in layers {late}" if late else "a skip connection"
        raise ValueError(
            f"net has {extra}, so that scaling its parameters does not scale its outputs: the "
            "max-margin problem is for homogeneous networks"
        )


def margin_gradients(net: DeepNet, X: FloatArray, y: FloatArray) -> FloatArray:
    """Gradients (n, parameters) of the margins y N, ordered as `DeepNet.theta`."""
    entering, preactivations = [X], []
    for layer, weights in enumerate(net.weights):
        bias = net.biases[layer]
        z = entering[-1] @ weights.T + (0.0 if bias is None else bias)
        preactivations.append(z)
        if layer + 1 < net.depth:
            entering.append(net.activations(layer, z))
    gradient = y[:, None]
    parts: list[FloatArray] = []
    for layer in reversed(range(net.depth)):
        weights, bias = net.weights[layer], net.biases[layer]
        radial = np.zeros((len(y), len(weights)))
        if layer + 1 < net.depth:
            if net.activation == "normalized_polynomial_relu":
                radial = gradient * entering[layer + 1] * (1 - net.power)
                radial = radial / net.unit_norms(layer) ** 2
            gradient = gradient * net.activation_slopes(layer, preactivations[layer])
        moved = gradient[:, :, None] * entering[layer][:, None, :] + radial[:, :, None] * weights
        block = [moved.reshape(len(y), -1)]
        if bias is not None:
            block.append(gradient + radial * bias)
        parts = [*block, *parts]
        gradient = gradient @ weights
    return np.concatenate(parts, axis=1)
