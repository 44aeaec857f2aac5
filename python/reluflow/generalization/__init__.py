"""How often a network errs on fresh examples, however rarely."""

from reluflow.generalization.error import test_error
from reluflow.generalization.estimates import (
    ClassError,
    ClusterError,
    ErrorCheck,
    ErrorEstimate,
)

__all__ = [
    "ClassError",
    "ClusterError",
    "ErrorCheck",
    "ErrorEstimate",
    "test_error",
]
