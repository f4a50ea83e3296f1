"""What a lower step makes of a gradient: plain descent, or the rule of a torch optimizer, in a form that can be unrolled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equipoise.bilevel.problem import LevelVariables
from equipoise.errors import InputError

__all__ = ["Averages", "Descent", "LowerRule", "OptimizerRule", "Vectors"]

Gradients = Sequence[Tensor | None]
Vectors = list[list[Tensor]]
"""One vector per objective, in pieces per variable."""


class Averages(NamedTuple):
    """What a rule remembers from step to step.

    Attributes:
        slots: averages, slot by slot, one per variable; ``None`` where there is none yet.
        counts: steps that each variable has taken.
    """

    slots: list[list[Tensor | None]]
    counts: list[int]


class LowerRule(ABC):
    """One step of ω, out of place and differentiable in all that it is given.

    Attributes:
        clip: the norm that all gradients together are shortened to; ``None`` for no limit.
        schedule: t → what the step size is multiplied with in lower step t of an outer step, from 0.
    """

    def __init__(self, clip: float | None, schedule: Callable[[int], float] | None) -> None:
        if clip is not None and not 0 < clip < float("inf"):
            raise InputError(f"lower_clip must be positive and finite; got {clip}")
        if schedule is not None and not callable(schedule):
            raise InputError(
                f"lower_schedule must be a function of the lower step's index that gives a factor of the step size; "
                f"got {type(schedule).__name__}"
            )
        self.clip = clip
        self.schedule = schedule

    def factor(self, index: int) -> float:
        """Of the step size, in a lower step."""
        if self.schedule is None:
            return 1.0
        factor = float(self.schedule(index))
        if not 0 <= factor < float("inf"):
            raise InputError(f"lower_schedule({index}) must be a factor of at least 0; got {factor}")
        return factor

    def step(
        self, values: Sequence[Tensor], gradients: Gradients, memory: Averages, index: int
    ) -> tuple[list[Tensor], Averages]:
        """ω and the memory after a step; a variable without a gradient stays as it is."""
        if self.clip is not None:
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients if g is not None]))
            shrunk = (self.clip / (norm + 1e-6)).clamp(max=1.0)
            gradients = [None if g is None else g * shrunk.to(g) for g in gradients]
        return self._step(values, gradients, memory, self.factor(index))

    @abstractmethod
    def _step(
        self, values: Sequence[Tensor], gradients: Gradients, memory: Averages, factor: float
    ) -> tuple[list[Tensor], Averages]: ...

    def pull(
        self, values: Sequence[Tensor], gradients: Gradients, memory: Averages, index: int, rows: Vectors, slots: list[Vectors]
    ) -> tuple[Vectors, list[Vectors], Vectors, float]:
        """Takes adjoints back through a step.

        Args:
            values: before the step.
            gradients: of that step.
            memory: before the step.
            index: of the step.
            rows: for each objective, its adjoint of ω after the step.
            slots: for each objective, those of the memory's slots.

        Returns:
            The adjoints of ω and of the slots before the step as the rule alone gives them; and those of the gradient, with
            a factor that is still missing in them.
        """
        leaves = [value.detach().requires_grad_() for value in values]
        slopes = [None if g is None else g.detach().requires_grad_() for g in gradients]
        before = Averages(
            [[None if s is None else s.detach().requires_grad_() for s in slot] for slot in memory.slots], memory.counts
        )
        with torch.enable_grad():
            after, kept = self.step(leaves, slopes, before, index)
        old = [entry for slot in before.slots for entry in slot]
        inputs = [*leaves, *(entry for entry in (*old, *slopes) if entry is not None)]
        new = [entry for slot in kept.slots for entry in slot]
        found_rows: Vectors = []
        found_slots: list[Vectors] = []
        found_slopes: Vectors = []
        for row, own in zip(rows, slots, strict=True):
            ends = zip([*after, *new], [*row, *(entry for slot in own for entry in slot)], strict=True)
            pairs = [(output, seed) for output, seed in ends if output is not None and output.requires_grad]
            outputs, seeds = [output for output, _ in pairs], [seed for _, seed in pairs]
            found = torch.autograd.grad(outputs, inputs, seeds, retain_graph=True, allow_unused=True)
            given = iter([torch.zeros_like(i) if f is None else f for i, f in zip(inputs, found, strict=True)])
            found_rows.append([next(given) for _ in leaves])
            # A slot that begins with this step has nothing before it.
            found_slots.append(
                [
                    [torch.zeros_like(leaf) if entry is None else next(given) for leaf, entry in zip(leaves, slot, strict=True)]
                    for slot in before.slots
                ]
            )
            found_slopes.append(
                [torch.zeros_like(v) if g is None else next(given) for v, g in zip(leaves, slopes, strict=True)]
            )
        return found_rows, found_slots, found_slopes, 1.0

    def decays(self, variables: int) -> list[float]:
        """Weight decay of each variable: what the rule adds to the diagonal of f's second derivative."""
        return [0.0] * variables

    def fresh(self, variables: int) -> Averages:
        """What is remembered before the first step."""
        return Averages([], [0] * variables)

    def remembered(self, variables: int) -> Averages:
        """What is remembered of earlier outer steps."""
        return self.fresh(variables)

    def remember(self, memory: Averages) -> None:  # noqa: B027
        """Keeps it for further outer steps."""


