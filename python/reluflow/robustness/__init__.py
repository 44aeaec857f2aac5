"""Perturbations that flip a network: smallest, universal, and a network that resists them."""

from reluflow.robustness.attacks import AttackComparison, AttackRow, compare_attacks
from reluflow.robustness.constructed import decoupled_network, robust_network
from reluflow.robustness.minimal import min_perturbation
from reluflow.robustness.perturbations import Perturbations
from reluflow.robustness.universal import FlipCurve, Universal, universal_perturbation

__all__ = [
    "AttackComparison",
    "AttackRow",
    "FlipCurve",
    "Perturbations",
    "Universal",
    "compare_attacks",
    "decoupled_network",
    "min_perturbation",
    "robust_network",
    "universal_perturbation",
]
