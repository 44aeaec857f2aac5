"""Theory beside measurement, one quantity a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reluflow._results import Result
from reluflow.data import ClusterModel
from reluflow.generalization import ErrorEstimate
from reluflow.theory import Prediction


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


# Largest cosine between means, and relative deviation of their squared norm from d, that still
# count as those of orthogonal means.
_ORTHOGONAL = 0.05


def about_orthogonal(clusters: ClusterModel) -> bool:
    """Whether the means are about orthogonal and of norm sqrt(d), as theory takes them to be."""
    gram = clusters.gram / clusters.ambient_dim
    return float(np.abs(gram - np.eye(len(gram))).max()) <= _ORTHOGONAL


def compare(
    theory: Sequence[Prediction],
    measured: Mapping[str, float],
    error: ErrorEstimate,
    of: str = "",
) -> tuple[Comparison, ...]:
    """Predictions that something was measured for, in their order.

    Parameters
    ----------
    theory : sequence of Prediction
    measured : mapping of str to float
        By the names of the predictions.
    error : ErrorEstimate
        What bounds a test error of which nothing was seen.
    of : str
        What was measured, where it is not the network at the end of the flow.
    """
    return tuple(
        _compare(prediction, measured[prediction.quantity], error, of)
        for prediction in theory
        if prediction.quantity in measured
    )


def _compare(prediction: Prediction, measured: float, error: ErrorEstimate, of: str) -> Comparison:
    value = measured if math.isfinite(measured) else None
    note = prediction.note
    if value is None and prediction.quantity.startswith("log10 test error"):
        note = f"measured below 10^{error.interval[1]:.2f} (95 %); {note}"
    usable = value is not None and math.isfinite(prediction.value) and prediction.value != 0
    return Comparison(
        quantity=f"{prediction.quantity}, {of}" if of else prediction.quantity,
        measured=value,
        theory=prediction.value,
        ratio=value / prediction.value if value is not None and usable else None,
        kind=prediction.kind,
        source=prediction.source,
        note=note,
    )
