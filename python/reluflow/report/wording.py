"""Numbers and sentences that the page and the terminal share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reluflow._results import Status
from reluflow.robustness import Perturbations

if TYPE_CHECKING:
    from reluflow.experiments import Comparison, DoubleEdge

# A per cent sign that stays on the line of its number.
PERCENT = "\N{NO-BREAK SPACE}%"

_FLIPPED = {
    "nonstrict": "an output of the wrong sign or exactly 0 counts as flipped (y N ≤ 0)",
    "strict": "only an output of the wrong sign counts as flipped (y N < 0)",
}


@dataclass(frozen=True)
class KeyFigure:
    """A number that the reader should take away, and what it stands beside."""

    name: str
    value: str
    detail: str


def measured(value: float | None) -> str:
    """As `number`, but with all four digits, zeros included."""
    if value is not None and 0.1 <= abs(value) < 1e4:
        return f"{value:#,.4g}".rstrip(".").replace("-", "−")
    return number(value)


NO_THEORY = (
    "Their means are not orthogonal ones of norm √d, which is what theory speaks of: lengths are "
    "shown in its units, but nothing is predicted."
)


def number(value: float | None, digits: int = 4) -> str:
    """Up to so many significant digits, thousands separated; a dash where there is no number."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    sign, size = ("−" if value < 0 else ""), abs(value)
    if size == int(size) and size < 1e15:
        return f"{sign}{int(size):,}"
    if 1e-3 <= size < 1e5:
        return f"{sign}{size:,.{digits}g}" if size < 1e4 else f"{sign}{size:,.0f}"
    return f"{sign}{size:.{min(digits, 3) - 1}e}"


def exponent(value: float) -> str:
    """An exponent to four decimals; 0 has no sign."""
    return f"{round(value, 4) + 0.0:.4f}".replace("-", "−")


def probability(log10: float) -> str:
    """A probability from its logarithm: in per cent, or as a power of ten."""
    if log10 == -math.inf:
        return "0"
    return f"{100 * 10**log10:.2g}{PERCENT}" if log10 > -3 else f"10^{log10:.2f}"


def error_value(result: DoubleEdge) -> str:
    """The test error, or the bound on it."""
    error = result.error
    if error.method == "exact" and error.log10_probability == -math.inf:
        return "exactly 0"
    if error.log10_probability == -math.inf:
        return f"below {probability(error.interval[1])}"
    return probability(error.log10_probability)


def compared(result: DoubleEdge, row: Comparison) -> tuple[str, str, str]:
    """Measured value, theory and their ratio, where a measurement may be a bound only."""
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    if row.measured is None and row.quantity.startswith("log10 test error"):
        bound = result.error.interval[1]
        found = f"< {measured(bound)}" if math.isfinite(bound) else measured(bound)
        return found, measured(row.theory), ratio
    return measured(row.measured), measured(row.theory), ratio


def error_evidence(result: DoubleEdge) -> str:
    """What the test error was measured on, and how well it is known."""
    error = result.error
    if error.method == "exact":
        return "exact: outputs do not vary within a cluster"
    if error.method == "line":
        checked = error.check is not None and error.check.agrees
        count = f"{error.samples:,} lines{', confirmed by importance sampling' * checked}"
    else:
        count = f"{error.errors:,} of {error.samples:,} {examples(result)} misclassified"
    if error.log10_probability == -math.inf:
        return f"{count}, 95{PERCENT} bound"
    low, high = (probability(bound) for bound in error.interval)
    if low == high:
        return count
    return f"{count}, 95{PERCENT} interval {low} to {high}"


def examples(result: DoubleEdge) -> str:
    """What the networks are tested on."""
    return "fresh examples" if result.assumption is not None else "held-out examples"


def definition(result: DoubleEdge) -> str:
    """What counts as flipped."""
    return _FLIPPED[result.radii.definition]


def problem(result: DoubleEdge) -> str:
    """The problem in one sentence."""
    clusters = result.clusters
    return (
        f"{result.initial.width} neurons, {result.data.n} training examples, "
        f"{clusters.n_clusters} clusters in {clusters.ambient_dim:,} dimensions, "
        f"noise {noise(result)}"
    )


