"""Flows on adversarial examples: the loss of the smallest margin in a ball around each example."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np

from reluflow._results import Status
from reluflow._targets import targets_for
from reluflow._validation import require_memory
from reluflow.adversarial import Attack, adversarial_examples, closest_opposites
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow.result import AdversarialFlowResult
from reluflow.flow.settings import FlowSettings, Observer
from reluflow.network import TwoLayerNet
from reluflow.reduction import Reduction

# How a flow ends that has come to rest, or shrinks away, with an example on the wrong side.
_GIVEN_UP = (Status.NOT_SEPARABLE, Status.STEP_UNDERFLOW)
# Unless told otherwise; a flow near the largest separable radius gains less and less.
_MOST_EVALUATIONS = 100_000.0


def require_attack(net: TwoLayerNet | DeepNet, settings: FlowSettings) -> None:
    """Refuses what adversarial training cannot follow."""
    if isinstance(net, DeepNet):
        raise ValueError("adversarial_radius is for two-layer networks; a DeepNet takes 0")
    if settings.form != "auto":
        raise ValueError(f"form={settings.form!r} cannot be chosen with adversarial_radius")
    if settings.method == "rkc2":
        raise ValueError("method='rkc2' cannot be combined with adversarial_radius")


def follow_adversarial(
    net: TwoLayerNet,
    data: Dataset,
    settings: FlowSettings,
    attack: Attack,
    observer: Observer | None,
    start: float,
) -> AdversarialFlowResult:
    """The flow in the span of examples and initial weights, which perturbations never leave."""
    distance, i, j = closest_opposites(data)
    hopeless = attack.radius >= distance / 2
    if hopeless:
        # One evaluation tells the loss; nothing is gained from following it.
        settings = dataclasses.replace(settings, max_evaluations=1.0)
    unlimited = math.isinf(settings.max_evaluations)
    if unlimited:
        settings = dataclasses.replace(settings, max_evaluations=_MOST_EVALUATIONS)
    targets, order = targets_for(data.X, data.y, data)
    spanned = data.dim > data.n + net.width
    inside, examples, lift = net, data.X, None
    if spanned:
        lift = Reduction.of(net, data)
        inside, examples, targets = lift.net, lift.data.X, lift.project(targets)
    n, m, dim = float(data.n), float(net.width), float(inside.dim)
    require_memory("the adversarial flow", 8.0 * (12 * m * (dim + 2) + 8 * n * m + 2 * m * m))
    method, _, *limits = settings.options()
    target, rtol, max_evaluations, max_seconds, threads = limits
    outcome = settings.kernel.adversarial_gradient_flow(
        inside.W,
        inside.b,
        inside.v,
        examples,
        data.y,
        np.ascontiguousarray(targets),
        order,
        settings.margin_loss(),
        settings.train_output,
        settings.bias,
        attack.radius,
        attack.descent_steps,
        method,
        target,
        rtol,
        max_evaluations,
        max_seconds,
        threads,
        observer,
    )
    reached = TwoLayerNet(outcome.weights, outcome.bias, outcome.output)
    if lift is not None:
        reached = lift.lift(reached)
    form = "span" if spanned else "primal"
    base = settings.result(outcome, reached, data, form, time.perf_counter() - start)
    fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    wrong = int((base.margins <= 0).sum())
    reason = ""
    if hopeless:
        fields["status"] = Status.NOT_ROBUSTLY_SEPARABLE
        reason = (
            f"adversarial_radius={attack.radius:.6g} is at or beyond half the distance "
            f"{distance:.6g} between examples {i} and {j}, which have opposite labels: their balls "
            "meet"
        )
    elif wrong and (
        base.status in _GIVEN_UP or (unlimited and base.status == Status.MAX_EVALUATIONS)
    ):
        fields["status"] = Status.NOT_ROBUSTLY_SEPARABLE
        reason = (
            f"the flow of these {net.width} neurons ended with {wrong} of {data.n} robust margins "
            f"not above 0; no network is robust beyond {distance / 2:.6g}"
        )
    if base.evaluations == 0:  # cut short before the first robust margins were known
        fields["margins"] = adversarial_examples(
            net, data, attack.radius, inner=attack.inner, inner_steps=attack.steps
        ).margins
    return AdversarialFlowResult(
        **fields,
        adversarial_radius=attack.radius,
        inner=attack.inner,
        perturbations=outcome.coefficients @ reached.W,
        reason=reason,
    )
