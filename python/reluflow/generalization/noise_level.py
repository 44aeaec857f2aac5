"""The noise at which the test error reaches a target."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtri_exp

from reluflow._covariance import LowRankNoise
from reluflow._results import Result, Status
from reluflow._validation import FloatArray, as_number, as_positive_int
from reluflow.data import ClusterModel
from reluflow.generalization._log_estimate import LOG_10
from reluflow.generalization._settings import deadline_of, stream_key
from reluflow.generalization.error import as_clusters, test_error
from reluflow.generalization.estimates import ErrorEstimate
from reluflow.network import TwoLayerNet
from reluflow.problem import Problem

# Largest ratio of two noise levels that are tried one after the other to bracket the target.
_WIDEN = 4.0
_FARTHEST = math.log(1e15)
# Levels that are computed whatever time they take: without them there is nothing to return.
_CERTAIN = 2


@dataclass(frozen=True, eq=False)
class NoiseLevel(Result):
    """The noise at which the test error reaches a target.

    Attributes
    ----------
    noise : float, ndarray or LowRankNoise
        The noise, in the form that the clusters have it.
    scale : float
        Its standard deviation over that of the given clusters.
    log10_target : float
    error : ErrorEstimate
        Test error at this noise.
    bracket : tuple of float
        Scales with a smaller and a larger test error than the target; 0 or infinite where none was
        found.
    evaluations : int
        Test errors that were computed.
    status : Status
        ``not_reached`` where no noise that was tried has an error on the other side of the target;
        the result is then the nearest that was found.
    seconds : float
        Wall time.
    """

    noise: float | FloatArray | LowRankNoise
    scale: float
    log10_target: float
    error: ErrorEstimate
    bracket: tuple[float, float]
    evaluations: int
    status: Status
    seconds: float

    def __str__(self) -> str:
        return "\n".join(
            [
                f"Noise at a test error of 10^{self.log10_target:g}: "
                f"{self.scale:.8g} times that of the clusters",
                f"  test error there    10^{self.error.log10_probability:.4f}",
                f"  bracket             {self.bracket[0]:.8g} to {self.bracket[1]:.8g}",
                f"  evaluations         {self.evaluations}",
                f"  seconds             {self.seconds:.3g}",
                f"  {self.status}",
            ]
        )


def noise_at_error(
    net: TwoLayerNet,
    clusters: ClusterModel | Problem,
    log10_target: float,
    *,
    tol: float = 0.01,
    max_seconds: float | None = None,
    max_evaluations: int = 60,
    seed: Any = 0,
    **options: Any,
) -> NoiseLevel:
    """The noise level at which the test error of a network reaches 10^log10_target.

    Standard deviations of all clusters are scaled together. The search brackets the target and
    then bisects log(scale), interpolating -Phi^-1(P), which for a half-space is in proportion to
    1/scale. The random numbers are the same at every level.

    Parameters
    ----------
    net : TwoLayerNet
    clusters : ClusterModel or Problem
        Their noise must not be 0; its form is kept.
    log10_target : float
        Below log10(1/2).
    tol : float
        Accuracy in log10 P.
    max_seconds : float or None
        Wall time allowed, after the first two levels; the result is then the best so far.
    max_evaluations : int
        Levels that are tried at most.
    seed : int, Generator or None
        As for `numpy.random.default_rng`.
    **options
        As for `test_error`.

    Returns
    -------
    NoiseLevel

    Raises
    ------
    ValueError
        If the target is not below log10(1/2), the clusters have no noise, or an argument is out of
        its range.
    TypeError
        If ``net`` or ``clusters`` is something else.
    """
    start = time.perf_counter()
    if not isinstance(net, TwoLayerNet):
        raise TypeError(f"net must be a TwoLayerNet; got {type(net).__name__}")
    model = as_clusters(clusters, net)
    target = as_number("log10_target", log10_target)
    if not -math.inf < target < math.log10(0.5):
        raise ValueError(f"log10_target must be finite and below log10(1/2); got {target:g}")
    if not model.noise_scale.any():
        raise ValueError("clusters must have noise; theirs is 0, and any multiple of it too")
    search = _Search(
        net,
        model,
        target,
        as_number("tol", tol, above=0),
        deadline_of(max_seconds),
        as_positive_int("max_evaluations", max_evaluations, minimum=2),
        {**options, "seed": stream_key(seed)},
    )
    status = search.run()
    best = search.best()
    return NoiseLevel(
        noise=model.with_noise_scaled(best.scale).noise,
        scale=best.scale,
        log10_target=target,
        error=best.error,
        bracket=search.bracket(),
        evaluations=len(search.tried),
        status=status,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True, eq=False)
class _Level:
    """A test error, and -Phi^-1 of it: the distance of a half-space with this probability."""

    log_scale: float
    error: ErrorEstimate
    distance: float

    @property
    def scale(self) -> float:
        return math.exp(self.log_scale)


@dataclass(eq=False)
class _Search:
    net: TwoLayerNet
    model: ClusterModel
    target: float
    tol: float
    deadline: float
    most: int
    options: dict[str, Any]
    tried: list[_Level] = field(default_factory=list)

    @property
    def wanted(self) -> float:
        """The distance of a half-space with the target's probability."""
        return _distance(self.target)

    def run(self) -> Status:
        """Tries levels until one reaches the target, and says how it ended."""
        log_scale = 0.0
        while True:
            level = self._try(log_scale)
            if self._done(level):
                return Status.CONVERGED
            if level.error.status is Status.INTERRUPTED:
                return Status.INTERRUPTED
            if len(self.tried) >= _CERTAIN and time.perf_counter() >= self.deadline:
                return Status.MAX_SECONDS
            if len(self.tried) >= self.most:
                return Status.MAX_EVALUATIONS
            log_scale = self._following(level)
            if abs(log_scale) > _FARTHEST:
                return Status.NOT_REACHED

    def _following(self, level: _Level) -> float:
        below, above = self._ends()
        if below is None or above is None:
            return level.log_scale + self._step(level)
        between = _interpolated(below, above, self.wanted)
        # Interpolation may creep towards one end for ever; bisection does not.
        if between is None or len(self.tried) % 3 == 0:
            return 0.5 * (below.log_scale + above.log_scale)
        return between

    def _step(self, level: _Level) -> float:
        """Towards the target and beyond it: for a half-space the distance is ~ 1/scale."""
        widest = math.log(_WIDEN)
        least = min(widest, 1e-3 * 4.0 ** len(self.tried))
        if not (math.isfinite(level.distance) and level.distance > 0):
            return widest if level.distance > 0 else -widest
        ratio = math.log(level.distance / self.wanted)
        if len(self.tried) == 1:
            return ratio
        return math.copysign(min(widest, max(1.5 * abs(ratio), least)), ratio)

    def best(self) -> _Level:
        """The level whose error is nearest to the target."""
        return min(self.tried, key=self._miss)

    def bracket(self) -> tuple[float, float]:
        below, above = self._ends()
        return (0.0 if below is None else below.scale, math.inf if above is None else above.scale)

    def _ends(self) -> tuple[_Level | None, _Level | None]:
        """The noisiest level with an error below the target, and the calmest one above it."""
        below = [level for level in self.tried if level.distance > self.wanted]
        above = [level for level in self.tried if level.distance <= self.wanted]
        return (
            max(below, key=lambda level: level.log_scale) if below else None,
            min(above, key=lambda level: level.log_scale) if above else None,
        )

    def _miss(self, level: _Level) -> float:
        miss = abs(level.error.log10_probability - self.target)
        return math.inf if math.isnan(miss) else miss

    def _done(self, level: _Level) -> bool:
        if self._miss(level) <= self.tol:
            return True
        below, above = self._ends()
        if below is None or above is None:
            return False
        return abs(above.log_scale - below.log_scale) <= 4 * float(np.finfo(float).eps)

    def _try(self, log_scale: float) -> _Level:
        noisy = self.model.with_noise_scaled(math.exp(log_scale))
        left = self.deadline - time.perf_counter()
        seconds = None if math.isinf(left) or len(self.tried) < _CERTAIN else max(left, 0.1)
        error = test_error(self.net, noisy, max_seconds=seconds, **self.options)
        self.tried.append(_Level(log_scale, error, _distance(error.log10_probability)))
        return self.tried[-1]


def _distance(log10_probability: float) -> float:
    if math.isnan(log10_probability):
        return math.nan
    return -float(ndtri_exp(log10_probability * LOG_10))


def _interpolated(below: _Level, above: _Level, wanted: float) -> float | None:
    """The level at which the distance, linear in 1/scale, is the wanted one."""
    drop = below.distance - above.distance
    if not (math.isfinite(drop) and drop > 0):
        return None
    share = (below.distance - wanted) / drop
    inverse = (1 - share) / below.scale + share / above.scale
    return -math.log(inverse)
