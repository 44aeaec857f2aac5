"""Examples that an adversary moves within a ball, against one network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._dispatch import kernels
from reluflow._results import Result, Status
from reluflow._targets import targets_for
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    FloatArray,
    IntArray,
    as_number,
    as_positive_int,
    one_of,
    require_memory,
)
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet, require_dim

INNER = ("search", "pgd")
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Attack:
    """How the smallest margin in the ball around an example is sought.

    Attributes
    ----------
    radius : float
        Of the ball.
    inner : {"search", "pgd"}
    steps : int
        Of projected gradient descent.
    """

    radius: float
    inner: str
    steps: int

    @classmethod
    def of(cls, radius: Any, inner: Any, steps: Any, name: str = "adversarial_radius") -> Attack:
        """Refuses what is no attack."""
        size = as_number(name, radius, at_least=0)
        if math.isinf(size):
            raise ValueError(f"{name} must be finite; got inf")
        count = as_positive_int("inner_steps", steps)
        return cls(size, one_of("inner", inner, INNER), count)

    @property
    def descent_steps(self) -> int:
        """As the kernels take them: 0 for the search."""
        return self.steps if self.inner == "pgd" else 0


@dataclass(frozen=True, eq=False)
class AdversarialExamples(Result):
    """Where the margins y_i N(x_i + delta), ||delta|| <= radius, were found to be smallest.

    Attributes
    ----------
    margins : ndarray, shape (p,)
        y_i N(x_i + delta).
    perturbations : ndarray, shape (p, d)
        delta.
    example : ndarray of int, shape (p,)
        Which example each belongs to: 0 .. n-1, or some of them several times where minima that lie
        close to the smallest were asked for.
    radius : float
    inner : str
        ``"search"`` or ``"pgd"``.
    status : Status
    """

    margins: FloatArray
    perturbations: FloatArray
    example: IntArray
    radius: float
    inner: str
    status: Status = Status.CONVERGED

    def dataset(self, data: Dataset) -> Dataset:
        """The perturbed examples."""
        cluster = None if data.cluster is None else data.cluster[self.example]
        X = data.X[self.example] + self.perturbations
        return Dataset(X, data.y[self.example], cluster)

    def __str__(self) -> str:
        right = int((self.margins > 0).sum())
        return "\n".join(
            [
                f"Adversarial examples within {self.radius:.6g}, by {self.inner}",
                f"  smallest margin     {self.margins.min():.6g}",
                f"  still classified    {right} of {len(self.margins)}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the perturbations, JSON-ready."""
        fields = super().to_dict()
        del fields["perturbations"]
        return fields


def adversarial_examples(
    net: TwoLayerNet,
    data: Dataset,
    radius: float,
    *,
    inner: str = "search",
    inner_steps: int = 100,
    spread: float = 0.0,
    num_threads: int | None = None,
    backend: str = "native",
) -> AdversarialExamples:
    """The perturbation within a ball that lowers each margin most.

    The search minimises, one by one, the convex pieces that y N is the smallest of, over the ball,
    from many starts, and moves on to the piece that is active at the minimum. The minimum of a
    piece is exact, that over all pieces the smallest found (docs/theory.md, section 10.2).

    Parameters
    ----------
    net : TwoLayerNet
    data : Dataset
        Examples; where ``cluster`` is known, means of clusters are starts of the search.
    radius : float
        Of the balls, at least 0.
    inner : {"search", "pgd"}
        The search, or projected gradient descent from the example (Madry et al. 2018).
    inner_steps : int
        Of projected gradient descent.
    spread : float
        With the search, also minima up to this much above the smallest one of their example.
    num_threads : int or None
        None means all cores that the process may use, which is also the most that are used.
        The result does not depend on it.
    backend : {"native", "numpy"}

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or of another type.
    """
    if not isinstance(net, TwoLayerNet):
        raise TypeError(
            f"adversarial examples are sought for a TwoLayerNet; got {type(net).__name__}"
        )
    require_dim("data.X", data.dim, net)
    attack = Attack.of(radius, inner, inner_steps, "radius")
    spread = as_number("spread", spread, at_least=0)
    targets, order = targets_for(data.X, data.y, data)
    require_memory("adversarial examples", 8.0 * (2 * data.X.size + 4 * data.n * net.width))
    found = kernels(backend).adversarial_points(
        net.W,
        net.b,
        net.v,
        data.X,
        data.y,
        np.ascontiguousarray(targets),
        order,
        attack.radius,
        attack.descent_steps,
        spread,
        resolve_num_threads(num_threads),
    )
    return AdversarialExamples(
        margins=found.margins,
        perturbations=found.coefficients @ net.W,
        example=found.example,
        radius=attack.radius,
        inner=attack.inner,
    )


def closest_opposites(data: Dataset) -> tuple[float, int, int]:
    """Distance of the two closest examples of opposite labels, and which they are.

    From half of it on, no classifier is right on both balls.
    """
    best = (math.inf, 0, 0)
    squares = (data.X**2).sum(axis=1)
    for begin in range(0, data.n, _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        distances = squares[rows, None] + squares - 2 * data.X[rows] @ data.X.T
        distances[data.y[rows, None] == data.y] = np.inf
        i, j = np.unravel_index(int(distances.argmin()), distances.shape)
        if distances[i, j] < best[0]:
            best = (float(distances[i, j]), begin + int(i), int(j))
    # Summed anew, without cancellation.
    distance = float(np.linalg.norm(data.X[best[1]] - data.X[best[2]]))
    return distance, best[1], best[2]
