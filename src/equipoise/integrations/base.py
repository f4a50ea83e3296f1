"""What all loggers of steps have in common: which steps they write, and in which process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import torch.distributed as dist

from equipoise.errors import InputError
from equipoise.step.report import StepReport

__all__ = ["StepLogger"]


class StepLogger(ABC):
    """Writes :meth:`~equipoise.step.StepReport.scalars` of every n-th step, and of every step with an audit or a teleport.

    Call it with ``mtl.last`` after each step, or with the report that ``eq.backward`` returns or a balanced loss has:
    ``logger(loss.report)``. In the other steps it costs nothing. Under ``torch.distributed`` process 0 alone writes; it opens
    nothing before its first write. A logger for another tool derives from this and defines ``write``.

    Args:
        every: steps from one entry to the next.
        prefix: of all names.

    Raises:
        InputError: ``every`` is no whole number from 1 on.

    Example:
        >>> import torch
        >>> class Printer(StepLogger):
        ...     def write(self, scalars, step):
        ...         print(step, sorted(scalars))
        >>> log = Printer(every=2, prefix="")
        >>> for step in range(3):
        ...     log(StepReport(("a",), torch.ones(1), step=step))
        0 ['loss/a', 'skipped']
        2 ['loss/a', 'skipped']
    """

    def __init__(self, *, every: int = 1, prefix: str = "balancing") -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every must be a number of steps from 1 on; got {every!r}")
        self.every = every
        self.prefix = prefix

    @abstractmethod
    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes the numbers of one step."""

    def close(self) -> None:  # noqa: B027
        """Writes what is still held back, and closes what was opened here."""

    def __call__(self, report: StepReport, step: int | None = None) -> None:
        """Writes a step, if it is one that is to be written.

        Args:
            report: of the step, ``mtl.last``.
            step: its number; the report's own if left out, which counts from 0 since the balancer's first step.

        Raises:
            InputError: it is no report.
        """
        if not isinstance(report, StepReport):
            raise InputError(
                f"a logger writes the report of a step: mtl.last, or the .report of a balanced loss; got {report!r}"
            )
        number = report.step if step is None else step
        if number % self.every and report.audit is None and report.teleport is None:
            return
        if dist.is_available() and dist.is_initialized() and dist.get_rank():
            return
        self.write(report.scalars(self.prefix), number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
