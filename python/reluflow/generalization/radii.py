"""Smallest perturbations of the whole population: their distribution, and its lower tail."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reluflow._dispatch import kernels
from reluflow._progress import counting_progress
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._targets import MOST_MEANS
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    FloatArray,
    IntArray,
    as_number,
    as_positive_int,
    one_of,
    require_memory,
)
from reluflow.data import ClusterModel
from reluflow.generalization import _log_estimate as log_estimate
from reluflow.generalization._design_points import DesignPoints, design_points
from reluflow.generalization._hidden import HiddenLayer
from reluflow.generalization._importance import Mixture, Sampler
from reluflow.generalization._log_estimate import (
    FEW,
    LOG_10,
    Interval,
    LogEstimate,
    binomial_interval,
    interval,
)
from reluflow.generalization._settings import RADII, Settings, Stream, deadline_of, stream_key
from reluflow.generalization.error import as_clusters
from reluflow.generalization.estimates import DEFINITIONS, as_text
from reluflow.network import TwoLayerNet
from reluflow.problem import Problem
from reluflow.robustness import Perturbations
from reluflow.robustness._row_space import RowSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TAIL = (1 - log_estimate.CONFIDENCE) / 2
_RTOL = 1e-4
_NODES = 20
_FIRST_ROUND = 256
# Points whose radii are computed between two looks at the clock.
_ROWS_AT_ONCE = 256
# A design point this near to the mean, in standard deviations, is reached by plain draws.
_NEAR = 1.0
_SEARCH_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class RadiusDistribution(Result):
    """Smallest perturbations of a sample of the population, and what they say about it.

    Attributes
    ----------
    radius : ndarray, shape (n,)
        Smallest perturbation found of each example, ascending; 0 where it is misclassified.
    lower_bound : ndarray, shape (n,)
        Proved lower bounds, ascending: entry i is below at most i radii.
    definition : str
        ``"nonstrict"``: y N <= 0 counts as flipped; ``"strict"``: y N < 0.
    status : Status
        How the computation ended; prints as a sentence.
    """

    radius: FloatArray
    lower_bound: FloatArray
    definition: str
    status: Status

    @classmethod
    def of(cls, perturbations: Perturbations) -> RadiusDistribution:
        """What the radii of fresh examples say about their population."""
        return cls(
            np.sort(perturbations.radius),
            np.sort(perturbations.lower_bound),
            perturbations.definition,
            perturbations.status,
        )

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.radius)

    def quantile(self, level: float) -> float:
        """The radius that a share ``level`` of the sample does not exceed."""
        return float(np.quantile(self.radius, as_level(level), method="inverted_cdf"))

    def quantile_interval(self, level: float) -> Interval:
        """95 % interval of the quantile of the population.

        Order statistics whose ranks the binomial law leaves 2.5 % below and above: no assumption
        is made on the law of the radii. The lower end is taken of the proved lower bounds. An end
        that the sample is too small for is 0 or infinite.
        """
        # Imported here because it takes as long as the rest of the package.
        from scipy.stats import binom

        level = as_level(level)
        low = int(binom.ppf(_TAIL, self.n, level)) - 1
        high = int(binom.ppf(1 - _TAIL, self.n, level))
        lower = float(self.lower_bound[low]) if low >= 0 else 0.0
        return lower, float(self.radius[high]) if high < self.n else math.inf

    def accuracy(self, radius: ArrayLike) -> FloatArray:
        """Robust accuracy: share of the sample that no perturbation of at most ``radius`` flips."""
        return 1 - np.searchsorted(self.radius, radius, side="right") / max(1, self.n)

    def accuracy_interval(self, radius: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """95 % intervals of the population's robust accuracy at each radius.

        Those of Clopper & Pearson (1934); an example that is only bounded counts as flipped for
        the lower end and as not flipped for the upper one.
        """
        r = np.atleast_1d(np.asarray(radius, dtype=np.float64))
        surely = np.searchsorted(self.radius, r, side="right")
        perhaps = np.searchsorted(self.lower_bound, r, side="right")
        lower = [1 - binomial_interval(int(count), self.n)[1] for count in perhaps]
        upper = [1 - binomial_interval(int(count), self.n)[0] for count in surely]
        return np.array(lower), np.array(upper)

    def __str__(self) -> str:
        lines = [f"Smallest perturbations of the population, from {self.n} fresh examples"]
        for level in (0.05, 0.5, 0.95):
            low, high = self.quantile_interval(level)
            lines.append(
                f"  {level:>4.0%} quantile       {self.quantile(level):.6g} "
                f"(95 %: {low:.6g} to {high:.6g})"
            )
        lines.append(f"  definition          {self.definition}: {DEFINITIONS[self.definition]}")
        return "\n".join([*lines, f"  {self.status}"])

    def plot(self, ax: Axes | None = None, **line: Any) -> Axes:
        """Robust accuracy against the length of the perturbation, with its 95 % band."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        finite = self.radius[np.isfinite(self.radius)]
        last = 1.1 * float(finite.max()) if len(finite) and finite.max() > 0 else 1.0
        grid = np.linspace(0, last, 400)
        lower, upper = self.accuracy_interval(grid)
        (drawn,) = ax.plot(grid, self.accuracy(grid), drawstyle="steps-post", **line)
        ax.fill_between(grid, lower, upper, color=drawn.get_color(), alpha=0.2, linewidth=0)
        ax.set(xlabel="length of the perturbation", ylabel="robust accuracy")
        return ax


