"""Gradient flow, followed to any loss."""

from __future__ import annotations

import time
from typing import Any

from numpy.typing import ArrayLike

from reluflow._progress import flow_progress
from reluflow._validation import FloatArray, as_array
from reluflow.adversarial import Attack
from reluflow.data import Dataset
from reluflow.deep_network import DeepNet
from reluflow.flow.adversarial import follow_adversarial, require_attack
from reluflow.flow.deep import follow_deep
from reluflow.flow.result import FlowResult
from reluflow.flow.settings import FlowSettings, Observer
from reluflow.network import TwoLayerNet


def gradient_flow(
    net: TwoLayerNet | DeepNet,
    data: Dataset,
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
    gram: ArrayLike | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    progress: bool | Observer = False,
    adversarial_radius: float = 0.0,
    inner: str = "search",
    inner_steps: int = 10,
) -> FlowResult:
    """Follows gradient flow on the mean loss L from ``net`` until log(1/L) reaches a target.

    The flow is integrated in the rescaled time d tau = L dt, in which it reads
    d theta / d tau = -grad log L: the same trajectory, without underflow at any loss
    (docs/theory.md, section 2). Ctrl-C returns what had been reached.

    Parameters
    ----------
    net : TwoLayerNet or DeepNet
        Start of the flow. Of a `DeepNet` steps that raise log L are refused, and moves beyond 0.3
        of its norm; with an output a class it is cross-entropy that ``loss="logistic"`` follows.
    data : Dataset
        Examples X (n, d) and labels y.
    loss : {"exponential", "logistic", "hinge", "squared", "cross_entropy"}
        Loss of a margin q: exp(-q), log(1 + exp(-q)), max(0, 1 - q), (1 - q)^2, or cross-entropy
        with label smoothing; L is its mean over the examples. The flows of the last three end at
        minimisers: the last iterate is reported, which no max-margin theorem speaks of.
    label_smoothing : float
        Of cross-entropy, in (0, 1): with a, the target is 1 - a/2 for the label and a/2 for the
        other one. The smallest possible loss is the entropy of that target.
    log_inverse_loss : float
        Target log(1/L), up to 1e100, with rkc2 up to 1e7. Flows of losses that have minimisers also
        end, with status ``stationary``, once the gradient has fallen to 1e-8 of its largest.
    train_output, bias : bool
        Whether v and b are trained. With ``bias=False`` the biases of ``net`` must be zero. A
        `DeepNet` trains all that it has.
    rtol : float
        Error allowed a step, relative to the norm of all parameters.
    method : {"auto", "bogacki-shampine", "rkc2"}
        Integrator: the embedded pair of Bogacki & Shampine (1989), which "auto" takes, or the
        stabilised method of Sommeijer, Shampine & Verwer (1998), for accurate trajectories late in
        training. With rkc2 relu' rises over a ramp of relative width rtol where the flow would
        slide along a kink (docs/theory.md, section 2.4).
    form : {"auto", "gram", "primal", "span"}
        Gradients through the Gram matrix of the examples, 2 n^2 m operations each, or in the
        network's own parameters, 4 n d m. "auto" takes the Gram form when n < 2 d.
        A `DeepNet` moves in its own parameters, or, where n + 1 < d, in the span of the examples.
    backend : {"native", "numpy"}
        Compiled kernels, or the NumPy reference.
    num_threads : int or None
        None means all cores that the process may use, which is also the most that are used.
        The result does not depend on it.
    gram : array_like, shape (n, n), or None
        Gram matrix of the examples where it is known already, with 1 added to every entry where the
        biases are trained; the Gram form then need not compute it. It is not checked against X.
    max_evaluations : int or None
        Gradients allowed; None means any number, of adversarial training 100,000.
    max_seconds : float or None
        Wall time allowed.
    progress : bool or callable
        True shows a progress bar; a callable receives log(1/L), the normalised margin and the
        number of evaluations a few times a second.
    adversarial_radius : float
        Above 0, adversarial training of a two-layer network: L is the mean loss of the smallest
        margin y N(x + delta) over ||delta|| <= adversarial_radius, its gradient that of the loss at
        the minimiser (docs/theory.md, section 10.1). Everything that is said of L, log(1/L) and
        margins then means the robust ones. Examples come with the clusters they are of, if
        ``data.cluster`` is known, as starts of the search.
    inner : {"search", "pgd"}
        How the minimiser is sought: the search over convex pieces of `adversarial_examples`, or
        projected gradient descent, which may miss it.
    inner_steps : int
        Of projected gradient descent.

    Returns
    -------
    FlowResult
        Of a `DeepNet` a `DeepFlowResult`; with ``adversarial_radius`` above 0 an
        `AdversarialFlowResult`. Its status is ``not_robustly_separable``, with a reason, where two
        balls of opposite labels meet, or the flow came to rest with a robust margin not above 0.

    Raises
    ------
    ValueError
        If an argument is out of its range, the shapes of ``net`` and ``data`` disagree, or the
        labels are of one class.
    MemoryError
        If the working arrays would not fit.
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
    attack = Attack.of(adversarial_radius, inner, inner_steps)
    settings.require(net, data)
    if attack.radius > 0:
        require_attack(net, settings)
        if gram is not None:
            raise ValueError("gram cannot be used with adversarial_radius: perturbations change it")
    known = None if gram is None else _checked_gram(gram, data)
    start = time.perf_counter()
    with flow_progress(progress, settings.log_inverse_loss) as observer:
        if isinstance(net, DeepNet):
            followed: _Followed = follow_deep(net, data, settings, observer)
        elif attack.radius > 0:
            return follow_adversarial(net, data, settings, attack, observer, start)
        else:
            followed = _follow(net, data, settings, observer, known)
        outcome, reached, form = followed
    return settings.result(outcome, reached, data, form, time.perf_counter() - start)


# Outcome of the kernel, the network that it reached, and the form.
_Followed = tuple[Any, TwoLayerNet | DeepNet, str]


def _checked_gram(gram: ArrayLike, data: Dataset) -> FloatArray:
    K = as_array("gram", gram, 2)
    if K.shape != (data.n, data.n):
        raise ValueError(
            f"gram must have one row and one column for each of the {data.n} examples; "
            f"got shape {K.shape}"
        )
    return K


def _follow(
    net: TwoLayerNet,
    data: Dataset,
    settings: FlowSettings,
    observer: Observer | None,
    gram: FloatArray | None,
) -> _Followed:
    form = settings.form_for(data)
    outcome = settings.kernel.gradient_flow(
        net.W,
        net.b,
        net.v,
        data.X,
        data.y,
        settings.margin_loss(),
        settings.train_output,
        settings.bias,
        form == "gram",
        *settings.options(),
        observer,
        gram,
    )
    return outcome, TwoLayerNet(outcome.weights, outcome.bias, outcome.output), form
