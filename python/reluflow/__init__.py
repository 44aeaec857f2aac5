"""Implicit bias of gradient flow in two-layer ReLU networks.

From clusters to a two-layer ReLU network, its gradient flow and KKT point, its test error, and
its smallest perturbations. See docs/theory.md for the mathematics.
"""

from reluflow import theory
from reluflow._provenance import __version__
from reluflow._results import Status
from reluflow.adversarial import AdversarialExamples, adversarial_examples
from reluflow.certificates import (
    CertificateError,
    KKTStatement,
    KKTVerification,
    RadiusCertificates,
    RadiusVerification,
    verify_certificate,
)
from reluflow.data import (
    AssumptionReport,
    ClusterModel,
    Dataset,
    LowRankNoise,
    load_dataset,
    load_digits,
    save_dataset,
)
from reluflow.deep_network import DeepNet
from reluflow.experiments import Comparison, DoubleEdge, double_edge, sweep
from reluflow.flow import (
    AdversarialFlowResult,
    DeepFlowResult,
    FlowResult,
    Trajectory,
    gradient_flow,
    gradient_flow_ensemble,
)
from reluflow.generalization import (
    ClassError,
    ClusterError,
    ErrorCheck,
    ErrorEstimate,
    NoiseLevel,
    RadiusDistribution,
    RobustError,
    noise_at_error,
    radius_distribution,
    robust_error,
    test_error,
)
from reluflow.kkt import (
    DeepKKTCertificate,
    FlowLimit,
    GlobalProbe,
    KKTCertificate,
    KKTPoint,
    KKTProof,
    KKTResiduals,
    RobustKKTCertificate,
    SlowLaw,
    certify_kkt,
    flow_limit,
    global_probe,
    kkt_point,
    kkt_residuals,
    prove_kkt,
    slow_law,
)
from reluflow.network import TwoLayerNet
from reluflow.problem import Problem, draw
from reluflow.reduction import Reduction
from reluflow.robustness import (
    AttackComparison,
    AttackRow,
    FlipCurve,
    Perturbations,
    Universal,
    compare_attacks,
    min_perturbation,
    robust_network,
    universal_perturbation,
)

__all__ = [
    "AdversarialExamples",
    "AdversarialFlowResult",
    "AssumptionReport",
    "AttackComparison",
    "AttackRow",
    "CertificateError",
    "ClassError",
    "ClusterError",
    "ClusterModel",
    "Comparison",
    "Dataset",
    "DeepFlowResult",
    "DeepKKTCertificate",
    "DeepNet",
    "DoubleEdge",
    "ErrorCheck",
    "ErrorEstimate",
    "FlipCurve",
    "FlowLimit",
    "FlowResult",
    "GlobalProbe",
    "KKTCertificate",
    "KKTPoint",
    "KKTProof",
    "KKTResiduals",
    "KKTStatement",
    "KKTVerification",
    "LowRankNoise",
    "NoiseLevel",
    "Perturbations",
    "Problem",
    "RadiusCertificates",
    "RadiusDistribution",
    "RadiusVerification",
    "Reduction",
    "RobustError",
    "RobustKKTCertificate",
    "SlowLaw",
    "Status",
    "Trajectory",
    "TwoLayerNet",
    "Universal",
    "__version__",
    "adversarial_examples",
    "certify_kkt",
    "compare_attacks",
    "double_edge",
    "draw",
    "flow_limit",
    "global_probe",
    "gradient_flow",
    "gradient_flow_ensemble",
    "kkt_point",
    "kkt_residuals",
    "load_dataset",
    "load_digits",
    "min_perturbation",
    "noise_at_error",
    "prove_kkt",
    "radius_distribution",
    "robust_error",
    "robust_network",
    "save_dataset",
    "slow_law",
    "sweep",
    "test_error",
    "theory",
    "universal_perturbation",
    "verify_certificate",
]
