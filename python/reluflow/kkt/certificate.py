"""The best multipliers for any network: how close it is to a KKT point."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from reluflow._results import Result, Status
from reluflow._threads import one_blas_thread
from reluflow._validation import BoolArray, FloatArray, IntArray, as_number, require_memory
from reluflow.adversarial import adversarial_examples
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.kkt.deep import DeepKKTCertificate, certify_deep
from reluflow.kkt.quadratic import QuadraticProgram, solve
from reluflow.kkt.residuals import HoldsResiduals, Kinks, kkt_residuals
from reluflow.network import TwoLayerNet, require_dim

# Pairs this close to their kink, relative to ||w~_j|| ||x~_i||, are at it up to rounding.
ROUNDING = 1e-12
# Examples with smaller margins are the first guess of the support.
_WORKING_MARGIN = 1.1
# A neuron with less than this share of sum v^2 keeps the weights of its own pattern.
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True, eq=False)
class KKTCertificate(HoldsResiduals, Result):
    """Multipliers and Clarke weights that fit a network best, and the residuals they leave.

    Attributes
    ----------
    status : Status
        ``converged`` if every residual is at most ``tol``, else ``approximate``.
    net : TwoLayerNet
        The network, scaled to smallest margin 1.
    stationarity, feasibility, dual_feasibility, complementarity, clarke_violation : float
        Relative residuals at full width, from `kkt_residuals`.
    normalized_margin : float
        min_i y_i N(x_i) / ||theta||^2.
    multipliers : ndarray, shape (n,)
        lam_i >= 0.
    clarke : ndarray, shape (n, m)
        Clarke weights s_ij, all of them.
    kinks : Kinks
        Those that are neither 0 nor 1, as (neuron, example, value).
    kink_tol : float
        Pairs with |z_ij| <= kink_tol ||w~_j|| ||x~_i|| were taken as kinks.
    """

    status: Status
    net: TwoLayerNet
    stationarity: float
    feasibility: float
    dual_feasibility: float
    complementarity: float
    clarke_violation: float
    normalized_margin: float
    multipliers: FloatArray
    clarke: FloatArray
    kinks: Kinks
    kink_tol: float

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network and the full matrix of Clarke weights, JSON-ready."""
        fields = super().to_dict()
        del fields["net"], fields["clarke"]
        return fields

    def __str__(self) -> str:
        support = int((self.multipliers > 0).sum())
        return "\n".join(
            [
                str(self.status),
                str(self.residuals),
                f"  support vectors     {support} of {len(self.multipliers)}",
                f"  kinks               {len(self.kinks)} (kink_tol {self.kink_tol:g})",
            ]
        )


