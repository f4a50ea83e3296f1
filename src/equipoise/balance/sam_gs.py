"""SAM-GS: gradients that are brought to equal lengths, or multiplied with their momentum, by how alike their lengths are."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.per_task import RowsBalancer, mixed_row, move_rows
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Listed, Maybe, Number, Of, Text, Together, Whole

__all__ = ["SAMGS", "SAMGSFormulation"]

SAMGSFormulation = Literal["paper", "released"]


@register(
    "sam-gs",
    summary="unlike gradients are brought to equal lengths; alike ones are multiplied with their momentum",
    paper="Borsani et al., Gradient Similarity Surgery in Multi-Task Deep Learning, ECML PKDD 2025",
    price="K backward, memory for K more gradients",
    promise="no task dominates where gradients differ much in length",
    serves="gradients of very different lengths",
    caveats="the direction grows with the square of the gradients, so `lr` must suit; remembers; `gamma` to choose",
    adds_up_to="there are none",
    checked="released code, by hand",
)
class SAMGS(RowsBalancer):
    """Equalises the gradients' lengths if Ψ < γ, else takes Σ_k |m̂_k|/(√ĥ + ε) ⊙ g_k (Borsani et al., 2025, Algorithm 1).

    Ψ is the mean over all pairs of ψ(g_i, g_j) = 2‖g_i‖‖g_j‖/(‖g_i‖² + ‖g_j‖²) (eq. 3), which is 1 for gradients of one
    length; m_k [P] and h are moving averages of g_k (factor β₁) and of (1 − Ψ)² + ε (factor β₂), and m̂, ĥ those divided by 1
    − βᵗ. Where Ψ < γ the direction is Σ_k g_k · mean_j‖g_j‖/‖g_k‖. (The algorithm prints a further product with g_k there,
    which would lose its sign; the text and the released code have none.)

    By the paper's sum, Ψ has the pairs i = j in it and is at least 1/K: γ = 0.1 takes more than ten tasks to act. Released code
    averages over i < j alone, and divides by √ĥ without ε; ``formulation="released"`` does that. It uses γ = 0.7 on image data.

    Memory: one row of the shared parameters' length per task, and one more during the step. A task that a batch lacks keeps its
    average, which is corrected by the steps that it was seen in. m starts from 0 for parameters that become shared later.

    Args:
        beta1: β₁.
        beta2: β₂.
        gamma: γ, between 0 (never equalise) and 1 (always).
        epsilon: ε.
        formulation: ``"paper"`` or ``"released"``.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> SAMGS(gamma=1.0).direction(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
        tensor([3., 3.])
    """

    stateful: ClassVar = {
        "tracked": Maybe(Of(("K", "P"), dtype=None), "memory"),
        "layout": Maybe(Listed(Together((Text(), Whole())))),
        "counts": Maybe(Of(("K",), least=0, cpu=True), "memory"),
        "unlikeness": Number(0.0),
        "steps": Whole(),
    }

    def __init__(
        self,
        beta1: float = 0.9,
        beta2: float = 0.99,
        gamma: float = 0.1,
        epsilon: float = 1e-8,
        formulation: SAMGSFormulation = "paper",
    ) -> None:
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise InputError(f"{name} must be at least 0 and below 1; got {value}")
        if not 0 <= gamma <= 1:
            raise InputError(f"gamma must be between 0 and 1; got {gamma}")
        if not 0 < epsilon < float("inf"):
            raise InputError(f"epsilon must be positive and finite; got {epsilon}")
        if formulation not in get_args(SAMGSFormulation):
            raise InputError(f'formulation must be "paper" or "released"; got "{formulation}"')
        self.beta1 = float(beta1)
        self.beta2 = float(beta2)
        self.gamma = float(gamma)
        self.epsilon = float(epsilon)
        self.formulation = formulation
        self.tracked: Tensor | None = None
        self.counts: Tensor | None = None
        self.unlikeness = 0.0
        self.steps = 0
        self._held: tuple[Tensor, Tensor | None, float] | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]`` of the tasks present."""
        gradients = observation.needed("gradients")
        tracked = self._fitted(self.tracked, observation)
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64).cpu()
        alike = self._alikeness(norms)
        unlike = self.beta2 * self.unlikeness + (1 - self.beta2) * (1 - alike) ** 2 + self.epsilon
        self._held = (gradients, tracked, unlike)
        if alike < self.gamma or self.gamma == 1:
            lengths = torch.where(norms > 0, norms.mean() / torch.where(norms > 0, norms, 1.0), 0.0)
            return torch.mv(gradients.T, lengths.to(gradients))
        divisor = (unlike / (1 - self.beta2 ** (self.steps + 1))) ** 0.5 + self.epsilon * (self.formulation == "paper")
        counts = torch.zeros(len(norms), device="cpu") if self.counts is None else observation.of_present(self.counts)
        direction, row = torch.zeros_like(gradients[0]), torch.empty_like(gradients[0])
        share = gradients.new_tensor(1 - self.beta1)
        for gradient, position, count in zip(gradients, observation.present, counts.tolist(), strict=True):
            mixed_row(None if tracked is None else tracked[position], self.beta1, gradient, share, row)
            row.abs_().mul_(1 / (divisor * (1 - self.beta1 ** (count + 1))))
            direction.addcmul_(row, gradient)
        return direction

    def update(self, observation: Observation) -> None:
        """Moves the averages of the tasks present."""
        if self._held is None:
            return
        gradients, tracked, self.unlikeness = self._held
        self._held = None
        tasks = len(observation.tasks)
        self.tracked = gradients.new_zeros(tasks, gradients.shape[1]) if tracked is None else tracked
        self.layout = observation.layout
        if self.counts is None:
            self.counts = torch.zeros(tasks, dtype=torch.float64, device="cpu")
        move_rows(
            self.tracked, observation.present, self.beta1, gradients, gradients.new_full((len(gradients),), 1 - self.beta1)
        )
        present = torch.tensor(observation.present, device="cpu")
        self.counts = self.counts.index_add(0, present, torch.ones(len(present), dtype=torch.float64, device="cpu"))
        self.steps += 1

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; gradients are averaged from the first step on."""
        read = super().read_state(state, sizes)
        if (read["tracked"] is None) != (read["steps"] == 0):
            raise InputError(f"the state of SAMGS does not fit together: averaged gradients with steps={read['steps']}")
        return read

    def _alikeness(self, norms: Tensor) -> float:
        """Ψ: 1 where all gradients have one length."""
        if len(norms) == 1:
            return 1.0
        ratios = norms / norms.max().clamp(min=1e-300)
        squares = ratios.square()
        sums = squares[:, None] + squares
        pairs = torch.where(sums > 0, 2 * ratios[:, None] * ratios / torch.where(sums > 0, sums, 1.0), 1.0)
        if self.formulation == "paper":
            return float(pairs.mean())
        size = len(norms)
        return float((pairs.sum() - pairs.diagonal().sum()) / (size * (size - 1)))

    def __repr__(self) -> str:
        return f'SAMGS(beta1={self.beta1}, beta2={self.beta2}, gamma={self.gamma}, formulation="{self.formulation}")'
