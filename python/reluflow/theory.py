"""What the theorems bound or predict for a cluster model, with the standing of each statement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from reluflow._results import Result
from reluflow._robust_price import (
    MOST_CLUSTERS,
    RobustPrice,
    averaging_price,
    averaging_share,
    averaging_threshold,
    infinite_width_price,
)
from reluflow._validation import as_number, as_positive_int, one_of
from reluflow.data import AssumptionReport, ClusterModel

__all__ = [
    "FREI",
    "MOST_CLUSTERS",
    "Prediction",
    "RobustPrice",
    "averaging_price",
    "averaging_share",
    "averaging_threshold",
    "decoupled_radius",
    "explicit_radius",
    "infinite_width_price",
    "limiting_normalized_margin",
    "log10_error_scale",
    "log10_two_neuron_error",
    "predictions",
    "robust_radius",
    "universal_norm",
    "universal_norm_order",
]

FREI = "Frei, Vardi, Bartlett & Srebro 2023"
_IDEAL = "noise-free, exactly orthogonal means, balanced labels and no bias"


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
    """sqrt(d/k): length of the shift along sum_q y_q mu_q that flips noise-free clusters.

    Also the smallest perturbation of every mean for the two-neuron KKT network.
    """
    return math.sqrt(dim / n_clusters)


def decoupled_radius(dim: float, n_clusters: int) -> float:
    """sqrt(d/(1 + k/2)): the same for the KKT network that has one neuron a mean."""
    return math.sqrt(dim / (1 + n_clusters / 2))


def robust_radius(dim: float, *, definition: str = "nonstrict") -> float:
    """Smallest perturbation of a mean for the explicit robust network.

    sqrt(d)/2 to where its output is 0 (``"nonstrict"``), sqrt(d/2) to where it changes sign
    (``"strict"``).
    """
    return math.sqrt(dim) / 2 if definition == "nonstrict" else math.sqrt(dim / 2)


def explicit_radius(dim: float, n_clusters: int, bias: float) -> float:
    """Smallest perturbation of a mean for the network w_q = mu_q/d, b_q = -bias, v_q = y_q.

    At noise-free, orthogonal means and with N = 0 counting as flipped. With j of the h = k/2 means
    of the other label active beside the own one, the output falls to 0 at
    sqrt(d) (1 + (j - 1) bias)/sqrt(1 + j); the smallest of these counts (docs/theory.md, section
    6.3). bias = 1 - 1/sqrt(2) has the largest radius, sqrt(d/2).

    Raises
    ------
    ValueError
        If ``bias`` is not in [0, 1).
    """
    b0 = as_number("bias", bias, at_least=0)
    k = as_positive_int("n_clusters", n_clusters, minimum=2)
    if b0 >= 1:
        raise ValueError(f"bias must be below 1, where no neuron is active; got {b0:g}")
    active = range(k // 2 + 1)
    return math.sqrt(dim) * min((1 + (j - 1) * b0) / math.sqrt(1 + j) for j in active)


def log10_error_scale(dim: float) -> float:
    """log10 of d^(-ln(d)/2), the order of the test error that Theorem 3.1 allows."""
    return -(math.log(dim) / 2) * math.log10(dim)


def log10_two_neuron_error(dim: float, n_clusters: int, noise: float) -> float:
    """log10 of the test error of the two-neuron network w+- = sum_{+-} mu_q / d, v = +-1.

    With beta = sqrt(2d/k)/sigma the pre-activations at a fresh example of a positive cluster are
    in proportion to beta + g and h, g and h independent standard normals, and the output is
    relu(beta + g) - relu(h). It is not positive when h - g >= beta, or when g <= -beta whatever h:
    P = Phi(-beta/sqrt 2) + integral over t > 0 of phi(beta + t) Phi(-t), the second part being
    what h < beta + g adds.
    """
    # Imported here because it takes as long as the rest of the package.
    from scipy.integrate import quad

    if noise == 0:
        return -math.inf
    beta = math.sqrt(2 * dim / n_clusters) / noise
    # phi(beta + t) = phi(beta) exp(-beta t - t^2/2), and t = u/scale is of order 1/beta: what is
    # integrated is of order 1 whatever beta is.
    scale = max(beta, 1.0)

    def integrand(u: float) -> float:
        t = u / scale
        return math.exp(-beta * t - t * t / 2 + float(log_ndtr(-t)))

    rest, _ = quad(integrand, 0, math.inf)
    log_rest = -beta * beta / 2 - math.log(2 * math.pi) / 2 + math.log(rest / scale)
    return float(np.logaddexp(log_ndtr(-beta / math.sqrt(2)), log_rest)) / math.log(10)


def limiting_normalized_margin(dim: float, n_clusters: int, n: int, noise: float) -> float:
    """Normalised margin of the two-group KKT network as d grows, for orthogonal means.

    With n_c = n/k examples a cluster it is sqrt(d) / (4 sqrt((k/2) n_c / (n_c + sigma^2))).
    """
    per_cluster = n / n_clusters
    price = (n_clusters / 2) * per_cluster / (per_cluster + noise**2)
    return math.sqrt(dim) / (4 * math.sqrt(price))


def universal_norm_order(dim: float, n_clusters: int, balance: float) -> float:
    """sqrt(d/(c^2 k)), the order of ||z|| in Theorem 4.2, c being the smaller share of a label."""
    return math.sqrt(dim / n_clusters) / balance


def predictions(
    clusters: ClusterModel, n: int, *, definition: str = "nonstrict"
) -> tuple[Prediction, ...]:
    """Everything that theory says of ``clusters`` and a training set of ``n`` examples.

    Parameters
    ----------
    clusters : ClusterModel
        The d of the statements is its ``ambient_dim``.
    n : int
        Number of training examples.
    definition : {"nonstrict", "strict"}
        Whether N = 0 counts as flipped.

    Returns
    -------
    tuple of Prediction
        Errors are log10 of probabilities; lengths are in the units of the inputs. What
        Assumption 2.2 admits comes last: it has no value, nan, where nothing is admitted.
    """
    n = as_positive_int("n", n)
    one_of("definition", definition, ("nonstrict", "strict"))
    d, k = float(clusters.ambient_dim), clusters.n_clusters
    noise = as_number("noise", float(np.max(clusters.noise_scale)), at_least=0)
    report = clusters.assumption(n)
    return (
        *_of_errors(d, k, noise),
        *_of_lengths(d, k, report.label_balance, definition),
        _of_margin(d, k, n, noise),
        *_of_assumption(report),
    )


def _of_errors(d: float, k: int, noise: float) -> tuple[Prediction, ...]:
    return (
        Prediction(
            "log10 test error",
            log10_error_scale(d),
            "recalled",
            f"{FREI}, Theorem 3.1",
            "order of the bound d^(-ln(d)/2); it needs Assumption 2.2",
        ),
        Prediction(
            "log10 test error, two-neuron network",
            log10_two_neuron_error(d, k, noise),
            "derivation",
            "docs/theory.md, section 8",
            "two neurons, exactly orthogonal means, N = 0 counting as an error",
        ),
    )


def _of_lengths(d: float, k: int, balance: float, definition: str) -> tuple[Prediction, ...]:
    scale, robust = universal_norm(d, k), robust_radius(d, definition=definition)
    strict = definition == "strict"
    here = "docs/theory.md, section 6"
    return (
        Prediction(
            "universal perturbation, norm that flips 95 %",
            scale,
            "derivation",
            f"{here}; rate by {FREI}, Theorem 4.2",
            f"sqrt(d/k): {_IDEAL}",
        ),
        Prediction(
            "universal perturbation, order of the bound",
            universal_norm_order(d, k, balance),
            "theorem",
            f"{FREI}, Theorem 4.2",
            "sqrt(d/(c^2 k)), c the smaller share of a label; the bound is a constant times that",
        ),
        Prediction(
            "median smallest perturbation, trained network",
            scale,
            "derivation",
            here,
            f"sqrt(d/k): {_IDEAL}; one group of neurons a label",
        ),
        Prediction(
            "smallest perturbation, one neuron a cluster",
            decoupled_radius(d, k),
            "derivation",
            here,
            f"sqrt(d/(1 + k/2)): {_IDEAL}",
        ),
        Prediction(
            "median smallest perturbation, robust network",
            robust,
            "derivation",
            f"{here}; network by {FREI}, Theorem 4.1",
            f"{'sqrt(d/2)' if strict else 'sqrt(d)/2'} at noise-free, exactly orthogonal means, "
            f"N = 0 {'not ' * strict}counting as flipped",
        ),
        Prediction(
            "double-edge ratio, robust over trained",
            robust / scale,
            "derivation",
            here,
            f"{'sqrt(k/2)' if strict else 'sqrt(k)/2'}: {_IDEAL}",
        ),
    )


def _of_margin(d: float, k: int, n: int, noise: float) -> Prediction:
    return Prediction(
        "normalised margin",
        limiting_normalized_margin(d, k, n, noise),
        "derivation",
        "docs/theory.md, section 5",
        "d to infinity, orthogonal means, n/k examples in every cluster, one group a label",
    )


def _of_assumption(report: AssumptionReport) -> tuple[Prediction, ...]:
    dim = math.nan if report.smallest_dim is None else float(report.smallest_dim)
    clusters = math.nan if report.largest_n_clusters == 0 else float(report.largest_n_clusters)
    formula = report.separation
    separation = f"{formula.left_term} <= {formula.right_term}"
    rows = (
        ("training examples, at least", report.sample_size.right, report.sample_size.right_term),
        ("separation of clusters, at most", formula.right, separation),
        ("dimension, at least", dim, f"smallest d with {separation}"),
        ("clusters, at most", clusters, "largest k with both inequalities"),
        ("noise, at most", report.largest_noise, f"largest sigma with {separation}"),
    )
    return tuple(
        Prediction(f"assumption: {name}", value, "recalled", report.source, note)
        for name, value, note in rows
    )
