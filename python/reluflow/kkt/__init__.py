"""KKT points of the maximum-margin problem: the limits of gradient flow.

`flow_limit` follows a flow and returns its limit, `kkt_point` computes the KKT point of an
activation pattern, `global_probe` may prove that a larger margin exists, `certify_kkt` finds the
best multipliers for any network, and `kkt_residuals` checks either independently.
"""

from reluflow.kkt.certificate import KKTCertificate, certify_kkt
from reluflow.kkt.limit import FlowLimit, flow_limit
from reluflow.kkt.point import Group, KKTPoint, kkt_point
from reluflow.kkt.probe import GlobalProbe, global_probe
from reluflow.kkt.residuals import Kinks, KKTResiduals, kkt_residuals

__all__ = [
    "FlowLimit",
    "GlobalProbe",
    "Group",
    "KKTCertificate",
    "KKTPoint",
    "KKTResiduals",
    "Kinks",
    "certify_kkt",
    "flow_limit",
    "global_probe",
    "kkt_point",
    "kkt_residuals",
]
