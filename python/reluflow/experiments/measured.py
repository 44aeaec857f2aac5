"""The experiment ``double-edge``: clusters, a flow, and what is measured of the trained network.

Every output is one function from a `Trained` network to a `Record`; a new one is a function and an
entry of `OUTPUTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from reluflow.data import ClusterModel, Dataset
from reluflow.experiments.registry import SEED, Cost, Experiment, Record, Setting
from reluflow.flow import LOSSES, FlowResult, gradient_flow
from reluflow.network import TwoLayerNet
from reluflow.problem import COORDINATES, Problem, draw

MEANS = ("orthogonal", "random", "equicorrelated")

SETTINGS = (
    Setting("means", "text", "how the cluster means lie", "orthogonal", choices=MEANS),
    Setting("n_clusters", "integer", "number of clusters k", minimum=2),
    Setting("dim", "integer", "dimension d", minimum=2),
    Setting("noise", "number", "standard deviation sigma of the noise", minimum=0),
    Setting("correlation", "number", "cosine between any two means", 0.0),
    Setting("balance", "number", "share c of the clusters with label -1", 0.5, above=0),
    Setting("n", "integer", "number of training examples", optional=True, minimum=2),
    Setting("per_cluster", "integer", "training examples a cluster", optional=True, minimum=1),
    Setting("width", "integer", "number of neurons m", 100, minimum=2),
    Setting("init_scale", "number", "size of the initial network", 1e-3, above=0),
    Setting("bias", "flag", "whether biases are trained", True),
    Setting("train_output", "flag", "whether output weights are trained", True),
    Setting("loss", "text", "loss of a margin", "exponential", choices=LOSSES),
    Setting("log_inverse_loss", "number", "log(1/L) at which the flow ends", 100.0, above=0),
    Setting("max_evaluations", "integer", "gradients allowed", 200_000, minimum=1),
    Setting("coordinates", "text", "coordinates of the run", "reduced", choices=COORDINATES),
    Setting("test_points", "integer", "fresh examples that are perturbed", 100, minimum=2),
)


class Trained:
    """A trained network and where it comes from, each part made when it is first asked for."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        streams = np.random.SeedSequence(settings[SEED]).spawn(5)
        self.means_seed, self.draw_seed, self.test_seed, self.error_seed, self.shift_seed = streams

    @cached_property
    def n(self) -> int:
        """Number of training examples."""
        return training_size(self.settings)

    @cached_property
    def clusters(self) -> ClusterModel:
        """The clusters in their own dimension."""
        settings = self.settings
        options: dict[str, Any] = {
            "n_clusters": settings["n_clusters"],
            "dim": settings["dim"],
            "noise": settings["noise"],
            "labels": labels(settings["n_clusters"], settings["balance"]),
            "seed": np.random.default_rng(self.means_seed),
        }
        if settings["means"] == "equicorrelated":
            options["correlation"] = settings["correlation"]
        made: ClusterModel = getattr(ClusterModel, settings["means"])(**options)
        return made

    @cached_property
    def problem(self) -> Problem:
        """Training set and initial network."""
        settings = self.settings
        return draw(
            self.clusters,
            self.n,
            settings["width"],
            init_scale=settings["init_scale"],
            bias=settings["bias"],
            train_output=settings["train_output"],
            coordinates=settings["coordinates"],
            seed=np.random.default_rng(self.draw_seed),
        )

    @cached_property
    def flow(self) -> FlowResult:
        """The flow to the loss that was asked for."""
        settings = self.settings
        return gradient_flow(
            self.problem.net,
            self.problem.data,
            loss=settings["loss"],
            log_inverse_loss=settings["log_inverse_loss"],
            train_output=settings["train_output"],
            bias=settings["bias"],
            max_evaluations=settings["max_evaluations"],
            num_threads=1,
        )

    @property
    def net(self) -> TwoLayerNet:
        """The network that everything is measured on."""
        return self.flow.net

    @cached_property
    def fresh(self) -> Dataset:
        """Fresh examples, in the coordinates of the network."""
        return self.problem.clusters.sample(
            self.settings["test_points"], np.random.default_rng(self.test_seed)
        )


