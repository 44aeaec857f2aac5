"""Where the runs of studies are kept: one SQLite file, written by one driver at a time."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow._validation import FloatArray
from reluflow.experiments._lock import FileLock
from reluflow.experiments.registry import PROVENANCE, Scalar
from reluflow.experiments.spec import Run, Study

if TYPE_CHECKING:
    import pandas as pd

DONE = "done"
FAILED = "failed"
# Left out because it takes long; the reason says how long.
POSTPONED = "postponed"

_APPLICATION_ID = 0x72666C77
_FORMAT = 1
_SCHEMA = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY,
    experiment TEXT NOT NULL,
    numerics INTEGER NOT NULL,
    settings TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    scalars TEXT NOT NULL,
    version TEXT NOT NULL,
    instruction_set TEXT NOT NULL,
    seconds REAL NOT NULL,
    started TEXT NOT NULL,
    finished TEXT NOT NULL,
    host TEXT NOT NULL,
    executor TEXT NOT NULL,
    threads INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE arrays (
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (key, name)
) WITHOUT ROWID;
CREATE TABLE studies (
    name TEXT PRIMARY KEY,
    document TEXT NOT NULL,
    source TEXT NOT NULL,
    experiment TEXT NOT NULL,
    varied TEXT NOT NULL,
    quick INTEGER NOT NULL,
    command TEXT NOT NULL,
    started TEXT NOT NULL
);
CREATE TABLE members (
    study TEXT NOT NULL,
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (study, position)
) WITHOUT ROWID;
CREATE TABLE driver (host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL);
"""


class StoreError(OSError):
    """A store that cannot be used; what it holds is left as it is."""


@dataclass(frozen=True)
class Row:
    """What the store keeps of a run beside its arrays."""

    key: str
    experiment: str
    numerics: int
    settings: Mapping[str, Scalar]
    status: str
    reason: str
    scalars: Mapping[str, Scalar]
    version: str
    instruction_set: str
    seconds: float
    started: str
    finished: str
    host: str
    executor: str
    threads: int


@dataclass(frozen=True)
class StoredStudy:
    """What the store knows of a study.

    Attributes
    ----------
    name : str
    document : dict
        The study as it was written.
    source : str
        Its text.
    experiment : str
    varied : tuple of str
        The settings that vary.
    quick : bool
    command : str
        What reproduces it.
    started : str
        When it was last started.
    """

    name: str
    document: Mapping[str, Any]
    source: str
    experiment: str
    varied: tuple[str, ...]
    quick: bool
    command: str
    started: str


@dataclass(frozen=True)
class Change:
    """What an edited study has in common with the one of the same name in the store."""

    kept: int
    added: int
    dropped: int

    def __str__(self) -> str:
        return (
            f"the study was edited since it was last run: {self.kept} runs are the same, "
            f"{self.added} are new, {self.dropped} are no longer part of it (they stay in the "
            "store)"
        )


