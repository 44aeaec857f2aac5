"""The numbers behind the figures, as tidy tables: one observation a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from reluflow.experiments import DoubleEdge


def trajectory_table(result: DoubleEdge) -> pd.DataFrame:
    """The flow, one recorded moment a row."""
    import pandas as pd

    trajectory = result.flow.trajectory
    return pd.DataFrame(
        {
            "log_inverse_loss": trajectory.log_inverse_loss,
            "rescaled_time": trajectory.rescaled_time,
            "evaluations": trajectory.evaluations.astype(np.int64),
            "norm": trajectory.norm,
            "normalized_margin": trajectory.normalized_margin,
        }
    )


def flips_table(result: DoubleEdge) -> pd.DataFrame:
    """Share of examples that the universal shift flips, one norm a row."""
    import pandas as pd

    curve, clusters = result.universal.curve, result.clusters
    scale = math.sqrt(clusters.ambient_dim / clusters.n_clusters)
    return pd.DataFrame(
        {
            "norm": curve.norm,
            "norm_over_sqrt_d_over_k": curve.norm / scale,
            "fraction": curve.fraction,
            "fraction_positive": curve.fraction_positive,
            "fraction_negative": curve.fraction_negative,
        }
    )


def radii_table(result: DoubleEdge) -> pd.DataFrame:
    """Smallest perturbations, one test example a row; `definition` says what counts as flipped."""
    import pandas as pd

    data = result.test_data
    columns: dict[str, object] = {
        "example": np.arange(data.n),
        "label": data.y.astype(np.int64),
        "cluster": data.cluster if data.cluster is not None else [None] * data.n,
        "definition": result.radii.definition,
    }
    for prefix, radii in (("", result.radii), ("robust_", result.robust_radii)):
        columns[f"{prefix}radius"] = radii.radius
        columns[f"{prefix}lower_bound"] = radii.lower_bound
        columns[f"{prefix}proved"] = radii.proved
        columns[f"{prefix}method"] = list(radii.method)
    return pd.DataFrame(columns)


def comparison_table(result: DoubleEdge) -> pd.DataFrame:
    """Theory beside measurement, one quantity a row."""
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in result.comparison])


def error_table(result: DoubleEdge) -> pd.DataFrame:
    """Test error, one cluster a row; log10 of probabilities and of their 95 % interval."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "cluster": q,
                "label": int(one.label),
                "log10_probability": one.log10_probability,
                "log10_lower": one.interval[0],
                "log10_upper": one.interval[1],
                "log10_first_order": one.first_order,
                "distance": one.distance,
                "design_points": one.design_points,
                "samples": one.samples,
                "errors": one.errors,
                "effective_samples": one.effective_samples,
            }
            for q, one in enumerate(result.error.per_cluster)
        ]
    )


TABLES: dict[str, Callable[[DoubleEdge], pd.DataFrame]] = {
    "comparison": comparison_table,
    "trajectory": trajectory_table,
    "flips": flips_table,
    "radii": radii_table,
    "test_error_per_cluster": error_table,
}