def headline(result: DoubleEdge) -> str:
    """The finding in one sentence."""
    return f"{_right_half(result)}, yet {_wrong_half(result)}."


def subline(result: DoubleEdge) -> str:
    """The lengths that the headline's number is to be compared with."""
    summary = result.summary
    trained = f"The median smallest perturbation is {measured(summary['radius_median'])}"
    whole = f"{_length_of_inputs(result)} {trained} for the trained network"
    if not summary["robust_radius_median"]:
        return (
            f"{whole}; the explicit robust network of these clusters, which needs nearly "
            "orthogonal means and little noise, misclassifies half of the examples or more."
        )
    return (
        f"{whole} and {measured(summary['robust_radius_median'])} for the explicit robust network "
        f"of the same clusters, {measured(summary['double_edge_ratio'])} times as far."
    )


def notice(result: DoubleEdge) -> str:
    """Why the flow ended before its target; empty if it did not."""
    return "" if result.flow.status == Status.CONVERGED else result.flow.status.sentence


def key_figures(result: DoubleEdge) -> list[KeyFigure]:
    """The row of numbers at the head of the report."""
    summary = result.summary
    dim, k = result.clusters.ambient_dim, result.clusters.n_clusters
    shift, robust = (math.sqrt(dim / k), "√(d/k)"), (math.sqrt(dim) / 2, "√d/2")
    lengths = (
        (f"one shift that flips 95{PERCENT}", summary["universal_norm_95"], shift),
        ("median radius, trained", summary["radius_median"], shift),
        ("median radius, robust", summary["robust_radius_median"], robust),
    )
    proved = (
        f"of {len(result.radii.radius)}, trained network; {share_proved(result.robust_radii)} "
        "robust"
    )
    return [
        KeyFigure("test error", error_value(result).replace("below", "<"), error_evidence(result)),
        *(KeyFigure(name, measured(value), _times(value, *unit)) for name, value, unit in lengths),
        KeyFigure(
            "robust over trained",
            measured(summary["double_edge_ratio"]),
            f"√k/2 = {measured(math.sqrt(k) / 2)}" if result.comparison else "",
        ),
        _kkt_figure(result),
        KeyFigure("radii proved", share_proved(result.radii), proved),
    ]


def _kkt_figure(result: DoubleEdge) -> KeyFigure:
    if result.certificate is None and result.limit is not None and limit_is_known(result):
        angle = f"{number(result.limit.angle_to_flow, 2)} rad"
        return KeyFigure("angle to the limit", angle, "between the flow's end and its KKT point")
    stationarity = number(result.summary["kkt_stationarity"], 2)
    return KeyFigure("KKT stationarity", stationarity, "residual, 0 at a KKT point")


def share_proved(radii: Perturbations) -> str:
    """Share of radii with a verified certificate, rounded down: all is said of all only."""
    return f"{math.floor(1000 * float(np.mean(radii.proved))) / 10:g}{PERCENT}"


def caveats(result: DoubleEdge) -> list[str]:
    """What the numbers of this run do not establish."""
    found = [
        _flow_caveat(result),
        _limit_caveat(result),
        _missing_caveat(result),
        _error_caveat(result),
        *(
            _radius_caveat(name, radii)
            for name, radii in (("trained", result.radii), ("robust", result.robust_radii))
        ),
        "The shares flipped by one shift are those of "
        f"{result.test_data.n} examples, not of the whole distribution.",
        _assumption_caveat(result),
    ]
    return [caveat.strip() for caveat in found if caveat]


def _right_half(result: DoubleEdge) -> str:
    if result.error.log10_probability == -math.inf and result.error.samples:
        return f"No error on {result.error.samples:,} {examples(result)}"
    return f"A test error of {error_value(result)}"


def _wrong_half(result: DoubleEdge) -> str:
    norm = result.summary["universal_norm_95"]
    if norm is None:
        return f"no shift along the cluster means that was tried flips 95{PERCENT} of examples"
    return f"a single shift of length {measured(norm)} flips 95{PERCENT} of examples"


