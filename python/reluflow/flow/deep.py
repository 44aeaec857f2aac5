"""Flows of deep networks, in the span of their examples where that is smaller."""

from __future__ import annotations

from typing import Any

from reluflow._span import Span
from reluflow._validation import require_memory
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow.settings import FlowSettings, Observer
from reluflow.flow.targets import targets
from reluflow.network import require_dim

# Longest step relative to the parameters' norm: outputs grow like its power of the depth.
_LARGEST_MOVE = 0.3


def follow_deep(
    net: DeepNet, data: Dataset, settings: FlowSettings, observer: Observer | None
) -> tuple[Any, DeepNet, str]:
    """Outcome of the kernel, the network that it reached, and the form.

    Raises
    ------
    ValueError
        If the options are for two-layer networks alone, or ``data`` does not fit the outputs.
    """
    _require(net, data, settings)
    form = settings.form
    if form == "auto":
        form = "span" if data.n + 1 < data.dim else "primal"
    inside, inputs, span = net, data.X, None
    if form == "span":
        span = Span.of(net, data.X)
        inside, inputs = span.net, span.inputs
    width = max(len(weights) for weights in net.weights)
    require_memory(
        f"the {form} flow", 8.0 * (8 * len(inside.theta) + 3 * net.depth * data.n * width)
    )
    method, _, *limits = settings.options()
    target, rtol, max_evaluations, max_seconds, threads = limits
    outcome = settings.kernel.deep_gradient_flow(
        inside.architecture(settings.backend),
        inside.theta,
        inputs,
        targets(net, data),
        settings.margin_loss(),
        method,
        target,
        rtol,
        _LARGEST_MOVE,
        max_evaluations,
        max_seconds,
        threads,
        observer,
    )
    reached = inside.with_theta(outcome.theta)
    return outcome, reached if span is None else span.lift(reached), form


def _require(net: DeepNet, data: Dataset, settings: FlowSettings) -> None:
    require_dim("data.X", data.dim, net)
    if settings.form == "gram":
        raise ValueError("form='gram' is for two-layer networks; use 'span', 'primal' or 'auto'")
    if not settings.train_output:
        raise ValueError("train_output=False is for two-layer networks")
    biased = [layer for layer, bias in enumerate(net.biases) if bias is not None]
    if not settings.bias and biased:
        raise ValueError(
            f"bias=False needs a network without biases; layers {biased} have some: "
            "draw it with bias='none'"
        )
    if settings.method == "rkc2":
        raise ValueError("method='rkc2' is for two-layer networks; use 'bogacki-shampine'")
