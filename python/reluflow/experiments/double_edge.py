"""The double edge, end to end: one problem, every measurement, theory beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reluflow._provenance import provenance
from reluflow._results import Result, Status, plain
from reluflow._threads import resolve_num_threads
from reluflow._validation import as_positive_int, require_both_classes
from reluflow.data import AssumptionReport, ClusterModel, Dataset
from reluflow.flow import FlowResult, gradient_flow
from reluflow.generalization import ErrorEstimate, test_error
from reluflow.kkt import KKTCertificate, certify_kkt
from reluflow.network import TwoLayerNet
from reluflow.problem import Problem, draw
from reluflow.robustness import (
    Perturbations,
    Universal,
    min_perturbation,
    robust_network,
    universal_perturbation,
)
from reluflow.theory import Prediction, predictions, universal_norm

Announce = Callable[[str], None]

# Share of a given data set that is trained on when n is not said.
TRAINING_SHARE = 0.8

# log(1/L) to which the flow is followed when it is not said, for clusters and for data sets.
_TARGET = 1e4
_TARGET_OF_DATA = 100.0


@dataclass(frozen=True)
class Comparison(Result):
    """A measurement beside what theory says of it.

    ``ratio`` is measured over predicted; ``measured`` is None where a measurement only bounds the
    quantity, and ``note`` then says how.
    """

    quantity: str
    measured: float | None
    theory: float
    ratio: float | None
    kind: str
    source: str
    note: str


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
    certificate : KKTCertificate or None
        How near the trained network is to a KKT point; None where the flow ended before every
        example was classified.
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
        head = f"{'quantity':<46} {'measured':>11} {'theory':>11} {'ratio':>7}"
        lines = [head, "-" * len(head)]
        for row in self.comparison:
            measured = "bounded" if row.measured is None else f"{row.measured:.5g}"
            ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
            lines.append(f"{row.quantity:<46} {measured:>11} {row.theory:>11.5g} {ratio:>7}")
        lines.append(f"N {_sign(self.radii.definition)} 0 counts as flipped; {self.flow.status}")
        return "\n".join(lines)

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
        Target of the flow; 1e4 for a ClusterModel and 100 for a Dataset where it is None: real
        data are stiffer, and their flow takes many more gradients a decade.
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
        None means all cores that the process may use.
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
        log_inverse_loss = _TARGET_OF_DATA if isinstance(clusters_or_dataset, Dataset) else _TARGET
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
    say("KKT certificate")
    classified = bool((flow.margins > 0).all())
    certificate = certify_kkt(net, problem.data) if classified else None
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
    universal = universal_perturbation(
        net,
        problem.clusters,
        examples=test_data,
        definition=definition,
        num_threads=threads,
    )
    say("smallest perturbations")
    robust_net = robust_network(problem.clusters)
    radii, robust_radii = (
        min_perturbation(
            each,
            test_data.X,
            test_data.y,
            definition=definition,
            clusters=problem.clusters,
            num_threads=threads,
        )
        for each in (net, robust_net)
    )
    _require_uninterrupted(radii.status, robust_radii.status)
    settings = {
        "n": problem.data.n,
        "width": width,
        "init_scale": init_scale,
        "loss": loss,
        "log_inverse_loss": log_inverse_loss,
        "bias": bias,
        "test_points": test_data.n,
        "definition": definition,
        "max_samples": max_samples,
        "seed": seed,
    }
    seconds = time.perf_counter() - start
    measured = _measurements(flow, certificate, error, universal, radii, robust_radii)
    return DoubleEdge(
        name=name,
        settings=settings,
        clusters=problem.clusters,
        data=problem.data,
        initial=problem.net,
        flow=flow,
        certificate=certificate,
        assumption=(
            problem.clusters.assumption(problem.data.n)
            if isinstance(clusters_or_dataset, ClusterModel)
            else None
        ),
        error=error,
        universal=universal,
        test_data=test_data,
        radii=radii,
        robust_net=robust_net,
        robust_radii=robust_radii,
        comparison=tuple(
            _compare(prediction, measured, error)
            for prediction in predictions(problem.clusters, problem.data.n)
            if prediction.quantity in measured
        ),
        summary=_summary(problem, flow, measured, error, radii, settings, threads, seconds),
        seconds=seconds,
    )


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
    fits = clusters.dim >= clusters.coordinates.shape[1] + n + width
    return "reduced" if clusters.isotropic and fits else "ambient"


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
        "universal perturbation, norm that flips 100 %": universal.norm_100,
        "median smallest perturbation, trained network": trained,
        "median smallest perturbation, robust network": robust,
        "double-edge ratio, robust over trained": robust / trained if trained > 0 else math.inf,
        "normalised margin": flow.normalized_margin,
        "KKT stationarity": math.nan if certificate is None else certificate.stationarity,
    }


def _compare(
    prediction: Prediction, measured: dict[str, float], error: ErrorEstimate
) -> Comparison:
    value: float | None = measured[prediction.quantity]
    note = prediction.note
    if value is not None and not math.isfinite(value):
        value = None
        if prediction.quantity.startswith("log10 test error"):
            note = f"measured below 10^{error.interval[1]:.2f} (95 %); {note}"
    ratio = None if value is None or prediction.value == 0 else value / prediction.value
    return Comparison(
        prediction.quantity,
        value,
        prediction.value,
        ratio,
        prediction.kind,
        prediction.source,
        note,
    )


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
        "noise": clusters.noise if np.size(clusters.noise) <= 1000 else clusters.noise_scale,
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


def _sign(definition: str) -> str:
    return "<=" if definition == "nonstrict" else "<"
