"""The experiment ``adversarial``: networks trained on adversarial examples of clusters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np

from reluflow import theory
from reluflow.adversarial import adversarial_examples
from reluflow.data import ClusterModel, Dataset
from reluflow.experiments.registry import SEED, Cost, Experiment, Record, Setting, Settings
from reluflow.flow import FlowResult, gradient_flow
from reluflow.network import TwoLayerNet
from reluflow.robustness import Perturbations, min_perturbation

INNER = ("search", "pgd")
SETTINGS = (
    Setting("n_clusters", "integer", "number of clusters k", minimum=2),
    Setting("dim", "integer", "dimension d", minimum=2),
    Setting("noise", "number", "standard deviation sigma of the noise", minimum=0),
    Setting("t", "number", "adversarial radius, in units of sqrt(d/k)", minimum=0),
    Setting("per_cluster", "integer", "training examples a cluster", 10, minimum=1),
    Setting("width", "integer", "number of neurons m", 50, minimum=2),
    Setting("bias", "flag", "whether biases are trained", True),
    Setting("init_scale", "number", "size of the initial network", 1e-5, above=0),
    Setting("inner", "text", "how adversarial examples are sought", "search", choices=INNER),
    Setting("inner_steps", "integer", "of projected gradient descent in training", 10, minimum=1),
    Setting("log_inverse_loss", "number", "log(1/L) at which the flow ends", 100.0, above=0),
    Setting("rtol", "number", "error allowed a step", 3e-2, above=0),
    Setting("max_evaluations", "integer", "gradients allowed", 20_000, minimum=1),
    Setting("test_points", "integer", "fresh examples that are perturbed", 40, minimum=2),
    Setting("descent_steps", "integer", "steps of projected gradient descent", 100, minimum=1),
)

# Shares of log(1/L) at which the flow is stopped to compare the searches.
_CHECKPOINTS = (0.01, 0.1, 1.0)
# Where gradient attacks are compared with exact radii, in median radii.
_BEYOND = 1.05
_ROUNDING = 1e-9
# Directions that are closer count as one in the proofs of radii, which allow for that.
_MERGED = 1e-3


class TrainedAdversarially:
    """A network trained on adversarial examples, each part made when it is first asked for."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        streams = np.random.SeedSequence(settings[SEED]).spawn(4)
        self.means_seed, self.data_seed, self.net_seed, self.test_seed = streams

    @cached_property
    def clusters(self) -> ClusterModel:
        """The clusters, with orthogonal means."""
        k, d, noise = (self.settings[name] for name in ("n_clusters", "dim", "noise"))
        return ClusterModel.orthogonal(k, d, noise, seed=np.random.default_rng(self.means_seed))

    @property
    def radius(self) -> float:
        """Of the balls, in units of the inputs."""
        return float(self.settings["t"]) * theory.universal_norm(
            self.settings["dim"], self.settings["n_clusters"]
        )

    @cached_property
    def data(self) -> Dataset:
        """The training set, equally many examples of every cluster."""
        rng = np.random.default_rng(self.data_seed)
        means, labels = self.clusters.means, self.clusters.labels
        cluster = np.repeat(np.arange(len(labels)), self.settings["per_cluster"])
        noise = rng.standard_normal((len(cluster), means.shape[1]))
        X = means[cluster] + float(self.settings["noise"]) * noise
        return Dataset(X, labels[cluster], cluster)

    @cached_property
    def flows(self) -> list[FlowResult]:
        """The flow in parts, each from where the one before ended."""
        settings = self.settings
        bias = bool(settings["bias"])
        seed = np.random.default_rng(self.net_seed)
        net = TwoLayerNet.init(
            settings["width"], settings["dim"], settings["init_scale"], bias=bias, seed=seed
        )
        flows: list[FlowResult] = []
        left = int(settings["max_evaluations"])
        for share in _CHECKPOINTS:
            flow = gradient_flow(
                net,
                self.data,
                log_inverse_loss=share * settings["log_inverse_loss"],
                bias=bias,
                rtol=settings["rtol"],
                max_evaluations=max(left, 1),
                num_threads=1,
                adversarial_radius=self.radius,
                inner=settings["inner"],
                inner_steps=settings["inner_steps"],
            )
            flows.append(flow)
            left -= flow.evaluations
            net = flow.net
            if flow.status != "converged":
                break
        return flows

    @property
    def net(self) -> TwoLayerNet:
        """The network at the end of the flow."""
        return self.flows[-1].net

    @cached_property
    def fresh(self) -> Dataset:
        """Examples that the network was not trained on."""
        rng = np.random.default_rng(self.test_seed)
        return self.clusters.sample(self.settings["test_points"], rng)

    @cached_property
    def radii(self) -> Perturbations:
        """Smallest perturbations of the fresh examples."""
        return min_perturbation(
            self.net,
            self.fresh.X,
            self.fresh.y,
            clusters=self.clusters,
            merge_tol=_MERGED,
            num_threads=1,
        )


