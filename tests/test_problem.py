"""Drawing problems: the reduced experiment has the law of the ambient one."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy import stats

import reluflow as rf
from reluflow import problem as problem_module

DIM, N, WIDTH, DRAWS = 40, 6, 4, 250

# Of so many independent comparisons one false alarm is allowed with this probability altogether;
# each Kolmogorov-Smirnov test gets its Bonferroni share.
FALSE_ALARM = 1e-3


def low_rank_noise(n_clusters, axes):
    """Two directions a cluster, oblique to the means, over the first so many axes."""
    factors = np.random.default_rng(7).standard_normal((n_clusters, axes, 2))
    return rf.LowRankNoise([0.4, 0.8, 1.2], 2 * factors)


def models():
    unequal = [0.5, 1.0, 1.5]
    return {
        "orthogonal": rf.ClusterModel.orthogonal(3, DIM, 0.8),
        "per cluster": rf.ClusterModel.orthogonal(3, DIM, unequal),
        "equicorrelated": rf.ClusterModel.equicorrelated(3, DIM, 0.8, correlation=0.4),
        "low rank": rf.ClusterModel.orthogonal(3, DIM, low_rank_noise(3, 9)),
        "random": None,  # drawn anew every time: the means are part of the experiment
        "random, low rank": None,
    }


def with_both_classes(attempt):
    """Repeats an attempt until both classes are in it, which is as likely in either law."""
    with contextlib.suppress(ValueError):
        return attempt()
    return with_both_classes(attempt)


def statistics(draw_problem, name, coordinates, seed):
    """Functions of inner products alone, from one experiment."""
    rng = np.random.default_rng(seed)
    noise = low_rank_noise(3, 5) if "low rank" in name else 0.8
    clusters = models()[name] or rf.ClusterModel.random(3, DIM, noise, seed=rng)
    problem = with_both_classes(
        lambda: draw_problem(clusters, N, WIDTH, init_scale=0.3, coordinates=coordinates, seed=rng)
    )
    X, net = problem.data.X, problem.net
    trained = rf.gradient_flow(
        net, problem.data, log_inverse_loss=2.0, max_evaluations=2000, num_threads=1
    ).net
    fresh_data = with_both_classes(lambda: problem.clusters.sample(8, rng))
    fresh = fresh_data.X
    universal = rf.universal_perturbation(
        trained, problem.clusters, examples=fresh_data, num_threads=1
    )
    means = problem.clusters.means
    return {
        "||x||^2": X[0] @ X[0],
        "x.x'": X[0] @ X[1],
        "last ||x||^2": X[-1] @ X[-1],
        "x.mu": X[0] @ means[1],
        "mu.mu'": means[0] @ means[1] if "random" in name else rng.random(),
        "||w||^2": net.W[0] @ net.W[0],
        "last ||w||^2": net.W[-1] @ net.W[-1],
        "w.w'": net.W[-1] @ net.W[-2],
        "w.x": net.W[-1] @ X[-1],
        "initial output": net(fresh[:1])[0],
        "fresh pre-activation": trained.W[0] @ fresh[0],
        "fresh.x": fresh[1] @ X[0],
        "trained output": trained(fresh[2:3])[0],
        "||trained w||": np.linalg.norm(trained.W[1]),
        "universal norm that flips 50 %": universal.norm_50,
        "universal norm that flips all": universal.norm_100,
    }


def smallest_p_values(draw_problem, name):
    """p-values of the two-sample test of every statistic, ambient against reduced."""
    samples = {}
    for coordinates, offset in (("ambient", 0), ("reduced", 10**6)):
        rows = [statistics(draw_problem, name, coordinates, offset + s) for s in range(DRAWS)]
        samples[coordinates] = {key: [row[key] for row in rows] for key in rows[0]}
    return {
        key: stats.ks_2samp(samples["ambient"][key], samples["reduced"][key]).pvalue
        for key in samples["ambient"]
    }


@pytest.mark.parametrize("name", list(models()))
def test_the_reduced_law_is_the_ambient_law(name):
    p_values = smallest_p_values(rf.draw, name)
    threshold = FALSE_ALARM / (len(models()) * len(p_values))
    assert min(p_values.values()) > threshold, p_values


def test_the_test_of_laws_notices_a_wrong_degree_of_freedom(monkeypatch):
    # chi with d degrees of freedom on every diagonal entry, instead of d - explicit - i.
    true_rows = problem_module.gaussian_rows

    def wrong_rows(count, explicit, dim, rng):
        rows = true_rows(count, explicit, dim, rng)
        np.fill_diagonal(rows[:, explicit:], np.sqrt(rng.chisquare(dim, size=count)))
        return rows

    monkeypatch.setattr(problem_module, "gaussian_rows", wrong_rows)
    p_values = smallest_p_values(rf.draw, "orthogonal")
    threshold = FALSE_ALARM / (len(models()) * len(p_values))
    assert min(p_values.values()) < threshold


@pytest.mark.parametrize("dim", [10**4, 10**12, 10**15])
def test_any_dimension_fits(dim):
    clusters = rf.ClusterModel.orthogonal(4, dim, 1.0)
    problem = rf.draw(clusters, 50, 20, init_scale=1e-2)
    assert problem.ambient_dim == dim
    assert problem.data.X.shape == (50, 4 + 50 + 20)
    squares = (problem.data.X**2).sum(1)
    # ||x||^2 = d + 2 sigma sqrt(d) g + sigma^2 chi^2_d: mean 2 d, standard deviation
    # sqrt(4 d + 2 d), so that the mean of 50 lies within 5 sqrt(6 d / 50) of 2 d.
    assert abs(squares.mean() / (2 * dim) - 1) < 5 * np.sqrt(6 / (50 * dim)) / 2
    norms = np.linalg.norm(problem.net.W, axis=1)
    np.testing.assert_allclose(norms, 1e-2 / dim**0.25, rtol=6 / np.sqrt(2 * dim) + 1e-9)
    np.testing.assert_allclose(np.abs(problem.net.v), norms, rtol=1e-12)


def test_draws_are_reproducible():
    clusters = rf.ClusterModel.orthogonal(4, 1000, 1.0)
    first, again = (rf.draw(clusters, 20, 10, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.data.X, again.data.X)
    np.testing.assert_array_equal(first.net.W, again.net.W)
    assert not np.array_equal(first.data.X, rf.draw(clusters, 20, 10, seed=4).data.X)


def test_what_reduced_coordinates_cannot_carry_is_refused():
    with pytest.raises(ValueError, match=r"need dim >= 4 \+ n \+ width = 34; dim=33; use coord"):
        rf.draw(rf.ClusterModel.orthogonal(4, 33, 1.0), 20, 10)
    uneven = rf.ClusterModel(10 * np.eye(2, 100), [1, -1], np.ones((2, 100)))
    with pytest.raises(ValueError, match=r"nor LowRankNoise, .* use coordinates='ambient'"):
        rf.draw(uneven, 20, 10)
    narrow = rf.ClusterModel.orthogonal(4, 34, rf.LowRankNoise(1.0, np.ones((6, 1))))
    with pytest.raises(ValueError, match=r"need dim >= 5 \+ n \+ width = 35; dim=34"):
        rf.draw(narrow, 20, 10)
    with pytest.raises(ValueError, match="coordinates='polar' is unknown"):
        rf.draw(uneven, 20, 10, coordinates="polar")
    assert rf.draw(uneven, 20, 10, coordinates="ambient").data.X.shape == (20, 100)


def test_low_rank_noise_in_any_dimension():
    # Axis 5, beyond the four means, has variance 1 + (3e5)^2 in cluster 2 alone.
    factors = np.zeros((4, 6, 1))
    factors[2, 5, 0] = 3e5
    clusters = rf.ClusterModel.orthogonal(4, 10**12, rf.LowRankNoise(1.0, factors))
    problem = rf.draw(clusters, 400, 20, seed=0)
    assert problem.data.dim == clusters.explicit_dim + 400 + 20 == 6 + 400 + 20
    assert problem.clusters.ambient_dim == 10**12
    axis, cluster = problem.data.X[:, 5], problem.data.cluster
    assert abs(axis[cluster != 2]).max() < 6
    # A chi-squared variable with 90 or so degrees of freedom, over them: within 5 sqrt(2/90).
    assert abs(np.mean(axis[cluster == 2] ** 2) / 9e10 - 1) < 5 * np.sqrt(2 / 90)
    np.testing.assert_allclose(clusters.noise_scale, [1, 1, np.hypot(1, 3e5), 1])


def test_low_rank_noise_takes_no_more_directions_than_it_has():
    # Three means and one direction, each dense in 100 axes: four directions.
    rng = np.random.default_rng(0)
    means, direction = rng.standard_normal((3, 100)), rng.standard_normal((100, 1))
    clusters = rf.ClusterModel(means, [1, -1, 1], rf.LowRankNoise(0.5, direction))
    reduced = clusters.reduced(7)
    assert (clusters.explicit_dim, reduced.dim, reduced.ambient_dim) == (4, 11, 100)
    np.testing.assert_allclose(reduced.gram, means @ means.T)
    factor = reduced.noise.factors[0, :, 0]
    assert factor @ factor == pytest.approx(float(direction[:, 0] @ direction[:, 0]))
    np.testing.assert_allclose(reduced.means[:, :4] @ factor, means @ direction[:, 0])
    with pytest.raises(ValueError, match="extra=97 asks for 101 coordinates; there are 100"):
        clusters.reduced(97)


def test_missing_clusters_are_reported_and_allowed():
    clusters = rf.ClusterModel.orthogonal(8, 1000, 0.5)
    problem = rf.draw(clusters, 5, 4, seed=1)
    missing = sorted(set(range(8)) - set(problem.data.cluster.tolist()))
    assert problem.missing_clusters.tolist() == missing
    assert f"no example of cluster {missing[0]}, " in str(problem)
    whole = rf.draw(clusters, 200, 4, seed=1)
    assert len(whole.missing_clusters) == 0
    assert "no example" not in str(whole)


def test_examples_of_one_label_alone_are_refused():
    clusters = rf.ClusterModel.orthogonal(2, 1000, 0.5)
    with pytest.raises(ValueError, match="must hold both classes"):
        rf.draw(clusters, 1, 4)
