"""The experiment ``deep``: networks of any depth and activation on clusters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from reluflow import theory
from reluflow.data import ClusterModel, Dataset
from reluflow.deep_network import ACTIVATIONS, BIASES, DEPTHS, DeepNet
from reluflow.experiments.cost_model import deep_cost
from reluflow.experiments.registry import SEED, Experiment, Record, Setting, Settings
from reluflow.flow import FlowResult, gradient_flow
from reluflow.kkt import POLISHED_DEPTHS, certify_kkt, flow_limit, kkt_point
from reluflow.network import TwoLayerNet
from reluflow.robustness import min_perturbation, universal_perturbation

TARGETS = ("labels", "clusters")
SETTINGS = (
    Setting("n_clusters", "integer", "number of clusters k", minimum=2),
    Setting("dim", "integer", "dimension d", minimum=2),
    Setting("noise", "number", "standard deviation sigma of the noise", minimum=0),
    Setting("per_cluster", "integer", "training examples a cluster", 8, minimum=1),
    Setting("depth", "integer", "number of layers L", 2, minimum=2),
    Setting("width", "integer", "units in every hidden layer", 50, minimum=2),
    Setting("bias", "text", "layers that have biases", "first", choices=BIASES),
    Setting("activation", "text", "activation of hidden units", "relu", choices=ACTIVATIONS),
    Setting("slope", "number", "slope of leaky_relu below 0", 0.1, minimum=0),
    Setting("power", "number", "power of polynomial activations", 3.0, minimum=1),
    Setting("skip", "flag", "whether inputs reach the output directly, too", False),
    Setting("targets", "text", "one output for labels or one a cluster", "labels", choices=TARGETS),
    Setting("init_scale", "number", "size of the initial network", optional=True, above=0),
    Setting("log_inverse_loss", "number", "log(1/L) at which the flow ends", 100.0, above=0),
    Setting("max_evaluations", "integer", "gradients allowed", 20_000, minimum=1),
    Setting("test_points", "integer", "fresh examples that are perturbed", 50, minimum=2),
    Setting("shifted_points", "integer", "fresh examples that are shifted", 1000, minimum=2),
)

# Of the two-layer network that a deep one is compared with.
_TWO_LAYER_SCALE = 1e-2


class TrainedDeep:
    """A deep network trained on clusters, each part made when it is first asked for."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        streams = np.random.SeedSequence(settings[SEED]).spawn(5)
        self.means_seed, self.data_seed, self.net_seed, self.test_seed, self.shift_seed = streams

    @cached_property
    def clusters(self) -> ClusterModel:
        """The clusters, with orthogonal means."""
        settings = self.settings
        seed = np.random.default_rng(self.means_seed)
        return ClusterModel.orthogonal(
            settings["n_clusters"], settings["dim"], settings["noise"], seed=seed
        )

    @cached_property
    def data(self) -> Dataset:
        """The training set."""
        n = self.settings["per_cluster"] * self.settings["n_clusters"]
        return self.clusters.sample(n, np.random.default_rng(self.data_seed))

    @cached_property
    def initial(self) -> DeepNet:
        """The initial network."""
        settings = self.settings
        return DeepNet.init(
            settings["depth"],
            settings["width"],
            settings["dim"],
            settings["init_scale"],
            bias=settings["bias"],
            activation=settings["activation"],
            slope=settings["slope"],
            power=settings["power"],
            skip=settings["skip"],
            class_labels=self.clusters.labels if settings["targets"] == "clusters" else None,
            seed=np.random.default_rng(self.net_seed),
        )

    @cached_property
    def flow(self) -> FlowResult:
        """The flow to the loss that was asked for: exponential, or cross-entropy of clusters."""
        settings = self.settings
        return gradient_flow(
            self.initial,
            self.data,
            loss="logistic" if settings["targets"] == "clusters" else "exponential",
            log_inverse_loss=settings["log_inverse_loss"],
            max_evaluations=settings["max_evaluations"],
            bias=settings["bias"] != "none",
            num_threads=1,
        )

    @property
    def net(self) -> Any:
        """The network at the end of the flow."""
        return self.flow.net

    def fresh(self, count: int, seed: np.random.SeedSequence) -> Dataset:
        """Examples that the network was not trained on."""
        return self.clusters.sample(count, np.random.default_rng(seed))


def measure_flow(trained: TrainedDeep) -> Record:
    """Where the flow ended, and what the network gets wrong."""
    flow = trained.flow
    shifted = trained.fresh(trained.settings["shifted_points"], trained.shift_seed)
    return Record(
        {
            "flow_status": flow.status.value,
            "reached_log_inverse_loss": flow.log_inverse_loss,
            "evaluations": flow.evaluations,
            "normalized_margin": flow.normalized_margin,
            "train_error": float((trained.net.margins(trained.data) <= 0).mean()),
            "test_error": float((trained.net.margins(shifted) <= 0).mean()),
        }
    )


def measure_certificate(trained: TrainedDeep) -> Record:
    """How close the network is to a KKT point, its gradients taken on one side of kinks."""
    found = certify_kkt(trained.net, trained.data)
    return Record({"stationarity": found.stationarity, "complementarity": found.complementarity})


