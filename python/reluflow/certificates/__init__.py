"""Certificates that stand alone, and their checkers.

A certificate is a file that holds a statement, everything the statement speaks of, and what proves
it. The checkers share no code with the solvers that write certificates: NumPy with every rounding
error counted for radii, ball arithmetic of the package python-flint for KKT points.
"""

from reluflow.certificates.archive import CertificateError
from reluflow.certificates.kkt import KKTStatement
from reluflow.certificates.kkt_check import KKTVerification
from reluflow.certificates.radii import RadiusCertificates
from reluflow.certificates.radius_check import RadiusVerification
from reluflow.certificates.verification import verify_certificate

__all__ = [
    "CertificateError",
    "KKTStatement",
    "KKTVerification",
    "RadiusCertificates",
    "RadiusVerification",
    "verify_certificate",
]