class Descent(LowerRule):
    """ω − η ∇f."""

    def __init__(self, lr: float, clip: float | None = None, schedule: Callable[[int], float] | None = None) -> None:
        super().__init__(clip, schedule)
        self.lr = lr

    @property
    def linear(self) -> bool:
        """Whether a step is a linear function of the gradient."""
        return self.clip is None

    def _step(
        self, values: Sequence[Tensor], gradients: Gradients, memory: Averages, factor: float
    ) -> tuple[list[Tensor], Averages]:
        lr = self.lr * factor
        return [v if g is None else v - lr * g for v, g in zip(values, gradients, strict=True)], memory

    def pull(
        self, values: Sequence[Tensor], gradients: Gradients, memory: Averages, index: int, rows: Vectors, slots: list[Vectors]
    ) -> tuple[Vectors, list[Vectors], Vectors, float]:
        if self.linear:
            return rows, slots, rows, -self.lr * self.factor(index)
        return super().pull(values, gradients, memory, index, rows, slots)


class OptimizerRule(LowerRule):
    """The step of ``torch.optim.SGD``, ``Adam`` or ``AdamW``, by the options that the optimizer's groups have at that time.

    Args:
        optimizer: holds the lower-level variables and no others; it never steps itself.
        variables: those.

    Raises:
        InputError: another optimizer, an option that is not followed, or other variables.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        variables: LevelVariables,
        clip: float | None = None,
        schedule: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__(clip, schedule)
        if type(optimizer) not in _FOLLOWED:
            raise InputError(
                f"lower_optimizer must be a torch.optim.SGD, Adam or AdamW, whose steps are followed; got "
                f"{type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.variables = variables.tensors
        held = {id(p): place for place, group in enumerate(optimizer.param_groups) for p in group["params"]}
        missing = [name for name, own in zip(variables.names, variables.tensors, strict=True) if id(own) not in held]
        if missing or len(held) > len(variables):
            what = f'it lacks "{missing[0]}"' if missing else f"it holds {len(held) - len(variables)} others"
            raise InputError(f"lower_optimizer must hold the lower-level variables, all of them and no others; {what}")
        if any(own.is_complex() for own in variables.tensors):
            raise InputError("lower_optimizer follows real variables only; give lower_lr for complex ones")
        for group in optimizer.param_groups:
            for option in ("amsgrad", "maximize"):
                if group.get(option):
                    raise InputError(f"lower_optimizer: {option}=True is not followed; leave it out")
        self._groups = [held[id(own)] for own in variables.tensors]
        self._names = ("momentum_buffer",) if type(optimizer) is torch.optim.SGD else ("exp_avg", "exp_avg_sq")

    def _step(
        self, values: Sequence[Tensor], gradients: Gradients, memory: Averages, factor: float
    ) -> tuple[list[Tensor], Averages]:
        step = _sgd if type(self.optimizer) is torch.optim.SGD else _adam
        moved, slots, counts = [], [list(slot) for slot in memory.slots], list(memory.counts)
        for place, (value, gradient) in enumerate(zip(values, gradients, strict=True)):
            if gradient is None:
                moved.append(value)
                continue
            counts[place] += 1
            group = self.optimizer.param_groups[self._groups[place]]  # as it is now: a scheduler may have been at work
            options = group | {"lr": float(group["lr"]) * factor, "decoupled_weight_decay": self._decoupled(group)}
            new, kept = step(value, gradient, [slot[place] for slot in slots], counts[place], options)
            moved.append(new)
            for slot, entry in zip(slots, kept, strict=True):
                slot[place] = entry
        return moved, Averages(slots, counts)

    def _decoupled(self, group: dict[str, Any]) -> bool:
        # Before torch 2.7, groups do not say so.
        return bool(group.get("decoupled_weight_decay", type(self.optimizer) is torch.optim.AdamW))

    def decays(self, variables: int) -> list[float]:
        groups = [self.optimizer.param_groups[place] for place in self._groups]
        if any(group["weight_decay"] and self._decoupled(group) for group in groups):
            raise InputError(
                "Implicit() asks for the minimum of f, and with AdamW's weight decay lower steps do not lead to one of any "
                "function; take Adam or SGD, whose decay is that of f + ½ decay ‖ω‖², or Unrolled()"
            )
        return [float(group["weight_decay"]) for group in groups]

    def fresh(self, variables: int) -> Averages:
        return Averages([[None] * variables for _ in self._names], [0] * variables)

    def remembered(self, variables: int) -> Averages:
        states: list[dict[str, Any]] = [self.optimizer.state.get(own, {}) for own in self.variables]
        counts = [int(state.get("step", 0)) for state in states]
        return Averages([[state.get(name) for state in states] for name in self._names], counts)

    def remember(self, memory: Averages) -> None:
        for place, own in enumerate(self.variables):
            kept = {name: slot[place] for name, slot in zip(self._names, memory.slots, strict=True) if slot[place] is not None}
            if kept and type(self.optimizer) is not torch.optim.SGD:
                kept["step"] = torch.tensor(float(memory.counts[place]), device="cpu")
            if kept:
                self.optimizer.state[own] = kept


def _sgd(
    value: Tensor, gradient: Tensor, slots: list[Tensor | None], count: int, options: dict[str, Any]
) -> tuple[Tensor, list[Tensor | None]]:
    kept = slots[0]
    if options["weight_decay"]:
        gradient = gradient.add(value, alpha=options["weight_decay"])
    if options["momentum"]:
        kept = gradient if kept is None else kept.mul(options["momentum"]).add(gradient, alpha=1 - options["dampening"])
        gradient = gradient.add(kept, alpha=options["momentum"]) if options["nesterov"] else kept
    return value.add(gradient, alpha=-options["lr"]), [kept]


def _adam(
    value: Tensor, gradient: Tensor, slots: list[Tensor | None], count: int, options: dict[str, Any]
) -> tuple[Tensor, list[Tensor | None]]:
    first, second = options["betas"]
    lr, decay = options["lr"], options["weight_decay"]
    if decay and options["decoupled_weight_decay"]:
        value = value.mul(1 - lr * decay)
    elif decay:
        gradient = gradient.add(value, alpha=decay)
    mean, square = (torch.zeros_like(value) if slot is None else slot for slot in slots)
    mean = mean.lerp(gradient, 1 - first)
    square = square.mul(second).addcmul(gradient, gradient, value=1 - second)
    # The root has no derivative at 0, where the step does not depend on it.
    positive = square > 0
    root = torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
    denominator = (root / (1 - second**count) ** 0.5).add(options["eps"])
    return value.addcdiv(mean, denominator, value=-lr / (1 - first**count)), [mean, square]


_FOLLOWED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
