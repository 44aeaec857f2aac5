"""What robustness costs on noise-free, orthogonal clusters: derived prices of robust networks.

The price is sqrt(d) times half the squared norm of the parameters at robust margin 1; radii are
t sqrt(d/k). Everything is in units of the means' length, docs/theory.md, section 10.4.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._validation import FloatArray, as_number, as_positive_int
from reluflow.adversarial import adversarial_examples
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet

# Of the linear program: beyond, its networks have too many neurons.
MOST_CLUSTERS = 16
_FIRST_GRID = 13
_REFINEMENTS = 3
_MOST_ROUNDS = 60
_MARGIN_TOLERANCE = 1e-4
_SPREAD = 0.3


def averaging_share(t: float) -> float:
    """The share a of the network w+- = P - aQ, Q - aP that robustness to t sqrt(d/k) asks for.

    P and Q are the sums of the means of each label over sqrt(d). The margin within the ball is
    1 - t sqrt((1 + a^2)/2) where one neuron is active and (1 + a)(1 - t) where both are; the price
    is smallest where the two are equal.
    """
    from scipy.optimize import brentq

    t = as_number("t", t, at_least=0)
    if t >= 1:
        raise ValueError(f"t must be below 1, where averaging has no robust margin; got {t:g}")
    if t == 0:
        return 0.0

    def gap(a: float) -> float:
        return (1 + a) * (1 - t) - 1 + t * math.sqrt((1 + a * a) / 2)

    return float(brentq(gap, 0.0, 1.0))


def averaging_price(n_clusters: int, t: float) -> float:
    """Price of the best network with one neuron a label: sqrt(2k) sqrt(1 + a^2)/((1 + a)(1 - t)).

    t = 0 is the clean network, sqrt(2k).
    """
    k = as_positive_int("n_clusters", n_clusters, minimum=2)
    a = averaging_share(t)
    return math.sqrt(2 * k) * math.sqrt(1 + a * a) / ((1 + a) * (1 - t))


def averaging_threshold(n_clusters: int) -> float:
    """t*: one neuron a label is the cheapest robust network up to t* sqrt(d/k) and not beyond.

    The multipliers of the averaging network are known, and by linear-programming duality it is
    optimal if and only if no other neuron gains more than it costs. Neurons that are equal on p
    clusters of their label, on the others of it, and on the other label are tried; the one that
    leaves out a single cluster is the first to gain.
    """
    from scipy.optimize import brentq

    k = as_positive_int("n_clusters", n_clusters, minimum=4)
    if k % 2:
        raise ValueError(f"n_clusters must be even, half a label; got {k}")
    return float(brentq(lambda t: _largest_gain(k // 2, t) - 1 - 1e-9, 0.3, 0.7, xtol=1e-4))


def _largest_gain(h: int, t: float) -> float:
    """max over w of what a neuron of the first label gains, 1 for the averaging network's own."""
    from scipy.optimize import minimize

    a = averaging_share(t)
    radius = t / math.sqrt(2 * h)
    shrink = radius / math.sqrt(h * (1 + a * a))
    # At perturbed examples of the first label: own cluster aside, what is subtracted everywhere.
    alone, both = (shrink, -a * shrink), (t / (2 * h), -t / (2 * h))
    lam = np.array([(1 - t) * (1 - a) / a, 1.0])
    # Of the gain in w at the network's own neuron, on every mean of either label: along (1, -a).
    pull = lam[0] * h * shrink
    gradient = (lam[0] - pull + lam[1] * (1 - t), a * pull - lam[1] * (1 - t))
    length = math.sqrt(h) * math.hypot(*gradient)
    lam = lam / length

    def gain(w: FloatArray, p: int) -> float:
        own, rest, other = w / math.sqrt(p * w[0] ** 2 + (h - p) * w[1] ** 2 + h * w[2] ** 2)
        first, second = p * own + (h - p) * rest, h * other
        total = 0.0
        for weight, (same, opposite) in zip(lam, (alone, both), strict=True):
            pulled = same * first + opposite * second
            total += weight * (p * max(own - pulled, 0) + (h - p) * max(rest - pulled, 0))
            pushed = same * second + opposite * first
            total -= weight * h * max(other - pushed, 0)
        return float(total)

    def loss(w: FloatArray, p: int) -> float:
        return -gain(np.array([1.0, *w]), p)

    best = -math.inf
    for p in sorted({1, h // 2, h - 2, h - 1} - {0}):
        for rest, other in itertools.product((-0.1, 0.2), (-0.4, 0.0)):
            found: Any = minimize(
                loss,
                np.array([rest, other]),
                args=(p,),
                method="Nelder-Mead",
                options={"xatol": 1e-6, "fatol": 1e-10},
            )
            best = max(best, -float(found.fun))
    return best


@dataclass(frozen=True, eq=False)
class RobustPrice:
    """The cheapest robust network that was found, and a bound on what any of its kind costs.

    Attributes
    ----------
    price : float
        Of ``net``, scaled to robust margin 1.
    lower_bound : float
        Of the last linear program: no network made of the neurons it may choose from is cheaper.
    net : TwoLayerNet
        On k coordinates, the means being the unit vectors, the first half of label +1.
    """

    price: float
    lower_bound: float
    net: TwoLayerNet


def infinite_width_price(n_clusters: int, t: float) -> RobustPrice:
    """The cheapest network of any width that is robust to t sqrt(d/k), by a linear program.

    The price is linear in the masses of neurons, and so is every robust margin. By symmetry masses
    are spread evenly over all clusters of a label. Neurons are equal on p clusters of their label,
    on the others of it, and on the other label, values of a grid that is refined where masses are.
    Constraints are added where the search for adversarial examples finds them violated. HiGHS
    (Huangfu & Hall 2018).

    Raises
    ------
    ValueError
        If k is odd or above 16, or t sqrt(d/k) reaches half the distance sqrt(d/2) between means.
    """
    k = as_positive_int("n_clusters", n_clusters, minimum=2)
    t = as_number("t", t, at_least=0)
    if k % 2 or k > MOST_CLUSTERS:
        raise ValueError(f"n_clusters must be even and at most {MOST_CLUSTERS}; got {k}")
    if t >= math.sqrt(k / 2):
        raise ValueError(f"t must be below sqrt(k/2) = {math.sqrt(k / 2):.6g}; got {t:g}")
    program = _Program(k // 2, t / math.sqrt(k))
    return program.solve()


class _Program:
    """Neurons (p, rest, other): 1 on p clusters of their label."""

    def __init__(self, h: int, radius: float) -> None:
        self.h, self.radius = h, radius
        self.points = np.eye(2 * h)[:1]
        self.data = Dataset(np.eye(2 * h), np.repeat([1.0, -1.0], h), np.arange(2 * h))
        grid = np.linspace(-1, 1, _FIRST_GRID)
        self.step = grid[1] - grid[0]
        self.neurons = self._distinct(
            [(p, rest, other) for p in range(1, h + 1) for rest in grid for other in grid]
        )

    def solve(self) -> RobustPrice:
        """Refines rows at every step, columns where the rows have settled."""
        masses, bound = self._settle()
        for _ in range(_REFINEMENTS):
            self.step /= 3
            near = [
                (p, rest + i * self.step, other + j * self.step)
                for (p, rest, other), mass in zip(self.neurons, masses, strict=True)
                if mass > 0
                for i, j in itertools.product((-1, 0, 1), repeat=2)
            ]
            self.neurons = self._distinct([*self.neurons, *near])
            masses, bound = self._settle()
        net = self._network(masses)
        margin = adversarial_examples(net, self.data, self.radius, num_threads=1).margins.min()
        return RobustPrice(2 * float(masses.sum()) / float(margin), bound, net)

    def _settle(self) -> tuple[FloatArray, float]:
        for _ in range(_MOST_ROUNDS):
            masses, price = self._linear_program()
            found = adversarial_examples(
                self._network(masses), self.data, self.radius, spread=_SPREAD, num_threads=1
            )
            if found.margins.min() >= 1 - _MARGIN_TOLERANCE:
                break
            first = found.example == 0
            violated = first & (found.margins < 1)
            self.points = np.vstack(
                [self.points, np.eye(2 * self.h)[0] + found.perturbations[violated]]
            )
        return masses, price

    def _linear_program(self) -> tuple[FloatArray, float]:
        from scipy.optimize import linprog

        gains = np.column_stack([self._gain(*neuron) for neuron in self.neurons])
        cost = np.full(len(self.neurons), 2.0)
        solved: Any = linprog(cost, A_ub=-gains, b_ub=-np.ones(len(gains)), method="highs")
        if solved.status != 0:
            raise ArithmeticError(f"the linear program was not solved: {solved.message}")
        masses: FloatArray = np.where(solved.x > 1e-9, solved.x, 0.0)
        return masses, float(solved.fun)

    def _rows(self, p: int, rest: float, other: float) -> FloatArray:
        """Unit neurons of the first label, one for each choice of p clusters."""
        chosen = list(itertools.combinations(range(self.h), p))
        rows = np.full((len(chosen), 2 * self.h), other)
        rows[:, : self.h] = rest
        for row, clusters in zip(rows, chosen, strict=True):
            row[list(clusters)] = 1.0
        return np.asarray(rows / np.linalg.norm(rows[0]))

    def _gain(self, p: int, rest: float, other: float) -> FloatArray:
        """Robust margins at the points, of a unit mass spread over each label's neurons."""
        rows = self._rows(p, rest, other)
        mirrored = np.roll(rows, self.h, axis=1)
        own = np.maximum(self.points @ rows.T, 0).mean(axis=1)
        opposite = np.maximum(self.points @ mirrored.T, 0).mean(axis=1)
        return np.asarray(own - opposite)

    def _network(self, masses: FloatArray) -> TwoLayerNet:
        rows, shares = [], []
        for neuron, mass in zip(self.neurons, masses, strict=True):
            if mass > 0:
                rows.append(self._rows(*neuron))
                shares.append(np.full(len(rows[-1]), mass / len(rows[-1])))
        own, share = np.vstack(rows), np.concatenate(shares)
        weights = np.vstack([own, np.roll(own, self.h, axis=1)])
        return TwoLayerNet(weights, np.zeros(len(weights)), np.concatenate([share, -share]))

    def _distinct(self, neurons: list[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
        """Without those that differ by rounding, or by a value that no cluster has."""
        keys = [(p, 0.0 if p == self.h else round(r, 9), round(o, 9)) for p, r, o in neurons]
        return list(dict.fromkeys(keys))
