"""Certificate files: .npz archives with a checksum, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FORMAT = "reluflow certificate 1"
_HEADER, _KIND, _CHECKSUM = "format", "kind", "sha256"


class CertificateError(ValueError):
    """A certificate that was altered, or does not prove what it states."""


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and contents."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def write(path: str | Path, kind: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a certificate; a file of that name is replaced when the new one is complete."""
    path = Path(path)
    contents = {**arrays, _HEADER: np.array(_FORMAT), _KIND: np.array(kind)}
    contents[_CHECKSUM] = np.array(digest(contents))
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """Kind and arrays of a certificate.

    Raises
    ------
    OSError
        If the file is missing or is no certificate.
    CertificateError
        If its contents are not those that were written.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            contents = {name: archive[name] for name in archive.files}
            if str(contents[_HEADER]) != _FORMAT:
                raise KeyError(f"its format is {str(contents[_HEADER])!r}, not {_FORMAT!r}")
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, NotImplementedError) as e:
        raise OSError(f"{path} is not a certificate: {e}") from None
    except (zipfile.BadZipFile, zipfile.zlib.error) as e:  # type: ignore[attr-defined]
        if _is_certificate(path):
            raise CertificateError(f"{path} was altered: its contents are damaged ({e})") from None
        raise OSError(f"{path} is not a certificate: {e}") from None
    stated = str(contents.pop(_CHECKSUM, np.array("")))
    if stated != digest(contents):
        raise CertificateError(f"{path} was altered: its contents do not have its checksum")
    del contents[_HEADER]
    return str(contents.pop(_KIND)), contents


def _is_certificate(path: Path) -> bool:
    """Whether the archive at least has the entries of one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{_HEADER}.npy", f"{_CHECKSUM}.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
