"""ReLoBRaLo: relative loss balancing with random lookback."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Anything, Maybe, Of

__all__ = ["ReLoBRaLo"]


@register(
    "relobralo",
    summary="averaged softmax of each loss relative to the last step's, at random looking back to the first",
    paper="Bischof and Kraus, Multi-Objective Loss Balancing for Physics-Informed Deep Learning, 2021 (arXiv 2110.09813)",
    price="1 backward",
    promise="more weight for tasks whose loss fell least, on an average of steps",
    serves="physics-informed losses, at the price of plain training",
    caveats="the units matter as for `ls`; not told apart from `ls` on our two equations",
    adds_up_to="the number of tasks, if all are present in every step",
    checked="released code's formula",
)
class ReLoBRaLo(LossBalancer):
    """Averages λ̂_k(t, s) = K·softmax(ℓ(t)/(T·ℓ(s)))_k, the loss now relative to that of an earlier step s.

    λ(t) = α(ρλ(t−1) + (1−ρ)λ̂(t, 0)) + (1−α)λ̂(t, t−1), where ρ is 1 with probability ``memory`` and 0 otherwise: then what
    was learned so far gives way to a look back at the first step (Bischof and Kraus, 2021). λ is 1 in the first step
    and λ̂(t, t−1) in the second. The paper's text was not available; this follows its released code
    (github.com/rbischof/relative_balancing) and takes its defaults.

    Tasks that a batch lacks keep what is known of them.

    Args:
        alpha: α, of the average; its memory is about 1/(1−α) steps.
        temperature: T; the larger, the more even.
        memory: the probability that ρ is 1; at 1 it never looks back.
        seed: of the balancer's own generator. Under ``torch.distributed`` every process must use the same seed.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> balancer = ReLoBRaLo()
        >>> for losses in ([1.0, 1.0], [0.5, 1.0]):
        ...     seen = __import__("equipoise").balance.Observation.of_all(losses)
        ...     weights = balancer.decide(seen)
        ...     balancer.update(seen)
        >>> weights  # the first loss has halved, the second stands still
        tensor([0.7551, 1.2449], dtype=torch.float64)
    """

    stateful: ClassVar = {
        "averages": Maybe(Of(("K",), nan=True)),
        "first": Maybe(Of(("K",), nan=True), "losses"),
        "last": Maybe(Of(("K",), nan=True), "losses"),
        "generator": Anything(),
    }

    def __init__(self, alpha: float = 0.999, temperature: float = 1.0, memory: float = 1.0, seed: int = 0) -> None:
        for name, value in (("alpha", alpha), ("memory", memory)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} must be between 0 and 1; got {value}")
        if not 0 < temperature < float("inf"):
            raise InputError(f"temperature must be positive and finite; got {temperature}")
        self.alpha = alpha
        self.temperature = temperature
        self.memory = memory
        self.seed = seed
        self.averages: Tensor | None = None  # of tasks that were seen twice
        self.first: Tensor | None = None
        self.last: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self._now: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """λ of the tasks present."""
        observation.check_memory(self, self.last)
        losses = observation.needed("losses").double()
        stays = bool(torch.rand((), generator=self.generator, device="cpu") < self.memory)
        if self.first is None or self.last is None:
            self._now = None
            return torch.ones_like(losses)
        last = observation.of_present(self.last.to(losses.device))
        now = self._relative(losses, last)
        weights = now
        if self.averages is not None:
            before = observation.of_present(self.averages.to(losses.device))
            if not stays:
                before = self._relative(losses, observation.of_present(self.first.to(losses.device)))
            weights = torch.where(before.isnan(), now, self.alpha * before + (1 - self.alpha) * now)
        self._now = torch.where(last.isnan(), torch.nan, weights)
        return torch.where(last.isnan(), 1.0, weights)

    def update(self, observation: Observation) -> None:
        """Keeps the weights and the losses of the tasks present."""
        losses = observation.needed("losses").double()
        entries = torch.as_tensor(observation.present, device=losses.device)
        unknown = losses.new_full((len(observation.tasks),), torch.nan)
        if self._now is not None:
            averages = unknown if self.averages is None else self.averages.to(losses.device)
            self.averages = averages.index_copy(0, entries, self._now)
            self._now = None
        self.last = (unknown if self.last is None else self.last.to(losses.device)).index_copy(0, entries, losses)
        first = self.last if self.first is None else self.first.to(losses.device)
        self.first = torch.where(first.isnan(), self.last, first)

    def _relative(self, losses: Tensor, past: Tensor) -> Tensor:
        ratios = losses / past
        # A task that was not seen before, or whose loss was 0, counts as one that stood still.
        ratios = torch.where(ratios.isfinite(), ratios, 1.0) / self.temperature
        return len(losses) * torch.softmax(ratios.clamp(-1e150, 1e150), 0)

    def __repr__(self) -> str:
        return f"ReLoBRaLo(alpha={self.alpha}, temperature={self.temperature}, memory={self.memory}, seed={self.seed})"
