"""The way of balancers that look at losses only: one ordinary backward pass of the weighted losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.mixins import Accompanied, Companion
from equipoise.engine.graph import leaves_of_all, roots
from equipoise.engine.shared import counted
from equipoise.modes import without_autocast
from equipoise.step.checking import check_gradients, check_losses
from equipoise.step.context import Context, Turn
from equipoise.step.deciding import decide_weights
from equipoise.step.finding import check_alike, find_shared
from equipoise.step.report import StepReport
from equipoise.step.seen import SeenLosses
from equipoise.tasks import Loss, by_graph

__all__ = ["ByLosses"]


class ByLosses:
    """Weighs the losses and differentiates their sum."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._callables = False

    def run(self, turn: Turn) -> tuple[StepReport, Observation]:
        """Fills ``.grad``; says what happened and what the balancer may learn from."""
        context, source, balancer = self.context, turn.source, turn.balancer
        context.found = []
        several, looked_at = source.micro_batches > 1, True
        # Should it turn out that the losses have to be evaluated twice, both times draw the same random numbers.
        again = source.rehearsal() if several or turn.step == 0 else None
        first: dict[int, Loss] | None = None
        depends = isinstance(balancer, LossBalancer) and balancer.depends_on_losses
        if not (depends and (several or self._callables)):
            first = context.first(source)
            self._callables = any(not isinstance(loss, Tensor) for loss in first.values())
            if not isinstance(balancer, LossBalancer):
                find_shared(context, first, source)
        if first is not None and not several and not self._callables:
            values: dict[int, Loss] = {position: context.scalar(position, loss) for position, loss in first.items()}
            seen = context.gather(SeenLosses({p: v for p, v in values.items() if isinstance(v, Tensor)}))
            weights = decide_weights(context, turn, seen.present, seen.means())
            self._descend(turn, values, seen.present, weights, seen.counts, known=True)
        elif depends or source.collected:
            seen = self._rehearse(turn, again or source.rehearsal())
            weights = decide_weights(context, turn, seen.present, seen.means())
            self._descend(turn, first, seen.present, weights, seen.counts)
        else:
            assert first is not None
            again = again or source.rehearsal()
            seen, weights = self._in_one_go(turn, first, again)
            looked_at = False
        reached, context.found = context.found, counted(context.found, context.found, context.shared.declared)
        context.shared.inputs = len(reached) - len(context.found)
        companion = balancer.companion() if isinstance(balancer, Accompanied) else None
        if companion is not None:
            context.found += companion.lent
        check_alike(context, context.everything())
        context.processes.sum_gradients(context.everything())
        present, means = seen.present, seen.means()
        names = context.names(present)
        if context.check_finite and not looked_at:
            check_losses(means, names, turn.step)
        check_gradients(context, turn, context.everything(), present)
        report = StepReport(names, means, weights.detach(), None, turn.step)
        return report, context.observation(turn, present, means)

    def _rehearse(self, turn: Turn, random_state: AbstractContextManager[None]) -> SeenLosses:
        """All losses of the step, without graphs."""
        with random_state:
            return self.context.rehearsed(turn.source)

    def _in_one_go(self, turn: Turn, first: dict[int, Loss], again: AbstractContextManager[None]) -> tuple[SeenLosses, Tensor]:
        """Weights that do not depend on the losses are known before the first backward pass."""
        context = self.context
        if turn.source.micro_batches == 1:
            none = {position: torch.zeros((), device="cpu") for position in first}
            expected = context.gather(SeenLosses(none), "presence")
            counts, present = expected.counts, expected.present
        else:
            present = tuple(range(len(context.tasks)))
            counts = dict.fromkeys(present, turn.source.micro_batches * context.processes.count)
        before = turn.balancer.state_dict()
        weights = decide_weights(context, turn, present, None)
        seen = context.gather(self._descend(turn, first, present, weights, counts))
        if seen.counts == counts:
            return seen, weights
        # Some micro-batches lacked a task, so its mean was taken over too many: once more, now that this is known.
        for parameter in context.everything():
            parameter.grad = None
        turn.balancer.load_state_dict(before)
        weights = decide_weights(context, turn, seen.present, seen.means())
        with again:
            self._descend(turn, None, seen.present, weights, seen.counts, turn.source.rehearse)
        return seen, weights

    def _descend(
        self,
        turn: Turn,
        first: dict[int, Loss] | None,
        present: Sequence[int],
        weights: Tensor,
        counts: Mapping[int, int],
        evaluate: Callable[[int], Mapping[str, Loss]] | None = None,
        *,
        known: bool = False,
    ) -> SeenLosses:
        """The weighted backward pass, micro-batch after micro-batch and callable after callable.

        ``known``: the first losses are checked scalars, of which nothing is to be noted.
        """
        context, seen = self.context, SeenLosses()
        evaluate = evaluate or turn.source.losses
        seeds = weights.to(context.device())
        if any(counts[position] != 1 for position in present):
            seeds = seeds / seeds.new_tensor([counts[position] for position in present])
        if turn.scale is not None:
            seeds = seeds * turn.scale.to(seeds.device)
        places = {position: place for place, position in enumerate(present)}
        companion = turn.balancer.companion() if isinstance(turn.balancer, Accompanied) else None
        for micro_batch in range(turn.source.micro_batches):
            reuse = first if micro_batch == 0 else None
            losses = context.named(evaluate(micro_batch)) if reuse is None else reuse
            groups = by_graph(losses)
            for index, group in enumerate(groups):
                if known:
                    values = [cast(Tensor, losses[position]) for position in group]
                else:
                    values = [context.scalar(position, losses[position]) for position in group]
                    for position, value in zip(group, values, strict=True):
                        seen.add(position, value)
                    del value
                if not context.parameters:
                    context.found = list(dict.fromkeys([*context.found, *leaves_of_all(values)]))
                order = [places[position] for position in group]
                starts, gradients = roots(values, seeds if order == list(range(len(seeds))) else seeds[order])
                if companion is not None:
                    starts.append(companion.output)
                    gradients.append(self._companion_seed(companion, turn))
                with without_autocast(values[0].device), self._task_specific_unweighted(turn, present, weights):
                    torch.autograd.backward(
                        starts,
                        gradients,
                        # Callables may build on what the batch's losses have in common: its graph lives on for them.
                        retain_graph=index < len(groups) - 1,
                    )
                if companion is not None and companion.parameters:
                    self._deliver(companion, turn)
                companion = None
                del values, starts
        if companion is not None and companion.lent:  # this process holds no task
            torch.autograd.backward([companion.output], [self._companion_seed(companion, turn)])
        return seen

    def _companion_seed(self, companion: Companion, turn: Turn) -> Tensor:
        for parameter in companion.parameters:
            parameter.grad = None
        seed = companion.seed.to(companion.output) / self.context.processes.count
        return seed if turn.scale is None else seed * turn.scale.to(seed)

    def _deliver(self, companion: Companion, turn: Turn) -> None:
        """The balancer's own parameters: averaged over the processes, and free of the scaler, which does not know them."""
        parameters = list(companion.parameters)
        self.context.processes.sum_gradients(parameters)
        if turn.scale is not None:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad / turn.scale.to(parameter.grad)
        check_gradients(self.context, turn, parameters, range(len(self.context.tasks)))

    @contextmanager
    def _task_specific_unweighted(self, turn: Turn, present: Sequence[int], weights: Tensor) -> Iterator[None]:
        """Weights kept from a Gramian are meant for the shared parameters; the others get their task's own gradient."""
        handles = []
        if not isinstance(turn.balancer, LossBalancer):
            for position, weight in zip(present, weights.tolist(), strict=True):
                own = self.context.shared.own.get(position, ())
                handles += [leaf.register_hook(lambda gradient, weight=weight: gradient / weight) for leaf in own]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
