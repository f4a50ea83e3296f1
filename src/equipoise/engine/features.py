"""Task gradients with respect to a module's output, so that the encoder below it is differentiated once.

Sener and Koltun (2018, section 3.3) bound MGDA's problem by the gradients with respect to the shared representation z: each
task walks its head only, the balancer weighs the K gradients of z, and one backward pass takes the weighted one through the
encoder, whatever K.

What a module gives may hold one tensor twice, or tensors that are made of each other (maps of several resolutions, a token
of a sequence beside the sequence). A :class:`Cut` takes them for independent inputs of the heads: each has the gradient that
reaches it directly, not by way of another, so that the encoder gets every part of a gradient once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.engine.gramian import gramian
from equipoise.engine.graph import Edge, divide_leaves, edge_of, is_compiled, leaves_above, leaves_of_all, nodes_below, origins
from equipoise.engine.reals import flat, real_dtype, shaped, size
from equipoise.engine.sparse import added
from equipoise.errors import InputError

__all__ = ["Cut", "FeatureGradients", "Recorder"]


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
        """The tensors recorded that require grad, which are then forgotten; none if nothing below them is trained.

        Raises:
            InputError: the module did not run exactly once, or gave no tensor.
        """
        calls, self._calls = self._calls, []
        if len(calls) != 1:
            raise InputError(
                f"the features module must run exactly once in an evaluation of the losses; it ran {len(calls)} times"
                f"{'' if calls else ' that can be seen (a compiled model hides its parts)'}. Give another one, or leave "
                f"features= out"
            )
        found = _tensors_in(calls[0])
        if not found:
            raise InputError(
                f"the features module must give a tensor, or a list, dictionary or dataclass of tensors; it gave a "
                f"{type(calls[0]).__name__} in which none can be seen. Give another one, or leave features= out"
            )
        return [tensor for tensor in found if tensor.requires_grad]


class Cut:
    """Where the encoder ends and the heads begin, in the graphs of some losses.

    Attributes:
        tensors: those of the recorded tensors that a loss reaches directly, each once.
        above: for each of the losses the leaves that it reaches without passing the recorded tensors.

    Args:
        recorded: what the features module gave; none if nothing below is trained.
        losses: of the tasks.

    Raises:
        InputError: no loss reaches what was recorded.
    """

    def __init__(self, recorded: Sequence[Tensor], losses: Sequence[Tensor]) -> None:
        edges: dict[Edge, Tensor] = {}
        for tensor in recorded:
            edges.setdefault(edge_of(tensor), tensor)
        self.above: list[list[Tensor]] = []
        reached: set[Edge] = set()
        for loss in losses:
            found, met = leaves_above(loss, edges)
            self.above.append(found)
            reached.update(met)
        if edges and not reached:
            hidden = any(is_compiled(loss) for loss in losses)
            raise InputError(
                "no loss reaches the output of the features module, so nothing below it would be trained: "
                + ("the graph of a compiled function hides it. Compile the encoder and the heads apart" if hidden else "")
                + ("the losses must be made of it as it is. Give another module" if not hidden else "")
                + ", or leave features= out"
            )
        self.tensors = [tensor for edge, tensor in edges.items() if edge in reached]
        self._edges = [edge for edge in edges if edge in reached]
        self._stops: dict[Any, set[int]] = {}
        self._zeros = False

    def close(self, *, always: bool = False) -> None:
        """Keeps gradients of the heads from going on below the cut, where one of its tensors lies below another.

        Args:
            always: whatever the tensors; for leaves below the cut that the heads use, too.
        """
        if always or (len(self._edges) > 1 and not nodes_below(self._edges).isdisjoint(node for node, _ in self._edges)):
            if not always and any(tensor._backward_hooks for tensor in self.tensors):
                raise InputError(
                    "a tensor of the features has a hook (register_hook) and another is made of it or it of another, so the "
                    "hook would act more than once. Put it on a tensor of its own (features * 1), or leave features= out"
                )
            for node, output in self._edges:
                self._stops.setdefault(node, set()).add(output)

    def grad(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        seeds: Sequence[Tensor],
        *,
        retain_graph: bool = True,
        create_graph: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """As ``torch.autograd.grad``; gradients that arrive at the cut do not go on below it.

        If it is closed, the graph below is walked all the same, without gradients, and so it is kept.
        """
        keep = retain_graph or bool(self._stops)

        def found() -> tuple[Tensor | None, ...]:
            with ExitStack() as stack:
                for node, outputs_cut in self._stops.items():
                    stack.callback(node.register_prehook(_stopping(outputs_cut, zeros=self._zeros)).remove)
                return torch.autograd.grad(
                    outputs, inputs, seeds, retain_graph=keep, create_graph=create_graph, allow_unused=True
                )

        try:
            return found()
        except (AttributeError, TypeError):
            if not self._stops or self._zeros:
                raise
            # A hook of the user's below the cut wants a tensor: zeros cost more, and give it one.
            self._zeros = True
            return found()


def _stopping(outputs: set[int], *, zeros: bool) -> Any:
    def stop(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return tuple(
            gradient if place not in outputs or gradient is None else torch.zeros_like(gradient) if zeros else None
            for place, gradient in enumerate(gradients)
        )

    return stop


class FeatureGradients:
    """Records the output of a module and differentiates tasks down to it.

    Args:
        module: the part of the model whose output all tasks start from. It must run exactly once in an evaluation.
    """

    def __init__(self, module: nn.Module) -> None:
        self.recorder = Recorder(module)
        self._storage = torch.zeros(0, device="cpu")
        self.rows = self._storage.view(0, 0)
        self._cut: Cut | None = None
        self._above: dict[int, list[Tensor]] = {}
        self._harmless: frozenset[int] = frozenset()
        self._contested: list[Tensor] = []
        self._contested_gradients: dict[int, list[Tensor | None]] = {}

    def begin(self, tasks: int, losses: Mapping[int, Tensor], parameters: Sequence[Tensor]) -> None:
        """Takes the recorded output as the features of this step, with a row for each of the tasks.

        Parameters above the features that several tasks reach are found, to be combined like rows.

        Args:
            tasks: how many there are.
            losses: by the positions of their tasks.
            parameters: those that are trained; other leaves (inputs that require grad) may lie on both sides.

        Raises:
            InputError: the module did not run exactly once, no loss reaches its output, or one reaches parameters below it
                past it.
        """
        recorded = self.recorder.take()
        self._cut = cut = Cut(recorded, list(losses.values()))
        self._look_above(cut, losses, {id(parameter) for parameter in parameters})
        length = sum(size(tensor) for tensor in cut.tensors)
        dtype = real_dtype(cut.tensors) if cut.tensors else self._storage.dtype
        device = next(iter(losses.values())).device if not cut.tensors else cut.tensors[0].device
        storage, needed = self._storage, tasks * length
        # The last batch of an epoch is often smaller: a buffer that is large enough is used again.
        if storage.dtype != dtype or storage.device != device or storage.numel() < needed:
            storage = self._storage = torch.zeros(needed, dtype=dtype, device=device)
        self.rows = storage[:needed].view(tasks, length)
        self.rows.zero_()
        self._contested_gradients = {}

    def _look_above(self, cut: Cut, losses: Mapping[int, Tensor], trained: set[int]) -> None:
        """Finds the leaves above the features that each task reaches; those of several tasks are combined like rows."""
        reached = frozenset(id(leaf) for found in cut.above for leaf in found)
        both: set[int] = set()
        if reached != self._harmless:
            both = {id(leaf) for leaf in leaves_of_all(cut.tensors)} & reached
            if both & trained:
                raise InputError(
                    "a loss reaches parameters below the features also past the features (a skip connection or a tied "
                    "weight), so its gradient there is no function of theirs. Leave features= out"
                )
            # Inputs that require grad may lie on both sides, and are looked for again in every step.
            self._harmless = frozenset() if both else reached
        self._contested, alone = divide_leaves(cut.above)
        if both:
            # What they get below is weighted, and so must be what they get above.
            self._contested += [leaf for found in alone for leaf in found if id(leaf) in both]
            alone = [[leaf for leaf in found if id(leaf) not in both] for found in alone]
        self._above = dict(zip(losses, alone, strict=True))
        cut.close(always=bool(both))

    def differentiate(self, row: int, loss: Tensor, seed: Tensor | None = None, *, retain_graph: bool) -> None:
        """Writes a task's gradient of the features to its row and fills its own parameters' ``.grad``."""
        cut = self._cut
        assert cut is not None
        own = self._above[row]
        inputs = [*cut.tensors, *own, *self._contested]
        if not inputs:
            return
        if seed is None:
            seed = torch.ones_like(loss)
        gradients = cut.grad(origins([loss]), inputs, [seed], retain_graph=retain_graph)
        count = len(cut.tensors)
        start = 0
        for tensor, gradient in zip(cut.tensors, gradients[:count], strict=True):
            if gradient is not None:
                gradient = gradient.to_dense() if gradient.is_sparse else gradient
                self.rows[row, start : start + size(tensor)].copy_(flat(gradient))
            start += size(tensor)
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
        """The tensors that the gradients are those of, detached; none if nothing below them is trained."""
        return [] if self._cut is None else [tensor.detach() for tensor in self._cut.tensors]

    @property
    def contested(self) -> bool:
        """Whether several tasks reach a leaf above the features."""
        return bool(self._contested)

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
        cut, self._cut = self._cut, None
        assert cut is not None
        features = cut.tensors
        pieces = direction.split([size(tensor) for tensor in features])
        seeds = [shaped(tensor, piece).to(tensor.dtype) for piece, tensor in zip(pieces, features, strict=True)]
        if not features:
            return
        with ExitStack() as stack:
            for tensor, seed in zip(features, seeds, strict=True):
                if tensor._backward_hooks:
                    # A hook of the user's on the features has acted on every row already.
                    node, place = edge_of(tensor)
                    stack.callback(node.register_prehook(_giving(place, seed)).remove)
            torch.autograd.backward(features, seeds)


def _giving(place: int, seed: Tensor) -> Any:
    def give(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return (*gradients[:place], seed, *gradients[place + 1 :])

    return give


def _accumulate(parameter: Tensor, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    # Autograd may give several leaves one and the same gradient, or one entry for all; clipping would write to it twice.
    parameter.grad = gradient.clone() if parameter.grad is None else added(parameter.grad, gradient)


def _tensors_in(output: Any) -> list[Tensor]:
    """All tensors in a tensor, a mapping, a sequence or a dataclass, whatever the nesting."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for part in output.values() for tensor in _tensors_in(part)]
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [tensor for part in output for tensor in _tensors_in(part)]
    if is_dataclass(output):
        return [tensor for field in fields(output) for tensor in _tensors_in(getattr(output, field.name))]
    return []
