"""Estimates of logarithms of probabilities, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, gammaincc, gammaln, logsumexp

from reluflow._validation import FloatArray

CONFIDENCE = 0.95
Interval = tuple[float, float]

LOG_10 = math.log(10)
# Of a normal law, between which CONFIDENCE of it lies.
NORMAL_QUANTILE = 1.959963984540054
_REPLICATES = 400
# Draws are resampled in at most so many batches of neighbours.
_BATCHES = 64
# Below this effective sample size no interval of a mean of weights can be trusted.
FEW = 100.0
# And below this one what was proved is all that bounds it from above.
_HOPELESS = 10.0

# What has a share of this over n is missed by all of n draws with probability 2.5 %.
_UNSEEN = -math.log((1 - CONFIDENCE) / 2)

# Draws of one part of a mean: log of the part's weight, and log of the drawn values.
Stratum = tuple[float, FloatArray]


@dataclass(frozen=True, eq=False)
class LogEstimate:
    """An estimate of log P.

    Attributes
    ----------
    log_value : float
    deviation : float
        Standard deviation of the estimate of P, over P.
    replicates : ndarray
        Log values of a bootstrap.
    effective : float
        Effective sample size (sum w)^2 / sum w^2; infinite where the value is exact.
    rounding : float
        By how much rounding alone may have changed the log value.
    bound : float
        An upper bound on log P that was proved.
    draws, hits : int
        Draws, and those among them with values above zero.
    """

    log_value: float
    deviation: float
    replicates: FloatArray
    effective: float
    rounding: float = 0.0
    bound: float = 0.0
    draws: int = 0
    hits: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing was left to chance."""
        return math.isinf(self.effective)

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the delta method in log P."""
        return NORMAL_QUANTILE * self.deviation

    def complement(self) -> LogEstimate:
        """Of 1 - P."""
        if math.isnan(self.log_value):
            return self
        log_value = log_complement(self.log_value)
        # d(1 - P)/(1 - P) = -(P/(1 - P)) dP/P.
        odds = math.exp(min(self.log_value - log_value, 700.0)) if log_value > -math.inf else 0.0
        with np.errstate(divide="ignore"):
            replicates = np.log1p(-np.exp(np.minimum(self.replicates, 0.0)))
        return LogEstimate(
            log_value,
            odds * self.deviation,
            replicates,
            # Where nothing was seen, all draws say the same of 1 - P.
            self.effective if self.hits or self.exact else float(self.draws),
            odds * self.rounding,
            0.0,
            self.draws,
            self.hits,
        )


def exact(log_value: float, *, rounding: float = 0.0, draws: int = 0) -> LogEstimate:
    """A value that is known."""
    return LogEstimate(
        log_value, 0.0, np.full(_REPLICATES, log_value), math.inf, rounding, log_value, draws, draws
    )


def unknown() -> LogEstimate:
    """Where nothing was drawn."""
    return LogEstimate(math.nan, math.nan, np.full(_REPLICATES, math.nan), 0.0)


def log_complement(log_value: float) -> float:
    """log(1 - exp(log_value)) for log_value <= 0."""
    if log_value >= 0:
        return -math.inf
    if log_value > -0.7:
        return math.log(-math.expm1(log_value))
    return math.log1p(-math.exp(log_value))


def stratified(
    strata: Sequence[Stratum], seed: Sequence[int], *, rounding: float = 0.0, bound: float = 0.0
) -> LogEstimate:
    """Sum over strata of weight times mean of what was drawn in each."""
    shift = max(weight + float(values.max()) for weight, values in strata)
    draws = sum(len(values) for _, values in strata)
    if shift == -math.inf:
        nothing = np.full(_REPLICATES, -math.inf)
        return LogEstimate(-math.inf, math.inf, nothing, 0.0, rounding, bound, draws, 0)
    rng = np.random.default_rng(seed)
    total = variance = squares = 0.0
    replicates = np.zeros(_REPLICATES)
    for weight, logs in strata:
        values = np.exp(weight + logs - shift)
        total += values.mean()
        variance += values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
        squares += float((values**2).sum()) / len(values) ** 2
        replicates += _bootstrap(values, rng)
    with np.errstate(divide="ignore"):
        replicates = shift + np.log(replicates)
    return LogEstimate(
        shift + math.log(total),
        math.sqrt(variance) / total,
        replicates,
        total**2 / squares,
        rounding,
        bound,
        draws,
        sum(int(np.isfinite(values).sum()) for _, values in strata),
    )


def binomial(hits: int, draws: int, seed: Sequence[int]) -> LogEstimate:
    """Of a share of which so many in so many draws were seen."""
    # Jeffreys' law of the share (Brown, Cai & DasGupta 2001).
    replicates = np.random.default_rng(seed).beta(hits + 0.5, draws - hits + 0.5, _REPLICATES)
    share = (hits + 0.5) / (draws + 1)
    return LogEstimate(
        math.log(hits / draws) if hits else -math.inf,
        math.sqrt((1 - share) / (draws * share)),
        np.log(replicates),
        float(hits),
        0.0,
        math.log(binomial_interval(hits, draws)[1]),
        draws,
        hits,
    )


def mean(estimates: Sequence[LogEstimate]) -> LogEstimate:
    """Of the average of independent probabilities."""
    if any(math.isnan(one.log_value) for one in estimates):
        return unknown()
    logs = np.array([one.log_value for one in estimates])
    size = math.log(len(estimates))
    bound = min(0.0, float(logsumexp([one.bound for one in estimates])) - size)
    draws, hits = (sum(getattr(one, name) for one in estimates) for name in ("draws", "hits"))
    if logs.max() == -math.inf:
        if all(one.exact for one in estimates):
            return exact(-math.inf)
        nothing = np.full(_REPLICATES, -math.inf)
        return LogEstimate(-math.inf, math.inf, nothing, 0.0, 0.0, bound, draws, hits)
    total = float(logsumexp(logs))
    shares = np.exp(logs - total)
    seen = shares > 0
    deviations = np.array([one.deviation for one in estimates])
    rounding = np.array([one.rounding for one in estimates])
    squares = 0.0
    for share, one in zip(shares, estimates, strict=True):
        if share > 0 and not one.exact:
            squares += share**2 / one.effective
    return LogEstimate(
        total - size,
        float(np.linalg.norm(shares[seen] * deviations[seen])),
        logsumexp([one.replicates for one in estimates], axis=0) - size,
        1 / squares if squares > 0 else math.inf,
        float(shares[seen] @ rounding[seen]),
        bound,
        draws,
        hits,
    )


def interval(estimate: LogEstimate) -> Interval:
    """95 % interval of log10 P: what the delta method and the bootstrap both stay within."""
    if math.isnan(estimate.log_value):
        return -math.inf, 0.0
    if estimate.log_value == -math.inf:
        return -math.inf, estimate.bound / LOG_10
    ends = [delta_interval(estimate), bootstrap_interval(estimate)]
    lower = min(low for low, _ in ends) - estimate.rounding
    upper = max(high for _, high in ends) + estimate.rounding
    if not estimate.exact:
        upper = max(upper, estimate.log_value + math.log1p(_UNSEEN / estimate.draws))
    if estimate.effective < _HOPELESS:
        upper = max(upper, estimate.bound)
    return lower / LOG_10, min(upper, 0.0) / LOG_10


def delta_interval(estimate: LogEstimate) -> Interval:
    """Of log P: the estimate of P is taken to be log-normal."""
    half = estimate.half_width
    return estimate.log_value - half, estimate.log_value + half


def bootstrap_interval(estimate: LogEstimate) -> Interval:
    """Of log P: quantiles of the Bayesian bootstrap (Rubin 1981)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(estimate.replicates, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def binomial_interval(errors: int, samples: int) -> Interval:
    """95 % interval of a probability of which ``errors`` in ``samples`` were seen.

    Clopper & Pearson (1934): the probabilities for which neither tail of the binomial law is
    below 2.5 %.
    """
    tail = (1 - CONFIDENCE) / 2
    lower = betaincinv(errors, samples - errors + 1, tail) if errors > 0 else 0.0
    upper = betaincinv(errors + 1, samples - errors, 1 - tail) if errors < samples else 1.0
    return float(lower), float(upper)


def log_outside_ball(radius: float, rank: int) -> float:
    """An upper bound on the log probability that a standard normal of ``rank`` coordinates has at
    least this norm; equal to it where that does not underflow.
    """
    a, x = rank / 2, radius**2 / 2
    if math.isinf(x):
        return -math.inf
    tail = float(gammaincc(a, x))
    if tail > 1e-280:
        return math.log(tail)
    # Gamma(a, x) <= x^a e^-x / (x - a + 1) for x > a - 1: the integrand t^(a-1) e^-t falls there
    # at least as fast as exp(-(1 - (a - 1)/x) t).
    return float(a * math.log(x) - x - math.log(x - max(a, 1.0) + 1) - gammaln(a))


def log10_of(probability: float) -> float:
    """log10, with -inf for 0."""
    return math.log10(probability) if probability != 0 else -math.inf


def _bootstrap(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Means of the values under random weights with Dirichlet's law."""
    if len(values) == 1:
        return np.full(_REPLICATES, values[0])
    batches = np.array_split(values, min(_BATCHES, len(values)))
    means = np.array([batch.mean() for batch in batches])
    sizes = np.array([len(batch) for batch in batches])
    weights = rng.standard_exponential((_REPLICATES, len(means))) * sizes
    return np.asarray(weights @ means / weights.sum(axis=1))