def measure_flow(trained: TrainedAdversarially) -> Record:
    """Where the flow ended, and the price of its robust margin."""
    flow = trained.flows[-1]
    d = float(trained.settings["dim"])
    robust = adversarial_examples(trained.net, trained.data, trained.radius, num_threads=1)
    smallest = float(robust.margins.min())
    price = math.sqrt(d) * trained.net.norm**2 / (2 * smallest) if smallest > 0 else None
    expected = theory_price(trained.settings)
    scalars: dict[str, Any] = {
        "flow_status": flow.status.value,
        "reached_log_inverse_loss": flow.log_inverse_loss,
        "evaluations": sum(part.evaluations for part in trained.flows),
        "robust_train_accuracy": float((robust.margins > 0).mean()),
        "price": price,
        "theory_price": expected,
        "price_over_theory": price / expected if price and expected else None,
        # Neurons that are dead at adversarial examples serve nothing.
        "clusters_a_neuron": clusters_a_neuron(trained.net, trained.clusters) if price else None,
        "neurons_a_label": neurons_a_label(trained.net) if price else None,
    }
    return Record(scalars)


def theory_price(settings: Settings) -> float | None:
    """Of a noise-free problem without biases: averaging up to t*, a linear program beyond."""
    k, t = int(settings["n_clusters"]), float(settings["t"])
    if k % 2 or t >= math.sqrt(k / 2):
        return None
    # Averaging is the cheapest below .4, for any number of clusters (docs/theory.md, section 10.4).
    if t <= 0.4:
        return theory.averaging_price(k, t)
    return _cheapest(k, t) if k <= theory.MOST_CLUSTERS else None


@cache
def _cheapest(k: int, t: float) -> float:
    """Networks of one problem share it."""
    return theory.infinite_width_price(k, t).price


def clusters_a_neuron(net: TwoLayerNet, clusters: ClusterModel) -> float:
    """How many clusters of its label a neuron serves: participation numbers, averaged with masses.

    (sum_q a_q)^2 / sum_q a_q^2 of its activations a_q at the means of its own label, the mass being
    |v_j| ||w_j||: k/2 where one neuron serves all alike, 1 where each has a neuron of its own.
    """
    own = np.sign(net.v)[:, None] == clusters.labels
    active = np.where(own, np.maximum(clusters.means @ net.W.T + net.b, 0).T, 0)
    squares = (active**2).sum(axis=1)
    mass = np.where(squares > 0, np.abs(net.v) * np.linalg.norm(net.W, axis=1), 0)
    numbers = active.sum(axis=1) ** 2 / np.where(squares > 0, squares, 1)
    return float(mass @ numbers / mass.sum())


def neurons_a_label(net: TwoLayerNet) -> float:
    """How many different neurons share the mass of a label, the mean over labels.

    1 / tr rho^2, rho = sum_j c_j u_j u_j^T of unit weights u_j and their shares c_j of the mass: 1
    where all are parallel, m where there are m orthogonal ones of one mass.
    """
    numbers = []
    lengths = np.linalg.norm(net.W, axis=1)
    for sign in (-1, 1):
        kept = (np.sign(net.v) == sign) & (lengths > 0)
        mass = np.abs(net.v[kept]) * lengths[kept]
        share = mass / mass.sum()
        units = net.W[kept] / lengths[kept, None]
        numbers.append(1 / float(share @ (units @ units.T) ** 2 @ share))
    return float(np.mean(numbers))


