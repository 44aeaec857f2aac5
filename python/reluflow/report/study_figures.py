"""The figures of a study, each drawn from the table that is written beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow.experiments.spec import Figure as Description
from reluflow.report import style
from reluflow.report.study_tables import means_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours without the yellow, which is too light for lines in print. Markers and
# dashes tell lines apart where colour does not.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#1b2330")
_MARKERS = "os^Dv<>P"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))

# Ticks between powers of ten on axes whose ends have at most this ratio.
_SUBDIVISIONS = (
    (3.0, (1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0)),
    (10.0, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)),
    (100.0, (1.0, 2.0, 5.0)),
)

# Letters that fit into the width of a figure, and those that the sample of a line takes.
_LETTERS, _HANDLE = 88, 6


def figure_table(description: Description, frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a figure: means over all that is not on its axes, with intervals."""
    by = [name for name in (description.x, description.by) if name is not None]
    wanted = (*description.y, *description.theory, description.bound)
    columns = [name for name in wanted if name is not None and name in frame and name not in by]
    table = means_table(frame, by, columns)
    return table.sort_values(by[::-1], kind="stable").reset_index(drop=True)


def draw(description: Description, table: pd.DataFrame) -> Figure:
    """The figure."""
    with style.drawing():
        figure = style.new_figure(style.COLUMN)
        ax = figure.subplots()
        if description.kind == "map":
            _draw_map(ax, description, table)
        else:
            _draw_lines(ax, description, table)
            _draw_legend(figure, ax)
        return figure


def _draw_legend(figure: Figure, ax: Axes) -> None:
    """Below the axes, where it hides nothing; a lone line is what the axis says."""
    labels = ax.get_legend_handles_labels()[1]
    if len(labels) < 2:
        return
    columns = next(count for count in (3, 2, 1) if _letters(labels, count) <= _LETTERS)
    if len(labels) > columns:
        figure.set_size_inches(style.TALL)
    figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.2)


def _letters(labels: Sequence[str], columns: int) -> int:
    """Width of a legend in letters; a single column is as wide as it has to be."""
    if columns == 1:
        return 0
    parts = np.array_split(np.array([len(label) for label in labels]), columns)
    return sum(int(part.max(initial=0)) + _HANDLE for part in parts)


