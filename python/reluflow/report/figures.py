"""One function a figure, from a `DoubleEdge` to a matplotlib ``Figure``.

Lengths are in the units of the inputs throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reluflow._validation import FloatArray
from reluflow.experiments.comparison import about_orthogonal
from reluflow.generalization import RadiusDistribution
from reluflow.network import TwoLayerNet
from reluflow.report import style, wording
from reluflow.report.landscape import Plane, typical_plane
from reluflow.robustness import Perturbations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure

    from reluflow.experiments import DoubleEdge

# Grid points a side of a landscape.
_RESOLUTION = 181
# Outputs are shown in units of the output at the example, up to this many.
_RANGE = 1.5
# Output, in the same units, that tells a region of outputs 0 from its surroundings.
_EDGE = 1e-6
_BINS = 90
_DASHES = (0, (4, 3))


@style.drawing()
def flow_figure(result: DoubleEdge) -> Figure:
    """Gradients spent on, and normalised margin at, each log(1/L) of the flow."""
    trajectory = result.flow.trajectory
    shown = trajectory.log_inverse_loss > 0
    progress = trajectory.log_inverse_loss[shown]
    figure = style.new_figure(style.TALL)
    cost, margin = figure.subplots(2, 1, sharex=True)
    cost.plot(progress, trajectory.evaluations[shown], color=style.MUTED)
    cost.set(ylabel="gradients evaluated", xscale="log")
    cost.set_ylim(bottom=0)
    margin.axhline(0, color=style.MUTED, linewidth=0.8)
    margin.plot(progress, trajectory.normalized_margin[shown], color=style.TRAINED)
    margin.set(ylabel=r"normalised margin $\gamma$", xlabel=r"progress of the flow, $\log(1/L)$")
    limit = _limiting_margin(result)
    if limit is not None:
        margin.axhline(limit, color=style.INK, linewidth=1, linestyle=_DASHES)
        name = f"orthogonal means, $d \\to \\infty$: {limit:.4g}"
        where = (float(progress[0]), limit) if len(progress) else (1.0, limit)
        _label(margin, name, where, (4, 4), ha="left", va="bottom")
        margin.margins(y=0.16)
    for axes in (cost, margin):
        axes.grid(True)
        axes.margins(x=0.01)
    figure.align_ylabels()
    return figure


@style.drawing()
def universal_figure(result: DoubleEdge) -> Figure:
    """Share of fresh examples that one shift flips, against its norm."""
    scale = _shift_scale(result)
    low, high = _transition(result)
    norm, *fractions = _flips(result, high)
    figure = style.new_figure(style.COLUMN)
    axes = figure.subplots()
    axes.grid(True)
    axes.axvline(scale, color=style.INK, linewidth=1, linestyle=_DASHES)
    lines: tuple[tuple[str, dict[str, Any]], ...] = (
        ("all examples", {"color": style.TRAINED, "zorder": 3}),
        ("label +1", {"color": style.INK, "linewidth": 1.1, "linestyle": "--", "zorder": 4}),
        ("label −1", {"color": style.INK, "linewidth": 1.1, "linestyle": ":", "zorder": 4}),
    )
    for fraction, (name, look) in zip(fractions, lines, strict=True):
        axes.step(norm, fraction, where="post", label=name, **look)
    _mark_crossings(axes, result, low + 0.75 * (high - low))
    _percent(axes)
    axes.set(
        xlabel=r"norm of the shift $\|z\|$, units of the inputs",
        ylabel="flipped share of examples",
        xlim=(low, high),
    )
    _in_units(axes, scale, r"$\|z\|$ in units of $\sqrt{d/k}$ " + f"= {wording.measured(scale)}")
    axes.legend(loc="best", borderaxespad=1.2)
    return figure


@style.drawing()
def radii_figure(result: DoubleEdge) -> Figure:
    """Smallest perturbations of the trained and of the robust network on the same examples."""
    from matplotlib.ticker import MaxNLocator

    figure = style.new_figure(style.COLUMN)
    axes = figure.subplots()
    axes.grid(True, axis="y")
    series = (
        ("trained network", result.radii, style.TRAINED),
        ("robust network", result.robust_radii, style.ROBUST),
    )
    largest = max(float(np.max(_finite(radii.radius), initial=0.0)) for _, radii, _ in series)
    edges = np.linspace(0, 1.12 * max(largest, _robust_scale(result)), _BINS + 1)
    for name, radii, color in series:
        _stacked_histogram(axes, name, radii, edges, color)
    _mark_lengths(axes, _lengths(result), float(edges[-1]))
    axes.set(
        xlabel=r"smallest perturbation $\|\delta\|$ of an example, units of the inputs",
        ylabel="examples",
        xlim=(0, edges[-1]),
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", borderaxespad=0.8)
    return figure


@style.drawing()
def robust_accuracy_figure(result: DoubleEdge) -> Figure:
    """Robust accuracy of both networks against the length of perturbations, with 95 % bands."""
    figure = style.new_figure(style.COLUMN)
    axes = figure.subplots()
    axes.grid(True, axis="y")
    populations = [RadiusDistribution.of(each) for each in (result.radii, result.robust_radii)]
    reaches = [float(np.max(_finite(each.radius), initial=0.0)) for each in populations]
    last = 1.12 * max(*reaches, _robust_scale(result))
    names, colors = ("trained network", "robust network"), (style.TRAINED, style.ROBUST)
    for population, name, color in zip(populations, names, colors, strict=True):
        edges = np.unique(_finite(np.concatenate([population.radius, population.lower_bound])))
        lengths = np.concatenate([[0.0], edges, [last]])
        lower, upper = population.accuracy_interval(lengths)
        axes.fill_between(lengths, lower, upper, step="post", color=color, alpha=0.2, linewidth=0)
        accuracy = population.accuracy(lengths)
        axes.step(lengths, accuracy, where="post", color=color, label=name)
    _mark_lengths(axes, _lengths(result), last)
    _percent(axes)
    axes.set(
        xlabel="length of the perturbation, units of the inputs",
        ylabel="robust accuracy",
        xlim=(0, last),
    )
    axes.legend(loc="lower left", borderaxespad=0.8)
    return figure


@style.drawing()
def landscape_figure(result: DoubleEdge) -> Figure:
    """Outputs of both networks on the plane of an example, z and an opposite mean."""
    plane = typical_plane(result)
    window = _window(plane, _largest_circle(result, plane))
    figure = style.new_figure(_size_of_pair(window), layout="compressed")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    pairs = (
        (left, "trained network", result.flow.net, result.radii),
        (right, "robust network", result.robust_net, result.robust_radii),
    )
    for axes, title, net, radii in pairs:
        filled = _draw_landscape(axes, plane, net, radii.definition, window)
        _draw_circle(axes, float(radii.radius[plane.index]))
        _draw_arrow(axes, plane.project(radii.perturbation[plane.index]))
        _draw_means(axes, plane)
        axes.set(title=title, xlabel=r"along $z$, units of the inputs")
    left.set(ylabel="towards an opposite mean")
    bar = figure.colorbar(
        filled, ax=[left, right], location="bottom", aspect=40, pad=0.02, ticks=[-1, 0, 1]
    )
    bar.set_label("output, in units of the output at the example")
    bar.outline.set_visible(False)
    return figure


@style.drawing()
def planes_figure(result: DoubleEdge) -> Figure:
    """The one shift z against both networks, on the same plane and at the same scale."""
    figure = style.new_figure(style.PAIR)
    left, right = figure.subplots(1, 2)
    _draw_planes(left, right, result)
    return figure


@style.drawing()
def shares_figure(result: DoubleEdge) -> Figure:
    """Share of examples that perturbations of at most each length flip, of both networks."""
    figure = style.new_figure(style.PAIR)
    _draw_shares(figure.subplots(), result)
    return figure


@style.drawing()
def banner_figure(result: DoubleEdge) -> Figure:
    """The story in one look: `planes_figure` and `shares_figure` side by side."""
    figure = style.new_figure(style.BANNER)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.45])
    _draw_planes(left, middle, result)
    _draw_shares(right, result)
    right.set_title("Share of examples flipped", fontweight="bold")
    return figure


FIGURES: dict[str, Callable[[DoubleEdge], Figure]] = {
    "double_edge": banner_figure,
    "planes": planes_figure,
    "shares": shares_figure,
    "universal": universal_figure,
    "radii": radii_figure,
    "robust_accuracy": robust_accuracy_figure,
    "landscape": landscape_figure,
    "flow": flow_figure,
}


def _draw_planes(left: Axes, right: Axes, result: DoubleEdge) -> None:
    plane = typical_plane(result)
    reach = 1.3 * max(_largest_circle(result, plane), _shown_shift(result))
    window = (-reach, reach, -reach, reach)
    panels = (
        (left, "Trained by gradient flow", result.flow.net, result.radii, style.TRAINED),
        (right, "Robust network", result.robust_net, result.robust_radii, style.ROBUST),
    )
    for axes, title, net, radii, color in panels:
        _draw_landscape(axes, plane, net, radii.definition, window)
        _draw_circle(axes, float(radii.radius[plane.index]), color)
        _draw_shift(axes, _shown_shift(result))
        axes.set_title(title, color=color, fontweight="bold")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    _label(left, "unchanged", (-reach, -reach), (7, 7), ha="left", va="bottom")
    _label(left, "flipped", (reach, -reach), (-7, 7), ha="right", va="bottom")


def _draw_shares(axes: Axes, result: DoubleEdge) -> None:
    """Share of examples that perturbations of at most each length flip, of both networks."""
    last = 1.35 * max(*(value for value, _ in _lengths(result)), _shown_shift(result))
    robust = np.sort(_finite(result.robust_radii.radius))
    share = np.arange(1, len(robust) + 1) / len(result.robust_radii.radius)
    lines: list[tuple[FloatArray, FloatArray, str, str]] = [
        (*_flips(result, last)[:2], style.TRAINED, "trained:\none shift $z$\nfor all"),
        (*_steps(robust, share, last), style.ROBUST, "robust:\nthe best shift\nfor each"),
    ]
    axes.grid(True, axis="y")
    _mark_lengths(axes, _lengths(result), last)
    halves = []
    for x, y, color, _ in lines:
        axes.step(x, y, where="post", color=color, linewidth=2.6, zorder=3)
        halves.append(float(x[np.argmax(y >= 0.5)]) if (y >= 0.5).any() else last)
    _percent(axes)
    axes.set(xlabel="length of the perturbation, units of the inputs", xlim=(0, last))
    names = [name for *_, name in lines]
    apart = abs(halves[0] - halves[1]) > 0.1 * last
    if not (apart and min(halves) > 0.3 * last and max(halves) < 0.8 * last):
        # No room beside the lines.
        handles = [line for line in axes.lines if line.get_color() in (style.TRAINED, style.ROBUST)]
        axes.legend(handles, [name.replace("\n", " ") for name in names], loc="lower right")
        return
    for (_, _, color, name), half in zip(lines, halves, strict=True):
        first = half == min(halves)
        axes.annotate(
            name,
            (half, 0.5),
            xytext=(-10 if first else 10, 0),
            textcoords="offset points",
            ha="right" if first else "left",
            va="center",
            color=color,
            fontweight="bold",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )


def _draw_landscape(
    axes: Axes,
    plane: Plane,
    net: TwoLayerNet,
    definition: str,
    window: tuple[float, float, float, float],
) -> ContourSet:
    """Filled contours of y N around the example, and the boundary between the sides."""
    x = np.linspace(window[0], window[1], _RESOLUTION)
    y = np.linspace(window[2], window[3], _RESOLUTION)
    here = abs(float(plane.outputs(net, np.zeros(1), np.zeros(1))[0, 0])) or 1.0
    outputs = plane.outputs(net, x, y) / here
    levels = np.linspace(-_RANGE, _RANGE, 13)
    filled = axes.contourf(x, y, outputs, levels, cmap=style.sides(), extend="both")
    filled.set(edgecolor="face", linewidth=0.4)
    # Where a network is 0 on a whole region, the boundary is the edge of the flipped set.
    boundary = _EDGE if definition == "nonstrict" else -_EDGE
    if outputs.min() < boundary < outputs.max():
        axes.contour(x, y, outputs, [boundary], colors=style.INK, linewidths=1.4)
    axes.plot(0, 0, "o", color=style.INK, markersize=4.5, zorder=5)
    axes.set(aspect="equal", xlim=window[:2], ylim=window[2:])
    return filled


def _draw_circle(axes: Axes, radius: float, color: str = style.INK) -> None:
    """All points of the plane as far from the example as its smallest perturbation reaches."""
    from matplotlib.patches import Circle

    if not math.isfinite(radius):
        return
    if radius == 0:
        _label(axes, "misclassified", (0, 0), (0, 6), ha="center", va="bottom", color=color)
        return
    axes.add_patch(Circle((0, 0), radius, fill=False, color=color, linewidth=1.5, linestyle="--"))
    _label(
        axes,
        f"radius {wording.measured(radius)}",
        (0, radius),
        (0, 3),
        ha="center",
        va="bottom",
        color=color,
    )


def _draw_arrow(axes: Axes, tip: FloatArray) -> None:
    if np.isfinite(tip).all():
        arrow = {
            "arrowstyle": "-|>",
            "color": style.INK,
            "linewidth": 1.4,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", (tip[0], tip[1]), (0, 0), arrowprops=arrow, zorder=5)


def _draw_shift(axes: Axes, norm: float) -> None:
    _draw_arrow(axes, np.array([norm, 0.0]))
    _label(axes, "$z$", (norm / 2, 0), (0, -4), ha="center", va="top")


def _draw_means(axes: Axes, plane: Plane) -> None:
    means = ((plane.opposite_mean, "opposite mean", "^"), (plane.own_mean, "own mean", "v"))
    low, high = axes.get_xlim()
    # The opposite mean's name points inwards; the own mean's, away from the arrow if there is room.
    left_of = {"^": (low + high) / 2, "v": low + 0.3 * (high - low)}
    for (x, y), name, marker in means:
        axes.plot(x, y, marker, color=style.INK, markerfacecolor="white", markersize=6.5, zorder=6)
        if x > left_of[marker]:
            _label(axes, name, (x, y), (-8, -8), ha="right", va="top")
        else:
            _label(axes, name, (x, y), (8, -8), ha="left", va="top")


def _label(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    offset: tuple[float, float],
    *,
    ha: Literal["left", "center", "right"],
    va: Literal["top", "bottom", "center"],
    color: str = style.INK,
) -> None:
    axes.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        ha=ha,
        va=va,
        color=color,
        fontsize=9,
        zorder=7,
    )


def _stacked_histogram(
    axes: Axes, name: str, radii: Perturbations, edges: FloatArray, color: str
) -> None:
    """Proved radii filled, the others hatched on top of them."""
    proved, radius = radii.proved, radii.radius
    finite = np.isfinite(radius)
    counts = [np.histogram(radius[finite & part], edges)[0] for part in (proved, ~proved)]
    share = float(proved.mean())
    axes.stairs(
        counts[0], edges, fill=True, color=color, alpha=0.85, label=f"{name}: {share:.0%} proved"
    )
    if counts[1].any():
        axes.stairs(
            counts[0] + counts[1],
            edges,
            baseline=counts[0],
            fill=True,
            hatch="/////",
            facecolor="white",
            edgecolor=color,
            label="not proved: upper bounds",
        )


def _mark_lengths(axes: Axes, lengths: Sequence[tuple[float, str]], last: float) -> None:
    """Dashed lines at lengths, named above an axis that ends at ``last``."""
    for value, _ in lengths:
        axes.axvline(value, color=style.INK, linewidth=1, linestyle=_DASHES, zorder=2)
    values = [value for value, _ in lengths]
    names = [text for _, text in lengths]
    if np.ptp(values) < 0.25 * last:
        # The first name goes a line higher than the others.
        names[0] += "\n" * (len(names) > 1)
    top = axes.secondary_xaxis("top")
    top.set_xticks(values, names)
    top.tick_params(length=0, pad=2)
    top.spines["top"].set_visible(False)


def _in_units(axes: Axes, unit: float, label: str) -> None:
    top = axes.secondary_xaxis(
        "top", functions=(lambda x: np.asarray(x) / unit, lambda x: np.asarray(x) * unit)
    )
    top.set_xlabel(label, labelpad=5)
    top.spines["top"].set_visible(False)


def _percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(ylim=(-0.02, 1.09), yticks=np.linspace(0, 1, 5))


def _flips(
    result: DoubleEdge, last: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Norms up to ``last``, and the shares flipped there: of all, positive, negative examples."""
    curve = result.universal.curve
    fractions = (curve.fraction, curve.fraction_positive, curve.fraction_negative)
    (norm, whole), (_, positive), (_, negative) = (
        _steps(curve.norm, fraction, last) for fraction in fractions
    )
    return norm, whole, positive, negative