def measure_radii(trained: TrainedAdversarially) -> Record:
    """Exact radii of fresh examples, beside the radius of training and the largest possible one."""
    found, root = trained.radii, math.sqrt(trained.settings["dim"])
    median = float(np.median(found.radius))
    scalars = {
        "radius_median": median,
        "radius_over_root_d": median / root,
        "radius_median_bound": float(np.median(found.lower_bound)) / root,
        "radius_proved": float(found.proved.mean()),
        "trained_for_over_root_d": trained.radius / root,
        "averaging_radius_over_root_d": 1 / math.sqrt(trained.settings["n_clusters"]),
        "largest_radius_over_root_d": math.sqrt(0.5),
    }
    return Record(scalars, {"radius": found.radius})


def measure_descent(trained: TrainedAdversarially) -> Record:
    """What projected gradient descent misses: on the way, and beyond the median radius."""
    steps = int(trained.settings["descent_steps"])
    worse = 0
    gaps = []
    for flow in trained.flows:
        found = adversarial_examples(flow.net, trained.data, trained.radius, num_threads=1)
        descent = adversarial_examples(
            flow.net, trained.data, trained.radius, inner="pgd", inner_steps=steps, num_threads=1
        )
        # Of a network that has died all margins are 0.
        scale = float(np.abs(descent.margins).max()) or 1.0
        gaps.append(float((descent.margins - found.margins).max()) / scale)
        worse += int((found.margins > descent.margins + _ROUNDING * scale).sum())
    size = _BEYOND * float(np.median(trained.radii.radius))
    attacked = adversarial_examples(
        trained.net, trained.fresh, size, inner="pgd", inner_steps=steps, num_threads=1
    )
    claimed = float((attacked.margins > 0).mean())
    exact = float((trained.radii.radius > size).mean())
    return Record(
        {
            "search_worse_than_descent": worse,
            "descent_gap": max(gaps),
            "descent_accuracy": claimed,
            "exact_accuracy": exact,
            "descent_overstates": claimed - exact,
        }
    )


_MEASURES = {"flow": measure_flow, "radii": measure_radii, "descent": measure_descent}


def run_adversarial(settings: Settings, outputs: Sequence[str]) -> Record:
    """One problem drawn from clusters, one flow, and what was asked for."""
    trained = TrainedAdversarially(settings)
    named = Record({"network": clusters_and_noise(settings)})
    return Record.joined([named, *(_MEASURES[name](trained) for name in outputs)])


def clusters_and_noise(settings: Settings) -> str:
    """What tells problems of a study apart, for the legend of a figure."""
    name = f"k = {settings['n_clusters']}, noise {settings['noise']:g}"
    descent = settings["inner"] == "pgd"
    return f"{name}, trained by PGD-{settings['inner_steps']}" if descent else name


def adversarial_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    """Why these settings cannot be run together, or None."""
    k, d = settings["n_clusters"], settings["dim"]
    if k > d:
        return "n_clusters", f"n_clusters={k} orthogonal means need dim >= {k}; dim={d}"
    return None


# Seconds on one core: a search of one example, for a square of the width, and what descent takes
# of that.
_PER_SEARCH = 2.5e-8
_DESCENT_SHARE = 0.3
_GRADIENTS = 200.0


def adversarial_cost(settings: Settings, outputs: Sequence[str]) -> Cost:
    """Seconds on one core, and bytes."""
    n = float(settings["per_cluster"] * settings["n_clusters"])
    m, d, t = float(settings["width"]), float(settings["dim"]), float(settings["t"])
    decades = math.log10(1 + float(settings["log_inverse_loss"]))
    growth = (1 + 4 * t * t) * (1 + decades) / 3 * (3e-2 / float(settings["rtol"])) ** 0.6
    gradients = min(_GRADIENTS * growth, float(settings["max_evaluations"]))
    search = n * m * m * _PER_SEARCH
    if settings["inner"] == "pgd":
        search *= _DESCENT_SHARE * settings["inner_steps"] / 10
    seconds = 0.05 + gradients * search + 2e-2 * float(settings["test_points"]) * m / 50
    return Cost(seconds, 8 * (6 * d * (n + m) + 20 * m * (n + m)))


ADVERSARIAL = Experiment(
    name="adversarial",
    run=run_adversarial,
    settings=SETTINGS,
    outputs=tuple(_MEASURES),
    conflict=adversarial_conflict,
    cost=adversarial_cost,
)
