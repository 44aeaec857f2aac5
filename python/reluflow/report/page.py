"""The page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reluflow.report import style, wording
from reluflow.report.landscape import typical_plane

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

    from reluflow.experiments import DoubleEdge

GENERATOR = '<meta name="generator" content="reluflow'

_POWER = re.compile(r"10\^(-?[0-9]+(?:\.[0-9]+)?)")
_SCIENTIFIC = re.compile(r"\b([0-9.]+)e([+-][0-9]+)\b")
_INDEX = re.compile(r"_([a-z])\b")


@dataclass(frozen=True)
class Illustration:
    """A figure on the page."""

    name: str
    title: str
    caption: str


def page_environment() -> jinja2.Environment:
    """What pages are made with: the templates, and the filters that they use."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reluflow.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": wording.number,
        "measured": wording.measured,
        "typeset": _typeset,
        "exponent": wording.exponent,
    }
    return environment


def render_page(result: DoubleEdge, figures: Mapping[str, str], command: str | None) -> str:
    """The page as HTML.

    Parameters
    ----------
    result : DoubleEdge
    figures : mapping of str to str
        SVG documents by the names of `reluflow.report.figures.FIGURES`.
    command : str or None
        A command line that reproduces the result.
    """
    template = page_environment().get_template("report.html.j2")
    illustrations = _illustrations(result)
    return template.render(
        headline=wording.headline(result),
        subline=wording.subline(result),
        problem=wording.problem(result),
        notice=wording.notice(result),
        name=result.name,
        version=result.summary["version"],
        key_figures=wording.key_figures(result),
        comparison=[(row, wording.compared(result, row)) for row in result.comparison],
        illustrations=illustrations,
        drawings={
            one.name: inline_svg(figures[one.name], one.name, one.title) for one in illustrations
        },
        definition=wording.definition(result),
        assumption=result.assumption,
        caveats=wording.caveats(result),
        settings=_settings(result),
        provenance=_provenance(result),
        command=command,
        snippet=_snippet(result),
    )


def _illustrations(result: DoubleEdge) -> list[Illustration]:
    plane = typical_plane(result)
    part = _part_in_plane(result, plane.index, plane.axes)
    counted = f"Here {wording.definition(result)}."
    examples = wording.examples(result)
    example = examples.removesuffix("s")
    population = "fresh examples" if result.assumption is not None else "examples"
    return [
        Illustration(
            "planes",
            "The double edge in one look",
            f"Both networks on the same plane through the same {example} (dot). Green is the "
            "side of the right label, purple the other; on the black line the output is 0. The "
            "circle is as far as the example's smallest perturbation reaches; the arrow is the "
            "one shift z that flips 95\N{NO-BREAK SPACE}% of examples of the trained network.",
        ),
        Illustration(
            "shares",
            "How much a perturbation of each length flips",
            "Share of examples that are flipped: of the trained network by one and the same shift "
            "along z, of the robust network by the best shift for each example. A mean has length "
            f"√d = {wording.measured(math.sqrt(result.clusters.ambient_dim))}.",
        ),
        Illustration(
            "universal",
            "One shift for all",
            f"Every one of the {examples} is shifted by the same vector along the weighted sum of "
            "cluster means, z ∝ Σ y_q μ_q, against its label. The thick line is the share that is "
            f"flipped, the thin lines are the two labels. {counted}",
        ),
        Illustration(
            "radii",
            "The best shift for each",
            f"Length of the smallest perturbation of each of "
            f"{result.test_data.n} {examples}, "
            "for the trained and for the explicit robust network. Filled bars carry a verified "
            "proof that nothing nearer flips the example; hatched bars are upper bounds. "
            f"{counted}",
        ),
        Illustration(
            "robust_accuracy",
            "Robust accuracy of the population",
            f"Share of all {population} that no perturbation of at most each length flips, as "
            f"{result.test_data.n} of them tell: the bands are 95\N{NO-BREAK SPACE}% intervals for "
            "the whole population, in which radii that are only bounded count both ways. "
            f"{counted}",
        ),
        Illustration(
            "landscape",
            "What the networks look like around an example",
            f"Outputs on the plane through one of the {examples} (dot), spanned by z and the "
            "direction to the nearest mean of the other label. The example is the one whose "
            "radius is the median. The dashed circle has its smallest perturbation as radius; the "
            f"arrow is the part of that perturbation that lies in the plane ({part[0]:.0%} of its "
            f"length for the trained, {part[1]:.0%} for the robust network).",
        ),
        Illustration(
            "flow",
            "Along the flow",
            "Against the progress log(1/L) of gradient flow: the gradients it took, and the "
            "normalised margin γ = min_i y_i N(x_i) / ‖θ‖², which grows towards that of a KKT "
            "point of the max-margin problem.",
        ),
    ]


