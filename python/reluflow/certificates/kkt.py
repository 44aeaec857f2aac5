"""The statement that an exact KKT point lies near given numbers, and its file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reluflow._validation import FloatArray, IntArray
from reluflow.certificates import archive

KIND = "kkt"
# What an example is to a group.
INACTIVE, ACTIVE, KINK = range(3)


@dataclass(frozen=True, eq=False)
class KKTStatement:
    """An exact KKT point of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1  near given numbers.

    Attributes
    ----------
    X, y : ndarray, shapes (n, d), (n,)
        The examples.
    W, b, v : ndarray, shapes (m, d), (m,), (m,)
        The network.
    multipliers : ndarray, shape (n,)
        lam_i; exactly 0 where stated 0.
    group : ndarray of int64, shape (m,)
        Group of each neuron, whose neurons are parallel; -1 for neurons that are exactly 0.
    state : ndarray of int64, shape (G, n)
        Of examples with lam_i > 0: 0, z < 0 and s = 0; 1, z > 0 and s = 1; 2, z = 0 exactly.
    kink : ndarray, shape (G, n)
        Clarke weights s at state 2.
    train_output, bias : bool
        Whether v and b belong to the parameters.
    radius : float
        Stated: ||theta* - theta|| is at most this for an exact KKT point theta*.
    multiplier_radius, clarke_radius : float
        Stated: likewise every |lam*_i - lam_i| and |s*_ij - s_ij|.
    """

    X: FloatArray
    y: FloatArray
    W: FloatArray
    b: FloatArray
    v: FloatArray
    multipliers: FloatArray
    group: IntArray
    state: IntArray
    kink: FloatArray
    train_output: bool
    bias: bool
    radius: float
    multiplier_radius: float
    clarke_radius: float

    def save(self, path: str | Path) -> None:
        """Writes the statement to a file that `reluflow verify` checks.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        archive.write(path, KIND, arrays)

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> KKTStatement:
        """From the contents of a file."""
        try:
            values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        except KeyError as error:
            raise archive.CertificateError(f"the certificate has no entry {error}") from None
        for name in ("train_output", "bias"):
            values[name] = bool(values[name])
        for name in ("radius", "multiplier_radius", "clarke_radius"):
            values[name] = float(values[name])
        return cls(**values)

    @property
    def network_digest(self) -> str:
        """SHA-256 of the network."""
        return archive.digest({"W": self.W, "b": self.b, "v": self.v})
