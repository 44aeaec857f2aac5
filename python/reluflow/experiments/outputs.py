"""What a study can measure of a trained network. A new output is a function and an entry here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow.experiments.registry import Record, Settings
from reluflow.experiments.trained import Trained
from reluflow.generalization import test_error
from reluflow.robustness import Perturbations


@dataclass(frozen=True)
class Size:
    """What the cost of a run depends on.

    Attributes
    ----------
    dim : int
        Number of coordinates.
    n, width, n_clusters : int
        Examples, neurons and clusters.
    settings : mapping
        All settings of the run.
    """

    dim: int
    n: int
    width: int
    n_clusters: int
    settings: Settings


@dataclass(frozen=True)
class Output:
    """One output: what measures it, and what that takes.

    Attributes
    ----------
    measure : callable
        From a `Trained` network to a `Record`.
    operations : callable
        From a `Size` to counts that its time is a combination of.
    coefficients : tuple of float
        Seconds on one core for each count, fitted by bench/sweep_cost.py.
    """

    measure: Callable[[Trained], Record]
    operations: Callable[[Size], tuple[float, ...]]
    coefficients: tuple[float, ...]

    def seconds(self, size: Size) -> float:
        """Seconds on one core, what it needs from other outputs aside."""
        counts = self.operations(size)
        return sum(c * count for c, count in zip(self.coefficients, counts, strict=True))


def measure_flow(trained: Trained) -> Record:
    """Where the flow ended."""
    flow = trained.flow
    trajectory = flow.trajectory
    scalars = {
        "flow_status": flow.status.value,
        "log_inverse_loss_reached": flow.log_inverse_loss,
        "normalized_margin": flow.normalized_margin,
        "evaluations": flow.evaluations,
        "train_error": float(np.mean(flow.margins <= 0)),
    }
    arrays = {
        "trajectory_log_inverse_loss": trajectory.log_inverse_loss,
        "trajectory_normalized_margin": trajectory.normalized_margin,
    }
    return Record(scalars, arrays)


def measure_limit(trained: Trained) -> Record:
    """The KKT point that the flow tends to, and how soon that was known."""
    found = trained.limit
    scalars = {
        "limit_status": found.status.value,
        "limit_normalized_margin": found.normalized_margin,
        "limit_stationarity": found.stationarity,
        "limit_feasibility": found.feasibility,
        "limit_complementarity": found.complementarity,
        "limit_groups": len(found.groups),
        "limit_frozen_at": found.frozen_at,
        "limit_angle_to_flow": found.angle_to_flow,
    }
    return Record(scalars)


def measure_certificate(trained: Trained) -> Record:
    """How far the network is from a KKT point; only one that classifies every example can be."""
    fields = ("stationarity", "feasibility", "complementarity", "clarke_violation")
    columns = (*fields, "kkt_normalized_margin", "margin_spread")
    margins = trained.net.margins(trained.data)
    if margins.min() <= 0:
        return Record({"kkt_status": "not_classified", **dict.fromkeys(columns)})
    found = trained.certificate
    return Record(
        {
            "kkt_status": found.status.value,
            **{name: getattr(found, name) for name in fields},
            "kkt_normalized_margin": found.normalized_margin,
            "margin_spread": float(margins.max() / margins.min()),
        }
    )


def measure_error(trained: Trained) -> Record:
    """The test error, with its interval."""
    found = test_error(
        trained.net,
        trained.population,
        seed=np.random.default_rng(trained.error_seed),
        max_samples=trained.settings["error_samples"],
        num_threads=1,
    )
    return Record(
        {
            "log10_error": found.log10_probability,
            "log10_error_low": found.interval[0],
            "log10_error_high": found.interval[1],
            "error_exponent": -found.log10_probability,
            "error": found.probability,
            "error_high": 10.0 ** found.interval[1],
            "error_samples_used": found.samples,
            "error_method": found.method,
            "error_status": found.status.value,
            "log10_error_first_order": found.first_order,
        }
    )


def measure_universal(trained: Trained) -> Record:
    """What one shift along the weighted sum of means flips."""
    found = trained.universal
    norms = {"50": found.norm_50, "95": found.norm_95, "100": found.norm_100}
    clusters = trained.clusters
    scale = math.sqrt(clusters.ambient_dim / clusters.n_clusters)
    scalars = {f"universal_norm_{share}": norm for share, norm in norms.items()}
    scalars |= {f"universal_ratio_{share}": norm / scale for share, norm in norms.items()}
    curve = found.curve
    return Record(scalars, {"flip_norm": curve.norm, "flip_fraction": curve.fraction})


def measure_radii(trained: Trained) -> Record:
    """Smallest perturbations of fresh examples."""
    return _radii(trained.radii, "radius")


def measure_robust(trained: Trained) -> Record:
    """The same for the explicit robust network, and how much larger they are."""
    record = _radii(trained.robust_radii, "robust_radius")
    robust = float(np.median(trained.robust_radii.radius))
    own = float(np.median(trained.radii.radius))
    ratio = robust / own if own > 0 else math.inf
    return Record({**record.scalars, "double_edge_ratio": ratio}, record.arrays)


def _radii(found: Perturbations, name: str) -> Record:
    scalars = {
        f"{name}_median": float(np.median(found.radius)),
        f"{name}_smallest": float(found.radius.min()),
        f"{name}_median_bound": float(np.median(found.lower_bound)),
        f"{name}_proved": float(np.mean(found.proved)),
    }
    return Record(scalars, {name: found.radius, f"{name}_bound": found.lower_bound})


def gradients(size: Size, log_inverse_loss: float | None = None) -> float:
    """Gradients that a flow takes: a start from a small network, then as many a decade."""
    settings = size.settings
    target = settings["log_inverse_loss"] if log_inverse_loss is None else log_inverse_loss
    decades = math.log10(1 + float(target))
    # Real examples do not fall into two groups of neurons, and take much longer.
    hardness = 1.0 if "dim" in settings else 8.0
    return min(hardness * (250.0 + 200.0 * decades), float(settings["max_evaluations"]))


def flow_operations(size: Size, log_inverse_loss: float | None = None) -> tuple[float, ...]:
    """Gradients, their multiplications in the cheaper form, and their activations."""
    gram = 2.0 * size.n * size.n * size.width
    primal = 4.0 * size.n * size.dim * size.width
    count = gradients(size, log_inverse_loss)
    return count, count * (gram if size.n < 2 * size.dim else primal), count * size.n * size.width


def limit_operations(size: Size) -> tuple[float, ...]:
    """A flow to log(1/L) = 1, and two predictions from its patterns."""
    return (*flow_operations(size, 1.0), *(2 * count for count in certificate_operations(size)))


def certificate_operations(size: Size) -> tuple[float, ...]:
    """A constant; pairs of examples, and of an example and a neuron; triples if groups are many."""
    pairs = float(size.n) ** 2
    scattered = size.settings["init_scale"] >= _LAZY or "dim" not in size.settings
    return 1.0, pairs, float(size.n) * size.width, pairs * size.width * scattered


def error_operations(size: Size) -> tuple[float, ...]:
    """For each cluster a constant, its lines and their products, and projections."""
    k, rank = float(size.n_clusters), min(size.width, size.dim)
    lines = min(_LINES, float(size.settings["error_samples"]) / k)
    return k, k * lines * size.width, k * lines * size.width * rank, k * float(rank) ** 3


# Lines and weighted examples that a cluster usually takes.
_LINES = 6000.0

# Scale of the initial network from which on neurons hardly turn.
_LAZY = 0.3


def universal_operations(size: Size) -> tuple[float, ...]:
    """A constant, and the draw and the hidden layer of the shifted examples."""
    return 1.0, 1000.0 * size.dim * size.width


def radii_operations(size: Size) -> tuple[float, ...]:
    """A constant, and for each example squares and cubes of the neurons."""
    rank = float(min(size.width, size.dim))
    points = float(size.settings["test_points"])
    return 1.0, points * rank**2, points * rank**3


def robust_operations(size: Size) -> tuple[float, ...]:
    """As many for the robust network, which has a neuron a cluster; and those of `radii`."""
    points, rank = float(size.settings["test_points"]), float(size.n_clusters)
    return 1.0, points * rank**2, points * rank**3


_FLOW = (5.5e-6, 2.7e-11, 3.6e-9)
_CERTIFICATE = (2e-2, 1e-6, 8e-7, 1e-6)
OUTPUTS: dict[str, Output] = {
    "flow": Output(measure_flow, flow_operations, _FLOW),
    "limit": Output(measure_limit, limit_operations, (*_FLOW, *_CERTIFICATE)),
    "certificate": Output(measure_certificate, certificate_operations, _CERTIFICATE),
    "universal": Output(measure_universal, universal_operations, (5e-3, 6e-10)),
    "radii": Output(measure_radii, radii_operations, (2e-3, 2e-8, 7e-11)),
    "robust": Output(measure_robust, robust_operations, (2e-3, 2e-8, 7e-11)),
    "error": Output(measure_error, error_operations, (1e-2, 2e-8, 3e-10, 1e-9)),
}


def measured(trained: Trained, outputs: Sequence[str]) -> Record:
    """All outputs asked for, as one record."""
    scalars: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name in outputs:
        record = OUTPUTS[name].measure(trained)
        scalars.update(record.scalars)
        arrays.update(record.arrays)
    return Record(scalars, arrays)


def seconds(size: Size, outputs: Sequence[str]) -> float:
    """Seconds of a run on one core; whatever is measured needs the network first."""
    needed = dict.fromkeys((size.settings["network"], *outputs, *["radii"] * ("robust" in outputs)))
    return 2e-3 + sum(OUTPUTS[name].seconds(size) for name in needed)
