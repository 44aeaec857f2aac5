"""How often a network errs on fresh examples, however rarely."""

from reluflow.generalization.error import test_error
from reluflow.generalization.estimates import (
    ClassError,
    ClusterError,
    ErrorCheck,
    ErrorEstimate,
)
from reluflow.generalization.noise_level import NoiseLevel, noise_at_error
from reluflow.generalization.radii import (
    RadiusDistribution,
    RobustError,
    radius_distribution,
    robust_error,
)

__all__ = [
    "ClassError",
    "ClusterError",
    "ErrorCheck",
    "ErrorEstimate",
    "NoiseLevel",
    "RadiusDistribution",
    "RobustError",
    "noise_at_error",
    "radius_distribution",
    "robust_error",
    "test_error",
]