@dataclass(frozen=True)
class RobustError(Result):
    """Probability that a perturbation of at most ``radius`` flips a fresh example.

    Attributes
    ----------
    radius : float
        In the units of the inputs.
    log10_probability : float
        log10 of the probability.
    interval : tuple of float
        95 % interval of it. Examples whose radius could only be bounded count as not flipped for
        the lower end and as flipped for the upper one.
    per_cluster : tuple of float
        log10 of the probability, cluster by cluster.
    undecided : int
        Examples that were only bounded.
    samples : int
        Fresh examples drawn, weighted where they are rare.
    effective_samples : float
        (sum of weights)^2 / (sum of their squares); infinite where nothing is left to chance.
    definition : str
    status : Status
    provenance : dict
    seconds : float
    """

    radius: float
    log10_probability: float
    interval: Interval
    per_cluster: tuple[float, ...]
    undecided: int
    samples: int
    effective_samples: float
    definition: str
    status: Status
    provenance: dict[str, Any]
    seconds: float

    def __str__(self) -> str:
        return "\n".join(
            [
                f"Robust error at radius {self.radius:.6g}: "
                f"{as_text(self.log10_probability, self.interval)}",
                f"  evidence            {self.samples:,} examples, worth "
                f"{self.effective_samples:,.0f} of equal weight; {self.undecided} undecided",
                f"  definition          {self.definition}: {DEFINITIONS[self.definition]}",
                f"  seconds             {self.seconds:.3g}",
                f"  {self.status}",
            ]
        )


