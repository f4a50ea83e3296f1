"""The losses of a step, each at a point of its own where it is larger, with gradients that belong to the parameters of now."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from equipoise.balance.mixins import Elsewhere, Perturbing
from equipoise.errors import InputError
from equipoise.modes import not_compiled
from equipoise.randomness import RandomState
from equipoise.step.context import Context
from equipoise.step.finding import find_shared
from equipoise.step.seen import SeenLosses
from equipoise.step.source import Batches, Source
from equipoise.tasks import Loss, by_graph, scalar

__all__ = ["Perturbed", "perturbed"]

_TINY = 1e-12


def perturbed(balancer: object, source: Source, context: Context, scale: Tensor | None) -> Perturbed | None:
    """The losses at points of their own, for balancers that want them there.

    Raises:
        InputError: only the losses are known, not how to evaluate them.
    """
    if not isinstance(balancer, Perturbing):
        return None
    if not isinstance(source, Batches):
        raise InputError(f"{balancer!r} evaluates the losses at other parameters; use MultiTaskOptimizer")
    return Perturbed(source, balancer, context, scale)


class Perturbed:
    """Evaluates the loss of task k at θ + ε_k, differentiable with respect to θ; see :class:`~equipoise.SAMO`.

    The ε_k are found when losses are first asked for. All evaluations of a micro-batch draw the same random numbers; its
    buffers move in the evaluation at θ alone.

    Args:
        source: the losses at θ.
        balancer: says how far to go.
        context: tasks and parameters.
        scale: of a gradient scaler.
    """

    collected = False
    beside = None

    def __init__(self, source: Batches, balancer: Perturbing, context: Context, scale: Tensor | None) -> None:
        self._source = source
        self._context = context
        self._scale = scale
        self._how = balancer.perturbation
        self.micro_batches = source.micro_batches
        self.unlabelled = source.unlabelled
        self._parameters = source.elsewhere().parameters()
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._gradients: dict[str, Tensor] | None = None
        self._signs: dict[int, tuple[float, Tensor]] = {}
        self._random: list[RandomState] = []
        self._here: list[list[str]] = []
        self._before = SeenLosses()
        self._moved = False

    def losses(self, micro_batch: int) -> dict[str, Loss]:
        """At the points of the tasks; evaluated one after the other."""
        if self._gradients is None:
            self._find(self._source.losses)
            self._moved = True
        elif not self._moved:
            # A rehearsal found the points, which left buffers and random numbers where they were.
            self._moved = True
            for place in range(self.micro_batches):
                self._source.losses(place)
        return {name: self._at_its_point(micro_batch, name) for name in self._here[micro_batch]}

    def rehearse(self, micro_batch: int) -> dict[str, Loss]:
        """The same; buffers stay as they are."""
        if self._gradients is None:
            with self._source.rehearsal():
                self._find(self._source.rehearse)
        return {name: self._at_its_point(micro_batch, name) for name in self._here[micro_batch]}

    def rehearsal(self) -> AbstractContextManager[None]:
        """As of the losses at θ."""
        return self._source.rehearsal()

    def batch(self, micro_batch: int) -> Any:
        """One of the micro-batches."""
        return self._source.batch(micro_batch)

    def elsewhere(self) -> Elsewhere:
        """On all micro-batches."""
        return self._source.elsewhere()

    def means(self) -> Tensor:
        """The losses at θ ``[k]``."""
        return self._before.means()

    # -- the points

    def _find(self, evaluate: Callable[[int], dict[str, Loss]]) -> None:
        """The gradient of the sum of all losses at θ, and on which side of each random direction a task's loss is larger."""
        context = self._context
        total: dict[str, Tensor] = {}
        with torch.enable_grad():
            for micro_batch in range(self.micro_batches):
                self._random.append(self._source.random_state())
                losses = context.named(evaluate(micro_batch))
                self._here.append([context.tasks.names[position] for position in losses])
                if micro_batch == 0:
                    find_shared(context, losses, self._source)
                # Callables come last, one graph at a time: they may build on what the batch's other losses have in common.
                groups = by_graph(losses)
                for place, group in enumerate(groups):
                    self._take(total, losses, group, retain_graph=place < len(groups) - 1)
        context.gather(self._before)
        for name, parameter in self._parameters.items():
            total.setdefault(name, torch.zeros_like(parameter))
        self._gradients = self._over_processes(total)
        states, slopes = {}, torch.zeros(len(self._before.present), dtype=torch.float64, device=context.device())
        for place, position in enumerate(self._before.present):
            states[position] = self._how.generator.get_state()
            slopes[place] = self._slope(position, self._drawn(self._how.generator))
        slopes = context.processes.sum(slopes, "slopes of the losses").sign()
        self._signs = {p: (sign, states[p]) for p, sign in zip(states, slopes.nan_to_num(0.0).tolist(), strict=True)}

    def _over_processes(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Their sums over the processes; what has one dtype and device travels as one message."""
        if self._context.processes.count == 1:
            return gradients
        summed: dict[str, Tensor] = {}
        for kind in dict.fromkeys((gradient.dtype, gradient.device) for gradient in gradients.values()):
            names = [name for name, gradient in gradients.items() if (gradient.dtype, gradient.device) == kind]
            flat = self._context.processes.sum(torch.cat([gradients[name].flatten() for name in names]), "the mean gradient")
            parts = flat.split([gradients[name].numel() for name in names])
            summed |= {name: part.view_as(gradients[name]) for name, part in zip(names, parts, strict=True)}
        return summed

    def _take(self, total: dict[str, Tensor], losses: dict[int, Loss], group: Sequence[int], *, retain_graph: bool) -> None:
        """Adds up the gradients of some of the losses, and takes these out."""
        values = {position: self._context.scalar(position, losses.pop(position)) for position in group}
        for position, value in values.items():
            self._before.add(position, value)
        reached = [value for value in values.values() if value.requires_grad]
        if not reached:
            return
        value = torch.stack([value.to(reached[0]) for value in reached]).sum()
        value = value if self._scale is None else value * self._scale.to(value)
        found = torch.autograd.grad(value, list(self._parameters.values()), retain_graph=retain_graph, allow_unused=True)
        for name, gradient in zip(self._parameters, found, strict=True):
            if gradient is not None:
                gradient = gradient.to_dense() if gradient.is_sparse else gradient
                total[name] = total[name] + gradient if name in total else gradient

    def _shared(self) -> list[str]:
        return [self._names[id(parameter)] for parameter in self._context.shared.parameters if id(parameter) in self._names]

    def _drawn(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A random direction of the shared parameters, the same in all processes."""
        drawn = {}
        for name in self._shared():
            like = self._parameters[name]
            wide = torch.promote_types(like.dtype, torch.float32)
            drawn[name] = torch.randn(like.shape, generator=generator, dtype=wide, device="cpu").to(like)
        return drawn

    def _slope(self, position: int, direction: dict[str, Tensor]) -> float:
        """By how much a task's losses in this process differ between the two sides of θ along the direction."""
        name, difference = self._context.tasks.names[position], 0.0
        for sign in (1.0, -1.0):
            moved = {key: self._parameters[key].detach() + sign * self._how.radius * z for key, z in direction.items()}
            for micro_batch, here in enumerate(self._here):
                if name in here:
                    with torch.enable_grad():
                        value = self._evaluated(micro_batch, name, moved, differentiable=False).detach()
                    difference += sign * float(value)
        return difference

    def _point(self, position: int) -> dict[str, Tensor]:
        """θ + ε_k, by name: the shared parameters and those of this task alone."""
        assert self._gradients is not None
        sign, state = self._signs[position]
        generator = torch.Generator().set_state(state) if sign else None
        direction = {} if generator is None else self._drawn(generator)
        steps = {}
        for name in self._shared():
            step = self._how.alpha * self._gradients[name]
            if name in direction:
                # Layer by layer the estimate is as long as the gradient: of its slope the sign alone is left.
                lengths = self._gradients[name].norm() / direction[name].norm().clamp(min=_TINY)
                step = step + (1 - self._how.alpha) * sign * lengths * direction[name]
            steps[name] = step
        own = [self._names[id(p)] for p in self._context.shared.own.get(position, ()) if id(p) in self._names]
        alone = {name: self._gradients[name] for name in own}
        point = {}
        for part in (steps, alone):
            norm = math.hypot(*(float(step.norm()) for step in part.values()))
            # What is not finite is found, and named, where the loss is differentiated.
            factor = self._how.rho / (norm + _TINY) if 0 < norm < float("inf") else 0.0
            for name, step in part.items():
                point[name] = self._parameters[name] + (factor * step if factor else 0.0)
        return point

    def _at_its_point(self, micro_batch: int, name: str) -> Callable[[], Tensor]:
        def evaluate() -> Tensor:
            with torch.enable_grad():
                position = self._context.tasks.names.index(name)
                return self._evaluated(micro_batch, name, self._point(position), differentiable=True)

        return evaluate

    def _evaluated(self, micro_batch: int, name: str, parameters: dict[str, Tensor], *, differentiable: bool) -> Tensor:
        with not_compiled():
            losses = self._source.at(micro_batch, parameters, self._random[micro_batch])
            return scalar(name, losses[name], differentiable=differentiable)
