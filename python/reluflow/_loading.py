"""Files of labelled examples: .npz, .csv and .parquet."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reluflow._validation import FloatArray, as_array, require_memory

if TYPE_CHECKING:
    import pandas as pd

Arrays = dict[str, NDArray[Any]]

# What reading a damaged archive raises.
_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)
_X_COLUMN = re.compile(r"x(0|[1-9][0-9]*)")


def read_arrays(path: Path) -> Arrays:
    """X, y and, where the file has it, cluster; as they are, not validated."""
    suffix = _known_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    return _READERS[suffix](path)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes X, y and, where it is given, cluster."""
    _WRITERS[_known_suffix(path)](path, arrays)


def _known_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise OSError(f"{path}: the name of a data set ends in {', '.join(_READERS)}")
    return suffix


def _read_npz(path: Path) -> Arrays:
    try:
        archive = np.load(path, allow_pickle=False)
    except _DAMAGE as error:
        raise OSError(f"{path} is not an .npz file, or is truncated: {error}") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise OSError(f"{path} is not an .npz file; it holds a single array")
    with archive:
        _require_names(path, "array", archive.files, ("X", "y"))
        stored = archive.zip.infolist() if archive.zip is not None else []
        require_memory(str(path), sum(member.file_size for member in stored))
        return {name: _member(path, archive, name) for name in archive.files}


def _member(path: Path, archive: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return archive[name]
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path}: array {name} holds pickled objects, which are never loaded; save numbers"
            ) from None
        raise OSError(f"{path}: array {name} is damaged: {error}") from None


def _read_csv(path: Path) -> Arrays:
    # Imported here because it takes most of a second.
    import pandas as pd

    try:
        frame = pd.read_csv(
            path, skipinitialspace=True, float_precision="round_trip", low_memory=False
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise OSError(f"{path} cannot be read as CSV: {_first_line(error)}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"{path}: rows have more cells than the header has columns")
    return _from_frame(path, frame)


def _read_parquet(path: Path) -> Arrays:
    import pandas as pd
    import pyarrow

    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except (pyarrow.ArrowException, OSError) as error:
        raise OSError(f"{path} cannot be read as Parquet: {_first_line(error)}") from None
    return _from_frame(path, frame)


def _from_frame(path: Path, frame: pd.DataFrame) -> Arrays:
    names = [str(name) for name in frame.columns]
    frame.columns = names
    x_columns = [name for name in names if _X_COLUMN.fullmatch(name)]
    _require_names(path, "column", [name for name in names if name not in x_columns], ("y",))
    _require_no_gap(path, x_columns)
    x_columns.sort(key=_number)
    arrays: Arrays = {
        "X": np.column_stack([_column(path, frame, name) for name in x_columns]),
    }
    for name in ("y", "cluster"):
        if name in names:
            arrays[name] = _column(path, frame, name)
    return arrays


def _require_names(
    path: Path, kind: str, names: Collection[str], required: Collection[str]
) -> None:
    """Refuses names other than the required ones and ``cluster``."""
    unknown = [name for name in names if name not in (*required, "cluster")]
    missing = [name for name in required if name not in names]
    expected = ("X" if kind == "array" else "x0, x1, ...") + ", y and optionally cluster"
    if unknown:
        raise ValueError(f"{path}: unknown {kind} {', '.join(unknown)}; expected {expected}")
    if missing:
        raise ValueError(f"{path}: {kind} {', '.join(missing)} is missing; expected {expected}")


def _require_no_gap(path: Path, x_columns: Collection[str]) -> None:
    present = {_number(name) for name in x_columns}
    missing = [i for i in range(max(present, default=0) + 1) if i not in present]
    if missing:
        raise ValueError(
            f"{path}: column x{missing[0]} is missing; expected x0, x1, ... without a gap"
        )
    if len(present) < len(x_columns):
        raise ValueError(f"{path}: columns x0, x1, ... must not repeat")


def _number(x_column: str) -> int:
    return int(x_column[1:])


def _column(path: Path, frame: pd.DataFrame, name: str) -> FloatArray:
    import pandas as pd

    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column):
        numbers = pd.to_numeric(column.astype(str), errors="coerce")
        wrong = np.flatnonzero(numbers.isna() & column.notna())
        if len(wrong):
            raise ValueError(
                f"{path}: column {name} must be numbers; in row {wrong[0]} it is "
                f"{column.iloc[wrong[0]]!r}"
            )
        column = numbers
    empty = np.flatnonzero(column.isna())
    if len(empty):
        raise ValueError(f"{path}: column {name} has no number in row {empty[0]}")
    try:
        return as_array(name, column.to_numpy(), 1)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _write_csv(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    _to_frame(arrays).to_csv(path, index=False)


def _write_parquet(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    _to_frame(arrays).to_parquet(path, index=False, engine="pyarrow")


def _to_frame(arrays: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    import pandas as pd

    X = arrays["X"]
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    rest = {name: values.astype(np.int64) for name, values in arrays.items() if name != "X"}
    return pd.concat([frame, pd.DataFrame(rest)], axis=1)


_READERS = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
_WRITERS = {".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet}
