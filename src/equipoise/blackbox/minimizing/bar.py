"""A progress bar on the terminal, where the package for it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from equipoise.errors import require

__all__ = ["bar"]


@contextmanager
def bar(wanted: bool) -> Iterator[Callable[[float, str], None]]:
    """Gives a function that takes the share done (0 to 1) and a line of text.

    Raises:
        MissingExtraError: a bar is wanted and rich is not installed.
    """
    if not wanted:
        yield lambda share, text: None
        return
    progress = require("rich.progress", "blackbox")
    console = require("rich.console", "blackbox").Console(stderr=True)
    columns = (progress.BarColumn(bar_width=30), progress.TextColumn("{task.description}"), progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=console) as shown:
        task = shown.add_task("", total=1.0)
        yield lambda share, text: shown.update(task, completed=share, description=text)
