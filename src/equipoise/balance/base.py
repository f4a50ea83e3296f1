"""What a balancer is: a small policy that knows nothing of models or autograd graphs.

A balancer looks at an :class:`Observation` of the step and answers with weights ``[k]`` for the tasks present (or, if it
works on the gradients themselves, with a direction ``[P]``). There is a base class for each kind of need, because what a
method looks at is what it costs: losses (one ordinary backward), the Gramian (one backward pass per task) or all gradients.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.distributed import Processes
from equipoise.errors import InputError, NonFiniteError

__all__ = ["Balancer", "GradientBalancer", "GramianBalancer", "Layout", "LossBalancer", "Need", "Observation"]

Need = Literal["losses", "gramian", "gradients"]
Layout: TypeAlias = tuple[tuple[str, int], ...]
"""For each shared parameter, in the order of the columns, what it is called and how many columns it has."""

_EVERY = Processes()


@dataclass(frozen=True)
class Observation:
    """What a balancer may look at in one step.

    Attributes:
        tasks: names of all K tasks, in their fixed order.
        present: positions of the k tasks that this step's batch holds, ascending.
        losses: losses of the tasks present, ``[k]``, detached; ``None`` where the balancer said that its weights do not
            depend on them and they are not known yet.
        gramian: ``[k, k]`` in float64 on the CPU, if the balancer needs it.
        gradients: task gradients ``[k, P]``, if the balancer needs them.
        step: index of the step, counted from 0.
        processes: those that train together.
        layout: the parameters that the columns of the gradients belong to, where that is known.
    """

    tasks: tuple[str, ...]
    present: tuple[int, ...]
    losses: Tensor | None = None
    gramian: Tensor | None = None
    gradients: Tensor | None = None
    step: int = 0
    processes: Processes = _EVERY
    layout: Layout | None = None

    @classmethod
    def of_all(cls, losses: Tensor, gradients: Tensor | None = None) -> Observation:
        """Of K tasks without names, all of which are present."""
        places = tuple(range(len(losses)))
        return cls(tuple(f"task{k}" for k in places), places, losses, gradients=gradients)

    @property
    def complete(self) -> bool:
        """Whether all tasks are present."""
        return len(self.present) == len(self.tasks)

    def of_present(self, values: Tensor) -> Tensor:
        """Entries of a ``[K]`` vector that belong to the tasks present."""
        return values if self.complete else values[torch.as_tensor(self.present, device=values.device)]

    def check_memory(self, balancer: Balancer, memory: Tensor | None) -> None:
        """Refuses to let a balancer go on with what it learned on another number of tasks.

        Args:
            balancer: whose memory it is.
            memory: a vector ``[K]`` of its state, or ``None`` if there is none yet.

        Raises:
            InputError: the lengths differ.
        """
        if memory is not None and memory.shape[-1] != len(self.tasks):
            raise InputError(
                f"this {type(balancer).__name__} has learned from {memory.shape[-1]} tasks and now meets "
                f"{len(self.tasks)}; make a new one for another problem"
            )


class Balancer(ABC):
    """Decides how the tasks combine. Derive from one of the three classes below, not from this one.

    What only a few balancers do besides is in :mod:`equipoise.balance.mixins`.

    Attributes:
        needs: what the next decision looks at: ``"losses"``, ``"gramian"`` or ``"gradients"``.
        watches: whether :meth:`observe` wants the same batch's losses again after the optimizer's step.
        stateful: names of the attributes that make up the state: tensors, numbers, arrays or generators.
        decides_purely: whether :meth:`decide` leaves the state as it was and all learning is done in :meth:`update` and
            later. Then no copy of the state is taken before each step, which matters where it is as large as the gradients.
    """

    needs: Need
    watches: ClassVar[bool] = False
    stateful: ClassVar[tuple[str, ...]] = ()
    decides_purely: ClassVar[bool] = False

    @abstractmethod
    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present, or a direction ``[P]`` if the gradients were asked for."""

    def update(self, observation: Observation) -> None:  # noqa: B027  (most balancers learn nothing from a step)
        """Learns from a step whose losses and gradients turned out finite; called once per step, after the decision."""

    def observe(self, before: Tensor, after: Tensor, present: tuple[int, ...]) -> None:  # noqa: B027
        """Learns from the losses before and after the optimizer's step; only called if the balancer ``watches``.

        Args:
            before: losses ``[k]`` of the tasks present.
            after: the same batch's losses after the step, ``[k]``.
            present: positions of these tasks.
        """

    def end_epoch(self) -> None:  # noqa: B027
        """Says that a pass over the data is over."""

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that decides how the balancer continues."""
        return {name: _saved(getattr(self, name)) for name in self.stateful}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state belongs to another kind of balancer.
        """
        if set(state) != set(self.stateful):
            raise InputError(
                f"{type(self).__name__} keeps the state {sorted(self.stateful)}; the one given holds {sorted(state)}"
            )
        for name, value in state.items():
            _restore(self, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class LossBalancer(Balancer):
    """A balancer that looks at losses only: one ordinary backward pass of the weighted sum, whatever K.

    Attributes:
        depends_on_losses: whether the weights depend on this very step's losses. Where they do, gradient accumulation and
            losses given as callables need one more forward pass, to know all losses before the first backward pass.
    """

    needs: Need = "losses"
    depends_on_losses: ClassVar[bool] = True

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present; by default :meth:`weights` of their losses."""
        assert observation.losses is not None
        return self.weights(observation.losses)

    def weights(self, losses: Tensor) -> Tensor:
        """Weights ``[k]`` for losses ``[k]``; what a balancer without memory implements, else :meth:`decide` of all K tasks."""
        if type(self).decide is LossBalancer.decide:
            raise TypeError(f"{type(self).__name__} implements neither weights() nor decide()")
        return self.decide(Observation.of_all(losses)).to(losses)


class GramianBalancer(Balancer):
    """A balancer that looks at the inner products of the task gradients; costs one backward pass per task.

    Implement :meth:`solve` (one Gramian, NumPy) or override :meth:`weights` (torch, any number of leading dimensions).
    """

    needs: Need = "gramian"

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present; by default :meth:`weights` of their Gramian."""
        assert observation.gramian is not None
        return self.weights(observation.gramian)

    def weights(self, gramian: Tensor) -> Tensor:
        """Weights of the tasks from the Gramian of their gradients; needs no model.

        Args:
            gramian: ``[..., K, K]``, symmetric and positive semi-definite up to rounding.

        Returns:
            ``[..., K]``, with the dtype and on the device of ``gramian``; computed in float64.

        Raises:
            InputError: not square matrices.
            NonFiniteError: an entry is infinite or not a number.
        """
        if gramian.dim() < 2 or gramian.shape[-1] != gramian.shape[-2] or gramian.shape[-1] == 0:
            raise InputError(f"a Gramian has the shape [..., K, K]; got {list(gramian.shape)}")
        matrices = gramian.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(matrices).all():
            raise NonFiniteError("the Gramian has entries that are not finite", tasks=(), step=-1, what="gradient")
        if matrices.ndim == 2:
            return torch.from_numpy(self.solve(matrices)).to(gramian)
        flat = matrices.reshape(-1, *matrices.shape[-2:])
        solutions = np.empty(flat.shape[:-1])
        for position, matrix in enumerate(flat):
            solutions[position] = self.solve(matrix)
        return torch.from_numpy(solutions.reshape(matrices.shape[:-1])).to(gramian)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights ``[K]`` from one finite Gramian ``[K, K]`` in float64."""
        raise TypeError(f"{type(self).__name__} implements neither solve() nor weights()")


class GradientBalancer(Balancer):
    """A balancer that works on the task gradients themselves and answers with a direction."""

    needs: Need = "gradients"

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]``; by default :meth:`direction` of the gradients of the tasks present."""
        assert observation.gradients is not None
        return self.direction(observation.gradients)

    def direction(self, gradients: Tensor) -> Tensor:
        """Update direction ``[P]`` from task gradients ``[k, P]``."""
        raise TypeError(f"{type(self).__name__} implements neither direction() nor decide()")


def _saved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return copy.deepcopy(value.bit_generator.state)
    return copy.deepcopy(value)


def _restore(balancer: Balancer, name: str, value: Any) -> None:
    present = getattr(balancer, name)
    if isinstance(present, torch.Generator):
        present.set_state(value)
    elif isinstance(present, np.random.Generator):
        present.bit_generator.state = copy.deepcopy(value)
    else:
        setattr(balancer, name, _saved(value))
