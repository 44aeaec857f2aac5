"""Gradient flow on the mean loss of the margins."""

from reluflow.flow.ensemble import gradient_flow_ensemble
from reluflow.flow.result import (
    LOSSES,
    MARGIN_MAXIMISING,
    AdversarialFlowResult,
    DeepFlowResult,
    FlowResult,
    Trajectory,
)
from reluflow.flow.run import gradient_flow
from reluflow.flow.settings import FORMS, METHODS, require_margin_maximising

__all__ = [
    "FORMS",
    "LOSSES",
    "MARGIN_MAXIMISING",
    "METHODS",
    "AdversarialFlowResult",
    "DeepFlowResult",
    "FlowResult",
    "Trajectory",
    "gradient_flow",
    "gradient_flow_ensemble",
    "require_margin_maximising",
]
