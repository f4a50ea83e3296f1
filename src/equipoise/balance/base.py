"""What a balancer is: a small policy that knows nothing of models or autograd graphs.

A balancer looks at an :class:`Observation` of the step and answers with weights ``[k]`` for the tasks present (or, if it
works on the gradients themselves, with a direction ``[P]``). There is a base class for each kind of need, because what a
method looks at is what it costs: losses (one ordinary backward), the Gramian (a backward a task) or all gradients.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.distributed import Processes
from equipoise.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from equipoise.objective import Objective

__all__ = [
    "Balancer",
    "Companion",
    "Elsewhere",
    "GradientBalancer",
    "GramianBalancer",
    "LossBalancer",
    "Need",
    "Observation",
    "Pull",
]

Need = Literal["losses", "gramian", "gradients"]


class Elsewhere(Protocol):
    """Evaluates the losses of a step at other parameters; the model stays as it is."""

    def parameters(self) -> dict[str, Tensor]:
        """The model's trained parameters by name."""

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Losses ``[k]`` of the tasks present in this process, at substituted parameters, differentiable."""

    def average(self, values: Tensor) -> Tensor:
        """Means over the processes that train together."""


class Companion(NamedTuple):
    """What a balancer of losses wants differentiated together with them.

    Attributes:
        output: a tensor on the graph of this step's losses, or on one of its own.
        seed: what its gradient is multiplied with, of the same shape.
        parameters: the balancer's own parameters, whose ``.grad`` is filled.
    """

    output: Tensor
    seed: Tensor
    parameters: Sequence[Tensor]


class Pull(NamedTuple):
    """What a balancer adds to the gradients of task-specific parameters, second order through the task gradients.

    To its loss, task i adds a function of its own gradient g_i whose derivative with respect to g_i is
    u_i = Σ_j C_ij g_j, all u held constant. Its own parameters φ_i then get ∂⟨g_i, u_i⟩/∂φ_i besides ∂ℓ_i/∂φ_i.

    Attributes:
        coefficients: C ``[k, k]`` in float64, of the tasks present. Tasks with equal rows are differentiated together.
        at_most: bounds the norm of what is added for a task, relative to that of ∂ℓ_i/∂φ_i; no bound if ``None``.
        features: take g_i and u_i at this module's output instead of the shared parameters.
    """

    coefficients: Tensor
    at_most: float | None = None
    features: nn.Module | None = None


@dataclass(frozen=True)
class Observation:
    """What a balancer may look at in one step.

    Attributes:
        tasks: names of all K tasks, in their fixed order.
        present: positions of the k tasks that this step's batch holds, ascending.
        losses: losses of the tasks present, ``[k]``, detached; ``None`` where the balancer said that its weights do not
            depend on them and they are not known yet.
        gramian: ``[k, k]`` in float64 on the CPU, if the balancer needs it.
        gradients: task gradients ``[k, P]``, if the balancer needs them; of the features (flat, this process's samples) when a
            balancer that ``works_on_features`` learns from a step.
        step: index of the step, counted from 0.
        elsewhere: evaluates this step's losses at other parameters; ``None`` where only the losses are known (drop-in).
        cross: ``G(z₁) G(z₂)ᵀ [c, c]`` in float64 on the CPU, the products of the task gradients on the two further batches, for
            the tasks ``crossed``; only if the balancer asks for further batches.
        crossed: positions of the c tasks that both further batches hold, ascending.
        features: what the features module gave, if the balancer decides on the direction of the features: one tensor, detached.
        batch: what the losses were evaluated on, in the same case.
    """

    tasks: tuple[str, ...]
    present: tuple[int, ...]
    losses: Tensor | None = None
    gramian: Tensor | None = None
    gradients: Tensor | None = None
    step: int = 0
    elsewhere: Elsewhere | None = None
    cross: Tensor | None = None
    crossed: tuple[int, ...] = ()
    features: Tensor | None = None
    batch: Any = None

    @property
    def complete(self) -> bool:
        """Whether all tasks are present."""
        return len(self.present) == len(self.tasks)

    def of_present(self, values: Tensor) -> Tensor:
        """Entries of a ``[K]`` vector that belong to the tasks present."""
        return values if self.complete else values[torch.as_tensor(self.present, device=values.device)]


class Balancer(ABC):
    """Decides how the tasks combine. Derive from one of the three classes below, not from this one.

    Attributes:
        needs: what the next decision looks at: ``"losses"``, ``"gramian"`` or ``"gradients"``.
        watches: whether the balancer wants the same batch's losses again after the optimizer's step.
        depends_on_losses: whether weights that need losses only depend on this very step's losses. Where they do, gradient
            accumulation and losses given as callables need a forward pass more, to know all losses before the first
            backward.
        stateful: names of the attributes that make up the state: tensors, numbers, arrays or generators.
        processes: those that train together; :class:`~equipoise.MultiTaskOptimizer` sets it where it was given a group.
        further: how many independent batches beside the step's own it looks at: 0, or 2 if it needs the Gramian. They come from
            the objective's ``batches`` or are given to ``step``; what is seen of them is the observation's ``cross``.
        decides_purely: whether :meth:`decide` leaves the state as it was and all learning is done in :meth:`update` and
            later. Then no copy of the state is taken before each step, which matters where it is as large as the gradients.
        works_on_features: whether it acts at the output of a module of the model, its ``features_module``, where the gradients
            are then taken. Only :class:`~equipoise.MultiTaskOptimizer` can do that. One that needs ``"gradients"`` is given
            those of the features, flat ``[k, F]``, with features and batch beside them, and its direction ``[F]`` is taken
            through the encoder.
        needs_targets: whether :meth:`take_parts` has to be told a third thing, ``targets``: what gives a batch's targets by
            task.
    """

    needs: Need
    watches: ClassVar[bool] = False
    depends_on_losses: ClassVar[bool] = False
    stateful: ClassVar[tuple[str, ...]] = ()
    decides_purely: ClassVar[bool] = False
    works_on_features: ClassVar[bool] = False
    further: ClassVar[int] = 0
    needs_targets: ClassVar[bool] = False
    processes: Processes = Processes()

    @property
    def features_module(self) -> nn.Module | None:
        """The module at whose output the gradients are taken, once attached; ``None`` for the shared parameters' own."""
        return None

    @property
    def lacks_parts(self) -> bool:
        """Whether it still has to be told, by :meth:`take_parts`, which parts of the model it acts on."""
        return False

    def take_parts(self, features: Any = None, heads: Any = None) -> None:  # noqa: B027
        """Says where the shared features and the tasks' heads are, for a balancer that ``lacks_parts``."""

    @property
    def pulls(self) -> bool:
        """Whether the balancer adds to the gradients of task-specific parameters, see :meth:`pull`."""
        return False

    def pull(self, weights: Tensor, gramian: Tensor) -> Pull | None:
        """What is added to the gradients of task-specific parameters; only asked if the balancer :attr:`pulls`.

        Args:
            weights: this step's decision ``[k]``.
            gramian: of the task gradients, ``[k, k]`` in float64.
        """
        return None

    def begin(self) -> None:  # noqa: B027
        """Told by :class:`~equipoise.MultiTaskOptimizer` that a step begins, before its losses are evaluated."""

    def attach(self, objective: Objective) -> None:  # noqa: B027  (most balancers know nothing of the model)
        """Told by :class:`~equipoise.MultiTaskOptimizer` at its construction which objective it balances.

        For balancers that need more of the model than losses and gradients: a module whose output they look at, or further
        batches to draw.
        """

    @abstractmethod
    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present, or a direction ``[P]`` if the gradients were asked for."""

    def update(self, observation: Observation) -> None:  # noqa: B027  (most balancers learn nothing from a step)
        """Learns from a step whose losses and gradients turned out finite; called once a step, after the decision."""

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
        """A copy of everything that decides how the balancer goes on."""
        return {name: _saved(getattr(self, name)) for name in self.stateful}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
            InputError: the state belongs to another kind of balancer.
        """
        if set(state) != set(self.stateful):
            raise InputError(
                f"{type(self).__name__} keeps the state {sorted(self.stateful)}; the one given holds {sorted(state)}"
            )
        for name, value in state.items():
            _restore(self, name, value)

    def check_memory(self, memory: Tensor | None, observation: Observation) -> None:
        """Refuses to go on with what was learned on another number of tasks.

        Args:
            memory: a vector ``[K]`` of the state, or ``None`` if there is none yet.
            observation: of the step.

        Raises:
            InputError: the lengths differ.
        """
        if memory is not None and memory.shape[-1] != len(observation.tasks):
            raise InputError(
                f"this {type(self).__name__} has learned from {memory.shape[-1]} tasks and now meets "
                f"{len(observation.tasks)}; make a new one for another problem"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class LossBalancer(Balancer):
    """A balancer that looks at losses only: one ordinary backward pass of the weighted sum, whatever K."""

    needs: Need = "losses"
    depends_on_losses: ClassVar[bool] = True

    def companion(self) -> Companion | None:
        """What is to be differentiated together with the losses, for a balancer that trains modules of its own."""
        return None

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present; by default :meth:`weights` of their losses."""
        assert observation.losses is not None
        return self.weights(observation.losses)

    def weights(self, losses: Tensor) -> Tensor:
        """Weights ``[k]`` for losses ``[k]``; what a balancer without memory implements."""
        raise TypeError(f"{type(self).__name__} implements neither weights() nor decide()")


class GramianBalancer(Balancer):
    """A balancer that looks at the inner products of the task gradients; costs one backward pass a task.

    Implement :meth:`solve` (one Gramian, NumPy) or override :meth:`weights` (torch, any number of leading dimensions).
    """

    needs: Need = "gramian"

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present; by default :meth:`weights` of their Gramian."""
        assert observation.gramian is not None
        return self.weights(observation.gramian)

    def weights(self, gram: Tensor) -> Tensor:
        """Weights of the tasks from the Gramian of their gradients; needs no model.

        Args:
            gram: ``[..., K, K]``, symmetric and positive semi-definite up to rounding.

        Returns:
            ``[..., K]``, with the dtype and on the device of ``gram``; computed in float64.

        Raises:
            InputError: not square matrices.
            NonFiniteError: an entry is infinite or not a number.
        """
        if gram.dim() < 2 or gram.shape[-1] != gram.shape[-2] or gram.shape[-1] == 0:
            raise InputError(f"a Gramian has the shape [..., K, K]; got {list(gram.shape)}")
        matrices = gram.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(matrices).all():
            raise NonFiniteError("the Gramian has entries that are not finite", tasks=(), step=-1, what="gradient")
        if matrices.ndim == 2:
            return torch.from_numpy(self.solve(matrices)).to(gram)
        flat = matrices.reshape(-1, *matrices.shape[-2:])
        solutions = np.empty(flat.shape[:-1])
        for position, matrix in enumerate(flat):
            solutions[position] = self.solve(matrix)
        return torch.from_numpy(solutions.reshape(matrices.shape[:-1])).to(gram)

    def solve(self, gram: NDArray[np.float64]) -> NDArray[np.float64]:
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