class Store:
    """The runs of studies in one file.

    Use as a context manager. ``Store(path)`` reads; ``Store(path, write=True)`` makes the file if
    need be, writes, and is refused while another driver writes.

    Raises
    ------
    StoreError
        If the file is missing, damaged, no store, of a newer format, read-only (to write), or in
        use by another driver (to write).
    """

    def __init__(self, path: str | Path, *, write: bool = False) -> None:
        self.path = Path(path).expanduser()
        self.write = write
        self._closing = ExitStack()
        with ExitStack() as opened:
            if write:
                self._require_writable()
                opened.callback(self._locked().release)
            with self._explained("opened"):
                self._connection = opened.enter_context(closing(self._connect()))
                if write:
                    self._create_if_empty()
                self._check()
            self._closing = opened.pop_all()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, and lets other drivers in."""
        self._closing.close()

    # -- opening -----------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self.write:
            return sqlite3.connect(self.path, isolation_level=None, timeout=30)
        if not self.path.is_file():
            raise StoreError(f"store {self.path} does not exist")
        uri = f"{self.path.absolute().as_uri()}?{self._reading()}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _reading(self) -> str:
        """How a reader opens the file.

        Readers need files beside the store. The last one to close removes them, with what a killed
        driver left in them, if it may write; where nobody can have made them, the file alone is
        all there is.
        """
        folder, file = (os.access(path, os.W_OK) for path in (self.path.parent, self.path))
        if folder and file:
            return "mode=rw"
        written = self.path.with_name(f"{self.path.name}-wal").exists()
        archived = not folder or not self.path.stat().st_mode & 0o222
        return "immutable=1" if archived and not written else "mode=ro"

    def _create_if_empty(self) -> None:
        connection = self._connection
        if connection.execute("PRAGMA schema_version").fetchone()[0]:
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {_FORMAT}; COMMIT;"
        )

    def _check(self) -> None:
        connection = self._connection
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise StoreError(f"{self.path} is a database, but not a store of studies")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _FORMAT:
            raise StoreError(
                f"store {self.path} has format {version}; this version reads {_FORMAT}"
            )
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    def _require_writable(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreError(f"store {self.path} cannot be written: there is no folder {folder}")
        target = self.path if self.path.exists() else folder
        if not os.access(target, os.W_OK) or not os.access(folder, os.W_OK):
            raise StoreError(
                f"store {self.path} is read-only; make it and its folder writable, or copy it"
            )

    def _locked(self) -> FileLock:
        """The lock of the driver; it is on a file of its own, so that readers are not kept out."""
        try:
            return FileLock(self.path.with_name(f"{self.path.name}-driver"))
        except BlockingIOError:
            raise StoreError(
                f"store {self.path} is in use{self._by_whom()}; wait for it, or use another store"
            ) from None
        except OSError as error:
            raise StoreError(f"store {self.path} cannot be locked: {error.strerror}") from None

    def _by_whom(self) -> str:
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as reader:
                host, pid, started = reader.execute("SELECT * FROM driver").fetchone()
        except (sqlite3.Error, TypeError):
            return ""
        return f" by process {pid} on {host}, started {started}"

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns the database's errors into one line that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = " ".join(str(error).split())
            if "full" in text or "disk I/O" in text:
                raise StoreError(
                    f"store {self.path} could not be {what}: the disk is full or failing ({text}); "
                    "every run that was stored is safe: make room and run the same command again"
                ) from None
            if "readonly" in text or "unable to open" in text:
                raise StoreError(f"store {self.path} could not be {what}: {text}") from None
            raise StoreError(
                f"store {self.path} is damaged or no store ({text}); it was left as it is: try "
                f"'sqlite3 {self.path} .recover', or use another store"
            ) from None

    # -- writing -----------------------------------------------------------------------------

    def begin(self, study: Study, runs: Sequence[Run], command: str) -> Change | None:
        """Writes down what the study is; tells how it differs from an earlier one of its name."""
        now = timestamp()
        with self._explained("written"), self._transaction() as connection:
            earlier = {
                key
                for (key,) in connection.execute(
                    "SELECT key FROM members WHERE study = ?", (study.name,)
                )
            }
            connection.execute("DELETE FROM driver")
            connection.execute(
                "INSERT INTO driver VALUES (?, ?, ?)", (socket.gethostname(), os.getpid(), now)
            )
            connection.execute(
                "INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    study.name,
                    json.dumps(study.document),
                    study.source,
                    study.experiment.name,
                    json.dumps(study.varied),
                    int(study.quick),
                    command,
                    now,
                ),
            )
            connection.execute("DELETE FROM members WHERE study = ?", (study.name,))
            connection.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?)",
                ((study.name, run.position, run.key, json.dumps(run.settings)) for run in runs),
            )
        current = {run.key for run in runs}
        if not earlier or earlier == current:
            return None
        return Change(len(earlier & current), len(current - earlier), len(earlier - current))

    def add(self, rows: Iterable[tuple[Row, Mapping[str, FloatArray]]]) -> None:
        """Writes finished runs, all of them or none."""
        with self._explained("written"), self._transaction() as connection:
            for row, arrays in rows:
                connection.execute(
                    f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * 15)})",
                    (
                        row.key,
                        row.experiment,
                        row.numerics,
                        json.dumps(row.settings),
                        row.status,
                        row.reason,
                        json.dumps(row.scalars),
                        row.version,
                        row.instruction_set,
                        row.seconds,
                        row.started,
                        row.finished,
                        row.host,
                        row.executor,
                        row.threads,
                    ),
                )
                connection.execute("DELETE FROM arrays WHERE key = ?", (row.key,))
                connection.executemany(
                    "INSERT INTO arrays VALUES (?, ?, ?, ?, ?)",
                    ((row.key, name, *_packed(array)) for name, array in arrays.items()),
                )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # -- reading -----------------------------------------------------------------------------

    def statuses(self) -> dict[str, str]:
        """Status of every stored run by its key."""
        with self._explained("read"):
            return dict(self._connection.execute("SELECT key, status FROM runs"))

    def seconds(self) -> dict[str, float]:
        """Seconds that every finished run took, by its key."""
        with self._explained("read"):
            return dict(
                self._connection.execute("SELECT key, seconds FROM runs WHERE status = ?", (DONE,))
            )

    def studies(self) -> tuple[StoredStudy, ...]:
        """The studies of the store, by name."""
        with self._explained("read"):
            found = self._connection.execute("SELECT * FROM studies ORDER BY name").fetchall()
        return tuple(
            StoredStudy(
                name,
                json.loads(document),
                source,
                experiment,
                tuple(json.loads(varied)),
                bool(quick),
                command,
                started,
            )
            for name, document, source, experiment, varied, quick, command, started in found
        )

    def study(self, name: str | None = None) -> StoredStudy:
        """The study of that name; without one, the only study of the store.

        Raises
        ------
        ValueError
            If there is none, or there are several.
        """
        studies = self.studies()
        names = ", ".join(study.name for study in studies) or "none"
        if name is None and len(studies) == 1:
            return studies[0]
        found = next((study for study in studies if study.name == name), None)
        if found is None:
            asked = "study must be named" if name is None else f"study={name!r} is unknown"
            raise ValueError(f"{asked}; store {self.path} has {names}")
        return found

    def rows(self, study: str) -> Iterator[tuple[int, Row | None, dict[str, Scalar]]]:
        """Position, row (None where it was not run) and settings of every run of a study."""
        with self._explained("read"):
            found = self._connection.execute(
                "SELECT members.position, members.settings, runs.* FROM members "
                "LEFT JOIN runs USING (key) WHERE study = ? ORDER BY members.position",
                (study,),
            ).fetchall()
        for position, settings, *columns in found:
            given = json.loads(settings)
            if columns[0] is None:
                yield position, None, given
                continue
            row = dict(zip(Row.__dataclass_fields__, columns, strict=True))
            row.update(settings=given, scalars=json.loads(row["scalars"]))
            yield position, Row(**row), given

    def frame(self, study: str | None = None) -> pd.DataFrame:
        """The runs of a study that are done, failed or postponed, one a row.

        Columns: the settings, ``status``, ``reason``, the measured scalars, and where the numbers
        come from. Between two runs of the same study only columns that end in ``seconds``, and
        ``host``, ``executor``, ``threads``, ``started``, ``finished`` may differ.
        """
        import pandas as pd

        rows = [row for _, row, _ in self.rows(self.study(study).name) if row is not None]
        scalars = dict.fromkeys(name for row in rows for name in row.scalars)
        settings = dict.fromkeys(name for row in rows for name in row.settings)
        columns: dict[str, list[Any]] = {
            name: [row.settings.get(name) for row in rows] for name in settings
        }
        columns["status"] = [row.status for row in rows]
        columns["reason"] = [row.reason for row in rows]
        columns.update({name: [row.scalars.get(name) for row in rows] for name in scalars})
        columns.update({name: [getattr(row, name) for row in rows] for name in PROVENANCE})
        return pd.DataFrame(columns)

    def arrays(self, key: str) -> dict[str, FloatArray]:
        """The arrays of a run by name."""
        with self._explained("read"):
            found = self._connection.execute(
                "SELECT name, dtype, shape, data FROM arrays WHERE key = ? ORDER BY name", (key,)
            ).fetchall()
        return {name: _unpacked(dtype, shape, data) for name, dtype, shape, data in found}


def export(
    frame: pd.DataFrame, *, csv: str | Path | None = None, parquet: str | Path | None = None
) -> None:
    """Writes a study's table to files; floats are written so that they read back exactly.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    for path, write in ((csv, _write_csv), (parquet, _write_parquet)):
        if path is None:
            continue
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        try:
            write(frame, partial)
            os.replace(partial, target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise type(error)(f"{target} cannot be written: {error.strerror or error}") from None


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False, lineterminator="\n")


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


def read_store(path: str | Path, study: str | None = None) -> pd.DataFrame:
    """The table of a study, one run a row.

    Parameters
    ----------
    path : path
        A store that `sweep` wrote; it may be in use.
    study : str, optional
        Needed where the store has several.

    Raises
    ------
    StoreError
        If there is no store, or it is damaged.
    ValueError
        If there is no such study.
    """
    with Store(path) as store:
        return store.frame(study)


def timestamp() -> str:
    """The time, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _packed(array: FloatArray) -> tuple[str, str, bytes]:
    contiguous = np.ascontiguousarray(array)
    dtype = contiguous.dtype.newbyteorder("<")
    data = zlib.compress(contiguous.astype(dtype, copy=False).tobytes(), 6)
    return dtype.str, json.dumps(np.shape(array)), data


def _unpacked(dtype: str, shape: str, data: bytes) -> FloatArray:
    flat: FloatArray = np.frombuffer(zlib.decompress(data), dtype=np.dtype(dtype))
    return flat.reshape(json.loads(shape))
