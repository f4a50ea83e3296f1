"""ExcessMTL: weights by estimated excess risks."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.per_task import RowsBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Listed, Maybe, Of, Text, Together, Whole

__all__ = ["ExcessMTL"]


@register(
    "excess-mtl",
    summary="more weight for tasks estimated to be far from their own optimum, whatever loss they have there",
    paper="He et al., Robust Multi-Task Learning with Excess Risks, ICML 2024",
    aliases=("excessmtl",),
    price="K backward, memory for K more gradients",
    promise="weights follow how far a loss could still fall: label noise, which keeps a loss high for good, draws none",
    serves="tasks with unequal label noise, or losses that do not go to 0",
    caveats="a heuristic; the first batch sets each task's scale; blind to conflicts",
    adds_up_to="the number of tasks present",
    checked="reference implementation, equations, TorchJD",
)
class ExcessMTL(RowsBalancer):
    """Moves weights by the exponentiated gradient of estimated excess risks (He et al., 2024, Algorithm 1).

    A task's loss above its own optimum is estimated as E_k = g_kᵀ diag(Σ_τ g_k,τ² + ε)^{−1/2} g_k, the sum running over all
    steps so far, this one included. Relative to the task's first estimate, which takes care of the units of the losses, it
    moves the weight, w_k ∝ w_k exp(η E_k/E_k at the start), and the direction is Σ_k w_k g_k with weights that add up to the
    number of tasks present (the paper's to 1). Weights are kept as logarithms. They are 1 in the first step, which only sets
    the scale, as in released code; a task whose first gradients vanish gets its scale from the first that does not.

    The paper's gradients are those of the whole network, here they are those of the shared parameters; task-specific ones get
    their own task's gradient with weight 1, as everywhere where gradients are balanced.

    Memory: one row of the shared parameters' length per task, and two more during the step. Tasks that a batch lacks keep
    their sums and their weight relative to the others. Sums start from 0 for parameters that become shared later (a layer that
    is unfrozen); those of the others go on.

    **Mind.** The estimate is a heuristic from accumulated squared gradients. The first batch sets the scale of each task.
    Weights move slowly, and more slowly as the estimates shrink. It does not look at conflicts.

    Args:
        lr: η; 0.01 as in released code.
        epsilon: ε, added to the sums of squares; 1e-7 as in released code.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> ExcessMTL().direction(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor([1., 2.])
    """

    stateful: ClassVar = {
        "squares": Maybe(Of(("K", "P"), dtype=None, least=0, inf=True), "memory"),
        "layout": Maybe(Listed(Together((Text(), Whole())))),
        "scales": Maybe(Of(("K",), least=0), "memory"),
        "log_weights": Maybe(Of(("K",)), "memory"),
    }

    def __init__(self, lr: float = 0.01, epsilon: float = 1e-7) -> None:
        if not 0 <= lr < float("inf"):
            raise InputError(f"lr must be finite and at least 0; got {lr}")
        if not 0 < epsilon < float("inf"):
            raise InputError(f"epsilon must be positive and finite; got {epsilon}")
        self.lr = lr
        self.epsilon = epsilon
        self.squares: Tensor | None = None
        self.scales: Tensor | None = None
        self.log_weights: Tensor | None = None
        self._held: tuple[Tensor, Tensor, Tensor, Tensor | None] | None = None

    @property
    def task_weights(self) -> Tensor | None:
        """Weights ``[K]`` of the last step, as if all tasks were present; ``None`` before the first."""
        return None if self.log_weights is None else len(self.log_weights) * torch.softmax(self.log_weights, 0)

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]`` of the tasks present."""
        gradients = observation.needed("gradients")
        squares = self._fitted(self.squares, observation)
        risks = self._risks(observation, gradients, squares)
        logs = torch.zeros_like(risks)
        known = torch.zeros_like(risks)
        if self.log_weights is not None and self.scales is not None:
            logs = observation.of_present(self.log_weights.to(risks.device))
            known = observation.of_present(self.scales.to(risks.device))
        logs = logs + torch.where(known > 0, self.lr * risks / torch.where(known > 0, known, 1.0), 0.0)
        self._held = (gradients, torch.where(known > 0, known, risks), logs, squares)
        weights = len(logs) * torch.softmax(logs, 0)
        return torch.mm(weights.to(gradients)[None], gradients)[0]

    def update(self, observation: Observation) -> None:
        """Adds to the sums of squares, and keeps scales and weights."""
        if self._held is None:
            return
        gradients, scales, logs, squares = self._held
        self._held = None
        if squares is None:
            squares = gradients.new_zeros(len(observation.tasks), gradients.shape[1])
        self.squares, self.layout = squares, observation.layout
        if self.scales is None or self.log_weights is None:
            self.scales = torch.zeros(len(observation.tasks), dtype=torch.float64, device=gradients.device)
            self.log_weights = torch.zeros_like(self.scales)
        if observation.complete:
            squares.addcmul_(gradients, gradients)
            self.scales, self.log_weights = scales, logs
            return
        for position, gradient in zip(observation.present, gradients, strict=True):
            squares[position].addcmul_(gradient, gradient)
        entries = torch.tensor(observation.present, device=gradients.device)
        self.scales = self.scales.to(gradients.device).index_copy(0, entries, scales)
        self.log_weights = self.log_weights.to(gradients.device).index_copy(0, entries, logs)

    def _risks(self, observation: Observation, gradients: Tensor, squares: Tensor | None) -> Tensor:
        """E ``[k]`` in float64."""
        square, root = torch.empty_like(gradients[0]), torch.empty_like(gradients[0])
        risks = []
        for position, gradient in zip(observation.present, gradients, strict=True):
            torch.mul(gradient, gradient, out=square)
            root.copy_(square)
            if squares is not None:
                root.add_(squares[position])
            root.add_(self.epsilon).sqrt_()
            risks.append(square.div_(root).sum(dtype=torch.float64))
        # Squares beyond the number range say nothing; the task then keeps its weight.
        return torch.stack(risks).nan_to_num(nan=0.0, posinf=0.0)

    def __repr__(self) -> str:
        return f"ExcessMTL(lr={self.lr})"
