"""Predictions of theory, against closed forms and independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import log_ndtr
from scipy.stats import norm

import reluflow as rf
from reluflow import theory


def test_lengths_by_hand():
    # d = 2000, k = 10: sqrt(200), sqrt(2000/6), sqrt(2000)/2, sqrt(1000).
    assert theory.universal_norm(2000, 10) == pytest.approx(14.142135623730951)
    assert theory.decoupled_radius(2000, 10) == pytest.approx(18.257418583505537)
    assert theory.robust_radius(2000) == pytest.approx(22.360679774997898)
    assert theory.robust_radius(2000, definition="strict") == pytest.approx(31.622776601683793)


def test_error_scale_by_hand():
    # d = e^2: d^(-ln(d)/2) = (e^2)^(-1) = e^-2.
    assert theory.log10_error_scale(math.exp(2)) == pytest.approx(-2 / math.log(10))


def test_two_neuron_error_against_sampling():
    # d = 8, k = 2, sigma = 2: s = 2 sqrt(2/16), 1/s = sqrt 2.
    rng = np.random.default_rng(0)
    g, h = rng.standard_normal((2, 4_000_000))
    beta = math.sqrt(2)
    wrong = (np.maximum(beta + g, 0) - np.maximum(h, 0) <= 0).mean()
    standard_error = math.sqrt(wrong * (1 - wrong) / g.size)
    predicted = 10 ** theory.log10_two_neuron_error(8, 2, 2.0)
    assert abs(predicted - wrong) < 4.5 * standard_error  # one false alarm in 1e5


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_two_neuron_error_against_its_other_form(beta):
    # Conditioning on g: Phi(-beta) + integral over g > -beta of phi(g) Phi(-beta - g).
    noise = 1 / (beta * math.sqrt(2 / (2 * 100.0)))
    integral, _ = quad(lambda g: norm.pdf(g) * norm.cdf(-beta - g), -beta, math.inf, epsabs=1e-15)
    expected = math.log10(norm.cdf(-beta) + integral)
    assert theory.log10_two_neuron_error(100.0, 2, noise) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("beta", [60.0, 2000.0, 1e6])
def test_two_neuron_error_far_out(beta):
    # What g <= -beta adds to Phi(-beta/sqrt 2) is below Phi(-beta): a share of e^(-beta^2/4).
    noise = 1 / (beta * math.sqrt(2 / (2 * 100.0)))
    log_p = theory.log10_two_neuron_error(100.0, 2, noise) * math.log(10)
    assert log_p == pytest.approx(float(log_ndtr(-beta / math.sqrt(2))), rel=1e-13)


def test_limiting_margin_matches_its_ingredients():
    # Noise-free, k = 2: one example direction a label, gamma = sqrt(d)/4 (two orthogonal points
    # of norm sqrt(d): gamma = 1/(2 (1/R + 1/R)) = R/4).
    assert theory.limiting_normalized_margin(100, 2, 50, 0.0) == pytest.approx(10 / 4)


def test_predictions_carry_source_and_standing():
    clusters = rf.ClusterModel.orthogonal(10, 10**12, 1.0)
    rows = theory.predictions(clusters, 500)
    names = [row.quantity for row in rows]
    assert len(names) == len(set(names))
    for row in rows:
        assert row.kind in ("theorem", "recalled", "derivation")
        assert row.source
        assert math.isfinite(row.value) or row.quantity == "assumption: clusters, at most"
    values = {row.quantity: row.value for row in rows}
    assert values["universal perturbation, norm that flips 95 %"] == pytest.approx(math.sqrt(1e11))
    # Half of the labels are of each sign: sqrt(d/k)/c = 2 sqrt(1e11).
    assert values["universal perturbation, order of the bound"] == pytest.approx(
        2 * math.sqrt(1e11)
    )


def test_predictions_state_what_the_assumption_admits():
    clusters = rf.ClusterModel.orthogonal(10, 10**12, 1.0)
    report = clusters.assumption(500)
    values = {row.quantity: row.value for row in theory.predictions(clusters, 500)}
    # k ln(d)^2 = 10 (12 ln 10)^2.
    assert values["assumption: training examples, at least"] == pytest.approx(
        10 * (12 * math.log(10)) ** 2
    )
    assert values["assumption: dimension, at least"] == report.smallest_dim
    assert values["assumption: noise, at most"] == report.largest_noise
    # 500 examples are fewer than ln(d)^2 = 763: no number of clusters is admitted.
    assert math.isnan(values["assumption: clusters, at most"])
    term = 4 * 1e6 * 12 * math.log(10)
    right = values["assumption: separation of clusters, at most"]
    assert right == pytest.approx((1e12 - term + 1) / 10)


def test_predictions_follow_the_definition():
    clusters = rf.ClusterModel.orthogonal(8, 2000, 0.1)
    values = {
        row.quantity: row.value for row in theory.predictions(clusters, 50, definition="strict")
    }
    assert values["median smallest perturbation, robust network"] == pytest.approx(math.sqrt(1000))
    # sqrt(d/2) / sqrt(d/k) = sqrt(k/2).
    assert values["double-edge ratio, robust over trained"] == pytest.approx(2)
    with pytest.raises(ValueError, match="definition='loose' is unknown"):
        theory.predictions(clusters, 50, definition="loose")


@pytest.mark.parametrize("noise", [0.0, 1.0, 1e6])
def test_predictions_at_the_largest_dimension(noise):
    """d = 1e15: every value is finite, or nan or -inf where it says that there is none."""
    clusters = rf.ClusterModel.orthogonal(16, 10**15, noise)
    for row in theory.predictions(clusters, 20_000):
        assert math.isfinite(row.value) or noise in (0.0, 1e6), row
        assert row.value != math.inf, row
