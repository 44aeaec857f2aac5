"""Generalization against robustness: test error and exact radius of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow import theory
from reluflow._results import Result, Status
from reluflow._validation import as_number, as_positive_int
from reluflow.data import ClusterModel, Dataset
from reluflow.experiments.registry import SEED, Cost, Experiment, Record, Setting, Settings
from reluflow.flow import gradient_flow
from reluflow.generalization import test_error
from reluflow.kkt import flow_limit
from reluflow.network import TwoLayerNet
from reluflow.robustness import min_perturbation, robust_network

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NETWORKS = ("KKT", "adversarial", "early", "explicit, paper", "explicit, best")
_DEFAULT_SHARES = (0.2, 0.35, 0.5, 0.55, 0.6)
# log(1/L) at which early stopping stops, and the error a step of adversarial training may make.
_EARLY = 1.0
_RTOL = 3e-2
_INIT_SCALE = 1e-3
_MERGED = 1e-3
_SAMPLES = 32_768


@dataclass(frozen=True)
class FrontierPoint(Result):
    """One network of a frontier.

    Attributes
    ----------
    network : str
        ``"KKT"`` (the limit of the clean flow), ``"adversarial"``, ``"early"`` (the clean flow
        stopped at log(1/L) = 1), ``"explicit, paper"`` or ``"explicit, best"``.
    adversarial_radius : float
        That it was trained for; 0 where it was not.
    log10_error : float
        log10 of the test error, -inf where the noise is 0 and no mean is misclassified.
    radius : float
        Median smallest perturbation of fresh examples.
    lower_bound : float
        No median is below; the radius where ``proved`` is 1.
    proved : float
        Share of the radii that are proved.
    status : Status
        How the training ended; ``converged`` for explicit networks.
    """

    network: str
    adversarial_radius: float
    log10_error: float
    radius: float
    lower_bound: float
    proved: float
    status: Status


@dataclass(frozen=True, eq=False)
class Frontier(Result):
    """Networks of one problem by test error and radius.

    Attributes
    ----------
    points : tuple of FrontierPoint
    dim, n_clusters : int
    noise : float
    status : Status
        ``converged``, or the first other status of a training.
    """

    points: tuple[FrontierPoint, ...]
    dim: int
    n_clusters: int
    noise: float
    status: Status

    @property
    def table(self) -> pd.DataFrame:
        """One row a network."""
        import pandas as pd

        return pd.DataFrame([point.to_dict() for point in self.points])

    @property
    def dominating(self) -> tuple[FrontierPoint, ...]:
        """The points that no other one beats in both error and radius."""

        def beaten(point: FrontierPoint) -> bool:
            return any(
                other.log10_error <= point.log10_error
                and other.radius >= point.radius
                and (other.log10_error < point.log10_error or other.radius > point.radius)
                for other in self.points
            )

        return tuple(point for point in self.points if not beaten(point))

    def __str__(self) -> str:
        title = f"Error and radius, k = {self.n_clusters}, d = {self.dim}, noise {self.noise:g}"
        columns = f"{'epsilon':>9s} {'log10 error':>12s} {'radius':>9s}"
        rows = [f"  {'network':18s} {columns}  on the frontier"]
        best = {id(point) for point in self.dominating}
        for point in self.points:
            mark = "yes" if id(point) in best else ""
            rows.append(
                f"  {point.network:18s} {point.adversarial_radius:9.4g} "
                f"{point.log10_error:12.5g} {point.radius:9.4g}  {mark}"
            )
        return "\n".join([title, *rows, f"  {self.status}"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Radius against log10 of the test error."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        for name in dict.fromkeys(point.network for point in self.points):
            own = [point for point in self.points if point.network == name]
            ax.plot([p.log10_error for p in own], [p.radius for p in own], "o-", label=name)
        ax.set(xlabel="log10 of the test error", ylabel="median radius")
        ax.legend()
        return ax


def frontier(
    clusters: ClusterModel,
    n: int,
    width: int,
    *,
    radii: Sequence[float] | None = None,
    log_inverse_loss: float = 100.0,
    test_points: int = 20,
    seed: Any = None,
    num_threads: int | None = None,
) -> Frontier:
    """Test error and exact radius of clean, adversarially trained and explicit networks.

    Parameters
    ----------
    clusters : ClusterModel
        In coordinates of which all are kept.
    n : int
        Training examples.
    width : int
        Neurons of the trained networks.
    radii : sequence of float, optional
        Adversarial radii to train for; by default .2, .35, .5, .55 and .6 sqrt(d).
    log_inverse_loss : float
        At which adversarial training ends.
    test_points : int
        Fresh examples whose radii are found.
    seed, num_threads
        As elsewhere.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or of another type.
    """
    if not isinstance(clusters, ClusterModel):
        raise TypeError(f"clusters must be a ClusterModel; got {type(clusters).__name__}")
    if radii is None:
        radii = [share * clusters.dim**0.5 for share in _DEFAULT_SHARES]
    sizes = [as_number("radii", radius, above=0) for radius in radii]
    streams = np.random.default_rng(seed).spawn(4)
    problem = _Problem(
        clusters,
        clusters.sample(as_positive_int("n", n, minimum=2), streams[0]),
        TwoLayerNet.init(width, clusters.dim, _INIT_SCALE, seed=streams[1]),
        clusters.sample(as_positive_int("test_points", test_points), streams[2]),
        int(streams[3].integers(2**31)),
        log_inverse_loss,
        num_threads,
    )
    points = [
        problem.point(name, radius)
        for name in NETWORKS
        for radius in (sizes if name == "adversarial" else [0.0])
    ]
    status = next((p.status for p in points if p.status != Status.CONVERGED), Status.CONVERGED)
    noise = float(np.max(clusters.noise_scale))
    return Frontier(tuple(points), clusters.dim, clusters.n_clusters, noise, status)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What all networks of a frontier share."""

    clusters: ClusterModel
    data: Dataset
    initial: TwoLayerNet
    fresh: Dataset
    error_seed: int
    log_inverse_loss: float
    threads: int | None

    def point(self, network: str, radius: float) -> FrontierPoint:
        """One network, trained and measured."""
        net, status = self._network(network, radius)
        found = min_perturbation(
            net,
            self.fresh.X,
            self.fresh.y,
            clusters=self.clusters,
            merge_tol=_MERGED,
            num_threads=self.threads,
        )
        error = test_error(
            net,
            self.clusters,
            seed=self.error_seed,
            max_samples=_SAMPLES,
            num_threads=self.threads,
        )
        return FrontierPoint(
            network=network,
            adversarial_radius=radius,
            log10_error=error.log10_probability,
            radius=float(np.median(found.radius)),
            lower_bound=float(np.median(found.lower_bound)),
            proved=float(found.proved.mean()),
            status=status,
        )

    def _network(self, network: str, radius: float) -> tuple[TwoLayerNet, Status]:
        if network.startswith("explicit"):
            name = network.removeprefix("explicit, ")
            return robust_network(self.clusters, bias=name), Status.CONVERGED
        if network == "KKT":
            limit = flow_limit(self.initial, self.data, num_threads=self.threads)
            return limit.net, limit.status
        early = network == "early"
        flow = gradient_flow(
            self.initial,
            self.data,
            log_inverse_loss=_EARLY if early else self.log_inverse_loss,
            rtol=1e-3 if early else _RTOL,
            adversarial_radius=radius,
            num_threads=self.threads,
        )
        return flow.net, flow.status


