"""What a run takes: for every output, counts that its time is a combination of, and seconds each.

The coefficients are fitted by bench/sweep_cost.py, which also compares the model with what the
studies that ship take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reluflow.experiments.registry import Cost, Settings
from reluflow.experiments.trained import CLASSES, PIXELS, training_size


@dataclass(frozen=True)
class Size:
    """What the cost of a run depends on.

    Attributes
    ----------
    dim : int
        Number of coordinates.
    n, width, n_clusters : int
        Examples, neurons and clusters.
    settings : mapping
        All settings of the run.
    """

    dim: int
    n: int
    width: int
    n_clusters: int
    settings: Settings

    @property
    def digits(self) -> bool:
        """Whether the examples are real ones, which do not fall into two groups of neurons."""
        return "dim" not in self.settings

    @property
    def rank(self) -> int:
        """Dimension of the span of the neurons, at most."""
        return min(self.width, self.dim)


@dataclass(frozen=True)
class Model:
    """Seconds of an output on one core, what it needs from other outputs aside.

    Attributes
    ----------
    operations : callable
        From a `Size` to counts.
    coefficients : tuple of float
        Seconds for each.
    """

    operations: Callable[[Size], tuple[float, ...]]
    coefficients: tuple[float, ...]

    def seconds(self, size: Size) -> float:
        """Its time."""
        counts = self.operations(size)
        return sum(c * count for c, count in zip(self.coefficients, counts, strict=True))


# -- two layers -----------------------------------------------------------------------------------

# Where the flow of a limit is usually cut off.
_CUT = 0.1
# Lines of a cluster at most, and examples asked for that one line replaces.
_LINES, _EXAMPLES_A_LINE = 4096.0, 8.0
# Scale of the initial network from which on neurons hardly turn.
_LAZY = 0.3


def gradients(size: Size, log_inverse_loss: float) -> float:
    """Gradients that a flow takes: while neurons turn, and then so many a decade of log(1/L).

    Neurons turn for as long as the network grows from its initial scale: in small steps where the
    noise of examples is large, or means are correlated.
    """
    decades = math.log10(1 + float(log_inverse_loss))
    late = 2000.0 * max(0.0, decades - 2.1)
    if size.digits:
        count = 3300.0 * decades + late
    else:
        growth = max(0.0, -math.log10(size.settings["init_scale"]))
        count = 20.0 + 80.0 * decades + late + growth * _gradients_a_decade(size)
    return min(count, float(size.settings["max_evaluations"]))


def _gradients_a_decade(size: Size) -> float:
    """Gradients while a network grows by a factor of 10."""
    settings = size.settings
    each = size.n / size.n_clusters
    noise = float(settings["noise"]) ** 2
    share = noise / (each + noise)
    correlated = max(0.0, float(settings["correlation"]))
    return 50.0 + 2.3e4 * math.sqrt(share / settings["dim"]) + 900.0 * math.sqrt(correlated)


def flow_operations(size: Size) -> tuple[float, ...]:
    """A constant, gradients, their multiplications in the cheaper form, and their activations."""
    return 1.0, *_gradient_operations(size, size.settings["log_inverse_loss"])


def _gradient_operations(size: Size, log_inverse_loss: float) -> tuple[float, ...]:
    gram = 2.0 * size.n * size.n * size.width
    primal = 4.0 * size.n * size.dim * size.width
    count = gradients(size, log_inverse_loss)
    return count, count * (gram if size.n < 2 * size.dim else primal), count * size.n * size.width


def limit_operations(size: Size) -> tuple[float, ...]:
    """A flow, and a prediction from its patterns: triples, and pairs where it is a hard one.

    The logistic loss is cut off at the start, where patterns are not settled yet.
    """
    pairs = float(size.n) ** 2
    hard = size.settings["loss"] == "logistic"
    return 1.0, *_gradient_operations(size, _CUT), pairs * size.n, pairs * hard


def certificate_operations(size: Size) -> tuple[float, ...]:
    """A constant; pairs of examples, and of an example and a neuron; triples if groups are many."""
    pairs = float(size.n) ** 2
    scattered = size.settings["init_scale"] >= _LAZY or size.digits
    return 1.0, pairs, float(size.n) * size.width, pairs * size.width * scattered


def error_operations(size: Size) -> tuple[float, ...]:
    """A constant; clusters, their lines, products of these, and projections."""
    if size.digits:
        return 1.0, 0.0, 0.0, 0.0, 0.0
    k = float(size.n_clusters)
    asked = float(size.settings["error_samples"]) / _EXAMPLES_A_LINE
    lines = min(k * _LINES, asked)
    products = lines * size.width * size.rank
    return 1.0, k, lines * size.width, products, k * float(size.rank) ** 3


def universal_operations(size: Size) -> tuple[float, ...]:
    """A constant, and the hidden layer of the shifted examples."""
    shifted = float(size.settings.get("shifted_points", 1000))
    return 1.0, shifted * size.dim * size.width


def radii_operations(size: Size) -> tuple[float, ...]:
    """A constant; for each example squares and cubes of neurons, pairs if they are scattered."""
    points, rank = float(size.settings["test_points"]), float(size.rank)
    scattered = size.settings["init_scale"] >= _LAZY or size.digits
    return 1.0, points * rank**2, points * rank**3, points * size.width**2 * scattered


def robust_operations(size: Size) -> tuple[float, ...]:
    """The same for the robust network, which has a neuron a cluster."""
    points, rank = float(size.settings["test_points"]), float(size.n_clusters)
    return 1.0, points * rank**2


TWO_LAYERS = {
    "flow": Model(flow_operations, (3e-3, 2e-6, 2e-11, 2e-9)),
    "limit": Model(limit_operations, (1e-2, 2e-6, 2e-11, 2e-9, 3e-10, 5e-5)),
    "certificate": Model(certificate_operations, (1.5e-2, 9e-7, 6.5e-7, 1.5e-7)),
    "universal": Model(universal_operations, (5e-3, 5e-10)),
    "radii": Model(radii_operations, (6e-3, 3e-8, 1e-11, 1.2e-7)),
    "robust": Model(robust_operations, (3e-3, 4e-8)),
    "error": Model(error_operations, (2e-3, 1e-2, 3e-8, 5e-10, 3e-10)),
}


def size_of(settings: Settings) -> Size:
    """The size of a run of ``double-edge`` or ``digits``."""
    if "dim" not in settings:
        return Size(PIXELS, settings["n"], settings["width"], CLASSES, settings)
    k, m, n = settings["n_clusters"], settings["width"], training_size(settings)
    d = settings["dim"] if settings["coordinates"] == "ambient" else k + n + m
    return Size(d, n, m, k, settings)


def two_layer_cost(settings: Settings, outputs: Sequence[str]) -> Cost:
    """Seconds on one core, and bytes; whatever is measured needs the network first."""
    size = size_of(settings)
    needed = dict.fromkeys((settings["network"], *outputs, *["radii"] * ("robust" in outputs)))
    n, m, tested = float(size.n), float(size.width), float(settings["test_points"])
    numbers = 4 * (n + m + tested) * size.dim + 14 * n * m + n * n
    return Cost(_total(TWO_LAYERS, size, needed), 8 * numbers)


# -- any depth ------------------------------------------------------------------------------------


def deep_gradients(size: Size) -> float:
    """Gradients of a deep flow, from a small start."""
    settings = size.settings
    layers = math.pow(2.0 / settings["depth"], 1.3)
    target = math.pow(1.0 + settings["log_inverse_loss"], 0.45)
    count = 11.0 * math.pow(size.n_clusters, 0.35) * target * layers
    return min(count, float(settings["max_evaluations"]))


def _products(size: Size) -> float:
    """Multiplications of one example through a deep network, in the span of the data."""
    inputs = min(size.n + 1, size.dim)
    return float(size.width * (inputs + size.width * (size.settings["depth"] - 2)))


def deep_flow_operations(size: Size) -> tuple[float, ...]:
    """A constant, the data and their products, and those of the gradients."""
    products = size.n * float(size.n + size.width) * size.dim
    return 1.0, products, deep_gradients(size) * size.n * _products(size)


def deep_certificate_operations(size: Size) -> tuple[float, ...]:
    """A constant, and products of gradients of pairs of examples."""
    return 1.0, float(size.n) ** 2 * _products(size)


def deep_limit_operations(size: Size) -> tuple[float, ...]:
    """A constant, and cubes: a few quadratic programs in the weights of one unit a label."""
    return 1.0, float(min(size.n + 1, size.dim)) ** 3


def _piecewise_linear(size: Size) -> bool:
    return str(size.settings["activation"]) in ("relu", "leaky_relu")


def deep_universal_operations(size: Size) -> tuple[float, ...]:
    """A constant; first layers of the shifted examples, and roots on rays where they are curved."""
    points = float(size.settings["shifted_points"])
    hidden = points * size.width * size.dim
    return 1.0, hidden, hidden * (not _piecewise_linear(size))


def deep_radii_operations(size: Size) -> tuple[float, ...]:
    """A constant, and for each example a search, where no exact one is at hand.

    At depth 2 with an output a cluster, the outputs between all kinks of rays towards the clusters.
    """
    settings = size.settings
    points = float(settings["test_points"])
    shallow = settings["depth"] == 2 and _piecewise_linear(size)
    if shallow:
        outputs = size.n_clusters * (settings["targets"] == "clusters")
        return 1.0, 0.0, 0.0, points * size.width * outputs * (outputs / 2 + 3)
    return 1.0, points, points * size.width**2, 0.0


DEEP = {
    "flow": Model(deep_flow_operations, (4e-2, 5e-10, 2e-10)),
    "certificate": Model(deep_certificate_operations, (5e-3, 1.2e-9)),
    "limit": Model(deep_limit_operations, (2.5e-1, 1.6e-7)),
    "universal": Model(deep_universal_operations, (4e-2, 1e-10, 6e-9)),
    "radii": Model(deep_radii_operations, (1e-2, 6e-3, 3.3e-6, 2.2e-7)),
}


def deep_size_of(settings: Settings) -> Size:
    """The size of a run of ``deep``."""
    k = int(settings["n_clusters"])
    n = int(settings["per_cluster"]) * k
    return Size(int(settings["dim"]), n, int(settings["width"]), k, settings)


def deep_cost(settings: Settings, outputs: Sequence[str]) -> Cost:
    """Seconds on one core, and bytes; everything is measured on the network of the flow."""
    size = deep_size_of(settings)
    n, m, inputs = float(size.n), float(size.width), float(min(size.n + 1, size.dim))
    numbers = 4 * size.dim * (n + m) + 4 * n * m * (inputs + m)
    return Cost(_total(DEEP, size, dict.fromkeys(("flow", *outputs))), 8 * numbers)


def _total(models: Mapping[str, Model], size: Size, outputs: Iterable[str]) -> float:
    return sum(models[name].seconds(size) for name in outputs)
