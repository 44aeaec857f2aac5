"""Errors among fresh examples, drawn as the hidden layer sees them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray, IntArray
from reluflow.reference.random import standard_normals, uniforms

SAMPLE_BLOCK = 2048
_TILE = 8


@dataclass(frozen=True)
class ErrorCounts:
    """Draws and errors of each cluster in ``blocks`` completed blocks."""

    draws: IntArray
    errors: IntArray
    blocks: int
    interrupted: bool


def count_errors(
    offsets: FloatArray,
    factors: FloatArray,
    scales: FloatArray,
    output: FloatArray,
    labels: FloatArray,
    key: int,
    first_block: int,
    blocks: int,
    strict: bool,
    max_seconds: float,
    num_threads: int,
) -> ErrorCounts:
    """Draws ``blocks`` blocks of fresh examples and counts those with label N <= 0 (or < 0).

    An example of cluster q, uniform among k, has the pre-activations
    offsets[q] + scales[q] factors[q] g with g standard normal: offsets (k, m), factors (k, m, r),
    or (1, m, r) where all clusters share one.
    """
    k, rank = len(labels), factors.shape[2]
    factors = np.broadcast_to(factors, (k, *factors.shape[1:]))
    draws, errors = np.zeros(k, np.int64), np.zeros(k, np.int64)
    deadline = time.perf_counter() + max_seconds
    done, interrupted = 0, False
    try:
        while done < blocks and time.perf_counter() < deadline:
            block = first_block + done
            # Examples of a block are exchangeable, so they may be numbered by cluster.
            cluster = np.sort((uniforms(key, block, SAMPLE_BLOCK) * k).astype(np.int64))
            normals = _block_normals(key, block, rank)
            wrong = np.empty(SAMPLE_BLOCK, bool)
            for q in range(k):
                g = normals[cluster == q]
                z = offsets[q] + scales[q] * (g @ factors[q].T)
                margins = labels[q] * (np.maximum(z, 0.0) @ output)
                wrong[cluster == q] = margins < 0 if strict else margins <= 0
            draws += np.bincount(cluster, minlength=k)
            errors += np.bincount(cluster, weights=wrong, minlength=k).astype(np.int64)
            done += 1
    except KeyboardInterrupt:
        interrupted = True
    return ErrorCounts(draws, errors, done, interrupted)


def _block_normals(key: int, block: int, rank: int) -> FloatArray:
    """g of a block's examples, shape (SAMPLE_BLOCK, rank), drawn tile by tile of examples."""
    draws = standard_normals(key, block, SAMPLE_BLOCK * rank)
    tiles = draws.reshape(SAMPLE_BLOCK // _TILE, rank, _TILE)
    return tiles.transpose(0, 2, 1).reshape(SAMPLE_BLOCK, rank)
