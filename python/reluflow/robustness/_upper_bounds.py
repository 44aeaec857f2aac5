"""Upper bounds where nothing is proved: deep networks, and norms other than the Euclidean one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from reluflow._provenance import provenance
from reluflow._targets import targets_for
from reluflow._validation import FloatArray
from reluflow.data import ClusterModel, Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import TwoLayerNet
from reluflow.robustness._deep_search import DeepBounds
from reluflow.robustness._definition import is_flipped, is_strict
from reluflow.robustness._other_norms import search_in_norm
from reluflow.robustness._row_space import RowSpace
from reluflow.robustness.perturbations import OVERSHOOT, Perturbations, status_of


def of_deep_network(
    net: DeepNet,
    bounds: DeepBounds,
    points: FloatArray,
    labels: FloatArray,
    rtol: float,
    start: float,
) -> Perturbations:
    """What a search of a deep network found, with the flips evaluated anew."""
    proved = bounds.lower_bound >= (1 - rtol) * bounds.radius
    found = np.isfinite(bounds.radius) & (bounds.radius > 0)
    moved = points[found] + (1 + OVERSHOOT) * bounds.perturbation[found]
    flips = labels[found] * net(moved) <= 0
    searched = np.where(proved, "Lipschitz", "local search")
    method = np.where(bounds.radius == 0, "misclassified", searched)
    status = status_of("none" if bounds.finished else "deadline", proved)
    return Perturbations(
        radius=bounds.radius,
        lower_bound=bounds.lower_bound,
        perturbation=bounds.perturbation,
        proved=proved,
        method=tuple(method.tolist()),
        nodes=np.zeros(len(points), dtype=np.int64),
        flips=float(flips.mean()) if len(flips) else 1.0,
        definition="nonstrict",
        rtol=rtol,
        status=status,
        provenance=provenance(backend="native", num_threads=1),
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True, eq=False)
class InNorm:
    """Perturbations in other norms than the Euclidean one, which are not proved."""

    norm: str
    net: TwoLayerNet
    points: FloatArray
    labels: FloatArray
    definition: str
    rtol: float
    seconds: float
    threads: int

    def perturbations(
        self, kernel: ModuleType, source: ClusterModel | Dataset | None, start: float
    ) -> Perturbations:
        """The shortest that a local search found, with the flips evaluated anew."""
        _require_own_coordinates(self.norm, source)
        bounds = search_in_norm(
            self.norm,
            RowSpace.of(self.net),
            self.points,
            self.labels,
            *targets_for(self.points, self.labels, source),
            is_strict(self.definition),
            start + self.seconds,
            kernel,
        )
        found = np.isfinite(bounds.radius) & (bounds.radius > 0)
        moved = self.points[found] + (1 + OVERSHOOT) * bounds.perturbation[found]
        margins = self.labels[found] * self.net(moved, num_threads=self.threads)
        flips = is_flipped(margins, self.definition)
        known = bounds.radius == 0
        return Perturbations(
            radius=bounds.radius,
            lower_bound=bounds.lower_bound,
            perturbation=bounds.perturbation,
            proved=known,
            method=tuple(np.where(known, "misclassified", "local search").tolist()),
            nodes=np.zeros(len(self.points), dtype=np.int64),
            flips=float(flips.mean()) if len(flips) else 1.0,
            definition=self.definition,
            rtol=self.rtol,
            status=status_of("none" if bounds.finished else "deadline", known),
            provenance=provenance(backend="native", num_threads=self.threads),
            seconds=time.perf_counter() - start,
            norm=self.norm,
        )


def _require_own_coordinates(norm: str, source: ClusterModel | Dataset | None) -> None:
    if isinstance(source, ClusterModel) and source.ambient_dim != source.dim:
        raise ValueError(
            f"norm={norm!r} depends on the axes, which reduced coordinates have lost; use "
            "coordinates='ambient'"
        )