def lines(description: Description, table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Column, value of ``by`` as text, and rows of every line of a figure."""
    for column in description.y:
        if description.by is None:
            yield column, "", table
            continue
        for value, rows in table.groupby(description.by, sort=False):
            yield column, _value_label(description, description.by, value), rows


def _draw_lines(ax: Axes, description: Description, table: pd.DataFrame) -> None:
    drawn = [one for one in lines(description, table) if one[0] in table]
    for index, (column, value, rows) in enumerate(drawn):
        label = ", ".join(text for text in (_label(description, column), value) if text)
        if len(description.y) == 1 and value:
            label = value
        _draw_line(ax, description, column, rows, index, label)
    for index, column in enumerate(name for name in description.theory if name in table):
        _draw_theory(ax, description, column, table, index)
    ax.set(
        xscale=description.x_scale,
        yscale=description.y_scale,
        xlabel=description.x_label or description.x,
        ylabel=description.y_label or ", ".join(description.y),
    )
    if description.y_limits:
        ax.set_ylim(*description.y_limits)
    _plain_ticks(ax, description)
    _tick_at_values(ax, description, table)
    ax.grid(True, which="major")


def _draw_line(
    ax: Axes,
    description: Description,
    column: str,
    rows: pd.DataFrame,
    index: int,
    label: str,
) -> None:
    x, y, low, high = (
        rows[name].to_numpy(float)
        for name in (description.x, column, f"{column}_low", f"{column}_high")
    )
    if description.y_scale == "log":
        y = np.where(y > 0, y, np.nan)
        low = np.where(low > 0, low, y)
    colour = _COLOURS[index % len(_COLOURS)]
    marker = _MARKERS[index % len(_MARKERS)]
    dashes = _DASHES[index % len(_DASHES)]
    ax.plot(x, y, color=colour, marker=marker, markersize=4.5, linestyle=dashes, label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    # A band has no width at a lone point.
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(y)
    if known.any():
        reach = np.maximum([y - low, high - y], 0)[:, known]
        ax.errorbar(x[known], y[known], reach, color=colour, fmt="none", capsize=2, linewidth=1)
    if description.bound in rows:
        below = (rows[column] == 0).to_numpy()
        bound = rows[description.bound].to_numpy(float)
        ax.plot(x[below], bound[below], color=colour, marker="$\\downarrow$", linestyle="none")


def _draw_theory(
    ax: Axes, description: Description, column: str, table: pd.DataFrame, index: int
) -> None:
    parts = [table] if description.by is None else [r for _, r in table.groupby(description.by)]
    # Where theory is the same for all lines, one is enough.
    distinct: list[Any] = []
    for rows in parts:
        points = rows[[description.x, column]].dropna().to_numpy(float)
        if len(points) and not any(np.array_equal(points, other) for other in distinct):
            distinct.append(points)
    for number, points in enumerate(distinct):
        ax.plot(
            *points.T,
            color=style.INK,
            linestyle=(0, (2 + 2 * index, 2)),
            linewidth=1.2,
            label=None if number else f"theory: {_label(description, column)}",
            zorder=3,
        )


def _draw_map(ax: Axes, description: Description, table: pd.DataFrame) -> None:
    column, vertical = description.y[0], str(description.by)
    if column not in table:
        return
    grid = table.pivot_table(
        index=vertical, columns=description.x, values=column, dropna=False, sort=True
    )
    image = ax.pcolormesh(
        np.arange(grid.shape[1] + 1),
        np.arange(grid.shape[0] + 1),
        np.ma.masked_invalid(grid.to_numpy(float)),
        cmap="cividis",
        edgecolors="white",
        linewidth=0.5,
    )
    assert ax.figure is not None
    ax.figure.colorbar(image, ax=ax, label=description.y_label or _label(description, column))
    middle = image.get_clim()
    for row, values in enumerate(grid.to_numpy(float)):
        for place, value in enumerate(values):
            bright = np.isfinite(value) and value > (middle[0] + middle[1]) / 2
            ax.text(
                place + 0.5,
                row + 0.5,
                f"{value:.2g}" if np.isfinite(value) else "-",
                ha="center",
                va="center",
                fontsize=7,
                color=style.INK if bright or not np.isfinite(value) else "white",
            )
    ax.set_xticks(np.arange(grid.shape[1]) + 0.5, [_short(value) for value in grid.columns])
    ax.set_yticks(np.arange(grid.shape[0]) + 0.5, [_short(value) for value in grid.index])
    ax.set(xlabel=description.x_label or description.x, ylabel=_setting(description, vertical))


def _plain_ticks(ax: Axes, description: Description) -> None:
    """On a logarithmic axis of few decades, some numbers of each rather than powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = ax.get_ylim()
    if description.y_scale != "log" or high > 100 * low:
        return
    parts = next(subs for reach, subs in _SUBDIVISIONS if high <= reach * low)
    ax.yaxis.set_major_locator(LogLocator(subs=parts))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    ax.yaxis.set_minor_locator(NullLocator())


def _tick_at_values(ax: Axes, description: Description, table: pd.DataFrame) -> None:
    """On a logarithmic axis with few values, the values themselves are the ticks."""
    values = np.unique(table[description.x].to_numpy(float))
    if description.x_scale != "log" or len(values) > 9 or values[-1] > 200 * values[0]:
        return
    if (values != np.rint(values)).any():
        return
    ax.set_xticks(values, [_short(value) for value in values])
    ax.set_xticks([], minor=True)


def _label(description: Description, column: str) -> str:
    return dict(description.labels).get(column, column.replace("_", " "))


def _setting(description: Description, name: str) -> str:
    return dict(description.labels).get(name, name.replace("_", " "))


def _value_label(description: Description, name: str, value: Any) -> str:
    """A value of a setting: numbers with the setting's name, texts speak for themselves."""
    if isinstance(value, str):
        return dict(description.labels).get(value, value.replace("_", " "))
    return f"{_setting(description, name)} = {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
