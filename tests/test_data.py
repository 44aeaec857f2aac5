"""Data sets, cluster models, their assumption, and files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats

from reluflow.data import (
    ClusterModel,
    Dataset,
    LowRankNoise,
    load_dataset,
    load_digits,
    save_dataset,
)

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
Y = np.array([1.0, -1.0, 1.0, -1.0])
COVARIANCES = np.array(
    [
        [[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]],
        # Rank 1: the outer product of (1, 2, -1).
        [[1.0, 2.0, -1.0], [2.0, 4.0, -2.0], [-1.0, -2.0, 1.0]],
    ]
)
NOISES = {
    "scalar": 0.7,
    "per cluster": np.array([0.5, 1.5]),
    "diagonal": np.array([[1.0, 0.0, 4.0], [0.25, 2.0, 1.0]]),
    "full": COVARIANCES,
    "none": 0.0,
    "low rank": LowRankNoise([0.5, 1.0], [[[1.0], [2.0]], [[0.0], [1.5]]]),
    "shared low rank": LowRankNoise(0.3, [[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]]),
}


def covariance(noise, q, dim):
    """Sigma_q of a noise in any of its forms."""
    if isinstance(noise, LowRankNoise):
        root = np.zeros((dim, noise.factors.shape[2]))
        root[: noise.factors.shape[1]] = noise.factors[q % len(noise.factors)]
        return noise.scale[q % len(noise.scale)] ** 2 * np.eye(dim) + root @ root.T
    noise = np.asarray(noise)
    if noise.ndim <= 1:
        return np.broadcast_to(noise, 2)[q] ** 2 * np.eye(dim)
    return np.diag(noise[q]) if noise.ndim == 2 else noise[q]


# --- Dataset -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_X",
    [
        X.tolist(),
        X.astype(np.int32),
        X.astype(np.uint8),
        X.astype(np.float32),
        X.astype(np.float16),
        np.asfortranarray(X),
        np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
        X[::-1][::-1],
        pd.DataFrame(X),
    ],
    ids=["list", "int32", "uint8", "float32", "float16", "fortran", "strided", "negative", "frame"],
)
def test_dataset_converts(given_X):
    data = Dataset(given_X, Y.astype(int), cluster=[0.0, 1.0, 0.0, 1.0])
    for array in (data.X, data.y):
        assert array.dtype == np.float64
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert data.cluster.dtype == np.int64
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, Y)
    np.testing.assert_array_equal(data.cluster, [0, 1, 0, 1])


def test_dataset_is_detached_from_its_arguments():
    examples, labels = X.copy(), Y.copy()
    data = Dataset(examples, labels)
    examples[:] = 0
    labels[:] = 0
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, Y)


def test_dataset_sizes_and_text():
    data = Dataset(X, Y, [3, 8, 3, 8])
    assert (data.n, data.dim, len(data)) == (4, 2, 4)
    assert repr(data) == "Dataset(n=4, dim=2, positive=2, negative=2, clusters=2)"
    assert repr(Dataset(X, Y)) == "Dataset(n=4, dim=2, positive=2, negative=2)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.X = X


def test_dataset_survives_pickling():
    data = pickle.loads(pickle.dumps(Dataset(X, Y, [0, 1, 0, 1])))
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.cluster, [0, 1, 0, 1])


def with_entry(value):
    changed = X.copy()
    changed[2, 1] = value
    return changed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((with_entry(np.nan), Y), ValueError, r"X must be finite; 1 of 8 .* index \(2, 1\)"),
        ((with_entry(-np.inf), Y), ValueError, r"X must be finite"),
        ((X, [0, 1, 0, 1]), ValueError, r"y must be -1 or \+1; .* y = 2 \* y - 1"),
        ((X, [1, 2, 1, 2]), ValueError, r"y must be -1 or \+1; found 1, 2"),
        ((X, [1, 1, 1, 1]), ValueError, r"y must hold both classes; all 4 labels are \+1"),
        ((X, [1, -1, 1]), ValueError, r"y must have one label an example: 4; it has 3"),
        ((X, Y[:, None]), ValueError, r"y must have 1 dimension"),
        ((X[0], Y), ValueError, r"X must have 2 dimension"),
        ((np.empty((0, 2)), []), ValueError, r"X must hold examples.*\(0, 2\)"),
        ((np.empty((4, 0)), Y), ValueError, r"X must hold examples.*\(4, 0\)"),
        (([[1, 2], [3]], [1, -1]), ValueError, r"X is not a rectangular array"),
        ((X.astype(complex), Y), TypeError, r"X must be real numbers; its dtype is complex128"),
        ((X.astype(str), Y), TypeError, r"X must be real numbers"),
        ((X, Y.astype(str)), TypeError, r"y must be real numbers"),
        (([[2**53 + 1], [2]], [1, -1]), ValueError, r"X holds integers beyond 2\*\*53"),
        ((X, Y, [0, 1, 0]), ValueError, r"cluster must have one number an example: 4; it has 3"),
        ((X, Y, [0, 1, 0, 0.5]), ValueError, r"cluster must be integers; entry 3 is 0.5"),
        ((X, Y, [0, 1, 7, 7]), ValueError, r"cluster 7 has examples of both labels"),
        ((X[[0, 1, 2, 0]], Y), ValueError, r"opposite labels: examples 0 \(\+1\) and 3 \(-1\)"),
        (([[0.0], [-0.0]], [1, -1]), ValueError, r"opposite labels: examples 0 .* and 1"),
    ],
)
def test_dataset_refuses(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        Dataset(*arguments)
    assert "\n" not in str(caught.value)


def test_identical_points_of_one_label_are_fine():
    assert Dataset(X[[0, 1, 0, 1]], Y).n == 4


@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(2, 12), st.integers(1, 3)), elements=st.integers(0, 2)
    ),
    st.integers(0, 2**12 - 1),
)
def test_conflicts_are_found_exactly_where_they_are(points, bits):
    """Against the comparison of all pairs; small integers make hash collisions likely."""
    labels = np.array([1.0 if bits >> i & 1 else -1.0 for i in range(len(points))])
    labels[0], labels[-1] = 1.0, -1.0
    same = (points[:, None, :] == points[None, :, :]).all(axis=2)
    if (same & (labels[:, None] != labels[None, :])).any():
        with pytest.raises(ValueError, match="opposite labels"):
            Dataset(points, labels)
    else:
        assert Dataset(points, labels).n == len(points)


def test_estimated_clusters():
    """Two clusters in the plane, by hand.

    Cluster 4: (0, 0), (2, 0), (1, 3): mean (1, 1); squared deviations (1+1+0) + (1+1+4) = 8 over
    (3 - 1) * 2. Cluster 9: (5, 5), (7, 5): mean (6, 5); 2 over (2 - 1) * 2.
    """
    points = [[0, 0], [5, 5], [2, 0], [7, 5], [1, 3]]
    model = Dataset(points, [-1, 1, -1, 1, -1], [4, 9, 4, 9, 4]).cluster_model()
    np.testing.assert_allclose(model.means, [[1, 1], [6, 5]], rtol=1e-15)
    np.testing.assert_allclose(model.noise, np.sqrt([2, 1]), rtol=1e-15)
    np.testing.assert_array_equal(model.labels, [-1, 1])


def test_estimated_clusters_need_clusters_of_two():
    with pytest.raises(ValueError, match="cluster is not known"):
        Dataset(X, Y).cluster_model()
    with pytest.raises(ValueError, match="cluster 1 has one example"):
        Dataset(X, Y, [0, 1, 0, 2]).cluster_model()


def test_estimated_clusters_approach_the_model():
    """Standard errors with n_q about 5000: sigma / sqrt(n_q) and sigma / sqrt(2 n_q d)."""
    model = ClusterModel.random(4, 20, [0.5, 1, 2, 3], seed=0)
    estimate = model.sample(20_000, seed=1).cluster_model()
    np.testing.assert_allclose(estimate.means, model.means, atol=5 * 3 / math.sqrt(5000))
    np.testing.assert_allclose(estimate.noise, model.noise, rtol=5 / math.sqrt(2 * 5000 * 20))
    np.testing.assert_array_equal(estimate.labels, model.labels)


# --- ClusterModel: means -------------------------------------------------------------------------


def constructed(dim):
    n_clusters = 6
    correlated = dim * (0.7 * np.eye(n_clusters) + 0.3)
    return {
        "orthogonal": ClusterModel.orthogonal(n_clusters, dim, 0.3),
        "random": ClusterModel.random(n_clusters, dim, 0.3, seed=5),
        "equicorrelated": ClusterModel.equicorrelated(n_clusters, dim, 0.3, correlation=-0.1),
        "from_gram": ClusterModel.from_gram(correlated, [1, 1, -1, -1, 1, -1], 0.3, dim),
    }


@pytest.mark.parametrize("name", ["orthogonal", "random", "equicorrelated", "from_gram"])
@pytest.mark.parametrize("dim", [6, 50, 10**12, 10**15])
def test_means_have_norm_sqrt_dim(name, dim):
    model = constructed(dim)[name]
    assert (model.dim, model.ambient_dim, model.n_clusters) == (dim, dim, 6)
    assert model.coordinates.shape[0] == 6
    assert model.coordinates.shape[1] <= 6
    np.testing.assert_allclose(model.gram.diagonal(), dim, rtol=1e-14)
    np.testing.assert_allclose(
        model.coordinates @ model.coordinates.T, model.gram, atol=1e-14 * dim
    )
    if dim <= 50:
        rank = model.coordinates.shape[1]
        np.testing.assert_array_equal(model.means[:, :rank], model.coordinates)
        assert not model.means[:, rank:].any()


@pytest.mark.parametrize("dim", [10**12, 10**15])
def test_construction_costs_nothing_in_the_dimension(dim):
    tracemalloc.start()
    models = constructed(dim)
    reports = [model.assumption(1000) for model in models.values()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert len(reports) == 4
    for model in models.values():
        with pytest.raises(MemoryError, match=rf"means, 6 x {dim} needs"):
            _ = model.means
        with pytest.raises(MemoryError, match=r"a sample of n=10 examples"):
            model.sample(10, seed=0)


def test_orthogonal_and_equicorrelated_gram():
    np.testing.assert_allclose(ClusterModel.orthogonal(5, 40, 1.0).gram, 40 * np.eye(5), rtol=1e-15)
    for correlation in (-0.24, 0.0, 0.4, 0.99):
        model = ClusterModel.equicorrelated(5, 40, 1.0, correlation=correlation)
        expected = 40 * ((1 - correlation) * np.eye(5) + correlation)
        np.testing.assert_allclose(model.gram, expected, atol=1e-13)


def test_labels_alternate_unless_given():
    np.testing.assert_array_equal(ClusterModel.orthogonal(5, 9, 1).labels, [1, -1, 1, -1, 1])
    model = ClusterModel.random(3, 9, 1, labels=[-1, -1, 1], seed=0)
    np.testing.assert_array_equal(model.labels, [-1, -1, 1])


def test_random_means_in_space_have_uniform_inner_products():
    """The inner product of a fixed and a uniform unit vector in R^3 is uniform (Archimedes)."""
    rng = np.random.default_rng(0)
    for n_clusters in (2, 3, 5):  # through Bartlett's factor, and 5 > 3 without it
        cosines = [
            ClusterModel.random(n_clusters, 3, 1.0, seed=rng).gram[-2:, -1][0] / 3
            for _ in range(2000)
        ]
        assert stats.kstest(cosines, stats.uniform(-1, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize("dim", [5, 40, 10**12])
def test_random_means_have_the_moments_of_uniform_directions(dim):
    """E <mu_i, mu_j>^2 = d; Var(<mu_i, mu_j>^2) <= 2 d^2; 30 seeds with 435 pairs each.

    The standard error of the mean is below sqrt(2 / 13050) = 0.0124 relative; 4 of them.
    """
    pairs = np.triu_indices(30, 1)
    inner = np.concatenate(
        [ClusterModel.random(30, dim, 1.0, seed=seed).gram[pairs] for seed in range(30)]
    )
    assert np.mean(inner**2) / dim == pytest.approx(1, abs=0.05)
    # E <mu_i, mu_j> = 0, with standard deviation sqrt(d / 13050).
    assert abs(inner.mean()) < 4 * math.sqrt(dim / 13050)


def test_random_means_are_oblique_to_the_axes_of_anisotropic_noise():
    variances = np.tile(np.linspace(0, 1, 30), (2, 1))
    model = ClusterModel.random(2, 30, variances, seed=0)
    assert (model.means != 0).all()
    np.testing.assert_allclose(np.linalg.norm(model.means, axis=1), math.sqrt(30))
    assert model.coordinates.shape == (2, 2)


def test_random_means_are_oblique_to_the_directions_of_low_rank_noise():
    noise = LowRankNoise(1.0, np.ones((2, 1)))
    cosines = []
    for seed in range(400):
        means = ClusterModel.random(2, 10**12, noise, seed=seed)._leading
        assert means.shape == (2, 4)
        np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1e6)
        cosines.extend(means[:, 0])
    # A coordinate of a uniform direction, times sqrt(d), is N(0, 1) as d grows.
    assert stats.kstest(cosines, "norm").pvalue > 0.001


def test_constructors_are_deterministic():
    first, second = (ClusterModel.random(4, 50, 1.0, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.gram, second.gram)
    assert (first.gram != ClusterModel.random(4, 50, 1.0, seed=8).gram).any()


def test_from_gram_of_low_rank():
    """Means +-a, +-b with a and b orthogonal span a plane."""
    gram = 2.0 * np.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]])
    model = ClusterModel.from_gram(gram, [1, -1, 1, -1], 0.1, 2)
    assert model.coordinates.shape == (4, 2)
    np.testing.assert_allclose(model.gram, gram, atol=1e-14)


def test_coordinates_of_given_means():
    means = np.random.default_rng(0).standard_normal((3, 20))
    model = ClusterModel(means, [1, -1, 1], 0.1)
    assert model.coordinates.shape == (3, 3)
    np.testing.assert_allclose(model.gram, means @ means.T, rtol=1e-14)
    np.testing.assert_allclose(model.coordinates @ model.coordinates.T, model.gram, atol=1e-13)
    np.testing.assert_array_equal(model.means, means)


def test_model_arrays_are_frozen():
    noise = np.array([1.0, 2.0])
    model = ClusterModel(X[:2], [1, -1], noise)
    noise[0] = 5
    assert model.noise[0] == 1
    for array in (model.means, model.labels, model.noise, model.gram, model.coordinates):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.dim = 3


def test_ambient_dimension():
    model = ClusterModel(10.0 * np.eye(2, 3), [1, -1], 0.1, ambient_dim=100)
    assert (model.dim, model.ambient_dim) == (3, 100)
    assert model.assumption(50).dim == 100
    assert model.assumption(50).mean_norms.holds
    assert "dim=3, ambient_dim=100" in repr(model)
    with pytest.raises(ValueError, match="ambient_dim must be at least 3; got 2"):
        ClusterModel(np.eye(2, 3), [1, -1], 0.1, ambient_dim=2)


def test_model_text_and_pickling():
    model = ClusterModel.orthogonal(3, 10**12, 0.5)
    assert repr(model) == (
        "ClusterModel(n_clusters=3, dim=1000000000000, noise=0.5, positive=2, negative=1)"
    )
    assert repr(pickle.loads(pickle.dumps(model))) == repr(model)
    assert "noise=array(2, 3, 3)" in repr(ClusterModel(np.eye(2, 3), [1, -1], COVARIANCES))


def build(**changed):
    arguments = {"means": np.eye(2, 3), "labels": [1, -1], "noise": 1.0, **changed}
    return ClusterModel(**arguments)


ORTHOGONAL = 4.0 * np.eye(3)
INDEFINITE = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # eigenvalues -1, 1, 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: build(means=np.eye(2)[0]), ValueError, "means must have 2 dimension"),
        (lambda: build(means=np.eye(2, 3) * np.nan), ValueError, "means must be finite"),
        (lambda: build(means=np.empty((0, 3))), ValueError, "means must hold one mean a row"),
        (lambda: build(labels=[1, -1, 1]), ValueError, "one label a cluster: 2; it has 3"),
        (lambda: build(labels=[1, 0]), ValueError, r"labels must be -1 or \+1"),
        (lambda: build(labels=[1, 1]), ValueError, "labels must hold both classes"),
        (lambda: build(noise=-1.0), ValueError, "noise must be at least 0; got -1"),
        (lambda: build(noise=np.inf), ValueError, "noise must be finite"),
        (lambda: build(noise=None), TypeError, "noise must be real numbers"),
        (lambda: build(noise=[[1], [1, 2]]), ValueError, "noise is not a rectangular array"),
        (lambda: build(noise=[1, -2]), ValueError, r"at index \(1,\) it is -2"),
        (lambda: build(noise=[[1, 1, 1], [1, 1, -3]]), ValueError, r"at index \(1, 2\) it is -3"),
        (
            lambda: build(noise=[1, 2, 3]),
            ValueError,
            r"noise must be a number or have shape \(2,\)",
        ),
        (lambda: build(noise=np.ones((2, 2))), ValueError, r"\(2, 3\) .*its shape is \(2, 2\)"),
        (lambda: build(noise=np.ones((1, 3, 3))), ValueError, r"its shape is \(1, 3, 3\)"),
        (lambda: build(noise=np.ones((1, 1, 1, 1))), ValueError, r"its shape is \(1, 1, 1, 1\)"),
        (
            lambda: build(noise=[np.eye(3), INDEFINITE]),
            ValueError,
            r"noise\[1\] must be positive semidefinite; its smallest eigenvalue is -1$",
        ),
        (
            lambda: build(noise=[np.tril(np.ones((3, 3))), np.eye(3)]),
            ValueError,
            r"noise\[0\] must be symmetric; it differs from its transpose by 1$",
        ),
        (
            lambda: build(noise=LowRankNoise(1.0, np.ones((4, 1)))),
            ValueError,
            "noise.factors have 4 rows; the clusters' dim is 3",
        ),
        (
            lambda: build(noise=LowRankNoise([1, 2, 3], np.ones((2, 1)))),
            ValueError,
            "noise.scale must be one for all clusters or one for each of 2; there are 3",
        ),
        (
            lambda: build(noise=LowRankNoise(1, np.ones((3, 2, 1)))),
            ValueError,
            "noise.factors must be one for all clusters or one for each of 2; there are 3",
        ),
        (lambda: LowRankNoise(-1, np.ones((2, 1))), ValueError, "scale must be .* not negative"),
        (lambda: LowRankNoise(1, np.ones((2, 0))), ValueError, "factors must not be empty"),
        (lambda: LowRankNoise(1, [1.0, 2.0]), ValueError, "factors must have 2 dimension"),
        (lambda: LowRankNoise(np.nan, np.ones((2, 1))), ValueError, "scale must be finite"),
        (lambda: LowRankNoise("a", np.ones((2, 1))), TypeError, "scale must be real numbers"),
        (
            lambda: ClusterModel.orthogonal(5, 4, 1.0),
            ValueError,
            "n_clusters=5 orthogonal means need as many dimensions; dim=4",
        ),
        (lambda: ClusterModel.orthogonal(1, 4, 1.0), ValueError, "n_clusters must be at least 2"),
        (lambda: ClusterModel.orthogonal(2.5, 4, 1.0), ValueError, "n_clusters must be an integer"),
        (lambda: ClusterModel.orthogonal(2, 0, 1.0), ValueError, "dim must be at least 1"),
        (lambda: ClusterModel.orthogonal(2, math.inf, 1.0), ValueError, "dim must be an integer"),
        (lambda: ClusterModel.orthogonal(2, 4, -0.1), ValueError, "noise must be at least 0"),
        (
            lambda: ClusterModel.equicorrelated(3, 9, 1.0, correlation=1.0),
            ValueError,
            r"correlation must lie in \(-0.5, 1\) for 3 clusters; got 1",
        ),
        (
            lambda: ClusterModel.equicorrelated(3, 9, 1.0, correlation=-0.5),
            ValueError,
            "correlation must lie in",
        ),
        (
            lambda: ClusterModel.equicorrelated(3, 2, 1.0, correlation=0.1),
            ValueError,
            "need as many dimensions",
        ),
        (
            lambda: ClusterModel.from_gram(4 * INDEFINITE, [1, -1, 1], 1.0, 4),
            ValueError,
            "gram must be positive semidefinite; its smallest eigenvalue is -4$",
        ),
        (
            lambda: ClusterModel.from_gram(ORTHOGONAL, [1, -1, 1], 1.0, 5),
            ValueError,
            "gram must have dim=5 on its diagonal; it differs by 0.2",
        ),
        (
            lambda: ClusterModel.from_gram(2 * np.eye(3), [1, -1, 1], 1.0, 2),
            ValueError,
            "gram has rank 3, more than dim=2",
        ),
        (
            lambda: ClusterModel.from_gram(ORTHOGONAL[:2], [1, -1], 1.0, 4),
            ValueError,
            "gram must be a square matrix",
        ),
        (lambda: build().sample(0), ValueError, "n must be at least 1"),
        (lambda: build().sample(1, seed=0), ValueError, "all n=1 examples fell on clusters of lab"),
        (lambda: build().assumption(0), ValueError, "n must be at least 1"),
        (lambda: build().noise_factor(np.eye(2), 0), ValueError, "W must have dim=3 columns"),
        (lambda: build().noise_factor(np.eye(3), 2), ValueError, "q must be below n_clusters=2"),
        (lambda: build().noise_factor(np.eye(3), -1), ValueError, "q must be at least 0"),
    ],
)
def test_model_refuses(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- ClusterModel: noise -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISES)
def test_noise_scale(name):
    model = ClusterModel(np.eye(2, 3), [1, -1], NOISES[name])
    largest = [np.linalg.norm(covariance(NOISES[name], q, 3), 2) for q in range(2)]
    np.testing.assert_allclose(model.noise_scale, np.sqrt(largest), rtol=1e-14)
    assert model.isotropic == (name in ("scalar", "per cluster", "none"))


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_noise_factor(name, m):
    W = np.random.default_rng(m).standard_normal((m, 3))
    model = ClusterModel(np.eye(2, 3), [1, -1], NOISES[name])
    for q in range(2):
        F = model.noise_factor(np.asfortranarray(W), q)
        assert F.flags.c_contiguous
        assert F.shape[0] == m
        assert 1 <= F.shape[1] <= min(m, 3)
        expected = W @ covariance(NOISES[name], q, 3) @ W.T
        np.testing.assert_allclose(F @ F.T, expected, atol=1e-13 * (1 + np.abs(expected).max()))


@given(hnp.arrays(np.float64, (5, 4), elements=st.floats(-10, 10)), st.data())
@settings(max_examples=50)
def test_noise_factor_of_any_weights(W, drawn):
    root = drawn.draw(hnp.arrays(np.float64, (4, 4), elements=st.floats(-3, 3)))
    model = ClusterModel(np.eye(2, 4), [1, -1], np.stack([root @ root.T, np.eye(4)]))
    F = model.noise_factor(W, 0)
    expected = W @ root @ root.T @ W.T
    scale = 1 + np.linalg.norm(W) ** 2 * np.linalg.norm(root) ** 2
    np.testing.assert_allclose(F @ F.T, expected, atol=1e-13 * scale)


def test_one_number_a_cluster_is_a_standard_deviation_also_when_square():
    model = ClusterModel(np.eye(3), [1, -1, 1], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(model.noise_scale, [1, 2, 3])
    np.testing.assert_allclose(np.abs(model.noise_factor(np.eye(3), 2)), 3 * np.eye(3))


@pytest.mark.parametrize("name", NOISES)
def test_samples_have_the_mean_and_covariance_of_their_cluster(name):
    """n_q is about 20,000; an entry of the sample covariance has a standard deviation of at most
    sqrt(2 / n_q) times the largest variance, here at most 7; of the mean sqrt(6 / n_q)."""
    means = np.array([[1.0, -2.0, 3.0], [0.0, 5.0, -1.0]])
    data = ClusterModel(means, [1, -1], NOISES[name]).sample(40_000, seed=3)
    for q in range(2):
        rows = data.X[data.cluster == q]
        expected = covariance(NOISES[name], q, 3)
        spread = max(expected.max(), 1e-15)
        assert len(rows) == pytest.approx(20_000, abs=5 * math.sqrt(40_000 / 4))
        np.testing.assert_allclose(rows.mean(axis=0), means[q], atol=5 * math.sqrt(spread / 2e4))
        np.testing.assert_allclose(np.cov(rows.T), expected, atol=5 * spread * math.sqrt(2 / 2e4))


def test_samples_of_constructed_models():
    """||x - mu||^2 / sigma^2 is chi-square with d degrees of freedom; x.mu is N(d, sigma^2 d)."""
    model = ClusterModel.random(3, 500, 0.5, seed=0)
    data = model.sample(3000, seed=1)
    offsets = data.X - model.means[data.cluster]
    squared = (offsets**2).sum(axis=1) / 0.25
    assert stats.kstest(squared, stats.chi2(500).cdf).pvalue > 0.01
    along = (offsets * model.means[data.cluster]).sum(axis=1)
    assert stats.kstest(along, stats.norm(0, 0.5 * math.sqrt(500)).cdf).pvalue > 0.01
    np.testing.assert_array_equal(data.y, model.labels[data.cluster])


def test_clusters_are_uniform():
    cluster = ClusterModel.orthogonal(8, 8, 1.0).sample(8000, seed=0).cluster
    assert stats.chisquare(np.bincount(cluster, minlength=8)).pvalue > 0.01


def test_samples_are_deterministic():
    model = ClusterModel.orthogonal(4, 30, 0.2)
    first, second = model.sample(50, seed=11), model.sample(50, seed=11)
    np.testing.assert_array_equal(first.X, second.X)
    np.testing.assert_array_equal(first.cluster, second.cluster)
    assert (first.X != model.sample(50, seed=12).X).any()


def test_samples_do_not_depend_on_how_rows_are_blocked(monkeypatch):
    model = ClusterModel.random(4, 30, np.ones((4, 30)), seed=0)
    whole = model.sample(50, seed=11)
    monkeypatch.setattr("reluflow._conflicts._BLOCK_SIZE", 7 * 30)
    np.testing.assert_array_equal(whole.X, model.sample(50, seed=11).X)


# --- Assumption 2.2 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "n_clusters", "expected"),
    [
        (1.0, 2, "1.42e6"),
        (1.0, 4, "6.6e6"),
        (1.0, 8, "3.1e7"),
        (1.0, 10, "5.15e7"),
        (1.0, 16, "1.5e8"),
        (1.0, 32, "6.8e8"),
        (0.1, 2, "5.2e3"),
        (0.1, 10, "2.5e5"),
        (0.1, 32, "3.8e6"),
    ],
)
def test_smallest_dimension_of_orthogonal_means(noise, n_clusters, expected):
    """Values to the digits given, and an independent root of the inequality."""
    smallest = ClusterModel.orthogonal(n_clusters, 1000, noise).assumption(100).smallest_dim
    digits = len(expected.partition("e")[0].replace(".", ""))
    assert float(f"{smallest:.{digits - 1}e}") == float(expected)

    def slack(d):
        term = 4 * noise * math.sqrt(d) * math.log(d)
        return (d - term + 1) / 10 - n_clusters * (term + 1)

    assert smallest == math.ceil(optimize.brentq(slack, 100, 1e12, xtol=1e-6))
    # n is large enough for the first inequality in any dimension here.
    at, below = (
        ClusterModel.orthogonal(n_clusters, dim, noise).assumption(10**6)
        for dim in (smallest, smallest - 1)
    )
    assert at.holds
    assert at.separation.holds
    assert at.smallest_dim == smallest
    assert not below.separation.holds
    assert not below.holds


def test_terms_of_the_assumption():
    """d = 100, k = 4, sigma = 0.01, cosine 0.01, two against two labels, by hand.

    4 sigma sqrt(d) ln d = 0.4 ln 100 = 1.8421; the left side is 4 (1 + 1.8421 + 1) = 15.368, the
    right side (100 - 1.8421 + 1) / 10 = 9.9158; 4 ln(100)^2 = 84.83.
    """
    model = ClusterModel.equicorrelated(4, 100, 0.01, correlation=0.01)
    report = model.assumption(84)
    term = 0.4 * math.log(100)
    assert report.noise_term == pytest.approx(term)
    assert report.max_inner_product == pytest.approx(1.0)
    assert report.separation.left == pytest.approx(4 * (2 + term))
    assert report.separation.right == pytest.approx((101 - term) / 10)
    assert not report.separation.holds
    assert report.sample_size.left == 84
    assert report.sample_size.right == pytest.approx(4 * math.log(100) ** 2)
    assert not report.sample_size.holds
    assert report.smallest_n == 85
    assert model.assumption(85).sample_size.holds
    assert report.label_balance == 0.5
    assert not report.holds


def test_label_balance_and_norms():
    model = ClusterModel.orthogonal(5, 100, 0.1, labels=[1, -1, -1, -1, -1])
    assert model.assumption(10).label_balance == 0.2
    assert model.assumption(10).mean_norms.holds
    shorter = ClusterModel(9 * np.eye(2, 100), [1, -1], 0.0).assumption(10**6)
    assert shorter.mean_norms.left == pytest.approx(0.19)
    assert not shorter.mean_norms.holds
    assert shorter.separation.holds
    assert not shorter.holds


@pytest.mark.parametrize("correlation", [0.0, 1e-4, -2e-3])
def test_largest_noise_and_clusters(correlation):
    def report(n_clusters, noise):
        model = ClusterModel.equicorrelated(n_clusters, 10**9, noise, correlation=correlation)
        return model.assumption(10**5)

    largest = report(10, 1.0).largest_noise
    assert report(10, largest).separation.holds
    assert not report(10, largest * (1 + 1e-9)).separation.holds
    most = report(10, 1.0).largest_n_clusters
    assert report(most, 1.0).holds
    assert not report(most + 1, 1.0).holds


def test_sample_size_bounds_the_number_of_clusters():
    # ln(1e12)^2 = 763.47: 5,000 examples do for 6 clusters, and not for 7.
    assert ClusterModel.orthogonal(3, 10**12, 0.1).assumption(5000).largest_n_clusters == 6


def test_where_nothing_would_hold():
    """k cos = 0.1 is reached at cos = 0.01 for k = 10: no dimension and no noise help there."""
    report = ClusterModel.equicorrelated(10, 10**6, 0.1, correlation=0.01).assumption(10**6)
    assert report.smallest_dim is None
    assert report.smallest_n_at_smallest_dim is None
    assert math.isnan(report.largest_noise)
    assert 0 < report.largest_n_clusters < 10
    tiny = ClusterModel.orthogonal(2, 2, 1.0).assumption(10)
    assert tiny.largest_n_clusters == 0
    text = str(report)
    assert "no d" in text
    assert "no sigma" in text
    assert json.dumps(report.to_dict())


def test_smallest_dimension_without_noise():
    """sigma = 0, orthogonal: k <= (d + 1) / 10, so d = 10 k - 1 exactly."""
    report = ClusterModel.orthogonal(7, 69, 0.0).assumption(10**4)
    assert report.smallest_dim == 69
    assert report.largest_n_clusters == 7
    assert report.holds


def test_largest_covariance_counts():
    variances = np.ones((2, 50))
    variances[1, 3] = 9.0
    assert ClusterModel(np.eye(2, 50), [1, -1], variances).assumption(10).noise == 3


def test_assumption_prints_an_aligned_table():
    text = str(ClusterModel.orthogonal(10, 2000, 0.2).assumption(200))
    assert "Frei et al. 2023, Assumption 2.2, constants as recalled: does not hold" in text
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("term"))
    rows = [line for line in lines if line.rstrip().endswith((" yes", " no"))]
    assert len(rows) == 3
    for row in rows:
        assert len(row) == len(header)
        assert row.split()[-1] in ("yes", "no")
    # The three operators stand in one column.
    assert len({max(row.rfind("<="), row.rfind(">=")) for row in rows}) == 1


def test_assumption_as_json():
    values = ClusterModel.orthogonal(10, 2000, 0.2).assumption(200).to_dict()
    assert json.loads(json.dumps(values))["separation"]["holds"] is False
    assert values["dim"] == 2000


# --- files ---------------------------------------------------------------------------------------

AWKWARD = np.array(
    [[0.1 + 0.2, 5e-324, -0.0], [1.7976931348623157e308, 1 / 3, 1e22], [-1e-300, 2**53, np.pi]]
)


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet", ".NPZ"])
@pytest.mark.parametrize("cluster", [None, [4, -2, 4]])
def test_files_give_back_exactly_what_was_saved(tmp_path, suffix, cluster):
    data = Dataset(AWKWARD, [1, -1, 1], cluster)
    path = tmp_path / f"data{suffix}"
    save_dataset(data, str(path))
    loaded = load_dataset(path)
    assert loaded.X.tobytes() == data.X.tobytes()
    np.testing.assert_array_equal(loaded.y, data.y)
    if cluster is None:
        assert loaded.cluster is None
    else:
        np.testing.assert_array_equal(loaded.cluster, cluster)


def test_many_columns_keep_their_order(tmp_path):
    """x10 stands after x9, not after x1."""
    data = ClusterModel.orthogonal(2, 12, 0.1).sample(10, seed=0)
    save_dataset(data, tmp_path / "data.csv")
    frame = pd.read_csv(tmp_path / "data.csv")
    frame[frame.columns[::-1]].to_csv(tmp_path / "reversed.csv", index=False)
    np.testing.assert_array_equal(load_dataset(tmp_path / "reversed.csv").X, data.X)


def test_a_hand_written_csv(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("x1, y, x0\n1, -1, 2.5\n3, +1, 4e-1\n", encoding="utf-8")
    data = load_dataset(path)
    np.testing.assert_array_equal(data.X, [[2.5, 1], [0.4, 3]])
    np.testing.assert_array_equal(data.y, [-1, 1])


CSV_ERRORS = {
    "unknown column": ("x0,y,z,w\n1,1,2,3\n", ": unknown column z, w; expected x0, x1, ..., y and"),
    "index column": (",x0,y\n0,1,1\n", ": unknown column "),
    "no header": ("1.5,2.5\n3,4\n", ": unknown column 1.5, 2.5"),
    "other separator": ("x0;y\n3;1\n", ": unknown column x0;y"),
    "no y": ("x0,x1\n1,2\n", ": column y is missing"),
    "no x": ("y\n1\n-1\n", ": column x0 is missing"),
    "nothing": ("", ": column y is missing"),
    "gap": ("x0,x2,y\n1,2,1\n", ": column x1 is missing; expected x0, x1, ... without gap"),
    "no x0": ("x1,x2,y\n1,2,1\n", ": column x0 is missing"),
    "leading zero": ("x00,y\n1,1\n", ": unknown column x00"),
    "repeated": ("x0,x0,y\n1,2,1\n", ": there is more than one column x0"),
    "text": ("x0,y\n1,1\n2,-1\ncat,1\n", ", line 4: column x0 must be numbers; it is 'cat'"),
    "text label": ("x0,y\n1,pos\n", ", line 2: column y must be numbers; it is 'pos'"),
    "date": ("x0,y\n2020-01-01,1\n", ", line 2: column x0 must be numbers"),
    "empty cell": ("x0,x1,y\n1,2,1\n1,,-1\n", ", line 3: column x1 must be numbers; it is ''"),
    "short row": ("x0,x1,y\n1,2,1\n1,3\n", ", line 3: 2 cells under 3 column names"),
    "long row": ("x0,y\n1,2,1\n2,3,-1\n", ", line 2: 3 cells under 2 column names"),
    "nan": ("x0,y\n1,1\nnan,-1\n", ": X must be finite"),
    "infinite": ("x0,y\n1,1\ninf,-1\n", ": X must be finite"),
    "labels 0/1": ("x0,y\n1,1\n2,0\n", "y = 2 * y - 1"),
    "one class": ("x0,y\n1,1\n2,1\n", ": y must hold both classes"),
    "no rows": ("x0,y\n", ": X must hold examples"),
    "conflict": ("x0,y\n1,1\n1,-1\n", "opposite labels: examples 0 (+1) and 1 (-1)"),
    "cluster": ("x0,y,cluster\n1,1,0.5\n2,-1,1\n", ": cluster must be integers"),
}


@pytest.mark.parametrize("case", CSV_ERRORS)
def test_csv_refuses(tmp_path, case):
    content, message = CSV_ERRORS[case]
    path = tmp_path / "data.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_dataset(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b'x0,y\n1,"2\n', b"x0,y\n\xff\xfe,1\n"])
def test_csv_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(OSError, match="cannot be read as CSV") as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)


def test_csv_written_by_others(tmp_path):
    """By pandas; and by a spreadsheet: byte order mark, CRLF, quotes, an empty last line."""
    data = Dataset(AWKWARD, [1, -1, 1])
    frame = pd.DataFrame(AWKWARD, columns=["x0", "x1", "x2"]).assign(y=[1, -1, 1])
    frame.to_csv(tmp_path / "pandas.csv", index=False)
    assert load_dataset(tmp_path / "pandas.csv").X.tobytes() == data.X.tobytes()
    sheet = b'\xef\xbb\xbf"x0","y"\r\n"1.5","1"\r\n2,-1\r\n\r\n'
    (tmp_path / "sheet.csv").write_bytes(sheet)
    np.testing.assert_array_equal(load_dataset(tmp_path / "sheet.csv").X, [[1.5], [2]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x0": [1, 2], "y": ["a", "b"]}, "column y must be numbers; its type is .*string"),
        ({"x0": pd.to_datetime(["2020-01-01", "2021-01-01"]), "y": [1, -1]}, "must be numbers"),
        ({"x0": pd.array([1, None], dtype="Int64"), "y": [1, -1]}, "x0 has no number in row 1"),
        ({"x0": [1.0, np.inf], "y": [1, -1]}, "X must be finite"),
        ({"x0": [1, 2**53 + 1], "y": [1, -1]}, "X holds integers beyond"),
        ({"x0": [1, 2], "y": [1, -1], "weight": [1, 1]}, "unknown column weight"),
        ({"x0": [1, 2], "x2": [1, 2], "y": [1, -1]}, "column x1 is missing"),
    ],
)
def test_parquet_refuses(tmp_path, columns, message):
    path = tmp_path / "data.parquet"
    pd.DataFrame(columns).to_parquet(path)
    with pytest.raises(ValueError, match=message):
        load_dataset(path)


def test_parquet_of_other_types(tmp_path):
    path = tmp_path / "data.parquet"
    columns = {
        "x0": np.array([1, 2], dtype=np.float32),
        "x1": pd.array([3, 4], dtype="Int64"),
        "x2": [True, False],
        "y": np.array([1, -1], dtype=np.int8),
    }
    pd.DataFrame(columns).to_parquet(path)
    np.testing.assert_array_equal(load_dataset(path).X, [[1, 3, 1], [2, 4, 0]])


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_objects_are_never_executed(tmp_path):
    sprung = tmp_path / "sprung"
    objects = np.array([[Trap(str(sprung))], [1.0]], dtype=object)
    np.savez(tmp_path / "data.npz", X=objects, y=[1, -1])
    with pytest.raises(ValueError, match="array X holds pickled objects, which are never loaded"):
        load_dataset(tmp_path / "data.npz")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap(str(sprung))))
    with pytest.raises(OSError, match=r"is not an \.npz file"):
        load_dataset(tmp_path / "bare.npz")
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, "array y is missing; expected X, y and optionally cluster"),
        ({"X": X, "y": Y, "labels": Y}, "unknown array labels"),
        ({"X": X, "y": Y[:3]}, "y must have one label an example"),
    ],
)
def test_npz_refuses(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path / "data.npz")


def test_npz_that_holds_one_array(tmp_path):
    np.save(tmp_path / "data.npy", X)
    (tmp_path / "data.npy").rename(tmp_path / "data.npz")
    with pytest.raises(OSError, match="holds a single array"):
        load_dataset(tmp_path / "data.npz")


def test_npz_larger_than_memory(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", X=X, y=Y)
    monkeypatch.setattr("reluflow._validation.available_memory", lambda: 100.0)
    with pytest.raises(MemoryError, match=r"data\.npz needs"):
        load_dataset(tmp_path / "data.npz")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_truncated_files(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    save_dataset(ClusterModel.orthogonal(2, 4, 0.1).sample(20, seed=0), whole)
    content = whole.read_bytes()
    part = tmp_path / f"part{suffix}"
    for length in range(0, len(content), 37):
        part.write_bytes(content[:length])
        with pytest.raises(OSError, match="part") as caught:
            load_dataset(part)
        assert "\n" not in str(caught.value)


def test_damaged_npz(tmp_path):
    """A changed byte is noticed (zip archives carry checksums), or does not matter."""
    path = tmp_path / "data.npz"
    data = ClusterModel.orthogonal(2, 4, 0.1).sample(20, seed=0)
    save_dataset(data, path)
    content = path.read_bytes()
    for position in range(0, len(content), 23):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0x5A]) + content[position + 1 :]
        )
        with contextlib.suppress(OSError, ValueError):
            np.testing.assert_array_equal(load_dataset(path).X, data.X)


def test_missing_file_and_unknown_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: there is no such file"):
        load_dataset(tmp_path / "nothing.csv")
    for call in (load_dataset, lambda path: save_dataset(Dataset(X, Y), path)):
        with pytest.raises(OSError, match=r"data\.txt: .* ends in \.npz, \.csv, \.parquet"):
            call(tmp_path / "data.txt")
    for suffix in (".npz", ".csv", ".parquet"):
        with pytest.raises(OSError, match="nowhere"):
            save_dataset(Dataset(X, Y), tmp_path / "nowhere" / f"data{suffix}")


# --- digits --------------------------------------------------------------------------------------


def test_digits():
    from sklearn import datasets

    data = load_digits()
    assert (data.n, data.dim) == (1797, 64)
    np.testing.assert_allclose(np.linalg.norm(data.X, axis=1), 8, rtol=1e-14)
    np.testing.assert_array_equal(data.y, np.where(data.cluster % 2 == 0, 1, -1))
    raw = datasets.load_digits()
    np.testing.assert_array_equal(data.cluster, raw.target)
    # Every example is its centred image times a positive number.
    centred = raw.data - raw.data.mean(axis=0)
    cosine = (data.X * centred).sum(axis=1) / (8 * np.linalg.norm(centred, axis=1))
    np.testing.assert_allclose(cosine, 1, rtol=1e-14)
    model = data.cluster_model()
    assert model.n_clusters == 10
    np.testing.assert_array_equal(model.labels, np.tile([1, -1], 5))


def test_import_is_light():
    heavy = "{'pandas', 'pyarrow', 'sklearn'}"
    code = f"import sys, reluflow.data; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
