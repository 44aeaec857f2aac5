"""Smooth pieces of the margins of a deep network: its activation masks near their kinks.

With fixed masks a margin is multilinear in the layers. Where a unit that lowers the margin is at
its kink, the margin is the smaller of the two pieces on its sides (docs/theory.md, section 9).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray, IntArray

# Units at their kink that are tried on both sides, a layer, the nearest ones.
_MOST_KINKS = 6
# Of the largest slope of a margin in a unit: below it the unit neither helps nor harms.
_IDLE = 1e-9


@dataclass(frozen=True)
class Pieces:
    """Examples, and masks of the hidden units of every layer.

    Attributes
    ----------
    example : ndarray of int64, shape (p,)
    masks : tuple of ndarray, shape (p, units)
        1.0 where the unit is on, 0.0 where it is off.
    """

    example: IntArray
    masks: tuple[FloatArray, ...]

    def __len__(self) -> int:
        return len(self.example)

    def keys(self) -> list[bytes]:
        """What tells pieces apart."""
        columns = [self.example[:, None].astype(np.float64), *self.masks]
        return [row.tobytes() for row in np.concatenate(columns, axis=1)]

    def subset(self, chosen: IntArray) -> Pieces:
        """Some of them."""
        return Pieces(self.example[chosen], tuple(mask[chosen] for mask in self.masks))

    def joined(self, other: Pieces) -> Pieces:
        """These and others."""
        return Pieces(
            np.concatenate([self.example, other.example]),
            tuple(np.concatenate(pair) for pair in zip(self.masks, other.masks, strict=True)),
        )


@dataclass(frozen=True)
class Model:
    """A network without biases, seen as a function of its layers on given examples.

    Attributes
    ----------
    X : ndarray, shape (n, r)
    y : ndarray, shape (n,)
    slope : float
        Of the activation below 0.
    """

    X: FloatArray
    y: FloatArray
    slope: float

    def gates(self, masks: FloatArray) -> FloatArray:
        """Slopes of units that are on or off."""
        return self.slope + (1 - self.slope) * masks

    def preactivations(self, layers: list[FloatArray]) -> list[FloatArray]:
        """Of all layers, the last being the outputs."""
        entering, found = self.X, []
        for weights in layers:
            z = entering @ weights.T
            found.append(z)
            entering = np.maximum(z, self.slope * z)
        return found

    def margins(self, layers: list[FloatArray]) -> FloatArray:
        """y N, shape (n,)."""
        return np.asarray(self.y * self.preactivations(layers)[-1][:, 0])

    def pieces(self, layers: list[FloatArray], near: float) -> Pieces:
        """The masks that the examples have, and those across the kinks of units that do harm.

        Of every example the tree of masks from the last hidden layer down: what a unit does to the
        margin depends on the masks above it.

        Parameters
        ----------
        near : float
            A unit is at its kink where |z| is at most this, relative to its largest.
        """
        hidden = self.preactivations(layers)[:-1]
        reach = [near * np.abs(z).max(axis=0) for z in hidden]
        example: list[int] = []
        found: list[list[FloatArray]] = []
        for i in range(len(self.y)):
            branches = [(list[FloatArray](), self.y[i] * layers[-1][0])]
            for layer in reversed(range(len(hidden))):
                z = hidden[layer][i]
                branches = [
                    ([mask, *above], (slopes * self.gates(mask)) @ layers[layer])
                    for above, slopes in branches
                    for mask in _masks(z, slopes, reach[layer])
                ]
            found += [masks for masks, _ in branches]
            example += [i] * len(branches)
        masks = tuple(np.array(layer) for layer in zip(*found, strict=True))
        return Pieces(np.array(example, dtype=np.int64), masks)

    def gaps(self, layers: list[FloatArray], pieces: Pieces) -> FloatArray:
        """How far pieces are from the examples' own side of kinks, relative, shape (p,)."""
        hidden = self.preactivations(layers)[:-1]
        found = np.zeros(len(pieces))
        slopes = self.y[pieces.example][:, None] * layers[-1]
        for layer in reversed(range(len(hidden))):
            z = hidden[layer] / np.maximum(np.abs(hidden[layer]).max(axis=0), 1e-300)
            wrong = (pieces.masks[layer] != (z > 0)[pieces.example]) & (slopes != 0)
            found = np.maximum(found, np.abs(np.where(wrong, z[pieces.example], 0)).max(axis=1))
            slopes = (slopes * self.gates(pieces.masks[layer])) @ layers[layer]
        return found

    def linearised(self, layers: list[FloatArray], pieces: Pieces) -> Linearised:
        """The margins of pieces with their derivatives."""
        entering = [self.X[pieces.example]]
        gates = [self.gates(mask) for mask in pieces.masks]
        for gate, weights in zip(gates, layers[:-1], strict=True):
            entering.append((entering[-1] @ weights.T) * gate)
        y = self.y[pieces.example]
        slopes = [y[:, None]]
        for gate, weights in zip(reversed(gates), reversed(layers[1:]), strict=True):
            slopes.insert(0, (slopes[0] @ weights) * gate)
        margins = y * (entering[-1] @ layers[-1].T)[:, 0]
        return Linearised(layers, gates, entering, slopes, margins)


@dataclass(frozen=True)
class Linearised:
    """Margins of pieces, shape (p,), and what their derivatives in the layers are made of."""

    layers: list[FloatArray]
    gates: list[FloatArray]
    entering: list[FloatArray]
    slopes: list[FloatArray]
    margins: FloatArray

    def gradients(self) -> FloatArray:
        """In all parameters, shape (p, parameters)."""
        return np.concatenate(
            [
                (slope[:, :, None] * entering[:, None, :]).reshape(len(slope), -1)
                for slope, entering in zip(self.slopes, self.entering, strict=True)
            ],
            axis=1,
        )

    def hessian(self, multipliers: FloatArray) -> FloatArray:
        """Of sum_p multipliers_p margin_p: every pair of layers has a block, none with itself."""
        sizes = [weights.size for weights in self.layers]
        ends = np.cumsum([0, *sizes])
        H = np.zeros((ends[-1], ends[-1]))
        for low in range(len(self.layers) - 1):
            # How the units above a layer respond to its pre-activations.
            response = self.gates[low][:, :, None] * np.eye(self.gates[low].shape[1])
            for high in range(low + 1, len(self.layers)):
                block = np.einsum(
                    "p,pc,pea,pb->abce",
                    multipliers,
                    self.slopes[high],
                    response,
                    self.entering[low],
                    optimize=True,
                ).reshape(sizes[low], sizes[high])
                rows, columns = slice(*ends[low : low + 2]), slice(*ends[high : high + 2])
                H[rows, columns], H[columns, rows] = block, block.T
                if high < len(self.gates):
                    response = np.einsum(
                        "pe,ef,pfa->pea", self.gates[high], self.layers[high], response
                    )
        return H


def _masks(z: FloatArray, slopes: FloatArray, reach: FloatArray) -> list[FloatArray]:
    """The mask of these pre-activations, and both sides of units at their kink that do harm."""
    harmful = np.flatnonzero((slopes < -_IDLE * np.abs(slopes).max()) & (np.abs(z) <= reach))
    harmful = harmful[np.argsort(np.abs(z[harmful]), kind="stable")[:_MOST_KINKS]]
    found = []
    for sides in itertools.product((0.0, 1.0), repeat=len(harmful)):
        # Units that nothing above listens to are off, so that equal pieces are told apart by none.
        mask = ((z > 0) & (slopes != 0)).astype(np.float64)
        mask[harmful] = sides
        found.append(mask)
    return found
