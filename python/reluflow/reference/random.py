"""Counter-based random numbers: Philox4x32-10, and standard normals from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reluflow._validation import FloatArray

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_KEY_INCREMENTS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF_WORD = np.uint64(32)

# Streams of different purpose share no counter.
_NORMALS, _CLUSTERS = 0, 1


def philox4x32(counters: NDArray[np.uint32], key: int) -> NDArray[np.uint32]:
    """The 128 random bits of every counter, shape (n, 4) (Salmon, Moraes, Dror & Shaw 2011)."""
    c0, c1, c2, c3 = counters.T.astype(np.uint64)
    keys = np.array([key & 0xFFFFFFFF, key >> 32], np.uint64)
    for _ in range(_ROUNDS):
        p, q = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1 = (q >> _HALF_WORD) ^ c1 ^ keys[0], q & _LOW
        c2, c3 = (p >> _HALF_WORD) ^ c3 ^ keys[1], p & _LOW
        keys = (keys + _KEY_INCREMENTS) & _LOW
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(key: int, block: int, count: int) -> FloatArray:
    """Multiples of 2^-52, uniform on [0, 1): the draws of one block of a stream of its own."""
    first, second = _words(key, block, _CLUSTERS, count)
    return np.concatenate([_fraction(first), _fraction(second)])[:count]


def standard_normals(key: int, block: int, count: int) -> FloatArray:
    """Standard normals by Box & Muller (1958): the draws of one block.

    The first uniform u of a counter gives the radius, the second the angle: its two highest bits
    are the quadrant, the rest a fraction t, and the angle is pi/2 (quadrant + t - 1/2).
    """
    first, second = _words(key, block, _NORMALS, count)
    radius = np.sqrt(-2 * np.log(1 - _fraction(first)))
    quadrant = (second >> np.uint64(62)).astype(np.int64)
    angle = np.pi / 2 * (_fraction(second << np.uint64(2)) - 0.5)
    # Turned by whole quadrants, so that cosine and sine stay accurate near their zeros.
    cosine, sine = np.cos(angle), np.sin(angle)
    turned_cosine = np.choose(quadrant, [cosine, -sine, -cosine, sine])
    turned_sine = np.choose(quadrant, [sine, cosine, -sine, -cosine])
    return np.concatenate([radius * turned_cosine, radius * turned_sine])[:count]


def _words(
    key: int, block: int, purpose: int, count: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The two 64-bit words of each of the counters 0, 1, ... that ``count`` draws need."""
    half = (count + 1) // 2
    counters = np.empty((half, 4), np.uint32)
    counters[:, 0] = np.arange(half)
    counters[:, 1] = purpose
    counters[:, 2] = block & 0xFFFFFFFF
    counters[:, 3] = block >> 32
    words = philox4x32(counters, key).astype(np.uint64)
    return words[:, 0] << _HALF_WORD | words[:, 1], words[:, 2] << _HALF_WORD | words[:, 3]


def _fraction(words: NDArray[np.uint64]) -> FloatArray:
    """The 52 highest bits as a number in [0, 1)."""
    return (words >> np.uint64(12)).astype(np.float64) * 2.0**-52
