"""Proofs of KKT points: exact cases, random draws, degenerate ones, and altered certificates."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import reluflow as rf
from exact_cases import CASES
from reluflow.certificates.kkt import KKTStatement
from reluflow.certificates.kkt_check import check_kkt
from reluflow.cli import run_command

# Blocks of mutually orthogonal examples of one label: another block's example lies exactly on the
# kink in exact arithmetic, on a side that rounding decides in floating-point numbers.
ON_THE_FENCE = {"orthogonal, blocks", "orthogonal, blocks, bias"}


def proof_of(case, **more):
    settings = {"train_output": case.train_output, "bias": case.bias}
    point = rf.kkt_point(case.net, case.data, **settings)
    return rf.prove_kkt(point, case.data, **settings, **more)


@pytest.mark.parametrize("name", sorted(set(CASES) - ON_THE_FENCE))
def test_exact_cases(name):
    case = CASES[name]
    proof = proof_of(case)
    assert proof.status == "proved"
    assert proof.reason == ""
    assert proof.relative_radius <= 1e-13
    # The multipliers of the case differ from the exact ones of its rounded data by rounding.
    gap = np.abs(proof.statement.multipliers - case.multipliers).max()
    assert gap <= proof.multiplier_radius + 1e-13 * case.multipliers.max()
    assert check_kkt(proof.statement).verified


@pytest.mark.parametrize("name", sorted(ON_THE_FENCE))
def test_what_rounding_decides_is_not_proved(name):
    proof = proof_of(CASES[name])
    assert proof.status == "unproved"
    assert "side of the kink" in proof.reason
    assert proof.radius == np.inf
    assert proof.reason in str(proof)
    with pytest.raises(ValueError, match="no proof to save"):
        proof.save("nowhere.npz")


def test_the_radius_is_a_bound():
    # XOR: the exact point has w_j = y_j x_j / 2 ... each of norm^2 1/sqrt 2, lam = 1/sqrt 2.
    case = CASES["XOR"]
    point = rf.kkt_point(case.net, case.data, bias=False)
    moved = np.full(4, 1e-9)
    shifted = replace(point, multipliers=point.multipliers + moved)
    proof = rf.prove_kkt(shifted, case.data, bias=False)
    assert proof.status == "proved"
    assert proof.multiplier_radius == pytest.approx(1e-9, rel=1e-6)
    W = point.net.W * (1 + 1e-7)
    far = replace(point, net=rf.TwoLayerNet(W, point.net.b, point.net.v))
    assert rf.prove_kkt(far, case.data, bias=False).radius == pytest.approx(
        1e-7 * np.linalg.norm(W), rel=1e-5
    )


@functools.cache
def drawn(k=4, d=300, n=40, width=16, noise=0.4, bias=True, train_output=True, seed=0):
    problem = rf.draw(rf.ClusterModel.orthogonal(k, d, noise), n, width, bias=bias, seed=seed)
    settings = {"bias": bias, "train_output": train_output}
    limit = rf.flow_limit(problem.net, problem.data, rtol=1e-2, num_threads=1, **settings)
    assert limit.status == "converged"
    return limit, problem.data, settings


DRAWS = [
    {},
    {"k": 8, "d": 1000, "n": 60, "width": 40, "noise": 0.2, "seed": 1},
    {"k": 2, "d": 80, "n": 50, "noise": 1.0, "bias": False, "seed": 2},
    {"k": 6, "d": 400, "n": 150, "width": 100, "noise": 1.0, "seed": 3},
]


@pytest.mark.parametrize("train_output", [True, False])
@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_random_draws(draw, train_output):
    limit, data, settings = drawn(**draw, train_output=train_output)
    proof = rf.prove_kkt(limit, data, **settings)
    assert proof.status == "proved", proof.reason
    assert proof.relative_radius <= 1e-12
    assert proof.clarke_radius <= 1e-9
    assert len(limit.kinks) > 0
    assert check_kkt(proof.statement).verified


def test_duplicate_examples_are_not_proved():
    # Only the sum of the multipliers of two copies is determined.
    case = CASES["two points, acute"]
    data = rf.Dataset(np.vstack([case.data.X, case.data.X[:1]]), [1, -1, 1])
    point = rf.kkt_point(case.net, data, bias=False)
    proof = rf.prove_kkt(point, data, bias=False)
    if (point.multipliers > 0).all():
        assert "dependent" in proof.reason
    else:
        # With one multiplier 0 its margin is 1 all the same.
        assert "margin" in proof.reason
    assert proof.status == "unproved"


def test_what_is_no_kkt_point_is_not_proved():
    limit, data, settings = drawn()
    # The flow itself has no multipliers; a wrong pattern no solution with the right signs.
    nothing = replace(limit, multipliers=np.zeros(data.n))
    assert "no multiplier" in rf.prove_kkt(nothing, data, **settings).reason
    for seed in range(5):
        rng = np.random.default_rng(seed)
        clarke = limit.clarke.copy()
        flipped = rng.choice(data.n, 3, replace=False)
        clarke[flipped] = 1 - clarke[flipped]
        proof = rf.prove_kkt(replace(limit, clarke=clarke), data, **settings)
        assert proof.status == "unproved"
        lam = np.where(rng.random(data.n) < 0.2, 0.0, limit.multipliers)
        proof = rf.prove_kkt(replace(limit, multipliers=lam), data, **settings)
        assert proof.status == "unproved"


def test_bad_input():
    limit, data, _ = drawn()
    with pytest.raises(ValueError, match="data has 10 examples"):
        rf.prove_kkt(limit, rf.Dataset(data.X[:10], data.y[:10]))
    with pytest.raises(ValueError, match="columns"):
        rf.prove_kkt(limit, rf.Dataset(data.X[:, 1:], data.y))
    with pytest.raises(ValueError, match="zero biases"):
        rf.prove_kkt(limit, data, bias=False)


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path):
        limit, data, settings = drawn()
        path = tmp_path / "kkt.npz"
        rf.prove_kkt(limit, data, **settings).save(path)
        return path

    def test_the_command(self, file, capsys):
        assert run_command(["verify", str(file)]) == 0
        out = capsys.readouterr().out
        assert "KKT point" in out
        assert "Verified" in out
        assert run_command(["verify", str(file), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "verified"
        assert run_command(["verify", str(file), "--points"]) == 0
        assert "multiplier" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "name", ["W", "v", "b", "X", "multipliers", "kink", "radius", "clarke_radius"]
    )
    def test_an_altered_number_is_refused_with_and_without_its_checksum(self, file, name, capsys):
        with np.load(file) as contents:
            arrays = dict(contents)
        value = arrays[name].copy()
        used = np.flatnonzero(value)
        value.flat[used[0]] *= 0.999
        altered = file.with_name("altered.npz")
        np.savez(altered, **{**arrays, name: value})
        assert run_command(["verify", str(altered)]) == 1
        assert "CERTIFICATE REFUSED" in capsys.readouterr().err
        known = {k: arrays[k] for k in arrays if k not in ("format", "kind", "sha256")}
        KKTStatement.from_arrays({**known, name: value}).save(altered)
        assert run_command(["verify", str(altered)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "CERTIFICATE REFUSED" in lines[0]

    def test_an_altered_active_set_is_refused(self, file):
        limit, data, settings = drawn()
        s = rf.prove_kkt(limit, data, **settings).statement
        support = np.flatnonzero(s.multipliers > 0)
        for i in support[:4]:
            state = s.state.copy()
            state[0, i] = (state[0, i] + 1) % 3
            changed = replace(s, state=state, kink=np.where(state == 2, 0.5, 0))
            assert not check_kkt(changed).verified
        y = s.y.copy()
        y[support[0]] *= -1
        assert not check_kkt(replace(s, y=y)).verified

    def test_nonsense_is_refused(self):
        limit, data, settings = drawn()
        s = rf.prove_kkt(limit, data, **settings).statement
        for nonsense in (
            replace(s, X=s.X[1:]),
            replace(s, W=np.full_like(s.W, np.inf)),
            replace(s, group=s.group + 5),
            replace(s, group=np.zeros_like(s.group)),
            replace(s, multipliers=-s.multipliers),
            replace(s, bias=False),
            replace(s, state=s.state + 2),
        ):
            with pytest.raises(rf.CertificateError):
                check_kkt(nonsense)

    def test_without_the_package_one_line_says_how_to_get_it(self, file, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "flint", None)
        assert run_command(["verify", str(file)]) == 2
        error = capsys.readouterr().err
        assert "reluflow[verify]" in error
        assert len(error.splitlines()) == 1
