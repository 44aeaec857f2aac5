"""KKT points that are known in closed form: docs/theory.md, section 5.

Each case returns a network, its data, its multipliers and its Clarke weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import reluflow as rf


class ExactCase(NamedTuple):
    net: rf.TwoLayerNet
    data: rf.Dataset
    multipliers: np.ndarray
    clarke: np.ndarray
    normalized_margin: float
    train_output: bool = True
    bias: bool = False


def from_groups(directions, signs, masses, spread):
    """A network of group directions a_g (with the bias as last entry) and masses c_g.

    Group g becomes neurons with v_j^2 = c_g spread_j and (w_j, b_j) = |v_j| a_g.
    """
    size = np.sqrt(np.outer(masses, spread)).ravel()
    rows = np.repeat(directions, len(spread), axis=0) * size[:, None]
    return rf.TwoLayerNet(rows[:, :-1], rows[:, -1], size * np.repeat(signs, len(spread)))


def orthogonal_points(n, dim, radii, bias, seed=0):
    """Rows x with (x, 1 if bias else 0) mutually orthogonal and of the given norms.

    With a bias, directions q_i orthonormal and rotated so that all have the same last coordinate
    h = 1/sqrt(n): radii must then all be 1/h.
    """
    rng = np.random.default_rng(seed)
    if not bias:
        Q = np.linalg.qr(rng.standard_normal((dim, n)))[0].T
        return radii[:, None] * Q
    # An orthogonal matrix whose last column is constant.
    first = np.column_stack([np.ones(n), rng.standard_normal((n, n - 1))])
    Q = np.linalg.qr(first)[0]
    Q *= np.sign(Q[0, 0])
    padded = np.zeros((n, dim))
    padded[:, : n - 1] = np.sqrt(n) * Q[:, 1:]
    return padded


def orthogonal_blocks(blocks=((0, 1, 2), (3, 4), (5,), (6, 7, 8)), bias=False, spread=(0.7, 0.3)):
    """Case 1. The first half of the blocks is positive."""
    n = sum(len(block) for block in blocks)
    radii = np.full(n, np.sqrt(n)) if bias else np.linspace(1.0, 3.0, n)
    X = orthogonal_points(n, n + 4, radii, bias)
    signs = np.where(np.arange(len(blocks)) < len(blocks) / 2, 1.0, -1.0)
    y, lam, clarke = np.empty(n), np.empty(n), np.zeros((n, len(blocks)))
    directions, masses = [], []
    augmented = np.column_stack([X, np.full(n, float(bias))])
    for g, block in enumerate(blocks):
        rows = list(block)
        mass = np.sqrt((radii[rows] ** -2.0).sum())
        y[rows], lam[rows], clarke[rows, g] = signs[g], 1 / (radii[rows] ** 2 * mass), 1
        directions.append(lam[rows] @ augmented[rows])
        masses.append(mass)
    net = from_groups(np.array(directions), signs, masses, spread)
    return ExactCase(
        net,
        rf.Dataset(X, y),
        lam,
        np.repeat(clarke, len(spread), axis=1),
        1 / (2 * sum(masses)),
        bias=bias,
    )


def equicorrelated(p=4, D=2.0, rho=0.5, spread=(0.5, 0.2, 0.3)):
    """Case 2."""
    n = 2 * p
    K = D * np.eye(n) + rho * np.ones((n, n))
    X = np.linalg.cholesky(K)
    y = np.repeat([1.0, -1.0], p)
    if rho > 0:
        lam = np.sqrt((D + rho * p) / (p * D * (D + 2 * rho * p)))
        kink = rho * p / (D + rho * p)
    else:
        lam, kink = 1 / np.sqrt(p * (D + p * rho)), 0.0
    own = (y[:, None] == [1.0, -1.0]).astype(float)
    clarke = own + kink * (1 - own)
    directions = (lam * (2 * own - 1) * clarke).T @ X
    net = from_groups(
        np.column_stack([directions, np.zeros(2)]), [1.0, -1.0], [p * lam, p * lam], spread
    )
    return ExactCase(
        net,
        rf.Dataset(X, y),
        np.full(n, lam),
        np.repeat(clarke, len(spread), axis=1),
        1 / (4 * p * lam),
    )


def two_points(angle=0.8, radii=(1.5, 0.6), dim=5, spread=(1.0,)):
    """Case 3: opposite labels at an angle."""
    X = np.zeros((2, dim))
    X[0, 0] = radii[0]
    X[1, :2] = radii[1] * np.cos(angle), radii[1] * np.sin(angle)
    sine, kink = (np.sin(angle), np.cos(angle)) if angle < np.pi / 2 else (1.0, 0.0)
    lam = 1 / (np.asarray(radii) * sine)
    clarke = np.array([[1, kink], [kink, 1]])
    directions = (lam * [[1, -kink], [-kink, 1]]) @ X
    net = from_groups(np.column_stack([directions, [0, 0]]), [1.0, -1.0], lam, spread)
    return ExactCase(
        net,
        rf.Dataset(X, [1, -1]),
        lam,
        np.repeat(clarke, len(spread), axis=1),
        sine / (2 * (1 / np.asarray(radii)).sum()),
    )


def xor():
    """Case 4: N = 1/2 sum_i y_i relu(x_i . x), that is a_i = x_i/sqrt 2 and c_i = 1/sqrt 2."""
    X = np.array([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    y = np.array([1.0, 1, -1, -1])
    directions = np.column_stack([X / np.sqrt(2), np.zeros(4)])
    net = from_groups(directions, y, np.full(4, 1 / np.sqrt(2)), [1.0])
    return ExactCase(
        net, rf.Dataset(X, y), np.full(4, 1 / np.sqrt(2)), np.eye(4), 1 / (4 * np.sqrt(2))
    )


def fixed_output_orthogonal(v=(0.5, 1.5, -1.0, -0.25, -0.7), n=6):
    """Case 5: every neuron active on all examples of its label."""
    v, radii = np.asarray(v), np.linspace(0.5, 2.0, n)
    X = orthogonal_points(n, n + 1, radii, bias=False, seed=1)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    own = (y[:, None] == np.sign(v)).astype(float)
    lam = 1 / (radii**2 * (own @ v**2))
    W = v[:, None] * ((own * (lam * y)[:, None]).T @ X)
    norm = (W**2).sum() + (v**2).sum()
    return ExactCase(
        rf.TwoLayerNet(W, np.zeros(len(v)), v),
        rf.Dataset(X, y),
        lam,
        own,
        1 / norm,
        train_output=False,
    )


def fixed_output_two_points(angle=1.1, radii=(1.0, 1.3), v=(0.8, 0.3, -0.9)):
    """Case 6: opposite labels at an angle below 90 degrees, output weights fixed."""
    v, (R1, R2) = np.asarray(v), radii
    X = np.array([[R1, 0, 0], [R2 * np.cos(angle), R2 * np.sin(angle), 0]])
    V1, V2 = (v[v > 0] ** 2).sum(), (v[v < 0] ** 2).sum()
    rho, square = X[0] @ X[1], np.sin(angle) ** 2
    lam = np.array([1 / (V1 * R1**2 * square), 1 / (V2 * R2**2 * square)])
    kinks = np.array([V2 / V1 * rho / R1**2, V1 / V2 * rho / R2**2])  # of s+, s-
    assert (kinks <= 1).all()
    clarke = np.where(v > 0, [[1.0], [kinks[0]]], [[kinks[1]], [1.0]])
    y = np.array([1.0, -1.0])
    W = v[:, None] * ((clarke * (lam * y)[:, None]).T @ X)
    norm = (W**2).sum() + (v**2).sum()
    return ExactCase(
        rf.TwoLayerNet(W, np.zeros(len(v)), v),
        rf.Dataset(X, y),
        lam,
        clarke,
        1 / norm,
        train_output=False,
    )


def clusters_with_orthogonal_noise(h=3, per_cluster=2, noise=0.7, spread=(0.6, 0.4)):
    """Case 8 at its limit: x = mu_q + noise e_i with all mu_q and e_i orthonormal.

    K has 1 + noise^2 on the diagonal, 1 within a cluster and 0 across: inputs divided by sqrt d as
    d grows. a = lam sum_own x, ||a||^2 = lam^2 h p (p + noise^2) = 1, c = 1/(lam (p + noise^2)).
    """
    p, k = per_cluster, 2 * h
    cluster = np.repeat(np.arange(k), p)
    X = np.hstack([np.eye(k)[cluster], noise * np.eye(k * p)])
    y = np.where(cluster % 2 == 0, 1.0, -1.0)
    lam = 1 / np.sqrt(h * p * (p + noise**2))
    own = (y[:, None] == [1.0, -1.0]).astype(float)
    directions = np.column_stack([lam * own.T @ X, np.zeros(2)])
    net = from_groups(directions, [1.0, -1.0], np.full(2, 1 / (lam * (p + noise**2))), spread)
    return ExactCase(
        net,
        rf.Dataset(X, y, cluster),
        np.full(k * p, lam),
        np.repeat(own, len(spread), axis=1),
        1 / (4 * np.sqrt(h * p / (p + noise**2))),
    )


def closed_form_flow(p=3, R=2.0, start=0.1):
    """Case 7: the direction of this flow never changes; case 1 with one block a label.

    lam_i = 1/(R^2 rho) with rho = sqrt(p)/R, c = rho, gamma = 1/(4 rho). The network is the start.
    """
    y = np.repeat([1.0, -1.0], p)
    own = np.stack([y > 0, y < 0]).astype(float)
    net = rf.TwoLayerNet(start * own / np.sqrt(p), [0, 0], [start, -start])
    lam = np.full(2 * p, 1 / (R * np.sqrt(p)))
    return ExactCase(net, rf.Dataset(R * np.eye(2 * p), y), lam, own.T, R / (4 * np.sqrt(p)))


CASES = {
    "orthogonal, blocks": orthogonal_blocks(),
    "orthogonal, blocks, bias": orthogonal_blocks(bias=True),
    "orthogonal, one block a label": orthogonal_blocks(((0, 1, 2), (3, 4, 5, 6))),
    "equicorrelated, positive": equicorrelated(),
    "equicorrelated, negative": equicorrelated(rho=-0.15),
    "two points, acute": two_points(),
    "two points, obtuse": two_points(angle=2.0),
    "two points, wide net": two_points(angle=0.3, spread=np.full(7, 1 / 7)),
    "XOR": xor(),
    "clusters with orthogonal noise": clusters_with_orthogonal_noise(),
    "fixed output, orthogonal": fixed_output_orthogonal(),
    "fixed output, two points": fixed_output_two_points(),
}
