"""The checker of KKT points: an exact one lies within the stated radius.

Equations of the active set by Krawczyk's test, inequalities strictly, the distance in full width:
docs/theory.md, section 4.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reluflow._results import Result, Status, plain
from reluflow._validation import FloatArray, IntArray
from reluflow.certificates.archive import CertificateError
from reluflow.certificates.ball import Ball, down, up
from reluflow.certificates.kkt import ACTIVE, INACTIVE, KINK, KKTStatement
from reluflow.certificates.kkt_system import (
    NoProofError,
    System,
    augmented,
    group_signs,
    solve,
    to_ball,
)


@dataclass(frozen=True)
class Distances(Result):
    """How far an exact KKT point can be, in theta, in lam and in s."""

    radius: float
    multiplier_radius: float
    clarke_radius: float


@dataclass(frozen=True, eq=False)
class KKTVerification(Result):
    """What a check of a `KKTStatement` found.

    Attributes
    ----------
    status : Status
        ``verified`` or ``refused``.
    distances : Distances or None
        What was proved; None where nothing was.
    problems : tuple of str
        Why the statement does not stand.
    statement : KKTStatement
    """

    status: Status
    distances: Distances | None
    problems: tuple[str, ...]
    statement: KKTStatement

    @property
    def verified(self) -> bool:
        """Whether everything that is stated stands."""
        return self.status == Status.VERIFIED

    def point_lines(self) -> list[str]:
        """One line a support vector."""
        lam = self.statement.multipliers
        return [f"{i:>7}  multiplier {lam[i]:.17g}" for i in np.flatnonzero(lam)]

    def to_dict(self) -> dict[str, object]:
        """What was found, JSON-ready."""
        return {
            "status": self.status.value,
            "distances": plain(self.distances),
            "problems": list(self.problems),
            "network": self.statement.network_digest,
        }

    def __str__(self) -> str:
        s = self.statement
        trained = [name for name, yes in (("v", s.train_output), ("b", s.bias)) if yes]
        lines = [
            f"Certificate of a KKT point: {len(s.y)} examples, {len(s.v)} neurons",
            f"  network             {len(s.v)} neurons, {s.W.shape[1]} inputs, "
            f"sha256 {s.network_digest[:16]}",
            f"  trained             {', '.join(['W', *trained])}",
            f"  support vectors     {int((s.multipliers != 0).sum())}",
            f"  kinks               {int((s.state == KINK).sum())} in {len(s.state)} groups",
            f"  stated radius       {s.radius:.3g} in theta, {s.multiplier_radius:.3g} in lam, "
            f"{s.clarke_radius:.3g} in s",
        ]
        if self.distances is not None:
            lines.append(f"  proved radius       {self.distances.radius:.3g} in theta")
        lines += [f"  {problem}" for problem in self.problems] + [f"  {self.status}"]
        return "\n".join(lines)


def check_kkt(statement: KKTStatement) -> KKTVerification:
    """Proves the statement anew.

    Raises
    ------
    CertificateError
        If it is malformed.
    ImportError
        If python-flint is not installed.
    """
    try:
        found = enclose(statement)
    except NoProofError as error:
        return KKTVerification(Status.REFUSED, None, (f"not proved: {error}",), statement)
    problems = tuple(
        f"the stated {name} is {getattr(statement, name):.17g}; proved is {proved:.17g}"
        for name, proved in vars(found).items()
        if not proved <= getattr(statement, name)
    )
    status = Status.REFUSED if problems else Status.VERIFIED
    return KKTVerification(status, found, problems, statement)


def enclose(statement: KKTStatement) -> Distances:
    """How near an exact KKT point is, whatever is stated.

    Raises
    ------
    NoProofError
        With the reason.
    CertificateError
        If the statement is malformed.
    """
    _require_shape(statement)
    if not (statement.multipliers > 0).any():
        raise NoProofError("no multiplier is above 0")
    system = System(statement)
    found = solve(system)
    x, masses = system.split(found)
    coefficients = np.zeros((2, system.groups, len(statement.y)))
    values, mass = to_ball(x), to_ball(masses)
    for r, i in enumerate(system.example):
        own = system.pull[r] != 0
        coefficients[0, own, i] = system.pull[r, own] * values.mid[r]
        coefficients[1, own, i] = values.rad[r]
    A = Ball(*coefficients)
    _require_signs(statement, system, found, values, mass, A)
    return _distances(statement, system, values, mass, A)


def _require_signs(
    s: KKTStatement, system: System, found: list[Any], values: Ball, mass: Ball, A: Ball
) -> None:
    """The strict inequalities of a KKT point with this active set."""
    lam = values[: system.supported]
    if not (lam.lower > 0).all():
        raise NoProofError("a multiplier is not surely above 0")
    if not (mass.lower > 0).all():
        raise NoProofError("the mass of a group is not surely above 0")
    force, whole = values[system.supported :], _multiplier_of_force(system, lam)
    off = np.flatnonzero(~((force.lower > 0) & (force.upper < whole.lower)))
    if len(off):
        pairs = np.argwhere(s.state == KINK)[off]
        raise NoProofError(
            f"the Clarke weight of example {pairs[0][1]} in group {pairs[0][0]} is not surely "
            "between 0 and 1: degenerate",
            off_kink=pairs,
        )
    support = np.flatnonzero(s.multipliers != 0)
    _require_sides(s, system, found, support)
    examples = augmented(s)
    rest = np.flatnonzero(s.multipliers == 0)
    z = A[:, support] @ (Ball(examples[support]) @ Ball(examples[rest].T))
    low, high = np.maximum(z.lower, 0), np.maximum(z.upper, 0)
    relu = Ball((low + high) / 2, up(up(high - low)))
    margins = (mass * system.sign) @ relu * s.y[rest]
    short = rest[~np.atleast_1d(margins.lower > 1)]
    if len(short):
        raise NoProofError(
            f"the margin of example {short[0]}, whose multiplier is 0, is not surely above 1: "
            "degenerate"
        )


def _require_sides(s: KKTStatement, system: System, found: list[Any], support: IntArray) -> None:
    """Each support vector on the side of each group's kink that its Clarke weight asks for."""
    _, z = system.directions(system.split(found)[0])
    wrong, surely_active = [], []
    # A group that nothing pulls is 0: so are its pre-activations, with s = 0.
    for g in np.flatnonzero(system.pull.any(axis=0)).tolist():
        for r, i in enumerate(support.tolist()):
            state = s.state[g, i]
            if state == INACTIVE and not z[r, g] <= 0:
                wrong.append((g, i))
                if z[r, g] > 0:
                    surely_active.append((g, i))
            elif state == ACTIVE and not z[r, g] >= 0:
                wrong.append((g, i))
    if wrong:
        raise NoProofError(
            f"example {wrong[0][1]} is not surely on its side of the kink of group {wrong[0][0]}: "
            "degenerate",
            onto_kink=np.array(surely_active, dtype=np.int64).reshape(-1, 2),
        )


