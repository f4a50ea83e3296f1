"""The losses of a step, added up over its micro-batches and over the processes that train together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equipoise.distributed import Processes

__all__ = ["SeenLosses"]


class SeenLosses:
    """Sums and counts of detached losses by the position of their task."""

    def __init__(self, losses: Mapping[int, Tensor] | None = None) -> None:
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}
        self._means: Tensor | None = None
        for position, loss in (losses or {}).items():
            self.add(position, loss)

    def add(self, position: int, loss: Tensor, *, attached: bool = False) -> None:
        """Counts one micro-batch's loss of a task; ``attached`` keeps its graph."""
        loss = loss if attached else loss.detach()
        self._means = None
        self.sums[position] = self.sums[position] + loss if position in self.sums else loss
        self.counts[position] = self.counts.get(position, 0) + 1

    @property
    def present(self) -> tuple[int, ...]:
        """Positions of the tasks seen, ascending."""
        return tuple(sorted(self.counts))

    def means(self) -> Tensor:
        """Mean losses of the tasks seen, ``[k]``, in float32 or the losses' own precision if that is higher."""
        if self._means is None:
            self._means = self._mean()
        return self._means

    def _mean(self) -> Tensor:
        present = self.present
        sums = [self.sums[position] for position in present]
        first = sums[0]
        if any(loss.dtype != first.dtype or loss.device != first.device for loss in sums):
            sums = [loss.to(first.device, torch.float64) for loss in sums]
        stacked = torch.stack(sums)
        if stacked.dtype in (torch.float16, torch.bfloat16):
            stacked = stacked.float()
        counts = [self.counts[position] for position in present]
        return stacked if all(count == 1 for count in counts) else stacked / stacked.new_tensor(counts)

    def gather(self, processes: Processes, tasks: Sequence[str], device: torch.device, what: str = "losses") -> None:
        """Adds what the other processes saw; ``what`` says at which point of the step that is."""
        if processes.count == 1:
            return
        both = torch.zeros(2, len(tasks), dtype=torch.float64, device=device)
        for position, count in self.counts.items():
            both[0, position] = self.sums[position]
            both[1, position] = count
        both = processes.sum(both, f"{what} of the tasks {', '.join(tasks)}")
        self.counts = {position: int(count) for position, count in enumerate(both[1].tolist()) if count > 0}
        self.sums = {position: both[0, position] for position in self.counts}
        self._means = None
