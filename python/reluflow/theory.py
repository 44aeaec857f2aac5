"""What the theorems bound or predict for a cluster model, with the standing of each statement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reluflow._results import Result
from reluflow.data import ClusterModel

FREI = "Frei, Vardi, Bartlett & Srebro 2023"


@dataclass(frozen=True)
class Prediction(Result):
    """One quantity that theory speaks of.

    Attributes
    ----------
    quantity : str
        Name, the same under which a measurement stands beside it.
    value : float
        Predicted value, in the units of the inputs where it is a length.
    kind : {"theorem", "recalled", "derivation"}
        A theorem with its constant, a theorem whose constant is recalled, or a derivation that
        docs/theory.md carries out.
    source : str
        Authors and theorem, or the section of docs/theory.md.
    note : str
        Under which idealisation the value is exact.
    """

    quantity: str
    value: float
    kind: str
    source: str
    note: str


def universal_norm(dim: float, n_clusters: int) -> float:
    """sqrt(d/k): length at which the shift along sum_q y_q mu_q flips noise-free clusters."""
    return math.sqrt(dim / n_clusters)


def robust_radius(dim: float) -> float:
    """sqrt(d)/2: distance at which the explicit robust network's output at a mean becomes 0."""
    return math.sqrt(dim) / 2


def log10_error_scale(dim: float) -> float:
    """log10 of d^(-ln(d)/2), the order of the test error that Theorem 3.1 allows."""
    return -(math.log(dim) / 2) * math.log10(dim)


def limiting_normalized_margin(dim: float, n_clusters: int, n: int, noise: float) -> float:
    """Normalised margin of the two-neuron KKT network as d grows, for orthogonal means.

    With n_c = n/k examples a cluster it is sqrt(d) / (4 sqrt((k/2) n_c / (n_c + sigma^2))).
    """
    per_cluster = n / n_clusters
    price = (n_clusters / 2) * per_cluster / (per_cluster + noise**2)
    return math.sqrt(dim) / (4 * math.sqrt(price))


def predictions(clusters: ClusterModel, n: int) -> tuple[Prediction, ...]:
    """Everything that theory says of `clusters` and a training set of ``n`` examples."""
    d, k = float(clusters.ambient_dim), clusters.n_clusters
    noise = float(np.max(clusters.noise_scale))
    scale, robust = universal_norm(d, k), robust_radius(d)
    ideal = "exact for noise-free, exactly orthogonal means, balanced labels and no bias"
    return (
        Prediction(
            "log10 test error",
            log10_error_scale(d),
            "recalled",
            f"{FREI}, Theorem 3.1",
            "order of the bound d^(-ln(d)/2); it needs Assumption 2.2",
        ),
        Prediction(
            "universal perturbation, norm that flips 95 %",
            scale,
            "derivation",
            f"docs/theory.md, section 6; rate by {FREI}, Theorem 4.2",
            f"sqrt(d/k): {ideal}",
        ),
        Prediction(
            "median smallest perturbation, trained network",
            scale,
            "derivation",
            "docs/theory.md, section 6",
            f"sqrt(d/k): {ideal}",
        ),
        Prediction(
            "median smallest perturbation, robust network",
            robust,
            "derivation",
            f"docs/theory.md, section 6; network by {FREI}, Theorem 4.1",
            "sqrt(d)/2, N = 0 counting as flipped; at noise-free, exactly orthogonal means",
        ),
        Prediction(
            "double-edge ratio, robust over trained",
            robust / scale,
            "derivation",
            "docs/theory.md, section 6",
            f"sqrt(k)/2: {ideal}",
        ),
        Prediction(
            "normalised margin",
            limiting_normalized_margin(d, k, n, noise),
            "derivation",
            "docs/theory.md, section 5",
            "d to infinity, orthogonal means, n/k examples in every cluster, two groups of neurons",
        ),
    )
