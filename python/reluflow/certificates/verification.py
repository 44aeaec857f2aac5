"""Checks certificate files of every kind."""

from __future__ import annotations

from pathlib import Path

from reluflow._progress import counting_progress
from reluflow.certificates import archive, kkt, radii
from reluflow.certificates.kkt_check import KKTVerification, check_kkt
from reluflow.certificates.radius_check import RadiusVerification, check_radii

Verification = RadiusVerification | KKTVerification


def verify_certificate(path: str | Path, *, progress: bool = False) -> Verification:
    """Proves anew everything that a certificate file states, by code of its own.

    Parameters
    ----------
    path : str or Path
        What ``save`` of a certificate wrote.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    RadiusVerification or KKTVerification
        With status ``verified``, or ``refused`` and the ``problems``.

    Raises
    ------
    OSError
        If the file is missing or is no certificate.
    CertificateError
        If it was altered, or is malformed.
    ImportError
        If it is of a KKT point, and python-flint is not installed.
    """
    kind, arrays = archive.read(path)
    if kind == kkt.KIND:
        return check_kkt(kkt.KKTStatement.from_arrays(arrays))
    if kind != radii.KIND:
        raise archive.CertificateError(f"{path} holds a certificate of an unknown kind: {kind}")
    certificates = radii.RadiusCertificates.from_arrays(arrays)
    with counting_progress(progress, "verify", len(certificates), "points") as advance:
        return check_radii(certificates, advance=advance)
