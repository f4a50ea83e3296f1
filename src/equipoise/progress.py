"""How far long work is: one bar on a terminal, and for runs elsewhere one line each."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from equipoise import terminal
from equipoise.errors import require
from equipoise.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "bar", "counter", "duration", "progress"]


@contextmanager
def bar(
    console: Console | None = None, *, remaining: bool = True, transient: bool = False, extra: str = "study"
) -> Iterator[Callable[[float, float, str], None]]:
    """Shows a bar; gives the function that takes how much is done, how much there is, and a line of text in rich's markup.

    Args:
        console: where; on standard error if left out.
        remaining: whether the time left is shown, as rich estimates it.
        transient: whether the bar goes when the work has ended.
        extra: the one to name if rich is not installed.

    Raises:
        MissingExtraError: rich is not installed.
    """
    rich = require("rich.progress", extra)
    if console is None:
        console = terminal.console(stderr=True)
    columns = [rich.BarColumn(bar_width=30), rich.TextColumn("{task.description}")]
    if remaining:
        columns.append(rich.TimeRemainingColumn())
    with rich.Progress(*columns, console=console, transient=transient) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, wanted, text: shown.update(task, completed=done, total=wanted, description=text)


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that takes how many pieces are done and how many there are; drawn on standard error.

    Args:
        what: the pieces, in the plural.

    Raises:
        MissingExtraError: rich is not installed.
    """
    with bar(transient=True) as show:
        yield lambda done, wanted: show(done, wanted, f"{done}/{wanted} {what}")


class Named(Protocol):
    """A run: what it is called where it is stored; ``str`` says what it is called where it is shown."""

    @property
    def key(self) -> str: ...


class Progress(ABC):
    """How far runs are: counts epochs over all of them, from which the time left follows."""

    def __init__(self, runs: int, epochs: int, console: Console) -> None:
        self.runs = runs
        self.epochs = epochs
        self.console = console
        self.ended_runs = 0
        self.active: dict[str, Named] = {}
        self._epochs_done: dict[str, int] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    @property
    def share(self) -> float:
        """The share of all epochs that are done."""
        return sum(self._epochs_done.values()) / (self.runs * self.epochs)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def time_left(self) -> str:
        """The time left if the remaining epochs take as long as those so far; empty while nobody can know."""
        if not self.share:
            return ""
        return duration(self.elapsed * (1 - self.share) / self.share)

    def started(self, run: Named) -> None:
        """A run has begun."""
        self.active[run.key] = run
        self.show()

    def epoch(self, run: Named, number: int) -> None:
        """A run has finished that many epochs."""
        self._epochs_done[run.key] = number
        self.show()

    def shared(self) -> None:
        """One of those to be run is the same as one that is running."""
        self.runs -= 1

    def ended(self, run: Named, failure: str) -> None:
        """A run has ended; ``failure`` is empty if it ended well."""
        self._epochs_done[run.key] = self.epochs
        self.active.pop(run.key, None)
        self.ended_runs += 1
        self.runs = max(self.runs, self.ended_runs)  # what processes that died had begun is done here, too
        self.tell(run, failure)
        self.show()

    @abstractmethod
    def show(self) -> None:
        """Brings the display up to date."""

    @abstractmethod
    def tell(self, run: Named, failure: str) -> None:
        """Says that a run has ended."""


class _Lines(Progress):
    def show(self) -> None:
        pass

    def tell(self, run: Named, failure: str) -> None:
        width = len(str(self.runs))
        left = f", {self.time_left()} left" if self.ended_runs < self.runs else ""
        outcome = f"FAILED: {failure}" if failure else "done"
        self.console.print(
            printable(f"[{self.ended_runs:{width}}/{self.runs}] {run}: {outcome}{left}"),
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )


class _OneBar(Progress):
    def __enter__(self) -> Progress:
        self._open = ExitStack()
        self._bar = self._open.enter_context(bar(self.console, remaining=False))
        self.show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def show(self) -> None:
        from rich.markup import escape

        left = self.time_left() if self.ended_runs < self.runs else ""
        parts = [f"[bold]{self.ended_runs}/{self.runs} runs[/]", f"[cyan]{left} left[/]" if left else ""]
        active = escape(printable(", ".join(map(str, self.active.values()))))
        self._bar(self.share, 1.0, " ".join(filter(None, [*parts, f"[dim]{active}[/]" if active else ""])))

    def tell(self, run: Named, failure: str) -> None:
        if failure:
            text = printable(f"{run} failed: {failure}")
            self.console.print(text, style="red", markup=False, emoji=False, highlight=False)


def progress(runs: int, epochs: int, console: Console) -> Progress:
    """The display of runs that suits the console: one bar on a terminal that can move its cursor, elsewhere a line per run."""
    return (_OneBar if console.is_terminal and not console.is_dumb_terminal else _Lines)(runs, epochs, console)


def duration(seconds: float) -> str:
    """Words a time span.

    Example:
        >>> duration(7.2), duration(135), duration(8000)
        ('7 s', '2 min 15 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
