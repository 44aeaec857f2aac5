"""Progress bars on standard error, shown only when asked for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Observer = Callable[[float, float, float], None]


@contextlib.contextmanager
def flow_progress(progress: bool | Observer, target: float) -> Iterator[Observer | None]:
    """An observer of a flow: none, the caller's own, or a bar with log(1/L) and margin."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield None
        return
    bar = _bar("gradient flow")
    with bar:
        task = bar.add_task("", total=1.0, state="")

        def observe(log_inverse_loss: float, margin: float, evaluations: float) -> None:
            state = (
                f"log(1/L) {log_inverse_loss:.3g} of {target:g}, normalised margin {margin:.3g}, "
                f"{evaluations:.0f} evaluations"
            )
            bar.update(task, completed=_fraction(log_inverse_loss, target), state=state)

        yield observe


@contextlib.contextmanager
def sampling_progress(progress: bool, total: int) -> Iterator[Callable[[int, int], None]]:
    """An observer of draws and errors among them: silent, or a bar towards ``total`` draws."""
    if not progress:
        yield lambda samples, errors: None
        return
    bar = _bar("test error")
    with bar:
        task = bar.add_task("", total=total, state="")

        def observe(samples: int, errors: int) -> None:
            state = f"{errors:,} errors in {samples:,} fresh examples"
            bar.update(task, completed=samples, state=state)

        yield observe


@contextlib.contextmanager
def ensemble_progress(
    progress: bool | Callable[[int], None], total: int
) -> Iterator[Callable[[int], None] | None]:
    """An observer of finished flows: none, the caller's own, or a bar towards ``total``."""
    if callable(progress) or not progress:
        yield progress or None
        return
    bar = _bar("gradient flows")
    with bar:
        task = bar.add_task("", total=total, state="")
        yield lambda done: bar.update(task, completed=done, state=f"{done:,} of {total:,} flows")


@contextlib.contextmanager
def counting_progress(
    progress: bool, name: str, total: int, what: str
) -> Iterator[Callable[[int], None]]:
    """An observer of how many of ``total`` are done: silent, or a bar."""
    if not progress:
        yield lambda done: None
        return
    bar = _bar(name)
    with bar:
        task = bar.add_task("", total=total, state="")

        def observe(done: int) -> None:
            bar.update(task, completed=done, state=f"{done:,} of {total:,} {what}")

        yield observe


def _bar(name: str) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn(name),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _fraction(log_inverse_loss: float, target: float) -> float:
    # A flow spends about the same number of steps on every decade of log(1/L).
    finest = 1e-4
    reached, whole = (math.log1p(max(value, 0.0) / finest) for value in (log_inverse_loss, target))
    return min(1.0, reached / whole) if whole > 0 else 1.0
