"""Attacks of other packages beside exact radii."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._results import Result, Status
from reluflow._validation import BoolArray, FloatArray, as_array, as_labels
from reluflow.data import ClusterModel, Dataset
from reluflow.network import TwoLayerNet, require_dim
from reluflow.robustness._attack_adapters import Attack, adapter, names
from reluflow.robustness.minimal import min_perturbation
from reluflow.robustness.perturbations import Perturbations

if TYPE_CHECKING:
    import pandas as pd

# An attack's perturbation counts as shorter than the radius below this share of it.
_SHORTER = 1 - 1e-9
_DEFAULT = ("foolbox DDN", "foolbox DDN tuned", "foolbox DeepFool")


@dataclass(frozen=True)
class AttackRow(Result):
    """What one attack found.

    Attributes
    ----------
    name : str
    mean_ratio, median_ratio, largest_ratio : float
        Length of its perturbations over the radius, where they strictly flip; nan where none does.
    strictly_flipped : float
        Share of the points for which y N < 0 at what it returned, evaluated in float64.
    shorter : float
        Share of the points that it strictly flips within less than the radius: 0 if those are
        right.
    seconds : float
        Wall time, all points.
    """

    name: str
    mean_ratio: float
    median_ratio: float
    largest_ratio: float
    strictly_flipped: float
    shorter: float
    seconds: float


@dataclass(frozen=True, eq=False)
class AttackComparison(Result):
    """Attacks beside exact radii, on the points that are classified rightly.

    Attributes
    ----------
    rows : tuple of AttackRow
    radii : Perturbations
        Of all points.
    points : int
        How many are classified rightly, with a finite radius.
    status : Status
        That of the radii.
    """

    rows: tuple[AttackRow, ...]
    radii: Perturbations
    points: int
    status: Status

    @property
    def table(self) -> pd.DataFrame:
        """One row an attack, reluflow's radii first."""
        import pandas as pd

        exact = {
            "name": "reluflow",
            "mean_ratio": 1.0,
            "median_ratio": 1.0,
            "largest_ratio": 1.0,
            "strictly_flipped": self.radii.flips,
            "shorter": 0.0,
            "seconds": self.radii.seconds,
        }
        return pd.DataFrame([exact, *(vars(row) for row in self.rows)]).set_index("name")

    def __str__(self) -> str:
        proved, n = int(self.radii.proved.sum()), len(self.radii.radius)
        return "\n".join(
            [
                f"Attacks on {self.points} points; {proved} of {n} radii proved",
                self.table.to_string(float_format=lambda value: f"{value:.6g}"),
            ]
        )


def compare_attacks(
    net: TwoLayerNet,
    X: ArrayLike,
    y: ArrayLike,
    attacks: Sequence[str] | Mapping[str, Attack] = _DEFAULT,
    *,
    clusters: ClusterModel | Dataset | None = None,
    num_threads: int | None = None,
    **settings: Any,
) -> AttackComparison:
    """Minimal-norm attacks of other packages beside exact radii, on the same points.

    Needs the packages of the attacks that are named: ``pip install "reluflow[attacks]"``.

    Parameters
    ----------
    net : TwoLayerNet
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
        Labels -1 and +1.
    attacks : sequence of str, or mapping
        Of ``"foolbox DDN"``, ``"foolbox DDN tuned"``, ``"foolbox DeepFool"``,
        ``"art DeepFool"`` and ``"torchattacks DeepFool"``; or names and functions
        (net, X, y) -> attacked X.
    clusters, num_threads, **settings
        As for `min_perturbation`.

    Raises
    ------
    ValueError
        If an attack is unknown, or returns an array of another shape.
    ImportError
        If a package is not installed; says which.
    """
    points = as_array("X", X, 2)
    require_dim("X", points.shape[1], net)
    labels = as_labels("y", y, len(points))
    radii = min_perturbation(
        net, points, labels, clusters=clusters, num_threads=num_threads, **settings
    )
    counted = np.isfinite(radii.radius) & (radii.radius > 0)
    typical = float(np.median(radii.radius[counted])) if counted.any() else 1.0
    chosen: dict[str, Callable[..., FloatArray]] = (
        dict(attacks)
        if isinstance(attacks, Mapping)
        else {name: adapter(name, typical) for name in _as_names(attacks)}
    )
    rows = tuple(
        _measured(name, attack, net, points[counted], labels[counted], radii.radius[counted])
        for name, attack in chosen.items()
    )
    return AttackComparison(rows, radii, int(counted.sum()), radii.status)


def _as_names(attacks: Sequence[str]) -> Sequence[str]:
    if isinstance(attacks, str):
        raise TypeError(f"attacks must be a list of names, of {', '.join(names())}; got a string")
    return attacks


def _measured(
    name: str,
    attack: Attack,
    net: TwoLayerNet,
    points: FloatArray,
    labels: FloatArray,
    radius: FloatArray,
) -> AttackRow:
    if not len(points):
        return AttackRow(name, np.nan, np.nan, np.nan, np.nan, 0.0, 0.0)
    start = time.perf_counter()
    attacked = np.asarray(attack(net, points, labels), dtype=np.float64)
    seconds = time.perf_counter() - start
    if attacked.shape != points.shape:
        raise ValueError(f"{name} returned shape {attacked.shape} for points of {points.shape}")
    usable = np.asarray(np.isfinite(attacked).all(axis=1))
    attacked = np.where(usable[:, None], attacked, points)
    flipped: BoolArray = np.asarray(usable & (labels * net(attacked) < 0))
    ratio = np.linalg.norm(attacked - points, axis=1)[flipped] / radius[flipped]
    found = len(ratio) > 0
    return AttackRow(
        name,
        float(ratio.mean()) if found else np.nan,
        float(np.median(ratio)) if found else np.nan,
        float(ratio.max()) if found else np.nan,
        float(flipped.mean()),
        float((ratio < _SHORTER).sum() / len(points)),
        seconds,
    )
