"""Proof that an exact KKT point lies near a computed one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reluflow._results import Result, Status
from reluflow.certificates.kkt import ACTIVE, INACTIVE, KINK, KKTStatement
from reluflow.certificates.kkt_check import Distances, enclose
from reluflow.certificates.kkt_system import NoProofError
from reluflow.data import Dataset
from reluflow.kkt.point import KKTPoint
from reluflow.network import require_dim

_MAX_CORRECTIONS = 8


@dataclass(frozen=True, eq=False)
class KKTProof(Result):
    """Whether, and how near, an exact KKT point was proved to be.

    Attributes
    ----------
    status : Status
        ``proved`` or ``unproved``.
    reason : str
        Why nothing was proved; empty with ``proved``.
    radius : float
        An exact KKT point theta* has ||theta* - theta|| <= radius; infinite without a proof.
    relative_radius : float
        radius / ||theta||.
    multiplier_radius, clarke_radius : float
        Its multipliers and Clarke weights are that close to the computed ones.
    statement : KKTStatement
    """

    status: Status
    reason: str
    radius: float
    relative_radius: float
    multiplier_radius: float
    clarke_radius: float
    statement: KKTStatement

    def save(self, path: str | Path) -> None:
        """Writes a certificate that `reluflow verify` checks.

        Raises
        ------
        ValueError
            If nothing was proved.
        OSError
            If it cannot be written.
        """
        if self.status != Status.PROVED:
            raise ValueError(f"there is no proof to save: {self.reason}")
        self.statement.save(path)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the statement, JSON-ready."""
        fields = super().to_dict()
        del fields["statement"]
        return fields

    def __str__(self) -> str:
        if self.status != Status.PROVED:
            return f"{self.status}\n  reason              {self.reason}"
        return "\n".join(
            [
                str(self.status),
                f"  radius              {self.radius:.3g}, {self.relative_radius:.3g} of ||theta||",
                f"  of the multipliers  {self.multiplier_radius:.3g}",
                f"  of Clarke weights   {self.clarke_radius:.3g}",
            ]
        )


def prove_kkt(
    point: KKTPoint, data: Dataset, *, train_output: bool = True, bias: bool = True
) -> KKTProof:
    """Proves that an exact KKT point lies within a radius of a computed one.

    The equations of the point's active set (multipliers above 0, kinks, live groups) are smooth;
    Krawczyk's test in ball arithmetic shows that they have exactly one solution in a box around the
    computed numbers, all strict inequalities are checked on the box, and the distance is bounded at
    full width. Needs the package python-flint: ``pip install "reluflow[verify]"``.

    Parameters
    ----------
    point : KKTPoint
        From `kkt_point` or `flow_limit`.
    data : Dataset
        The same examples.
    train_output, bias : bool
        As for `kkt_point`.

    Returns
    -------
    KKTProof
        With status ``unproved`` and the reason where the active set is degenerate, or the point is
        none: nothing is ever proved that does not hold.

    Raises
    ------
    ValueError
        If shapes disagree.
    ImportError
        If python-flint is not installed.

    References
    ----------
    Krawczyk 1969; Rump 2010, section 13; docs/theory.md, section 4.10.
    """
    require_dim("data.X", data.dim, point.net)
    if data.n != len(point.multipliers):
        raise ValueError(
            f"data has {data.n} examples; the point has {len(point.multipliers)} multipliers"
        )
    if not bias and point.net.b.any():
        raise ValueError("bias=False needs a point with zero biases")
    statement = _statement(point, data, train_output, bias)
    try:
        statement, found = _enclosed(statement)
    except NoProofError as error:
        return KKTProof(Status.UNPROVED, str(error), np.inf, np.inf, np.inf, np.inf, statement)
    return KKTProof(
        Status.PROVED,
        "",
        found.radius,
        found.radius / point.net.norm,
        found.multiplier_radius,
        found.clarke_radius,
        replace(statement, **vars(found)),
    )


def _enclosed(
    statement: KKTStatement, corrections: int = _MAX_CORRECTIONS
) -> tuple[KKTStatement, Distances]:
    """The statement, with pairs that only rounding had put on or off a kink put right."""
    try:
        return statement, enclose(statement)
    except NoProofError as error:
        if not corrections or not len(error.onto_kink) + len(error.off_kink):
            raise
        state, kink = statement.state.copy(), statement.kink.copy()
        for pairs, to in ((error.onto_kink, KINK), (error.off_kink, INACTIVE)):
            group, example = pairs.T
            state[group, example], kink[group, example] = to, 0.0
    return _enclosed(replace(statement, state=state, kink=kink), corrections - 1)


def _statement(point: KKTPoint, data: Dataset, train_output: bool, bias: bool) -> KKTStatement:
    """Neurons of one sign with the same states on the support vectors are one group."""
    net, support = point.net, point.multipliers > 0
    weights = point.clarke
    state = np.where(weights <= 0, INACTIVE, np.where(weights >= 1, ACTIVE, KINK))
    state[~support] = INACTIVE
    live = np.flatnonzero(net.v != 0)
    keys = np.column_stack([np.sign(net.v[live]), state[:, live].T])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = np.full(net.width, -1, dtype=np.int64)
    group[live] = inverse.reshape(-1)
    chosen = live[first]
    kinks = np.where(state == KINK, weights, 0.0)
    return KKTStatement(
        X=data.X,
        y=data.y,
        W=net.W,
        b=net.b,
        v=net.v,
        multipliers=np.where(support, point.multipliers, 0.0),
        group=group,
        state=np.ascontiguousarray(state[:, chosen].T, dtype=np.int64),
        kink=np.ascontiguousarray(kinks[:, chosen].T),
        train_output=train_output,
        bias=bias,
        radius=np.inf,
        multiplier_radius=np.inf,
        clarke_radius=np.inf,
    )