def measure_limit(trained: TrainedDeep) -> Record:
    """The KKT point near the network, and its margin over that of two layers to a power."""
    found = kkt_point(trained.net, trained.data)
    biased, dim = trained.settings["bias"] != "none", trained.settings["dim"]
    start = TwoLayerNet.init(
        trained.settings["width"],
        dim,
        _TWO_LAYER_SCALE,
        bias=biased,
        seed=np.random.default_rng(trained.net_seed),
    )
    two_layers = flow_limit(start, trained.data, bias=biased, num_threads=1)
    expected = deep_margin(two_layers.normalized_margin, trained.settings["depth"])
    return Record(
        {
            "limit_status": found.status.value,
            "limit_stationarity": found.stationarity,
            "limit_feasibility": found.feasibility,
            "limit_dual_feasibility": found.dual_feasibility,
            "limit_normalized_margin": found.normalized_margin,
            "limit_angle": found.angle,
            "two_layer_status": two_layers.status.value,
            "two_layer_normalized_margin": two_layers.normalized_margin,
            "limit_margin_ratio": found.normalized_margin / expected,
        }
    )


def measure_universal(trained: TrainedDeep) -> Record:
    """What one shift along the weighted sum of means flips."""
    clusters = trained.clusters
    shifted = trained.fresh(trained.settings["shifted_points"], trained.shift_seed)
    found = universal_perturbation(
        trained.net, shifted, direction=clusters.labels @ clusters.means, num_threads=1
    )
    scale = theory.universal_norm(clusters.dim, clusters.n_clusters)
    norms = {"50": found.norm_50, "95": found.norm_95}
    scalars = {f"universal_norm_{share}": norm for share, norm in norms.items()}
    scalars |= {f"universal_ratio_{share}": norm / scale for share, norm in norms.items()}
    return Record(scalars)


def measure_radii(trained: TrainedDeep) -> Record:
    """Shortest perturbations of fresh examples that were found, and what none is below."""
    fresh = trained.fresh(trained.settings["test_points"], trained.test_seed)
    found = min_perturbation(
        trained.net, fresh.X, fresh.y, clusters=trained.clusters, num_threads=1
    )
    median = float(np.median(found.radius))
    return Record(
        {
            "radius_median": median,
            "radius_over_root_d": median / math.sqrt(trained.clusters.dim),
            "radius_median_bound": float(np.median(found.lower_bound)),
            "radius_proved": float(np.mean(found.proved)),
        },
        {"radius": found.radius},
    )


MEASURES = {
    "flow": measure_flow,
    "certificate": measure_certificate,
    "limit": measure_limit,
    "universal": measure_universal,
    "radii": measure_radii,
}


def run_deep(settings: Settings, outputs: Sequence[str]) -> Record:
    """One problem drawn from clusters, one flow of a deep network, and what was asked for."""
    trained = TrainedDeep(settings)
    d, k = float(settings["dim"]), int(settings["n_clusters"])
    n = int(settings["per_cluster"]) * k
    norm = theory.universal_norm(d, k)
    two_layers = theory.limiting_normalized_margin(d, k, n, float(settings["noise"]))
    scalars: dict[str, Any] = {
        "network": network_name(settings),
        "theory_universal": norm,
        "theory_radius": norm,
        "theory_radius_over_root_d": norm / math.sqrt(d),
        "theory_normalized_margin": deep_margin(two_layers, settings["depth"]),
    }
    return Record.joined([Record(scalars), *(MEASURES[name](trained) for name in outputs)])


def network_name(settings: Settings) -> str:
    """What tells networks of a study apart, for the legend of a figure."""
    activation = str(settings["activation"])
    name = {
        "relu": "ReLU",
        "leaky_relu": f"leaky ReLU, slope {settings['slope']:g}",
        "polynomial_relu": f"ReLU to the {settings['power']:g}",
        "normalized_polynomial_relu": f"normalised, p = {settings['power']:g}",
    }[activation]
    parts = [name] + ["linear skip"] * bool(settings["skip"])
    if settings["targets"] == "clusters":
        parts.append("an output a cluster")
    return f"{', '.join(parts)}, depth {settings['depth']}"


def deep_margin(two_layers: float, depth: int) -> float:
    """Normalised margin of a ReLU network of that depth, one chain of units a label.

    4 gamma_2 / (2L)^(L/2), from that of two layers: docs/theory.md, section 9.
    """
    return float(4 * two_layers / (2 * depth) ** (depth / 2))


def deep_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    """Why these settings cannot be run together, or None."""
    if settings["depth"] not in DEPTHS:
        known = f"{DEPTHS[0]} to {DEPTHS[-1]}"
        return "depth", f"depth must be from {known}; got {settings['depth']}"
    if settings["slope"] >= 1:
        return "slope", f"slope must be below 1; got {settings['slope']:g}"
    if settings["n_clusters"] > settings["dim"]:
        k, d = settings["n_clusters"], settings["dim"]
        return "n_clusters", f"n_clusters={k} orthogonal means need dim >= {k}; dim={d}"
    for output in ("certificate", "limit"):
        if output in outputs and settings["targets"] == "clusters":
            return "targets", f"KKT points are for one output; leave out the output {output!r}"
        if output in outputs and (settings["bias"] == "all" or settings["skip"]):
            name = "skip" if settings["skip"] else "bias"
            return name, f"the network is not homogeneous; leave out the output {output!r}"
    if "limit" in outputs:
        if settings["activation"] not in ACTIVATIONS[:2]:
            return "activation", "limits are of relu and leaky_relu; leave out the output 'limit'"
        if settings["depth"] not in POLISHED_DEPTHS:
            known = f"{POLISHED_DEPTHS[0]} to {POLISHED_DEPTHS[-1]}"
            return "depth", f"limits are of depth {known}; leave out the output 'limit'"
    return None


DEEP = Experiment(
    name="deep",
    run=run_deep,
    settings=SETTINGS,
    outputs=tuple(MEASURES),
    conflict=deep_conflict,
    cost=deep_cost,
)
