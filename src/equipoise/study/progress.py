"""How far a study is: one bar over all its runs on a terminal, one line per run elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from equipoise.study.plan import Run

__all__ = ["Progress", "duration", "progress"]


class Progress(ABC):
    """Counts epochs over all runs, from which the time left follows."""

    def __init__(self, runs: int, epochs: int, console: Console) -> None:
        self.runs = runs
        self.epochs = epochs
        self.console = console
        self.ended_runs = 0
        self.active: dict[str, Run] = {}
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

    def started(self, run: Run) -> None:
        """A run has begun."""
        self.active[run.key] = run
        self.show()

    def epoch(self, run: Run, number: int) -> None:
        """A run has finished that many epochs."""
        self._epochs_done[run.key] = number
        self.show()

    def ended(self, run: Run, failure: str) -> None:
        """A run has ended; ``failure`` is empty if it ended well."""
        self._epochs_done[run.key] = self.epochs
        self.active.pop(run.key, None)
        self.ended_runs += 1
        self.tell(run, failure)
        self.show()

    @abstractmethod
    def show(self) -> None:
        """Brings the display up to date."""

    @abstractmethod
    def tell(self, run: Run, failure: str) -> None:
        """Says that a run has ended."""


class _Lines(Progress):
    def show(self) -> None:
        pass

    def tell(self, run: Run, failure: str) -> None:
        width = len(str(self.runs))
        left = f", {self.time_left()} left" if self.ended_runs < self.runs else ""
        outcome = f"FAILED: {failure}" if failure else "done"
        self.console.print(
            f"[{self.ended_runs:{width}}/{self.runs}] {run}: {outcome}{left}", markup=False, highlight=False, soft_wrap=True
        )


class _OneBar(Progress):
    def __init__(self, runs: int, epochs: int, console: Console) -> None:
        super().__init__(runs, epochs, console)
        self._bar = Bar(
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counted]}", style="bold"),
            TextColumn("{task.fields[left]}", style="cyan"),
            TextColumn("{task.fields[active]}", style="dim"),
            console=console,
        )
        self._task = self._bar.add_task("", total=1.0, counted="", left="", active="")

    def __enter__(self) -> Progress:
        self._bar.start()
        self.show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def show(self) -> None:
        left = self.time_left()
        self._bar.update(
            self._task,
            completed=self.share,
            counted=f"{self.ended_runs}/{self.runs} runs",
            left=f"{left} left" if left and self.ended_runs < self.runs else "",
            active=", ".join(map(str, self.active.values())),
        )

    def tell(self, run: Run, failure: str) -> None:
        if failure:
            self._bar.console.print(Text(f"{run} failed: {failure}", style="red"))


def progress(runs: int, epochs: int, console: Console) -> Progress:
    """The display that suits the console."""
    return (_OneBar if console.is_terminal else _Lines)(runs, epochs, console)


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
