"""The KKT point that belongs to a network's activation pattern, to rounding level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reluflow._results import Result, Status
from reluflow._validation import BoolArray, FloatArray, IntArray, as_number, require_memory
from reluflow.data import Dataset
from reluflow.flow import FlowResult
from reluflow.kkt.cone import solve_cone_program
from reluflow.kkt.groups import NeuronGroups
from reluflow.kkt.newton import NewtonResult, newton, shortest
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution, variables
from reluflow.kkt.quadratic import QuadraticProgram, solve
from reluflow.kkt.residuals import Kinks, KKTResiduals, kkt_residuals
from reluflow.kkt.start import linear_start
from reluflow.network import TwoLayerNet, require_dim

# Pre-activations within this share of the largest are zero when a pattern is checked.
_ZERO = 1e-10
_MAX_PRICING = 20


@dataclass(frozen=True, eq=False)
class Group(Result):
    """Parallel neurons of a KKT point.

    Attributes
    ----------
    sign : float
        Sign of their output weights.
    mass : float
        c_g = sum of v_j^2; 0 for a group that dies on the way to the limit.
    rho : float
        min over the kink forces of ||a_g||: 1 for live groups. A group below 1 loses its share of
        the network like log(1/L)^-(1 - rho).
    neurons : ndarray of int64
    examples : ndarray of int64
        P_g: the helpful examples it is active on.
    """

    sign: float
    mass: float
    rho: float
    neurons: IntArray
    examples: IntArray

    @property
    def decay_exponent(self) -> float:
        """1 - rho, the exponent of the slow law (docs/theory.md, section 2.5)."""
        return 1 - self.rho


@dataclass(frozen=True, eq=False)
class KKTPoint(Result):
    """A KKT point of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1.

    Attributes
    ----------
    status : Status
        ``converged``: every residual is at most ``tol`` and the point has the pattern it was
        computed for. Otherwise what is not certain.
    net : TwoLayerNet
        The limit of the flow's direction, scaled to smallest margin 1.
    multipliers : ndarray, shape (n,)
        lam_i >= 0.
    kinks : Kinks
        Clarke weights that are neither 0 nor 1, as (neuron, example, value).
    clarke : ndarray, shape (n, m)
        All Clarke weights s_ij.
    stationarity, feasibility, dual_feasibility, complementarity, clarke_violation : float
        Residuals at full width, from `kkt_residuals`, which shares nothing with the solver.
    normalized_margin : float
        min_i y_i N(x_i) / ||theta||^2.
    groups : tuple of Group
        Live groups first.
    stuck_points : ndarray of int64
        With status ``stuck_points``: the examples for which no multipliers exist.
    newton_steps, set_changes : int
        Linear solves of the final iteration, and corrections of its active set.
    """

    status: Status
    net: TwoLayerNet
    multipliers: FloatArray
    kinks: Kinks
    clarke: FloatArray
    stationarity: float
    feasibility: float
    dual_feasibility: float
    complementarity: float
    clarke_violation: float
    normalized_margin: float
    groups: tuple[Group, ...]
    stuck_points: IntArray
    newton_steps: int
    set_changes: int

    @property
    def residuals(self) -> KKTResiduals:
        """The residuals as one object."""
        return KKTResiduals(
            self.stationarity,
            self.feasibility,
            self.dual_feasibility,
            self.complementarity,
            self.clarke_violation,
            self.normalized_margin,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network and the full matrix of Clarke weights, JSON-ready."""
        fields = super().to_dict()
        del fields["net"], fields["clarke"]
        return fields

    def __str__(self) -> str:
        live = sum(group.mass > 0 for group in self.groups)
        lines = [
            str(self.status),
            str(self.residuals),
            f"  support vectors     {int((self.multipliers > 0).sum())} of {len(self.multipliers)}",
            f"  kinks               {len(self.kinks)}",
            f"  groups              {live} live, {len(self.groups) - live} that die",
        ]
        if len(self.stuck_points):
            shown = ", ".join(str(i) for i in self.stuck_points[:10])
            lines.append(f"  stuck examples      {shown}{', ...' * (len(self.stuck_points) > 10)}")
        return "\n".join(lines)


