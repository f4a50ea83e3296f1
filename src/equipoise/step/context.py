"""What the ways of taking a step have in common: tasks, parameters and processes of a training run, and the step under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equipoise.balance.base import Balancer, Observation
from equipoise.distributed import Processes
from equipoise.engine.shared import SharedParameters
from equipoise.step.seen import SeenLosses
from equipoise.step.source import FurtherSource, Source
from equipoise.tasks import Loss, Tasks, scalar

__all__ = ["Context", "Turn"]


class Turn:
    """One step under way.

    Args:
        balancer: how the tasks combine.
        source: the losses.
        step: index of the step, counted from 0.
        scale: of a gradient scaler. ``.grad`` comes out multiplied by it; the balancer does not see it.
        further: losses on further batches, for balancers that look at some.
    """

    def __init__(
        self, balancer: Balancer, source: Source, step: int, scale: Tensor | None = None, further: Sequence[FurtherSource] = ()
    ) -> None:
        self.balancer = balancer
        self.source = source
        self.step = step
        self.scale = scale
        self.further = tuple(further)


class Context:
    """Tasks, parameters and processes of a training run.

    Attributes:
        found: the leaves that a step of a balancer of losses reached, where the parameters are not known beforehand.
        here: positions of the tasks that this process named last.

    Args:
        tasks: names of the tasks; fixed by the first losses if they are not yet.
        shared: the parameters whose gradients are balanced.
        processes: those that train together.
        parameters: everything that is trained; found from the graphs if empty.
        check_finite: raise on losses and gradients that are not finite.
    """

    def __init__(
        self, tasks: Tasks, shared: SharedParameters, processes: Processes, parameters: Sequence[Tensor], check_finite: bool
    ) -> None:
        self.tasks = tasks
        self.shared = shared
        self.processes = processes
        self.parameters = list(parameters)
        self.check_finite = check_finite
        self.found: list[Tensor] = []
        self.here: list[int] = []

    # -- tasks

    def named(self, losses: Mapping[str, Loss]) -> dict[int, Loss]:
        """Losses by the position of their task."""
        if not self.tasks.known:
            self.tasks.fix(self.processes.union(list(losses)))
        self.here = self.tasks.positions(losses)
        return dict(zip(self.here, losses.values(), strict=True))

    def names(self, positions: Sequence[int]) -> tuple[str, ...]:
        """Names of the tasks at these positions."""
        names = self.tasks.names
        return names if len(positions) == len(names) else tuple(names[position] for position in positions)

    def scalar(self, position: int, loss: Loss, *, differentiable: bool = True) -> Tensor:
        """A task's loss as a tensor without dimensions, evaluated if need be."""
        return scalar(self.tasks.names[position], loss, differentiable=differentiable)

    def rehearsed(self, source: Source) -> SeenLosses:
        """The losses of all micro-batches, without a trace and without their graphs; over all processes.

        Gradients are on meanwhile, for losses may themselves differentiate: forces, gradient penalties.
        """
        seen = SeenLosses()
        with torch.enable_grad():
            for micro_batch in range(source.micro_batches):
                losses = self.named(source.rehearse(micro_batch))
                for position in losses:
                    seen.add(position, self.scalar(position, losses[position], differentiable=False))
                losses = {}  # lets go of the graphs before the next one is made
        torch.clear_autocast_cache()  # a caller's autocast would keep casts from here for the step, or for after it
        return self.gather(seen)

    def gather(self, seen: SeenLosses) -> SeenLosses:
        """Adds what the other processes saw."""
        seen.gather(self.processes, len(self.tasks), self.device())
        return seen

    def observation(
        self,
        turn: Turn,
        present: Sequence[int],
        losses: Tensor | None,
        gramian: Tensor | None = None,
        gradients: Tensor | None = None,
    ) -> Observation:
        """What every balancer may look at, of the tasks present."""
        return Observation(self.tasks.names, tuple(present), losses, gramian, gradients, turn.step, self.processes)

    # -- parameters

    def device(self) -> torch.device:
        """The device of the first parameter known."""
        known = self.parameters or self.shared.parameters or self.found or self._alone()
        return known[0].device if known else torch.device("cpu")

    def everything(self) -> list[Tensor]:
        """All parameters whose ``.grad`` a step fills."""
        if self.parameters:
            return self.parameters
        return self.found or [*self.shared.parameters, *self._alone()]

    def others(self) -> list[Tensor]:
        """All of them but the shared ones."""
        if not self.parameters:
            return self._alone()
        ids = {id(parameter) for parameter in self.shared.parameters}
        return [parameter for parameter in self.parameters if id(parameter) not in ids]

    def _alone(self) -> list[Tensor]:
        own = (leaf for found in self.shared.own.values() for leaf in found)
        return list(dict.fromkeys([*own, *self.shared.undeclared]))
