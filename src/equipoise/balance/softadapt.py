"""SoftAdapt: weights from the rates at which losses change."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Maybe, Of

__all__ = ["SoftAdapt"]

Variant = Literal["original", "normalized", "loss-weighted"]


@register(
    "softadapt",
    summary="softmax of the rates at which the losses change from step to step",
    paper="Heydari, Thompson and Mehmood, SoftAdapt: Techniques for Adaptive Loss Weighting, 2019 (arXiv 1912.12355)",
    price="1 backward",
    promise="more weight for tasks whose loss fell least in the last steps",
    serves="full batches, as in physics-informed training; losses of one scale",
    caveats="the units matter twice, in loss and rate; not told apart from `ls` on our two equations",
    adds_up_to="1",
    checked="released code's numbers, polynomials",
)
class SoftAdapt(LossBalancer):
    """Weighs task k by softmax(β s)_k, s_k the rate at which its loss changed over the last steps (Heydari et al., 2019).

    s is the one-sided finite difference Σ_i c_i ℓ(t−n+i) of order n, exact for polynomials of degree n; n = 1 is
    ℓ(t) − ℓ(t−1). Until n + 1 losses are there, the order is as high as they allow; in the first step all weigh the same.
    The paper's text was not available; this follows its released code (github.com/dr-aheydari/SoftAdapt), which takes
    the difference at the first of the n + 1 losses.

    Args:
        beta: β, per unit of loss and step; 0.1 as in the released code. Negative, those who fall fastest get most.
        variant: ``"loss-weighted"`` weighs by ℓ̄_k exp(β s_k), ℓ̄ the means of these losses, which its authors
            recommend. ``"normalized"`` divides s by its sum over the tasks first: with a sum below 0, as where all losses
            fall, it is then the fastest who get most. ``"original"`` does neither.
        order: n, how many earlier losses are looked at.

    Tasks that a batch lacks keep their losses, those of the steps in which they were there.

    Raises:
        InputError: β is not finite, another variant, or an order below 1 or above 20.

    Example:
        >>> balancer = SoftAdapt(beta=1.0)
        >>> for losses in ([1.0, 1.0], [0.5, 1.0]):
        ...     seen = __import__("equipoise").balance.Observation.of_all(losses)
        ...     weights = balancer.decide(seen)
        ...     balancer.update(seen)
        >>> weights
        tensor([0.3775, 0.6225], dtype=torch.float64)
    """

    stateful: ClassVar = {"history": Maybe(Of(("K", "N"), nan=True, cpu=True))}
    decides_purely = True

    def __init__(self, beta: float = 0.1, variant: Variant = "original", order: int = 1) -> None:
        if not math.isfinite(beta):
            raise InputError(f"beta must be finite; got {beta}")
        if variant not in get_args(Variant):
            raise InputError(f'variant must be one of {", ".join(get_args(Variant))}; got "{variant}"')
        if not 1 <= order <= 20:
            raise InputError(f"order must be between 1 and 20; got {order}")
        self.beta = beta
        self.variant = variant
        self.order = order
        self.history: Tensor | None = None  # the last losses of each task, the newest at the end

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present; the losses come to the CPU for it."""
        observation.check_memory(self, None if self.history is None else self.history[:, 0])
        window = self._window(observation)
        rates = torch.stack([_rate(row[~row.isnan()]) for row in window])
        if self.variant == "normalized" and bool(rates.sum() != 0):
            rates = rates / rates.sum()
        logits = self.beta * rates
        if self.variant == "loss-weighted":
            means = window.nanmean(1)
            logits = torch.where(means > 0, logits + means.log(), -torch.inf)
            if not bool((means > 0).any()):
                logits = torch.zeros_like(means)
        return torch.softmax(logits.clamp(max=1e150), 0)

    def update(self, observation: Observation) -> None:
        """Keeps the losses of the tasks present."""
        window = self._window(observation)
        known = window.new_full((len(observation.tasks), self.order), torch.nan) if self.history is None else self.history
        self.history = known.index_copy(0, torch.tensor(observation.present, device="cpu"), window[:, 1:])

    def _window(self, observation: Observation) -> Tensor:
        """The losses ``[k, n + 1]`` of the tasks present, this step's at the end, not a number where there were none."""
        losses = observation.needed("losses").detach().to("cpu", torch.float64)[:, None]
        past = losses.new_full((len(losses), self.order), torch.nan)
        if self.history is not None:
            past = observation.of_present(self.history)
        return torch.cat([past, losses], 1)

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; the history is as long as the order."""
        return super().read_state(state, {"N": self.order} if sizes is None else sizes | {"N": self.order})

    def __repr__(self) -> str:
        return f'SoftAdapt(beta={self.beta}, variant="{self.variant}", order={self.order})'


def _rate(losses: Tensor) -> Tensor:
    """The derivative at the first of n + 1 equally spaced points: Σ_i (−1)^{i+1} C(n, i)/i · (ℓ_i − ℓ_0)."""
    order = len(losses) - 1
    terms = [(-1) ** (i + 1) * math.comb(order, i) / i * (losses[i] - losses[0]) for i in range(1, order + 1)]
    return torch.stack(terms).sum() if terms else losses.new_zeros(())