def _multiplier_of_force(system: System, lam: Ball) -> Ball:
    where = {int(i): r for r, i in enumerate(system.example[: system.supported])}
    return lam[np.array([where[int(i)] for i in system.example[system.supported :]], dtype=int)]


def _distances(s: KKTStatement, system: System, values: Ball, mass: Ball, A: Ball) -> Distances:
    """theta* has v*_j = v_j sqrt(c*_g / c_g), c_g the sum of v_j^2, and w~*_j = |v*_j| a*_g."""
    support, live = s.multipliers != 0, s.group >= 0
    directions = A[:, support] @ Ball(augmented(s)[support])
    parameters = np.column_stack([s.W, s.b]) if s.bias else s.W
    group = s.group[live]
    v = Ball(np.abs(s.v[live]))
    if s.train_output:
        given = to_ball(system.given_masses())
        v = v * _root(mass.lower / given.upper, mass.upper / given.lower)[group]
    moved = directions[group] * v.reshape(-1, 1) - parameters[live]
    # What is nothing in theta* is all there is between.
    parts = [moved.magnitude.ravel(), np.abs(parameters[~live]).ravel()]
    if s.train_output:
        parts += [(v - np.abs(s.v[live])).magnitude, np.abs(s.v[~live])]
    if not s.bias:
        parts.append(np.abs(s.b))
    lam = values[: system.supported]
    force, whole = values[system.supported :], _multiplier_of_force(system, lam)
    clarke = 0.0
    if len(force.mid):
        stated = s.kink[s.state == KINK]
        low, high = down(force.lower / whole.upper), up(force.upper / whole.lower)
        clarke = float(up(np.maximum(high - stated, stated - low)).max())
    return Distances(
        radius=Ball(np.concatenate(parts)).norm_upper(),
        multiplier_radius=float((lam - s.multipliers[support]).magnitude.max()),
        clarke_radius=clarke,
    )


def _root(low: FloatArray, high: FloatArray) -> Ball:
    """Balls around the roots of what lies between the neighbours of these."""
    low, high = down(np.sqrt(down(low))), up(np.sqrt(up(high)))
    return Ball((low + high) / 2, up(up(high - low)))


def _require_shape(s: KKTStatement) -> None:
    """Refuses what no statement can look like."""
    n, m, d, G = len(s.y), len(s.v), s.X.shape[-1], len(s.state)
    shapes = {
        "X": (n, d),
        "W": (m, d),
        "b": (m,),
        "multipliers": (n,),
        "group": (m,),
        "state": (G, n),
        "kink": (G, n),
    }
    for name, shape in shapes.items():
        if getattr(s, name).shape != shape:
            raise CertificateError(f"{name} has shape {getattr(s, name).shape}, not {shape}")
    for name in ("X", "y", "W", "b", "v", "multipliers", "kink"):
        values = getattr(s, name)
        if values.dtype != np.float64 or not np.isfinite(values).all():
            raise CertificateError(f"{name} is not made of finite numbers of type float64")
    if not (s.bias or not s.b.any()):
        raise CertificateError("biases that are not trained must be 0")
    live = s.group >= 0
    signs = group_signs(s) if set(s.group[live]) == set(range(G)) else np.zeros(G)
    valid = (
        np.isin(s.y, (-1, 1)).all()
        and (s.multipliers >= 0).all()
        and (signs != 0).all()
        and (np.sign(s.v[live]) == signs[s.group[live]]).all()
        and np.isin(s.state, (INACTIVE, ACTIVE, KINK)).all()
        and not (s.state[:, s.multipliers == 0] == KINK).any()
        # Where v is not trained, only what v makes nothing of is nothing.
        and (s.train_output or not s.v[~live].any())
    )
    if not valid:
        raise CertificateError("labels, multipliers, groups or states are impossible")
