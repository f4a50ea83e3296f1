"""The objective: what turns a batch into the losses of a model, at its own parameters or at others.

A loss function that takes ``(model, batch)`` can be evaluated *elsewhere*: a small module holds the model and runs the loss
function inside its ``forward``, and :func:`torch.func.functional_call` swaps that module's parameters for the time of the
call. Every piece of code that touches the model in between sees the substituted parameters, and gradients flow to them.
Teleporting, unrolled bilevel steps and sharpness probes are all evaluations elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from equipoise.errors import InputError, near_misses
from equipoise.further import FurtherBatches
from equipoise.randomness import RandomState
from equipoise.tasks import LazyLoss, Loss, Losses, Tasks, as_losses, read_fixed, scalar

__all__ = ["LossFunction", "Objective", "played"]

LossFunction = Callable[[Any, Any], Losses]


class _Stage(nn.Module):
    """Holds the model so that whatever runs in ``forward`` meets the substituted parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, play: Callable[[nn.Module], Any]) -> Any:
        return play(self.model)


def played(model: nn.Module, tensors: Mapping[str, Tensor], act: Callable[[nn.Module], Any]) -> Any:
    """What ``act(model)`` gives where the model has these tensors, by their names, in the places of its own."""
    # Where nothing is replaced, the model is called as it is, which costs less.
    substituted = {f"model.{name}": tensor for name, tensor in tensors.items()}
    return functional_call(_Stage(model), substituted, (act,)) if tensors else act(model)


