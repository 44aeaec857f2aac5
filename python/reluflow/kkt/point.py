"""The KKT point that belongs to a network's activation pattern, to rounding level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np

from reluflow._results import Result, Status
from reluflow._threads import one_blas_thread
from reluflow._validation import FloatArray, IntArray, as_number, as_positive_int, require_memory
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow import DeepFlowResult, FlowResult
from reluflow.kkt.deep_point import DeepKKTPoint, deep_kkt_point
from reluflow.kkt.groups import NeuronGroups
from reluflow.kkt.probe import GlobalProbe, global_probe
from reluflow.kkt.program import gram_matrix
from reluflow.kkt.residuals import HoldsResiduals, Kinks, kkt_residuals
from reluflow.kkt.shortest import shortest
from reluflow.kkt.solve import Solved, solve_groups
from reluflow.network import TwoLayerNet, require_dim

# Residuals up to which points count as converged.
TOL, DEEP_TOL = 1e-12, 1e-8


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
class KKTPoint(HoldsResiduals, Result):
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
        With status ``stuck_points`` or ``dead_class``: the examples for which no multipliers exist.
    strict : bool
        Whether no constraint vanishes together with its multiplier. Where one does, however small
        a change of the data may change support, kinks or patterns.
    newton_steps, set_changes : int
        Linear solves of the final iteration, and corrections of its active set.
    pattern_changes : int
        How often the neurons' patterns were replaced by those of the solution (see
        ``correct_pattern`` of `kkt_point`).
    probe : GlobalProbe or None
        Whether a larger normalised margin exists, where that was asked for.
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
    strict: bool
    newton_steps: int
    set_changes: int
    pattern_changes: int
    probe: GlobalProbe | None

    @property
    def uncertainties(self) -> tuple[str, ...]:
        """What else than the status says is not certain, as sentences."""
        found = []
        if self.pattern_changes:
            found.append(
                "the flow's neurons are not yet active on what their limits are active on; "
                f"their patterns were replaced {self.pattern_changes} times"
            )
        if self.status == Status.CONVERGED and not self.strict:
            found.append(
                "a constraint vanishes together with its multiplier, so that small changes of the "
                "data may change support, kinks or patterns"
            )
        return tuple(found)

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
        if self.probe is not None:
            lines.append(f"  global?             {self.probe}")
        lines += [f"  not certain         {sentence}" for sentence in self.uncertainties]
        return "\n".join(lines)


@overload
def kkt_point(  # type: ignore[overload-overlap]
    flow_or_net: DeepFlowResult | DeepNet, data: Dataset, *, tol: float | None = None
) -> DeepKKTPoint: ...
@overload
def kkt_point(
    flow_or_net: FlowResult | TwoLayerNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    tol: float | None = None,
    correct_pattern: bool = False,
    probe_starts: int = 0,
) -> KKTPoint: ...
def kkt_point(
    flow_or_net: FlowResult | TwoLayerNet | DeepNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    tol: float | None = None,
    correct_pattern: bool = False,
    probe_starts: int = 0,
) -> KKTPoint | DeepKKTPoint:
    """The KKT point with the activation pattern of a network, such as the end of a flow.

    Neurons of one sign of v that are active on the same helpful examples (y_i v_j > 0) are
    parallel at every KKT point; given these groups, the KKT points are the solutions of a small
    convex program. It is solved to rounding level by an active-set Newton iteration, from a start
    by linear solves or from an interior-point method, and spread over the neurons in the ratio of
    their v_j^2. No margin needs to be positive yet: patterns settle early.

    Of a `DeepNet` of depth 2 to 4 with one output, (leaky) ReLU and no biases above the first layer
    nearly parallel units are merged, and a KKT point near the merged network is found by sequential
    quadratic programming over the smooth pieces of the margins; a `DeepKKTPoint` is returned. The
    network must classify every example. docs/theory.md, section 9.

    Parameters
    ----------
    flow_or_net : FlowResult, TwoLayerNet, DeepFlowResult or DeepNet
    data : Dataset
    train_output, bias : bool
        Whether v and b belong to the parameters. Of two layers, as are the options below.
    tol : float or None
        Residual up to which the status is ``converged``; None means 1e-12, and 1e-8 for a
        `DeepNet`.
    correct_pattern : bool
        Whether a solution that is active on other helpful examples than its neurons were gives
        them its own pattern, again and again until the two agree.
    probe_starts : int
        Starts of `global_probe`, which asks whether a larger margin exists; 0 leaves it out.

    Returns
    -------
    KKTPoint or DeepKKTPoint
        With status ``inconsistent_pattern`` where the solution is active on other helpful examples
        than its neurons were: then it is no KKT point, and the flow must go on. With status
        ``stuck_points`` or ``dead_class`` where no multipliers exist, because no neuron reaches
        the examples in ``stuck_points``. Of a deep network ``not_solved`` where the iteration did
        not end at a KKT point.

    Raises
    ------
    ValueError
        If shapes disagree, the flow came to rest with an example on the wrong side, or a deep
        network is of another kind or does not classify every example.
    MemoryError
        If the Gram matrix would not fit.

    References
    ----------
    Lyu & Li 2020, Theorem 4.4, for why gradient flow tends to a KKT point; docs/theory.md,
    sections 4.3 to 4.7, for groups, the program and the iteration.
    """
    if isinstance(flow_or_net, DeepFlowResult | DeepNet):
        asked = {
            "train_output=False": not train_output,
            "bias=False": not bias,
            "correct_pattern": correct_pattern,
            "probe_starts": bool(probe_starts),
        }
        require_of_two_layers(asked)
        return deep_kkt_point(flow_or_net, data, DEEP_TOL if tol is None else tol)
    net = flow_or_net.net if isinstance(flow_or_net, FlowResult) else flow_or_net
    if isinstance(flow_or_net, FlowResult) and flow_or_net.status == Status.NOT_SEPARABLE:
        raise ValueError(
            f"flow ended not separable, with {int((flow_or_net.margins <= 0).sum())} of {data.n} "
            "margins not above 0; it tends to a KKT point only if it classifies every example"
        )
    require_dim("data.X", data.dim, net)
    if not bias and net.b.any():
        raise ValueError(
            f"bias=False needs a network with zero biases; {np.count_nonzero(net.b)} are not zero"
        )
    tol = as_number("tol", TOL if tol is None else tol, at_least=0)
    require_memory("the Gram matrix", 8.0 * 3 * data.n**2)
    with one_blas_thread():
        groups = NeuronGroups.of(net, data)
        stuck = groups.unreached()
        solved = None
        if not len(stuck):
            K = gram_matrix(data, bias=bias)
            solved = solve_groups(
                net, groups, K, data.y, train_output=train_output, correct=correct_pattern
            )
        setting = Setting(train_output, bias, tol, checked_starts(probe_starts, train_output))
        return assembled(net, data, solved, stuck, setting)


def require_of_two_layers(asked: dict[str, bool]) -> None:
    """Refuses options, by name, that were asked for of a deep network."""
    for name, wanted in asked.items():
        if wanted:
            raise ValueError(f"{name} is for two-layer networks; leave it out for a DeepNet")


class Setting(NamedTuple):
    """What is trained, the residual up to which a point is one, and starts of the probe."""

    train_output: bool
    bias: bool
    tol: float
    probe_starts: int


def checked_starts(probe_starts: int, train_output: bool) -> int:
    """``probe_starts`` as given, where the probe knows an answer."""
    starts = as_positive_int("probe_starts", probe_starts, minimum=0)
    if starts and not train_output:
        raise ValueError(
            "probe_starts needs train_output=True: the probe is about networks whose output "
            "weights are trained"
        )
    return starts


def assembled(
    net: TwoLayerNet, data: Dataset, solved: Solved | None, stuck: IntArray, setting: Setting
) -> KKTPoint:
    """The solution spread over the neurons of ``net``, and checked at full width.

    Where there is none, the network itself with multipliers zero.
    """
    if solved is None:
        lam, limit = np.zeros(data.n), net
        described: tuple[Group, ...] = ()
        clarke = (data.X @ net.W.T + net.b > 0).astype(np.float64)
        status = without_solution(data, stuck)
        steps = changes = corrections = 0
        strict = False
    else:
        found = solved.found
        joined = solved.groups.joined(found.twin_of)
        lam, limit = found.solution.lam, _spread(net, data, joined, solved, setting)
        clarke, described = _clarke(data, joined, solved, limit), _described(joined, solved)
        status, strict = solved.status, found.strict
        steps, changes, corrections = found.steps, found.changes, solved.corrections
    residuals = kkt_residuals(
        limit, data, lam, clarke, train_output=setting.train_output, bias=setting.bias
    )
    if status in (Status.CONVERGED, Status.DEGENERATE) and residuals.worst > setting.tol:
        status = Status.NOT_SOLVED
    point = KKTPoint(
        status=status,
        net=limit,
        multipliers=lam,
        kinks=Kinks.from_weights(clarke),
        clarke=clarke,
        stationarity=residuals.stationarity,
        feasibility=residuals.feasibility,
        dual_feasibility=residuals.dual_feasibility,
        complementarity=residuals.complementarity,
        clarke_violation=residuals.clarke_violation,
        normalized_margin=residuals.normalized_margin,
        groups=described,
        stuck_points=stuck,
        strict=strict,
        newton_steps=steps,
        set_changes=changes,
        pattern_changes=corrections,
        probe=None,
    )
    if setting.probe_starts and status in (Status.CONVERGED, Status.DEGENERATE):
        probe = global_probe(point, data, bias=setting.bias, starts=setting.probe_starts)
        point = replace(point, probe=probe)
    return point


def without_solution(data: Dataset, stuck: IntArray) -> Status:
    """Why there is no KKT point: examples that no group reaches, or a solver that failed."""
    if not len(stuck):
        return Status.NOT_SOLVED
    left = np.delete(data.y, stuck)
    return Status.STUCK_POINTS if (left > 0).any() and (left < 0).any() else Status.DEAD_CLASS


def _spread(
    net: TwoLayerNet, data: Dataset, joined: NeuronGroups, solved: Solved, setting: Setting
) -> TwoLayerNet:
    """w~_j = |v_j| a_g, with v_j^2 the group's mass in the ratio of the given network."""
    lam, force, mass = solved.found.solution
    inside = joined.of_neuron >= 0
    group = joined.of_neuron[inside]
    v = np.zeros(net.width)
    if setting.train_output:
        v[inside] = joined.sign[group] * np.sqrt(mass[group] * joined.spread(net)[inside])
    else:
        v = net.v.copy()
    coefficients = solved.program.coefficients(lam, force)
    W, b = np.zeros_like(net.W), np.zeros_like(net.b)
    size, used = np.abs(v[inside]), np.unique(group)
    directions = np.zeros((len(coefficients), data.dim))
    directions[used] = coefficients[used] @ data.X
    W[inside] = size[:, None] * directions[group]
    if setting.bias:
        b[inside] = size * coefficients.sum(axis=1)[group]
    return TwoLayerNet(W, b, v)


