"""Attacks of other packages beside exact radii."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import reluflow as rf


def half_space(n=12, d=5):
    """N = relu(z) - relu(-z) = z: the radius is |z|/||w||."""
    rng = np.random.default_rng(0)
    w, X = rng.standard_normal(d), rng.standard_normal((n, d))
    net = rf.TwoLayerNet([w, -w], [0, 0], [1, -1])
    return net, X, np.sign(X @ w), w


def stretched(factor):
    """Moves every point to ``factor`` times its distance along the shortest way."""

    def attack(net, X, y):
        w = net.W[0]
        return X - factor * ((X @ w) / (w @ w))[:, None] * w

    return attack


def test_ratios_are_those_of_the_attacks():
    net, X, y, _ = half_space()
    attacks = {
        "longer": stretched(1.5),
        "too short": stretched(0.5),
        "to the boundary and a little on": stretched(1 + 1e-7),
        "gives up": lambda net, X, y: np.full_like(X, np.nan),
    }
    found = rf.compare_attacks(net, X, y, attacks)
    assert found.points == len(X)
    longer, short, close, nothing = found.rows
    assert longer.mean_ratio == pytest.approx(1.5, rel=1e-9)
    assert longer.largest_ratio == pytest.approx(1.5, rel=1e-9)
    assert (longer.strictly_flipped, longer.shorter) == (1, 0)
    assert (short.strictly_flipped, short.shorter) == (0, 0)
    assert np.isnan(short.mean_ratio)
    assert close.median_ratio == pytest.approx(1 + 1e-7, rel=1e-12)
    assert nothing.strictly_flipped == 0
    assert list(found.table.index) == ["reluflow", *attacks]
    assert found.table.loc["reluflow", "mean_ratio"] == 1
    assert "12 of 12 radii proved" in str(found)
    assert found.to_dict()["rows"][0]["name"] == "longer"


def test_a_shorter_perturbation_would_show():
    # Radii of twice the distance, as a wrong solver would state: the attack finds half of each.
    net, X, y, _ = half_space()
    found = rf.compare_attacks(net, X, y, {"exact": stretched(1 + 1e-9)})
    wrong = 2 * found.radii.radius
    from reluflow.robustness.attacks import _measured

    row = _measured("exact", stretched(1 + 1e-9), net, X, y, wrong)
    assert row.shorter == 1
    assert row.mean_ratio == pytest.approx(0.5, rel=1e-8)


def test_misclassified_points_take_no_part():
    net, X, y, _ = half_space()
    y[:4] *= -1
    found = rf.compare_attacks(net, X, y, {"longer": stretched(2.0)})
    assert found.points == len(X) - 4
    assert found.rows[0].strictly_flipped == 1
    none = rf.compare_attacks(net, X[:4], y[:4], {"longer": stretched(2.0)})
    assert none.points == 0
    assert np.isnan(none.rows[0].mean_ratio)


def test_bad_input(monkeypatch):
    net, X, y, _ = half_space()
    with pytest.raises(
        ValueError, match="attacks='foolbox PGD' is unknown; use one of foolbox DDN"
    ):
        rf.compare_attacks(net, X, y, ["foolbox PGD"])
    with pytest.raises(TypeError, match="list of names"):
        rf.compare_attacks(net, X, y, "foolbox DDN")
    with pytest.raises(ValueError, match="returned shape"):
        rf.compare_attacks(net, X, y, {"wrong": lambda net, X, y: X[0]})
    with pytest.raises(ValueError, match="columns"):
        rf.compare_attacks(net, X[:, 1:], y, {})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"torch: pip install 'reluflow\[attacks\]'"):
        rf.compare_attacks(net, X, y)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "art", None)
    monkeypatch.setitem(sys.modules, "torch", sys)
    with pytest.raises(ImportError, match="adversarial-robustness-toolbox"):
        rf.compare_attacks(net, X, y, ["art DeepFool"])


@pytest.mark.parametrize(
    "name",
    [
        "foolbox DDN",
        "foolbox DDN tuned",
        "foolbox DeepFool",
        "art DeepFool",
        "torchattacks DeepFool",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_adapters_where_the_packages_are(name):
    pytest.importorskip("torch")
    pytest.importorskip(name.split(" ")[0])
    net, X, y, _ = half_space()
    row = rf.compare_attacks(net, X, y, [name]).rows[0]
    assert row.strictly_flipped > 0.9
    assert row.shorter == 0
    assert 1 <= row.mean_ratio < 2
