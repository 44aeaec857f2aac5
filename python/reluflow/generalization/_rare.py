"""Line and importance sampling of all clusters, each checked by the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reluflow._progress import counting_progress
from reluflow._results import Status
from reluflow.generalization import _log_estimate as log_estimate
from reluflow.generalization._design_points import DesignPoints, design_points, search_anew
from reluflow.generalization._hidden import HiddenLayer, Region
from reluflow.generalization._importance import by_importance
from reluflow.generalization._lines import by_lines
from reluflow.generalization._log_estimate import FEW, LOG_10, Interval, LogEstimate, interval
from reluflow.generalization._settings import Settings
from reluflow.generalization.estimates import ClassError, ClusterError, ErrorCheck

# Lines of the first round, and draws of the estimate that checks another one: of all clusters
# together, and bounds for one.
_FIRST_LINES, _CHECK_DRAWS = 20_480, 40_960
_FEWEST, _MOST = 256, 4096
# What a line costs, in draws.
_LINE = 8
# |score| beyond which two estimates contradict each other: 4e-5 of standard normals exceed it, 12
# clusters and all.
_SCORE = 4.5
# Shares of the time that is left to a cluster.
_SEARCH_SHARE, _MAIN_SHARE = 0.3, 0.8


@dataclass(frozen=True, eq=False)
class _Cluster:
    """What was found of one cluster."""

    estimate: LogEstimate
    check: LogEstimate | None
    first_order: LogEstimate | None
    distance: float
    design_points: int


def by_design(hidden: HiddenLayer, settings: Settings, method: str) -> dict[str, Any]:
    """Fields of an ErrorEstimate by ``"line"`` or ``"importance"``, the other one checking."""
    k = hidden.n_clusters
    found: list[_Cluster] = []
    interrupted = False
    try:
        with counting_progress(settings.progress, "test error", k, "clusters") as observer:
            for q in range(k):
                # When the time is over a cluster still gets its cheapest estimate.
                found.append(_cluster(hidden, q, settings.within(1 / (k - q)), method))
                observer(len(found))
    except KeyboardInterrupt:
        interrupted = True
    timed_out = settings.seconds_left() <= 0
    nothing = _Cluster(log_estimate.unknown(), None, None, math.nan, 0)
    found += [nothing] * (k - len(found))
    return _Summary(hidden, found, settings, method).fields(interrupted, timed_out)


def _cluster(hidden: HiddenLayer, q: int, settings: Settings, method: str) -> _Cluster:
    region = hidden.region(q, strict=settings.strict)
    wrong = region.holds_origin
    if region.rank == 0:
        known = log_estimate.exact(0.0 if wrong else -math.inf)
        return _Cluster(known, None, known, -math.inf if wrong else math.inf, 0)
    searched = region.complement() if wrong else region
    targets = hidden.opposite(q)
    design = find_design_points(searched, targets, settings.within(_SEARCH_SHARE))
    sign = -1.0 if wrong else 1.0
    if design.empty:
        known = log_estimate.exact(0.0 if wrong else -math.inf)
        return _Cluster(known, None, known, sign * math.inf, 0)
    main, check = _estimates(searched, design, q, hidden.n_clusters, settings, method)
    main = _with_rounding(main, design, hidden.dim)
    first_order = log_estimate.exact(design.log_first_order)
    if wrong:
        main, first_order = main.complement(), first_order.complement()
        check = None if check is None else check.complement()
    distance = float(design.distances.min(initial=np.inf))
    return _Cluster(main, check, first_order, sign * distance, len(design.points))


# Replaced where a test takes design points away.
find_design_points = design_points


def _estimates(
    region: Region,
    design: DesignPoints,
    q: int,
    n_clusters: int,
    settings: Settings,
    method: str,
) -> tuple[LogEstimate, LogEstimate | None]:
    """The estimate, and the one that checks it: None where the time is over."""
    samples = max(1, settings.max_samples // n_clusters)
    main_settings = settings.within(_MAIN_SHARE)
    first = _each(_FIRST_LINES, n_clusters)
    few = min(samples, _each(_CHECK_DRAWS, n_clusters))
    if method == "line":
        lines = max(1, samples // _LINE)
        main = by_lines(region, design, q, first, lines, main_settings)
        if settings.seconds_left() <= 0:
            return main, None
        wider = search_anew(region, design, settings)
        return main, by_importance(region, wider, q, few, 0.0, settings)
    main = by_importance(region, design, q, samples, settings.rel_error, main_settings)
    if settings.seconds_left() <= 0:
        return main, None
    wider = search_anew(region, design, settings)
    return main, by_lines(region, wider, q, few, few, settings)


def _each(total: int, n_clusters: int) -> int:
    """One cluster's part."""
    return min(max(total // n_clusters, _FEWEST), _MOST)


def _with_rounding(estimate: LogEstimate, design: DesignPoints, dim: int) -> LogEstimate:
    """Adds what rounding of products of d terms does to the distances."""
    distance = float(design.distances.min()) if len(design.points) else 0.0
    of_products = (1 + distance**2) * math.sqrt(dim) * float(np.finfo(float).eps)
    return replace(estimate, rounding=estimate.rounding + of_products)


class _Summary:
    """Puts clusters together."""

    def __init__(
        self, hidden: HiddenLayer, found: Sequence[_Cluster], settings: Settings, method: str
    ) -> None:
        self.labels, self.found, self.settings, self.method = hidden.labels, found, settings, method
        self.main = log_estimate.mean([one.estimate for one in found])
        self.check = self._check()

    def fields(self, interrupted: bool, timed_out: bool) -> dict[str, Any]:
        """Fields of an ErrorEstimate."""
        return {
            "log10_probability": self.main.log_value / LOG_10,
            "interval": self._interval(self.found, self.main),
            "per_cluster": tuple(map(self._of_cluster, self.labels, self.found)),
            "per_class": tuple(map(self._of_class, (-1.0, 1.0))),
            "method": self.method,
            "samples": self.main.draws,
            "errors": self.main.hits,
            "first_order": self._first_order(),
            "effective_samples": self.main.effective,
            "check": self.check,
            "status": self._status(interrupted, timed_out),
        }

    def _check(self) -> ErrorCheck | None:
        if any(one.check is None and not one.estimate.exact for one in self.found):
            return None
        checks = [one.estimate if one.check is None else one.check for one in self.found]
        if all(one.check is None for one in self.found):
            return None
        overall = log_estimate.mean(checks)
        score = max(
            _score(self.main, overall),
            *(_score(one.estimate, check) for one, check in zip(self.found, checks, strict=True)),
        )
        other = "importance" if self.method == "line" else "line"
        return ErrorCheck(
            other, overall.log_value / LOG_10, interval(overall), score <= _SCORE, score
        )

    def _interval(self, members: Sequence[_Cluster], estimate: LogEstimate) -> Interval:
        """Spans both estimates where they contradict each other."""
        ends = [interval(estimate)]
        if self.check is not None and not self.check.agrees:
            checks = [one.estimate if one.check is None else one.check for one in members]
            ends.append(interval(log_estimate.mean(checks)))
        return min(low for low, _ in ends), max(high for _, high in ends)

    def _of_cluster(self, label: float, one: _Cluster) -> ClusterError:
        return ClusterError(
            label=float(label),
            log10_probability=one.estimate.log_value / LOG_10,
            interval=self._interval([one], one.estimate),
            samples=one.estimate.draws,
            errors=one.estimate.hits,
            first_order=math.nan if one.first_order is None else one.first_order.log_value / LOG_10,
            distance=one.distance,
            design_points=one.design_points,
            effective_samples=one.estimate.effective,
        )

    def _of_class(self, label: float) -> ClassError:
        mine = [one for one, sign in zip(self.found, self.labels, strict=True) if sign == label]
        estimate = log_estimate.mean([one.estimate for one in mine])
        return ClassError(label, estimate.log_value / LOG_10, self._interval(mine, estimate))

    def _first_order(self) -> float:
        values = [one.first_order for one in self.found if one.first_order is not None]
        if len(values) < len(self.found):
            return math.nan
        return log_estimate.mean(values).log_value / LOG_10

    def _status(self, interrupted: bool, timed_out: bool) -> Status:
        reached = self.main.half_width <= self.settings.rel_error
        if interrupted:
            return Status.INTERRUPTED
        if self.check is not None and not self.check.agrees:
            return Status.ESTIMATES_DISAGREE
        if timed_out and not (reached and self.check is not None):
            return Status.MAX_SECONDS
        if self.main.effective < FEW:
            return Status.FEW_EFFECTIVE
        return Status.CONVERGED if reached else Status.MAX_SAMPLES


def _score(left: LogEstimate, right: LogEstimate) -> float:
    """|difference of log P| over its standard deviation."""
    if left.log_value == right.log_value:
        return 0.0
    if not (math.isfinite(left.log_value) and math.isfinite(right.log_value)):
        return 0.0 if math.isnan(left.log_value) or math.isnan(right.log_value) else math.inf
    deviation = math.hypot(left.deviation, right.deviation)
    slack = left.rounding + right.rounding + 1e-9
    return max(0.0, abs(left.log_value - right.log_value) - slack) / max(deviation, 1e-12)
