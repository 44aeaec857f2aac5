"""KKT points of the maximum-margin problem: the limits of gradient flow.

`flow_limit` follows a flow and returns its limit, `kkt_point` computes the KKT point of an
activation pattern, `certify_kkt` finds the best multipliers for any network, and
`kkt_residuals` checks either independently; `prove_kkt` shows that an exact KKT point is near.
"""

from reluflow.kkt.certificate import KKTCertificate, certify_kkt
from reluflow.kkt.limit import FlowLimit, flow_limit
from reluflow.kkt.point import Group, KKTPoint, kkt_point
from reluflow.kkt.residuals import Kinks, KKTResiduals, kkt_residuals
from reluflow.kkt.rigorous import KKTProof, prove_kkt

__all__ = [
    "FlowLimit",
    "Group",
    "KKTCertificate",
    "KKTPoint",
    "KKTProof",
    "KKTResiduals",
    "Kinks",
    "certify_kkt",
    "flow_limit",
    "kkt_point",
    "kkt_residuals",
    "prove_kkt",
]
