"""Files of labelled examples: .npz, .csv and .parquet."""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reluflow._validation import FloatArray, require_memory

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
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
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
    # Excel writes a byte order mark, which utf-8-sig skips.
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            header = [name.strip() for name in next(lines, [])]
            _require_columns(path, header)
            rows = [
                _numbers(f"{path}, line {lines.line_num}", header, cells)
                for cells in lines
                if cells
            ]
        except (csv.Error, UnicodeDecodeError) as error:
            raise OSError(f"{path} cannot be read as CSV: {error}") from None
    table = np.array(rows).reshape(len(rows), len(header))
    return _from_columns({name: table[:, i] for i, name in enumerate(header)})


def _numbers(where: str, header: Sequence[str], cells: Sequence[str]) -> FloatArray:
    if len(cells) != len(header):
        raise ValueError(f"{where}: {len(cells)} cells under {len(header)} column names")
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        name, cell = next(
            pair for pair in zip(header, cells, strict=True) if not _is_number(pair[1])
        )
        raise ValueError(f"{where}: column {name} must be numbers; it is {cell!r}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Arrays:
    # Imported here because it takes a while, and only this format needs it.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            shape = file.metadata
            require_memory(str(path), 8.0 * shape.num_rows * shape.num_columns)
            _require_columns(path, file.schema_arrow.names)
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(f"{path} cannot be read as Parquet: {reason}") from None
    return _from_columns(
        {name: _values(path, name, table.column(name)) for name in table.column_names}
    )


def _values(path: Path, name: str, column: Any) -> NDArray[Any]:
    from pyarrow import types

    is_number = (types.is_integer, types.is_floating, types.is_boolean)
    if not any(check(column.type) for check in is_number):
        raise ValueError(f"{path}: column {name} must be numbers; its type is {column.type}")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise ValueError(f"{path}: column {name} has no number in row {row}")
    values: NDArray[Any] = column.to_numpy()
    return values


def _require_columns(path: Path, names: Sequence[str]) -> None:
    x_columns = [name for name in names if _X_COLUMN.fullmatch(name)]
    _require_names(path, "column", [name for name in names if name not in x_columns], ("y",))
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: there is more than one column {repeated}")
    present = {_index(name) for name in x_columns}
    # Of len(present) + 1 candidates at least one is missing.
    missing = next(i for i in range(len(present) + 1) if i not in present)
    if missing < max(len(present), 1):
        raise ValueError(f"{path}: column x{missing} is missing; expected x0, x1, ... without gap")


def _require_names(
    path: Path, kind: str, names: Collection[str], required: Collection[str]
) -> None:
    """Refuses names other than the required ones and ``cluster``."""
    expected = ("X" if kind == "array" else "x0, x1, ...") + ", y and optionally cluster"
    unknown = [name for name in names if name not in (*required, "cluster")]
    if unknown:
        shown = ", ".join(unknown[:5]) + ", ..." * (len(unknown) > 5)
        raise ValueError(f"{path}: unknown {kind} {shown}; expected {expected}")
    missing = [name for name in required if name not in names]
    if missing:
        raise ValueError(f"{path}: {kind} {', '.join(missing)} is missing; expected {expected}")


def _index(x_column: str) -> int:
    return int(x_column[1:])


def _from_columns(columns: Mapping[str, NDArray[Any]]) -> Arrays:
    x_columns = sorted((name for name in columns if _X_COLUMN.fullmatch(name)), key=_index)
    X = np.column_stack([columns[name] for name in x_columns])
    return {"X": X, **{name: columns[name] for name in ("y", "cluster") if name in columns}}


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _write_csv(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    columns = _to_columns(arrays)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        # The csv module writes floats with all digits that are needed to read them back.
        lines.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _write_parquet(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(_to_columns(arrays)), path)


def _to_columns(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    columns: Arrays = {f"x{i}": column for i, column in enumerate(arrays["X"].T)}
    return columns | {
        name: values.astype(np.int64) for name, values in arrays.items() if name != "X"
    }


_READERS = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
_WRITERS = {".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet}