def radius_distribution(
    net: TwoLayerNet,
    clusters: ClusterModel | Problem,
    n: int = 1000,
    *,
    definition: str = "nonstrict",
    seed: Any = 0,
    max_seconds: float | None = None,
    num_threads: int | None = None,
    backend: str = "native",
) -> RadiusDistribution:
    """Smallest perturbations of ``n`` fresh examples: quantiles and robust accuracy with intervals.

    Parameters
    ----------
    net : TwoLayerNet
    clusters : ClusterModel or Problem
        Where fresh examples come from; they are drawn as the hidden layer sees them.
    n : int
        Fresh examples.
    definition : {"nonstrict", "strict"}
        Whether y N = 0 counts as flipped.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.
    max_seconds : float or None
        Wall time allowed; the bounds are valid whenever it ends.
    num_threads : int or None
        None means all cores that the process may use, which is also the most that are used.
        The result does not depend on it.
    backend : {"native", "numpy"}
        Compiled kernels, or the NumPy reference.

    Returns
    -------
    RadiusDistribution

    Raises
    ------
    ValueError
        If an argument is out of its range, or the dimensions differ.
    TypeError
        If ``net`` or ``clusters`` is something else.
    """
    model = _checked(net, clusters, definition)
    n = as_positive_int("n", n)
    settings = _settings(definition, seed, max_seconds, num_threads, backend)
    solver = _Radii(net, HiddenLayer.of(net, model), settings)
    require_memory(f"pre-activations of {n} examples", 16.0 * n * net.width)
    rng = np.random.default_rng(settings.key)
    cluster = rng.integers(model.n_clusters, size=n)
    radius, lower_bound = np.empty(n), np.empty(n)
    stopped: list[str] = []
    for q in np.unique(cluster):
        mine = np.flatnonzero(cluster == q)
        normals = rng.standard_normal((len(mine), solver.rank(int(q))))
        radius[mine], lower_bound[mine], reason = solver.of(int(q), normals)
        stopped.append(reason)
    return RadiusDistribution(
        np.sort(radius), np.sort(lower_bound), definition, _status(stopped, radius, lower_bound)
    )


def robust_error(
    net: TwoLayerNet,
    clusters: ClusterModel | Problem,
    radius: float,
    *,
    definition: str = "nonstrict",
    rel_error: float = 0.1,
    seed: Any = 0,
    max_seconds: float | None = None,
    max_samples: int = 20_000,
    num_threads: int | None = None,
    backend: str = "native",
    progress: bool = False,
) -> RobustError:
    """Probability that a perturbation of norm at most ``radius`` flips a fresh example.

    Whether one does is decided example by example by the search and the proofs of
    `min_perturbation`. Where it is rare, examples are drawn by importance sampling around the
    design points, moved towards the mean by what the perturbation gains along their normals
    (docs/theory.md, section 8.6).

    Parameters
    ----------
    net, clusters, definition, seed, num_threads, backend
        As for `radius_distribution`.
    radius : float
        Length of the perturbation, at least 0.
    rel_error : float
        Half the width of the interval over the probability, at which sampling ends.
    max_seconds : float or None
        Wall time allowed.
    max_samples : int
        Fresh examples allowed.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    RobustError

    Raises
    ------
    ValueError
        If an argument is out of its range, or the dimensions differ.
    TypeError
        If ``net`` or ``clusters`` is something else.
    """
    start = time.perf_counter()
    model = _checked(net, clusters, definition)
    radius = as_number("radius", radius, at_least=0)
    if math.isinf(radius):
        raise ValueError("radius must be finite; got inf")
    settings = _settings(
        definition,
        seed,
        max_seconds,
        num_threads,
        backend,
        as_number("rel_error", rel_error, above=0),
        as_positive_int("max_samples", max_samples),
    )
    hidden = HiddenLayer.of(net, model)
    solver = _Radii(net, hidden, settings)
    found: list[_Tail] = []
    interrupted = False
    try:
        with counting_progress(progress, "test error", hidden.n_clusters, "clusters") as observer:
            for q in range(hidden.n_clusters):
                found.append(_tail(solver, q, radius, settings))
                observer(len(found))
    except KeyboardInterrupt:
        interrupted = True
        found += [_NOTHING] * (hidden.n_clusters - len(found))
    least, most = (
        log_estimate.mean(each) for each in zip(*(one.ends for one in found), strict=True)
    )
    return RobustError(
        radius=radius,
        log10_probability=least.log_value / LOG_10,
        interval=(interval(least)[0], interval(most)[1]),
        per_cluster=tuple(one.least.log_value / LOG_10 for one in found),
        undecided=sum(one.undecided for one in found),
        samples=least.draws,
        effective_samples=least.effective,
        definition=definition,
        status=_tail_status(least, settings, interrupted),
        provenance=provenance(backend=backend, num_threads=settings.num_threads),
        seconds=time.perf_counter() - start,
    )


