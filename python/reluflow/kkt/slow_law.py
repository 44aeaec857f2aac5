"""The slow law: how groups of neurons die on the way to a KKT point, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow._results import Result, Status
from reluflow._validation import FloatArray, IntArray, as_number, as_positive_int
from reluflow.data import Dataset
from reluflow.flow import gradient_flow
from reluflow.kkt.groups import NeuronGroups
from reluflow.kkt.limit import FlowLimit
from reluflow.kkt.point import Group, kkt_point
from reluflow.network import TwoLayerNet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_MOMENTS = 3
_FIRST = 1e3
_TENFOLD = 10.0


@dataclass(frozen=True, eq=False)
class GroupDecay(Result):
    """One group of neurons: the decay of its share of ||theta||^2, predicted and measured.

    Attributes
    ----------
    sign : float
        Sign of its output weights.
    rho : float
        min over the kink forces of ||a_g||; 1 for groups that live on in the limit.
    predicted : float
        1 - rho: the share falls like log(1/L)^-(1 - rho).
    measured : float
        Least-squares slope of -log(share) against log(log(1/L)); nan with too few moments.
    standard_error : float
        Of the slope, from the residuals of the fit.
    kept_pattern : bool
        Whether its neurons were active on the same helpful examples at the last moment as at the
        first; where not, the prediction is for a group that has changed.
    share : ndarray, shape (t,)
        Share of ||theta||^2 at every moment.
    neurons : ndarray of int64
    """

    sign: float
    rho: float
    predicted: float
    measured: float
    standard_error: float
    kept_pattern: bool
    share: FloatArray
    neurons: IntArray


@dataclass(frozen=True, eq=False)
class SlowLaw(Result):
    """Decay of all groups along a long flow.

    Attributes
    ----------
    status : Status
        Of the long flow.
    log_inverse_loss : ndarray, shape (t,)
        log(1/L) at the moments where shares were measured.
    groups : tuple of GroupDecay
        Those of the pattern at the first moment, live ones first.
    """

    status: Status
    log_inverse_loss: FloatArray
    groups: tuple[GroupDecay, ...]

    def __str__(self) -> str:
        moments = self.log_inverse_loss
        lines = [
            str(self.status),
            f"  shares measured     {len(moments)} times, log(1/L) = "
            + (f"{moments[0]:.4g} to {moments[-1]:.4g}" if len(moments) else "never"),
            "  group neurons       rho   predicted    measured  last share  pattern",
        ]
        for number, group in enumerate(self.groups):
            last = group.share[-1] if len(group.share) else math.nan
            pattern = "kept" if group.kept_pattern else "changed"
            lines.append(
                f"  {number:5d} {len(group.neurons):7d} {group.rho:9.6f} {group.predicted:11.6f} "
                f"{group.measured:11.6f} {last:11.3g}  {pattern}"
            )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shares against log(1/L), with the predicted slopes through their last values."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().subplots()
        moments = self.log_inverse_loss
        for group in self.groups:
            (line,) = ax.plot(moments, group.share, "o", markersize=3)
            predicted = group.share[-1] * (moments / moments[-1]) ** -group.predicted
            ax.plot(moments, predicted, color=line.get_color(), linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel="log(1/L)", ylabel="share of the squared norm")
        return ax


def slow_law(
    limit: FlowLimit,
    data: Dataset,
    *,
    from_log_inverse_loss: float | None = None,
    to_log_inverse_loss: float | None = None,
    moments_per_decade: int = 5,
    rtol: float = 1e-3,
    method: str = "rkc2",
    max_seconds: float | None = None,
    **flow_settings: Any,
) -> SlowLaw:
    """Follows the flow of a limit further, and measures how its groups of neurons die.

    A group whose rho = min_t ||a_g|| lies below 1 is zero in the limit, and loses its share of
    ||theta||^2 like log(1/L)^-(1 - rho) on the way there (docs/theory.md, section 2.5). Groups and
    rho are those of the pattern at the first moment: single neurons may join or leave a group after
    the multipliers of the limit have settled.

    Parameters
    ----------
    limit : FlowLimit
        Of a flow with trained output weights.
    data : Dataset
        The examples of that flow.
    from_log_inverse_loss, to_log_inverse_loss : float or None
        Range of log(1/L) over which shares are measured and slopes are fitted. None means from
        1e3, or ten times where the limit's own flow ended if that is more, over two decades.
    moments_per_decade : int
        Measurements a decade.
    rtol, method
        As for `gradient_flow`.
    max_seconds : float or None
        Wall time allowed; the fit uses what was measured until then.
    **flow_settings
        Passed to `gradient_flow`: loss, bias, form, num_threads, ...; as they were for the limit.

    Returns
    -------
    SlowLaw

    Raises
    ------
    ValueError
        If the range is empty or begins before the limit's own flow ended, or the output weights
        are fixed: then no group dies.
    TypeError
        If ``limit`` is no FlowLimit.
    """
    if not isinstance(limit, FlowLimit):
        raise TypeError(f"slow_law takes a FlowLimit; got {type(limit).__name__}")
    if not flow_settings.pop("train_output", True):
        raise ValueError("train_output=False has no slow law: groups of fixed output never die")
    targets = _targets(limit, from_log_inverse_loss, to_log_inverse_loss, moments_per_decade)
    left = math.inf if max_seconds is None else as_number("max_seconds", max_seconds, at_least=0)
    net, status = limit.flow.net, limit.status
    trajectory: list[tuple[float, TwoLayerNet]] = []
    for target in targets:
        flow = gradient_flow(
            net,
            data,
            log_inverse_loss=target,
            rtol=rtol,
            method=method,
            max_seconds=None if left == math.inf else left,
            **flow_settings,
        )
        net, status = flow.net, flow.status
        left = max(0.0, left - flow.seconds)
        if status != Status.CONVERGED:
            break
        trajectory.append((flow.log_inverse_loss, net))
    moments = np.array([moment for moment, _ in trajectory])
    nets = [net for _, net in trajectory]
    return SlowLaw(status, moments, _decays(moments, nets, data, flow_settings.get("bias", True)))


def _decays(
    moments: FloatArray, nets: Sequence[TwoLayerNet], data: Dataset, bias: bool
) -> tuple[GroupDecay, ...]:
    if not nets:
        return ()
    first, last = (NeuronGroups.of(net, data) for net in (nets[0], nets[-1]))
    groups = kkt_point(nets[0], data, bias=bias).groups
    shares = np.array([_shares(net, groups) for net in nets])
    decays = []
    for group, share in zip(groups, shares.T, strict=True):
        measured, error = _fitted(moments, share)
        decays.append(
            GroupDecay(
                sign=group.sign,
                rho=group.rho,
                predicted=group.decay_exponent,
                measured=measured,
                standard_error=error,
                kept_pattern=_same_pattern(first, last, group.neurons),
                share=share,
                neurons=group.neurons,
            )
        )
    return tuple(decays)


def _same_pattern(first: NeuronGroups, last: NeuronGroups, neurons: IntArray) -> bool:
    before, after = first.of_neuron[neurons], last.of_neuron[neurons]
    return bool((after >= 0).all() and (first.pattern[before] == last.pattern[after]).all())


def _targets(
    limit: FlowLimit, first: float | None, last: float | None, per_decade: int
) -> FloatArray:
    reached = limit.flow.log_inverse_loss
    if first is None:
        first = max(_FIRST, _TENFOLD * reached)
    first = as_number("from_log_inverse_loss", first, at_least=reached)
    last = as_number(
        "to_log_inverse_loss", _TENFOLD**2 * first if last is None else last, above=first
    )
    per_decade = as_positive_int("moments_per_decade", per_decade)
    decades = math.log10(last / first)
    return np.geomspace(first, last, max(_LEAST_MOMENTS, 1 + round(decades * per_decade)))


def _shares(net: TwoLayerNet, groups: Sequence[Group]) -> FloatArray:
    squares = (net.W**2).sum(axis=1) + net.b**2 + net.v**2
    held = [float(squares[group.neurons].sum()) for group in groups]
    return np.asarray(held) / float(squares.sum())


def _fitted(moments: FloatArray, share: FloatArray) -> tuple[float, float]:
    """Slope of -log(share) in log(moment), and its standard error."""
    if len(moments) < _LEAST_MOMENTS or not (share > 0).all():
        return math.nan, math.nan
    x, y = np.log(moments), -np.log(share)
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    residual = y - y.mean() - slope * x
    return slope, math.sqrt(float(residual @ residual) / (len(x) - 2) / float(x @ x))
