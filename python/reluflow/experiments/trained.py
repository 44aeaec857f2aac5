"""A network trained on clusters or on digits, each part made when it is first asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from reluflow._results import Status
from reluflow._validation import FloatArray, IntArray
from reluflow.data import ClusterModel, Dataset, load_digits
from reluflow.experiments.registry import SEED, Setting
from reluflow.flow import LOSSES, FlowResult, gradient_flow, gradient_flow_ensemble
from reluflow.kkt import FlowLimit, KKTCertificate, certify_kkt, flow_limit
from reluflow.network import TwoLayerNet
from reluflow.problem import COORDINATES, Problem, draw
from reluflow.robustness import (
    Perturbations,
    Universal,
    min_perturbation,
    robust_network,
    universal_perturbation,
)

NETWORKS = ("flow", "limit")
MEANS = ("orthogonal", "random", "equicorrelated")

TRAINING = (
    Setting("width", "integer", "number of neurons m", 100, minimum=2),
    Setting("init_scale", "number", "size of the initial network", 1e-3, above=0),
    Setting("bias", "flag", "whether biases are trained", True),
    Setting("train_output", "flag", "whether output weights are trained", True),
    Setting("loss", "text", "loss of a margin", "exponential", choices=LOSSES),
    Setting("label_smoothing", "number", "of cross-entropy, in (0, 1)", 0.1, minimum=0),
    Setting("log_inverse_loss", "number", "log(1/L) at which the flow ends", 100.0, above=0),
    Setting("max_evaluations", "integer", "gradients allowed", 100_000, minimum=1),
    Setting("network", "text", "what is measured", "flow", choices=NETWORKS),
    Setting("test_points", "integer", "fresh examples that are perturbed", 50, minimum=2),
    Setting("error_samples", "integer", "fresh examples drawn for the error", 131_072, minimum=1),
)
CLUSTERS = (
    Setting("means", "text", "how the cluster means lie", "orthogonal", choices=MEANS),
    Setting("n_clusters", "integer", "number of clusters k", minimum=2),
    Setting("dim", "integer", "dimension d", minimum=2),
    Setting("noise", "number", "standard deviation sigma of the noise", minimum=0),
    Setting("correlation", "number", "cosine between any two means", 0.0),
    Setting("balance", "number", "share c of the clusters with label -1", 0.5, above=0),
    Setting("n", "integer", "number of training examples", optional=True, minimum=2),
    Setting("per_cluster", "integer", "training examples a cluster", optional=True, minimum=1),
    Setting("shifted_points", "integer", "fresh examples that are shifted", 1000, minimum=2),
    Setting("coordinates", "text", "coordinates of the run", "reduced", choices=COORDINATES),
)
# Of the digits that scikit-learn ships.
IMAGES, PIXELS, CLASSES = 1797, 64, 10
DIGITS = (Setting("n", "integer", "number of training examples", 200, minimum=2),)


class Trained(ABC):
    """What outputs are measured on. Each part has a random stream of its own.

    Everything is in the coordinates of the network.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        streams = np.random.SeedSequence(settings[SEED]).spawn(5)
        self.means_seed, self.draw_seed, self.test_seed, self.error_seed, self.shift_seed = streams

    @property
    @abstractmethod
    def data(self) -> Dataset:
        """The training set."""

    @property
    @abstractmethod
    def initial(self) -> TwoLayerNet:
        """The initial network."""

    @property
    @abstractmethod
    def clusters(self) -> ClusterModel:
        """The clusters, or what the examples say of them."""

    @property
    @abstractmethod
    def fresh(self) -> Dataset:
        """Examples that the network was not trained on."""

    @property
    @abstractmethod
    def population(self) -> ClusterModel | Dataset:
        """Where the test error is measured."""

    @property
    @abstractmethod
    def shifted(self) -> Dataset:
        """Examples not trained on, more of them, that are all shifted alike."""

    @cached_property
    def flow(self) -> FlowResult:
        """The flow to the loss that was asked for."""
        return gradient_flow(self.initial, self.data, **self.flow_options)

    @property
    def flow_options(self) -> dict[str, Any]:
        """Arguments of the flow but for the problem."""
        names = ("loss", "label_smoothing", "log_inverse_loss", "train_output", "bias")
        options = {name: self.settings[name] for name in (*names, "max_evaluations")}
        return {**options, "num_threads": 1}

    @cached_property
    def limit(self) -> FlowLimit:
        """The KKT point that the flow tends to."""
        settings = self.settings
        return flow_limit(
            self.initial,
            self.data,
            loss=settings["loss"],
            train_output=settings["train_output"],
            bias=settings["bias"],
            max_evaluations=settings["max_evaluations"],
            num_threads=1,
        )

    @property
    def net(self) -> TwoLayerNet:
        """The network that everything is measured on: the flow's, or its limit."""
        if self.settings["network"] == "flow":
            return self.flow.net
        if self.limit.status not in (Status.CONVERGED, Status.DEGENERATE):
            raise ValueError(f"the limit is not known. {self.limit.status.sentence}")
        return self.limit.net

    @cached_property
    def universal(self) -> Universal:
        """The shift along sum_q y_q mu_q."""
        clusters = self.clusters
        return universal_perturbation(
            self.net,
            self.shifted,
            direction=clusters.labels @ clusters.means,
            num_threads=1,
        )

    @cached_property
    def radii(self) -> Perturbations:
        """Smallest perturbations of fresh examples."""
        return self.perturbations(self.net)

    @cached_property
    def robust_radii(self) -> Perturbations:
        """The same for the explicit robust network."""
        return self.perturbations(robust_network(self.clusters))

    def perturbations(self, net: TwoLayerNet) -> Perturbations:
        """Smallest perturbations of fresh examples for a network."""
        fresh = self.fresh
        return min_perturbation(net, fresh.X, fresh.y, clusters=self.clusters, num_threads=1)

    @cached_property
    def certificate(self) -> KKTCertificate:
        """How close the network is to a KKT point."""
        return certify_kkt(
            self.net,
            self.data,
            train_output=self.settings["train_output"],
            bias=self.settings["bias"],
        )


