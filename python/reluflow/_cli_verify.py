"""The command that checks certificates."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

_VERIFY_EPILOG = (
    "Exit codes: 0 when everything that the certificate states was proved anew; 1 when it was "
    "altered or does not prove what it states; 2 when the file cannot be used; 130 when "
    "interrupted."
)
_REFUSED, _UNUSABLE = 1, 2


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("verify", epilog=_VERIFY_EPILOG)(_verify)


def _verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A certificate that reluflow saved.")
    ],
    points: Annotated[
        bool, typer.Option("--points", help="One line for every point, not a summary alone.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON alone on standard output.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Prove anew, by code that shares nothing with the solvers, what a certificate states."""
    from reluflow.certificates import CertificateError, verify_certificate

    try:
        found = verify_certificate(file, progress=sys.stderr.isatty() and not json_)
    except CertificateError as error:
        raise typer.Exit(_refuse(file, str(error))) from None
    except ImportError as error:
        print(f"reluflow: {error}", file=sys.stderr)
        raise typer.Exit(_UNUSABLE) from None
    if json_:
        print(json.dumps(found.to_dict(), allow_nan=False))
    else:
        print("\n".join([*(found.point_lines() if points else []), str(found)]))
    if not found.verified:
        more = len(found.problems) - 1
        rest = f" (and {more} more)" if more else ""
        raise typer.Exit(_refuse(file, f"{found.problems[0]}{rest}"))


def _refuse(file: Path, why: str) -> int:
    message = " ".join(why.split())
    print(f"reluflow: CERTIFICATE REFUSED: {file}: {message}", file=sys.stderr)
    return _REFUSED
