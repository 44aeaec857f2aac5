"""The page of a study: question, settings, table, figures, what failed, how to reproduce it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reluflow._provenance import __version__
from reluflow.experiments.spec import Figure, figure
from reluflow.experiments.store import DONE, FAILED, POSTPONED, Row, Store, StoredStudy
from reluflow.report import style
from reluflow.report.page import inline_svg, page_environment
from reluflow.report.study_figures import draw, figure_table
from reluflow.report.study_tables import SEED, Slope, means_table, slope_of
from reluflow.report.wording import number
from reluflow.report.write import check_writable, refusal, staged

if TYPE_CHECKING:
    import pandas as pd

PAGE, SPEC, RUNS, MEANS = "index.html", "study.toml", "runs.csv", "means.csv"
_FILE = re.compile(
    r"index\.html|study\.(toml|json)|runs\.csv|means\.csv|figures/[^/]+\.(svg|pdf|csv)"
)
# Rows of the table that are shown on the page; the file has all.
_SHOWN = 60


@dataclass(frozen=True)
class _Drawn:
    """A figure that is ready for the page."""

    description: Figure
    svg: str
    pdf: bytes
    table: pd.DataFrame
    slopes: tuple[Slope, ...]


def write_study_reports(
    store: str | Path, folder: str | Path | None = None, *, study: str | None = None
) -> list[Path]:
    """Writes a page for every study of a store.

    Parameters
    ----------
    store : path
        A store that `sweep` wrote; it may be in use, and the study unfinished.
    folder : path, optional
        Where to; ``<study>-report`` beside the store by default. With several studies each has a
        folder of its name in it.
    study : str, optional
        Only this one.

    Returns
    -------
    list of Path
        The pages.

    Raises
    ------
    StoreError
        If the store is missing or damaged.
    ValueError
        If there is no such study, or none at all.
    OSError
        If a folder cannot be written, or holds other things than an earlier report.
    """
    with Store(store) as opened:
        chosen = opened.studies() if study is None else (opened.study(study),)
        if not chosen:
            raise ValueError(f"store {store} has no study")
        return [
            _write_report(opened, one, _folder(Path(store), folder, one, len(chosen)))
            for one in chosen
        ]


def check_study_folder(store: str | Path, folder: str | Path | None, study: str) -> None:
    """Refuses, before anything is computed, a folder that `write_study_reports` could not use.

    Raises
    ------
    OSError
        If the folder cannot be written, or holds other things than an earlier report.
    """
    chosen = Path(store).with_name(f"{study}-report") if folder is None else Path(folder)
    check_writable(chosen, _belongs)


def _folder(store: Path, folder: str | Path | None, study: StoredStudy, count: int) -> Path:
    if folder is None:
        return store.with_name(f"{study.name}-report")
    return Path(folder) / study.name if count > 1 else Path(folder)


def _belongs(name: str) -> bool:
    return _FILE.fullmatch(name) is not None


def _write_report(store: Store, study: StoredStudy, folder: Path) -> Path:
    target = check_writable(folder, _belongs)
    frame = store.frame(study.name)
    drawn = list(_figures(study, frame))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged(target, _belongs) as staging:
            (staging / "figures").mkdir()
            for one in drawn:
                stem = staging / "figures" / one.description.name
                stem.with_suffix(".svg").write_text(one.svg, encoding="utf-8")
                stem.with_suffix(".pdf").write_bytes(one.pdf)
                one.table.to_csv(stem.with_suffix(".csv"), index=False, lineterminator="\n")
            frame.to_csv(staging / RUNS, index=False, lineterminator="\n")
            _means(study, frame).to_csv(staging / MEANS, index=False, lineterminator="\n")
            (staging / _spec_name(study)).write_text(study.source, encoding="utf-8")
            page = _render(study, frame, list(store.rows(study.name)), drawn)
            (staging / PAGE).write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise refusal(target, error) from None
    return target / PAGE


def _spec_name(study: StoredStudy) -> str:
    return "study.json" if study.source.lstrip().startswith("{") else SPEC


def _figures(study: StoredStudy, frame: pd.DataFrame) -> Iterator[_Drawn]:
    done = frame[frame["status"] == DONE]
    for document in study.document.get("figures", ()):
        description = figure(document)
        if description.x not in done or not any(name in done for name in description.y):
            continue
        table = figure_table(description, done)
        drawing = draw(description, table)
        yield _Drawn(
            description, style.svg(drawing), style.pdf(drawing), table, _slopes(description, done)
        )


def _slopes(description: Figure, frame: pd.DataFrame) -> tuple[Slope, ...]:
    if not description.slope:
        return ()
    parts = [("", frame)]
    if description.by is not None:
        parts = [(f"{description.by} = {v}", rows) for v, rows in frame.groupby(description.by)]
    found = [
        slope_of(rows, description.x, column, line)
        for column in description.y
        for line, rows in parts
        if column in frame
    ]
    # Theory may well be the same for all lines.
    found += [
        slope_of(parts[0][1], description.x, column)
        for column in description.theory
        if column in frame
    ]
    return tuple(one for one in found if one is not None)


def _means(study: StoredStudy, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a combination of what varies, with every measured number that is in a figure."""
    done = frame[frame["status"] == DONE]
    described = [figure(document) for document in study.document.get("figures", ())]
    shown = dict.fromkeys(name for one in described for name in (*one.y, *one.theory))
    return means_table(done, study.varied, [name for name in shown if name in done])