def kkt_point(
    flow_or_net: FlowResult | TwoLayerNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    tol: float = 1e-12,
) -> KKTPoint:
    """The KKT point with the activation pattern of a network, such as the end of a flow.

    Neurons of one sign of v that are active on the same helpful examples (y_i v_j > 0) are
    parallel at every KKT point; given these groups, the KKT points are the solutions of a small
    convex program. It is solved to rounding level by an active-set Newton iteration, from a start
    by linear solves or from an interior-point method, and spread over the neurons in the ratio of
    their v_j^2. No margin needs to be positive yet: patterns settle early.

    Parameters
    ----------
    flow_or_net : FlowResult or TwoLayerNet
    data : Dataset
    train_output, bias : bool
        Whether v and b belong to the parameters.
    tol : float
        Residual up to which the status is ``converged``.

    Returns
    -------
    KKTPoint
        With status ``inconsistent_pattern`` where the solution is active on other helpful examples
        than its neurons were: then it is no KKT point, and the flow must go on.

    Raises
    ------
    ValueError
        If shapes disagree.
    MemoryError
        If the Gram matrix would not fit.

    References
    ----------
    Lyu & Li 2020, Theorem 4.4, for why gradient flow tends to a KKT point; docs/theory.md,
    sections 4.3 to 4.7, for groups, the program and the iteration.
    """
    net = flow_or_net.net if isinstance(flow_or_net, FlowResult) else flow_or_net
    require_dim("data.X", data.dim, net)
    if not bias and net.b.any():
        raise ValueError(
            f"bias=False needs a network with zero biases; {np.count_nonzero(net.b)} are not zero"
        )
    tol = as_number("tol", tol, at_least=0)
    require_memory("the Gram matrix", 8.0 * 3 * data.n**2)
    setting = _Setting(train_output, bias, tol)
    groups = NeuronGroups.of(net, data)
    if len(groups.unreached()):
        return no_point(net, data, Status.STUCK_POINTS, groups.unreached(), setting)
    K = data.X @ data.X.T + (1.0 if bias else 0.0)
    if train_output:
        program = GroupProgram(K, data.y, groups.sign, groups.pattern)
        found = _trained_output(program, groups.masses(net))
    else:
        program = GroupProgram(K, data.y, groups.sign, groups.pattern, groups.masses(net))
        found = _fixed_output(program)
    if found is None:
        return no_point(net, data, Status.NOT_SOLVED, np.empty(0, dtype=np.int64), setting)
    return _assembled(net, data, groups, program, found, setting)


class _Setting(NamedTuple):
    train_output: bool
    bias: bool
    tol: float


def no_point(
    net: TwoLayerNet, data: Dataset, status: Status, stuck: IntArray, setting: _Setting
) -> KKTPoint:
    """What is returned where there is no KKT point: the network itself, with multipliers zero."""
    lam = np.zeros(data.n)
    clarke = (data.X @ net.W.T + net.b > 0).astype(np.float64)
    residuals = _residuals(net, data, lam, clarke, setting)
    return _point(status, net, lam, clarke, residuals, (), stuck, 0, 0)


# --- solving --------------------------------------------------------------------------------------


def _trained_output(program: GroupProgram, mass: FloatArray) -> NewtonResult | None:
    """From linear solves where that works, else from the cone program."""
    start = linear_start(program, mass)
    found = None if start is None else newton(program, *start)
    if found is not None:
        return found
    approximate = solve_cone_program(program)
    return None if approximate is None else newton(program, *approximate)


def _fixed_output(program: GroupProgram) -> NewtonResult | None:
    """The convex quadratic program, kink forces priced in, and finished by Newton's method."""
    assert program.fixed_mass is not None
    n, live = len(program.y), np.ones(len(program.sign), dtype=bool)
    working = np.zeros_like(program.pattern)
    support = np.ones(n, dtype=bool)
    for _ in range(_MAX_PRICING):
        lam, force = _solve_quadratic(program, working, support)
        z = program.preactivations(lam, force)
        support = lam > 0
        # Without its forces an example seems to have the margin of its helpful groups alone.
        short = program.margins(program.fixed_mass, z) < 1 - _ZERO
        joining = program.harmful & (support | short) & ~working & (z > _ZERO * np.abs(z).max())
        if not joining.any():
            break
        working |= joining
    small = _ZERO * lam.max()
    carried = working & support
    full = carried & (force >= lam - small)
    active = ActiveSet(support, carried & (force > small) & ~full, full, live)
    return newton(program, Solution(lam, force, program.fixed_mass), active)


def _solve_quadratic(
    program: GroupProgram, working: BoolArray, support: BoolArray
) -> tuple[FloatArray, FloatArray]:
    n, live = len(program.y), np.ones(len(program.sign), dtype=bool)
    everything = ActiveSet(np.ones(n, dtype=bool), working, np.zeros_like(working), live)
    layout = variables(program, everything)
    assert program.fixed_mass is not None
    H = (layout.pull * program.fixed_mass) @ layout.pull.T
    H *= program.K[np.ix_(layout.example, layout.example)]
    h = np.concatenate([np.ones(n), np.zeros(len(layout.example) - n)])
    x = solve(QuadraticProgram(H, h, layout.example[n:]), support)
    force = np.zeros(working.shape)
    force[working] = x[n:]
    return x[:n], force


# --- the answer -----------------------------------------------------------------------------------


