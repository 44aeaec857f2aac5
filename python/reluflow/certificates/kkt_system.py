"""The smooth equations of one active set, in python-flint's ball arithmetic.

Unknowns are the multipliers lam_i of the support, the kink forces t_gi = s_gi lam_i, and, where v
is trained, the group masses c_g; with a_g = sum_i y_i sign_g (lam_i or t_gi) x~_i,

    sum_g c_g P_rg a_g . x~_r = 1 for multipliers, 0 for kink forces,     ||a_g||^2 = 1.

docs/theory.md, section 4.10.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from reluflow._validation import FloatArray, IntArray
from reluflow.certificates.ball import Ball, down, up
from reluflow.certificates.kkt import ACTIVE, KINK, KKTStatement

# Bits of the residuals; matrices are balls of floating-point numbers.
_BITS = 192
_NEWTON_STEPS = 30
_SMALL = 2.0**-120
# The equations are of order one.
_DIVERGED = 1e6


class NoProofError(Exception):
    """Why nothing was proved.

    Attributes
    ----------
    onto_kink, off_kink : ndarray of int64, shape (c, 2)
        (group, example) that the active set has off the kink, or on it, and that turn out not to
        be there.
    """

    def __init__(
        self, reason: str, onto_kink: IntArray | None = None, off_kink: IntArray | None = None
    ) -> None:
        super().__init__(reason)
        none = np.empty((0, 2), dtype=np.int64)
        self.onto_kink = none if onto_kink is None else onto_kink
        self.off_kink = none if off_kink is None else off_kink


def arithmetic() -> ModuleType:
    """python-flint, at the precision of this module.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import flint
    except ImportError:
        raise ImportError(
            "proofs of KKT points need python-flint: pip install 'reluflow[verify]'"
        ) from None
    flint.ctx.prec = _BITS
    module: ModuleType = flint
    return module


class System:
    """Unknowns (lam, t, c), in this order.

    Attributes
    ----------
    example : ndarray of int64, shape (r,)
        Whose example each multiplier or force belongs to.
    pull : ndarray, shape (r, G)
        P: -1, 0 or 1.
    """

    def __init__(self, statement: KKTStatement) -> None:
        self.flint: Any = arithmetic()
        self.statement = statement
        support = np.flatnonzero(statement.multipliers != 0)
        group, example = np.nonzero(statement.state == KINK)
        self.supported = len(support)
        self.example = np.concatenate([support, example]).astype(np.int64)
        self.sign = group_signs(statement)
        signs = statement.y[:, None] * self.sign
        of_multipliers = signs[support] * (statement.state[:, support] == ACTIVE).T
        of_forces = np.zeros((len(group), len(self.sign)))
        of_forces[np.arange(len(group)), group] = signs[example, group]
        self.pull = np.concatenate([of_multipliers, of_forces])
        self.augmented = augmented(statement)[self.example]
        exact = self.flint.arb_mat(self.augmented.tolist())
        self.K = exact * exact.transpose()

    @property
    def groups(self) -> int:
        return len(self.sign)

    def start(self) -> list[Any]:
        """The numbers of the statement."""
        s, arb = self.statement, self.flint.arb
        lam = s.multipliers[s.multipliers != 0]
        force = s.kink[s.state == KINK] * s.multipliers[np.nonzero(s.state == KINK)[1]]
        masses = self.given_masses() if s.train_output else []
        return [arb(float(value)) for value in (*lam, *force)] + [mass.mid() for mass in masses]

    def given_masses(self) -> list[Any]:
        """sum of v_j^2 over each group."""
        arb, s = self.flint.arb, self.statement
        return [
            sum((arb(float(v)) ** 2 for v in s.v[s.group == g]), arb(0)) for g in range(self.groups)
        ]

    def split(self, x: list[Any]) -> tuple[list[Any], list[Any]]:
        """Multipliers and forces; masses, of which fixed ones are no unknowns."""
        size = len(self.example)
        return x[:size], x[size:] if self.statement.train_output else self.given_masses()

    def directions(self, x: list[Any]) -> tuple[Any, Any]:
        """P x (r, G) and a_g . x~_r (r, G)."""
        rows = [
            [value if p == 1 else -value if p == -1 else 0 for p in signs]
            for value, signs in zip(x, self.pull, strict=True)
        ]
        pulled = self.flint.arb_mat(rows)
        return pulled, self.K * pulled

    def residual(self, unknowns: list[Any]) -> list[Any]:
        """Left sides less right sides."""
        x, mass = self.split(unknowns)
        pulled, z = self.directions(x)
        arb = self.flint.arb
        found = []
        for r, signs in enumerate(self.pull):
            terms = (mass[g] * z[r, g] * int(signs[g]) for g in np.flatnonzero(signs).tolist())
            found.append(sum(terms, arb(0)) - (1 if r < self.supported else 0))
        if self.statement.train_output:
            for g in range(self.groups):
                own = np.flatnonzero(self.pull[:, g]).tolist()
                square = sum((pulled[r, g] * z[r, g] for r in own), arb(0))
                found.append((square - 1) / 2)
        return found

    def jacobian(self, unknowns: list[Any]) -> Ball:
        """Of the residual, for all unknowns within their balls."""
        x, mass = self.split(unknowns)
        _, z = self.directions(x)
        K = Ball(self.augmented) @ Ball(self.augmented.T)
        H: Ball = (self.pull * to_ball(mass)) @ self.pull.T * K
        if not self.statement.train_output:
            return H
        U = to_ball([z[r, g] for r in range(len(x)) for g in range(self.groups)])
        U = U.reshape(len(x), self.groups) * self.pull
        corner = np.zeros((self.groups, self.groups))
        return Ball(
            np.block([[H.mid, U.mid], [U.mid.T, corner]]),
            np.block([[H.rad, U.rad], [U.rad.T, corner]]),
        )