def as_level(level: float) -> float:
    """A quantile's level, in (0, 1)."""
    level = as_number("level", level, above=0)
    if level >= 1:
        raise ValueError(f"level must be below 1; got {level:g}")
    return level


class _Radii:
    """Smallest perturbations of fresh examples, given as standard normals."""

    def __init__(self, net: TwoLayerNet, hidden: HiddenLayer, settings: Settings) -> None:
        self.hidden, self.settings = hidden, settings
        self.space = RowSpace.of(net)
        self.live = net.W.any(axis=1) & (net.v != 0)
        self.targets = np.ascontiguousarray(hidden.offsets[:, self.live])

    def rank(self, q: int) -> int:
        """Normals that an example of cluster q takes."""
        return int(self.hidden.factor(q).shape[1])

    def of(self, q: int, g: FloatArray) -> tuple[FloatArray, FloatArray, str]:
        """Radii and proved lower bounds at the rows of g, and why the search stopped."""
        settings, space = self.settings, self.space
        preactivations = self.targets[q] + g @ self.hidden.factor(q)[self.live].T
        outcome = settings.kernel.min_perturbations(
            space.rows,
            space.output,
            space.constant,
            space.lipschitz,
            np.ascontiguousarray(preactivations),
            np.full(len(g), self.hidden.labels[q]),
            np.zeros(len(g)),
            self.targets,
            np.tile(self._order(q), (len(g), 1)),
            settings.strict,
            _RTOL,
            _NODES,
            settings.seconds_left(),
            settings.num_threads,
            False,
        )
        return outcome.radius, outcome.lower_bound, outcome.stopped.name

    def gain(self, q: int, design: DesignPoints) -> FloatArray:
        """By how many standard deviations a perturbation of length 1 moves each design point."""
        multipliers = np.zeros((len(design.points), len(self.live)))
        multipliers[:, self.hidden.moving(q)] = design.multipliers
        reach = np.linalg.norm(multipliers[:, self.live] @ self.space.rows, axis=1)
        return np.asarray(reach / np.linalg.norm(multipliers @ self.hidden.factor(q), axis=1))

    def _order(self, q: int) -> IntArray:
        """Clusters of the other label, the nearest first."""
        others = np.flatnonzero(self.hidden.labels != self.hidden.labels[q])
        distances = ((self.targets[others] - self.targets[q]) ** 2).sum(axis=1)
        return np.asarray(others[np.argsort(distances, kind="stable")][:MOST_MEANS], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Tail:
    """log P(radius <= r) in one cluster: of what is flipped, and of what may be."""

    least: LogEstimate
    most: LogEstimate
    undecided: int = 0

    @property
    def ends(self) -> tuple[LogEstimate, LogEstimate]:
        return self.least, self.most


_NOTHING = _Tail(log_estimate.unknown(), log_estimate.unknown())


def _tail(solver: _Radii, q: int, radius: float, settings: Settings) -> _Tail:
    if solver.rank(q) == 0:
        radii, bounds, _ = solver.of(q, np.zeros((1, 0)))
        least, most = (
            log_estimate.exact(0.0 if value <= radius else -math.inf)
            for value in (float(radii[0]), float(bounds[0]))
        )
        return _Tail(least, most, int(radii[0] > radius >= bounds[0]))
    region = solver.hidden.region(q, strict=settings.strict)
    design = None
    if not region.holds_origin:
        design = design_points(region, solver.hidden.opposite(q), settings.within(_SEARCH_SHARE))
        if design.empty:
            return _Tail(log_estimate.exact(-math.inf), log_estimate.exact(-math.inf))
    samples = max(_FIRST_ROUND, settings.max_samples // solver.hidden.n_clusters)
    mixture = _proposals(solver, q, radius, design)
    return _Draws(solver, q, radius, mixture, settings).until_precise(samples)


def _proposals(
    solver: _Radii, q: int, radius: float, design: DesignPoints | None
) -> Mixture | None:
    """Around the design points, moved towards the mean; None where plain draws get there."""
    if design is None or len(design.points) == 0:
        return None
    distances = design.distances - radius * solver.gain(q, design)
    if distances.min() < _NEAR:
        return None
    moved = design.points * (distances / design.distances)[:, None]
    return Mixture(moved, solver.rank(q))


class _Draws:
    """Fresh examples of one cluster, and whether a perturbation flips them."""

    def __init__(
        self, solver: _Radii, q: int, radius: float, mixture: Mixture | None, settings: Settings
    ) -> None:
        self.solver, self.q, self.radius = solver, q, radius
        self.mixture, self.settings = mixture, settings
        self.stream = Stream(RADII, q)
        self.samplers = [Sampler(mixture, self.stream) for _ in range(2)] if mixture else []
        self.flipped = np.zeros((2, 0), dtype=bool)

    def until_precise(self, samples: int) -> _Tail:
        wanted = min(_FIRST_ROUND, samples)
        while True:
            self._draw(wanted)
            least, most = self._estimates()
            left = samples - self.flipped.shape[1]
            precise = least.half_width <= self.settings.rel_error
            if precise or left <= 0 or self.settings.seconds_left() <= 0:
                undecided = int((self.flipped[0] != self.flipped[1]).sum())
                return _Tail(least, most, undecided)
            wanted = min(self.flipped.shape[1], left)

    def _draw(self, count: int) -> None:
        for begin in range(0, count, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, count - begin)
            if self.mixture is None:
                g = self.settings.normals(self.stream, rows, self.solver.rank(self.q))
            else:
                g = self.mixture.draw(self.settings, self.stream, rows)
            radii, bounds, reason = self.solver.of(self.q, g)
            if reason == "interrupted":
                raise KeyboardInterrupt
            flipped = np.stack([radii <= self.radius, bounds <= self.radius])
            self.flipped = np.hstack([self.flipped, flipped])
            for sampler, mine in zip(self.samplers, flipped, strict=False):
                sampler.add(g, mine)
            if self.settings.seconds_left() <= 0:
                return

    def _estimates(self) -> tuple[LogEstimate, LogEstimate]:
        seed = (self.settings.key, self.q, 2)
        if self.mixture is None:
            n = self.flipped.shape[1]
            least, most = (log_estimate.binomial(int(f.sum()), n, seed) for f in self.flipped)
        else:
            least, most = (log_estimate.stratified([(0.0, s.logs)], seed) for s in self.samplers)
        return least, most


def _checked(net: TwoLayerNet, clusters: ClusterModel | Problem, definition: str) -> ClusterModel:
    if not isinstance(net, TwoLayerNet):
        raise TypeError(f"net must be a TwoLayerNet; got {type(net).__name__}")
    one_of("definition", definition, DEFINITIONS)
    return as_clusters(clusters, net)


def _settings(
    definition: str,
    seed: Any,
    max_seconds: float | None,
    num_threads: int | None,
    backend: str,
    rel_error: float = 0.0,
    max_samples: int = 1,
) -> Settings:
    return Settings(
        kernel=kernels(backend),
        key=stream_key(seed),
        strict=definition == "strict",
        rel_error=rel_error,
        max_samples=max_samples,
        deadline=deadline_of(max_seconds),
        num_threads=resolve_num_threads(num_threads),
        progress=False,
    )


def _status(stopped: Sequence[str], radius: FloatArray, lower_bound: FloatArray) -> Status:
    if "interrupted" in stopped:
        return Status.INTERRUPTED
    if "deadline" in stopped:
        return Status.MAX_SECONDS
    proved = lower_bound >= (1 - _RTOL) * radius
    return Status.CONVERGED if proved.all() else Status.NOT_PROVED


def _tail_status(estimate: LogEstimate, settings: Settings, interrupted: bool) -> Status:
    if interrupted:
        return Status.INTERRUPTED
    if estimate.half_width <= settings.rel_error:
        return Status.CONVERGED
    if settings.seconds_left() <= 0:
        return Status.MAX_SECONDS
    return Status.FEW_EFFECTIVE if estimate.effective < FEW else Status.MAX_SAMPLES
