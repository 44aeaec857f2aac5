"""Certificates of radii: what they state is true, is proved anew, and nothing else is."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import perturbation_oracle as oracle
import reluflow as rf
from reluflow.certificates import archive
from reluflow.certificates.ball import Ball, least_eigenvalue, norm_upper
from reluflow.certificates.exact import combines_to_zero, sign_of_output
from reluflow.certificates.radius_check import BRANCH, check_radii
from reluflow.cli import run_command


@functools.cache
def certified(backend="native"):
    """Proofs of every kind, those by branching among them."""
    problem = rf.draw(rf.ClusterModel.orthogonal(4, 100, 0.2), 40, 20, init_scale=5.0, seed=3)
    net = rf.gradient_flow(problem.net, problem.data, log_inverse_loss=20).net
    data = problem.clusters.sample(30, 7)
    found = rf.min_perturbation(
        net, data.X, data.y, clusters=problem.clusters, keep_certificates=True, backend=backend
    )
    assert {"certificate", "branching"} <= set(found.method)
    return found


def branching_point():
    return certified().method.index("branching")


def altered_steps(certificates, **arrays):
    return replace(certificates, steps=replace(certificates.steps, **arrays))


def without(certificates, dropped):
    """The certificates less some of their steps."""
    steps, kept = certificates.steps, np.flatnonzero(~dropped)
    parts = [np.arange(steps.first[i], steps.first[i + 1]) for i in kept]
    entries = np.concatenate(parts)
    names = ("point", "kind", "node", "neuron", "child", "radius", "eta")
    return altered_steps(
        certificates,
        **{name: getattr(steps, name)[kept] for name in names},
        first=np.cumsum([0, *map(len, parts)]),
        multiplier_neuron=steps.multiplier_neuron[entries],
        multiplier=steps.multiplier[entries],
        slope=steps.slope[entries],
    )


class TestArithmetic:
    def test_balls_hold_the_exact_numbers(self):
        rng = np.random.default_rng(0)
        A = rng.standard_normal((4, 30)) * 10.0 ** rng.integers(-8, 8, (4, 30))
        B = rng.standard_normal((30, 3))
        product = Ball(A, 1e-9 * np.abs(A)) @ B - 0.1
        for i in range(4):
            for j in range(3):
                exact = sum(
                    Fraction(a) * Fraction(b) for a, b in zip(A[i], B[:, j], strict=True)
                ) - Fraction(0.1)
                assert Fraction(product.lower[i, j]) <= exact <= Fraction(product.upper[i, j])
                # A sharper statement: with exact factors the radius is rounding alone.
                sharp = (Ball(A) @ B)[i, j]
                exact += Fraction(0.1)
                assert abs(Fraction(float(sharp.mid)) - exact) <= Fraction(float(sharp.rad))
        assert (product.rad > 0).all()

    def test_norms_are_bounded_from_above(self):
        rng = np.random.default_rng(1)
        for scale in (1e-160, 1.0, 1e150):
            x = scale * rng.standard_normal(50)
            assert Fraction(float(norm_upper(x))) ** 2 >= sum(Fraction(v) ** 2 for v in x)

    @pytest.mark.parametrize("gap", [0.3, 1e-3, 1e-6, 1e-9])
    def test_least_eigenvalues_are_bounded_from_below(self, gap):
        # I - (1 - gap) q q^T with a unit vector q has least eigenvalue gap.
        q = np.ones(16) / 4
        M = Ball(np.eye(16)) - Ball(q[:, None] * (1 - gap)) * q
        assert 0.9 * gap <= least_eigenvalue(M) <= gap * (1 + 1e-6)
        assert least_eigenvalue(M - Ball(np.eye(16) * 1.1 * gap)) == 0
        assert least_eigenvalue(Ball(M.mid, np.full((16, 16), gap))) == 0

    def test_exact_sums(self):
        W = np.array([[0.1, 0.2, 0.3], [0.2, 0.4, 0.6]])
        assert combines_to_zero(np.array([2.0, -1.0]), W)
        W[1, 2] = np.nextafter(W[1, 2], 1)
        assert not combines_to_zero(np.array([2.0, -1.0]), W)
        # relu(1 + 2^-80 - 1) = 2^-80 > 0, which floating-point sums lose.
        W, x = np.array([[1.0, 2.0**-40]]), np.array([1.0, 2.0**-40])
        assert sign_of_output(W, np.array([-1.0]), np.ones(1), x) == 1
        assert sign_of_output(W, np.array([-1.0]), -np.ones(1), x) == -1
        assert sign_of_output(W, np.array([-2.0]), np.ones(1), x) == 0


class TestVerification:
    @pytest.mark.parametrize("backend", ["native", "numpy"])
    def test_every_proof_is_followed(self, backend):
        found = certified(backend)
        checked = check_radii(found.certificates)
        assert checked.status == "verified"
        assert checked.problems == ()
        assert checked.exact.all()
        stated = found.certificates.lower_bound
        np.testing.assert_allclose(stated, (1 - found.rtol) * found.radius, rtol=1e-15)

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("degeneracy", oracle.NETWORK_DEGENERACIES)
    def test_degenerate_networks(self, strict, degeneracy):
        rng = np.random.default_rng(len(degeneracy))
        definition = "strict" if strict else "nonstrict"
        for _ in range(20):
            rows, a, v = oracle.random_problem(rng, degeneracy, most=7)
            net = rf.TwoLayerNet(rows, a, v)
            found = rf.min_perturbation(
                net,
                np.zeros((1, net.dim)),
                [1.0],
                definition=definition,
                max_nodes=1000,
                keep_certificates=True,
            )
            checked = check_radii(found.certificates)
            assert checked.verified
            expected = oracle.smallest_perturbation(rows, a, v, strict=strict)
            stated = found.certificates.lower_bound[0]
            assert stated <= expected
            if found.proved[0] and np.isfinite(expected):
                assert stated == pytest.approx(expected, rel=1.1e-6, abs=1e-12)
            if checked.exact[0]:
                assert found.radius[0] == pytest.approx(expected, rel=1e-6, abs=1e-12)

    def test_what_is_not_proved_is_not_stated(self):
        found = certified()
        quick = rf.min_perturbation(
            rf.TwoLayerNet(found.certificates.W, found.certificates.b, found.certificates.v),
            found.certificates.X,
            found.certificates.y,
            max_nodes=0,
            keep_certificates=True,
        )
        assert not quick.proved.all()
        checked = check_radii(quick.certificates)
        assert checked.verified
        np.testing.assert_array_equal(checked.exact, quick.proved)
        assert (quick.certificates.lower_bound[~quick.proved] > 0).all()

    def test_no_time_at_all(self):
        found = certified().certificates
        net = rf.TwoLayerNet(found.W, found.b, found.v)
        none = rf.min_perturbation(net, found.X, found.y, max_seconds=0, keep_certificates=True)
        assert none.status == "max_seconds"
        assert (none.lower_bound <= certified().radius).all()
        assert (none.radius >= certified().radius * (1 - 1e-9)).all()
        assert check_radii(none.certificates).verified

    def test_misclassified_and_unreachable_points(self):
        # relu(x) + relu(1 - x) >= 1 never flips; with the label -1 it is flipped already.
        net = rf.TwoLayerNet([[1.0], [-1.0]], [0.0, 1.0], [1.0, 1.0])
        found = rf.min_perturbation(net, [[0.25], [2.0]], [1, -1], keep_certificates=True)
        assert found.radius.tolist() == [np.inf, 0]
        checked = check_radii(found.certificates)
        assert checked.exact.all()
        assert found.certificates.lower_bound.tolist() == [np.inf, 0]

    def test_without_certificates_there_are_none_and_numbers_are_the_same(self):
        found = certified()
        c = found.certificates
        # The clusters only serve as starts: those of the same problem.
        problem = rf.draw(rf.ClusterModel.orthogonal(4, 100, 0.2), 40, 20, init_scale=5.0, seed=3)
        again = rf.min_perturbation(
            rf.TwoLayerNet(c.W, c.b, c.v), c.X, c.y, clusters=problem.clusters
        )
        assert again.certificates is None
        np.testing.assert_array_equal(again.radius, found.radius)
        np.testing.assert_array_equal(again.lower_bound, found.lower_bound)


class TestAlteredStatements:
    """Alterations by someone who knows how to write a checksum."""

    def refused(self, certificates, point):
        try:
            checked = check_radii(certificates)
        except rf.CertificateError:
            return
        assert checked.status == "refused"
        assert any(problem.startswith(f"point {point}:") for problem in checked.problems)

    @pytest.mark.parametrize("factor", [0.5, 1 - 1e-4, 1 + 1e-4, 2.0])
    def test_radii(self, factor):
        c, i = certified().certificates, branching_point()
        radius, lower = c.radius.copy(), c.lower_bound.copy()
        radius[i] *= factor
        lower[i] *= factor
        self.refused(replace(c, radius=radius, lower_bound=lower), i)

    def test_lower_bounds_and_perturbations(self):
        c = certified().certificates
        for i in (branching_point(), certified().method.index("certificate")):
            lower, moved = c.lower_bound.copy(), c.perturbation.copy()
            lower[i] *= 1 + 2e-6
            self.refused(replace(c, lower_bound=lower), i)
            moved[i] *= 1 - 1e-6
            self.refused(replace(c, perturbation=moved), i)

    def test_network_and_points(self):
        c, i = certified().certificates, branching_point()
        self.refused(replace(c, W=1.001 * c.W), i)
        self.refused(replace(c, v=np.where(c.v < 0, 1.01 * c.v, c.v)), i)
        X, y = c.X.copy(), c.y.copy()
        X[i] *= 0.99
        self.refused(replace(c, X=X), i)
        y[i] *= -1
        self.refused(replace(c, y=y), i)

    def test_multipliers(self):
        c = certified().certificates
        rng = np.random.default_rng(0)
        steps = c.steps
        noise = steps.multiplier * (1 + 0.1 * rng.standard_normal(len(steps.multiplier)))
        checked = 0
        for values in (-steps.multiplier, 3 * steps.multiplier, noise, 0 * steps.multiplier):
            try:
                found = check_radii(altered_steps(c, multiplier=values))
            except rf.CertificateError:
                continue
            checked += 1
            assert found.status == "refused"
            # Whatever still verifies is true, since the statements are.
            assert not found.lower.all()
        assert checked
        self.refused(altered_steps(c, eta=1.5 * steps.eta), branching_point())

    def test_no_multipliers_prove_what_is_false(self):
        # Statements above the true radius, whatever multipliers are tried.
        rng = np.random.default_rng(2)
        for trial in range(40):
            rows, a, v = oracle.random_problem(rng, "none", most=7)
            truth = oracle.smallest_perturbation(rows, a, v)
            if not 0 < truth < np.inf:
                continue
            net = rf.TwoLayerNet(rows, a, v)
            c = rf.min_perturbation(
                net, np.zeros((1, net.dim)), [1.0], keep_certificates=True
            ).certificates
            for factor in (1.0, *rng.lognormal(0, 0.3, 3)):
                multiplier = c.steps.multiplier * factor ** rng.standard_normal(
                    len(c.steps.multiplier)
                )
                false = altered_steps(
                    replace(
                        c,
                        radius=c.radius * 1.01,
                        lower_bound=c.radius * (1 + 1e-6),
                        flips=np.zeros(1, dtype=bool),
                    ),
                    multiplier=multiplier,
                    radius=c.steps.radius * rng.choice([1.0, 1.02, 2.0]),
                )
                with contextlib.suppress(rf.CertificateError):
                    assert not check_radii(false).lower[0], trial

    def test_a_tree_with_a_leaf_missing(self):
        c, i = certified().certificates, branching_point()
        mine = c.steps.point == i
        leaves = set(c.steps.node[mine]) - set(c.steps.node[mine & (c.steps.kind == BRANCH)])
        assert leaves
        for leaf in leaves:
            self.refused(without(c, mine & (c.steps.node == leaf)), i)

    def test_a_tree_with_wrong_branches(self):
        c, i = certified().certificates, branching_point()
        branch = np.flatnonzero((c.steps.point == i) & (c.steps.kind == BRANCH))[0]
        for change in (-1, 1, 1000):
            child = c.steps.child.copy()
            child[branch] += change
            self.refused(altered_steps(c, child=child), i)
        neuron = c.steps.neuron.copy()
        # Branching on a neuron that supports the point leaves the opposing one undecided.
        neuron[branch] = int(np.flatnonzero(c.y[i] * c.v > 0)[0])
        self.refused(altered_steps(c, neuron=neuron), i)
        self.refused(without(c, np.arange(len(c.steps)) == branch), i)
        self.refused(altered_steps(c, node=c.steps.node + 1), i)

    def test_nonsense_is_refused(self):
        c = certified().certificates
        for nonsense in (
            replace(c, X=c.X[:, 1:]),
            replace(c, X=c.X.astype(np.float32)),
            replace(c, W=np.full_like(c.W, np.nan)),
            replace(c, rtol=0.0),
            replace(c, definition="loose"),
            replace(c, y=0.5 * c.y),
            replace(c, lower_bound=np.full_like(c.radius, np.nan)),
            altered_steps(c, point=c.steps.point[::-1]),
            altered_steps(c, kind=c.steps.kind + 7),
            altered_steps(c, first=c.steps.first[::-1]),
            altered_steps(c, multiplier_neuron=c.steps.multiplier_neuron + 1000),
            altered_steps(c, multiplier=np.full_like(c.steps.multiplier, np.nan)),
            altered_steps(c, node=c.steps.node.astype(np.int32)[:3]),
        ):
            with pytest.raises(rf.CertificateError):
                check_radii(nonsense)


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "radii.npz"
        certified().certificates.save(path)
        return path

    def test_what_is_saved_is_read(self, file):
        saved, read = certified().certificates, rf.RadiusCertificates.load(file)
        np.testing.assert_array_equal(read.X, saved.X)
        np.testing.assert_array_equal(read.steps.multiplier, saved.steps.multiplier)
        assert (read.definition, read.rtol) == (saved.definition, saved.rtol)
        assert read.network_digest == saved.network_digest
        assert rf.verify_certificate(file).verified
        assert [path.name for path in file.parent.iterdir()] == [file.name]

    def test_the_command(self, file, capsys):
        assert run_command(["verify", str(file)]) == 0
        out = capsys.readouterr().out
        assert "30 of 30 proved anew" in out
        assert "30 of 30 radii" in out
        assert run_command(["verify", str(file), "--points"]) == 0
        assert capsys.readouterr().out.count("lower bound verified, flip verified") == 30
        assert run_command(["verify", str(file), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["status"] == "verified"
        assert all(found["exact"])

    def refusal(self, file, capsys):
        assert run_command(["verify", str(file)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "CERTIFICATE REFUSED" in lines[0]
        return lines[0]

    def test_a_changed_number_is_refused(self, file, capsys):
        with np.load(file) as contents:
            arrays = dict(contents)
        for name in ("radius", "W", "X", "steps_multiplier", "perturbation"):
            changed = arrays[name].copy()
            changed.flat[0] = np.nextafter(changed.flat[0], np.inf)
            np.savez(file, **{**arrays, name: changed})
            assert "altered" in self.refusal(file, capsys)
        del arrays["flips"]
        np.savez(file, **arrays)
        assert "altered" in self.refusal(file, capsys)

    def test_a_changed_byte_is_refused(self, file, capsys):
        whole = file.read_bytes()
        for place in np.linspace(200, len(whole) // 2, 5).astype(int):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert "altered" in self.refusal(file, capsys)

    def test_a_false_statement_with_a_right_checksum_is_refused(self, file, capsys):
        c = certified().certificates
        replace(c, lower_bound=1.001 * c.radius).save(file)
        assert "point 0" in self.refusal(file, capsys)

    def test_files_that_are_no_certificates(self, tmp_path, capsys):
        for name, contents in (("a.npz", None), ("b.npz", b"text"), ("c.npz", b"")):
            path = tmp_path / name
            if contents is not None:
                path.write_bytes(contents)
            assert run_command(["verify", str(path)]) == 2
            assert len(capsys.readouterr().err.splitlines()) == 1
        net = rf.TwoLayerNet([[1.0]], [0.0], [1.0])
        net.save(tmp_path / "net.npz")
        with pytest.raises(OSError, match="not a certificate"):
            rf.verify_certificate(tmp_path / "net.npz")

    def test_an_unknown_kind_and_a_failed_write(self, tmp_path):
        path = tmp_path / "other.npz"
        archive.write(path, "horoscope", {"x": np.zeros(1)})
        with pytest.raises(rf.CertificateError, match="horoscope"):
            rf.verify_certificate(path)
        with pytest.raises(OSError, match="horoscope"):
            rf.RadiusCertificates.load(path)
        with pytest.raises(OSError, match="no-such-folder"):
            archive.write(tmp_path / "no-such-folder" / "x.npz", "radii", {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.npz: there is no such file$"):
        rf.verify_certificate(tmp_path / "no.npz")