def _clarke(data: Dataset, joined: NeuronGroups, solved: Solved, limit: TwoLayerNet) -> FloatArray:
    """t_gi / lam_i on harmful examples, the pattern on helpful ones, 0 for dead neurons."""
    lam, force, _ = solved.found.solution
    weights = joined.pattern + force / np.where(lam > 0, lam, 1)
    clarke = np.zeros((data.n, limit.width))
    inside = joined.of_neuron >= 0
    clarke[:, inside] = weights[joined.of_neuron[inside]].T
    # Where lam_i = 0 the weight acts on nothing; it still is one.
    idle = lam == 0
    clarke[idle] = data.X[idle] @ limit.W.T + limit.b > 0
    return np.clip(clarke, 0, 1)


def _described(joined: NeuronGroups, solved: Solved) -> tuple[Group, ...]:
    """Live groups with the neurons of their twins, the heaviest first; then those that die."""
    found = solved.found
    mass, live, twin = found.solution.mass, found.active.live, found.twin_of
    listed = np.flatnonzero((twin < 0) | (twin == np.arange(len(twin))))
    order = listed[np.lexsort((listed, -mass[listed], ~live[listed]))]
    return tuple(
        Group(
            sign=float(joined.sign[g]),
            mass=float(mass[g]) if live[g] else 0.0,
            rho=1.0 if live[g] else shortest(solved.program, found.solution.lam, int(g))[0],
            neurons=np.flatnonzero(
                (joined.of_neuron if live[g] else solved.groups.of_neuron) == g
            ).astype(np.int64),
            examples=np.flatnonzero(joined.pattern[g]).astype(np.int64),
        )
        for g in order
    )
