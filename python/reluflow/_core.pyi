"""The compiled kernels, as one module for the chosen instruction set."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]

def build_info() -> dict[str, Any]: ...
def processor_levels() -> list[str]: ...

class Loss:
    exponential: Loss
    logistic: Loss
    hinge: Loss
    squared: Loss
    cross_entropy: Loss

class MarginLoss:
    def __init__(self, kind: Loss, label_smoothing: float = 0.0) -> None: ...

class LossGradient:
    @property
    def log_loss(self) -> float: ...
    @property
    def margins(self) -> _Floats: ...
    @property
    def example_weights(self) -> _Floats: ...
    @property
    def weights(self) -> _Floats: ...
    @property
    def bias(self) -> _Floats: ...
    @property
    def output(self) -> _Floats: ...

def forward(
    weights: _Floats, bias: _Floats, output: _Floats, inputs: _Floats, num_threads: int
) -> _Floats: ...
def gram_matrix(inputs: _Floats, bias_feature: bool, num_threads: int) -> _Floats: ...
def log_loss_weights(margins: _Floats, loss: Loss | MarginLoss) -> tuple[float, _Floats]: ...
def primal_gradient(
    weights: _Floats,
    bias: _Floats,
    output: _Floats,
    inputs: _Floats,
    labels: _Floats,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    num_threads: int,
    kink_ramp: float = 0.0,
) -> LossGradient: ...
def gram_gradient(
    weights: _Floats,
    bias: _Floats,
    output: _Floats,
    inputs: _Floats,
    labels: _Floats,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    num_threads: int,
    kink_ramp: float = 0.0,
) -> LossGradient: ...

class FlowStatus:
    @property
    def name(self) -> str: ...

class FlowMethod:
    bogacki_shampine: FlowMethod
    rkc2: FlowMethod

class FlowOutcome:
    @property
    def status(self) -> FlowStatus: ...
    @property
    def trajectory(self) -> _Floats: ...
    @property
    def unreachable(self) -> _Ints: ...
    @property
    def margins(self) -> _Floats: ...
    @property
    def accepted_steps(self) -> float: ...
    @property
    def rejected_steps(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def weights(self) -> _Floats: ...
    @property
    def bias(self) -> _Floats: ...
    @property
    def output(self) -> _Floats: ...

def gradient_flow(
    weights: _Floats,
    bias: _Floats,
    output: _Floats,
    inputs: _Floats,
    labels: _Floats,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    gram_form: bool,
    method: FlowMethod,
    kink_ramp: float,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
    gram: _Floats | None = None,
) -> FlowOutcome: ...
def gradient_flow_ensemble(
    networks: list[tuple[_Floats, _Floats, _Floats]],
    data: list[tuple[_Floats, _Floats]],
    gram: list[bool],
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    method: FlowMethod,
    kink_ramp: float,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[int], None] | None,
) -> list[FlowOutcome]: ...

class Activation:
    relu: Activation
    leaky_relu: Activation
    polynomial_relu: Activation
    normalized_polynomial_relu: Activation

class Architecture:
    def __init__(
        self,
        widths: list[int],
        biased: list[bool],
        activation: Activation,
        parameter: float,
        skip: bool,
    ) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def degree(self) -> float: ...

class DeepFlowOutcome:
    @property
    def status(self) -> FlowStatus: ...
    @property
    def trajectory(self) -> _Floats: ...
    @property
    def unreachable(self) -> _Ints: ...
    @property
    def margins(self) -> _Floats: ...
    @property
    def accepted_steps(self) -> float: ...
    @property
    def rejected_steps(self) -> float: ...
    @property
    def theta(self) -> _Floats: ...

def deep_forward(
    architecture: Architecture, theta: _Floats, inputs: _Floats, num_threads: int
) -> _Floats: ...
def deep_gradient(
    architecture: Architecture,
    theta: _Floats,
    inputs: _Floats,
    targets: _Floats,
    loss: Loss | MarginLoss,
    num_threads: int,
) -> tuple[float, _Floats, _Floats, _Floats]: ...
def deep_gradient_flow(
    architecture: Architecture,
    theta: _Floats,
    inputs: _Floats,
    targets: _Floats,
    loss: Loss | MarginLoss,
    method: FlowMethod,
    log_inverse_loss: float,
    rtol: float,
    largest_move: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
) -> DeepFlowOutcome: ...

class AdversarialPoints:
    @property
    def example(self) -> _Ints: ...
    @property
    def margins(self) -> _Floats: ...
    @property
    def multipliers(self) -> _Floats: ...
    @property
    def coefficients(self) -> _Floats: ...

class AdversarialFlowOutcome(FlowOutcome):
    @property
    def coefficients(self) -> _Floats: ...

def adversarial_points(
    weights: _Floats,
    bias: _Floats,
    output: _Floats,
    inputs: _Floats,
    labels: _Floats,
    targets: _Floats,
    target_order: _Ints,
    radius: float,
    descent_steps: int,
    spread: float,
    num_threads: int,
) -> AdversarialPoints: ...
def adversarial_gradient(
    weights: _Floats,
    bias: _Floats,
    output: _Floats,
    inputs: _Floats,
    labels: _Floats,
    targets: _Floats,
    target_order: _Ints,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    radius: float,
    descent_steps: int,
    num_threads: int,
) -> LossGradient: ...
def adversarial_gradient_flow(
    weights: _Floats,
    bias: _Floats,
    output: _Floats,
    inputs: _Floats,
    labels: _Floats,
    targets: _Floats,
    target_order: _Ints,
    loss: Loss | MarginLoss,
    train_output: bool,
    train_bias: bool,
    radius: float,
    descent_steps: int,
    method: FlowMethod,
    log_inverse_loss: float,
    rtol: float,
    max_evaluations: float,
    max_seconds: float,
    num_threads: int,
    progress: Callable[[float, float, float], None] | None,
) -> AdversarialFlowOutcome: ...

SAMPLE_BLOCK: int

class ErrorCounts:
    @property
    def draws(self) -> _Ints: ...
    @property
    def errors(self) -> _Ints: ...
    @property
    def blocks(self) -> int: ...
    @property
    def interrupted(self) -> bool: ...

def philox4x32(counters: NDArray[np.uint32], key: int) -> NDArray[np.uint32]: ...
def uniforms(key: int, block: int, count: int) -> _Floats: ...
def standard_normals(key: int, block: int, count: int) -> _Floats: ...
def count_errors(
    offsets: _Floats,
    factors: _Floats,
    scales: _Floats,
    output: _Floats,
    labels: _Floats,
    key: int,
    first_block: int,
    blocks: int,
    strict: bool,
    max_seconds: float,
    num_threads: int,
) -> ErrorCounts: ...

class Proof:
    @property
    def name(self) -> str: ...

class StopReason:
    @property
    def name(self) -> str: ...

class ProofSteps:
    @property
    def point(self) -> _Ints: ...
    @property
    def kind(self) -> _Ints: ...
    @property
    def node(self) -> _Ints: ...
    @property
    def neuron(self) -> _Ints: ...
    @property
    def child(self) -> _Ints: ...
    @property
    def radius(self) -> _Floats: ...
    @property
    def eta(self) -> _Floats: ...
    @property
    def first(self) -> _Ints: ...
    @property
    def multiplier_neuron(self) -> _Ints: ...
    @property
    def multiplier(self) -> _Floats: ...
    @property
    def slope(self) -> _Floats: ...

class PerturbationOutcome:
    @property
    def radius(self) -> _Floats: ...
    @property
    def lower_bound(self) -> _Floats: ...
    @property
    def coefficients(self) -> _Floats: ...
    @property
    def subsets(self) -> _Floats: ...
    @property
    def proofs(self) -> list[Proof]: ...
    @property
    def nodes(self) -> _Ints: ...
    @property
    def steps(self) -> ProofSteps: ...
    @property
    def stopped(self) -> StopReason: ...

class SubsetProjections:
    @property
    def distance(self) -> _Floats: ...
    @property
    def lower_bound(self) -> _Floats: ...
    @property
    def coefficients(self) -> _Floats: ...

def ray_crossings(
    preactivations: _Floats,
    slopes: _Floats,
    signs: _Floats,
    output: _Floats,
    constant: float,
    labels: _Floats,
    strict: bool,
    num_threads: int,
) -> _Floats: ...
def log_line_masses(
    preactivations: _Floats,
    slopes: _Floats,
    output: _Floats,
    constant: float,
    lower: _Floats,
    upper: _Floats,
    strict: bool,
    num_threads: int,
) -> _Floats: ...
def subset_projections(
    rows: _Floats,
    output: _Floats,
    constant: float,
    preactivations: _Floats,
    labels: _Floats,
    subsets: _Floats,
    num_threads: int,
) -> SubsetProjections: ...
def min_perturbations(
    rows: _Floats,
    output: _Floats,
    constant: float,
    lipschitz: float,
    preactivations: _Floats,
    labels: _Floats,
    slack: _Floats,
    targets: _Floats,
    target_order: _Ints,
    strict: bool,
    rtol: float,
    max_nodes: int,
    max_seconds: float,
    num_threads: int,
    keep_proofs: bool,
) -> PerturbationOutcome: ...
