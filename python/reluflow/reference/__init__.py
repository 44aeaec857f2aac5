"""The kernels in NumPy: same names and signatures as the compiled ones, written to be read.

They are the oracle that the compiled kernels are tested against, and ``backend="numpy"``.
"""

from reluflow.reference.flow import FlowOutcome, FlowStatus, gradient_flow
from reluflow.reference.losses import Loss, log_loss_weights
from reluflow.reference.network import LossGradient, forward, gram_gradient, primal_gradient

__all__ = [
    "FlowOutcome",
    "FlowStatus",
    "Loss",
    "LossGradient",
    "forward",
    "gradient_flow",
    "gram_gradient",
    "log_loss_weights",
    "primal_gradient",
]
