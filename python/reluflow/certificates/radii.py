"""Certificates of smallest perturbations: what is stated, of what, and the proof."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.certificates import archive

KIND = "radii"
# The factor by which a perturbation is longer than its radius where it flips.
OVERSHOOT = 1e-9


@dataclass(frozen=True, eq=False)
class ProofSteps:
    """The steps of all proofs, one after the other: docs/theory.md, section 7.10.

    Attributes
    ----------
    point, node : ndarray of int64, shape (s,)
        Whose proof, and the node of its tree; a node's steps stand in order, parents first.
    kind : ndarray of int64, shape (s,)
        0: a plane; 1: a quadratic that holds everywhere; 2: one that holds on the intervals of its
        node and cuts them down to its ellipsoid; 3: a branch.
    radius : ndarray, shape (s,)
        Only perturbations shorter than this are spoken of.
    eta : ndarray, shape (s,)
        Multiplier of N in a quadratic.
    neuron, child : ndarray of int64, shape (s,)
        Of a branch: the neuron is inactive in node ``child`` and active in ``child`` + 1.
    first : ndarray of int64, shape (s + 1,)
        Where a step's multipliers begin in the three arrays that follow.
    multiplier_neuron, multiplier : ndarray
        sigma_j or s_j at supporting neurons, k_j at opposing ones.
    slope : ndarray
        At 0, of the parabolas that belong to the k_j; 0 elsewhere.
    """

    point: IntArray
    kind: IntArray
    node: IntArray
    neuron: IntArray
    child: IntArray
    radius: FloatArray
    eta: FloatArray
    first: IntArray
    multiplier_neuron: IntArray
    multiplier: FloatArray
    slope: FloatArray

    def __len__(self) -> int:
        return len(self.point)

    def multipliers(self, step: int, width: int) -> FloatArray:
        """Of all neurons, shape (width,)."""
        part = slice(int(self.first[step]), int(self.first[step + 1]))
        return self._spread(self.multiplier, part, width)

    def slopes(self, step: int, width: int) -> FloatArray:
        """Of the parabolas of all neurons, shape (width,)."""
        part = slice(int(self.first[step]), int(self.first[step + 1]))
        return self._spread(self.slope, part, width)

    def _spread(self, entries: FloatArray, part: slice, width: int) -> FloatArray:
        values = np.zeros(width)
        values[self.multiplier_neuron[part]] = entries[part]
        return values


@dataclass(frozen=True, eq=False)
class RadiusCertificates:
    """Statements about the smallest perturbations of points, with everything that proves them.

    Attributes
    ----------
    W, b, v : ndarray, shapes (m, d), (m,), (m,)
        The network.
    X, y : ndarray, shapes (n, d), (n,)
        The points and their labels.
    definition : str
        ``"nonstrict"`` or ``"strict"``.
    rtol : float
    radius : ndarray, shape (n,)
        The stated radii.
    lower_bound : ndarray, shape (n,)
        Stated: no perturbation shorter than this flips the point.
    perturbation : ndarray, shape (n, d)
    flips : ndarray of bool, shape (n,)
        Stated: x + (1 + 1e-9) perturbation is flipped, and that is no longer than the radius but
        for the factor.
    steps : ProofSteps
    """

    W: FloatArray
    b: FloatArray
    v: FloatArray
    X: FloatArray
    y: FloatArray
    definition: str
    rtol: float
    radius: FloatArray
    lower_bound: FloatArray
    perturbation: FloatArray
    flips: BoolArray
    steps: ProofSteps

    def __len__(self) -> int:
        return len(self.radius)

    def save(self, path: str | Path) -> None:
        """Writes the certificates to a file that `reluflow verify` checks.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {
            f"steps_{field.name}": getattr(self.steps, field.name) for field in fields(self.steps)
        }
        for field in fields(self):
            if field.name != "steps":
                arrays[field.name] = np.asarray(getattr(self, field.name))
        archive.write(path, KIND, arrays)

    @classmethod
    def load(cls, path: str | Path) -> RadiusCertificates:
        """Reads what `save` wrote.

        Raises
        ------
        OSError
            If the file is missing or holds something else.
        CertificateError
            If it was altered.
        """
        kind, arrays = archive.read(path)
        if kind != KIND:
            raise OSError(f"{path} holds certificates of {kind}, not of radii")
        return cls.from_arrays(arrays)

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> RadiusCertificates:
        """From the contents of a file."""
        try:
            steps = ProofSteps(**{f.name: arrays[f"steps_{f.name}"] for f in fields(ProofSteps)})
            rest: dict[str, Any] = {
                f.name: arrays[f.name] for f in fields(cls) if f.name != "steps"
            }
        except KeyError as error:
            raise archive.CertificateError(f"the certificate has no entry {error}") from None
        rest["definition"], rest["rtol"] = str(rest["definition"]), float(rest["rtol"])
        return cls(**rest, steps=steps)

    @property
    def network_digest(self) -> str:
        """SHA-256 of the network."""
        return archive.digest({"W": self.W, "b": self.b, "v": self.v})