def _steps(norm: FloatArray, share: FloatArray, last: float) -> tuple[FloatArray, FloatArray]:
    """A step function from (0, 0) to ``last``."""
    shown = norm <= last
    whole = np.concatenate([[0.0], share[shown]])
    return np.concatenate([[0.0], norm[shown], [last]]), np.append(whole, whole[-1])


def _transition(result: DoubleEdge) -> tuple[float, float]:
    """Norms between which the flipped share rises, with about as much again on both sides."""
    norm = result.universal.curve.norm
    flips = norm[np.isfinite(norm)]
    marked = _shift_scale(result)
    ends = [marked, float(np.quantile(flips, 0.01)), float(flips[-1])] if len(flips) else [marked]
    low, high = min(ends), max(ends)
    around = 0.5 * max(high - low, 0.1 * high)
    return max(0.0, low - around), high + around


def _mark_crossings(axes: Axes, result: DoubleEdge, last_left: float) -> None:
    """Dots where 50, 95 and 100 % flip, named on their right up to a norm of ``last_left``."""
    for share, norm in _crossings(result):
        axes.plot(norm, share, "o", color=style.TRAINED, markersize=5, zorder=5)
        name, offset = f"{share:.0%} at {norm:.2f}", 6 if share == 1 else -2
        if norm < last_left:
            below: Literal["top", "bottom"] = "bottom" if share == 1 else "top"
            _label(axes, name, (norm, share), (9, offset), ha="left", va=below)
        else:
            _label(axes, name, (norm, share), (-9, abs(offset)), ha="right", va="bottom")


