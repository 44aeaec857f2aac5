"""Finds the same point with opposite labels without comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reluflow._validation import FloatArray

# Numbers in the temporary arrays of work that goes over the rows of X in blocks.
_BLOCK_SIZE = 2**20


def require_no_conflict(X: FloatArray, y: FloatArray) -> None:
    """Refuses examples that are the same point with opposite labels."""
    _, group, count = np.unique(_row_hashes(X), return_inverse=True, return_counts=True)
    first: dict[bytes, int] = {}
    for i in np.flatnonzero(count[group] > 1):
        j = first.setdefault((X[i] + 0.0).tobytes(), int(i))
        if y[i] != y[j]:
            raise ValueError(
                f"X holds the same point with opposite labels: examples {j} ({y[j]:+g}) and "
                f"{i} ({y[i]:+g}); no network separates them, remove one"
            )


def row_blocks(n: int, dim: int) -> Iterator[slice]:
    """Slices that cut n rows of ``dim`` numbers into blocks of bounded memory."""
    step = max(1, _BLOCK_SIZE // dim)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _row_hashes(X: FloatArray) -> NDArray[np.uint64]:
    """Numbers that agree wherever rows agree; adding 0.0 makes -0.0 the same as 0.0."""
    multipliers = np.random.default_rng(0).integers(2**64, size=X.shape[1], dtype=np.uint64)
    multipliers |= np.uint64(1)
    hashes = np.empty(len(X), dtype=np.uint64)
    for rows in row_blocks(*X.shape):
        bits = (X[rows] + 0.0).view(np.uint64)
        # Short numbers fill only the high bits, which the product would push out.
        bits ^= bits >> np.uint64(32)
        hashes[rows] = np.einsum("ij,j->i", bits, multipliers)
    return hashes
