"""Assumption 2.2 of Frei et al. 2023: when the theorems speak about a cluster model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from reluflow._results import Result
from reluflow._validation import FloatArray

SOURCE = "Frei et al. 2023, Assumption 2.2, constants as recalled"
# n >= k ln(d)^_LOG_POWER  and  k (max |<mu_i, mu_j>| + spread + 1) <= (d - spread + 1) / _SHARE
# with spread = _NOISE sigma sqrt(d) ln(d).
_LOG_POWER = 2
_NOISE = 4
_SHARE = 10
# Rounding that is forgiven in ||mu_q||^2 = d, relative.
_NORM_TOLERANCE = 1e-8
# Beyond this, rounding of d hides the other terms.
_LARGEST_DIM = 2**100
_SPREAD = f"{_NOISE} sigma sqrt(d) ln d"


@dataclass(frozen=True)
class Inequality(Result):
    """One inequality with the values of its sides.

    Attributes
    ----------
    name : str
    left_term, relation, right_term : str
        The inequality as a formula.
    left, right : float
        The values of its sides.
    holds : bool
    """

    name: str
    left_term: str
    relation: str
    right_term: str
    left: float
    right: float
    holds: bool

    def __str__(self) -> str:
        return f"{self.name}: {_number(self.left)} {self.relation} {_number(self.right)}"


@dataclass(frozen=True)
class AssumptionReport(Result):
    """Assumption 2.2 of Frei et al. 2023, term by term.

    Attributes
    ----------
    source : str
        Where the inequalities come from.
    n, n_clusters, dim : int
        Examples n, clusters k and dimension d that were judged.
    noise : float
        sigma: sqrt of the largest eigenvalue of any cluster's covariance.
    max_inner_product : float
        max |<mu_i, mu_j>| over i != j.
    noise_term : float
        4 sigma sqrt(d) ln d.
    label_balance : float
        c = min(|Q+|, |Q-|) / k; the theorems' constants depend on it, it has no bound of its own.
    mean_norms, sample_size, separation : Inequality
        ||mu_q||^2 = d up to rounding; n >= k ln(d)^2; and the inequality between clusters.
    holds : bool
        Whether all three do.
    smallest_n : int
        Smallest n of the sample size's inequality, the rest unchanged.
    smallest_dim : int or None
        Smallest d of the separation's inequality with the cosines between means, k and sigma
        unchanged; None where there is none.
    smallest_n_at_smallest_dim : int or None
        The examples that this dimension takes.
    largest_n_clusters : int
        Largest k for which both inequalities hold, the rest unchanged; 0 where there is none.
    largest_noise : float
        Largest sigma of the separation's inequality, the rest unchanged; nan where there is none.
    """

    source: str
    n: int
    n_clusters: int
    dim: int
    noise: float
    max_inner_product: float
    noise_term: float
    label_balance: float
    mean_norms: Inequality
    sample_size: Inequality
    separation: Inequality
    holds: bool
    smallest_n: int
    smallest_dim: int | None
    smallest_n_at_smallest_dim: int | None
    largest_n_clusters: int
    largest_noise: float

    @property
    def inequalities(self) -> tuple[Inequality, ...]:
        """The three that make up the assumption."""
        return self.sample_size, self.separation, self.mean_norms

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.source}: {'holds' if self.holds else 'does not hold'}",
                f"n = {self.n:,}, k = {self.n_clusters:,}, d = {self.dim:,}, "
                f"sigma = {_number(self.noise)}",
                "",
                *_aligned(self._terms(), "<><>>"),
                "",
                "With the rest unchanged",
                *_aligned(self._bounds(), "<<"),
            ]
        )

    def _terms(self) -> list[list[str]]:
        rows = [["term", "left", "", "right", "holds"]]
        for one in self.inequalities:
            term = f"{one.left_term} {one.relation} {one.right_term}"
            sides = [_number(one.left), one.relation, _number(one.right)]
            rows.append([term, *sides, "yes" if one.holds else "no"])
        return [
            *rows,
            ["  max |<mu_i,mu_j>|, i != j", _number(self.max_inner_product)],
            [f"  {_SPREAD}", _number(self.noise_term)],
            ["  label balance min(|Q+|, |Q-|) / k", _number(self.label_balance)],
        ]

    def _bounds(self) -> list[list[str]]:
        dim, clusters, noise = "no d", "no k", "no sigma"
        if self.smallest_dim is not None:
            dim = f"d >= {self.smallest_dim:,} (there the sample size needs "
            dim += f"n >= {self.smallest_n_at_smallest_dim:,})"
        if self.largest_n_clusters > 0:
            clusters = f"k <= {self.largest_n_clusters:,}"
        if not math.isnan(self.largest_noise):
            noise = f"sigma <= {_number(self.largest_noise)}"
        return [
            ["  sample size holds for", f"n >= {self.smallest_n:,}"],
            ["  separation holds for", dim],
            ["  separation holds for", noise],
            ["  both hold for", clusters],
        ]


@dataclass(frozen=True)
class _Setting:
    """What the inequalities depend on; ``cosine`` is max |<mu_i, mu_j>| / d."""

    n_clusters: int
    dim: int
    noise: float
    cosine: float

    @property
    def noise_term(self) -> float:
        return _NOISE * self.noise * math.sqrt(self.dim) * math.log(self.dim)

    @property
    def smallest_n(self) -> int:
        return math.ceil(self.n_clusters * math.log(self.dim) ** _LOG_POWER)

    @property
    def separation(self) -> tuple[float, float]:
        left = self.n_clusters * (self.cosine * self.dim + self.noise_term + 1)
        return left, (self.dim - self.noise_term + 1) / _SHARE

    @property
    def separated(self) -> bool:
        left, right = self.separation
        return left <= right


def check_assumption(
    n: int, labels: FloatArray, gram: FloatArray, dim: int, noise: float
) -> AssumptionReport:
    """The assumption for n examples of clusters with these inner products of their means.

    Parameters
    ----------
    n : int
    labels : ndarray, shape (k,)
    gram : ndarray, shape (k, k)
    dim : int
        d.
    noise : float
        sigma.
    """
    k = len(labels)
    inner = float(np.abs(gram - np.diag(gram.diagonal())).max())
    norm_error = float(np.abs(gram.diagonal() / dim - 1).max())
    now = _Setting(k, dim, noise, inner / dim)
    needed = k * math.log(dim) ** _LOG_POWER
    mean_norms = Inequality(
        "mean norms",
        "max | ||mu_q||^2/d - 1 |",
        "<=",
        f"{_NORM_TOLERANCE:g}",
        norm_error,
        _NORM_TOLERANCE,
        norm_error <= _NORM_TOLERANCE,
    )
    sample_size = Inequality(
        "sample size", "n", ">=", f"k ln(d)^{_LOG_POWER}", float(n), needed, n >= needed
    )
    separation = Inequality(
        "separation",
        f"k (max |<mu_i,mu_j>| + {_SPREAD} + 1)",
        "<=",
        f"(d - {_SPREAD} + 1)/{_SHARE}",
        *now.separation,
        now.separated,
    )
    smallest_dim = _smallest_dim(now)
    then = None if smallest_dim is None else replace(now, dim=smallest_dim).smallest_n
    return AssumptionReport(
        source=SOURCE,
        n=n,
        n_clusters=k,
        dim=dim,
        noise=noise,
        max_inner_product=inner,
        noise_term=now.noise_term,
        label_balance=float(min((labels > 0).sum(), (labels < 0).sum()) / k),
        mean_norms=mean_norms,
        sample_size=sample_size,
        separation=separation,
        holds=mean_norms.holds and sample_size.holds and separation.holds,
        smallest_n=now.smallest_n,
        smallest_dim=smallest_dim,
        smallest_n_at_smallest_dim=then,
        largest_n_clusters=_largest_n_clusters(now, n),
        largest_noise=_largest_noise(now),
    )


def _smallest_dim(now: _Setting) -> int | None:
    # Right minus left is convex in d >= 1, because sqrt(d) ln(d) is concave there, and negative at
    # d = 1: it changes sign once at most, and never if its leading coefficient is not positive.
    if _SHARE * now.n_clusters * now.cosine >= 1:
        return None
    fails, holds = 1, 2
    while not replace(now, dim=holds).separated:
        fails, holds = holds, 2 * holds
        if holds > _LARGEST_DIM:
            return None
    while holds - fails > 1:
        middle = (fails + holds) // 2
        if replace(now, dim=middle).separated:
            holds = middle
        else:
            fails = middle
    return holds


def _largest_n_clusters(now: _Setting, n: int) -> int:
    left, right = now.separation
    largest = right / (left / now.n_clusters)
    if now.dim > 1:
        largest = min(largest, n / math.log(now.dim) ** _LOG_POWER)
    return max(0, math.floor(largest))


def _largest_noise(now: _Setting) -> float:
    silent_left, silent_right = replace(now, noise=0.0).separation
    per_noise = replace(now, noise=1.0).noise_term * (now.n_clusters + 1 / _SHARE)
    if silent_left > silent_right:
        return math.nan
    bound = (silent_right - silent_left) / per_noise
    # The bound itself may fail by rounding.
    below = (bound * (1 - 2.0**-exponent) for exponent in range(52, -1, -1))
    return next(noise for noise in below if replace(now, noise=noise).separated)


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if 100 <= abs(value) < 1e15 else f"{value:.4g}"


def _aligned(rows: list[list[str]], alignment: str) -> list[str]:
    """Rows of text in columns, each flush left (<) or right (>)."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return [
        "  ".join(
            f"{cell:{side}{width}}"
            for cell, side, width in zip(row, alignment, widths, strict=False)
        ).rstrip()
        for row in rows
    ]
