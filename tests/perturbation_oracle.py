"""The smallest perturbation by brute force, sharing nothing with the kernels but the problem.

N = min over subsets A of the opposing neurons of g_A = constant + sum_P v relu(z) - sum_A |v| z
(docs/theory.md, section 7.1). g_A is itself the maximum of 2^|P| planes, one for each set of
supporting neurons that counts as active, so that {g_A <= 0} is a polyhedron, and the point of a
polyhedron that is nearest to 0 is a non-negative least-squares problem (Lawson & Hanson 1974,
chapter 23).
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog, nnls


def choices(members, size):
    """0/1 rows of length ``size``: every subset of ``members``."""
    members = np.flatnonzero(members)
    rows = np.zeros((2 ** len(members), size))
    rows[:, members] = list(itertools.product((0, 1), repeat=len(members)))
    return rows


def smallest_perturbation(rows, a, v, constant=0.0, strict=False):
    if constant + np.maximum(a, 0) @ v < 0:
        return 0.0
    return min(
        (
            piece_distance(rows, a, v, constant, subset)
            for subset in choices(v < 0, len(v))
            if not strict or lowest_value(rows, a, v, constant, subset) < -1e-7
        ),
        default=np.inf,
    )


def piece_distance(rows, a, v, constant, subset):
    """Distance from 0 to {g_A <= 0}."""
    multipliers = (choices(v > 0, len(v)) + subset * (v < 0)) * v
    normals, offsets = multipliers @ rows, multipliers @ a + constant
    if (offsets <= 0).all():
        return 0.0
    lengths = np.linalg.norm(normals, axis=1)
    size = np.abs(multipliers) @ np.linalg.norm(rows, axis=1)
    flat = lengths <= 1e-13 * size
    if (offsets[flat] > 1e-12 * (np.abs(multipliers[flat]) @ np.abs(a) + abs(constant))).any():
        return np.inf
    planes, heights = normals[~flat] / lengths[~flat, None], offsets[~flat] / lengths[~flat]
    unit = heights.max()
    for _ in range(6):  # in units of the distance, for accuracy
        system = np.vstack([-planes.T, heights / unit])
        target = np.append(np.zeros(rows.shape[1]), 1.0)
        residual = nnls(system, target, maxiter=5000)[1]
        if residual < 1e-8:
            return np.inf
        distance = np.sqrt(max(1 / residual**2 - 1, 0.0))
        unit *= distance
        if 0.5 < distance < 2:
            break
    return unit


def lowest_value(rows, a, v, constant, subset, box=1e4):
    """The minimum of g_A over a large box, by linear programming."""
    weights, supporting = subset * (v < 0) * v, v > 0
    count = int(supporting.sum())
    result = linprog(
        np.append(weights @ rows, v[supporting]),
        A_ub=np.hstack([rows[supporting], -np.eye(count)]) if count else None,
        b_ub=-a[supporting] if count else None,
        bounds=[(-box, box)] * rows.shape[1] + [(0, None)] * count,
    )
    return result.fun + weights @ a + constant


DEGENERACIES = (
    "none",
    "duplicate",
    "opposite twin",
    "rank one",
    "on a kink",
    "all supporting",
    "twins that cancel",
)
# Of whole networks; the kernels are given neurons with weights only.
NETWORK_DEGENERACIES = (*DEGENERACIES, "zero weights")


def random_problem(rng, degeneracy, most=9):
    """rows, a, v of a small random network at a point, with v signed so that N(0) >= 0."""
    size, rank = rng.integers(2, most + 1), rng.integers(1, 7)
    rows, v = rng.standard_normal((size, rank)), rng.standard_normal(size)
    a = rng.standard_normal(size) * rng.choice([0.3, 1.0, 3.0])
    if degeneracy == "duplicate":
        rows[1], a[1] = rows[0], a[0]
    elif degeneracy == "opposite twin":
        rows[1], a[1] = -rows[0], -a[0]
    elif degeneracy == "rank one":
        rows = rows[:, :1] @ rng.standard_normal((1, rank))
    elif degeneracy == "on a kink":
        a[rng.integers(size)] = 0.0
    elif degeneracy == "all supporting":
        v = np.abs(v)
    elif degeneracy == "twins that cancel" and size > 2:
        rows[1], a[1] = rows[0], a[0]
        rows[2], a[2] = -rows[0], -a[0]
        v[0], v[1] = abs(v[0]), -abs(v[1])
    elif degeneracy == "zero weights":
        # A constant, and a neuron that is not there.
        rows[0], v[-1] = 0.0, 0.0
    return rows, a, v if v @ np.maximum(a, 0) >= 0 else -v
