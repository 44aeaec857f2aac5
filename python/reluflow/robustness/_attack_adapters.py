"""Attacks of other packages as functions (net, X, y, typical length) -> attacked X.

They see the network through torch, in float64, as one output a label.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from reluflow._validation import FloatArray, one_of
from reluflow.network import TwoLayerNet

Attack = Callable[[TwoLayerNet, FloatArray, FloatArray], FloatArray]
# Beyond any input: none of the attacks is to be held back by a box.
_BOX = 1e6
# Distributions where they are not called like their modules.
_DISTRIBUTIONS = {"art": "adversarial-robustness-toolbox"}


def adapter(name: str, typical: float) -> Attack:
    """An attack by name; ``typical`` is about as long as perturbations are."""
    make = _ADAPTERS[one_of("attacks", name, _ADAPTERS)]
    package = name.split(" ")[0]
    _require("torch")
    return make(_require(package), typical)


def names() -> tuple[str, ...]:
    """The attacks that there are adapters for."""
    return tuple(_ADAPTERS)


def logits(net: TwoLayerNet, scale: float) -> Any:
    """A float64 torch module with outputs (-N, N)/scale: the larger one is the predicted label.

    Dividing changes no perturbation and keeps the attacks' losses away from underflow.
    """
    torch = _require("torch")

    class Logits(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.output = net.to_torch()

        def forward(self, x: Any) -> Any:
            value = self.output(x) / scale
            return torch.cat([-value, value], dim=1)

    return Logits().eval()


def _require(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        distribution = _DISTRIBUTIONS.get(package, package)
        raise ImportError(
            f"this attack needs {distribution}: pip install 'reluflow[attacks]' ({error})"
        ) from None


def _tensors(net: TwoLayerNet, X: FloatArray, y: FloatArray) -> tuple[Any, Any, Any]:
    torch = _require("torch")
    scale = float(np.median(np.abs(net(X)))) or 1.0
    return logits(net, scale), torch.tensor(X), torch.tensor((y > 0).astype(np.int64))


def _foolbox(attack: Any) -> Attack:
    def run(net: TwoLayerNet, X: FloatArray, y: FloatArray) -> FloatArray:
        foolbox: Any = _require("foolbox")
        model, inputs, labels = _tensors(net, X, y)
        wrapped = foolbox.PyTorchModel(model, bounds=(-_BOX, _BOX), device="cpu")
        found = attack(wrapped, inputs, labels, epsilons=None)[0]
        return np.asarray(found.detach().numpy())

    return run


def _art(name: str, **options: Any) -> Callable[[Any, float], Attack]:
    def make(art: Any, typical: float) -> Attack:
        evasion: Any = importlib.import_module("art.attacks.evasion")
        estimators: Any = importlib.import_module("art.estimators.classification")

        def run(net: TwoLayerNet, X: FloatArray, y: FloatArray) -> FloatArray:
            torch: Any = _require("torch")
            model = _tensors(net, X, y)[0]
            # Its estimators take float32 inputs, and its steps grow with a box.
            classifier = estimators.PyTorchClassifier(
                model.float(),
                loss=torch.nn.CrossEntropyLoss(),
                input_shape=(net.dim,),
                nb_classes=2,
                device_type="cpu",
            )
            attack = getattr(evasion, name)(classifier, verbose=False, **options)
            return np.asarray(attack.generate(X.astype(np.float32)), dtype=np.float64)

        return run

    return make


def _torchattacks(torchattacks: Any, typical: float) -> Attack:
    def run(net: TwoLayerNet, X: FloatArray, y: FloatArray) -> FloatArray:
        torch: Any = _require("torch")
        model, inputs, labels = _tensors(net, X, y)
        low = float(X.min()) - 4 * typical
        width = float(X.max()) + 4 * typical - low

        class InBox(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, u: Any) -> Any:
                return self.inner(low + width * u)

        attack = torchattacks.DeepFool(InBox(), steps=50, overshoot=1e-6)
        found = attack((inputs - low) / width, labels)
        return np.asarray((low + width * found).detach().numpy())

    return run


_ADAPTERS: dict[str, Callable[[Any, float], Attack]] = {
    "foolbox DDN": lambda foolbox, typical: _foolbox(foolbox.attacks.DDNAttack()),
    "foolbox DDN tuned": lambda foolbox, typical: _foolbox(
        foolbox.attacks.DDNAttack(init_epsilon=typical, steps=300, gamma=0.02)
    ),
    "foolbox DeepFool": lambda foolbox, typical: _foolbox(foolbox.attacks.L2DeepFoolAttack()),
    "art DeepFool": _art("DeepFool", epsilon=1e-6, batch_size=128),
    "torchattacks DeepFool": _torchattacks,
}
