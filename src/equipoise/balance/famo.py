"""FAMO: fast adaptive multitask optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers
from equipoise.balance.per_task import PerTask
from equipoise.balance.registry import register
from equipoise.balance.vector_adam import vector_adam, vector_adam_state
from equipoise.errors import InputError, warn_once
from equipoise.states import Maybe, Moments, Of

__all__ = ["FAMO"]

_PATIENCE = 10


@register(
    "famo",
    summary="log losses, weighted so that all fall at the same relative rate; one extra forward pass per step",
    paper="Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023",
    price="1 backward, 1 forward more",
    promise="log losses that fall at about the same rate; the units of a loss do not matter",
    serves="many tasks, when one backward is all you can afford",
    caveats="losses must be positive; remembers, so start fresh for each training; own loops call `observe`",
    adds_up_to="1",
    checked="closed form of its step; autograd",
)
class FAMO(LossBalancer):
    """Decreases all log losses at about the same rate, at the price of one more forward pass (Liu et al., 2023, Algorithm 1).

    With z = softmax(ξ), the model takes the direction c Σ_k z_k ∇log ℓ_k, c = (Σ_k z_k/ℓ_k)⁻¹, so task k weighs
    c z_k/ℓ_k and the weights sum to 1. After the optimizer's step the same batch's losses are looked at again, and ξ
    takes a step of Adam along Jᵀ(log ℓ(θ_t) − log ℓ(θ_{t+1})) + γ ξ, J the Jacobian of the softmax.

    In a loop of your own, call ``balancer.observe(before, after, present)`` after the optimizer's step;
    :class:`~equipoise.MultiTaskOptimizer` does it by itself.

    **Mind.** Losses must be positive. It remembers, so start a fresh one for each training. In your own loop you must call
    ``observe``.

    Args:
        lr: β, of Adam on ξ; 0.025 in the paper.
        weight_decay: γ, decay of ξ towards equal weights; 0.01 as in the released code (the paper searched 0.0001 to 0.01).
        epsilon: added to the losses before the logarithm.
        floors: b, what a loss cannot fall below, one for all tasks, or one per task in their order or by name: log(ℓ_k − b_k)
            takes the place of log ℓ_k (the paper's losses are bounded below by 0 without loss of generality).

    Raises:
        InputError: an argument is negative, or floors are not finite or not those of the tasks.
        NonFiniteError: at a step, when a loss is below its floor: its logarithm does not exist.

    Example:
        >>> FAMO(floors=[1.0, 0.0]).weights(torch.tensor([3.0, 2.0], dtype=torch.float64))  # as far above their floors
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    watches = True
    stateful: ClassVar = {"logits": Maybe(Of(("K",)), "memory"), "moments": Maybe(Moments((3, "K")), "memory")}

    def __init__(
        self,
        lr: float = 0.025,
        weight_decay: float = 0.01,
        epsilon: float = 1e-8,
        floors: float | Sequence[float] | Mapping[str, float] = 0.0,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("epsilon", epsilon)):
            if not value >= 0:
                raise InputError(f"{name} must be at least 0; got {value}")
        self.lr = lr
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        self.floors = PerTask("floors", floors)
        self._floors: Tensor | None = None  # of all tasks, by their positions
        self.logits: Tensor | None = None
        self.moments: Tensor | None = None
        self._unobserved = 0

    def decide(self, observation: Observation) -> Tensor:
        """C z_k/ℓ_k of the tasks present."""
        observation.check_memory(self, self.logits)
        losses = observation.needed("losses").double()
        if self.floors.given != 0.0:
            self._floors = losses.new_tensor(self.floors.of_all(observation.tasks))
            losses = losses - observation.of_present(self._floors)
        if self.logits is None:
            self.logits = losses.new_zeros(len(observation.tasks))
            self.moments = vector_adam_state(self.logits)
        shares = torch.softmax(observation.of_present(self.logits.to(losses.device)), 0)
        shifted = losses + self.epsilon
        # The logarithm of a negative loss does not exist, and neither does its weight; the others' errors are not theirs.
        fine = shifted > 0
        parts = torch.where(fine, shares / torch.where(fine, shifted, 1.0), 0.0)
        # The inverse of a loss may leave the number range, where the inverse relative to the smallest does not.
        least = torch.where(fine, shifted, torch.inf).min()
        parts = torch.where(torch.isinf(parts).any(), shares * (least / torch.where(fine, shifted, torch.inf)), parts)
        return torch.where(fine, parts / parts.sum(), torch.nan)

    def update(self, observation: Observation) -> None:
        """Counts the steps that nothing was observed after."""
        self._unobserved += 1
        if self._unobserved == _PATIENCE:
            warn_once(
                self,
                "unobserved",
                f"FAMO was not told of the losses after its last {_PATIENCE} steps, so it has learned nothing from them: call "
                f"balancer.observe(before, after, present) after each optimizer.step()",
            )

    def observe(self, before: Tensor, after: Tensor, present: tuple[int, ...]) -> None:
        """One Adam step on the logits of the tasks present; non-finite losses teach nothing."""
        before, after = as_numbers(before, "the losses before", 1), as_numbers(after, "the losses after", 1)
        if self.logits is None or self.moments is None or not len(before) == len(after) == len(present):
            raise InputError(
                f"observe() takes the losses of the tasks present before and after a step; got {len(before)}, {len(after)} and "
                f"{len(present)} tasks" + (" before any decision" if self.logits is None else "")
            )
        self._unobserved = 0
        before, after = before.double(), after.double()
        entries = torch.as_tensor(present, device=before.device)
        if self._floors is not None:
            floors = self._floors.to(before.device)[entries]
            before, after = before - floors, after - floors
        logits = self.logits.to(before.device)
        fall = (before + self.epsilon).log() - (after + self.epsilon).log()
        shares = torch.softmax(logits[entries], 0)
        gradient = shares * (fall - (shares * fall).sum())
        new_logits, new_moments = vector_adam(
            logits, gradient, self.moments.to(before.device), entries, lr=self.lr, weight_decay=self.weight_decay
        )
        finite = torch.isfinite(gradient).all()
        self.logits = torch.where(finite, new_logits, logits)
        self.moments = torch.where(finite, new_moments, self.moments.to(before.device))

    def __repr__(self) -> str:
        floors = "" if self.floors.given == 0.0 else f", floors={self.floors}"
        return f"FAMO(lr={self.lr}, weight_decay={self.weight_decay}{floors})"