def _assembled(
    net: TwoLayerNet,
    data: Dataset,
    groups: NeuronGroups,
    program: GroupProgram,
    found: NewtonResult,
    setting: _Setting,
) -> KKTPoint:
    lam = found.solution.lam
    limit = _spread(net, data, groups, program, found, setting)
    clarke = _clarke(net, data, groups, found, limit)
    residuals = _residuals(limit, data, lam, clarke, setting)
    if not _consistent(program, found):
        status = Status.INCONSISTENT_PATTERN
    elif residuals.worst > setting.tol:
        status = Status.NOT_SOLVED
    elif found.singular:
        status = Status.DEGENERATE
    else:
        status = Status.CONVERGED
    return _point(
        status,
        limit,
        lam,
        clarke,
        residuals,
        _described(groups, program, found),
        np.empty(0, dtype=np.int64),
        found.steps,
        found.changes,
    )


def _spread(
    net: TwoLayerNet,
    data: Dataset,
    groups: NeuronGroups,
    program: GroupProgram,
    found: NewtonResult,
    setting: _Setting,
) -> TwoLayerNet:
    """w~_j = |v_j| a_g, with v_j^2 the group's mass in the ratio of the given network."""
    lam, force, mass = found.solution
    inside = groups.of_neuron >= 0
    group = groups.of_neuron[inside]
    v = np.zeros(net.width)
    if setting.train_output:
        v[inside] = groups.sign[group] * np.sqrt(mass[group] * groups.spread(net)[inside])
    else:
        v = net.v.copy()
    coefficients = program.coefficients(lam, force)
    W, b = np.zeros_like(net.W), np.zeros_like(net.b)
    size = np.abs(v[inside])
    W[inside] = size[:, None] * (coefficients @ data.X)[group]
    if setting.bias:
        b[inside] = size * coefficients.sum(axis=1)[group]
    return TwoLayerNet(W, b, v)


def _clarke(
    net: TwoLayerNet,
    data: Dataset,
    groups: NeuronGroups,
    found: NewtonResult,
    limit: TwoLayerNet,
) -> FloatArray:
    """t_gi / lam_i on harmful examples, the pattern on helpful ones, 0 for dead neurons."""
    lam, force, _ = found.solution
    weights = groups.pattern + force / np.where(lam > 0, lam, 1)
    clarke = np.zeros((data.n, net.width))
    inside = groups.of_neuron >= 0
    clarke[:, inside] = weights[groups.of_neuron[inside]].T
    # Where lam_i = 0 the weight acts on nothing; it still is one.
    idle = lam == 0
    clarke[idle] = data.X[idle] @ limit.W.T + limit.b > 0
    return np.clip(clarke, 0, 1)


def _consistent(program: GroupProgram, found: NewtonResult) -> bool:
    """Whether live groups are active on the support vectors of their pattern, and no others.

    Examples with multiplier zero do not act on any group, whichever side they are on.
    """
    live, support = found.active.live, found.active.support
    z = program.preactivations(found.solution.lam, found.solution.force)[np.ix_(live, support)]
    flat = _ZERO * np.abs(z).max()
    pattern = program.pattern[np.ix_(live, support)]
    harmful = program.harmful[np.ix_(live, support)]
    return bool((z[pattern] > -flat).all() and (z[~pattern & ~harmful] < flat).all())


def _described(
    groups: NeuronGroups, program: GroupProgram, found: NewtonResult
) -> tuple[Group, ...]:
    mass, live = found.solution.mass, found.active.live
    order = np.lexsort((np.arange(len(groups)), -mass, ~live))
    return tuple(
        Group(
            sign=float(groups.sign[g]),
            mass=float(mass[g]) if live[g] else 0.0,
            rho=1.0 if live[g] else shortest(program, found.solution.lam, int(g))[0],
            neurons=np.flatnonzero(groups.of_neuron == g).astype(np.int64),
            examples=np.flatnonzero(groups.pattern[g]).astype(np.int64),
        )
        for g in order
    )


def _residuals(
    net: TwoLayerNet, data: Dataset, lam: FloatArray, clarke: FloatArray, setting: _Setting
) -> KKTResiduals:
    return kkt_residuals(
        net, data, lam, clarke, train_output=setting.train_output, bias=setting.bias
    )


def _point(
    status: Status,
    net: TwoLayerNet,
    lam: FloatArray,
    clarke: FloatArray,
    residuals: KKTResiduals,
    groups: tuple[Group, ...],
    stuck: IntArray,
    steps: int,
    changes: int,
) -> KKTPoint:
    return KKTPoint(
        status=status,
        net=net,
        multipliers=lam,
        kinks=Kinks.from_weights(clarke),
        clarke=clarke,
        stationarity=residuals.stationarity,
        feasibility=residuals.feasibility,
        dual_feasibility=residuals.dual_feasibility,
        complementarity=residuals.complementarity,
        clarke_violation=residuals.clarke_violation,
        normalized_margin=residuals.normalized_margin,
        groups=groups,
        stuck_points=stuck,
        newton_steps=steps,
        set_changes=changes,
    )
