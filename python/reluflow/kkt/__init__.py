"""KKT points of the maximum-margin problem: the limits of gradient flow.

`kkt_residuals` is the independent check, `certify_kkt` the best multipliers for any network.
"""

from reluflow.kkt.certificate import KKTCertificate, certify_kkt
from reluflow.kkt.residuals import Kinks, KKTResiduals, kkt_residuals

__all__ = [
    "KKTCertificate",
    "KKTResiduals",
    "Kinks",
    "certify_kkt",
    "kkt_residuals",
]
