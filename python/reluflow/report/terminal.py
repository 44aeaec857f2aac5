"""What the terminal shows of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reluflow.report import wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from reluflow.experiments import DoubleEdge


def print_result(console: Console, result: DoubleEdge) -> None:
    """The finding, theory beside measurement, and what a reader must know of both."""
    from rich.padding import Padding
    from rich.text import Text

    console.print()
    console.print(Text(wording.headline(result), style="bold"))
    console.print(Text(wording.subline(result)))
    console.print(Text(f"{result.name}: {wording.problem(result)}", style="dim"))
    console.print()
    if result.comparison:
        console.print(comparison_table(result))
    console.print(Padding(_notes(result), (1, 0, 0, 0)))


def comparison_table(result: DoubleEdge) -> Table:
    """Theory beside measurement."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("quantity", min_width=26)
    for name in ("measured", "theory", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("standing", no_wrap=True)
    for row in result.comparison:
        cells = (row.quantity, *wording.compared(result, row), row.kind)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _kkt_notes(result: DoubleEdge) -> dict[str, str]:
    notes = {}
    if result.certificate is not None:
        notes["KKT stationarity"] = (
            f"{wording.number(result.certificate.stationarity)} "
            f"at log(1/L) = {wording.number(result.flow.log_inverse_loss)}"
        )
    if result.limit is not None and wording.limit_is_known(result):
        notes["limit"] = (
            f"a KKT point up to {wording.number(result.limit.residuals.worst, 2)}, at an angle of "
            f"{wording.number(result.limit.angle_to_flow, 2)} rad from the flow's end"
        )
    elif result.limit is not None:
        notes["limit"] = result.limit.status.sentence
    return notes


def _notes(result: DoubleEdge) -> Table:
    """Pairs of a name and what was found, in two columns."""
    from rich.table import Table
    from rich.text import Text

    networks = ((result.radii, "trained"), (result.robust_radii, "robust"))
    proved = ", ".join(
        f"{wording.share_proved(radii)} of {len(radii.radius)} ({name})" for radii, name in networks
    )
    if not all(radii.proved.all() for radii, _ in networks):
        proved += "; the others are upper bounds"
    notes = {
        "test error": f"{wording.error_value(result)}: {wording.error_evidence(result)}",
        **_kkt_notes(result),
        "radii proved": proved,
        "definition": wording.definition(result),
        "flow": result.flow.status.sentence,
        "wall time": f"{result.seconds:.1f} s",
    }
    if len(result.missing_clusters):
        missing = ", ".join(str(q) for q in result.missing_clusters)
        notes["no example of cluster"] = missing
    if result.assumption is not None and not result.assumption.holds:
        notes["assumption"] = "the theorems' assumption does not hold at this size"
    grid = Table.grid(padding=(0, 2))
    for name, text in notes.items():
        grid.add_row(Text(name, style="dim", no_wrap=True), Text(text))
    return grid
