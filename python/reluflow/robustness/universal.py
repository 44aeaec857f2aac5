"""One perturbation for all examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import FloatArray, as_array, as_number, as_positive_int
from reluflow.data import ClusterModel, Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import HasDim, TwoLayerNet, require_dim
from reluflow.robustness._deep_rays import first_crossings, piecewise_linear, restricted
from reluflow.robustness._definition import DEFINITIONS, is_strict
from reluflow.robustness._row_space import RowSpace
from reluflow.robustness._targets import cluster_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class FlipCurve(Result):
    """Flipped fraction against the norm of the perturbation: a step function, exact.

    Attributes
    ----------
    norm : ndarray, shape (n,)
        Norms at which an example first flips, ascending; 0 where it is misclassified, infinite
        where it never flips.
    fraction, fraction_positive, fraction_negative : ndarray, shape (n,)
        Fraction flipped up to that norm: of all examples, of the positive, of the negative ones.
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
        ||z|| over the length of the direction as it was given, for "means" of sum_q y_q mu_q.
    flip : float
        The fraction that was asked for.
    flipped : float
        Fraction flipped at ``norm``; where that is infinite, the largest that flips.
    curve : FlipCurve
    norm_50, norm_95, norm_100 : float
        Norms that flip half, 95 % and all of the examples.
    norm_positive, norm_negative : float
        Norms that flip the fraction ``flip`` of the positive and of the negative examples; nan
        where there are none.
    scale : float
        sqrt(d/k), the norm for noise-free orthogonal means.
    examples : int
        Number of examples n.
    definition : str
        ``"nonstrict"``: y N <= 0 counts as flipped; ``"strict"``: y N < 0.
    status : Status
    provenance : dict
        Version, backend, instruction set and number of threads.
    """

    direction: FloatArray
    norm: float
    eta: float
    flip: float
    flipped: float
    curve: FlipCurve
    norm_50: float
    norm_95: float
    norm_100: float
    norm_positive: float
    norm_negative: float
    scale: float
    examples: int
    definition: str
    status: Status
    provenance: dict[str, Any]

    @property
    def ratio(self) -> float:
        """norm / sqrt(d/k)."""
        return self.norm / self.scale

    def __str__(self) -> str:
        lines = [
            f"Universal perturbation, x - y z, of {self.examples:,} examples",
            f"  definition          {self.definition}: {DEFINITIONS[self.definition]}",
        ]
        for share, norm in ((50, self.norm_50), (95, self.norm_95), (100, self.norm_100)):
            lines.append(f"  {share:>3} % flip at       {self._in_units(norm)}")
        lines += [
            f"  {100 * self.flip:g} % of positive    {self._in_units(self.norm_positive)}",
            f"  {100 * self.flip:g} % of negative    {self._in_units(self.norm_negative)}",
            f"  {self.status}",
        ]
        return "\n".join(lines)

    def _in_units(self, norm: float) -> str:
        if not math.isfinite(norm):
            return "never"
        return f"{norm:.5g} = {norm / self.scale:.4f} sqrt(d/k)"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Flipped fraction against the norm, sqrt(d/k) marked."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        shown = np.isfinite(self.curve.norm)
        norm = np.concatenate([[0.0], self.curve.norm[shown]])
        ax.step(norm, np.concatenate([[0.0], self.curve.fraction[shown]]), where="post")
        ax.axvline(self.scale, linestyle="--", color="black", linewidth=1)
        ax.set(xlabel="||z||", ylabel="flipped fraction", ylim=(0, 1.02))
        return ax


def universal_perturbation(
    net: TwoLayerNet | DeepNet,
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

    For every example the first crossing along the direction is found exactly, so that the curve of
    flipped fractions is exact too (Frei et al. 2023, Theorem 4.2, for z along sum_q y_q mu_q).

    Parameters
    ----------
    net : TwoLayerNet or DeepNet
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
    TypeError
        If ``clusters_or_data`` is something else.
    """
    strict = is_strict(definition)
    flip = as_number("flip", flip, above=0)
    if flip > 1:
        raise ValueError(f"flip must be at most 1; got {flip:g}")
    kernel, threads = kernels(backend), resolve_num_threads(num_threads)
    n = as_positive_int("n", n)
    if examples is None:
        data = _examples(clusters_or_data, net, n, seed)
    else:
        data = _examples(examples, net, n, seed)
    z = _direction(direction, clusters_or_data, net)
    length = float(np.linalg.norm(z))
    unit = z / length
    if isinstance(net, DeepNet) and net.is_two_layer:
        net = net.to_two_layer()
    if isinstance(net, DeepNet):
        if strict:
            raise ValueError(
                "definition='strict' is for two-layer networks; deep ones are shifted with "
                "'nonstrict'"
            )
        norms = _deep_crossings(net, data, unit)
    else:
        space = RowSpace.of(net)
        norms = kernel.ray_crossings(
            space.preactivations(data.X),
            space.weights @ unit,
            -data.y,
            space.output,
            space.constant,
            data.y,
            strict,
            threads,
        )
    norm = _norm_that_flips(norms, flip)
    return Universal(
        direction=unit,
        norm=norm,
        eta=norm / length,
        flip=flip,
        flipped=float((np.isfinite(norms) & (norms <= norm)).mean()),
        curve=_curve(norms, data.y),
        norm_50=_norm_that_flips(norms, 0.5),
        norm_95=_norm_that_flips(norms, 0.95),
        norm_100=_norm_that_flips(norms, 1.0),
        norm_positive=_norm_that_flips(norms[data.y > 0], flip),
        norm_negative=_norm_that_flips(norms[data.y < 0], flip),
        scale=_scale(clusters_or_data),
        examples=data.n,
        definition=definition,
        status=Status.CONVERGED if math.isfinite(norm) else Status.NOT_REACHED,
        provenance=provenance(backend=backend, num_threads=threads),
    )