class Objective:
    """A model together with its task losses.

    Args:
        model: any module. One wrapped in ``DistributedDataParallel`` is unwrapped: gradients are averaged by
            :class:`~equipoise.MultiTaskOptimizer`, whose several backward passes DDP's reducer cannot follow.
        losses: ``losses(model, batch)`` returns a mapping task → scalar tensor, or a tensor ``[K]`` (its tasks are then
            named ``task0`` …). A scalar may also be given as a zero-argument callable, which is evaluated only when its
            turn comes: tasks with inputs of their own then never hold more than one graph in memory.
        tasks: the tasks in order; left out, the first batch fixes them.
        batches: a loader from which balancers that look at further batches draw them; see
            :class:`~equipoise.further.FurtherBatches`. It must not be the object that the training loop iterates over.
        fixed: losses beside the tasks that are not balanced, and their weights λ, by name: ``{"kl": 0.1}``. The loss function
            gives them with the others. No balancer sees them; what they reach gets λ times their gradient in every step, by one
            more backward pass, averaged over micro-batches and processes (where one lacks the loss it counts as 0).

    Raises:
        InputError: the model is no module or has parts wrapped in ``DistributedDataParallel``, the loss function is not
            callable, or the tasks are named badly.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(3, 2)
        >>> def losses(model, batch):
        ...     out = model(batch)
        ...     return {"first": out[:, 0].square().mean(), "second": out[:, 1].abs().mean()}
        >>> objective = Objective(model, losses)
        >>> batch = torch.ones(4, 3)
        >>> sorted(objective(batch))
        ['first', 'second']
        >>> zero = torch.zeros(2, 3, requires_grad=True)
        >>> elsewhere = objective.at({"weight": zero, "bias": torch.zeros(2)}, batch)
        >>> float(elsewhere["first"].detach())
        0.0
    """

    def __init__(
        self,
        model: nn.Module,
        losses: LossFunction,
        tasks: Sequence[str] | None = None,
        *,
        batches: Iterable[Any] | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch.nn.Module; got {type(model).__name__}")
        if not callable(losses):
            raise InputError(f"losses must be a function losses(model, batch); got {type(losses).__name__}")
        self.model: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
        if any(isinstance(part, DistributedDataParallel) for part in self.model.modules()):
            raise InputError(
                "a part of the model is wrapped in DistributedDataParallel, which cannot follow several backward passes; "
                "pass the model without it: MultiTaskOptimizer averages gradients over the processes itself"
            )
        self.losses = losses
        self.tasks = Tasks(tasks)
        self.fixed = read_fixed(fixed, self.tasks.names)
        self.further = None if batches is None else FurtherBatches(batches)

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Evaluates the losses at the model's own parameters.

        Args:
            batch: whatever the loss function takes.

        Returns:
            One differentiable scalar per task, callables evaluated.

        Raises:
            InputError: see :func:`equipoise.tasks.as_losses` and :func:`equipoise.tasks.scalar`.
        """
        return _evaluated(self.pending(batch))

    def at(self, parameters: Mapping[str, Tensor], batch: Any, *, random_state: RandomState | None = None) -> dict[str, Tensor]:
        """Evaluates the losses at substituted parameters, differentiably to any order.

        The model's parameters and buffers stay as they are: the evaluation works on copies of the buffers, so batch-norm
        statistics do not move either.

        Args:
            parameters: tensors by the names of ``model.named_parameters()``; those left out keep the model's own value.
                Giving one name of a tied weight replaces it everywhere.
            batch: whatever the loss function takes.
            random_state: run from this random state (same dropout masks), and leave the present one untouched.

        Returns:
            One differentiable scalar per task.

        Raises:
            InputError: an unknown parameter name or a wrong shape.
        """
        return _evaluated(self.pending_at(parameters, batch, random_state=random_state))

    def pending(self, batch: Any, *, fixed: bool = False) -> dict[str, Loss]:
        """The losses as the loss function gives them, callables not yet evaluated; none if the batch has no label.

        Those with fixed weights are left out unless asked for.
        """
        return self._named(self.losses(self.model, batch), fixed=fixed)

    def values(
        self, parameters: Mapping[str, Tensor], batch: Any, *, random_state: RandomState | None = None
    ) -> dict[str, Tensor]:
        """The losses' values at substituted parameters (``{}`` for the model's own), detached; buffers stay as they are.

        Gradients are on meanwhile, for losses may themselves differentiate (forces, gradient penalties); no graph is kept, and
        of callables there is one at a time.

        Args:
            parameters: as for :meth:`at`.
            batch: whatever the loss function takes.
            random_state: run from this random state, and leave the present one untouched.
        """
        with torch.enable_grad():
            pending = self.pending_at(parameters, batch, random_state=random_state)
            return {name: scalar(name, loss, differentiable=False).detach() for name, loss in pending.items()}

    def pending_at(
        self, parameters: Mapping[str, Tensor], batch: Any, *, random_state: RandomState | None = None, fixed: bool = False
    ) -> dict[str, Loss]:
        """As :meth:`at`, callables not yet evaluated; each of them keeps the substitution."""
        own = dict(self.model.named_parameters(remove_duplicate=False)) if parameters else {}
        for name, tensor in parameters.items():
            if name not in own:
                raise InputError(f'the model has no parameter "{name}".{near_misses(name, own)}')
            if tensor.shape != own[name].shape:
                raise InputError(
                    f'parameter "{name}" has the shape {list(own[name].shape)}; got a substitute of shape {list(tensor.shape)}'
                )
        substituted = {**parameters, **{name: buffer.clone() for name, buffer in self.model.named_buffers()}}

        def play(act: Callable[[nn.Module], Any]) -> Any:
            with random_state.replayed() if random_state is not None else nullcontext():
                return played(self.model, substituted, act)

        def postponed(loss: LazyLoss) -> LazyLoss:
            def evaluate() -> Tensor:
                value: Tensor = play(lambda _: loss())
                return value

            return evaluate

        named = self._named(play(lambda model: self.losses(model, batch)), fixed=fixed)
        return {name: loss if isinstance(loss, Tensor) else postponed(loss) for name, loss in named.items()}

    def random_state(self) -> RandomState:
        """Takes a snapshot of the random state of every device that the model uses."""
        return RandomState.capture(self.model.parameters())

    def _named(self, losses: Losses, *, fixed: bool) -> dict[str, Loss]:
        names = self.tasks.names if self.tasks.known else None
        named = as_losses(losses, names, some=False)
        return named if fixed or not self.fixed else {name: loss for name, loss in named.items() if name not in self.fixed}


def _evaluated(losses: Mapping[str, Loss]) -> dict[str, Tensor]:
    as_losses(losses)  # where losses are asked for by themselves, there has to be one
    return {name: scalar(name, loss, differentiable=False) for name, loss in losses.items()}
