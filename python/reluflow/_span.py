"""Deep networks in the span of their examples, where their flow lives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray
from reluflow.deep_network import DeepNet


@dataclass(frozen=True)
class Span:
    """An orthonormal basis of a space that holds the examples, and the examples in it.

    A row w of the first layer is (w Q, ||w_perp||) there: the flow keeps the direction of w_perp,
    and changes its length only where an activation depends on ||w||. Every example has a last
    coordinate 0 that stands for it.

    Attributes
    ----------
    basis : ndarray, shape (d, r)
        Q.
    inputs : ndarray, shape (n, r + 1)
        The examples.
    normals : ndarray, shape (m, d)
        Unit vectors w_perp / ||w_perp||, zero where w_perp is.
    skip_normals : ndarray or None
        The same for the rows of the skip connection.
    net : DeepNet
        The network in these coordinates.
    """

    basis: FloatArray
    inputs: FloatArray
    normals: FloatArray
    skip_normals: FloatArray | None
    net: DeepNet

    @classmethod
    def of(cls, net: DeepNet, inputs: FloatArray) -> Span:
        """The span of ``inputs`` (n, d), by QR."""
        basis, triangle = np.linalg.qr(inputs.T)
        reduced = np.zeros((len(inputs), basis.shape[1] + 1))
        reduced[:, :-1] = triangle.T
        first, normals = _split(net.weights[0], basis)
        skip, skip_normals = (None, None) if net.skip is None else _split(net.skip, basis)
        inside = net.like([first, *net.weights[1:]], net.biases, skip)
        return cls(basis, reduced, normals, skip_normals, inside)

    def lift(self, net: DeepNet) -> DeepNet:
        """A network of these coordinates, in those of the examples."""
        skip = net.skip
        if skip is not None and self.skip_normals is not None:
            skip = _join(skip, self.basis, self.skip_normals)
        first = _join(net.weights[0], self.basis, self.normals)
        return net.like([first, *net.weights[1:]], net.biases, skip)


def _split(rows: FloatArray, basis: FloatArray) -> tuple[FloatArray, FloatArray]:
    inside = rows @ basis
    normal = rows - inside @ basis.T
    lengths = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.hstack([inside, lengths]), normal / np.where(lengths > 0, lengths, 1)


def _join(rows: FloatArray, basis: FloatArray, normals: FloatArray) -> FloatArray:
    return np.asarray(rows[:, :-1] @ basis.T + rows[:, -1:] * normals)