def _length_of_inputs(result: DoubleEdge) -> str:
    # Examples drawn in reduced coordinates lack the part of the noise that no network sees.
    if result.assumption is not None:
        norms = np.sqrt(result.clusters.gram.diagonal())
        return f"A cluster mean has length {measured(float(np.median(norms)))}."
    norms = np.linalg.norm(result.test_data.X, axis=1)
    return f"An example has length {measured(float(np.median(norms)))} (median)."


def _flow_caveat(result: DoubleEdge) -> str:
    flow, certificate = result.flow, result.certificate
    early = notice(result)
    reached = f"{early} The flow was followed to log(1/L) = {number(flow.log_inverse_loss)}, not to"
    if not bool((flow.margins > 0).all()):
        return f"{early} Not every training example is classified, so no KKT point is near."
    if certificate is not None:
        return (
            f"{reached} its limit; the stationarity residual {number(certificate.stationarity)} "
            "says how far from a KKT point it stopped."
        )
    return f"{reached} its limit."


def _limit_caveat(result: DoubleEdge) -> str:
    limit = result.limit
    if limit is None:
        return ""
    if not limit_is_known(result):
        return f"The limit of the flow is not known: {limit.status.sentence}"
    probed = "" if limit.probe is None else f" Whether it is global: {limit.probe.sentence}."
    return (
        f"The limit of the flow is a KKT point up to {number(limit.residuals.worst, 2)} in every "
        f"residual; that it is the limit rests on two predictions that agree, the later one at "
        f"log(1/L) = {number(limit.flow.log_inverse_loss)}.{probed}"
    )


def limit_is_known(result: DoubleEdge) -> bool:
    """Whether the limit was computed, and settled."""
    known = (Status.CONVERGED, Status.DEGENERATE)
    return result.limit is not None and result.limit.status in known


def _missing_caveat(result: DoubleEdge) -> str:
    missing = result.missing_clusters
    if not len(missing):
        return ""
    shown = ", ".join(str(q) for q in missing[:10]) + ", ..." * (len(missing) > 10)
    return f"No training example fell on {len(missing)} of the clusters: {shown}."


def _error_caveat(result: DoubleEdge) -> str:
    if result.error.method == "exact":
        return ""
    if result.error.log10_probability == -math.inf:
        return (
            f"The test error is only bounded: {error_evidence(result)} "
            f"({probability(result.error.interval[1])})."
        )
    doubt = "" if result.error.status == Status.CONVERGED else f" {result.error.status}"
    return f"The test error is an estimate: {error_evidence(result)}.{doubt}"


def _radius_caveat(name: str, radii: Perturbations) -> str:
    open_points = ~np.asarray(radii.proved)
    if not open_points.any():
        return ""
    found, bound = radii.radius[open_points], radii.lower_bound[open_points]
    usable = np.isfinite(found) & (found > 0)
    worst = float(np.min(bound[usable] / found[usable], initial=1.0))
    return (
        f"{open_points.sum()} of {len(open_points)} radii of the {name} network are upper bounds "
        f"without a proof that nothing nearer exists; the valid lower bounds are {worst:.2f} of "
        "them or more."
    )


def _assumption_caveat(result: DoubleEdge) -> str:
    if result.assumption is None:
        unchecked = (
            "The clusters were estimated from the data; the theorems' assumptions on how data are "
            "drawn are not checked."
        )
        if result.comparison:
            return unchecked
        return f"{unchecked} {NO_THEORY}"
    if result.assumption.holds:
        return ""
    return (
        "The theorems' assumption does not hold at this size (see the table): agreement with "
        "theory is an observation here, not a consequence."
    )


def noise(result: DoubleEdge) -> str:
    """The noise's scale, or the range of the clusters' scales."""
    scales = np.unique(np.asarray(result.clusters.noise_scale))
    low, high = number(float(scales[0])), number(float(scales[-1]))
    return low if low == high else f"{low} to {high}"


def _times(value: float | None, unit: float, name: str) -> str:
    if value is None or not math.isfinite(value):
        return f"{name} = {measured(unit)}"
    return f"{value / unit:.3f} × {name}"
