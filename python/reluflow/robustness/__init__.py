"""Perturbations that flip a network: smallest, universal, and a network that resists them."""

from reluflow.robustness.constructed import decoupled_network, robust_network
from reluflow.robustness.minimal import Perturbations, min_perturbation
from reluflow.robustness.universal import FlipCurve, Universal, universal_perturbation

__all__ = [
    "FlipCurve",
    "Perturbations",
    "Universal",
    "decoupled_network",
    "min_perturbation",
    "robust_network",
    "universal_perturbation",
]
