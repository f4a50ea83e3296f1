"""Losses with fixed weights beside the balanced ones: regularizers and auxiliary losses, which no balancer sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equipoise.engine.graph import leaves_of_all
from equipoise.engine.sparse import added
from equipoise.errors import NonFiniteError
from equipoise.modes import without_autocast
from equipoise.tasks import Loss, scalar

if TYPE_CHECKING:
    from equipoise.step.context import Context, Turn

__all__ = ["Beside"]


class Beside:
    """Takes the losses with fixed weights out of a step's losses, differentiates them, and adds that to ``.grad``.

    What they reach, shared or not, gets λ times their gradient beside what the balanced losses leave there. Their gradient is
    taken as soon as a micro-batch is evaluated, as its graph is freed with the balanced losses; that is one backward pass more.

    Args:
        weights: λ by the names of the losses.
        micro_batches: of the step; the weighted sums are averaged over all of them, a loss that is missing counting as 0.
    """

    def __init__(self, weights: Mapping[str, float], micro_batches: int) -> None:
        self.weights = dict(weights)
        self.micro_batches = micro_batches
        self._turn: Turn | None = None
        self._context: Context | None = None
        self._met: set[int] = set()
        self._gradients: dict[Tensor, Tensor] = {}
        self._values: dict[str, list[Tensor]] = {}

    def begin(self, context: Context, turn: Turn) -> None:
        """A step begins: from now on losses are differentiated."""
        self._context, self._turn = context, turn
        self._met, self._gradients, self._values = set(), {}, {}

    def without(self, losses: Mapping[str, Loss]) -> dict[str, Loss]:
        """The balanced losses alone."""
        return {name: loss for name, loss in losses.items() if name not in self.weights}

    def take(self, micro_batch: int, losses: Mapping[str, Loss]) -> dict[str, Loss]:
        """The balanced losses of a micro-batch; the others are differentiated, once per step."""
        if self._turn is not None and self._context is not None and micro_batch not in self._met:
            self._met.add(micro_batch)
            self._differentiate({name: scalar(name, losses[name]) for name in self.weights if name in losses})
        return self.without(losses)

    def _differentiate(self, values: Mapping[str, Tensor]) -> None:
        turn, context = self._turn, self._context
        assert turn is not None
        assert context is not None
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach())
            # Before anything has changed; on a GPU nobody waits for a number here.
            if context.check_finite and value.device.type == "cpu" and not math.isfinite(value.item()):
                raise self._not_finite("loss", (name,), turn.step)
        if not values:
            return
        share = 1.0 / (self.micro_batches * context.processes.count)
        seeds = [torch.full_like(value, self.weights[name] * share) for name, value in values.items()]
        if turn.scale is not None:
            seeds = [seed * turn.scale.to(seed) for seed in seeds]
        leaves = leaves_of_all(list(values.values()))
        with without_autocast(leaves[0].device):
            found = torch.autograd.grad(list(values.values()), leaves, seeds, retain_graph=True, allow_unused=True)
        for leaf, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                self._gradients[leaf] = added(self._gradients.get(leaf), gradient)

    def deliver(self, step: int) -> dict[str, Tensor]:
        """Adds the gradients to ``.grad``; the losses' means by name.

        Raises:
            NonFiniteError: a gradient is not finite, and no scaler looks.
        """
        context, turn = self._context, self._turn
        assert context is not None
        assert turn is not None
        if context.processes.count > 1:
            everything = list(dict.fromkeys([*context.everything(), *self._gradients]))
            before = [leaf.grad for leaf in everything]
            for leaf in everything:
                leaf.grad = self._gradients.get(leaf)
            context.processes.sum_gradients(everything)
            self._gradients = {leaf: leaf.grad for leaf in everything if leaf.grad is not None}
            for leaf, grad in zip(everything, before, strict=True):
                leaf.grad = grad
        if context.check_finite and not turn.scaled and self._gradients:
            dense = [gradient._values() if gradient.is_sparse else gradient for gradient in self._gradients.values()]
            if not all(bool(torch.isfinite(gradient).all()) for gradient in dense):
                raise self._not_finite("gradient", tuple(self._values), step)
        for leaf, gradient in self._gradients.items():
            leaf.grad = added(leaf.grad, gradient)
        means = {name: torch.stack(values).mean() for name, values in self._values.items()}
        self._context = self._turn = None
        self._met, self._gradients, self._values = set(), {}, {}
        return means

    @staticmethod
    def _not_finite(what: str, names: tuple[str, ...], step: int) -> NonFiniteError:
        named = ", ".join(f'"{name}"' for name in names)
        return NonFiniteError(
            f"the {what} of {named}, which has a fixed weight, is not finite in step {step}; the step was not taken and "
            f"nothing has changed",
            tasks=names,
            step=step,
            what=what,
        )
