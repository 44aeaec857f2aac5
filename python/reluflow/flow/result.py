"""Where a gradient flow ended, and how it got there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reluflow._results import Result, Status
from reluflow._validation import FloatArray, IntArray
from reluflow.deep_network import DeepNet
from reluflow.network import TwoLayerNet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Losses whose flow drives margins to infinity (Lyu & Li 2020); the others have minimisers.
MARGIN_MAXIMISING = ("exponential", "logistic")
LOSSES = (*MARGIN_MAXIMISING, "hinge", "squared", "cross_entropy")


@dataclass(frozen=True, eq=False)
class Trajectory(Result):
    """A flow at logarithmically spaced values of log(1/L), first and last moment included.

    Attributes
    ----------
    log_inverse_loss : ndarray, shape (t,)
        log(1/L).
    rescaled_time : ndarray, shape (t,)
        tau, where d tau = L dt.
    norm : ndarray, shape (t,)
        Euclidean norm of all parameters.
    normalized_margin : ndarray, shape (t,)
        min_i y_i N(x_i) / ||theta||^2.
    evaluations : ndarray, shape (t,)
        Gradients evaluated so far.
    """

    log_inverse_loss: FloatArray
    rescaled_time: FloatArray
    norm: FloatArray
    normalized_margin: FloatArray
    evaluations: FloatArray

    def __len__(self) -> int:
        return len(self.log_inverse_loss)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Normalised margin against log(1/L), on a logarithmic axis."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        shown = self.log_inverse_loss > 0
        ax.plot(self.log_inverse_loss[shown], self.normalized_margin[shown])
        ax.set(xscale="log", xlabel="log(1/L)", ylabel="normalised margin")
        return ax


@dataclass(frozen=True, eq=False)
class FlowResult(Result):
    """Where a gradient flow ended, and how it got there.

    Attributes
    ----------
    net : TwoLayerNet
        The network that was reached.
    status : Status
        How the flow ended; prints as a sentence.
    log_inverse_loss : float
        log(1/L) that was reached, at or just beyond the target when ``status`` is ``converged``;
        inf where the loss became 0.
    evaluations : int
        Gradients evaluated.
    margins : ndarray, shape (n,)
        y_i N(x_i) of the returned network.
    trajectory : Trajectory
        The way there.
    stuck_points : ndarray of int
        With status ``stuck_points`` or ``dead_class``: the examples whose margin cannot grow.
    normalized_margin : float
        min_i y_i N(x_i) / ||theta||^2.
    accepted_steps, rejected_steps : int
        Steps of the integrator.
    form : str
        ``"gram"`` or ``"primal"``.
    method : str
        ``"bogacki-shampine"`` or ``"rkc2"``.
    loss : str
    provenance : dict
        Version, backend, instruction set and number of threads.
    seconds : float
        Wall time.
    """

    net: TwoLayerNet
    status: Status
    log_inverse_loss: float
    evaluations: int
    margins: FloatArray
    trajectory: Trajectory
    stuck_points: IntArray
    normalized_margin: float
    accepted_steps: int
    rejected_steps: int
    form: str
    method: str
    loss: str
    provenance: dict[str, Any]
    seconds: float

    @property
    def tends_to_kkt_point(self) -> bool:
        """Whether the flow of this loss tends in direction to a KKT point of maximal margin.

        Where not, ``net`` is the last iterate and says nothing of a limit.
        """
        return self.loss in MARGIN_MAXIMISING

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network's parameters, JSON-ready."""
        fields = super().to_dict()
        del fields["net"]
        return fields

    def __str__(self) -> str:
        lines = [
            str(self.status),
            f"  log(1/L)            {self.log_inverse_loss:.6g}",
            f"  normalised margin   {self.normalized_margin:.6g}",
            f"  smallest margin     {self.margins.min():.6g}",
            f"  evaluations         {self.evaluations}",
            f"  form, method, loss  {self.form}, {self.method}, {self.loss}",
            f"  seconds             {self.seconds:.3g}",
        ]
        if not self.tends_to_kkt_point:
            lines.append("  reported            the last iterate: this loss has no limit direction")
        if len(self.stuck_points):
            shown = ", ".join(str(i) for i in self.stuck_points[:10])
            more = f", ... ({len(self.stuck_points)})" if len(self.stuck_points) > 10 else ""
            lines.append(f"  stuck examples      {shown}{more}")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Normalised margin against log(1/L)."""
        return self.trajectory.plot(ax)


@dataclass(frozen=True, eq=False)
class DeepFlowResult(FlowResult):
    """Where the gradient flow of a deep network ended, and how it got there.

    Attributes are those of `FlowResult`, but for

    Attributes
    ----------
    net : DeepNet
        The network that was reached.
    margins : ndarray, shape (n,)
        With several outputs, of each example the output of its own class less the log-sum-exp of
        the others.
    normalized_margin : float
        min_i margin_i / ||theta||^degree.
    form : str
        ``"span"`` or ``"primal"``.
    """

    net: DeepNet  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class AdversarialFlowResult(FlowResult):
    """Where a flow on adversarial examples ended, and how it got there.

    Attributes are those of `FlowResult`, L and margins being the robust ones, but for

    Attributes
    ----------
    margins : ndarray, shape (n,)
        y_i N(x_i + delta_i), the smallest that were found in the balls.
    normalized_margin : float
        The smallest of them over ||theta||^2.
    form : str
        ``"span"`` or ``"primal"``.
    adversarial_radius : float
        Of the balls.
    inner : str
        ``"search"`` or ``"pgd"``.
    perturbations : ndarray, shape (n, d)
        delta_i, at the last gradient.
    reason : str
        With status ``not_robustly_separable``: why.
    """

    adversarial_radius: float
    inner: str
    perturbations: FloatArray
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network and the perturbations, JSON-ready."""
        fields = super().to_dict()
        del fields["perturbations"]
        return fields

    def __str__(self) -> str:
        robust = f"  adversarial radius  {self.adversarial_radius:.6g}, by {self.inner}"
        lines = [super().__str__(), robust]
        return "\n".join([*lines, f"  reason              {self.reason}"] if self.reason else lines)
