"""What the ways of taking a step have in common: tasks, parameters, decisions and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.double_sampling import CrossObservation
from equipoise.balance.mixins import ElsewhereObservation, LooksElsewhere
from equipoise.compiled import not_compiled
from equipoise.distributed import Processes
from equipoise.engine.graph import is_compiled
from equipoise.engine.reach import Reach
from equipoise.engine.shared import SharedParameters
from equipoise.errors import InputError
from equipoise.step.crossing import Crossing
from equipoise.step.finite import as_tensor, check_losses, nonfinite_gradients, raise_nonfinite, which_finite
from equipoise.step.seen import SeenLosses
from equipoise.step.source import Source, Turn
from equipoise.tasks import Loss, Tasks, scalar

__all__ = ["Context"]


class Context:
    """Tasks, parameters and processes of a training run.

    Args:
        tasks: names of the tasks; fixed by the first losses if they are not yet.
        shared: the parameters whose gradients are balanced.
        processes: those that train together.
        parameters: everything that is trained; found from the graphs if empty.
        check_finite: raise on losses and gradients that are not finite.
    """

    def __init__(
        self,
        tasks: Tasks,
        shared: SharedParameters,
        processes: Processes,
        parameters: Sequence[Tensor],
        check_finite: bool,
    ) -> None:
        self.tasks = tasks
        self.shared = shared
        self.processes = processes
        self.parameters = list(parameters)
        self.check_finite = check_finite
        self.found: list[Tensor] = []
        self._here: list[int] = []

    # -- tasks

    def named(self, losses: Mapping[str, Loss]) -> dict[int, Loss]:
        """Losses by the position of their task."""
        if not self.tasks.known:
            self.tasks.fix(self.processes.union(list(losses)))
        self._here = self.tasks.positions(losses)
        return dict(zip(self._here, losses.values(), strict=True))

    def names(self, positions: Sequence[int]) -> tuple[str, ...]:
        """Names of the tasks at these positions."""
        names = self.tasks.names
        return names if len(positions) == len(names) else tuple(names[position] for position in positions)

    def scalar(self, position: int, loss: Loss, *, differentiable: bool = True) -> Tensor:
        """A task's loss as a tensor without dimensions, evaluated if need be."""
        return scalar(self.tasks.names[position], loss, differentiable=differentiable)

    def gather(self, seen: SeenLosses) -> SeenLosses:
        """Adds what the other processes saw."""
        seen.gather(self.processes, len(self.tasks), self.device())
        return seen

    # -- parameters

    def device(self) -> torch.device:
        """The device of the first parameter known."""
        known = self.parameters or self.shared.parameters or self.found
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

    def find_shared(self, losses: Mapping[int, Loss], source: Source) -> None:
        """Makes sure that it is known which parameters are shared, as far as the tasks seen tell."""
        every = range(len(self.tasks))
        if self.parameters and self.shared.current(self.parameters):
            # Processes and micro-batches may bring tasks that these losses lack.
            simple = self.processes.count == 1 and source.micro_batches == 1
            if self.shared.knows(losses if simple else every):
                return
        sightings = self._look(losses, source)
        if self.parameters:
            sightings = self.processes.pool(sightings, [*self.parameters, *self.shared.declared])
        names = {position: self.tasks.names[position] for sighting in sightings for position in sighting.alone}
        self.shared.settle(sightings, names, self.parameters)

    def _look(self, losses: Mapping[int, Loss], source: Source) -> list[Reach]:
        """What the losses of all micro-batches reach.

        Callables and later micro-batches are evaluated once for that without a trace: it must be known before the first
        one is differentiated. So are compiled losses, eagerly, for the graph of a compiled function is a single node.
        """
        eager = [loss for loss in losses.values() if isinstance(loss, Tensor)]
        whole = len(eager) == len(losses)
        if self.parameters and any(is_compiled(loss) for loss in eager):
            whole = False
        names = dict(enumerate(self.tasks.names))
        if whole and source.micro_batches == 1:
            return [self.shared.look(losses, names)]
        sightings: list[Reach] = []
        unseen = set(names)
        with source.rehearsal(), not_compiled():
            for micro_batch in range(source.micro_batches):
                part = losses if whole and micro_batch == 0 else self.named(source.rehearse(micro_batch))
                sightings.append(self.shared.look(part, names))
                unseen -= part.keys()
                if not unseen:
                    break
        return sightings

    def _alone(self) -> list[Tensor]:
        own = (leaf for found in self.shared.own.values() for leaf in found)
        return list(dict.fromkeys([*own, *self.shared.undeclared]))

    # -- decisions

    def decide(
        self,
        turn: Turn,
        present: Sequence[int],
        losses: Tensor | None,
        *,
        gramian: Tensor | None = None,
        crossing: Crossing | None = None,
    ) -> Tensor:
        """The balancer's weights ``[k]``, checked."""
        names = self.names(present)
        if losses is not None and self.check_finite:
            check_losses(losses, names, turn.step)
        observation = self._shown(turn, present, losses, gramian, crossing)
        with torch.no_grad():
            weights = as_tensor(turn.balancer.decide(observation), turn.balancer)
        if weights.shape != (len(present),):
            raise InputError(
                f"{type(turn.balancer).__name__} must answer with one weight for each of the {len(present)} tasks "
                f"present; it gave the shape {list(weights.shape)}"
            )
        if self.check_finite and weights.device.type == "cpu":
            self._check_weights(turn, weights, names, losses)
        return weights

    def observation(
        self,
        turn: Turn,
        present: Sequence[int],
        losses: Tensor | None,
        gramian: Tensor | None = None,
        gradients: Tensor | None = None,
    ) -> Observation:
        """What every balancer may look at."""
        return Observation(self.tasks.names, tuple(present), losses, gramian, gradients, turn.step, self.processes)

    def _shown(
        self, turn: Turn, present: Sequence[int], losses: Tensor | None, gramian: Tensor | None, crossing: Crossing | None
    ) -> Observation:
        """What this balancer decides on."""
        common = (self.tasks.names, tuple(present), losses, gramian, None, turn.step, self.processes)
        if crossing is not None:
            return CrossObservation(*common, cross=crossing.products, crossed=crossing.present)
        if isinstance(turn.balancer, LooksElsewhere) and turn.balancer.looks_elsewhere:
            elsewhere = turn.source.elsewhere()
            if elsewhere is not None:
                return ElsewhereObservation(*common, elsewhere=elsewhere)
        return Observation(*common)

    def _check_weights(self, turn: Turn, weights: Tensor, names: Sequence[str], losses: Tensor | None) -> None:
        finite = which_finite(weights)
        if all(finite):
            return
        bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
        detail = f" ({turn.balancer!r}"
        if losses is not None:
            pairs = zip(names, losses.tolist(), strict=True)
            detail += "; losses: " + ", ".join(f"{name} {loss:.4g}" for name, loss in pairs)
        raise_nonfinite("weight", bad, turn.step, detail + ")")

    # -- checks

    @property
    def looks_early(self) -> bool:
        """Whether this process may raise on its own losses, before the first backward pass.

        A process that leaves the step alone lets the others wait for it; and on a GPU, callers should leave it, for the
        host would have to wait. In both cases the losses are looked at together with the gradients.
        """
        return self.check_finite and self.processes.count == 1

    def check_alike(self, parameters: Sequence[Tensor]) -> None:
        """Raises on all processes if the parameters found in the graphs cannot be told apart across the processes.

        Where the trained parameters are known from the optimizer, they have the same places everywhere.
        """
        if self.parameters or self.processes.count == 1:
            return
        if not self.processes.alike(repr((sorted(self._here), [list(parameter.shape) for parameter in parameters]))):
            raise InputError(
                f"the processes' losses differ in their tasks or in the parameters they reach (here: "
                f"{', '.join(self.tasks.names[position] for position in sorted(self._here))}), and the drop-in cannot tell "
                f"which gradients belong together; use MultiTaskOptimizer, or give every process all tasks"
            )

    def check_gradients(self, turn: Turn, parameters: Sequence[Tensor], present: Sequence[int]) -> None:
        """Raises, naming the tasks to blame, if a ``.grad`` is not finite. A gradient scaler looks by itself."""
        if not self.check_finite or turn.scale is not None:
            return
        bad = nonfinite_gradients(parameters)
        if bad:
            blamed = self._blame(bad, turn.source, present)
            detail = "" if blamed else " (in their weighted sum)"
            raise_nonfinite("gradient", self.names(blamed or present), turn.step, detail)

    def _blame(self, bad: Sequence[Tensor], source: Source, present: Sequence[int]) -> list[int]:
        """Which tasks the non-finite gradients come from, found out by differentiating them one by one."""
        ids = {id(parameter) for parameter in bad}
        owners = [p for p in present if any(id(leaf) in ids for leaf in self.shared.own.get(p, ()))]
        blamed = owners or self._differentiated_one_by_one(bad, source)
        # The task to blame may be one that this process does not see fail.
        flags = torch.zeros(len(self.tasks), device=self.device())
        flags[blamed] = 1.0
        return [position for position, flag in enumerate(self.processes.sum(flags).tolist()) if flag]

    def _differentiated_one_by_one(self, bad: Sequence[Tensor], source: Source) -> list[int]:
        blamed: set[int] = set()
        for micro_batch in range(source.micro_batches):
            for position, loss in self.named(source.rehearse(micro_batch)).items():
                value = self.scalar(position, loss)
                try:
                    gradients = torch.autograd.grad(value, list(bad), retain_graph=True, allow_unused=True)
                except RuntimeError:
                    return []  # the drop-in's graphs are gone by now
                if any(gradient is not None and not bool(torch.isfinite(gradient).all()) for gradient in gradients):
                    blamed.add(position)
        return sorted(blamed)
