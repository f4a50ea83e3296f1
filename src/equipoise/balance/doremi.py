"""DoReMi: domain weights by group distributionally robust optimization of the excess loss over a reference model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.mixins import ElsewhereObservation, LooksElsewhere
from equipoise.balance.mixture import Mixture
from equipoise.balance.per_task import PerTask
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of

__all__ = ["DoReMi"]


@register(
    "doremi",
    summary="exponentiated ascent on excess losses over a reference: the domain with most to learn counts most",
    paper="Xie et al., DoReMi: Optimizing Data Mixtures Speeds Up Language Model Pretraining, NeurIPS 2023",
    price="1 backward; with a reference model 1 forward more",
    promise="ascends on the worst domain's excess loss; its mean weights are a data mixture",
    serves="the mixture of domains for a language model, from a small proxy",
    caveats="the units of a loss matter; without a reference the largest loss takes all weight",
    adds_up_to="1",
    checked="closed form of its step, numbers of the released code",
)
class DoReMi(LooksElsewhere, Mixture, LossBalancer):
    """Moves domain weights α up the losses in excess of a reference model's (Xie et al., 2023, Algorithm 1):

        λ_k = max(ℓ_k − ℓ_k(reference), 0),    α ← (1 − c) α exp(η λ)/Σ_j α_j exp(η λ_j) + c/K,    weights α,

    from α = 1/K. :attr:`mixture`, the mean of α over all steps, is what the larger model is then to be trained on, as in
    ``zip_loaders(loaders, weights=dict(zip(tasks, balancer.mixture.tolist())))``. As in the paper, domains should be sampled
    evenly while α is learned.

    The paper's text was not available; this follows its authors' released code, except that there the excess is clipped at 0
    per token, and here per domain, for a balancer sees losses of domains only. Give per-token excesses as the losses (with the
    reference left out) for the former. Of a batch that lacks domains, those present share a weight of 1 in proportion to α, and
    the others keep their last λ, as there. With ``reference=0`` this is group DRO (Sagawa et al., ICLR 2020).

    Args:
        lr: η; 1 in released code.
        smoothing: c; 1e-4 in released code.
        reference: the reference model's losses, one per domain in order or by name, or one for all; or the reference model
            itself, which is evaluated on every step's batch: of the same architecture as the one that is trained, whose buffers
            it is evaluated with. A model needs :class:`~equipoise.MultiTaskOptimizer`, and in several processes batches that
            hold the same domains. It is no part of the state.

    Raises:
        InputError: an argument is out of range, or the reference is not of the domains.

    Example:
        >>> DoReMi(reference=[1.0, 1.0]).weights(torch.tensor([1.0, 3.0]))
        tensor([0.1192, 0.8808])
    """

    stateful: ClassVar = {**Mixture.stateful, "excess": Maybe(Of(("K",), least=0), "memory")}

    def __init__(
        self,
        lr: float = 1.0,
        smoothing: float = 1e-4,
        reference: float | Sequence[float] | Mapping[str, float] | nn.Module = 0.0,
    ) -> None:
        if not 0 <= lr < float("inf"):
            raise InputError(f"lr must be finite and at least 0; got {lr}")
        super().__init__(smoothing)
        self.lr = float(lr)
        self.reference = reference if isinstance(reference, nn.Module) else PerTask("reference", reference)
        self.excess: Tensor | None = None
        self._held: tuple[Tensor, Tensor] | None = None

    @property
    def looks_elsewhere(self) -> bool:
        """Whether the reference is a model."""
        return isinstance(self.reference, nn.Module)

    def decide(self, observation: Observation) -> Tensor:
        """α of the domains present, after the move by this step's losses."""
        observation.check_memory(self, self.log_shares)
        losses = observation.needed("losses").double()
        if isinstance(self.reference, nn.Module):
            if not isinstance(observation, ElsewhereObservation):
                raise InputError("a reference model is evaluated on the step's batch, which needs MultiTaskOptimizer")
            parameters = {name: own.detach() for name, own in self.reference.named_parameters()}
            with torch.no_grad():
                known = observation.elsewhere.average(observation.elsewhere.losses(parameters)).to(losses)
        else:
            known = losses.new_tensor(self.reference.of_present(observation))
        places = torch.as_tensor(observation.present, device=losses.device)
        before = losses.new_zeros(len(observation.tasks)) if self.excess is None else self.excess.to(losses.device)
        excess = before.index_copy(0, places, (losses - known).clamp(min=0))
        logs = self._moved(self._before(observation, losses.device), self.lr * excess)
        self._held = (logs, excess)
        return torch.softmax(logs[places], 0)

    def update(self, observation: Observation) -> None:
        """Keeps what was decided."""
        if self._held is not None:
            logs, self.excess = self._held
            self._held = None
            self._keep(logs)

    def __repr__(self) -> str:
        known = type(self.reference).__name__ if isinstance(self.reference, nn.Module) else self.reference
        return f"DoReMi(lr={self.lr}, smoothing={self.smoothing}, reference={known})"