def labels(n_clusters: int, balance: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """+1, -1, +1, ... until a share ``balance`` of the clusters has -1, then +1."""
    negatives = min(n_clusters - 1, max(1, round(balance * n_clusters)))
    signs = np.ones(n_clusters)
    order = np.concatenate([np.arange(1, n_clusters, 2), np.arange(0, n_clusters, 2)])
    signs[order[:negatives]] = -1.0
    return signs


def training_size(settings: Mapping[str, Any]) -> int:
    """n, or the examples a cluster times k."""
    if settings["n"] is not None:
        return int(settings["n"])
    return int(settings["per_cluster"]) * int(settings["n_clusters"])


# -- what is measured ------------------------------------------------------------------------


def measure_flow(trained: Trained) -> Record:
    """Where the flow ended."""
    flow = trained.flow
    trajectory = flow.trajectory
    return Record(
        {
            "flow_status": flow.status.value,
            "log_inverse_loss_reached": flow.log_inverse_loss,
            "normalized_margin": flow.normalized_margin,
            "evaluations": flow.evaluations,
            "train_error": float(np.mean(flow.margins <= 0)),
        },
        {
            "trajectory_log_inverse_loss": trajectory.log_inverse_loss,
            "trajectory_normalized_margin": trajectory.normalized_margin,
        },
    )


@dataclass(frozen=True)
class Output:
    """One output: what measures it, and what that takes.

    Attributes
    ----------
    measure : callable
        From a `Trained` network to a `Record`.
    seconds : callable
        From (d, n, m, k, settings) to seconds on one core, where d is the number of coordinates.
    """

    measure: Callable[[Trained], Record]
    seconds: Callable[[int, int, int, int, Mapping[str, Any]], float]


def _flow_seconds(d: int, n: int, m: int, k: int, settings: Mapping[str, Any]) -> float:
    decades = math.log10(1 + 1e4 * settings["log_inverse_loss"])
    evaluations = min(250.0 * decades, float(settings["max_evaluations"]))
    return evaluations * (3e-5 + 6e-10 * min(2 * n * n * m, 4 * n * d * m))


OUTPUTS: dict[str, Output] = {
    "flow": Output(measure_flow, _flow_seconds),
}


def theory_columns(settings: Mapping[str, Any]) -> dict[str, float]:
    """What theory says, beside what is measured."""
    from reluflow.theory import (
        limiting_normalized_margin,
        log10_error_scale,
        robust_radius,
        universal_norm,
    )

    d, k = float(settings["dim"]), int(settings["n_clusters"])
    return {
        "theory_radius": universal_norm(d, k),
        "theory_robust_radius": robust_radius(d),
        "theory_ratio": robust_radius(d) / universal_norm(d, k),
        "theory_log10_error": log10_error_scale(d),
        "theory_normalized_margin": limiting_normalized_margin(
            d, k, training_size(settings), float(settings["noise"])
        ),
    }


def run(settings: Mapping[str, Any], outputs: Sequence[str]) -> Record:
    """One problem, one flow, and the outputs that were asked for."""
    trained = Trained(settings)
    report = trained.clusters.assumption(trained.n)
    scalars: dict[str, Any] = {
        "n_used": trained.n,
        "assumption_holds": report.holds,
        **theory_columns(settings),
    }
    arrays: dict[str, Any] = {}
    for name in outputs:
        record = OUTPUTS[name].measure(trained)
        scalars.update(record.scalars)
        arrays.update(record.arrays)
    return Record(scalars, arrays)


def conflict(settings: Mapping[str, Any], outputs: Sequence[str]) -> tuple[str, str] | None:
    """Why these settings cannot be run together, or None."""
    k, d, m = settings["n_clusters"], settings["dim"], settings["width"]
    if (settings["n"] is None) == (settings["per_cluster"] is None):
        given = "neither" if settings["n"] is None else "both"
        return "per_cluster", f"one of n and per_cluster has to be given; {given} is"
    if settings["means"] != "random" and k > d:
        return "n_clusters", f"n_clusters={k} {settings['means']} means need dim >= {k}; dim={d}"
    if settings["means"] != "equicorrelated" and settings["correlation"] != 0:
        return "correlation", f"correlation is for equicorrelated means; means={settings['means']}"
    if settings["means"] == "equicorrelated" and not -1 / (k - 1) < settings["correlation"] < 1:
        return "correlation", (
            f"correlation must lie in ({-1 / (k - 1):g}, 1) for n_clusters={k}; "
            f"got {settings['correlation']:g}"
        )
    if settings["balance"] > 0.5:
        return "balance", f"balance must be at most 0.5; got {settings['balance']:g}"
    n = training_size(settings)
    if settings["coordinates"] == "reduced" and d < min(k, d) + n + m:
        return "dim", (
            f"reduced coordinates need dim >= n_clusters + n + width = {k + n + m}; dim={d}; "
            "use coordinates = 'ambient'"
        )
    return None


def cost(settings: Mapping[str, Any], outputs: Sequence[str]) -> Cost:
    """Seconds on one core and bytes of a run."""
    k, m, n = settings["n_clusters"], settings["width"], training_size(settings)
    d = settings["dim"] if settings["coordinates"] == "ambient" else k + n + m
    # Everything but the flow needs it first.
    seconds = 2e-3 + _flow_seconds(d, n, m, k, settings)
    seconds += sum(
        OUTPUTS[name].seconds(d, n, m, k, settings) for name in outputs if name != "flow"
    )
    count = 4.0 * (n + m + settings["test_points"]) * d + 14.0 * n * m + n * n
    return Cost(seconds, 8.0 * count)


DOUBLE_EDGE = Experiment(
    name="double-edge",
    run=run,
    settings=SETTINGS,
    outputs=tuple(OUTPUTS),
    conflict=conflict,
    cost=cost,
)
