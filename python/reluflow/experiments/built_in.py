"""The experiments that come with the package: ``double-edge`` on clusters, ``digits`` on digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from reluflow import theory
from reluflow.experiments.cost_model import two_layer_cost
from reluflow.experiments.outputs import OUTPUTS, measured, needs_flow
from reluflow.experiments.registry import Experiment, Record, Settings
from reluflow.experiments.trained import (
    CLUSTERS,
    DIGITS,
    IMAGES,
    TRAINING,
    Trained,
    TrainedOnClusters,
    TrainedOnDigits,
    follow_together,
    training_size,
)
from reluflow.flow import MARGIN_MAXIMISING

T = TypeVar("T", bound=Trained)


def run_clusters(settings: Settings, outputs: Sequence[str]) -> Record:
    """One problem drawn from clusters, one flow, and the outputs that were asked for."""
    return _on_clusters(TrainedOnClusters(settings), outputs)


def clusters_together(
    many: Sequence[Settings], outputs: Sequence[str]
) -> list[Callable[[], Record]]:
    """Problems drawn from clusters, their flows in one call, and what measures each."""
    return _together([TrainedOnClusters(settings) for settings in many], _on_clusters, outputs)


def _on_clusters(trained: TrainedOnClusters, outputs: Sequence[str]) -> Record:
    settings = trained.settings
    n = training_size(settings)
    report = trained.ambient_clusters.assumption(n)
    d, k, noise = float(settings["dim"]), int(settings["n_clusters"]), float(settings["noise"])
    margin = theory.limiting_normalized_margin(d, k, n, noise)
    log10_error = theory.log10_two_neuron_error(d, k, noise) if noise > 0 else -math.inf
    scalars = {
        "n_used": n,
        "clusters_seen": len(np.unique(trained.clusters_drawn)),
        "assumption_holds": report.holds,
        **_lengths(d, k),
        "theory_log10_error": log10_error,
        "theory_error": 10.0**log10_error,
        "theory_error_exponent": -log10_error,
        "theory_bound_exponent": -theory.log10_error_scale(d),
        "theory_normalized_margin": margin,
    }
    record = _with(scalars, trained, outputs)
    return Record({**record.scalars, **_ratios(record.scalars)}, record.arrays)


def _ratios(scalars: Mapping[str, Any]) -> dict[str, float]:
    """What was measured over what theory says of it, so that dimensions can be compared."""
    pairs = {
        "radius_over_theory": ("radius_median", "theory_radius"),
        "robust_radius_over_theory": ("robust_radius_median", "theory_robust_radius"),
        "margin_over_theory": ("normalized_margin", "theory_normalized_margin"),
        "limit_margin_over_theory": ("limit_normalized_margin", "theory_normalized_margin"),
    }
    return {
        name: scalars[measured] / scalars[expected]
        for name, (measured, expected) in pairs.items()
        if measured in scalars
    }


def run_digits(settings: Settings, outputs: Sequence[str]) -> Record:
    """One training set of digits, one flow, and the outputs that were asked for."""
    return _on_digits(TrainedOnDigits(settings), outputs)


def digits_together(many: Sequence[Settings], outputs: Sequence[str]) -> list[Callable[[], Record]]:
    """Training sets of digits, their flows in one call, and what measures each."""
    return _together([TrainedOnDigits(settings) for settings in many], _on_digits, outputs)


def _on_digits(trained: TrainedOnDigits, outputs: Sequence[str]) -> Record:
    return _with({"n_used": trained.settings["n"]}, trained, outputs)


def _together(
    problems: Sequence[T], measure: Callable[[T, Sequence[str]], Record], outputs: Sequence[str]
) -> list[Callable[[], Record]]:
    follow_together(one for one in problems if needs_flow(one.settings, outputs))
    return [partial(measure, one, outputs) for one in problems]


def _lengths(d: float, k: int) -> dict[str, Any]:
    universal, robust = theory.universal_norm(d, k), theory.robust_radius(d)
    return {
        "theory_universal": universal,
        "theory_radius": universal,
        "theory_robust_radius": robust,
        "theory_ratio": robust / universal,
    }


def _with(scalars: dict[str, Any], trained: Trained, outputs: Sequence[str]) -> Record:
    record = measured(trained, outputs)
    return Record({**scalars, **record.scalars}, record.arrays)


def clusters_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    """Why these settings cannot be run together, or None."""
    k, d, m = settings["n_clusters"], settings["dim"], settings["width"]
    if (settings["n"] is None) == (settings["per_cluster"] is None):
        given = "neither" if settings["n"] is None else "both"
        return "per_cluster", f"one of n and per_cluster has to be given; {given} is"
    if settings["means"] != "random" and k > d:
        return "n_clusters", f"n_clusters={k} {settings['means']} means need dim >= {k}; dim={d}"
    found = _correlation_conflict(settings["means"], settings["correlation"], k)
    if found is not None:
        return "correlation", found
    if settings["balance"] > 0.5:
        return "balance", f"balance must be at most 0.5; got {settings['balance']:g}"
    least = min(k, d) + training_size(settings) + m
    if settings["coordinates"] == "reduced" and d < least:
        return "dim", (
            f"reduced coordinates need dim >= n_clusters + n + width = {least}; dim={d}; "
            "use coordinates = 'ambient'"
        )
    return _training_conflict(settings, outputs)


def _correlation_conflict(means: str, correlation: float, k: int) -> str | None:
    if means != "equicorrelated":
        return (
            f"correlation is for equicorrelated means; means={means}" if correlation != 0 else None
        )
    if -1 / (k - 1) < correlation < 1:
        return None
    lowest = -1 / (k - 1)
    return f"correlation must lie in ({lowest:g}, 1) for n_clusters={k}; got {correlation:g}"


def digits_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    """Why these settings cannot be run together, or None."""
    left = IMAGES - settings["n"]
    if left < settings["test_points"]:
        return "n", (
            f"n={settings['n']} of {IMAGES} digits leave {left} to test on; "
            f"test_points={settings['test_points']}"
        )
    return _training_conflict(settings, outputs)


def _training_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    if settings["log_inverse_loss"] > 1e100:
        return "log_inverse_loss", (
            f"log_inverse_loss must be at most 1e100; got {settings['log_inverse_loss']:g}"
        )
    loss, smoothing = settings["loss"], settings["label_smoothing"]
    if loss == "cross_entropy" and not 0 < smoothing < 1:
        return "label_smoothing", f"label_smoothing must lie in (0, 1); got {smoothing:g}"
    if loss not in MARGIN_MAXIMISING:
        if settings["network"] == "limit":
            return "network", f"loss={loss} has no limit direction; use network = 'flow'"
        if "limit" in outputs:
            return "loss", f"loss={loss} has no limit direction; leave out the output 'limit'"
    return None


DOUBLE_EDGE = Experiment(
    name="double-edge",
    run=run_clusters,
    settings=(*CLUSTERS, *TRAINING),
    outputs=tuple(OUTPUTS),
    conflict=clusters_conflict,
    cost=two_layer_cost,
    together=clusters_together,
)
ON_DIGITS = Experiment(
    name="digits",
    run=run_digits,
    settings=(*DIGITS, *TRAINING),
    outputs=tuple(OUTPUTS),
    numerics=2,
    conflict=digits_conflict,
    cost=two_layer_cost,
    together=digits_together,
)
