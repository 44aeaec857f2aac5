"""The double edge, end to end: one problem, every measurement, theory beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reluflow._provenance import provenance
from reluflow._results import Result, Status, plain
from reluflow._threads import resolve_num_threads
from reluflow._validation import IntArray, as_positive_int, require_both_classes
from reluflow.data import AssumptionReport, ClusterModel, Dataset, LowRankNoise
from reluflow.experiments.comparison import Comparison, about_orthogonal, compare
from reluflow.flow import FlowResult, gradient_flow
from reluflow.generalization import ErrorEstimate, test_error
from reluflow.kkt import FlowLimit, KKTCertificate, certify_kkt, flow_limit
from reluflow.network import TwoLayerNet
from reluflow.problem import Problem, draw
from reluflow.robustness import (
    Perturbations,
    Universal,
    decoupled_network,
    min_perturbation,
    robust_network,
    universal_perturbation,
)
from reluflow.theory import Prediction, predictions, universal_norm

Announce = Callable[[str], None]

# Share of a given data set that is trained on when n is not said.
TRAINING_SHARE = 0.8

# log(1/L) to which the flow is followed when it is not said, for clusters and for data sets; and
# for many examples, of which a gradient takes n^2 m operations and a late flow thousands.
_TARGET = 1e4
_TARGET_OF_DATA = 100.0
_TARGET_OF_MANY = 100.0
_MANY = 1000
# Patterns from which a larger margin than that of the limit is looked for.
_PROBE_STARTS = 16

# Unless it is said, the limit is computed where neurons turn before they grow, so that they form
# few groups, and its flow is short enough: so many operations take about a minute of one core.
_LAZY = 0.3
_MOST_OPERATIONS = 3e12
_GRADIENTS_TO_PATTERN = 300

# Entries of covariances that the summary quotes; instead of more it gives their scales.
_MOST_NOISE = 1000


@dataclass(frozen=True, eq=False)
class DoubleEdge(Result):
    """What `double_edge` returns.

    Attributes
    ----------
    name : str
        What the data are.
    settings : dict
        Arguments that reproduce the run.
    clusters : ClusterModel
        Given, or estimated from the data set.
    data : Dataset
        Training set.
    initial : TwoLayerNet
        Network that the flow started from.
    flow : FlowResult
        Gradient flow; ``flow.net`` is the trained network.
    limit : FlowLimit or None
        The KKT point that the flow tends to; None where it was not computed. Its status says
        whether it settled.
    certificate : KKTCertificate or None
        How near the trained network is to a KKT point; None where the flow ended before every
        example was classified, and for more than 1,000 examples where the limit is known, which
        says more.
    assumption : AssumptionReport or None
        Assumption 2.2, term by term; None for a given data set.
    error : ErrorEstimate
        Test error of the trained network.
    universal : Universal
        Perturbation along sum_q y_q mu_q.
    test_data : Dataset
        Fresh examples, or the held-out part of a given data set.
    radii, robust_radii : Perturbations
        Smallest perturbations of ``test_data`` for the trained and for the robust network.
    robust_net : TwoLayerNet
        The explicit robust network.
    comparison : tuple of Comparison
        Theory beside measurement.
    summary : dict
        The main numbers, JSON-ready.
    seconds : float
        Wall time.
    """

    name: str
    settings: dict[str, Any]
    clusters: ClusterModel
    data: Dataset
    initial: TwoLayerNet
    flow: FlowResult
    limit: FlowLimit | None
    certificate: KKTCertificate | None
    assumption: AssumptionReport | None
    error: ErrorEstimate
    universal: Universal
    test_data: Dataset
    radii: Perturbations
    robust_net: TwoLayerNet
    robust_radii: Perturbations
    comparison: tuple[Comparison, ...]
    summary: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The summary and the comparison, JSON-ready; arrays go into `report`'s tables."""
        return {**self.summary, "comparison": plain(self.comparison)}

    def __str__(self) -> str:
        lines = _compared(self.comparison) if self.comparison else _alone(self.summary)
        lines.append(f"N {_sign(self.radii.definition)} 0 counts as flipped; {self.flow.status}")
        if self.limit is not None:
            lines.append(f"limit of the flow: {self.limit.status}")
        if len(self.missing_clusters):
            lines.append(f"no training example of cluster {_listed(self.missing_clusters)}")
        return "\n".join(lines)

    @property
    def missing_clusters(self) -> IntArray:
        """Clusters that no training example fell on, in ascending order."""
        if self.data.cluster is None or self.assumption is None:
            return np.empty(0, dtype=np.int64)
        return np.setdiff1d(np.arange(self.clusters.n_clusters), self.data.cluster)

    def report(self, folder: str | Path) -> Path:
        """Writes index.html, figures (SVG and PDF), summary.json and CSV tables to a folder.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        from reluflow.report import write_report

        return write_report(self, folder)


def double_edge(
    clusters_or_dataset: ClusterModel | Dataset,
    n: int | None = None,
    width: int = 100,
    *,
    init_scale: float = 1e-3,
    loss: str = "exponential",
    log_inverse_loss: float | None = None,
    limit: bool | None = None,
    bias: bool = True,
    test_points: int = 200,
    definition: str = "nonstrict",
    max_samples: int = 2**20,
    seed: int = 0,
    num_threads: int | None = None,
    progress: bool = False,
    announce: Announce | None = None,
    name: str | None = None,
) -> DoubleEdge:
    """Runs the whole experiment on one problem: flow, KKT, test error, perturbations, robust net.

    Parameters
    ----------
    clusters_or_dataset : ClusterModel or Dataset
        Clusters to sample from, or a given data set, of which a random part is held out.
    n : int or None
        Training examples; needed for a ClusterModel, 80 % of a Dataset by default.
    width : int
        Hidden neurons.
    log_inverse_loss : float or None
        Target of the flow; where it is None 1e4 for a ClusterModel, and 100 for a Dataset and for
        more than 1,000 examples: their flow takes many more gradients a decade.
    limit : bool or None
        Whether the KKT point that the flow tends to is computed and measured too; where it is None,
        for a ClusterModel and a small initial network if it takes about a minute of one core at
        most.
    init_scale, loss, bias
        As for `TwoLayerNet.init` and `gradient_flow`.
    test_points : int
        Fresh (or held-out) examples whose smallest perturbations are computed.
    definition : {"nonstrict", "strict"}
        Whether N = 0 counts as flipped.
    max_samples : int
        Fresh examples drawn for the test error, at most.
    seed : int
        Everything random follows from it.
    num_threads : int or None
        None means all cores that the process may use, which is also the most that are used.
    progress : bool
        Whether long steps show their progress.
    announce : callable or None
        Told the name of each step as it begins.
    name : str or None
        What the report calls the data.

    Raises
    ------
    ValueError, TypeError, MemoryError
        On arguments out of range, and on problems that do not fit.
    KeyboardInterrupt
        On Ctrl-C, whichever step it ends: the numbers of the others would not be comparable.
    """
    start = time.perf_counter()
    threads = resolve_num_threads(num_threads)
    say = announce or (lambda step: None)
    say("drawing the problem")
    problem, test_data, error_source, name = _problem(
        clusters_or_dataset, n, width, init_scale, bias, test_points, seed, name
    )
    if log_inverse_loss is None:
        log_inverse_loss = _target(clusters_or_dataset, problem.data.n)
    if limit is None:
        limit = isinstance(clusters_or_dataset, ClusterModel) and _affordable(problem, init_scale)
    say("gradient flow")
    flow = gradient_flow(
        problem.net,
        problem.data,
        loss=loss,
        log_inverse_loss=log_inverse_loss,
        bias=bias,
        num_threads=threads,
        progress=progress,
    )
    _require_uninterrupted(flow.status)
    net = flow.net
    found_limit = None
    if limit:
        say("limit of the flow")
        found_limit = flow_limit(
            problem.net,
            problem.data,
            loss=loss,
            bias=bias,
            probe_starts=_PROBE_STARTS if problem.data.n <= _MANY else 0,
            num_threads=threads,
        )
        _require_uninterrupted(found_limit.status)
    say("KKT certificate")
    certificate = _certificate(flow, problem.data, found_limit, bias)
    say("test error")
    error = test_error(
        net,
        error_source,
        definition=definition,
        max_samples=max_samples,
        seed=seed,
        num_threads=threads,
    )
    _require_uninterrupted(error.status)
    say("universal perturbation")
    measure = _Measure(problem.clusters, test_data, definition, threads)
    universal = measure.universal(net)
    say("smallest perturbations")
    robust_net = robust_network(problem.clusters)
    radii, robust_radii = measure.radii(net), measure.radii(robust_net)
    settings = {
        "n": problem.data.n,
        "width": width,
        "init_scale": init_scale,
        "loss": loss,
        "log_inverse_loss": log_inverse_loss,
        "limit": limit,
        "bias": bias,
        "test_points": test_data.n,
        "definition": definition,
        "max_samples": max_samples,
        "seed": seed,
    }
    measured = _measurements(flow, certificate, error, universal, radii, robust_radii)
    robust = measured["median smallest perturbation, robust network"]
    of_limit = {} if found_limit is None else _of_limit(found_limit, measure, robust)
    assumption = (
        problem.clusters.assumption(problem.data.n)
        if isinstance(clusters_or_dataset, ClusterModel)
        else None
    )
    theory: tuple[Prediction, ...] = ()
    # No prediction speaks of real data whose means lie as they like.
    if assumption is not None or about_orthogonal(problem.clusters):
        theory = predictions(problem.clusters, problem.data.n, definition=definition)
    one_a_cluster = measure.median_radius(decoupled_network(problem.clusters))
    comparison = (
        *compare(theory, measured, error),
        *compare(theory, of_limit, error, "limit of the flow"),
        *compare(theory, {"smallest perturbation, one neuron a cluster": one_a_cluster}, error),
        *compare(theory, {} if assumption is None else _of_setting(assumption), error),
    )
    seconds = time.perf_counter() - start
    return DoubleEdge(
        name=name,
        settings=settings,
        clusters=problem.clusters,
        data=problem.data,
        initial=problem.net,
        flow=flow,
        limit=found_limit,
        certificate=certificate,
        assumption=assumption,
        error=error,
        universal=universal,
        test_data=test_data,
        radii=radii,
        robust_net=robust_net,
        robust_radii=robust_radii,
        comparison=comparison,
        summary={
            **_summary(problem, flow, measured, error, radii, settings, threads, seconds),
            **_summary_of_limit(found_limit, of_limit),
        },
        seconds=seconds,
    )


def _compared(comparison: Sequence[Comparison]) -> list[str]:
    width = max(len(row.quantity) for row in comparison)
    head = f"{'quantity':<{width}} {'measured':>11} {'theory':>11} {'ratio':>7}"
    lines = [head, "-" * len(head)]
    for row in comparison:
        measured = "bounded" if row.measured is None else f"{row.measured:.5g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        line = f"{row.quantity:<{width}} {measured:>11} {row.theory:>11.5g} {ratio:>7}"
        lines.append(line.rstrip())
    return lines


def _alone(summary: Mapping[str, Any]) -> list[str]:
    """What was measured, where theory says nothing of it."""
    shown = ("test_error_log10", "universal_norm_95", "radius_median", "robust_radius_median")
    return [
        f"{name.replace('_', ' '):<22} {summary[name]:>11.5g}"
        for name in shown
        if summary[name] is not None
    ]


def _require_uninterrupted(*statuses: Status) -> None:
    if Status.INTERRUPTED in statuses:
        raise KeyboardInterrupt


def _problem(
    source: ClusterModel | Dataset,
    n: int | None,
    width: int,
    init_scale: float,
    bias: bool,
    test_points: int,
    seed: int,
    name: str | None,
) -> tuple[Problem, Dataset, ClusterModel | Dataset, str]:
    """The problem, the points to perturb, and what the test error is taken over."""
    test_points = as_positive_int("test_points", test_points)
    training, fresh = np.random.default_rng(seed).spawn(2)
    if isinstance(source, ClusterModel):
        if n is None:
            raise ValueError("n must be given for a ClusterModel: the number of training examples")
        problem = draw(
            source,
            n,
            width,
            init_scale=init_scale,
            bias=bias,
            coordinates=_coordinates(source, as_positive_int("n", n), width),
            seed=training,
        )
        clusters = problem.clusters
        return problem, clusters.sample(test_points, fresh), clusters, name or "clusters"
    if not isinstance(source, Dataset):
        raise TypeError(
            f"clusters_or_dataset must be a ClusterModel or a Dataset; got {type(source).__name__}"
        )
    data, held_out = _split(source, n, training)
    net = TwoLayerNet.init(width, data.dim, init_scale, bias=bias, seed=training)
    problem = Problem(_as_clusters(data), data, net, data.dim, "ambient")
    chosen = fresh.permutation(held_out.n)[:test_points]
    return problem, _subset(held_out, np.sort(chosen)), held_out, name or "data set"


def _coordinates(clusters: ClusterModel, n: int, width: int) -> str:
    """Reduced coordinates wherever they carry the law of the experiment and are fewer."""
    explicit = clusters.explicit_dim
    fits = explicit is not None and clusters.dim >= explicit + n + width
    return "reduced" if fits else "ambient"


def _split(data: Dataset, n: int | None, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    if n is None:
        n = round(TRAINING_SHARE * data.n)
    n = as_positive_int("n", n)
    if n >= data.n:
        raise ValueError(f"n must leave examples to test on: at most {data.n - 1}; got {n}")
    order = rng.permutation(data.n)
    parts = _subset(data, np.sort(order[:n])), _subset(data, np.sort(order[n:]))
    for part, which in zip(parts, ("training", "held-out"), strict=True):
        require_both_classes(f"the {which} part of the data", part.y)
    return parts


def _subset(data: Dataset, index: np.ndarray) -> Dataset:
    cluster = None if data.cluster is None else data.cluster[index]
    return Dataset(data.X[index], data.y[index], cluster)


def _as_clusters(data: Dataset) -> ClusterModel:
    """The clusters of a data set; the two classes where it names none."""
    if data.cluster is None:
        data = Dataset(data.X, data.y, (data.y > 0).astype(np.int64))
    return data.cluster_model()


def _measurements(
    flow: FlowResult,
    certificate: KKTCertificate | None,
    error: ErrorEstimate,
    universal: Universal,
    radii: Perturbations,
    robust_radii: Perturbations,
) -> dict[str, float]:
    trained, robust = float(np.median(radii.radius)), float(np.median(robust_radii.radius))
    return {
        "log10 test error": error.log10_probability,
        "log10 test error, two-neuron network": error.log10_probability,
        "universal perturbation, norm that flips 95 %": universal.norm_95,
        "universal perturbation, order of the bound": universal.norm_95,
        "universal perturbation, norm that flips 100 %": universal.norm_100,
        "median smallest perturbation, trained network": trained,
        "median smallest perturbation, robust network": robust,
        "double-edge ratio, robust over trained": robust / trained if trained > 0 else math.inf,
        "normalised margin": flow.normalized_margin,
        "KKT stationarity": math.nan if certificate is None else certificate.stationarity,
    }


def _of_limit(limit: FlowLimit, measure: _Measure, robust: float) -> dict[str, float]:
    """What theory says of KKT points, measured on the one that the flow tends to."""
    if limit.status not in (Status.CONVERGED, Status.DEGENERATE):
        return {}
    radius = measure.median_radius(limit.net)
    return {
        "universal perturbation, norm that flips 95 %": measure.universal(limit.net).norm_95,
        "median smallest perturbation, trained network": radius,
        "double-edge ratio, robust over trained": robust / radius if radius > 0 else math.inf,
        "normalised margin": limit.normalized_margin,
    }


def _of_setting(report: AssumptionReport) -> dict[str, float]:
    """What stands beside the bounds of the assumption."""
    return {
        "assumption: training examples, at least": float(report.n),
        "assumption: separation of clusters, at most": report.separation.left,
        "assumption: dimension, at least": float(report.dim),
        "assumption: clusters, at most": float(report.n_clusters),
        "assumption: noise, at most": report.noise,
    }


@dataclass(frozen=True)
class _Measure:
    """How networks are measured: on which clusters and examples, by which definition."""

    clusters: ClusterModel
    examples: Dataset
    definition: str
    threads: int

    def universal(self, net: TwoLayerNet) -> Universal:
        return universal_perturbation(
            net,
            self.clusters,
            examples=self.examples,
            definition=self.definition,
            num_threads=self.threads,
        )

    def radii(self, net: TwoLayerNet) -> Perturbations:
        found = min_perturbation(
            net,
            self.examples.X,
            self.examples.y,
            definition=self.definition,
            clusters=self.clusters,
            num_threads=self.threads,
        )
        _require_uninterrupted(found.status)
        return found

    def median_radius(self, net: TwoLayerNet) -> float:
        return float(np.median(self.radii(net).radius))


def _target(source: ClusterModel | Dataset, n: int) -> float:
    if isinstance(source, Dataset):
        return _TARGET_OF_DATA
    return _TARGET_OF_MANY if n > _MANY else _TARGET


def _affordable(problem: Problem, init_scale: float) -> bool:
    """Whether the limit is likely to take a minute of one core at most."""
    n, d, m = (float(size) for size in (problem.data.n, problem.data.dim, problem.net.width))
    operations = _GRADIENTS_TO_PATTERN * min(2 * n * n * m, 4 * n * d * m)
    return init_scale < _LAZY and operations <= _MOST_OPERATIONS


def _certificate(
    flow: FlowResult, data: Dataset, limit: FlowLimit | None, bias: bool
) -> KKTCertificate | None:
    if not (flow.margins > 0).all() or (limit is not None and data.n > _MANY):
        return None
    return certify_kkt(flow.net, data, bias=bias)


def _summary(
    problem: Problem,
    flow: FlowResult,
    measured: dict[str, float],
    error: ErrorEstimate,
    radii: Perturbations,
    settings: dict[str, Any],
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    clusters = problem.clusters
    origin = provenance(num_threads=threads)
    numbers = {
        "version": origin["version"],
        "seed": settings["seed"],
        "dim": problem.ambient_dim,
        "n_clusters": clusters.n_clusters,
        "noise": _noise_in_few_numbers(clusters),
        "n": problem.data.n,
        "width": problem.net.width,
        "train_accuracy": float((flow.margins > 0).mean()),
        "log_inverse_loss": flow.log_inverse_loss,
        "evaluations": flow.evaluations,
        "kkt_stationarity": measured["KKT stationarity"],
        "normalized_margin": flow.normalized_margin,
        "test_error_log10": error.log10_probability,
        "test_error_interval": error.interval,
        "universal_norm_95": measured["universal perturbation, norm that flips 95 %"],
        "universal_norm_100": measured["universal perturbation, norm that flips 100 %"],
        "sqrt_dim_over_clusters": universal_norm(problem.ambient_dim, clusters.n_clusters),
        "radius_median": measured["median smallest perturbation, trained network"],
        "radius_lower_bound_median": float(np.median(radii.lower_bound)),
        "robust_radius_median": measured["median smallest perturbation, robust network"],
        "double_edge_ratio": measured["double-edge ratio, robust over trained"],
        "seconds": seconds,
        "radius_proved_share": float(radii.proved.mean()),
        "status": flow.status,
        "settings": settings,
        "instruction_set": origin["instruction_set"],
        "num_threads": threads,
    }
    plain_numbers: dict[str, Any] = plain(numbers)
    return plain_numbers


def _summary_of_limit(limit: FlowLimit | None, measured: dict[str, float]) -> dict[str, Any]:
    if limit is None:
        return {}
    numbers: dict[str, Any] = plain(
        {
            "limit_status": limit.status,
            "limit_stationarity": limit.stationarity,
            "limit_normalized_margin": limit.normalized_margin,
            "limit_angle_to_flow": limit.angle_to_flow,
            "limit_universal_norm_95": measured.get("universal perturbation, norm that flips 95 %"),
            "limit_radius_median": measured.get("median smallest perturbation, trained network"),
        }
    )
    return numbers


def _noise_in_few_numbers(clusters: ClusterModel) -> Any:
    if isinstance(clusters.noise, LowRankNoise) or np.size(clusters.noise) > _MOST_NOISE:
        return clusters.noise_scale
    return clusters.noise


def _listed(clusters: IntArray) -> str:
    return ", ".join(str(q) for q in clusters)


def _sign(definition: str) -> str:
    return "<=" if definition == "nonstrict" else "<"
