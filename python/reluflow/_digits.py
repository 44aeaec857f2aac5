"""The handwritten digits that scikit-learn ships, as a two-class problem with ten clusters."""

from __future__ import annotations

import math

import numpy as np

from reluflow._validation import FloatArray, IntArray


def read_digits() -> tuple[FloatArray, FloatArray, IntArray]:
    """Centred images of norm sqrt(64), labels even +1 and odd -1, and the digits."""
    # Takes a second to import, and only this function needs it.
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    X = pixels - pixels.mean(axis=0)
    X *= math.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True)
    return X, np.where(digits % 2 == 0, 1.0, -1.0), digits.astype(np.int64)
