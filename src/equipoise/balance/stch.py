"""STCH: smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.per_task import PerTask, Preferring, add_losses, remind_of_epochs
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of, Whole

__all__ = ["STCH", "STCHFormulation"]

STCHFormulation = Literal["paper", "released"]


@register(
    "stch",
    summary="a smooth maximum of the weighted losses: the worst task counts most",
    paper="Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024",
    aliases=("smooth-tchebycheff",),
    price="1 backward",
    promise="for small `mu` and some preference reaches every Pareto-optimal point, on non-convex fronts too",
    serves="the worst task counts, or a point of one's own on the Pareto front is wanted",
    caveats="the units of a loss matter, and `mu` is in them: too small, and the largest loss takes all weight",
    adds_up_to="1/K by default, the softmax's mean of `preference` in general; K in the released formulation",
    checked="reference implementation (released formulation), autograd",
    preference="weights: for small `mu` all p_k (ℓ_k − z_k) become equal",
)
class STCH(Preferring, LossBalancer):
    """Minimises the smooth maximum μ log Σ_k exp(p_k (ℓ_k − z_k)/μ) (Lin et al., 2024, eq. 8), p being a preference.

    Task k weighs p_k softmax(p (ℓ − z)/μ)_k. As μ goes to 0 this becomes the Tchebycheff scalarisation max_k p_k (ℓ_k − z_k),
    which sees the worst task alone; as it grows, a weighted sum. The exponents are shifted by the largest of them before they
    are divided, so that any positive μ has a finite answer.

    The code released for multi-task learning does something else, which ``formulation="released"`` offers: it takes
    logarithms of losses relative to the mean losses r of one epoch, K μ log Σ_k exp(log(ℓ_k/r_k)/μ), without preferences. Task
    k then weighs K softmax(log(ℓ/r)/μ)_k/ℓ_k. The epoch is the one that follows ``warmup_epochs`` epochs; until its end it
    minimises Σ log ℓ_k. A task that this epoch did not hold is measured by the first loss seen of it later.

    **Mind.** The units of a loss matter, and ``mu`` has the same units: where it is small, the largest loss takes all weight.
    The released formulation needs positive losses and ``end_epoch()``.

    Args:
        mu: μ, in the units of the weighted losses (of their logarithms in the released formulation); 1 as in released code.
        preference: p, one number per task in order or by name, or one for all; left out, 1/K as on the paper's simplex.
        ideal: z, losses that cannot be beaten, one for each task or one for all.
        formulation: ``"paper"`` or ``"released"``.
        warmup_epochs: of the released formulation; 4 there.
        steps_per_epoch: length of an epoch in steps; left out, ``mtl.end_epoch()`` says when one is over. Only the released
            formulation looks at it.

    Raises:
        InputError: μ is not positive, a preference is negative, an option of one formulation was given with the other, or
            numbers do not fit the tasks.
        NonFiniteError: at a step of the released formulation, when a loss is not positive.

    Example:
        >>> STCH(mu=1.0, preference=1.0).weights(torch.tensor([3.0, 3.0]))
        tensor([0.5000, 0.5000])
    """

    stateful: ClassVar = {
        "reference": Maybe(Of(("K",), nan=True, inf=True)),
        "sums": Maybe(Of(("K",), inf=True), "epoch"),
        "counts": Maybe(Of(("K",), least=0), "epoch"),
        "steps": Whole(),
        "epoch": Whole(),
    }
    decides_purely = True

    def __init__(
        self,
        mu: float = 1.0,
        preference: float | Sequence[float] | Mapping[str, float] | None = None,
        ideal: float | Sequence[float] | Mapping[str, float] = 0.0,
        formulation: STCHFormulation = "paper",
        warmup_epochs: int = 4,
        steps_per_epoch: int | None = None,
    ) -> None:
        if not 0 < mu < float("inf"):
            raise InputError(f"mu must be positive and finite; got {mu}")
        if formulation not in get_args(STCHFormulation):
            raise InputError(f'formulation must be "paper" or "released"; got "{formulation}"')
        if warmup_epochs < 0:
            raise InputError(f"warmup_epochs must be at least 0; got {warmup_epochs}")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch must be at least 1; got {steps_per_epoch}")
        self.mu = float(mu)
        self.ideal = PerTask("ideal", ideal)
        if formulation == "released" and (preference is not None or self.ideal.given != 0.0):
            raise InputError('preference and ideal belong to formulation="paper"; the released formulation has neither')
        self.formulation = formulation
        self.prefer(preference)
        self.warmup_epochs = warmup_epochs
        self.steps_per_epoch = steps_per_epoch
        self.reference: Tensor | None = None
        self.sums: Tensor | None = None
        self.counts: Tensor | None = None
        self.steps = 0
        self.epoch = 0

    def prefer(self, preference: float | Sequence[float] | Mapping[str, float] | None) -> None:
        """See :meth:`~equipoise.balance.per_task.Preferring.prefer`; refused by the released formulation."""
        if self.formulation == "released" and preference is not None:
            raise InputError('preference belongs to formulation="paper"; the released formulation has none')
        super().prefer(preference)

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present."""
        losses = observation.needed("losses").double()
        if self.formulation == "released":
            return self._released(losses, observation)
        if self.ideal.given != 0.0:
            losses = losses - losses.new_tensor(self.ideal.of_present(observation))
        if self.preference is None or isinstance(self.preference.given, float):
            every = 1 / len(observation.tasks) if self.preference is None else float(self.preference.of_present(observation)[0])
            return every * self._shares(every * losses)
        preference = losses.new_tensor(self.preference.of_present(observation))
        return preference * self._shares(preference * losses)

    def _shares(self, values: Tensor) -> Tensor:
        """softmax(v/μ); shifted first, for v/μ may overflow."""
        return torch.softmax((values - values.max()) / self.mu, 0)

    def _released(self, losses: Tensor, observation: Observation) -> Tensor:
        observation.check_memory(self, self.sums if self.reference is None else self.reference)
        safe = torch.where(losses > 0, losses, torch.nan)
        if self.reference is None:
            return safe.clamp(min=1e-300).reciprocal()
        reference = observation.of_present(self.reference.to(losses.device))
        reference = torch.where(torch.isfinite(reference), reference, safe)
        # The softmax is over the positive losses, so that the error names the others alone.
        logs = torch.where(losses > 0, safe.log() - reference.log(), -torch.inf)
        return len(observation.present) * self._shares(logs) / safe

    def update(self, observation: Observation) -> None:
        """Adds the losses of a step to the epoch's, as long as these are wanted."""
        if self.formulation == "paper":
            return
        losses = observation.needed("losses").double()
        if self.reference is not None:
            # Only a task that the reference epoch lacked still has something to learn; told without looking at a value.
            entries = torch.as_tensor(observation.present, device=losses.device)
            reference = self.reference.to(losses.device)
            known = reference[entries]
            self.reference = reference.index_copy(0, entries, torch.where(torch.isfinite(known), known, losses))
            return
        if self.epoch == self.warmup_epochs:
            self.sums, self.counts = add_losses(self.sums, self.counts, observation)
        self.steps += 1
        if self.steps_per_epoch is not None and self.steps >= self.steps_per_epoch:
            self._turn()
        else:
            remind_of_epochs(self, self.steps, "it still minimises the sum of log losses")

    def end_epoch(self) -> None:
        """Moves on to the next epoch, unless the epochs' length is fixed."""
        if self.steps_per_epoch is None and self.formulation == "released":
            self._turn()

    def _turn(self) -> None:
        if self.reference is not None or self.steps == 0:
            return
        if self.sums is not None and self.counts is not None:
            self.reference = self.sums / self.counts
            self.sums = self.counts = None
        self.epoch += 1
        self.steps = 0

    def __repr__(self) -> str:
        if self.formulation == "released":
            return f'STCH(mu={self.mu}, formulation="released", warmup_epochs={self.warmup_epochs})'
        preference = "" if self.preference is None else f", preference={self.preference}"
        ideal = "" if self.ideal.given == 0.0 else f", ideal={self.ideal}"
        return f"STCH(mu={self.mu}{preference}{ideal})"