def _crossings(result: DoubleEdge) -> list[tuple[float, float]]:
    universal = result.universal
    norms = ((0.5, universal.norm_50), (0.95, universal.norm_95), (1.0, universal.norm_100))
    return [(share, norm) for share, norm in norms if math.isfinite(norm)]


def _lengths(result: DoubleEdge) -> list[tuple[float, str]]:
    shift, robust = _shift_scale(result), _robust_scale(result)
    if math.isclose(shift, robust, rel_tol=1e-9):
        return [(shift, r"$\sqrt{d/k} = \sqrt{d}/2$ = " + wording.measured(shift))]
    return [
        (shift, r"$\sqrt{d/k}$ = " + wording.measured(shift)),
        (robust, r"$\sqrt{d}/2$ = " + wording.measured(robust)),
    ]


def _shift_scale(result: DoubleEdge) -> float:
    return math.sqrt(result.clusters.ambient_dim / result.clusters.n_clusters)


def _shown_shift(result: DoubleEdge) -> float:
    """Norm of the shift that flips 95 %, or the scale where none that was tried does."""
    norm = float(result.universal.norm_95)
    return norm if math.isfinite(norm) else _shift_scale(result)


def _robust_scale(result: DoubleEdge) -> float:
    return math.sqrt(result.clusters.ambient_dim) / 2