def _part_in_plane(result: DoubleEdge, index: int, axes: Any) -> list[float]:
    """Share of the length of each network's smallest perturbation that lies in the plane."""
    shares = []
    for radii in (result.radii, result.robust_radii):
        whole = float(np.linalg.norm(radii.perturbation[index]))
        inside = float(np.linalg.norm(axes @ radii.perturbation[index]))
        shares.append(inside / whole if whole > 0 else 1.0)
    return shares


def _settings(result: DoubleEdge) -> dict[str, str]:
    clusters = result.clusters
    problem = {
        "data": result.name,
        "dimension d": f"{clusters.ambient_dim:,}",
        "clusters k": f"{clusters.n_clusters}",
        "noise": wording.noise(result),
    }
    return problem | {
        name.replace("_", " "): _setting(value) for name, value in result.settings.items()
    }


def _provenance(result: DoubleEdge) -> dict[str, str]:
    summary, flow = result.summary, result.flow
    return {
        "reluflow": summary["version"],
        "instruction set": str(summary["instruction_set"]),
        "threads": str(summary["num_threads"]),
        "wall time": f"{result.seconds:.1f} s",
        "flow": f"{flow.status.value}, {flow.evaluations:,} gradients in {flow.form} form",
        "log(1/L) reached": wording.number(flow.log_inverse_loss),
        "train accuracy": wording.number(summary["train_accuracy"]),
        **_residuals(result),
        "test error": f"{result.error.method}, {wording.error_evidence(result)}",
    }


def _residuals(result: DoubleEdge) -> dict[str, str]:
    names = ("stationarity", "feasibility", "complementarity", "clarke_violation")
    points = (("KKT", result.certificate), ("limit,", result.limit))
    return {
        f"{whose} {name.replace('_', ' ')}": wording.number(getattr(point, name))
        for whose, point in points
        if point is not None
        for name in names
    }


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return wording.number(value) if isinstance(value, int | float) else str(value)


def _snippet(result: DoubleEdge) -> str:
    """Python that reproduces the result."""
    passed = {key: value for key, value in result.settings.items() if key != "n"}
    arguments = "".join(f",\n    {name}={value!r}" for name, value in passed.items())
    return (
        "import reluflow as rf\n\n"
        f"{_source(result)}\n"
        f"result = rf.double_edge(\n    problem,\n    n={result.settings['n']}{arguments},\n)\n"
        'result.report("double-edge")'
    )


def _source(result: DoubleEdge) -> str:
    """Python that makes the problem."""
    clusters = result.clusters
    if result.assumption is None:
        if result.name == "digits":
            return "problem = rf.load_digits()"
        return f"problem = rf.load_dataset({result.name!r})"
    k, dim = clusters.n_clusters, clusters.ambient_dim
    alternating = np.where(np.arange(k) % 2 == 0, 1.0, -1.0)
    if (
        isinstance(clusters.noise, float)
        and np.array_equal(clusters.labels, alternating)
        and np.allclose(clusters.gram, dim * np.eye(k), rtol=1e-12, atol=1e-12 * dim)
    ):
        return f"problem = rf.ClusterModel.orthogonal({k}, {dim}, {clusters.noise!r})"
    return "problem = rf.ClusterModel(means, labels, noise)  # the clusters of this run"


def inline_svg(document: str, name: str, title: str) -> Markup:
    """An SVG document as an element of a page."""
    from markupsafe import Markup

    return Markup(style.inline(document, name, title))


def _typeset(text: str) -> Markup:
    """Text with the exponents of powers of ten raised and one-letter indices lowered."""
    from markupsafe import Markup, escape

    plain = _SCIENTIFIC.sub(_as_power, str(escape(text)))
    raised = _POWER.sub(r"10<sup>\1</sup>", plain).replace("<sup>-", "<sup>−")
    return Markup(_INDEX.sub(r"<sub>\1</sub>", raised))


def _as_power(match: re.Match[str]) -> str:
    return f"{match[1]}×10^{int(match[2])}"
