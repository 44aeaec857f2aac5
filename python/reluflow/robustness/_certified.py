"""From what the kernels took down of their proofs to certificates that stand alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from reluflow._validation import BoolArray, FloatArray
from reluflow.certificates import RadiusCertificates
from reluflow.certificates.radii import ProofSteps
from reluflow.certificates.radius_check import provable_bound, shown_to_flip
from reluflow.network import TwoLayerNet
from reluflow.robustness._row_space import RowSpace


def certificates_of(
    net: TwoLayerNet,
    space: RowSpace,
    points: FloatArray,
    labels: FloatArray,
    definition: str,
    rtol: float,
    outcome: Any,
    perturbation: FloatArray,
    flipped: BoolArray,
) -> RadiusCertificates:
    """The radius itself, but for rtol, is stated where it was proved; else the lower bound."""
    steps, radius = outcome.steps, outcome.radius
    proved = np.array([proof.name != "none" for proof in outcome.proofs], dtype=np.bool_)
    branches = steps.neuron >= 0
    neuron = np.where(branches, space.neurons[np.where(branches, steps.neuron, 0)], -1)
    certificates = RadiusCertificates(
        W=net.W,
        b=net.b,
        v=net.v,
        X=points,
        y=labels,
        definition=definition,
        rtol=rtol,
        radius=radius,
        lower_bound=(1 - rtol) * np.where(proved, radius, outcome.lower_bound),
        perturbation=perturbation,
        flips=flipped.copy(),
        steps=ProofSteps(
            point=steps.point,
            kind=steps.kind,
            node=steps.node,
            neuron=neuron,
            child=steps.child,
            radius=steps.radius,
            eta=steps.eta,
            first=steps.first,
            multiplier_neuron=space.neurons[steps.multiplier_neuron],
            multiplier=steps.multiplier,
            slope=steps.slope,
        ),
    )
    # What flips by rounding alone is not stated to flip.
    certificates.flips[:] &= shown_to_flip(certificates)
    # That nothing is nearer than infinity can rarely be shown in floating-point numbers.
    for i in np.flatnonzero(np.isinf(certificates.lower_bound)):
        certificates.lower_bound[i] = provable_bound(certificates, int(i))
    return certificates
