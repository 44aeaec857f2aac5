"""One perturbation for all examples."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._targets import cluster_means
from reluflow._threads import resolve_num_threads
from reluflow._validation import FloatArray, as_array, as_number, as_positive_int
from reluflow.data import ClusterModel, Dataset
from reluflow.deep_network import DeepNet
from reluflow.network import HasDim, TwoLayerNet, require_dim
from reluflow.robustness._common_shift import AT_THE_FLOOR
from reluflow.robustness._deep_shift import DeepShiftSearch
from reluflow.robustness._definition import DEFINITIONS, is_flipped, is_strict
from reluflow.robustness._rays import DeepRays, TwoLayerRays
from reluflow.robustness._shift_search import ShiftSearch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# A shift is checked at so many times itself.
_OVERSHOOT = 1 + 1e-9


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
    """A perturbation z for all examples: x - y z flips, or x + z where it is not signed.

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
    signed : bool
        Whether the shift is against each example's own label.
    means_norm : float
        ``norm`` along the weighted sum of means on the same examples, for comparison; nan for a
        direction that was given.
    floor : float
        Of ``"optimised"``: no z flips the fraction below this norm, because some example of every
        such part has a smallest perturbation that long. nan otherwise.
    held_out : float
        Of ``"optimised"``: fraction that z of norm ``norm`` flips of examples that it was not
        optimised for; nan where there are none.
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
    signed: bool
    means_norm: float
    floor: float
    held_out: float
    scale: float
    examples: int
    definition: str
    status: Status
    provenance: dict[str, Any]

    @property
    def proved(self) -> bool:
        """Whether no shift that flips the fraction is shorter: ``norm`` meets ``floor`` to 1e-6."""
        return math.isfinite(self.norm) and self.norm <= (1 + AT_THE_FLOOR) * self.floor

    @property
    def ratio(self) -> float:
        """norm / sqrt(d/k)."""
        return self.norm / self.scale

    def __str__(self) -> str:
        lines = [
            f"Universal perturbation, x {'- y' if self.signed else '+'} z, of "
            f"{self.examples:,} examples",
            f"  definition          {self.definition}: {DEFINITIONS[self.definition]}",
        ]
        for share, norm in ((50, self.norm_50), (95, self.norm_95), (100, self.norm_100)):
            lines.append(f"  {share:>3} % flip at       {self._in_units(norm)}")
        lines += [
            f"  {100 * self.flip:g} % of positive    {self._in_units(self.norm_positive)}",
            f"  {100 * self.flip:g} % of negative    {self._in_units(self.norm_negative)}",
        ]
        if not math.isnan(self.floor):
            best = ", the shortest there is" if self.proved else ""
            lines += [
                f"  optimised, {100 * self.flip:g} %    {self._in_units(self.norm)}{best}",
                f"  along the means     {self._in_units(self.means_norm)}",
                f"  no z is below       {self._in_units(self.floor)}",
                f"  held-out examples   {100 * self.held_out:.4g} % flip",
            ]
        return "\n".join([*lines, f"  {self.status}"])

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
    signed: bool = True,
    n: int = 1000,
    examples: Dataset | None = None,
    held_out: Dataset | None = None,
    max_seconds: float | None = None,
    seed: Any = 0,
    definition: str = "nonstrict",
    backend: str = "native",
    num_threads: int | None = None,
) -> Universal:
    """The norm at which one shift, x - y z, flips a given fraction of the examples.

    For every example the first crossing along the direction is found exactly, so that the curve of
    flipped fractions is exact too (Frei et al. 2023, Theorem 4.2, for z along sum_q y_q mu_q). With
    ``direction="optimised"`` the direction too is sought, by local search over which examples are
    flipped and which neurons are active there, with convex problems solved by cutting planes: its
    norm is an upper bound on the smallest, and `Universal.floor` a lower one (docs/theory.md,
    section 7.9). For deep networks the margins of the flipped examples are linearised where they
    cross zero, again and again, and the floor is by a Lipschitz constant (section 9).

    Parameters
    ----------
    net : TwoLayerNet or DeepNet
    clusters_or_data : ClusterModel or Dataset
        Clusters, of which ``n`` fresh examples are drawn, or given examples.
    direction : {"means", "optimised"} or array_like, shape (d,)
        "means" is sum_q y_q mu_q, the means of a Dataset being those of its clusters, or of its
        classes where it names none. "optimised" is the best that was found for ``flip``, never
        longer than "means".
    flip : float
        Fraction to flip, in (0, 1].
    signed : bool
        Whether every example is shifted against its own label, x - y z, or all alike, x + z.
    n : int
        Fresh examples drawn from a ClusterModel.
    examples : Dataset or None
        Examples to shift, instead of fresh ones or of the data set's own.
    held_out : Dataset or None
        Examples that an optimised direction is tried on afterwards; None means as many fresh ones
        where there are clusters.
    max_seconds : float or None
        Time for "optimised"; the best that was found by then is returned.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.
    definition : {"nonstrict", "strict"}
        Whether y N = 0 counts as flipped.
    backend : {"native", "numpy"}
    num_threads : int or None
        None means all cores that the process may use, which is also the most that are used.
        The result does not depend on it.

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
    optimised = isinstance(direction, str) and direction == "optimised"
    z = _direction("means" if optimised else direction, clusters_or_data, net)
    length = float(np.linalg.norm(z))
    unit = z / length
    if isinstance(net, DeepNet) and net.is_two_layer:
        net = net.to_two_layer()
    sign = -data.y if signed else np.ones(data.n)
    rays: TwoLayerRays | DeepRays
    if isinstance(net, DeepNet):
        _require_nothing_of_two_layers(strict)
        rays = DeepRays(net, data, sign)
    else:
        rays = TwoLayerRays.of(net, data, sign, strict, kernel, threads)
    norms = rays.crossings(unit)
    norm = _norm_that_flips(norms, flip)
    of_means = norm if isinstance(direction, str) else math.nan
    status = Status.CONVERGED if math.isfinite(norm) else Status.NOT_REACHED
    floor, tried = math.nan, math.nan
    flipped = float((np.isfinite(norms) & (norms <= norm)).mean())
    if optimised:
        needed, deadline = _examples_needed(data.n, flip), _deadline(max_seconds)
        search: ShiftSearch | DeepShiftSearch
        if isinstance(rays, TwoLayerRays):
            search = ShiftSearch(rays, clusters_or_data, needed, definition, deadline)
        else:
            search = DeepShiftSearch(rays, clusters_or_data, needed, deadline)
        found = search.run(unit, norm)
        status, floor = found.status, found.floor
        if found.z is not None:
            norm = length = float(np.linalg.norm(found.z))
            unit = found.z / length
            norms = rays.crossings(unit)
            flipped = _flipped_share(net, data, signed, found.z, definition)
        fresh = held_out if held_out is not None else _fresh(clusters_or_data, n, seed)
        if fresh is not None and math.isfinite(norm):
            require_dim("held_out", fresh.dim, net)
            tried = _flipped_share(net, fresh, signed, norm * unit, definition)
    return Universal(
        direction=unit,
        norm=norm,
        eta=norm / length,
        flip=flip,
        flipped=flipped,
        curve=_curve(norms, data.y),
        norm_50=_norm_that_flips(norms, 0.5),
        norm_95=_norm_that_flips(norms, 0.95),
        norm_100=_norm_that_flips(norms, 1.0),
        norm_positive=_norm_that_flips(norms[data.y > 0], flip),
        norm_negative=_norm_that_flips(norms[data.y < 0], flip),
        signed=signed,
        means_norm=of_means,
        floor=floor,
        held_out=tried,
        scale=_scale(clusters_or_data),
        examples=data.n,
        definition=definition,
        status=status,
        provenance=provenance(backend=backend, num_threads=threads),
    )


def _require_nothing_of_two_layers(strict: bool) -> None:
    if strict:
        raise ValueError(
            "definition='strict' is for two-layer networks; deep ones are shifted with 'nonstrict'"
        )


def _flipped_share(
    net: TwoLayerNet | DeepNet, data: Dataset, signed: bool, z: FloatArray, definition: str
) -> float:
    """Share of examples that the shift flips, evaluated in the network itself."""
    sign = -data.y if signed else np.ones(data.n)
    margins = data.y * net(data.X + _OVERSHOOT * np.outer(sign, z))
    return float(is_flipped(margins, definition).mean())


def _fresh(source: ClusterModel | Dataset, n: int, seed: Any) -> Dataset | None:
    """Examples from a stream of their own."""
    if not isinstance(source, ClusterModel):
        return None
    return source.sample(n, np.random.default_rng(seed).spawn(1)[0])


def _deadline(max_seconds: float | None) -> float:
    if max_seconds is None:
        return math.inf
    return time.perf_counter() + as_number("max_seconds", max_seconds, at_least=0)


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
        if direction != "means":
            raise ValueError(
                f"direction={direction!r} is unknown; use 'means', 'optimised' or give an array"
            )
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
    return float(np.sort(norms)[_examples_needed(len(norms), fraction) - 1])


def _examples_needed(count: int, fraction: float) -> int:
    # Rounding of the product must not ask for one example more.
    return max(1, math.ceil(fraction * count - 1e-9))
