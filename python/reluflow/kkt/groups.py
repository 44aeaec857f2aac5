"""Neurons of one sign and one helpful pattern: they are parallel at every KKT point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import BoolArray, FloatArray, IntArray
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet

# Pre-activations this small, relative to ||w~_j|| ||x~_i||, are zero up to rounding.
_ROUNDING = 1e-12
# Share of sum v^2 below which a neuron carries nothing that could become a group.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True, eq=False)
class NeuronGroups:
    """The groups of a network (docs/theory.md, section 4.3).

    Attributes
    ----------
    sign : ndarray, shape (G,)
        Sign of the output weights of a group.
    pattern : ndarray of bool, shape (G, n)
        P_g: the helpful examples (y_i s_g > 0) that the group is active on.
    of_neuron : ndarray of int64, shape (m,)
        Group of each neuron, -1 for neurons that are active on no helpful example, or carry a
        negligible share of the output weights: their part in a KKT point is zero.
    """

    sign: FloatArray
    pattern: BoolArray
    of_neuron: IntArray

    @classmethod
    def of(cls, net: TwoLayerNet, data: Dataset) -> NeuronGroups:
        """Groups by the signs of the pre-activations as they stand."""
        helpful = data.y[:, None] * net.v > 0
        neurons = np.sqrt((net.W**2).sum(axis=1) + net.b**2)
        examples = np.sqrt((data.X**2).sum(axis=1) + 1)
        active = data.X @ net.W.T + net.b > _ROUNDING * examples[:, None] * neurons
        pattern = (active & helpful).T
        share = net.v**2 / max(float((net.v**2).sum()), np.finfo(float).tiny)
        kept = np.flatnonzero(pattern.any(axis=1) & (share > NEGLIGIBLE))
        # The sign of a group follows from its pattern, because helpful means of one label.
        packed = np.packbits(pattern[kept], axis=1)
        _, first, group = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        of_neuron = np.full(net.width, -1, dtype=np.int64)
        of_neuron[kept] = group.reshape(-1)
        return cls(np.sign(net.v[kept[first]]), pattern[kept[first]], of_neuron)

    def with_patterns(self, pattern: BoolArray) -> NeuronGroups:
        """The same neurons in groups of other patterns; groups of equal ones become one."""
        _, first, group = np.unique(
            np.packbits(pattern, axis=1), axis=0, return_index=True, return_inverse=True
        )
        inside = self.of_neuron >= 0
        of_neuron = np.full(len(self.of_neuron), -1, dtype=np.int64)
        of_neuron[inside] = group.reshape(-1)[self.of_neuron[inside]]
        return NeuronGroups(self.sign[first], pattern[first], of_neuron)

    def __len__(self) -> int:
        return len(self.sign)

    def same_as(self, other: NeuronGroups) -> bool:
        """Whether every neuron is in a group of the same pattern."""
        return (
            self.pattern.shape == other.pattern.shape
            and bool((self.of_neuron == other.of_neuron).all())
            and bool((self.pattern == other.pattern).all())
        )

    def unreached(self) -> IntArray:
        """Examples that no group is active on: no multipliers exist for them."""
        return np.flatnonzero(~self.pattern.any(axis=0)).astype(np.int64)

    def masses(self, net: TwoLayerNet) -> FloatArray:
        """sum of v_j^2 over the neurons of each group, shape (G,)."""
        inside = self.of_neuron >= 0
        mass = np.zeros(len(self))
        np.add.at(mass, self.of_neuron[inside], net.v[inside] ** 2)
        return mass

    def joined(self, group: IntArray) -> NeuronGroups:
        """Neurons of group g become neurons of group[g]; -1 puts them outside."""
        inside = self.of_neuron >= 0
        of_neuron = np.full(len(self.of_neuron), -1, dtype=np.int64)
        of_neuron[inside] = group[self.of_neuron[inside]]
        return NeuronGroups(self.sign, self.pattern, of_neuron)

    def spread(self, net: TwoLayerNet) -> FloatArray:
        """Share of each neuron in its group's mass, in the ratio of v_j^2; 0 outside groups."""
        inside = self.of_neuron >= 0
        share = np.zeros(net.width)
        share[inside] = net.v[inside] ** 2 / self.masses(net)[self.of_neuron[inside]]
        return share