def _limiting_margin(result: DoubleEdge) -> float | None:
    """What the normalised margin tends to as d grows, where the means are about orthogonal."""
    if not about_orthogonal(result.clusters):
        return None
    rows = (row.theory for row in result.comparison if row.quantity == "normalised margin")
    return next(rows, None)


def _finite(values: FloatArray) -> FloatArray:
    return values[np.isfinite(values)]


def _largest_circle(result: DoubleEdge, plane: Plane) -> float:
    radii = [r.radius[plane.index] for r in (result.radii, result.robust_radii)]
    finite = [float(radius) for radius in radii if math.isfinite(radius)]
    return max([*finite, _shift_scale(result)])


def _size_of_pair(window: tuple[float, float, float, float]) -> tuple[float, float]:
    """Size of a figure of two landscapes at equal scales, with a colour bar below them."""
    width, tallest = style.TALL
    height = 0.4 * width * (window[3] - window[2]) / (window[1] - window[0])
    return width, min(tallest, max(3.2, height + 1.4))


def _window(plane: Plane, reach: float) -> tuple[float, float, float, float]:
    """Bounds of a landscape that shows the circles and the means."""
    points = np.stack([plane.own_mean, plane.opposite_mean])
    low = np.minimum(points.min(axis=0), -reach) - 0.12 * reach
    high = np.maximum(points.max(axis=0), reach) + 0.35 * reach
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])