def group_signs(statement: KKTStatement) -> FloatArray:
    """Signs of v, one a group."""
    return np.array(
        [np.sign(statement.v[statement.group == g][0]) for g in range(len(statement.state))]
    )


def augmented(statement: KKTStatement) -> FloatArray:
    """x~: the examples, with a 1 where biases are trained."""
    if not statement.bias:
        return statement.X
    return np.column_stack([statement.X, np.ones(len(statement.y))])


def to_ball(values: list[Any]) -> Ball:
    """Floating-point balls around arbs."""
    mid = np.array([float(value.mid()) for value in values])
    rad = [float(abs(value - m).upper()) for value, m in zip(values, mid.tolist(), strict=True)]
    return Ball(mid, up(np.array(rad) * (1 + 2.0**-50)))


def solve(system: System) -> list[Any]:
    """Balls that hold exactly one solution of the equations, near the statement's numbers.

    Newton's method, then Krawczyk's test: with C near the inverse of the Jacobian, C F(x) and
    I - C J(X) map the box X around x into its inside (Krawczyk 1969; Rump 2010, section 13).
    """
    arb = system.flint.arb
    x = system.start()
    inverse = _inverse(system.jacobian(x).mid)
    for _ in range(_NEWTON_STEPS):
        residual = np.array([float(value.mid()) for value in system.residual(x)])
        if not (np.abs(residual) < _DIVERGED).all():
            raise NoProofError("Newton's method does not converge from it")
        step = inverse @ residual
        x = [(value - float(d)).mid() for value, d in zip(x, step, strict=True)]
        size = np.array([abs(float(value)) for value in x])
        if (np.abs(step) <= _SMALL * size.max()).all():
            break
    scale = np.maximum(size, 1e-6 * size.max())
    shift = (Ball(inverse) @ to_ball(system.residual(x))).magnitude
    reach = (2 * float((shift / scale).max()) + _SMALL) * scale
    box = [value + arb(0, float(rad)) for value, rad in zip(x, reach, strict=True)]
    rest = (Ball(np.eye(len(x))) - Ball(inverse) @ system.jacobian(box)).magnitude
    if not ((Ball(rest) @ reach).upper + shift < down(reach)).all():
        raise NoProofError("the equations of its active set are dependent, or too nearly so")
    return box


def _inverse(matrix: FloatArray) -> FloatArray:
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        inverse = np.full_like(matrix, np.nan)
    if not np.isfinite(inverse).all():
        raise NoProofError("the equations of its active set are dependent")
    return np.asarray(inverse, dtype=np.float64)