SETTINGS = (
    Setting("n_clusters", "integer", "number of clusters k", minimum=2),
    Setting("dim", "integer", "dimension d", minimum=2),
    Setting("noise", "number", "standard deviation sigma of the noise", above=0),
    Setting("kind", "text", "which network", choices=NETWORKS),
    Setting("share", "number", "adversarial radius over sqrt(d)", 0.0, minimum=0),
    Setting("per_cluster", "integer", "training examples a cluster, on average", 10, minimum=1),
    Setting("width", "integer", "number of neurons m", 50, minimum=2),
    Setting("log_inverse_loss", "number", "log(1/L) at which training ends", 100.0, above=0),
    Setting("test_points", "integer", "fresh examples that are perturbed", 20, minimum=2),
)


def run_frontier(settings: Settings, outputs: Sequence[str]) -> Record:
    """One network of one problem."""
    k, d = int(settings["n_clusters"]), int(settings["dim"])
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings[SEED]).spawn(5)]
    clusters = ClusterModel.orthogonal(k, d, settings["noise"], seed=streams[0])
    problem = _Problem(
        clusters,
        clusters.sample(int(settings["per_cluster"]) * k, streams[1]),
        TwoLayerNet.init(settings["width"], d, _INIT_SCALE, seed=streams[2]),
        clusters.sample(settings["test_points"], streams[3]),
        int(streams[4].integers(2**31)),
        float(settings["log_inverse_loss"]),
        1,
    )
    point = problem.point(str(settings["kind"]), float(settings["share"]) * d**0.5)
    share = f", ε = {settings['share']:g} √d" if settings["share"] else ""
    return Record(
        {
            "network": f"{settings['kind']}{share}",
            "training_status": point.status.value,
            "error_exponent": -point.log10_error,
            "log10_error": point.log10_error,
            "radius_median": point.radius,
            "radius_over_root_d": point.radius / d**0.5,
            "radius_proved": point.proved,
            "largest_radius_over_root_d": theory.explicit_radius(1.0, k, 1 - 0.5**0.5),
        }
    )


def frontier_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    """Why these settings cannot be run together, or None."""
    k, d = settings["n_clusters"], settings["dim"]
    if k > d:
        return "n_clusters", f"n_clusters={k} orthogonal means need dim >= {k}; dim={d}"
    if (settings["kind"] == "adversarial") != (settings["share"] > 0):
        return "share", (
            f"share is for kind = 'adversarial', above 0; got share={settings['share']:g} with "
            f"kind='{settings['kind']}'"
        )
    return None


def frontier_cost(settings: Settings, outputs: Sequence[str]) -> Cost:
    """Seconds on one core, and bytes."""
    m, n = float(settings["width"]), float(settings["per_cluster"] * settings["n_clusters"])
    # Fitted to runs of both sizes; with more noise flows end earlier.
    seconds = 0.03 + 0.012 * float(settings["n_clusters"]) * m / 50
    if settings["kind"] == "adversarial":
        steps = (1 + 10 * float(settings["share"]) ** 2) / (1 + 0.3 * float(settings["noise"]))
        seconds += 0.02 * n * (m / 50) ** 2 * steps
    return Cost(seconds, 8 * (6 * float(settings["dim"]) * (n + m) + 20 * m * (n + m)))


FRONTIER = Experiment(
    name="frontier",
    run=run_frontier,
    settings=SETTINGS,
    conflict=frontier_conflict,
    cost=frontier_cost,
)
