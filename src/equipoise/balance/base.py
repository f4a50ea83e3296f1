"""What a balancer is: a small policy that knows nothing of models or autograd graphs.

A balancer looks at an :class:`Observation` of the step and answers with weights ``[k]`` for the tasks present (or, if it
works on the gradients themselves, with a direction ``[P]``). There is a base class for each kind of need, because what a
method looks at is what it costs: losses (one ordinary backward), the Gramian (one backward pass per task) or all gradients.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equipoise.distributed import Processes
from equipoise.errors import InputError, NonFiniteError
from equipoise.solvers import read_array
from equipoise.states import Anything, Form, like, read_state, tasks_known

__all__ = [
    "Balancer",
    "GradientBalancer",
    "GramianBalancer",
    "Layout",
    "LossBalancer",
    "Need",
    "Observation",
    "as_numbers",
    "cast_back",
    "clipped",
    "finite_direction",
    "norm_bound",
    "restore",
]

Need = Literal["losses", "gramian", "gradients"]
Layout: TypeAlias = tuple[tuple[str, int], ...]
"""For each shared parameter, in the order of the columns, what it is called and how many columns it has."""

_EVERY = Processes()


def as_numbers(values: Tensor | ArrayLike, name: str, dimensions: int) -> Tensor:
    """What a caller gave as a tensor of real floating-point numbers, without a graph; float64 unless it was such a tensor.

    Args:
        values: a tensor, an array or lists.
        name: what they are, for the message.
        dimensions: how many the tensor must have.

    Raises:
        InputError: no real numbers, none at all, or another number of dimensions.

    Example:
        >>> as_numbers([1, 2], "the losses", 1)
        tensor([1., 2.], dtype=torch.float64)
    """
    if not (isinstance(values, Tensor) and values.is_floating_point() and values.layout == torch.strided):
        values = torch.tensor(read_array(values, name), device="cpu")
    if values.dim() != dimensions or values.numel() == 0:
        shape = "[K]" if dimensions == 1 else "[K, P]"
        raise InputError(f"{name} have the shape {shape}; got {list(values.shape)}")
    return values.detach() if values.requires_grad else values


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

    def __post_init__(self) -> None:
        count = len(self.present)
        for name, shape in (("losses", (count,)), ("gramian", (count, count)), ("gradients", (count, None))):
            value = getattr(self, name)
            # What a step shows is as it should be; anything else comes from a caller of decide().
            fine = isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided
            if value is not None and not (fine and not value.requires_grad):
                value = as_numbers(value, f"an observation's {name}", len(shape))
                object.__setattr__(self, name, value)
            if name == "gramian" and value is not None and (value.dtype != torch.float64 or value.device.type != "cpu"):
                value = value.to("cpu", torch.float64)
                object.__setattr__(self, name, value)
            if value is not None and (value.dim() != len(shape) or value.shape[0] != count):
                expected = ", ".join("P" if size is None else str(size) for size in shape)
                raise InputError(
                    f"an observation's {name} must have the shape [{expected}] for {count} tasks present; "
                    f"got {list(value.shape)}"
                )
        if count and not (self.present[0] >= 0 and self.present[-1] < len(self.tasks)):
            raise InputError(f"an observation's present are positions among {len(self.tasks)} tasks; got {list(self.present)}")

    def needed(self, name: Literal["losses", "gramian", "gradients"]) -> Tensor:
        """The losses, the Gramian or the gradients. Raises InputError: there are none, although they are needed."""
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise InputError(f"this balancer decides and learns by the {name} of a step; the observation has none")
        return value

    @classmethod
    def of_all(cls, losses: Tensor | ArrayLike, gradients: Tensor | None = None) -> Observation:
        """Of K tasks without names, all of which are present."""
        losses = as_numbers(losses, "the losses", 1)
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
        stateful: names of the attributes that make up the state: tensors, numbers, arrays or generators. A mapping also says of
            what :class:`~equipoise.states.Form` each is, which is checked when a state is loaded.
        decides_purely: whether :meth:`decide` leaves the state as it was and all learning is done in :meth:`update` and
            later. Then no copy of the state is taken before each step, which matters where it is as large as the gradients.
    """

    needs: Need
    watches: ClassVar[bool] = False
    stateful: ClassVar[tuple[str, ...] | Mapping[str, Form]] = ()
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
            InputError: the state belongs to another kind of balancer, or is damaged; nothing has changed.
        """
        for name, value in self.read_state(state).items():
            restore(self, name, value)

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """A state as :meth:`load_state_dict` takes it up; changes nothing.

        Args:
            state: from :meth:`state_dict`.
            sizes: how many tasks there are, as ``"K"``, where that is known; sizes that the state decides are added.

        Raises:
            InputError: the state belongs to another kind of balancer or another number of tasks, or is damaged.
        """
        if type(self).state_dict is not Balancer.state_dict:
            return state  # of a form of its own, which this class does not know
        declared = self.stateful if isinstance(self.stateful, Mapping) else dict.fromkeys(self.stateful, Anything())
        kinds = {name: like(getattr(self, name)) if kind == Anything() else kind for name, kind in declared.items()}
        sizes = {} if sizes is None else sizes
        for name, kind in kinds.items():
            tasks_known(kind, getattr(self, name), sizes)
        return read_state(type(self).__name__, state, kinds, sizes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def cast_back(answer: Tensor, like: Tensor) -> Tensor:
    """An answer in the precision and on the device of what was asked about.

    Raises:
        InputError: that precision has no such number.
    """
    cast = answer.to(like)
    if bool(torch.isinf(cast).any()):
        precision = str(like.dtype).removeprefix("torch.")
        largest = float(answer.nan_to_num(nan=0.0, posinf=torch.inf).abs().max())
        raise InputError(
            f"the answer's largest number is {largest:.3g}, which {precision} cannot hold; scale what you ask about"
            + ("" if precision == "float64" else ", or ask in float64")
        )
    return cast


def clipped(weights: NDArray[np.float64], gramian: NDArray[np.float64], max_norm: float | None) -> NDArray[np.float64]:
    """Weights whose direction's norm √(wᵀQw) is at most ``max_norm``; as they are if there is no bound.

    Example:
        >>> clipped(np.array([3.0, 4.0]), np.eye(2), 2.5).tolist()
        [1.5, 2.0]
    """
    if max_norm is None:
        return weights
    norm = float(np.sqrt(max(float(weights @ gramian @ weights), 0.0)))
    return weights * min(1.0, max_norm / norm) if norm > 0 else weights


def norm_bound(max_norm: float | None) -> float | None:
    """A ``max_norm`` as it was given. Raises InputError: it is not positive."""
    if max_norm is not None and not max_norm > 0:
        raise InputError(f"max_norm must be positive; got {max_norm}")
    return max_norm


def finite_direction(direction: Tensor) -> Tensor:
    """A direction for a caller who has no step around it that would look. Raises NonFiniteError: it leaves the number range."""
    if not bool(torch.isfinite(direction).all()):
        raise NonFiniteError(
            f"the direction leaves the range of {direction.dtype}; scale the gradients", tasks=(), step=-1, what="direction"
        )
    return direction


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
        return self.weights(observation.needed("losses"))

    def weights(self, losses: Tensor | ArrayLike) -> Tensor:
        """Weights ``[k]`` for losses ``[k]``; what a balancer without memory implements, else :meth:`decide` of all K tasks."""
        if type(self).decide is LossBalancer.decide:
            raise TypeError(f"{type(self).__name__} implements neither weights() nor decide()")
        losses = as_numbers(losses, "the losses", 1)
        return cast_back(self.decide(Observation.of_all(losses)), losses)


class GramianBalancer(Balancer):
    """A balancer that looks at the inner products of the task gradients; costs one backward pass per task.

    Implement :meth:`solve` (one Gramian, NumPy) or override :meth:`weights` (torch, any number of leading dimensions).

    Attributes:
        metric: which inner products the Gramian holds: plain ones, or with ``"optimizer"`` those in the metric of the
            optimizer's step, G D⁻¹ Gᵀ with D = √v̂ + ε of Adam and its relatives
            (:class:`~equipoise.step.metric.OptimizerMetric`). An option of every method on the Gramian,
            ``"fairgrad:metric=optimizer"``; of a balancer that you made, set it.
    """

    needs: Need = "gramian"
    metric: Literal["optimizer"] | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present; by default :meth:`weights` of their Gramian."""
        return self.weights(observation.needed("gramian"))

    def weights(self, gramian: Tensor | ArrayLike) -> Tensor:
        """Weights of the tasks from the Gramian of their gradients; needs no model.

        Args:
            gramian: ``[..., K, K]``, symmetric and positive semi-definite up to rounding: a tensor, an array or lists.

        Returns:
            ``[..., K]``, with the dtype and on the device of ``gramian`` if that is a floating-point tensor, else in float64;
            computed in float64.

        Raises:
            InputError: not square matrices, or weights that the dtype of ``gramian`` cannot hold.
            NonFiniteError: an entry is infinite or not a number.
        """
        matrices = read_array(gramian, "a Gramian")
        if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2] or matrices.shape[-1] == 0:
            raise InputError(f"a Gramian has the shape [..., K, K]; got {list(matrices.shape)}")
        like = (
            gramian
            if isinstance(gramian, Tensor) and gramian.is_floating_point()
            else torch.empty(0, dtype=torch.float64, device="cpu")
        )
        if not np.isfinite(matrices).all():
            raise _unbounded(matrices)
        if matrices.ndim == 2:
            return cast_back(torch.from_numpy(self.solve(matrices)), like)
        flat = matrices.reshape(-1, *matrices.shape[-2:])
        solutions = np.empty(flat.shape[:-1])
        for position, matrix in enumerate(flat):
            solutions[position] = self.solve(matrix)
        return cast_back(torch.from_numpy(solutions.reshape(matrices.shape[:-1])), like)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights ``[K]`` from one finite Gramian ``[K, K]`` in float64."""
        raise TypeError(f"{type(self).__name__} implements neither solve() nor weights()")


class GradientBalancer(Balancer):
    """A balancer that works on the task gradients themselves and answers with a direction."""

    needs: Need = "gradients"

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]``; by default :meth:`direction` of the gradients of the tasks present."""
        return self.direction(observation.needed("gradients"))

    def direction(self, gradients: Tensor | ArrayLike) -> Tensor:
        """Update direction ``[P]`` from task gradients ``[k, P]``."""
        raise TypeError(f"{type(self).__name__} implements neither direction() nor decide()")


def _unbounded(matrices: NDArray[np.float64]) -> NonFiniteError:
    """What is said of Gramians that are not finite: the tasks to blame, from the diagonal if that tells."""
    square = matrices.reshape(-1, *matrices.shape[-2:])
    bad = ~np.isfinite(square.diagonal(axis1=-2, axis2=-1)).all(0)
    if not bad.any():
        bad = ~np.isfinite(square).all(axis=(0, 1))
    names = tuple(f"task{place}" for place in np.flatnonzero(bad))
    return NonFiniteError(
        f"the Gramian has entries that are not finite, those of {', '.join(names)}", tasks=names, step=-1, what="gradient"
    )


def _saved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return copy.deepcopy(value.bit_generator.state)
    return copy.deepcopy(value)


def restore(balancer: Balancer, name: str, value: Any) -> None:
    present = getattr(balancer, name)
    if isinstance(present, torch.Generator):
        present.set_state(value)
    elif isinstance(present, np.random.Generator):
        present.bit_generator.state = copy.deepcopy(value)
    else:
        setattr(balancer, name, _saved(value))