def _render(
    study: StoredStudy,
    frame: pd.DataFrame,
    rows: list[tuple[int, Row | None, dict[str, Any]]],
    drawn: list[_Drawn],
) -> str:
    document = study.document
    settings = rows[0][2] if rows else {}
    constant = {
        name: _shown(value)
        for name, value in settings.items()
        if name not in study.varied and name != SEED and value is not None
    }
    varied = {
        name: _values([given[name] for _, _, given in rows]) for name in (*study.varied, SEED)
    }
    means = _means(study, frame)
    template = page_environment().get_template("study.html.j2")
    return template.render(
        title=document.get("title", study.name),
        name=study.name,
        question=document.get("question", ""),
        paragraphs=[part for part in str(document.get("text", "")).split("\n\n") if part.strip()],
        version=__version__,
        quick=study.quick,
        total=len(rows),
        done=sum(row is not None and row.status == DONE for _, row, _ in rows),
        missing=sum(row is None for _, row, _ in rows),
        seeds=len({given[SEED] for _, _, given in rows}),
        failures=_failures(rows),
        postponed=_postponed(study, rows),
        drawn=drawn,
        drawings={
            one.description.name: inline_svg(
                one.svg, one.description.name, one.description.title or one.description.name
            )
            for one in drawn
        },
        slopes=[(one, slope, _slope_label(one, slope)) for one in drawn for slope in one.slopes],
        header=_header(study, means),
        table=[_cells(study, means, row) for row in means.head(_SHOWN).to_dict("records")],
        left_out=max(0, len(means) - _SHOWN),
        constant=constant,
        varied=varied,
        provenance=_provenance(study, frame),
        command=study.command,
        source=study.source,
        spec_name=_spec_name(study),
    )


def _failures(rows: list[tuple[int, Row | None, dict[str, Any]]]) -> list[tuple[str, int, str]]:
    """Reason, how often, and the settings of the first."""
    failed = [row for _, row, _ in rows if row is not None and row.status == FAILED]
    counts = Counter(row.reason for row in failed)
    first = {row.reason: row for row in reversed(failed)}
    return [
        (reason, count, json.dumps(dict(first[reason].settings)))
        for reason, count in counts.most_common(20)
    ]


def _postponed(
    study: StoredStudy, rows: list[tuple[int, Row | None, dict[str, Any]]]
) -> list[tuple[list[str], str]]:
    """What varies in every run that was left out, and why it was."""
    return [
        ([_shown(given[name]) for name in study.varied], row.reason)
        for _, row, given in rows
        if row is not None and row.status == POSTPONED
    ]


def _header(study: StoredStudy, means: pd.DataFrame) -> list[str]:
    columns = [name for name in means if not str(name).endswith(("_low", "_high", "_infinite"))]
    return [str(name).replace("_", " ") for name in columns]


def _cells(study: StoredStudy, means: pd.DataFrame, row: dict[Any, Any]) -> list[tuple[str, str]]:
    """A mean, and half the length of its interval, a cell."""
    cells = []
    for name, value in row.items():
        if str(name).endswith(("_low", "_high", "_infinite")):
            continue
        text = _shown(value)
        low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
        half = f"± {number((high - low) / 2, 2)}" if high > low else ""
        infinite = row.get(f"{name}_infinite", 0)
        if infinite and infinite == infinite:
            text += f" ({int(infinite)} infinite)"
        cells.append((text, half))
    return cells


def _slope_label(one: _Drawn, slope: Slope) -> str:
    name = dict(one.description.labels).get(slope.column, slope.column.replace("_", " "))
    prefix = "theory: " if slope.column in one.description.theory else ""
    return prefix + ", ".join(part for part in (name, slope.line.replace("_", " ")) if part)


def _values(values: list[Any]) -> str:
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 12:
        ordered = sorted(distinct)
        return f"{len(distinct)} values from {_shown(ordered[0])} to {_shown(ordered[-1])}"
    return ", ".join(_shown(value) for value in distinct)


def _provenance(study: StoredStudy, frame: pd.DataFrame) -> dict[str, str]:
    found = {
        "reluflow": _values(frame["version"].tolist()),
        "instruction set": _values(frame["instruction_set"].tolist()),
        "experiment": study.experiment,
        "version of the numerics": _values(frame["numerics"].tolist()),
        "workers": _values(frame["executor"].tolist()),
        "time on one core": f"{frame['seconds'].sum():,.0f} s",
        "started": study.started,
    }
    return {name: text for name, text in found.items() if text}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and math.isfinite(value):
        return number(value)
    return str(value)
