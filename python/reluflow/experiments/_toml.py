"""Reads TOML, and knows on which line a key stands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOMLDecodeError = tomllib.TOMLDecodeError

Path = Sequence[str | int]


def parse(text: str) -> dict[str, Any]:
    """The document as nested dictionaries; raises `TOMLDecodeError` with line and column."""
    return tomllib.loads(text)


def line_of(text: str, path: Path) -> int:
    """Line, from 1, of the statement that brings ``path``, or its nearest parent, into the text."""
    for length in range(len(path), 0, -1):
        for line, document in _statements(text):
            if _holds(document, path[:length]):
                return line
    return 1


def last_statement(text: str) -> int:
    """Line of the statement that the text breaks off in."""
    lines = text.splitlines()
    begin = 1
    for end in range(1, len(lines) + 1):
        if _parsed(lines[:end]) is not None:
            begin = end + 1
    return _first_statement(lines, begin)


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line of every statement, and the document up to its end.

    A document up to the end of any statement is a document itself, and one that ends within a
    statement is none.
    """
    lines = text.splitlines()
    begin = 1
    for end in range(1, len(lines) + 1):
        document = _parsed(lines[:end])
        if document is not None:
            yield _first_statement(lines, begin), document
            begin = end + 1


def _parsed(lines: Sequence[str]) -> dict[str, Any] | None:
    try:
        return parse("\n".join(lines))
    except TOMLDecodeError:
        return None


def _holds(document: Any, path: Path) -> bool:
    for part in path:
        if isinstance(document, dict) and isinstance(part, str):
            if part not in document:
                return False
        elif not isinstance(document, list) or not isinstance(part, int) or part >= len(document):
            return False
        document = document[part]
    return True


def _first_statement(lines: Sequence[str], begin: int) -> int:
    """``begin``, or the first line from there that is neither empty nor a comment."""
    for number in range(begin, len(lines) + 1):
        statement = lines[number - 1].strip()
        if statement and not statement.startswith("#"):
            return number
    return begin
