"""Smallest perturbations, or bounds on them, as a result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow._results import Result, Status
from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.certificates import RadiusCertificates
from reluflow.robustness._definition import DEFINITIONS
from reluflow.robustness._merging import Merging

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A perturbation is checked at (1 + OVERSHOOT) times itself.
OVERSHOOT = 1e-9


@dataclass(frozen=True, eq=False)
class Perturbations(Result):
    """The smallest perturbation in Euclidean norm of every point, or bounds on it.

    Attributes
    ----------
    radius : ndarray, shape (n,)
        Norm of the shortest perturbation found: an upper bound, and where ``proved`` the exact
        value to ``rtol``. 0 where the point is misclassified, infinite where none was found.
    lower_bound : ndarray, shape (n,)
        No perturbation below this norm flips the point. Rounding errors of the computation are
        counted against it.
    perturbation : ndarray, shape (n, d)
        Perturbations delta of norm ``radius`` up to 1e-8 of it; (1 + 1e-9) delta flips. Zero where
        the radius is 0 or infinite.
    proved : ndarray of bool, shape (n,)
        Whether lower_bound >= (1 - rtol) radius, or the network never flips.
    method : tuple of str
        What closed the gap: ``"certificate"`` (the closed-form convex minorant),
        ``"Lipschitz"`` (how fast the output can fall), ``"relaxation"`` (one convex relaxation),
        ``"dual bound"`` (minorants with the best multipliers), ``"branching"``;
        ``"misclassified"``; ``"never flips"`` (the output has one sign everywhere); or
        ``"local search"`` where nothing did.
    nodes : ndarray of int, shape (n,)
        Nodes of branch and bound.
    flips : float
        Share of the points with finite radius above 0 for which N(x + (1 + 1e-9) delta), evaluated
        in the network itself, is flipped. Below 1 where N is 0 on a hyperplane and of one sign
        beside it, which rounding never hits.
    definition : str
        ``"nonstrict"``: y N <= 0 counts as flipped; ``"strict"``: y N < 0.
    rtol : float
    status : Status
        How the computation ended; prints as a sentence.
    provenance : dict
        Version, backend, instruction set and number of threads.
    seconds : float
        Wall time.
    norm : str
        In which radius and bounds are measured.
    certificates : RadiusCertificates or None
        With ``keep_certificates``: what proves the radii, to be saved and checked by
        `reluflow verify`.
    merging : Merging or None
        With ``merge_tol``: how parallel neurons were merged, and the error of that.
    """

    radius: FloatArray
    lower_bound: FloatArray
    perturbation: FloatArray
    proved: BoolArray
    method: tuple[str, ...]
    nodes: IntArray
    flips: float
    definition: str
    rtol: float
    status: Status
    provenance: dict[str, Any]
    seconds: float
    norm: str = "l2"
    certificates: RadiusCertificates | None = None
    merging: Merging | None = None

    @property
    def gap(self) -> FloatArray:
        """1 - lower_bound / radius, shape (n,); 0 where both are 0 or infinite."""
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = 1 - self.lower_bound / self.radius
        return np.where(self.lower_bound == self.radius, 0.0, gap)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the perturbations themselves and the certificates, JSON-ready."""
        plain = replace(self, certificates=None)
        fields = super(Perturbations, plain).to_dict()
        del fields["perturbation"], fields["certificates"]
        return fields

    def __str__(self) -> str:
        n = len(self.radius)
        lines = [
            f"Smallest perturbations of {n} points",
            f"  definition          {self.definition}: {DEFINITIONS[self.definition]}",
        ]
        if self.norm != "l2":
            lines.append(f"  norm                {self.norm}: radii are upper bounds")
        if n:
            low, middle, high = (_order_statistic(self.radius, share) for share in (0.0, 0.5, 1.0))
            methods = ", ".join(f"{name} {m}" for name, m in Counter(self.method).most_common())
            lines += [
                f"  radius              median {middle:.6g}, from {low:.6g} to {high:.6g}",
                f"  proved              {int(self.proved.sum())} of {n}, to {self.rtol:g}",
                f"  largest gap         {self.gap.max():.3g}",
                f"  method              {methods}",
                f"  flips               {self.flips:.6g} of the perturbations, evaluated anew",
            ]
        if self.merging is not None:
            lines.append(f"  merging             {self.merging}")
        return "\n".join([*lines, f"  seconds             {self.seconds:.3g}", f"  {self.status}"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Histogram of the finite radii, proved and not."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        finite = np.isfinite(self.radius)
        edges = np.histogram_bin_edges(self.radius[finite], bins="auto").tolist()
        for chosen, label in ((self.proved, "exact"), (~self.proved, "upper bound")):
            if (chosen & finite).any():
                ax.hist(self.radius[chosen & finite], bins=edges, label=label)
                ax.legend()
        ax.set(xlabel="smallest perturbation", ylabel="points")
        return ax


def status_of(stopped: str, proved: BoolArray) -> Status:
    """How a computation ended that the kernels say they stopped for ``stopped``."""
    if stopped == "interrupted":
        return Status.INTERRUPTED
    if stopped == "deadline":
        return Status.MAX_SECONDS
    return Status.CONVERGED if proved.all() else Status.NOT_PROVED


def _order_statistic(values: FloatArray, share: float) -> float:
    """A quantile without interpolation, so that infinities do no harm."""
    return float(np.quantile(values, share, method="inverted_cdf"))
