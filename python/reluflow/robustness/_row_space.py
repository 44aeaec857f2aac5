"""A network in the row space of its weights, where perturbations act."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray, IntArray, require_memory
from reluflow.network import TwoLayerNet

_UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2
# Coordinates that are summed at a time, whatever the order within: a sum of d products then carries
# _BLOCK + d/_BLOCK roundings, not d.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class RowSpace:
    """The neurons that an input can move, as the kernels take them.

    Attributes
    ----------
    weights, bias, output : ndarray
        Of the neurons with w_j and v_j other than zero, shapes (R, d), (R,), (R,).
    neurons : ndarray of int64, shape (R,)
        Which those are.
    rows : ndarray, shape (R, r)
        L with L L^T = W W^T, r = min(R, d): triangular, or the weights themselves where d <= R.
    constant : float
        What neurons without weights add to every output.
    lipschitz : float
        An upper bound on |N(x) - N(x')| / ||x - x'||: the smaller of sum_j |v_j| ||w_j|| and
        ||D W||_2 ||v/D||_2 with D_j^2 = |v_j| / ||w_j|| (docs/theory.md, section 7.7).
    """

    weights: FloatArray
    bias: FloatArray
    output: FloatArray
    neurons: IntArray
    rows: FloatArray
    constant: float
    lipschitz: float

    @classmethod
    def of(cls, net: TwoLayerNet) -> RowSpace:
        """The row space of a network; costs one triangular factorisation."""
        moved = net.W.any(axis=1)
        live = moved & (net.v != 0)
        weights, bias, output = net.W, net.b, net.v
        if not live.all():
            weights, bias, output = net.W[live], net.b[live], net.v[live]
        rows = _triangular_rows(weights)
        return cls(
            weights=weights,
            bias=bias,
            output=output,
            neurons=np.flatnonzero(live).astype(np.int64),
            rows=rows,
            constant=float(net.v[~moved] @ np.maximum(net.b[~moved], 0)),
            lipschitz=_lipschitz(rows, output),
        )

    def preactivations(self, points: FloatArray) -> FloatArray:
        """w_j . x + b_j, shape (n, R)."""
        result = np.tile(self.bias, (len(points), 1))
        for begin in range(0, points.shape[1], _BLOCK):
            part = slice(begin, begin + _BLOCK)
            result += points[:, part] @ self.weights[:, part].T
        return result

    def rounding(self, points: FloatArray) -> FloatArray:
        """Bound on the error that rounded pre-activations make in each output, shape (n,)."""
        dim = points.shape[1]
        roundings = (min(dim, _BLOCK) + -(-dim // _BLOCK) + 8) * _UNIT_ROUNDOFF
        reach = np.linalg.norm(points, axis=1)
        weights = np.abs(self.output) @ np.linalg.norm(self.weights, axis=1)
        terms: FloatArray = reach * weights + np.abs(self.output) @ np.abs(self.bias)
        return np.asarray(roundings * terms)

    def perturbations(self, coefficients: FloatArray) -> FloatArray:
        """W^T c in all d coordinates, for every row c of ``coefficients``."""
        moved: FloatArray = coefficients @ self.weights
        return moved


def _triangular_rows(weights: FloatArray) -> FloatArray:
    width, dim = weights.shape
    if dim <= width or width == 0:
        return np.ascontiguousarray(weights)
    require_memory(f"the row space of {width} x {dim} weights", 16.0 * width * dim)
    triangle: FloatArray = np.asarray(np.linalg.qr(weights.T, mode="r"))
    return np.ascontiguousarray(triangle.T)


def _lipschitz(rows: FloatArray, output: FloatArray) -> float:
    norms = np.linalg.norm(rows, axis=1)
    total = float(np.abs(output) @ norms)
    if total == 0:
        return 0.0
    spectral = float(np.linalg.norm(rows * np.sqrt(np.abs(output) / norms)[:, None], 2))
    # Rounding of the norms.
    return float(min(total, spectral * total**0.5) * (1 + 1e-9))
