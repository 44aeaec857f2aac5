"""Mean losses of margins, in the log domain."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray


class Loss(enum.Enum):
    """Losses of a margin q.

    exp(-q); log(1 + exp(-q)); max(0, 1 - q); (1 - q)^2; and cross-entropy of the two labels with
    label smoothing a, (1 - a/2) log(1 + exp(-q)) + (a/2) log(1 + exp(q)).
    """

    exponential = "exponential"
    logistic = "logistic"
    hinge = "hinge"
    squared = "squared"
    cross_entropy = "cross_entropy"


@dataclass(frozen=True)
class MarginLoss:
    """A loss of a margin, with the label smoothing of cross-entropy."""

    kind: Loss
    label_smoothing: float = 0.0

    @property
    def has_minimizer(self) -> bool:
        """Whether a margin can be finite and its loss minimal."""
        return self.kind not in (Loss.exponential, Loss.logistic)


def margin_loss(loss: Loss | MarginLoss) -> MarginLoss:
    """``loss`` with what it needs besides its kind."""
    return loss if isinstance(loss, MarginLoss) else MarginLoss(loss)


def log_loss_weights(margins: FloatArray, loss: Loss | MarginLoss) -> tuple[float, FloatArray]:
    """log L and the weights p with -grad log L = sum_i p_i grad(margin_i).

    Where L = 0, log L is -inf and the weights are 0.
    """
    loss = margin_loss(loss)
    if loss.kind is Loss.exponential:
        return _from_logarithms(-margins, -margins)
    if loss.kind is Loss.logistic:
        return _from_logarithms(_log_logistic(margins), -np.logaddexp(0.0, margins))
    if loss.kind is Loss.hinge:
        return _from_values(np.maximum(1 - margins, 0.0), (margins < 1).astype(float))
    if loss.kind is Loss.squared:
        return _squared(margins)
    other = loss.label_smoothing / 2
    towards, away = np.logaddexp(0.0, -margins), np.logaddexp(0.0, margins)
    slopes = (1 - other) * np.exp(-away) - other * np.exp(-towards)
    return _from_values((1 - other) * towards + other * away, slopes)


def _from_logarithms(log_losses: FloatArray, log_slopes: FloatArray) -> tuple[float, FloatArray]:
    # Relative to the largest loss, so that margins of 1e100 leave the weights exact.
    largest = log_losses.max()
    total = np.exp(log_losses - largest).sum()
    log_loss = largest + np.log(total / len(log_losses))
    return float(log_loss), np.exp(log_slopes - largest) / total


def _from_values(losses: FloatArray, slopes: FloatArray) -> tuple[float, FloatArray]:
    total = losses.sum()
    if total == 0:
        return -np.inf, np.zeros_like(losses)
    return float(np.log(total / len(losses))), slopes / total


def _squared(margins: FloatArray) -> tuple[float, FloatArray]:
    # Relative to the largest residual, whose square may overflow.
    residuals = 1 - margins
    largest = np.abs(residuals).max()
    if largest == 0:
        return -np.inf, residuals
    scaled = residuals / largest
    log_loss, weights = _from_values(scaled**2, 2 * scaled)
    return float(log_loss + 2 * np.log(largest)), weights / largest


def _log_logistic(margins: FloatArray) -> FloatArray:
    # Beyond 36, log(1 + exp(-q)) equals exp(-q) to rounding.
    return np.where(margins > 36.0, -margins, np.log(np.logaddexp(0.0, -np.minimum(margins, 36.0))))
