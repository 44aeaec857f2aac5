"""Gradient flow on the exponential or logistic loss, followed to any loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow._dispatch import kernels
from reluflow._progress import flow_progress
from reluflow._provenance import provenance
from reluflow._results import Result, Status
from reluflow._threads import resolve_num_threads
from reluflow._validation import (
    FloatArray,
    IntArray,
    as_number,
    as_positive_int,
    one_of,
    require_both_classes,
    require_memory,
)
from reluflow.data import Dataset
from reluflow.network import TwoLayerNet, require_dim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = ("exponential", "logistic")
METHODS = ("auto", "bogacki-shampine")
FORMS = ("auto", "gram", "primal")

Observer = Callable[[float, float, float], None]


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
        log(1/L) that was reached, at or just beyond the target when ``status`` is ``converged``.
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
    loss: str
    provenance: dict[str, Any]
    seconds: float

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
            f"  form, loss          {self.form}, {self.loss}",
            f"  seconds             {self.seconds:.3g}",
        ]
        if len(self.stuck_points):
            shown = ", ".join(str(i) for i in self.stuck_points[:10])
            more = f", ... ({len(self.stuck_points)})" if len(self.stuck_points) > 10 else ""
            lines.append(f"  stuck examples      {shown}{more}")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Normalised margin against log(1/L)."""
        return self.trajectory.plot(ax)


def gradient_flow(
    net: TwoLayerNet,
    data: Dataset,
    *,
    loss: str = "exponential",
    log_inverse_loss: float = 1.0,
    train_output: bool = True,
    bias: bool = True,
    rtol: float = 1e-3,
    method: str = "auto",
    form: str = "auto",
    backend: str = "native",
    num_threads: int | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    progress: bool | Observer = False,
) -> FlowResult:
    """Follows gradient flow on the mean loss L from ``net`` until log(1/L) reaches a target.

    The flow is integrated in the rescaled time d tau = L dt, in which it reads
    d theta / d tau = -grad log L: the same trajectory, without underflow at any loss
    (docs/theory.md, section 2). Ctrl-C returns what had been reached.

    Parameters
    ----------
    net : TwoLayerNet
        Start of the flow.
    data : Dataset
        Examples X (n, d) and labels y.
    loss : {"exponential", "logistic"}
        Loss of a margin q: exp(-q) or log(1 + exp(-q)); L is its mean over the examples.
    log_inverse_loss : float
        Target log(1/L), up to 1e100.
    train_output, bias : bool
        Whether v and b are trained. With ``bias=False`` the biases of ``net`` must be zero.
    rtol : float
        Error allowed a step, relative to the norm of all parameters.
    method : {"auto", "bogacki-shampine"}
        Integrator: the embedded pair of Bogacki & Shampine (1989).
    form : {"auto", "gram", "primal"}
        Gradients through the Gram matrix of the examples, 2 n^2 m operations each, or in the
        network's own parameters, 4 n d m. "auto" takes the Gram form when n < 2 d.
    backend : {"native", "numpy"}
        Compiled kernels, or the NumPy reference.
    num_threads : int or None
        None means all cores that the process may use. The result does not depend on it.
    max_evaluations : int or None
        Gradients allowed.
    max_seconds : float or None
        Wall time allowed.
    progress : bool or callable
        True shows a progress bar; a callable receives log(1/L), the normalised margin and the
        number of evaluations a few times a second.

    Returns
    -------
    FlowResult

    Raises
    ------
    ValueError
        If an argument is out of its range, the shapes of ``net`` and ``data`` disagree, or the
        labels are of one class.
    MemoryError
        If the working arrays would not fit.
    """
    if not isinstance(net, TwoLayerNet) or not isinstance(data, Dataset):
        raise TypeError(
            "gradient_flow takes a TwoLayerNet and a Dataset; "
            f"got {type(net).__name__} and {type(data).__name__}"
        )
    require_dim("data.X", data.dim, net)
    require_both_classes("data.y", data.y)
    if not bias and net.b.any():
        raise ValueError(
            f"bias=False needs a network with zero biases; {np.count_nonzero(net.b)} are not zero"
        )
    one_of("loss", loss, LOSSES)
    one_of("method", method, METHODS)
    form = _choose_form(one_of("form", form, FORMS), data)
    log_inverse_loss = as_number("log_inverse_loss", log_inverse_loss)
    if log_inverse_loss > 1e100:
        raise ValueError(f"log_inverse_loss must be at most 1e100; got {log_inverse_loss:g}")
    rtol = as_number("rtol", rtol, above=0)
    threads = resolve_num_threads(num_threads)
    require_memory(f"the {form} flow", _working_bytes(form, data, net))
    kernel = kernels(backend)
    start = time.perf_counter()
    with flow_progress(progress, log_inverse_loss) as observer:
        outcome = kernel.gradient_flow(
            net.W,
            net.b,
            net.v,
            data.X,
            data.y,
            getattr(kernel.Loss, loss),
            train_output,
            bias,
            form == "gram",
            log_inverse_loss,
            rtol,
            _or_infinity("max_evaluations", max_evaluations),
            math.inf if max_seconds is None else as_number("max_seconds", max_seconds, at_least=0),
            threads,
            observer,
        )
    return FlowResult(
        net=TwoLayerNet(outcome.weights, outcome.bias, outcome.output),
        status=Status(outcome.status.name),
        log_inverse_loss=float(outcome.trajectory[-1, 0]),
        evaluations=int(outcome.trajectory[-1, 4]),
        margins=outcome.margins,
        trajectory=Trajectory(*np.ascontiguousarray(outcome.trajectory.T)),
        stuck_points=outcome.unreachable,
        normalized_margin=float(outcome.trajectory[-1, 3]),
        accepted_steps=int(outcome.accepted_steps),
        rejected_steps=int(outcome.rejected_steps),
        form=form,
        loss=loss,
        provenance=provenance(backend=backend, num_threads=threads),
        seconds=time.perf_counter() - start,
    )


def _choose_form(form: str, data: Dataset) -> str:
    if form != "auto":
        return form
    return "gram" if data.n < 2 * data.dim else "primal"


def _working_bytes(form: str, data: Dataset, net: TwoLayerNet) -> float:
    n, d, m = float(data.n), float(data.dim), float(net.width)
    state = 2 * n * m if form == "gram" else m * d
    return 8 * (7 * state + (n * n if form == "gram" else 0) + 2 * n * m + 2 * m * d)


def _or_infinity(name: str, value: int | None) -> float:
    return math.inf if value is None else float(as_positive_int(name, value))
