"""One place for what figures look like: colours, fonts, sizes, and how they are written out."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which people of any colour vision tell apart.
TRAINED = "#D55E00"
ROBUST = "#0072B2"
RIGHT_SIDE = "#57b394"
WRONG_SIDE = "#c283c0"
INK = "#1b2330"
MUTED = "#667080"
RULE = "#d5dae1"

# Inches.
COLUMN = (5.6, 3.9)
PAIR = (5.6, 3.1)
TALL = (5.6, 4.5)
BANNER = (10.4, 3.7)

# Glyphs are drawn as outlines in SVG, so that a figure looks the same wherever it is opened; the
# salt makes identifiers, and with them the files, the same from run to run.
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 10.5,
    "axes.titlepad": 8,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 8.5,
    "lines.linewidth": 2.0,
    "hatch.linewidth": 0.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "reluflow",
    "pdf.fonttype": 42,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The project's settings, for as long as a figure is drawn or written."""
    from matplotlib import rc_context

    with rc_context(_SETTINGS):
        yield


def new_figure(
    size: tuple[float, float], layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty figure that belongs to nobody: pyplot does not know of it."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout=layout)


def settle(figure: Figure) -> Figure:
    """The figure with its layout found once and for all, so that writing it need not search."""
    with drawing():
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def sides() -> Colormap:
    """Colours of an output: one hue on the wrong side of zero, another on the right side."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("sides", [WRONG_SIDE, "#ffffff", RIGHT_SIDE])


def svg(figure: Figure) -> str:
    """The figure as an SVG document, the same from run to run."""
    return _written(figure, "svg", {"Date": None, "Creator": "reluflow"}).decode("utf-8")


def pdf(figure: Figure) -> bytes:
    """The figure as a PDF, the same from run to run."""
    return _written(figure, "pdf", {"CreationDate": None, "Creator": "reluflow"})


def png(figure: Figure, dpi: float) -> bytes:
    """The figure as a PNG."""
    return _written(figure, "png", {"Software": "reluflow"}, dpi=dpi)


def inline(document: str, name: str, label: str) -> str:
    """An SVG document as an element of a page: no prologue, no metadata, identifiers of its own."""
    element = document[document.index("<svg") :]
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'href="#', f'href="#{name}-', element)
    element = element.replace("url(#", f"url(#{name}-")
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _written(
    figure: Figure, kind: str, metadata: dict[str, str | None], dpi: float | str = "figure"
) -> bytes:
    stream = io.BytesIO()
    with drawing():
        figure.savefig(stream, format=kind, metadata=metadata, dpi=dpi)
    return stream.getvalue()
