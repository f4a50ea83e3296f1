"""How far the run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["display"]

_PARTS = 5


@contextmanager
def display(steps: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Shows the progress of so many steps; gives the function to call with the number of steps done."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(f"{steps:,} steps", total=steps)
            yield lambda done: bar.update(task, completed=done)
        return
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        part = done * _PARTS // steps
        if part > told:
            told = part
            console.print(f"{done:,} of {steps:,} steps", markup=False, highlight=False, soft_wrap=True)

    yield tell
