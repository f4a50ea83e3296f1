"""What the ways of taking a step have in common: tasks, parameters and processes of a training run, and the step under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equipoise.balance.base import Balancer, Layout, Observation
from equipoise.distributed import Processes, Wrappers
from equipoise.engine.shared import SharedParameters
from equipoise.step.metric import OptimizerMetric, check_metric
from equipoise.step.seen import SeenLosses
from equipoise.step.source import FurtherSource, Source
from equipoise.tasks import Loss, Tasks, scalar

__all__ = ["Context", "Turn", "Unlabelled"]


class Unlabelled(Exception):
    """No batch of the step holds a task's loss, on any process: no error, but it ends a step that has nothing to do."""


class Turn:
    """One step under way.

    Args:
        balancer: how the tasks combine.
        source: the losses.
        step: index of the step, counted from 0.
        scale: ``.grad`` comes out multiplied by it; the balancer does not see it.
        further: losses on further batches, for balancers that look at some.
        scaled: whether the scale is a gradient scaler's, which looks by itself for what is not finite.
    """

    def __init__(
        self,
        balancer: Balancer,
        source: Source,
        step: int,
        scale: Tensor | None = None,
        further: Sequence[FurtherSource] = (),
        *,
        scaled: bool = True,
    ) -> None:
        self.balancer = balancer
        self.source = source
        self.step = step
        self.scale = scale
        self.further = tuple(further)
        self.scaled = scaled and scale is not None


class Context:
    """Tasks, parameters and processes of a training run.

    Attributes:
        found: the leaves that a step of a balancer of losses reached, where the parameters are not known beforehand.
        here: positions of the tasks that this process named last.
        evaluated: tasks whose callables the drop-in has evaluated to see what they reach.
        optimizers: those that will take the step, where they are known.

    Args:
        tasks: names of the tasks; fixed by the first losses if they are not yet.
        shared: the parameters whose gradients are balanced.
        processes: those that train together.
        parameters: everything that is trained; found from the graphs if empty.
        check_finite: raise on losses and gradients that are not finite.
        model: whose names the parameters have, where it is known.
    """

    def __init__(
        self,
        tasks: Tasks,
        shared: SharedParameters,
        processes: Processes,
        parameters: Sequence[Tensor],
        check_finite: bool,
        model: nn.Module | None = None,
    ) -> None:
        self.tasks = tasks
        self.shared = shared
        self.processes = processes
        self.wrappers = Wrappers(processes)
        self.parameters = list(parameters)
        self.check_finite = check_finite
        self.model = model
        self.optimizers: Sequence[torch.optim.Optimizer] = ()
        self._nameless: list[Tensor] = []
        self.found: list[Tensor] = []
        self.here: list[int] = []
        self.evaluated: set[str] = set()

    def begin(self, what: str) -> None:
        """Says which step begins; in all processes that train together it is the same one."""
        self.processes.step = what
        self.wrappers.begin()

    def metric(self, balancer: Balancer) -> OptimizerMetric | None:
        """The metric of the balancer's Gramian; ``None`` for plain inner products. Raises InputError: it cannot be had."""
        check_metric(balancer, self.optimizers)
        return None if getattr(balancer, "metric", None) is None else OptimizerMetric(self.optimizers)

    # -- tasks

    def named(self, losses: Mapping[str, Loss]) -> dict[int, Loss]:
        """Losses by the position of their task; there may be none."""
        self.wrappers.look(losses)
        if not self.tasks.known and (names := self.processes.union(list(losses))):
            self.tasks.fix(names)
        self.here = self.tasks.positions(losses)
        return dict(zip(self.here, losses.values(), strict=True))

    def first(self, source: Source) -> dict[int, Loss]:
        """The losses of a step's first micro-batch by position; where it has none, a later one says what the tasks are."""
        losses = source.losses(0)
        if not losses and not self.tasks.known and source.micro_batches > 1:
            with source.rehearsal():
                later = (source.rehearse(micro_batch) for micro_batch in range(1, source.micro_batches))
                self.named(next(filter(None, later), {}))
        return self.named(losses)

    def names(self, positions: Sequence[int]) -> tuple[str, ...]:
        """Names of the tasks at these positions."""
        names = self.tasks.names
        return names if len(positions) == len(names) else tuple(names[position] for position in positions)

    def scalar(self, position: int, loss: Loss, *, differentiable: bool = True) -> Tensor:
        """A task's loss as a tensor without dimensions, evaluated if need be."""
        name = self.tasks.names[position]
        value = scalar(name, loss, differentiable=differentiable)
        if differentiable and self.wrappers.active:
            self.wrappers.look({name: value})
            self.wrappers.sleep()
        return value

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

    def gather(self, seen: SeenLosses, what: str = "losses") -> SeenLosses:
        """Adds what the other processes saw; ``what`` says at which point of the step that is.

        Raises:
            Unlabelled: nobody saw anything.
        """
        seen.gather(self.processes, self.tasks.names, self.device(), what)
        if not seen.counts:
            raise Unlabelled
        return seen

    def forget_tasks(self) -> None:
        """Makes the tasks unknown again, and with them what they were seen to reach."""
        self.tasks.forget()
        self.shared.forget()
        self.found, self.here = [], []

    def observation(
        self,
        turn: Turn,
        present: Sequence[int],
        losses: Tensor | None,
        gramian: Tensor | None = None,
        gradients: Tensor | None = None,
        layout: Layout | None = None,
    ) -> Observation:
        """What every balancer may look at, of the tasks present."""
        return Observation(self.tasks.names, tuple(present), losses, gramian, gradients, turn.step, self.processes, layout)

    # -- parameters

    def layout(self, parameters: Sequence[Tensor], sizes: Sequence[int]) -> Layout:
        """What the columns of rows belong to, for balancers that keep rows while layers are frozen and unfrozen.

        Parameters have their names in the model. Those without are counted, the declared ones first.
        """
        named = () if self.model is None else self.model.named_parameters()
        names = {id(parameter): name.replace("_orig_mod.", "") for name, parameter in named}
        met = {id(parameter) for parameter in self._nameless} | names.keys()
        fresh = [*self.shared.declared, *parameters]
        self._nameless += [p for p in dict.fromkeys(fresh) if id(p) not in met]
        names |= {id(p): f"{place}: {list(p.shape)}" for place, p in enumerate(self._nameless)}
        return tuple((names[id(parameter)], size) for parameter, size in zip(parameters, sizes, strict=True))

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