def _deep_crossings(net: DeepNet, data: Dataset, unit: FloatArray) -> FloatArray:
    # Along a polynomial network's rays a grid is searched, which needs an end.
    reach = np.inf if piecewise_linear(net) else 4 * float(np.linalg.norm(data.X, axis=1).max())
    longest = np.full(data.n, reach)
    inside, basis = restricted(net)
    shifts = -data.y[:, None] * (unit @ basis)
    return first_crossings(inside, data.X @ basis, shifts, data.y, longest=longest)


def _examples(source: ClusterModel | Dataset, net: HasDim, n: int, seed: Any) -> Dataset:
    if not isinstance(source, ClusterModel | Dataset):
        raise TypeError(
            f"clusters_or_data must be a ClusterModel or a Dataset; got {type(source).__name__}"
        )
    require_dim("clusters_or_data", source.dim, net)
    return source.sample(n, seed) if isinstance(source, ClusterModel) else source


def _direction(
    direction: str | ArrayLike, source: ClusterModel | Dataset, net: HasDim
) -> FloatArray:
    if isinstance(direction, str):
        if direction == "optimised":
            raise ValueError(
                "direction='optimised' is not available yet; use 'means' or give an array"
            )
        if direction != "means":
            raise ValueError(f"direction={direction!r} is unknown; use 'means' or give an array")
        means, labels = cluster_means(source)
        z: FloatArray = labels @ means
    else:
        z = as_array("direction", direction, 1)
    if len(z) != net.dim:
        raise ValueError(f"direction has {len(z)} entries; the network takes {net.dim}")
    if not z.any():
        raise ValueError("direction must not be zero")
    return z


def _scale(source: ClusterModel | Dataset) -> float:
    """sqrt(d/k), k being the number of classes where a data set names no clusters."""
    if isinstance(source, ClusterModel):
        return math.sqrt(source.ambient_dim / source.n_clusters)
    groups = source.y if source.cluster is None else source.cluster
    return math.sqrt(source.dim / len(np.unique(groups)))


def _curve(norms: FloatArray, labels: FloatArray) -> FlipCurve:
    order = np.argsort(norms, kind="stable")
    positive = labels[order] > 0
    # Examples that never flip stay where they are.
    flips = np.isfinite(norms[order])
    return FlipCurve(
        norms[order],
        np.cumsum(flips) / len(norms),
        np.cumsum(flips & positive) / max(1, int(positive.sum())),
        np.cumsum(flips & ~positive) / max(1, int((~positive).sum())),
    )


def _norm_that_flips(norms: FloatArray, fraction: float) -> float:
    if len(norms) == 0:
        return math.nan
    # Rounding of the product must not ask for one example more.
    needed = max(1, math.ceil(fraction * len(norms) - 1e-9))
    return float(np.sort(norms)[needed - 1])
