"""The smallest perturbation that flips a point, with proof."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._targets import targets_for
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    as_array,
    as_labels,
    as_number,
    as_positive_int,
    one_of,
    require_memory,
)
from reluflow.data import ClusterModel, Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import HasDim, TwoLayerNet, require_dim
from reluflow.robustness._deep_search import search_deep
from reluflow.robustness._definition import is_strict
from reluflow.robustness._euclidean import Examples, Settings, merged_first, solve
from reluflow.robustness._least_distance import METRICS
from reluflow.robustness._upper_bounds import InNorm, of_deep_network
from reluflow.robustness.perturbations import Perturbations


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
    the ball, the best of many convex minorants, branch and bound. docs/theory.md, section 7.

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
        None means all cores that the process may use, which is also the most that are used.
        The result does not depend on it.
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
    if isinstance(net, DeepNet) and net.is_two_layer:
        net = net.to_two_layer()
    if isinstance(net, DeepNet):
        _require_plain(norm, definition, keep_certificates, merge_tol)
        targets, order = targets_for(points, labels, source)
        bounds = search_deep(net, points, labels, targets, order, max_seconds=seconds)
        return of_deep_network(net, bounds, points, labels, rtol, start)
    if norm != "l2":
        _require_euclidean(norm, keep_certificates, merge_tol)
        search = InNorm(norm, net, points, labels, definition, rtol, seconds, threads)
        return search.perturbations(kernel, source, start)
    targets, order = targets_for(points, labels, source)
    examples = Examples(points, labels, targets, order)
    settings = Settings(
        kernel, backend, definition, rtol, nodes, start + seconds, threads, keep_certificates
    )
    if merge_tol > 0:
        found = merged_first(net, examples, settings, merge_tol)
    else:
        found = solve(net, examples, settings)
    return replace(found, seconds=time.perf_counter() - start)


def _require_plain(norm: str, definition: str, keep_certificates: bool, merge_tol: float) -> None:
    """Refuses what only two-layer networks have."""
    if definition != "nonstrict":
        raise ValueError(
            f"definition={definition!r} is for two-layer networks; others are searched with "
            "'nonstrict'"
        )
    if norm != "l2":
        raise ValueError(f"norm={norm!r} is for two-layer networks; use 'l2'")
    if keep_certificates:
        raise ValueError("keep_certificates needs a two-layer network: others have no proofs")
    if merge_tol > 0:
        raise ValueError("merge_tol is for two-layer networks")


def _require_euclidean(norm: str, keep_certificates: bool, merge_tol: float) -> None:
    """Refuses what only the Euclidean norm has."""
    if keep_certificates:
        raise ValueError(f"keep_certificates needs norm='l2': nothing is proved in {norm}")
    if merge_tol > 0:
        raise ValueError(f"merge_tol needs norm='l2'; got norm={norm!r}")


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
