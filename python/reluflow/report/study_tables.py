"""Statistics of a study: means over the seeds with intervals, and fitted power laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from reluflow._validation import FloatArray

if TYPE_CHECKING:
    import pandas as pd

SEED = "seed"
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes
    ----------
    mean : float
        nan where there is no finite value.
    low, high : float
        95 % interval by Student's t; nan for fewer than two values.
    count : int
        Finite values.
    infinite : int
        Values that were infinite and are left out.
    """

    mean: float
    low: float
    high: float
    count: int
    infinite: int


def mean_of(values: Sequence[Any]) -> Mean:
    """Mean and interval of the finite ones among ``values``; None and nan are left out."""
    numbers = np.array([math.nan if value is None else value for value in values], dtype=float)
    finite = numbers[np.isfinite(numbers)]
    infinite = int(np.isinf(numbers).sum())
    if not len(finite):
        return Mean(math.nan, math.nan, math.nan, 0, infinite)
    if (finite == finite[0]).all():
        # Rounding would make an interval out of a constant.
        same = float(finite[0])
        ends = (same, same) if len(finite) > 1 else (math.nan, math.nan)
        return Mean(same, *ends, len(finite), infinite)
    return Mean(float(finite.mean()), *interval(finite), len(finite), infinite)


def interval(values: FloatArray) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; nan for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = stdtrit(len(values) - 1, 0.5 + _CONFIDENCE / 2) * values.std(ddof=1)
    half /= math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def means_table(frame: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """One row a combination of ``by``, in their order: mean, interval and count of each column."""
    import pandas as pd

    rows = []
    groups = frame.groupby(list(by), sort=False, dropna=False) if by else [((), frame)]
    for given, group in groups:
        names = given if isinstance(given, tuple) else (given,)
        row: dict[str, Any] = dict(zip(by, names, strict=True))
        row["runs"] = len(group)
        for column in columns:
            found = mean_of(group[column].tolist())
            row[column] = found.mean
            row[f"{column}_low"], row[f"{column}_high"] = found.low, found.high
            if found.infinite:
                row[f"{column}_infinite"] = found.infinite
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Slope:
    """An exponent p of y ~ x^p.

    Attributes
    ----------
    column : str
    line : str
        Which of several lines; empty where there is one.
    exponent : float
        Mean over the seeds of the exponent fitted to each by least squares of logarithms.
    low, high : float
        Its 95 % interval over the seeds, which the runs of one seed may share chance in.
    seeds : int
    """

    column: str
    line: str
    exponent: float
    low: float
    high: float
    seeds: int


def slope_of(frame: pd.DataFrame, x: str, column: str, line: str = "") -> Slope | None:
    """The exponent of ``column`` in ``x``, or None where fewer than two points can be fitted."""
    fitted = []
    for _, runs in frame.groupby(SEED, sort=False):
        points = runs[[x, column]].dropna().to_numpy(dtype=float)
        points = points[np.isfinite(points).all(axis=1) & (points > 0).all(axis=1)]
        if len(np.unique(points[:, 0])) >= 2:
            fitted.append(float(np.polyfit(np.log(points[:, 0]), np.log(points[:, 1]), 1)[0]))
    if not fitted:
        return None
    exponents = np.array(fitted)
    low, high = interval(exponents)
    return Slope(column, line, float(exponents.mean()), low, high, len(exponents))
