"""The smallest perturbation that flips a point, with proof."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    BoolArray,
    FloatArray,
    IntArray,
    as_array,
    as_labels,
    as_number,
    as_positive_int,
    one_of,
    require_memory,
)
from reluflow.certificates import RadiusCertificates
from reluflow.data import ClusterModel, Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import HasDim, TwoLayerNet, require_dim
from reluflow.robustness._certified import certificates_of
from reluflow.robustness._deep_search import DeepBounds, search_deep
from reluflow.robustness._definition import DEFINITIONS, is_flipped, is_strict
from reluflow.robustness._least_distance import METRICS
from reluflow.robustness._merging import Merging, merged_network
from reluflow.robustness._other_norms import search_in_norm
from reluflow.robustness._row_space import RowSpace
from reluflow.robustness._targets import targets_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# How the kernels' proofs read in a result.
_METHODS = {
    "none": "local search",
    "already_flipped": "misclassified",
    "neuronwise": "Lipschitz",
    "certificate": "certificate",
    "relaxation": "relaxation",
    "dual": "dual bound",
    "branching": "branching",
    "never_flips": "never flips",
}

# A perturbation is checked at (1 + _OVERSHOOT) times itself.
_OVERSHOOT = 1e-9
# Shifts of the pre-activations, relative to their terms, for a point whose check fails.
# How much longer than its radius a perturbation may be.
_LENGTH = 1 + 1e-8
_NUDGES = tuple(10.0**exponent for exponent in range(-14, -8))
_ROWS_AT_ONCE = 512
# The share of rtol that proofs use up; the rest is for the roundings of whoever checks them.
_USED = 0.99


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
        ``"dual bound"`` (minorants with lowered curvatures), ``"branching"``;
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


def min_perturbation(
    net: TwoLayerNet | DeepNet,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    norm: str = "l2",
    definition: str = "nonstrict",
    rtol: float = 1e-6,
    max_seconds: float | None = None,
    max_nodes: int = 100,
    num_threads: int | None = None,
    clusters: ClusterModel | Dataset | None = None,
    keep_certificates: bool = False,
    merge_tol: float = 0.0,
    backend: str = "native",
) -> Perturbations:
    """The smallest perturbation, in Euclidean norm, that flips each point, with proof.

    The flipped set is a union of convex sets, one for each subset of the neurons that oppose the
    point. Local search from many starts moves from one to the next by exact projections; then
    lower bounds are tried in order of cost: Lipschitz constants, a convex minorant in closed form
    whose convexity a Cholesky factorisation proves, a convex relaxation on the cap that is left of
    the ball, minorants with lowered curvatures, branch and bound. docs/theory.md, section 7.

    A `DeepNet` that is a two-layer ReLU network (`DeepNet.to_two_layer`) is treated as one. Of any
    other the radius is an upper bound, from a search that turns rays towards the boundary's
    normal, and the lower bound is the margin over the product of the layers' spectral norms, 0 for
    polynomial activations (docs/theory.md, section 9).

    Parameters
    ----------
    net : TwoLayerNet or DeepNet
    X : array_like, shape (n, d)
        Points, one a row.
    y : array_like, shape (n,), optional
        Labels -1 and +1; by default the sign of N(x), +1 where that is 0. A point that is
        misclassified has radius 0.
    norm : {"l2", "linf", "l1"}
        In which perturbations are measured. Only Euclidean ones are proved: with ``"linf"`` and
        ``"l1"`` the radius is an upper bound, from the same local search with linear programs as
        projections, in the coordinates of ``X``, and the lower bound is y N(x) over a Lipschitz
        constant.
    definition : {"nonstrict", "strict"}
        Whether y N(x + delta) <= 0 or < 0 counts as flipped. They differ where the network is 0 on
        a whole region. With "strict" the radius is the infimum.
    rtol : float
        Relative gap below which a radius counts as proved, in (0, 1).
    max_seconds : float or None
        Time for search and proof. Every point has valid bounds whenever it ends.
    max_nodes : int
        Nodes of branch and bound a point; 0 for none.
    num_threads : int or None
        None means all cores that the process may use. The result does not depend on it.
    clusters : ClusterModel or Dataset, optional
        Where searches also start: towards means of clusters of the opposite label, one by one, in
        pairs and together. Without it the points of ``X`` with the opposite label serve.
    keep_certificates : bool
        Whether to keep what proves the radii: ``result.certificates.save(path)`` writes a file
        that stands alone and that `reluflow verify` checks.
    merge_tol : float
        Above 0, neurons of one sign whose directions are this close are first replaced by one; the
        bound on the error of that is counted against the lower bounds, and points that the merged
        network does not decide to ``rtol`` are solved without merging. Small initialisations leave
        few directions. Below 1; not together with ``keep_certificates``.
    backend : {"native", "numpy"}
        Compiled kernels, or the NumPy reference.

    Raises
    ------
    ValueError
        If shapes or dimensions disagree, an entry is not finite, or an argument is out of range.
    TypeError
        If ``clusters`` is something else.
    MemoryError
        If the perturbations would not fit.
    """
    start = time.perf_counter()
    points = as_array("X", X, 2)
    require_dim("X", points.shape[1], net)
    labels = None if y is None else as_labels("y", y, len(points))
    is_strict(definition)
    one_of("norm", norm, METRICS)
    merge_tol = as_number("merge_tol", merge_tol, at_least=0)
    if merge_tol >= 1:
        raise ValueError(f"merge_tol must be below 1; got {merge_tol:g}")
    if merge_tol > 0 and keep_certificates:
        raise ValueError("merge_tol and keep_certificates cannot be combined; leave one out")
    rtol = as_number("rtol", rtol, above=0)
    if rtol >= 1:
        raise ValueError(f"rtol must be below 1; got {rtol:g}")
    seconds = math.inf if max_seconds is None else as_number("max_seconds", max_seconds, at_least=0)
    nodes = as_positive_int("max_nodes", max_nodes, minimum=0)
    source = _as_source(clusters, net)
    kernel, threads = kernels(backend), resolve_num_threads(num_threads)
    require_memory(f"perturbations of {len(points)} x {net.dim}", 16.0 * points.size)
    if labels is None:
        labels = np.where(net(points, num_threads=threads) >= 0, 1.0, -1.0)
    if isinstance(net, DeepNet):
        if not net.is_two_layer:
            targets, order = targets_for(points, labels, source)
            _require_nonstrict(definition)
            if norm != "l2":
                raise ValueError(f"norm={norm!r} is for two-layer networks; use 'l2'")
            if keep_certificates:
                raise ValueError(
                    "keep_certificates needs a two-layer network: others have no proofs"
                )
            if merge_tol > 0:
                raise ValueError("merge_tol is for two-layer networks")
            bounds = search_deep(net, points, labels, targets, order, max_seconds=seconds)
            return _of_deep_network(net, bounds, points, labels, rtol, start)
        net = net.to_two_layer()
    if norm != "l2":
        if keep_certificates:
            raise ValueError(f"keep_certificates needs norm='l2': nothing is proved in {norm}")
        if merge_tol > 0:
            raise ValueError(f"merge_tol needs norm='l2'; got norm={norm!r}")
        bounds_of = _Bounded(norm, net, points, labels, definition, rtol, seconds, threads)
        return bounds_of.perturbations(kernel, source, start)
    targets, order = targets_for(points, labels, source)
    examples = _Examples(points, labels, targets, order)
    settings = _Settings(
        kernel, backend, definition, rtol, nodes, start + seconds, threads, keep_certificates
    )
    if merge_tol > 0:
        found = _merged_first(net, examples, settings, merge_tol)
    else:
        found = _solve(net, examples, settings)
    return replace(found, seconds=time.perf_counter() - start)


class _Settings(NamedTuple):
    kernel: ModuleType
    backend: str
    definition: str
    rtol: float
    max_nodes: int
    deadline: float
    threads: int
    keep_certificates: bool


class _Examples(NamedTuple):
    """Points, labels, and the targets of each."""

    points: FloatArray
    labels: FloatArray
    targets: FloatArray
    order: IntArray

    def chosen(self, rows: BoolArray) -> _Examples:
        return self._replace(
            points=self.points[rows], labels=self.labels[rows], order=self.order[rows]
        )


def _solve(
    net: TwoLayerNet, examples: _Examples, settings: _Settings, slack: FloatArray | float = 0.0
) -> Perturbations:
    """Perturbations of a network whose outputs count as known up to ``slack``."""
    points, labels, targets, order = examples
    kernel, _, definition, rtol, nodes, deadline, threads, keep = settings
    space = RowSpace.of(net)
    preactivations = space.preactivations(points)
    outcome = kernel.min_perturbations(
        space.rows,
        space.output,
        space.constant,
        space.lipschitz,
        preactivations,
        labels,
        space.rounding(points) + slack,
        space.preactivations(targets),
        order,
        is_strict(definition),
        _USED * rtol,
        nodes,
        max(0.0, deadline - time.perf_counter()),
        threads,
        keep,
    )
    check = _Check(net, space, points, labels, definition, threads)
    perturbation, flipped = check.perturbations(kernel, preactivations, outcome)
    moved = np.isfinite(outcome.radius) & (outcome.radius > 0)
    proved = np.array([proof.name != "none" for proof in outcome.proofs], dtype=np.bool_)
    return Perturbations(
        radius=outcome.radius,
        lower_bound=outcome.lower_bound,
        perturbation=perturbation,
        proved=proved,
        method=tuple(_METHODS[proof.name] for proof in outcome.proofs),
        nodes=outcome.nodes,
        flips=float(flipped[moved].mean()) if moved.any() else 1.0,
        definition=definition,
        rtol=rtol,
        status=_status(outcome.stopped.name, proved),
        provenance=provenance(backend=settings.backend, num_threads=threads),
        seconds=0.0,
        certificates=certificates_of(
            net, space, points, labels, definition, rtol, outcome, perturbation, flipped
        )
        if keep
        else None,
    )


def _merged_first(
    net: TwoLayerNet, examples: _Examples, settings: _Settings, tolerance: float
) -> Perturbations:
    """What the merged network decides in spite of its error is decided; the rest is solved."""
    merged, error = merged_network(net, tolerance)
    if merged.width == net.width:
        return replace(_solve(net, examples, settings), merging=Merging(tolerance, net.width, 0, 0))
    points, labels = examples.points, examples.labels
    rough = _solve(merged, examples, settings)
    radius = _crossings(net, examples, rough.perturbation, settings)
    # No perturbation below the radius meets outputs that differ by more than this.
    slack = error * (np.sqrt((points**2).sum(axis=1) + 1) + radius)
    tried = np.isfinite(slack) & (radius > 0)
    lower = np.zeros(len(points))
    found = _solve(merged, examples.chosen(tried), settings, slack[tried])
    lower[tried] = np.minimum(found.lower_bound, radius[tried])
    length = np.linalg.norm(rough.perturbation, axis=1)
    scale = np.divide(radius, length, out=np.zeros_like(length), where=tried)
    perturbation = rough.perturbation * scale[:, None]
    moved = points + (1 + _OVERSHOOT) * perturbation
    decided = tried & (lower >= (1 - settings.rtol) * radius)
    for at, flipped in ((points, False), (moved, True)):
        margins = labels * net(at, num_threads=settings.threads)
        decided &= is_flipped(margins, settings.definition) == flipped
    rest = _solve(net, examples.chosen(~decided), settings)
    method = np.empty(len(points), dtype=object)
    method[tried], method[~decided] = found.method, rest.method
    nodes = rough.nodes.copy()
    nodes[tried] += found.nodes
    nodes[~decided] += rest.nodes
    proved = decided.copy()
    proved[~decided], perturbation[~decided] = rest.proved, rest.perturbation
    radius[~decided], lower[~decided] = rest.radius, rest.lower_bound
    own = int((np.isfinite(rest.radius) & (rest.radius > 0)).sum())
    done = int(decided.sum())
    return replace(
        rest,
        radius=radius,
        lower_bound=lower,
        perturbation=perturbation,
        proved=proved,
        method=tuple(method.tolist()),
        nodes=nodes,
        flips=(done + own * rest.flips) / (done + own) if done + own else 1.0,
        merging=Merging(tolerance, merged.width, error, done),
    )


def _crossings(
    net: TwoLayerNet, examples: _Examples, directions: FloatArray, settings: _Settings
) -> FloatArray:
    """Where the network itself flips along these directions, shape (n,)."""
    lengths = np.linalg.norm(directions, axis=1)
    radius = np.full(len(lengths), np.inf)
    ones = np.ones(1)
    for i in np.flatnonzero(lengths > 0):
        direction = directions[i] / lengths[i]
        radius[i] = settings.kernel.ray_crossings(
            (net.W @ examples.points[i] + net.b)[None],
            net.W @ direction,
            ones,
            net.v,
            0.0,
            examples.labels[i : i + 1],
            is_strict(settings.definition),
            1,
        )[0]
    return radius


def _require_nonstrict(definition: str) -> None:
    if definition != "nonstrict":
        raise ValueError(
            f"definition={definition!r} is for two-layer networks; others are searched with "
            "'nonstrict'"
        )


def _of_deep_network(
    net: DeepNet,
    bounds: DeepBounds,
    points: FloatArray,
    labels: FloatArray,
    rtol: float,
    start: float,
) -> Perturbations:
    proved = bounds.lower_bound >= (1 - rtol) * bounds.radius
    found = np.isfinite(bounds.radius) & (bounds.radius > 0)
    moved = points[found] + (1 + _OVERSHOOT) * bounds.perturbation[found]
    flips = labels[found] * net(moved) <= 0
    searched = np.where(proved, "Lipschitz", "local search")
    method = np.where(bounds.radius == 0, "misclassified", searched)
    status = _status("none" if bounds.finished else "deadline", proved)
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


def _as_source(
    clusters: ClusterModel | Dataset | None, net: HasDim
) -> ClusterModel | Dataset | None:
    if clusters is None:
        return None
    if not isinstance(clusters, ClusterModel | Dataset):
        raise TypeError(
            f"clusters must be a ClusterModel or a Dataset; got {type(clusters).__name__}"
        )
    require_dim("clusters", clusters.dim, net)
    return clusters


def _status(stopped: str, proved: BoolArray) -> Status:
    if stopped == "interrupted":
        return Status.INTERRUPTED
    if stopped == "deadline":
        return Status.MAX_SECONDS
    return Status.CONVERGED if proved.all() else Status.NOT_PROVED


def _order_statistic(values: FloatArray, share: float) -> float:
    """A quantile without interpolation, so that infinities do no harm."""
    return float(np.quantile(values, share, method="inverted_cdf"))


@dataclass(frozen=True, eq=False)
class _Bounded:
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
        moved = self.points[found] + (1 + _OVERSHOOT) * bounds.perturbation[found]
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
            status=_status("none" if bounds.finished else "deadline", known),
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


class _Check:
    """Maps perturbations back to d coordinates and evaluates them in the network itself."""

    def __init__(
        self,
        net: TwoLayerNet,
        space: RowSpace,
        points: FloatArray,
        labels: FloatArray,
        definition: str,
        threads: int,
    ) -> None:
        self.net, self.space, self.points, self.labels = net, space, points, labels
        self.definition, self.threads = definition, threads

    def perturbations(
        self, kernel: ModuleType, preactivations: FloatArray, outcome: Any
    ) -> tuple[FloatArray, BoolArray]:
        """Perturbations (n, d), and which of them flip."""
        found = np.isfinite(outcome.radius) & (outcome.radius > 0)
        perturbation = self.space.perturbations(outcome.coefficients)
        perturbation[~found] = 0.0
        stubborn = np.flatnonzero(found)
        stubborn = stubborn[~self._flip(stubborn, perturbation[stubborn])]
        for nudge in _NUDGES:
            if len(stubborn) == 0:
                break
            nudged = self._nudged(kernel, preactivations, outcome, stubborn, nudge)
            short = np.linalg.norm(nudged, axis=1) <= _LENGTH * outcome.radius[stubborn]
            helped = short & self._flip(stubborn, nudged)
            perturbation[stubborn[helped]] = nudged[helped]
            stubborn = stubborn[~helped]
        flipped = np.isfinite(outcome.radius)
        flipped[stubborn] = False
        return perturbation, flipped

    def _nudged(
        self,
        kernel: ModuleType,
        preactivations: FloatArray,
        outcome: Any,
        rows: IntArray,
        nudge: float,
    ) -> FloatArray:
        """Nearest points of the same convex pieces with every pre-activation shifted against the
        flip: a little further inside, where rounding can do no harm.
        """
        space, labels = self.space, self.labels[rows]
        norms = np.linalg.norm(space.weights, axis=1)
        reach = np.linalg.norm(self.points[rows], axis=1) + outcome.radius[rows]
        shift = nudge * (np.outer(reach, norms) + np.abs(space.bias))
        shifted = preactivations[rows] + np.sign(np.outer(labels, space.output)) * shift
        projections = kernel.subset_projections(
            space.rows,
            space.output,
            space.constant,
            np.ascontiguousarray(shifted),
            labels,
            np.ascontiguousarray(outcome.subsets[rows]),
            self.threads,
        )
        return space.perturbations(projections.coefficients) / (1 + _OVERSHOOT)

    def _flip(self, rows: IntArray, perturbation: FloatArray) -> BoolArray:
        flipped = np.zeros(len(rows), dtype=np.bool_)
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(begin, begin + _ROWS_AT_ONCE)
            moved = self.points[rows[part]] + (1 + _OVERSHOOT) * perturbation[part]
            margins = self.labels[rows[part]] * self.net(moved, num_threads=self.threads)
            flipped[part] = is_flipped(margins, self.definition)
        return flipped
