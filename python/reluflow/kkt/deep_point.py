"""KKT points of deep networks near a network, such as the end of a flow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reluflow._results import Result, Status
from reluflow._span import Span
from reluflow._threads import one_blas_thread
from reluflow._validation import BoolArray, FloatArray, IntArray, as_number, require_memory
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow import DeepFlowResult
from reluflow.kkt.deep import require_classified, require_homogeneous
from reluflow.kkt.deep_pieces import Model, Pieces
from reluflow.kkt.deep_program import Polished, polish
from reluflow.kkt.deep_residuals import deep_residuals
from reluflow.kkt.deep_units import Units, layers_of, with_layers
from reluflow.kkt.residuals import HoldsResiduals
from reluflow.network import require_dim

# Depths whose limits are one chain of units a label, which is what the groups are made for.
POLISHED_DEPTHS = range(2, 5)
# Groups with a smaller share of their layer's weights are left out: more of them where those that
# are kept do not lead to a KKT point, because some of them die.
_SMALLEST_GROUPS = (0.1, 0.25)
# Shares of a multiplier this close to 0 or 1 are.
_ROUNDED = 1e-9


@dataclass(frozen=True, eq=False)
class DeepKinks(Result):
    """Clarke weights strictly between those of the two sides.

    Attributes
    ----------
    layer, neuron, example : ndarray of int64, shape (c,)
    value : ndarray, shape (c,)
        Share of the example's multiplier whose pieces have the unit on.
    """

    layer: IntArray
    neuron: IntArray
    example: IntArray
    value: FloatArray

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, eq=False)
class DeepKKTPoint(HoldsResiduals, Result):
    """A KKT point of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1  of a deep network.

    Attributes
    ----------
    status : Status
        ``converged`` if every residual is at most ``tol``; ``not_solved`` otherwise, also where
        the network's units form no groups that classify every example.
    net : DeepNet
        The point, scaled to smallest margin 1, with the width of the network that was given.
        Units of a group are parallel; units of no group are zero.
    multipliers : ndarray, shape (n,)
        lam_i >= 0.
    pieces : Pieces
        Masks of all units: the smooth pieces whose gradients make up Clarke subgradients.
    piece_multipliers : ndarray, shape (p,)
        Those of an example's pieces sum to its own.
    kinks : DeepKinks
        Units that are on in some pieces of an example and off in others.
    stationarity, feasibility, dual_feasibility, complementarity, clarke_violation : float
        Residuals at full width, by code that shares nothing with the solver.
    normalized_margin : float
        min_i y_i N(x_i) / ||theta||^L.
    groups : tuple of int
        Number of groups of parallel units of every hidden layer.
    angle : float
        Angle in radians between the parameters of the given network and of the point.
    share_to_die : float
        Share of ||theta||^2 of the given network in weights from or to units of no group.
    iterations : int
        Quadratic programs solved.
    """

    status: Status
    net: DeepNet
    multipliers: FloatArray
    pieces: Pieces
    piece_multipliers: FloatArray
    kinks: DeepKinks
    stationarity: float
    feasibility: float
    dual_feasibility: float
    complementarity: float
    clarke_violation: float
    normalized_margin: float
    groups: tuple[int, ...]
    angle: float
    share_to_die: float
    iterations: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network and the masks, JSON-ready."""
        fields = super().to_dict()
        del fields["net"], fields["pieces"], fields["piece_multipliers"]
        return fields

    def __str__(self) -> str:
        return "\n".join(
            [
                str(self.status),
                str(self.residuals),
                f"  support vectors     {int((self.multipliers > 0).sum())} of "
                f"{len(self.multipliers)}",
                f"  kinks               {len(self.kinks)}",
                f"  groups a layer      {', '.join(map(str, self.groups))}",
                f"  angle to the given  {self.angle:.3g} rad",
                f"  share still to die  {self.share_to_die:.3g}",
            ]
        )


def deep_kkt_point(
    flow_or_net: DeepFlowResult | DeepNet, data: Dataset, tol: float
) -> DeepKKTPoint:
    """The KKT point near a deep network.

    Raises
    ------
    ValueError
        If the network is of a kind that is not polished, or an example is not classified.
    """
    net = flow_or_net.net if isinstance(flow_or_net, DeepFlowResult) else flow_or_net
    require_dim("data.X", data.dim, net)
    tol = as_number("tol", tol, at_least=0)
    require_polished(net)
    require_classified(net, data)
    return nearest_deep_point(net, data, tol)


def nearest_deep_point(net: DeepNet, data: Dataset, tol: float) -> DeepKKTPoint:
    """The KKT point near a network of a kind that is polished; ``not_solved`` if none is found."""
    inside, X = net, data.X
    if data.n + 1 < data.dim:
        # Weights outside the span of the data are zero at a KKT point.
        span = Span.of(net, data.X)
        inside, X = span.net, span.inputs
    layers = layers_of(inside)
    if net.biases[0] is not None:
        X = np.column_stack([X, np.ones(data.n)])
    parameters = 2 * layers[0].shape[1]
    require_memory("the quadratic programs", 8.0 * parameters * (2 * parameters + 8 * data.n))
    slope = net.slope if net.activation == "leaky_relu" else 0.0
    # Of equal examples one bears the multiplier of all.
    distinct = np.unique(data.X, axis=0, return_index=True)[1]
    distinct.sort()
    model = Model(np.ascontiguousarray(X[distinct]), data.y[distinct], slope)
    found = None
    for smallest in _SMALLEST_GROUPS:
        units = Units.of(layers, smallest)
        found = _nearer(found, _polished(units, units.merged(layers), model))
        if found is not None and found.residual <= tol:
            break
    if found is None:
        return _unpolished(net, data, units, layers, Model(X, data.y, slope))
    found = replace(found, pieces=replace(found.pieces, example=distinct[found.pieces.example]))
    return _assembled(net, data, layers, model, found, tol)


