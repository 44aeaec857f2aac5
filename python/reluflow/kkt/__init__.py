"""KKT points of the maximum-margin problem: the limits of gradient flow.

`flow_limit` follows a flow and returns its limit, `kkt_point` computes the KKT point of an
activation pattern, `global_probe` may prove that a larger margin exists, `certify_kkt` finds the
best multipliers for any network, `kkt_residuals` checks either independently, `prove_kkt` shows
that an exact KKT point is near, and `slow_law` measures how groups die on the way.
"""

from reluflow.kkt.certificate import KKTCertificate, RobustKKTCertificate, certify_kkt
from reluflow.kkt.deep import DeepKKTCertificate
from reluflow.kkt.deep_limit import DeepFlowLimit
from reluflow.kkt.deep_point import POLISHED_DEPTHS, DeepKinks, DeepKKTPoint
from reluflow.kkt.limit import FlowLimit, flow_limit
from reluflow.kkt.point import Group, KKTPoint, kkt_point
from reluflow.kkt.probe import GlobalProbe, global_probe
from reluflow.kkt.residuals import Kinks, KKTResiduals, kkt_residuals
from reluflow.kkt.rigorous import KKTProof, prove_kkt
from reluflow.kkt.slow_law import GroupDecay, SlowLaw, slow_law

__all__ = [
    "POLISHED_DEPTHS",
    "DeepFlowLimit",
    "DeepKKTCertificate",
    "DeepKKTPoint",
    "DeepKinks",
    "FlowLimit",
    "GlobalProbe",
    "Group",
    "GroupDecay",
    "KKTCertificate",
    "KKTPoint",
    "KKTProof",
    "KKTResiduals",
    "Kinks",
    "RobustKKTCertificate",
    "SlowLaw",
    "certify_kkt",
    "flow_limit",
    "global_probe",
    "kkt_point",
    "kkt_residuals",
    "prove_kkt",
    "slow_law",
]
