"""Groups of parallel units of a deep network, each of which one unit can replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray
from reluflow.deep_network import DeepNet

# Cosine of the angle between the weights of a unit and of the group that it joins.
_ALIKE = 0.8
_ROUNDS = 5
# Groups of a polished network are one when they are this parallel, and none below this share.
_PARALLEL = 0.99
_NEGLIGIBLE = 0.01


def layers_of(net: DeepNet) -> list[FloatArray]:
    """Weights layer by layer, the biases of the first as its last column."""
    first, bias = net.weights[0], net.biases[0]
    return [first if bias is None else np.column_stack([first, bias]), *net.weights[1:]]


def with_layers(net: DeepNet, layers: list[FloatArray]) -> DeepNet:
    """The network with weights as `layers_of` gives them."""
    first, biases = layers[0], list(net.biases)
    if biases[0] is not None:
        first, biases[0] = first[:, :-1], first[:, -1]
    return net.like([first, *layers[1:]], biases, None)


@dataclass(frozen=True)
class Units:
    """Groups of the units of every hidden layer.

    Attributes
    ----------
    spread : tuple of ndarray, shape (units, groups)
        Orthonormal columns: the weights of a group's one unit are spread over its units in these
        proportions, none of which is negative. A row of zeros is a unit of no group.
    """

    spread: tuple[FloatArray, ...]

    @classmethod
    def of(cls, layers: list[FloatArray], smallest: float) -> Units:
        """Groups of nearly parallel units with at least this share of their layer."""
        return cls(
            tuple(
                _grouped(layers[hidden], _sizes(layers, hidden), smallest)
                for hidden in range(len(layers) - 1)
            )
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of groups of every hidden layer."""
        return tuple(spread.shape[1] for spread in self.spread)

    def merged(self, layers: list[FloatArray]) -> list[FloatArray]:
        """One unit a group. The same function and norm, where the units of a group are parallel."""
        return [
            self._left(layer).T @ weights @ self._right(layer, weights)
            for layer, weights in enumerate(layers)
        ]

    def lifted(self, layers: list[FloatArray]) -> list[FloatArray]:
        """Weights of groups spread over their units: always the same function and norm."""
        return [
            self._left(layer) @ weights @ self._right(layer, weights).T
            for layer, weights in enumerate(layers)
        ]

    def lifted_masks(self, masks: Sequence[FloatArray]) -> list[FloatArray]:
        """Masks (p, groups) as masks (p, units); units of no group are off."""
        return [
            mask @ (spread > 0).T.astype(np.float64)
            for mask, spread in zip(masks, self.spread, strict=True)
        ]

    def reduced(self, layers: list[FloatArray]) -> tuple[Units, list[FloatArray]] | None:
        """With groups joined that are parallel, and without negligible ones; None if all stay."""
        inner = tuple(
            _grouped(layers[hidden], _sizes(layers, hidden), _NEGLIGIBLE, alike=_PARALLEL)
            for hidden in range(len(layers) - 1)
        )
        if all(spread.shape[0] == spread.shape[1] for spread in inner):
            return None
        joined = tuple(outer @ spread for outer, spread in zip(self.spread, inner, strict=True))
        return Units(joined), Units(inner).merged(layers)

    def share_outside(self, layers: list[FloatArray]) -> float:
        """Share of the squared norm in weights from or to units of no group."""
        inside = 0.0
        for layer, weights in enumerate(layers):
            rows = self._left(layer).any(axis=1)
            columns = self._right(layer, weights).any(axis=1)
            inside += float((weights[np.ix_(rows, columns)] ** 2).sum())
        return max(0.0, 1 - inside / sum(float((weights**2).sum()) for weights in layers))

    def _left(self, layer: int) -> FloatArray:
        return self.spread[layer] if layer < len(self.spread) else np.eye(1)

    def _right(self, layer: int, weights: FloatArray) -> FloatArray:
        # Inputs are no units.
        return self.spread[layer - 1] if layer else np.eye(weights.shape[1])


def _sizes(layers: list[FloatArray], hidden: int) -> FloatArray:
    incoming = np.linalg.norm(layers[hidden], axis=1)
    return np.asarray(incoming * np.linalg.norm(layers[hidden + 1], axis=0))


def _grouped(
    weights: FloatArray, sizes: FloatArray, smallest: float, *, alike: float = _ALIKE
) -> FloatArray:
    """Groups around the largest units, then around their own means until they stand."""
    lengths = np.linalg.norm(weights, axis=1)
    rows = weights / np.where(lengths > 0, lengths, 1)[:, None]
    sums: list[FloatArray] = []
    for unit in np.argsort(-sizes, kind="stable"):
        closeness = _unit_rows(np.array(sums)) @ rows[unit] if sums else np.zeros(0)
        if len(closeness) and closeness.max() >= alike:
            sums[int(closeness.argmax())] += sizes[unit] * rows[unit]
        else:
            sums.append(sizes[unit] * rows[unit])
    centres = np.array(sums)
    for _ in range(_ROUNDS):
        closeness = rows @ _unit_rows(centres).T
        member = np.where(closeness.max(axis=1) >= alike, closeness.argmax(axis=1), -1)
        chosen = member[:, None] == np.arange(len(centres))
        centres = (chosen * sizes[:, None]).T @ rows
    mass = sizes @ chosen
    kept = chosen[:, mass >= smallest * sizes.sum()] & (sizes > 0)[:, None]
    spread = np.sqrt(kept * sizes[:, None])
    return np.asarray(spread / np.linalg.norm(spread, axis=0))


def _unit_rows(rows: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))
