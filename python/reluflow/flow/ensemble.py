"""Many gradient flows in one call, each on one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reluflow._progress import ensemble_progress
from reluflow.data import Dataset
from reluflow.flow.result import FlowResult
from reluflow.flow.settings import FlowSettings
from reluflow.network import TwoLayerNet


def gradient_flow_ensemble(
    nets: Sequence[TwoLayerNet],
    data: Dataset | Sequence[Dataset],
    *,
    loss: str = "exponential",
    label_smoothing: float = 0.1,
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
    progress: bool | Callable[[int], None] = False,
) -> tuple[FlowResult, ...]:
    """Follows many flows at once: for many small problems, such as seeds of one experiment.

    Every flow stays on one thread, and no Python runs in between; each result is, bit for bit,
    that of `gradient_flow`. Large problems, which keep all threads busy on their own, are better
    given to `gradient_flow` one by one.

    Parameters
    ----------
    nets : sequence of TwoLayerNet
        Starts of the flows.
    data : Dataset or sequence of Dataset
        Examples of all flows, or of each.
    num_threads : int or None
        Flows followed at the same time; None means all cores that the process may use, which is
        also the most that are used.
    max_evaluations : int or None
        Gradients allowed to each flow.
    max_seconds : float or None
        Wall time allowed to all flows together. Those that had not begun have status
        ``max_seconds`` and the network they were to start from.
    progress : bool or callable
        True shows a progress bar; a callable receives the number of finished flows a few times a
        second.
    loss, label_smoothing, log_inverse_loss, train_output, bias, rtol, method, form, backend
        As for `gradient_flow`, the same for all.

    Returns
    -------
    tuple of FlowResult
        In the order of ``nets``. After Ctrl-C with what had been reached.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `gradient_flow`, with the number of the problem; or if there are none, or not as many
        data sets as networks.
    """
    settings = FlowSettings.of(
        loss=loss,
        label_smoothing=label_smoothing,
        log_inverse_loss=log_inverse_loss,
        train_output=train_output,
        bias=bias,
        rtol=rtol,
        method=method,
        form=form,
        backend=backend,
        num_threads=num_threads,
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
    )
    datasets = [data] * len(nets) if isinstance(data, Dataset) else list(data)
    if not nets or len(datasets) != len(nets):
        raise ValueError(
            "an ensemble needs networks, and a data set for each or one for all; "
            f"got {len(nets)} networks and {len(datasets)} data sets"
        )
    for number, (net, examples) in enumerate(zip(nets, datasets, strict=True)):
        _require(settings, number, net, examples)
    with ensemble_progress(progress, len(nets)) as observer:
        outcomes = settings.kernel.gradient_flow_ensemble(
            [(net.W, net.b, net.v) for net in nets],
            [(examples.X, examples.y) for examples in datasets],
            [settings.form_for(examples) == "gram" for examples in datasets],
            settings.margin_loss(),
            train_output,
            bias,
            *settings.options(),
            observer,
        )
    return tuple(
        settings.result(
            outcome,
            TwoLayerNet(outcome.weights, outcome.bias, outcome.output),
            examples,
            settings.form_for(examples),
            outcome.seconds,
        )
        for outcome, examples in zip(outcomes, datasets, strict=True)
    )


def _require(settings: FlowSettings, number: int, net: TwoLayerNet, data: Dataset) -> None:
    if not isinstance(net, TwoLayerNet):
        raise TypeError(
            f"problem {number}: an ensemble takes TwoLayerNets; got {type(net).__name__}"
        )
    try:
        settings.require(net, data)
    except (ValueError, TypeError, MemoryError) as error:
        raise type(error)(f"problem {number}: {error}") from None
