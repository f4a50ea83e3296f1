"""What a balancer adds to the gradients of task-specific parameters, by differentiating task gradients once more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equipoise.balance.mixins import Pull, PullsHeads
from equipoise.engine.features import Cut, Recorder
from equipoise.engine.gradients import TaskGradients
from equipoise.engine.graph import is_compiled, origins
from equipoise.engine.sparse import added, stored
from equipoise.errors import InputError
from equipoise.modes import differentiable_twice, lacks_second_derivative, without_autocast
from equipoise.step.context import Context, Turn
from equipoise.step.seen import SeenLosses
from equipoise.tasks import Loss, by_graph

__all__ = ["Pulling"]


class Pulling:
    """Adds ∂⟨g_i, u_i⟩/∂φ_i to the ``.grad`` of the parameters φ_i that task i alone reaches, see
    :class:`~equipoise.balance.mixins.Pull`.

    The directions u_i are known only after all tasks of all micro-batches have been differentiated. Where one batch's losses
    are there already, their graph is kept; otherwise each micro-batch is evaluated a second time, from the same random
    state, so that callables and micro-batches need the memory of one graph. As φ_i is reached by task i alone, tasks with
    the same direction are differentiated together: ∂⟨Σ_i g_i, u⟩/∂φ_k is ∂⟨g_k, u⟩/∂φ_k.
    """

    def __init__(self, context: Context, turn: Turn, balancer: PullsHeads) -> None:
        self.context = context
        self.turn = turn
        self.balancer = balancer
        self._again = turn.source.rehearsal()  # goes back to the random state of now
        self._held: dict[int, Loss] | None = None
        self._before: dict[Tensor, Tensor] = {}

    def hold(self, losses: Mapping[int, Loss]) -> None:
        """Keeps what is needed later; to be called before the losses are differentiated."""
        if self.turn.source.micro_batches == 1 and all(
            isinstance(loss, Tensor) and not is_compiled(loss) for loss in losses.values()
        ):
            self._held = dict(losses)
        own = (leaf for found in self.context.shared.own.values() for leaf in found)
        self._before = {leaf: leaf.grad.clone() for leaf in own if leaf.grad is not None}

    def add(self, engine: TaskGradients, weights: Tensor, gramian: Tensor, seen: SeenLosses, factors: Tensor) -> None:
        """Adds to ``.grad``, which holds the tasks' own gradients by now.

        Args:
            engine: with one row per task.
            weights: the decision ``[k]``.
            gramian: of the task gradients, ``[k, k]``.
            seen: losses and how often each was seen.
            factors: what the rows are to be multiplied with, ``[k]``.
        """
        with torch.no_grad():
            pull = self.balancer.pull(weights, gramian)
        if pull is None:
            return
        groups = self._groups(pull, seen.present)
        # Where held losses fail: evaluated again, attention runs by the kernel that has a second derivative.
        held = pull.features is None and self._held is not None
        for last in (False, True) if held else (True,):
            try:
                extra = self._extra(engine, pull, groups, seen, factors)
                break
            except RuntimeError as error:
                if not lacks_second_derivative(error):
                    raise
                if last:
                    raise InputError(
                        f"{self.balancer!r} pulls heads by second derivatives, which a layer below them has not "
                        f"({str(error).partition(chr(10))[0]}); put another layer there, leave mu= at 0, or let "
                        f"MultiTaskOptimizer evaluate the losses, if they were given to backward()"
                    ) from error
        self._deliver(pull, [p for _, members in groups for p in members], extra)

    def _extra(
        self, engine: TaskGradients, pull: Pull, groups: Sequence[tuple[Tensor, list[int]]], seen: SeenLosses, factors: Tensor
    ) -> dict[Tensor, Tensor]:
        """What is added to the heads' gradients."""
        extra: dict[Tensor, Tensor] = {}
        for rows, losses, features in self._evaluations(pull):
            for chunk in rows:
                values = {position: self.context.scalar(position, losses[position]) for position in chunk}
                here = [(row, [p for p in members if p in values]) for row, members in groups]
                here = [(row, members) for row, members in here if members]
                for place, (row, members) in enumerate(here):
                    self._pull(engine, row, members, values, seen, factors, features, extra, last=place == len(here) - 1)
                del values
        return extra

    def _groups(self, pull: Pull, present: Sequence[int]) -> list[tuple[Tensor, list[int]]]:
        """Tasks that have parameters of their own and are pulled, by direction: ``[k]`` coefficients and positions."""
        groups: dict[tuple[float, ...], tuple[Tensor, list[int]]] = {}
        for position, row in zip(present, pull.coefficients.double().cpu(), strict=True):
            if self.context.shared.own.get(position) and bool((row != 0).any()):
                groups.setdefault(tuple(row.tolist()), (row, []))[1].append(position)
        return list(groups.values())

    def _evaluations(self, pull: Pull) -> Iterator[tuple[list[list[int]], dict[int, Loss], Cut | None]]:
        """The losses of each micro-batch, in portions whose graphs may live together, and the features."""
        source = self.turn.source
        if pull.features is None and self._held is not None:
            losses, self._held = self._held, None
            yield [list(losses)], losses, None
            return
        self._held = None
        if pull.features is not None and source.elsewhere() is None:
            raise InputError(f"{self.turn.balancer!r} looks at features, which needs MultiTaskOptimizer, not backward()")
        recorder = None if pull.features is None else Recorder(pull.features)
        with self._again, differentiable_twice():
            for micro_batch in range(source.micro_batches):
                with nullcontext() if recorder is None else recorder.recording():
                    losses = self.context.named(source.rehearse(micro_batch))
                if recorder is not None and any(not isinstance(loss, Tensor) for loss in losses.values()):
                    raise InputError(
                        f"{self.balancer!r} needs losses that start from one evaluation of the features; losses given as "
                        f"callables have inputs of their own. Leave its features= out"
                    )
                features = None if recorder is None else self._cut(recorder.take(), losses)
                # In the order of the first evaluation, or other random numbers would be drawn.
                yield by_graph(losses), losses, features

    def _cut(self, recorded: list[Tensor], losses: Mapping[int, Loss]) -> Cut:
        """Where the features are in the graphs of these losses."""
        if not recorded:
            raise InputError("the output of the features module does not require grad: nothing below it can be trained")
        cut = Cut(recorded, [self.context.scalar(position, loss) for position, loss in losses.items()])
        cut.close()
        return cut

    def _pull(
        self,
        engine: TaskGradients,
        row: Tensor,
        members: Sequence[int],
        values: Mapping[int, Tensor],
        seen: SeenLosses,
        factors: Tensor,
        features: Cut | None,
        extra: dict[Tensor, Tensor],
        *,
        last: bool,
    ) -> None:
        scale = self.turn.scale
        seeds = {
            position: torch.full_like(value, 1 / seen.counts[position], requires_grad=False)
            for position, value in values.items()
        }
        if scale is not None:
            seeds = {position: seed * scale.to(seed) for position, seed in seeds.items()}
        own = [leaf for position in members for leaf in self.context.shared.own[position]]
        grad = partial(torch.autograd.grad, allow_unused=True) if features is None else features.grad
        with without_autocast(engine.rows.device):
            # The rows carry a gradient scaler's scale, and so will what is added: once, not twice.
            unscaled = row if scale is None else row / scale.double().cpu()
            if features is None:
                inputs, toward = engine.parameters, engine.split(engine.combine(unscaled * factors))
            else:
                inputs = features.tensors
                by_position = dict(zip(seen.present, unscaled.unbind(), strict=True))
                weighted = [seeds[p] * by_position[p].to(seeds[p]) for p in values]
                found = grad(origins(values.values()), inputs, weighted, retain_graph=True)
                toward = [torch.zeros_like(z) if u is None else u for z, u in zip(inputs, found, strict=True)]
            gradients = grad(origins(values[p] for p in members), inputs, [seeds[p] for p in members], create_graph=True)
            pairs = [(g, u.to(g.dtype)) for g, u in zip(gradients, toward, strict=True) if g is not None and g.requires_grad]
            if not pairs:
                return
            second = grad([g for g, _ in pairs], own, [u for _, u in pairs], retain_graph=not last)
        for leaf, piece in zip(own, second, strict=True):
            if piece is not None:
                extra[leaf] = extra[leaf] + piece if leaf in extra else piece.clone()  # two leaves may share one

    def _deliver(self, pull: Pull, positions: Sequence[int], extra: dict[Tensor, Tensor]) -> None:
        processes = self.context.processes
        if processes.count > 1:
            pulled = [leaf for position in positions for leaf in self.context.shared.own[position]]
            here = [extra.get(leaf, torch.zeros_like(leaf)).detach().to_dense() for leaf in pulled]
            extra.update(zip(pulled, processes.sum_all(here, "pulls"), strict=True))
        for position in positions:
            leaves = self.context.shared.own[position]
            pieces = {leaf: extra[leaf] for leaf in leaves if leaf in extra}
            if pull.at_most is not None:
                bound = pull.at_most * _norm([self._own(leaf) for leaf in leaves])
                length = _norm(pieces.values())
                if length > bound:
                    pieces = {leaf: piece * (bound / length).to(piece) for leaf, piece in pieces.items()}
            for leaf, piece in pieces.items():
                if leaf.grad is None:
                    leaf.grad = piece if bool((piece != 0).any()) else None
                else:
                    leaf.grad = added(leaf.grad, piece.to_sparse(1) if leaf.grad.is_sparse else piece)

    def _own(self, leaf: Tensor) -> Tensor:
        """The gradient of this step alone."""
        if leaf.grad is None:
            return torch.zeros_like(leaf)
        return added(leaf.grad, -self._before[leaf]) if leaf in self._before else leaf.grad


def _norm(pieces: Any) -> Tensor:
    squares = [torch.linalg.vector_norm(stored(p).detach(), dtype=torch.float64).square() for p in pieces]
    return (
        torch.stack([square.cpu() for square in squares]).sum().sqrt()
        if squares
        else torch.zeros((), dtype=torch.float64, device="cpu")
    )