def _polished(units: Units, merged: list[FloatArray], model: Model) -> Polished | None:
    """What the iteration ends at, if it can begin."""
    if not min(units.counts) or not model.margins(merged).min() > 0:
        return None
    with one_blas_thread():
        return polish(units, merged, model)


def _nearer(first: Polished | None, second: Polished | None) -> Polished | None:
    if first is None or second is None:
        return first or second
    return min(first, second, key=lambda found: found.residual)


def require_polished(net: DeepNet) -> None:
    """Refuses networks whose KKT points are not known how to be found."""
    require_homogeneous(net, "KKT points")
    if net.activation not in ("relu", "leaky_relu"):
        raise ValueError(
            f"net has the activation {net.activation}; KKT points are found for relu and "
            "leaky_relu, whose units can be merged; certify_kkt gives multipliers for any"
        )
    if net.depth not in POLISHED_DEPTHS:
        known = ", ".join(map(str, POLISHED_DEPTHS))
        raise ValueError(
            f"net has depth {net.depth}; KKT points are found for depths {known}; certify_kkt "
            "gives multipliers for any"
        )


def _assembled(
    net: DeepNet,
    data: Dataset,
    given: list[FloatArray],
    model: Model,
    found: Polished,
    tol: float,
) -> DeepKKTPoint:
    """The point at full width, scaled to smallest margin 1, and checked there."""
    L = net.depth
    scale = float(model.margins(found.layers).min()) ** (-1 / L)
    # lam grad q = theta, where gradients grow like the power L - 1 of the scale.
    multipliers = found.multipliers * scale ** (2 - L)
    lifted = [scale * weights for weights in found.units.lifted(found.layers)]
    limit = _at_full_width(net, data, lifted)
    pieces = Pieces(found.pieces.example, tuple(found.units.lifted_masks(found.pieces.masks)))
    residuals = deep_residuals(limit, data, pieces, multipliers)
    return DeepKKTPoint(
        status=Status.CONVERGED if residuals.worst <= tol else Status.NOT_SOLVED,
        net=limit,
        multipliers=_of_examples(pieces, multipliers, data.n),
        pieces=pieces,
        piece_multipliers=multipliers,
        kinks=_kinks(pieces, multipliers, data.n),
        stationarity=residuals.stationarity,
        feasibility=residuals.feasibility,
        dual_feasibility=residuals.dual_feasibility,
        complementarity=residuals.complementarity,
        clarke_violation=residuals.clarke_violation,
        normalized_margin=residuals.normalized_margin,
        groups=found.units.counts,
        angle=_angle(given, lifted),
        share_to_die=found.units.share_outside(given),
        iterations=found.iterations,
    )


def _unpolished(
    net: DeepNet, data: Dataset, units: Units, layers: list[FloatArray], model: Model
) -> DeepKKTPoint:
    """The network itself, with multipliers zero, scaled where it classifies every example."""
    smallest = float(net.margins(data).min())
    scaled = net.scaled(smallest ** (-1 / net.depth)) if smallest > 0 else net
    pieces = model.pieces(layers, 0.0)
    multipliers = np.zeros(len(pieces))
    residuals = deep_residuals(scaled, data, pieces, multipliers)
    return DeepKKTPoint(
        status=Status.NOT_SOLVED,
        net=scaled,
        multipliers=np.zeros(data.n),
        pieces=pieces,
        piece_multipliers=multipliers,
        kinks=_kinks(pieces, multipliers, data.n),
        stationarity=residuals.stationarity,
        feasibility=residuals.feasibility,
        dual_feasibility=residuals.dual_feasibility,
        complementarity=residuals.complementarity,
        clarke_violation=residuals.clarke_violation,
        normalized_margin=residuals.normalized_margin,
        groups=units.counts,
        angle=0.0,
        share_to_die=units.share_outside(layers),
        iterations=0,
    )


def _at_full_width(net: DeepNet, data: Dataset, layers: list[FloatArray]) -> DeepNet:
    """The network of weights in the span of the data, in the coordinates of the data."""
    if data.n + 1 >= data.dim:
        return with_layers(net, layers)
    span = Span.of(net, data.X)
    inside = with_layers(span.net, layers)
    return span.lift(inside)


def _of_examples(pieces: Pieces, multipliers: FloatArray, n: int) -> FloatArray:
    sums = np.zeros(n)
    np.add.at(sums, pieces.example, multipliers)
    return sums


def _kinks(pieces: Pieces, multipliers: FloatArray, n: int) -> DeepKinks:
    of_example = _of_examples(pieces, multipliers, n)
    found: list[tuple[IntArray, IntArray, IntArray, FloatArray]] = []
    for layer, mask in enumerate(pieces.masks):
        on = np.zeros((n, mask.shape[1]))
        np.add.at(on, pieces.example, multipliers[:, None] * mask)
        share = on / np.where(of_example > 0, of_example, 1)[:, None]
        between: BoolArray = (share > _ROUNDED) & (share < 1 - _ROUNDED)
        example, neuron = np.nonzero(between)
        layers = np.full(len(example), layer, dtype=np.int64)
        found.append((layers, neuron.astype(np.int64), example.astype(np.int64), share[between]))
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return DeepKinks(*columns)


def _angle(first: list[FloatArray], second: list[FloatArray]) -> float:
    """From the chord, which keeps its digits for small angles."""
    a, b = (np.concatenate([w.ravel() for w in layers]) for layers in (first, second))
    chord = np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))
    return 2 * math.asin(min(1.0, float(chord) / 2))
