"""A counter on the terminal for work that comes in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from equipoise.errors import require

__all__ = ["counter"]


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that takes how many pieces are done and how many there are; drawn on standard error.

    Raises:
        MissingExtraError: rich is not installed.
    """
    progress = require("rich.progress", "study")
    console = require("rich.console", "study").Console(stderr=True)
    columns = (
        progress.TextColumn(what),
        progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, wanted: shown.update(task, completed=done, total=wanted)
