"""Task gradients with respect to a module's output, so that the encoder below it is differentiated once.

Sener and Koltun (2018, section 3.3) bound MGDA's problem by the gradients with respect to the shared representation z: each
task walks its head only, the balancer weighs the K gradients of z, and one backward pass takes the weighted one through the
encoder, whatever K.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.engine.gramian import gramian
from equipoise.engine.graph import divide_leaves, leaves, leaves_of_all, origins
from equipoise.errors import InputError

__all__ = ["FeatureGradients", "Recorder"]


class Recorder:
    """Keeps what a module gives while losses are evaluated."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._calls: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records the module's output in the body, which evaluates the losses."""
        self._calls = []
        handle = self.module.register_forward_hook(lambda _module, _inputs, output: self._calls.append(output))
        try:
            yield
        finally:
            handle.remove()

    def take(self) -> list[Tensor]:
        """The tensors recorded that require grad, which are then forgotten.

        Raises:
            InputError: the module did not run exactly once, or its output carries no graph.
        """
        calls, self._calls = self._calls, []
        if len(calls) != 1:
            raise InputError(
                f"the features module must run exactly once in an evaluation of the losses; it ran {len(calls)} times. "
                f"Give another one, or leave features= out"
            )
        features = [tensor for tensor in _tensors_in(calls[0]) if tensor.requires_grad]
        if not features:
            raise InputError("the output of the features module does not require grad: nothing below it can be trained")
        return features


class FeatureGradients:
    """Records the output of a module and differentiates tasks down to it.

    Args:
        module: the part of the model whose output all tasks start from. It must run exactly once in an evaluation.
    """

    def __init__(self, module: nn.Module) -> None:
        self.recorder = Recorder(module)
        self._storage = torch.zeros(0, device="cpu")
        self.rows = self._storage.view(0, 0)
        self._features: list[Tensor] = []
        self._above: dict[int, list[Tensor]] = {}
        self._harmless: frozenset[int] = frozenset()
        self._contested: list[Tensor] = []
        self._contested_gradients: dict[int, list[Tensor | None]] = {}

    def begin(self, tasks: int) -> None:
        """Takes the recorded output as the features of this step, with a row for each of the tasks.

        Raises:
            InputError: the module did not run exactly once, or its output carries no graph.
        """
        self._features = self.recorder.take()
        length = sum(tensor.numel() for tensor in self._features)
        first = self._features[0]
        storage, needed = self._storage, tasks * length
        # The last batch of an epoch is often smaller: a buffer that is large enough is used again.
        if storage.dtype != first.dtype or storage.device != first.device or storage.numel() < needed:
            storage = self._storage = torch.zeros(needed, dtype=first.dtype, device=first.device)
        self.rows = storage[:needed].view(tasks, length)
        self.rows.zero_()
        self._contested_gradients = {}

    def look_above(self, losses: Mapping[int, Tensor]) -> None:
        """Finds the parameters above the features that each task reaches; those of several tasks are combined like rows."""
        stop = [tensor.grad_fn for tensor in self._features]
        above = [leaves(loss, stop) for loss in losses.values()]
        reached = frozenset(id(leaf) for found in above for leaf in found)
        if reached != self._harmless:
            below = {id(leaf) for leaf in leaves_of_all(self._features)}
            if not below.isdisjoint(reached):
                raise InputError(
                    "a loss reaches parameters below the features also past the features (a skip connection or a tied "
                    "weight), so its gradient there is no function of theirs. Leave features= out"
                )
            self._harmless = reached
        self._contested, alone = divide_leaves(above)
        self._above = dict(zip(losses, alone, strict=True))

    def differentiate(self, row: int, loss: Tensor, seed: Tensor | None = None, *, retain_graph: bool) -> None:
        """Writes a task's gradient of the features to its row and fills its own parameters' ``.grad``."""
        own = self._above[row]
        if seed is None:
            seed = torch.ones_like(loss)
        gradients = torch.autograd.grad(
            origins([loss]), [*self._features, *own, *self._contested], [seed], retain_graph=retain_graph, allow_unused=True
        )
        start = 0
        for tensor, gradient in zip(self._features, gradients, strict=False):
            if gradient is not None:
                self.rows[row, start : start + tensor.numel()].view(tensor.shape).copy_(gradient)
            start += tensor.numel()
        count = len(self._features)
        for parameter, gradient in zip(own, gradients[count : count + len(own)], strict=True):
            _accumulate(parameter, gradient)
        self._contested_gradients[row] = list(gradients[count + len(own) :])

    def gramian(self) -> Tensor:
        """Inner products of the features' gradients, ``[K, K]`` in float64."""
        return gramian(self.rows)

    def deliver(self, weights: Tensor) -> None:
        """Takes the weighted sum of the rows through the encoder, and combines what several tasks reach above it.

        Args:
            weights: ``[K]``.
        """
        with torch.no_grad():
            direction = torch.mv(self.rows.T, weights.to(self.rows))
        self.deliver_direction(direction, weights)

    @property
    def features(self) -> list[Tensor]:
        """The tensors recorded that carry a graph, detached."""
        return [tensor.detach() for tensor in self._features]

    def deliver_direction(self, direction: Tensor, weights: Tensor) -> None:
        """Takes a direction of the features through the encoder, and combines what several tasks reach above it.

        Args:
            direction: ``[F]``, in place of the features' gradient.
            weights: ``[K]``, with which gradients of parameters above the features that several tasks reach are added up.
        """
        factors = weights.tolist()
        for row, gradients in self._contested_gradients.items():
            for parameter, gradient in zip(self._contested, gradients, strict=True):
                _accumulate(parameter, None if gradient is None else gradient * factors[row])
        self._contested_gradients = {}
        pieces = direction.split([tensor.numel() for tensor in self._features])
        seeds = [piece.view(tensor.shape) for piece, tensor in zip(pieces, self._features, strict=True)]
        features, self._features = self._features, []
        torch.autograd.backward(features, seeds)


def _accumulate(parameter: Tensor, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _tensors_in(output: Any) -> list[Tensor]:
    """All tensors in a tensor, a mapping or a sequence, whatever the nesting."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for part in output.values() for tensor in _tensors_in(part)]
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [tensor for part in output for tensor in _tensors_in(part)]
    return []
