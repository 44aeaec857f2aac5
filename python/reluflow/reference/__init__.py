"""The kernels in NumPy: same names and signatures as the compiled ones, written to be read.

They are the oracle that the compiled kernels are tested against, and ``backend="numpy"``.
"""

from reluflow.reference.flow import FlowOutcome, FlowStatus, gradient_flow
from reluflow.reference.losses import Loss, log_loss_weights
from reluflow.reference.network import LossGradient, forward, gram_gradient, primal_gradient
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

__all__ = [
    "SAMPLE_BLOCK",
    "ErrorCounts",
    "FlowOutcome",
    "FlowStatus",
    "Loss",
    "LossGradient",
    "PerturbationOutcome",
    "Proof",
    "ProofSteps",
    "StopReason",
    "SubsetProjections",
    "count_errors",
    "forward",
    "gradient_flow",
    "gram_gradient",
    "log_loss_weights",
    "min_perturbations",
    "philox4x32",
    "primal_gradient",
    "ray_crossings",
    "standard_normals",
    "subset_projections",
    "uniforms",
]
