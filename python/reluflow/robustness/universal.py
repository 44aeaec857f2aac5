"""One perturbation for all examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Result
from reluflow._threads import resolve_num_threads
from reluflow._validation import FloatArray, as_array, as_number, as_positive_int, one_of
from reluflow.data import ClusterModel, Dataset
from reluflow.network import TwoLayerNet, require_dim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFINITIONS = ("nonstrict", "strict")
DIRECTIONS = ("means",)


@dataclass(frozen=True, eq=False)
class FlipCurve(Result):
    """Flipped fraction against the norm of the perturbation: a step function, exact.

    Attributes
    ----------
    norm : ndarray, shape (n,)
        Norms at which an example flips, ascending; infinite where one never does.
    fraction, fraction_positive, fraction_negative : ndarray, shape (n,)
        Flipped fraction at that norm: of all examples, of the positive, of the negative ones.
    """

    norm: FloatArray
    fraction: FloatArray
    fraction_positive: FloatArray
    fraction_negative: FloatArray


@dataclass(frozen=True, eq=False)
class Universal(Result):
    """A perturbation z for all examples: x - y z flips.

    Attributes
    ----------
    direction : ndarray, shape (d,)
        Unit vector along z.
    norm : float
        ||z|| at which the asked-for fraction flips; infinite where it never does.
    eta : float
        Multiple of the direction as it was given, for "means" of sum_q y_q mu_q.
    flipped : float
        Fraction flipped at that norm.
    curve : FlipCurve
    norm_50, norm_95, norm_100 : float
        Norms that flip half, 95 % and all of the examples.
    scale : float
        sqrt(d/k), the norm for noise-free orthogonal means.
    definition : str
        ``"nonstrict"``: y N <= 0 counts as flipped; ``"strict"``: y N < 0.
    provenance : dict
        Version, backend, instruction set and number of threads.
    """

    direction: FloatArray
    norm: float
    eta: float
    flipped: float
    curve: FlipCurve
    norm_50: float
    norm_95: float
    norm_100: float
    scale: float
    definition: str
    provenance: dict[str, Any]

    def __str__(self) -> str:
        sign = "<=" if self.definition == "nonstrict" else "<"
        lines = [f"Universal perturbation, y N {sign} 0 counting as flipped"]
        for share, norm in ((50, self.norm_50), (95, self.norm_95), (100, self.norm_100)):
            text = f"{norm:.5g} = {norm / self.scale:.4f} sqrt(d/k)"
            lines.append(f"  {share:>3} % flip at     {text if math.isfinite(norm) else 'never'}")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Flipped fraction against the norm, sqrt(d/k) marked."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        shown = np.isfinite(self.curve.norm)
        ax.step(self.curve.norm[shown], self.curve.fraction[shown], where="post")
        ax.axvline(self.scale, linestyle="--", color="black", linewidth=1)
        ax.set(xlabel="||z||", ylabel="flipped fraction", ylim=(0, 1.02))
        return ax


def universal_perturbation(
    net: TwoLayerNet,
    clusters_or_data: ClusterModel | Dataset,
    *,
    direction: str | ArrayLike = "means",
    flip: float = 0.95,
    n: int = 1000,
    examples: Dataset | None = None,
    seed: Any = 0,
    definition: str = "nonstrict",
    backend: str = "native",
    num_threads: int | None = None,
) -> Universal:
    """The norm at which one shift, x - y z, flips a given fraction of the examples.

    For every example the crossing along the direction is found exactly, so that the curve of
    flipped fractions is exact too (Frei et al. 2023, Theorem 4.2, for z along sum_q y_q mu_q).

    Parameters
    ----------
    net : TwoLayerNet
    clusters_or_data : ClusterModel or Dataset
        Clusters, of which ``n`` fresh examples are drawn, or given examples.
    direction : {"means"} or array_like, shape (d,)
        "means" is sum_q y_q mu_q, the means of a Dataset being those of its clusters, or of its
        classes where it names none.
    flip : float
        Fraction to flip, in (0, 1].
    n : int
        Fresh examples drawn from a ClusterModel.
    examples : Dataset or None
        Examples to shift, instead of fresh ones or of the data set's own.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.
    definition : {"nonstrict", "strict"}
        Whether y N = 0 counts as flipped.
    backend : {"native", "numpy"}
    num_threads : int or None
        None means all cores that the process may use. The result does not depend on it.

    Raises
    ------
    ValueError
        If an argument is out of its range or dimensions differ.
    """
    one_of("definition", definition, DEFINITIONS)
    flip = as_number("flip", flip, above=0)
    if flip > 1:
        raise ValueError(f"flip must be at most 1; got {flip:g}")
    means = _means_of(clusters_or_data)
    n = as_positive_int("n", n)
    if examples is not None:
        data = examples
    elif isinstance(clusters_or_data, ClusterModel):
        data = clusters_or_data.sample(n, seed)
    else:
        data = clusters_or_data
    require_dim("clusters_or_data", data.dim, net)
    z = _direction(direction, means, net)
    length = float(np.linalg.norm(z))
    unit = z / length
    threads = resolve_num_threads(num_threads)
    norms = kernels(backend).ray_crossings(
        data.X @ net.W.T + net.b,
        net.W @ unit,
        -data.y,
        net.v,
        0.0,
        data.y,
        definition == "strict",
        threads,
    )
    curve = _curve(norms, data.y)
    norm = _norm_that_flips(curve, flip)
    return Universal(
        direction=unit,
        norm=norm,
        eta=norm / length,
        flipped=float((norms <= norm).mean()) if math.isfinite(norm) else float("nan"),
        curve=curve,
        norm_50=_norm_that_flips(curve, 0.5),
        norm_95=_norm_that_flips(curve, 0.95),
        norm_100=_norm_that_flips(curve, 1.0),
        scale=math.sqrt(means.ambient_dim / len(means.labels)),
        definition=definition,
        provenance=provenance(backend=backend, num_threads=threads),
    )


@dataclass(frozen=True, eq=False)
class _Means:
    """Cluster means (k, d) and their labels (k,), and the d that lengths are compared with."""

    means: FloatArray
    labels: FloatArray
    ambient_dim: int


def _means_of(source: ClusterModel | Dataset) -> _Means:
    if isinstance(source, ClusterModel):
        return _Means(source.means, source.labels, source.ambient_dim)
    if not isinstance(source, Dataset):
        raise TypeError(
            f"clusters_or_data must be a ClusterModel or a Dataset; got {type(source).__name__}"
        )
    group = source.y if source.cluster is None else source.cluster
    members = [group == value for value in np.unique(group)]
    means = np.stack([source.X[rows].mean(axis=0) for rows in members])
    labels = np.array([source.y[rows][0] for rows in members])
    return _Means(means, labels, source.dim)


def _direction(direction: str | ArrayLike, clusters: _Means, net: TwoLayerNet) -> FloatArray:
    if isinstance(direction, str):
        one_of("direction", direction, DIRECTIONS)
        z: FloatArray = clusters.labels @ clusters.means
    else:
        z = as_array("direction", direction, 1)
    if len(z) != net.dim:
        raise ValueError(f"direction has {len(z)} entries; the network takes {net.dim}")
    if not z.any():
        raise ValueError("direction must not be zero")
    return z


def _curve(norms: FloatArray, labels: FloatArray) -> FlipCurve:
    order = np.argsort(norms, kind="stable")
    positive = labels[order] > 0
    counts = np.arange(1, len(norms) + 1)
    return FlipCurve(
        norms[order],
        counts / len(norms),
        np.cumsum(positive) / max(1, int(positive.sum())),
        np.cumsum(~positive) / max(1, int((~positive).sum())),
    )


def _norm_that_flips(curve: FlipCurve, fraction: float) -> float:
    needed = math.ceil(fraction * len(curve.norm) - 1e-9)
    return float(curve.norm[needed - 1])
