"""Mean losses of margins, in the log domain."""

from __future__ import annotations

import enum

import numpy as np

from reluflow._validation import FloatArray


class Loss(enum.Enum):
    """Losses of a margin q: exp(-q), and log(1 + exp(-q))."""

    exponential = "exponential"
    logistic = "logistic"


def log_loss_weights(margins: FloatArray, loss: Loss) -> tuple[float, FloatArray]:
    """log L and the weights p with -grad log L = sum_i p_i grad(margin_i)."""
    if loss is Loss.exponential:
        log_losses = log_slopes = -margins
    else:
        log_losses, log_slopes = _log_logistic(margins), -np.logaddexp(0.0, margins)
    # Relative to the largest loss, so that margins of 1e100 leave the weights exact.
    largest = log_losses.max()
    total = np.exp(log_losses - largest).sum()
    log_loss = largest + np.log(total / len(margins))
    return float(log_loss), np.exp(log_slopes - largest) / total


def _log_logistic(margins: FloatArray) -> FloatArray:
    # Beyond 36, log(1 + exp(-q)) equals exp(-q) to rounding.
    return np.where(margins > 36.0, -margins, np.log(np.logaddexp(0.0, -np.minimum(margins, 36.0))))
