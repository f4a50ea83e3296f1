"""What a step costs with each class of method, timed side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.errors import EquipoiseError
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["CLASSES", "Cost", "costs"]

CLASSES = (
    ("plain training", None),
    ("losses only", "rlw"),
    ("losses, and again after the step", "famo"),
    ("proxy Gramian", "fairgrad@last(audit=0)"),  # audits are rare, and plan to cost a tenth of plain training at most
    ("exact Gramian", "fairgrad"),
)
"""Classes of methods by what they look at, each with a method that stands for it; ``None`` for a loop without the library."""

_ROUNDS = 9
_LONGEST = 20.0  # seconds, after which no further round is begun


@dataclass(frozen=True)
class Cost:
    """What a step costs.

    Attributes:
        kind: of method.
        method: that was timed; empty for plain training.
        milliseconds: per step, the median.
        ratio: to plain training.
        memory_mb: most memory allocated on the GPU meanwhile, in MB of 10⁶ bytes; ``None`` on a CPU.
        failure: why it could not be timed; empty if it was.
    """

    kind: str
    method: str
    milliseconds: float | None = None
    ratio: float | None = None
    memory_mb: float | None = None
    failure: str = ""


def costs(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    kinds: Sequence[tuple[str, Any]] = CLASSES,
    *,
    shared: nn.Module | Sequence[Tensor] | None = None,
    longest: float = _LONGEST,
) -> list[Cost]:
    """Takes steps of every class in turn on the same batches, so that whatever else the machine does meets all of them.

    Parameters and the optimizer's state move; the caller puts them back.
    """
    steps: dict[str, Callable[[Any], object]] = {}
    failures: dict[str, str] = {}
    for kind, method in kinds:
        try:
            steps[kind] = _step(objective, optimizer, method, shared)
        except EquipoiseError as error:
            failures[kind] = str(error)
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    memory: dict[str, float] = {}
    cuda = any(parameter.is_cuda for parameter in objective.model.parameters())
    # On one thread, what the processor does for other programs need not count.
    clock = time.process_time if not cuda and torch.get_num_threads() == 1 else time.perf_counter
    began = time.perf_counter()
    for number in range(_ROUNDS + 1):
        batch = next(batches)
        for kind, step in list(steps.items()):
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = clock()
            try:
                step(batch)
            except EquipoiseError as error:
                failures[kind] = str(error)
                del steps[kind]
                continue
            if cuda:
                torch.cuda.synchronize()
                memory[kind] = torch.cuda.max_memory_allocated() / 1e6
            if number:  # the first finds what is shared, and fills caches
                seconds[kind].append(clock() - start)
        if number > 1 and time.perf_counter() - began > longest:
            break
    plain = median(seconds[kinds[0][0]]) if seconds.get(kinds[0][0]) else None
    found = []
    for kind, method in kinds:
        name = "" if method is None else str(method).replace("(audit=0)", "")
        if kind in failures:
            found.append(Cost(kind, name, failure=failures[kind]))
            continue
        own = median(seconds[kind])
        found.append(Cost(kind, name, 1e3 * own, None if plain is None else own / plain, memory.get(kind)))
    return found


def _step(
    objective: Objective, optimizer: torch.optim.Optimizer, method: Any, shared: nn.Module | Sequence[Tensor] | None
) -> Callable[[Any], object]:
    if method is not None:
        return MultiTaskOptimizer(objective, optimizer, method, shared=shared).step

    def plain(batch: Any) -> None:
        optimizer.zero_grad()
        losses = objective(batch)
        torch.autograd.backward(torch.stack([loss.reshape(()) for loss in losses.values()]).sum())
        optimizer.step()

    return plain
