"""What a study can measure of a trained network. A new output is a function and an entry here.

What each takes is in `reluflow.experiments.cost_model`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from reluflow.experiments.registry import Record, Settings
from reluflow.experiments.trained import Trained
from reluflow.generalization import test_error
from reluflow.robustness import Perturbations


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


OUTPUTS: dict[str, Callable[[Trained], Record]] = {
    "flow": measure_flow,
    "limit": measure_limit,
    "certificate": measure_certificate,
    "universal": measure_universal,
    "radii": measure_radii,
    "robust": measure_robust,
    "error": measure_error,
}


def needs_flow(settings: Settings, outputs: Sequence[str]) -> bool:
    """Whether some of the outputs are measured on the flow."""
    of_network = set(outputs) - {"flow", "limit"}
    return "flow" in outputs or (settings["network"] == "flow" and bool(of_network))


def measured(trained: Trained, outputs: Sequence[str]) -> Record:
    """All outputs asked for, as one record."""
    return Record.joined(OUTPUTS[name](trained) for name in outputs)