def follow_together(many: Iterable[Trained]) -> None:
    """Follows the flows of all, those with the same options in one ensemble."""
    ensembles: dict[tuple[Any, ...], list[Trained]] = defaultdict(list)
    for trained in many:
        ensembles[tuple(trained.flow_options.values())].append(trained)
    for members in ensembles.values():
        flows = gradient_flow_ensemble(
            [one.initial for one in members],
            [one.data for one in members],
            **members[0].flow_options,
        )
        for one, flow in zip(members, flows, strict=True):
            one.flow = flow


class TrainedOnClusters(Trained):
    """A network trained on examples drawn from clusters."""

    @cached_property
    def ambient_clusters(self) -> ClusterModel:
        """The clusters in their own dimension."""
        settings = self.settings
        options: dict[str, Any] = {
            "n_clusters": settings["n_clusters"],
            "dim": settings["dim"],
            "noise": settings["noise"],
            "labels": cluster_labels(settings["n_clusters"], settings["balance"]),
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
            self.ambient_clusters,
            training_size(settings),
            settings["width"],
            init_scale=settings["init_scale"],
            bias=settings["bias"],
            train_output=settings["train_output"],
            coordinates=settings["coordinates"],
            seed=np.random.default_rng(self.draw_seed),
        )

    @property
    def data(self) -> Dataset:
        return self.problem.data

    @property
    def clusters_drawn(self) -> IntArray:
        """The cluster of each training example."""
        assert self.data.cluster is not None
        return self.data.cluster

    @property
    def initial(self) -> TwoLayerNet:
        return self.problem.net

    @property
    def clusters(self) -> ClusterModel:
        return self.problem.clusters

    @cached_property
    def fresh(self) -> Dataset:
        return self.clusters.sample(
            self.settings["test_points"], np.random.default_rng(self.test_seed)
        )

    @cached_property
    def shifted(self) -> Dataset:
        return self.clusters.sample(
            self.settings["shifted_points"], np.random.default_rng(self.shift_seed)
        )

    @property
    def population(self) -> ClusterModel | Dataset:
        return self.clusters


class TrainedOnDigits(Trained):
    """A network trained on some of the digits; the others are its test set."""

    @cached_property
    def _split(self) -> tuple[Dataset, Dataset]:
        digits = load_digits()
        order = np.random.default_rng(self.draw_seed).permutation(digits.n)
        return _part(digits, order[: self.settings["n"]]), _part(
            digits, order[self.settings["n"] :]
        )

    @property
    def data(self) -> Dataset:
        return self._split[0]

    @cached_property
    def initial(self) -> TwoLayerNet:
        settings = self.settings
        return TwoLayerNet.init(
            settings["width"],
            self.data.dim,
            settings["init_scale"],
            bias=settings["bias"],
            seed=np.random.default_rng(self.means_seed),
        )

    @cached_property
    def clusters(self) -> ClusterModel:
        return self.data.cluster_model()

    @cached_property
    def fresh(self) -> Dataset:
        return _part(self._split[1], np.arange(self.settings["test_points"]))

    @property
    def shifted(self) -> Dataset:
        return self._split[1]

    @property
    def population(self) -> ClusterModel | Dataset:
        return self._split[1]


def cluster_labels(n_clusters: int, balance: float) -> FloatArray:
    """+1, -1, +1, ... until a share ``balance`` of the clusters has -1, then +1."""
    negatives = min(n_clusters - 1, max(1, round(balance * n_clusters)))
    signs = np.ones(n_clusters)
    signs[1::2][:negatives] = -1.0
    return signs


def training_size(settings: Mapping[str, Any]) -> int:
    """n, or the examples a cluster times k."""
    if settings["n"] is not None:
        return int(settings["n"])
    return int(settings["per_cluster"]) * int(settings["n_clusters"])


def _part(data: Dataset, rows: Any) -> Dataset:
    return Dataset(data.X[rows], data.y[rows], None if data.cluster is None else data.cluster[rows])
