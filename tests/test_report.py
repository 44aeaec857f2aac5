"""The report: complete, strict, self-contained, and all of it or nothing."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import reluflow as rf
from reluflow.report import check_writable, figures, landscape, style, wording, write, write_report
from reluflow.report.figures import FIGURES
from reluflow.report.page import GENERATOR
from reluflow.report.tables import TABLES

VOID = {"meta", "link", "br", "img", "hr", "input"}


@pytest.fixture(scope="module")
def result():
    clusters = rf.ClusterModel.orthogonal(4, 80, 0.3)
    return rf.double_edge(
        clusters, n=32, width=8, log_inverse_loss=20, test_points=12, max_samples=2000, seed=1
    )


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return write_report(result, tmp_path_factory.mktemp("out") / "report", command="reluflow run")


@pytest.fixture
def quick(monkeypatch):
    """Reports without figures, where it is their coming and going that matters."""
    monkeypatch.setattr(write, "FIGURES", {})
    monkeypatch.setattr(write, "render_page", lambda *_: f'{GENERATOR} 0">')


class Page(HTMLParser):
    """Checks that elements close in order, and collects what a page would load or link."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.links, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in {"src", "srcset", "data", "poster"} or (name == "href" and tag == "link"):
                self.loaded.append(value)
            elif name == "href" and tag == "a":
                self.links.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(folder):
    parser = Page()
    parser.feed((folder / "index.html").read_text(encoding="utf-8"))
    parser.close()
    return parser


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_file_is_there_and_nothing_else(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"index.html", "summary.json"} | {f"{name}.csv" for name in TABLES}
    expected |= {f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf")}
    assert found == expected
    assert all((folder / name).stat().st_size > 0 for name in found)


def test_no_temporary_folder_is_left(folder):
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_summary_is_strict_json(folder, result):
    summary = strict((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary == result.summary


def test_figures_are_well_formed(folder):
    for path in (folder / "figures").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in (folder / "figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF-")


def test_page_is_well_formed(page):
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_page_loads_nothing_from_elsewhere(folder, page):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert page.loaded == ["data:,"]
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    # What is left of URLs are names of XML namespaces.
    urls = set(re.findall(r"""[a-z]+://[^\s"'<>]+""", text))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_links_lead_to_files_of_the_folder(folder, page):
    assert page.links
    assert all((folder / link).is_file() for link in page.links)


def test_page_says_what_was_found(folder, result):
    text = (folder / "index.html").read_text(encoding="utf-8")
    for row in result.comparison:
        assert row.quantity in text
    assert "y N ≤ 0" in text
    assert "reluflow run" in text
    assert "rf.ClusterModel.orthogonal(4, 80, 0.3)" in text


def test_tables_hold_the_numbers(folder, result):
    radii = pd.read_csv(folder / "radii.csv")
    np.testing.assert_array_equal(radii["radius"], result.radii.radius)
    np.testing.assert_array_equal(radii["robust_radius"], result.robust_radii.radius)
    np.testing.assert_array_equal(radii["proved"], result.radii.proved)
    flips = pd.read_csv(folder / "flips.csv")
    np.testing.assert_array_equal(flips["fraction"], result.universal.curve.fraction)
    # sqrt(d/k) = sqrt(80/4)
    np.testing.assert_allclose(flips["norm"], flips["norm_over_sqrt_d_over_k"] * math.sqrt(20))
    trajectory = pd.read_csv(folder / "trajectory.csv")
    assert len(trajectory) == len(result.flow.trajectory)
    assert len(pd.read_csv(folder / "test_error_per_cluster.csv")) == 4


@pytest.mark.parametrize("name", ["planes", "universal"])
def test_figures_are_the_same_from_run_to_run(folder, result, name):
    figure = style.settle(FIGURES[name](result))
    assert (folder / "figures" / f"{name}.svg").read_text("utf-8") == style.svg(figure)
    assert (folder / "figures" / f"{name}.pdf").read_bytes() == style.pdf(figure)


def test_drawing_leaves_the_callers_matplotlib_alone(result):
    import matplotlib
    import matplotlib.pyplot as plt

    before, open_before = dict(matplotlib.rcParams), plt.get_fignums()
    style.svg(figures.flow_figure(result))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == open_before


def test_failure_leaves_nothing(result, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(write, "render_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(result, tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_an_earlier_report_as_it_was(result, tmp_path, quick, monkeypatch):
    folder = write_report(result, tmp_path / "report")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rename = write.Path.rename

    def fail_at_the_page(path, target):
        # The new page on its way from the temporary folder to its place.
        if target == folder / "index.html" and path.parent.name.startswith(".reluflow"):
            monkeypatch.setattr(write.Path, "rename", rename)
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(write.Path, "rename", fail_at_the_page)
    with pytest.raises(OSError, match="No space left"):
        write_report(result, folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert list(tmp_path.iterdir()) == [folder]


def test_an_earlier_report_is_replaced(result, tmp_path, quick):
    folder = write_report(result, tmp_path / "report")
    (folder / "summary.json").write_text("{}")
    write_report(result, folder)
    assert strict((folder / "summary.json").read_text("utf-8")) == result.summary


def test_an_empty_folder_is_taken(result, tmp_path, quick):
    (tmp_path / "report").mkdir()
    assert (write_report(result, tmp_path / "report") / "index.html").is_file()


@pytest.mark.parametrize("name", ["notes.txt", "summary.json", "figures/flow.svg"])
def test_other_peoples_files_are_not_touched(name, tmp_path):
    foreign = tmp_path / "report" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(OSError, match="holds other things than an earlier report"):
        check_writable(tmp_path / "report")
    assert foreign.read_text() == "mine"


@pytest.mark.parametrize("folder", ["/proc/report", "/dev/null/report", "x" * 300])
def test_an_unwritable_folder_is_refused_in_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"folder .* cannot be written: .+") as caught:
        check_writable(folder)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(OSError, match="cannot be written: it is a file"):
        check_writable(tmp_path / "report")


def test_checking_leaves_no_trace(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


def test_the_plane_carries_the_network(result):
    plane = landscape.typical_plane(result)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    # A point of the plane, once by its coordinates and once in all of them.
    x, y = np.array([-1.5, 0.0, 2.0]), np.array([0.7])
    points = plane.origin + x[:, None] * plane.axes[0] + 0.7 * plane.axes[1]
    outputs = plane.outputs(result.flow.net, x, y)
    np.testing.assert_allclose(outputs[0], plane.label * result.flow.net(points), rtol=1e-9)
    # The opposite mean lies in the plane: its coordinates give its distance.
    means = result.clusters.means[result.clusters.labels != plane.label]
    nearest = np.linalg.norm(means - plane.origin, axis=1).min()
    assert np.linalg.norm(plane.opposite_mean) == pytest.approx(nearest)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (0.0, "0"),
        (-12.5454, "−12.55"),
        (0.00042, "4.20e-04"),
        (1293111.0, "1,293,111"),
        (14.1, "14.1"),
    ],
)
def test_numbers(value, text):
    assert wording.number(value) == text


def test_measurements_keep_their_digits():
    assert wording.measured(14.1) == "14.10"


def test_small_probabilities_are_powers_of_ten():
    assert wording.probability(math.log10(0.014)) == "1.4\N{NO-BREAK SPACE}%"
    assert wording.probability(-5.4321) == "10^-5.43"