@dataclass(frozen=True, eq=False)
class RobustKKTCertificate(KKTCertificate):
    """The same for the robust problem, y_i N(x_i + delta) >= 1 for all ||delta|| <= radius.

    Attributes are those of `KKTCertificate` on p adversarial examples instead of n examples, and

    Attributes
    ----------
    adversarial_radius : float
    example : ndarray of int, shape (p,)
        Which example each adversarial example belongs to.
    perturbations : ndarray, shape (p, d)
        delta.
    """

    adversarial_radius: float
    example: IntArray
    perturbations: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network, the Clarke weights and the perturbations, JSON-ready."""
        fields = super().to_dict()
        del fields["perturbations"]
        return fields


@overload
def certify_kkt(
    net: TwoLayerNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    kink_tol: float = 1e-3,
    tol: float = 1e-8,
    adversarial_radius: float = 0.0,
    tie_tol: float = 1e-2,
) -> KKTCertificate: ...
@overload
def certify_kkt(net: DeepNet, data: Dataset, *, tol: float = 1e-8) -> DeepKKTCertificate: ...
def certify_kkt(
    net: TwoLayerNet | DeepNet,
    data: Dataset,
    *,
    train_output: bool = True,
    bias: bool = True,
    kink_tol: float = 1e-3,
    tol: float = 1e-8,
    adversarial_radius: float = 0.0,
    tie_tol: float = 1e-2,
) -> KKTCertificate | DeepKKTCertificate:
    """How close a network is to a KKT point of  min 1/2 ||theta||^2  s.t.  y_i N(x_i) >= 1.

    The network is scaled to smallest margin 1; then the multipliers lam >= 0, and the Clarke
    weights of the pairs at a kink, are those that minimise the relative stationarity residual
    ||theta - sum_i lam_i g_i|| / ||theta||: a convex quadratic program in Gram form, whose cost
    does not depend on d. Neurons of one sign of v that are active on the same helpful examples
    (y_i v_j > 0) share their kink weights, as they do at every KKT point. All residuals are then
    recomputed at full width by `kkt_residuals`.

    Parameters
    ----------
    net : TwoLayerNet or DeepNet
        A network that classifies every example, such as the end of a flow. Of a `DeepNet`
        multipliers alone are sought, and a `DeepKKTCertificate` is returned.
    data : Dataset
    train_output, bias : bool
        Whether v and b belong to the parameters. With ``train_output=False`` it is (W, b) alone
        that is scaled, and measured.
    kink_tol : float
        A pair with |z_ij| <= kink_tol ||w~_j|| ||x~_i|| counts as at its kink. A flow slides along
        kinks within its integration error, 1e-5 to 1e-3 in this measure; what the tolerance grants
        is reported as ``clarke_violation``, which it bounds. 0 takes pairs at rounding level only.
    tol : float
        Residual up to which the status is ``converged``.
    adversarial_radius : float
        Above 0: of the robust problem, y_i N(x_i + delta) >= 1 for all ||delta|| up to it, for a
        `TwoLayerNet`. The multipliers are those of adversarial examples, and the certificate is a
        `RobustKKTCertificate` (docs/theory.md, section 10.3).
    tie_tol : float
        Adversarial examples whose margin is up to this much above the smallest of their example, in
        units of the smallest of all, may have multipliers: a flow slides where several tie.

    Raises
    ------
    ValueError
        If an example is not classified, or shapes disagree.
    MemoryError
        If the Gram matrix would not fit.

    References
    ----------
    Lyu & Li 2020, (eps, delta)-KKT points; docs/theory.md, "4.8 A certificate for any network".
    """
    radius = as_number("adversarial_radius", adversarial_radius, at_least=0)
    if isinstance(net, DeepNet):
        if radius > 0:
            raise ValueError("adversarial_radius is for two-layer networks; a DeepNet takes 0")
        return certify_deep(net, data, tol)
    require_dim("data.X", data.dim, net)
    if not bias and net.b.any():
        raise ValueError(
            f"bias=False needs a network with zero biases; {np.count_nonzero(net.b)} are not zero"
        )
    kink_tol = as_number("kink_tol", kink_tol, at_least=0)
    tol = as_number("tol", tol, at_least=0)
    require_memory("the Gram matrix", 8.0 * (4 * data.n**2 + 6 * data.n * net.width))
    if radius > 0:
        tie_tol = as_number("tie_tol", tie_tol, at_least=0)
        return _certify_robust(net, data, radius, tie_tol, train_output, bias, kink_tol, tol)
    return _certify(net, data, train_output, bias, kink_tol, tol)


def _certify_robust(
    net: TwoLayerNet,
    data: Dataset,
    radius: float,
    tie_tol: float,
    train_output: bool,
    bias: bool,
    kink_tol: float,
    tol: float,
) -> RobustKKTCertificate:
    """The certificate on the adversarial examples, several of an example where they tie."""
    smallest = float(adversarial_examples(net, data, radius).margins.min())
    if not smallest > 0:
        raise ValueError(
            f"net must classify every example within adversarial_radius={radius:g}; the smallest "
            f"robust margin is {smallest:.6g}; train further"
        )
    # Ties below rounding level are ties, too.
    spread = max(tie_tol, ROUNDING) * smallest
    attacked = adversarial_examples(net, data, radius, spread=spread)
    found = _certify(net, attacked.dataset(data), train_output, bias, kink_tol, tol)
    return RobustKKTCertificate(
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
        adversarial_radius=radius,
        example=attacked.example,
        perturbations=attacked.perturbations,
    )


def _certify(
    net: TwoLayerNet,
    data: Dataset,
    train_output: bool,
    bias: bool,
    kink_tol: float,
    tol: float,
) -> KKTCertificate:
    scaled = scaled_to_unit_margin(net, data, train_output=train_output)

    with one_blas_thread():
        problem = _BestMultipliers(scaled, data, train_output, bias, max(kink_tol, ROUNDING))
        lam, clarke = problem.solve()
    residuals = kkt_residuals(scaled, data, lam, clarke, train_output=train_output, bias=bias)
    return KKTCertificate(
        status=Status.CONVERGED if residuals.worst <= tol else Status.APPROXIMATE,
        net=scaled,
        stationarity=residuals.stationarity,
        feasibility=residuals.feasibility,
        dual_feasibility=residuals.dual_feasibility,
        complementarity=residuals.complementarity,
        clarke_violation=residuals.clarke_violation,
        normalized_margin=residuals.normalized_margin,
        multipliers=lam,
        clarke=clarke,
        kinks=Kinks.from_weights(clarke),
        kink_tol=kink_tol,
    )


def scaled_to_unit_margin(net: TwoLayerNet, data: Dataset, *, train_output: bool) -> TwoLayerNet:
    """The network with smallest margin 1, by scaling what is trained.

    Raises
    ------
    ValueError
        If an example is not classified.
    """
    margins = net.margins(data)
    smallest = float(margins.min())
    if not smallest > 0:
        wrong = np.flatnonzero(margins <= 0)
        raise ValueError(
            f"net must classify every example; {len(wrong)} of {data.n} margins are not above 0, "
            f"the smallest is {smallest:.6g} at example {int(margins.argmin())}; train further"
        )
    if train_output:
        return net.scaled(1 / np.sqrt(smallest))
    return TwoLayerNet(net.W / smallest, net.b / smallest, net.v)


class _BestMultipliers:
    """The quadratic program of docs/theory.md, section 4.8, for one scaled network."""

    def __init__(
        self, net: TwoLayerNet, data: Dataset, train_output: bool, bias: bool, kink_tol: float
    ) -> None:
        X, self.y, self.v = data.X, data.y, net.v
        self.K = X @ X.T + (1.0 if bias else 0.0)
        self.z = X @ net.W.T + net.b
        examples = np.sqrt(self.K.diagonal())
        neurons = np.sqrt((net.W**2).sum(axis=1) + net.b**2)
        self.train_output = train_output

        share = self.v**2 / max((self.v**2).sum(), 1e-300)
        at_kink = np.abs(self.z) <= kink_tol * examples[:, None] * neurons
        self.at_kink = at_kink & (share > _NEGLIGIBLE)
        self.fixed = ((self.z > 0) & ~self.at_kink).astype(np.float64)
        self._number_kinks(_pattern_groups(self.y, self.v, self.fixed, self.at_kink))

    def _number_kinks(self, group: IntArray) -> None:
        """One kink force for each (group, example) with a neuron of the group at that kink."""
        example, neuron = np.nonzero(self.at_kink)
        pairs = group[neuron] * len(self.y) + example
        unique, self.force_of_pair = np.unique(pairs, return_inverse=True)
        self.pair_example, self.pair_neuron = example, neuron
        self.force_example = (unique % len(self.y)).astype(np.int64)
        # Row r: the neurons that kink force r acts on.
        self.acts = np.zeros((len(unique), len(self.v)))
        self.acts[self.force_of_pair, neuron] = 1.0

    def solve(self) -> tuple[FloatArray, FloatArray]:
        """Multipliers (n,) and Clarke weights (n, m)."""
        n = len(self.y)
        margins = self.y * (np.maximum(self.z, 0) @ self.v)
        x = solve(self._program(), margins <= _WORKING_MARGIN)
        lam, forces = x[:n], x[n:]
        clarke = self.fixed.copy()
        ratio = forces / np.where(lam > 0, lam, 1)[self.force_example]
        clarke[self.pair_example, self.pair_neuron] = np.clip(ratio, 0, 1)[self.force_of_pair]
        return lam, clarke

    def _program(self) -> QuadraticProgram:
        n = len(self.y)
        owner = np.concatenate([np.arange(n), self.force_example])
        # Row of a variable: the neurons whose weights it pulls on, times v_j.
        pulls = np.concatenate([self.fixed, self.acts]) * self.v
        signs = self.y[owner]
        H = (signs[:, None] * signs) * self.K[np.ix_(owner, owner)] * (pulls @ pulls.T)
        h = signs * (pulls * self.z[owner]).sum(axis=1)
        if self.train_output:
            lift = np.zeros((len(owner), len(self.v)))
            lift[:n] = self.y[:, None] * np.maximum(self.z, 0)
            H += lift @ lift.T
            h += lift @ self.v
        return QuadraticProgram(H, h, self.force_example)


def _pattern_groups(
    y: FloatArray, v: FloatArray, fixed: FloatArray, at_kink: BoolArray
) -> IntArray:
    """Neurons of one sign and one state (active, inactive, at a kink) on the helpful examples."""
    helpful = y[:, None] * v > 0
    state = np.where(helpful, fixed + 2 * at_kink, 0).astype(np.int8)
    keys = np.concatenate([state, np.sign(v)[None].astype(np.int8)])
    _, group = np.unique(keys, axis=1, return_inverse=True)
    return group.reshape(-1).astype(np.int64)
