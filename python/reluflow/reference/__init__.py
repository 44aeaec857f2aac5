"""The kernels in NumPy: same names and signatures as the compiled ones, written to be read.

They are the oracle that the compiled kernels are tested against, and ``backend="numpy"``.
"""

from reluflow.reference.adversarial import (
    AdversarialFlowOutcome,
    AdversarialPoints,
    adversarial_gradient,
    adversarial_gradient_flow,
    adversarial_points,
)
from reluflow.reference.deep import (
    Activation,
    Architecture,
    DeepFlowOutcome,
    deep_forward,
    deep_gradient,
    deep_gradient_flow,
)
from reluflow.reference.flow import (
    FlowOutcome,
    FlowStatus,
    gradient_flow,
    gradient_flow_ensemble,
)
from reluflow.reference.line_mass import log_line_masses
from reluflow.reference.losses import Loss, MarginLoss, log_loss_weights
from reluflow.reference.network import (
    LossGradient,
    forward,
    gram_gradient,
    gram_matrix,
    primal_gradient,
)
from reluflow.reference.perturbation import (
    PerturbationOutcome,
    Proof,
    StopReason,
    SubsetProjections,
    min_perturbations,
    subset_projections,
)
from reluflow.reference.proof_trail import ProofSteps
from reluflow.reference.random import philox4x32, standard_normals, uniforms
from reluflow.reference.ray_crossing import ray_crossings
from reluflow.reference.sampling import SAMPLE_BLOCK, ErrorCounts, count_errors
from reluflow.reference.stepping import FlowMethod

__all__ = [
    "SAMPLE_BLOCK",
    "Activation",
    "AdversarialFlowOutcome",
    "AdversarialPoints",
    "Architecture",
    "DeepFlowOutcome",
    "ErrorCounts",
    "FlowMethod",
    "FlowOutcome",
    "FlowStatus",
    "Loss",
    "LossGradient",
    "MarginLoss",
    "PerturbationOutcome",
    "Proof",
    "ProofSteps",
    "StopReason",
    "SubsetProjections",
    "adversarial_gradient",
    "adversarial_gradient_flow",
    "adversarial_points",
    "count_errors",
    "deep_forward",
    "deep_gradient",
    "deep_gradient_flow",
    "forward",
    "gradient_flow",
    "gradient_flow_ensemble",
    "gram_gradient",
    "gram_matrix",
    "log_line_masses",
    "log_loss_weights",
    "min_perturbations",
    "philox4x32",
    "primal_gradient",
    "ray_crossings",
    "standard_normals",
    "subset_projections",
    "uniforms",
]
