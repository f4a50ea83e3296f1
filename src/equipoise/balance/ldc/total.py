"""LDC-MTL's two levels in one number and what it is differentiated to; normalized losses, shares σ, the inner loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from equipoise.balance.mixins import Elsewhere
from equipoise.errors import InputError

__all__ = [
    "SMALLEST",
    "Division",
    "Normalization",
    "Shares",
    "Sigmoid",
    "SigmoidOfReLU",
    "Softmax",
    "Total",
    "clamped_softmax",
    "lower_level_solution",
    "lower_slopes",
    "normalized",
    "reference",
    "total",
]

SMALLEST = 1e-30
"""A loss below this counts as this where it is divided by."""

Normalization: TypeAlias = Literal["none", "rescale", "log"]
Division: TypeAlias = Literal["none", "constant", "through"]


def reference(known: Tensor, losses: Tensor, entries: Tensor) -> Tensor:
    """The losses that the later ones are measured by: of each task the first that was seen.

    Args:
        known: ``[K]``, not a number where none was seen yet.
        losses: ``[k]``.
        entries: positions of these k tasks.
    """
    before = known[entries]
    # A first loss of zero says nothing about scale, and one next to zero would make weights that no float32 can hold.
    first = torch.where(losses == 0, torch.ones_like(losses), losses.abs().clamp(min=SMALLEST))
    known = known.clone()
    known[entries] = torch.where(before.isnan(), first, before)
    return known


def normalized(losses: Tensor, known: Tensor, how: Normalization) -> tuple[Tensor, Tensor]:
    """Normalised losses, and their derivatives by the losses.

    ``"rescale"`` is ℓ/ℓ', with ℓ' the task's first loss; ``"log"`` is log(ℓ/ℓ_0). The logarithm of a loss that is not
    positive does not exist and comes out as not a number.

    Args:
        losses: ``[k]``.
        known: the reference losses of these tasks ``[k]``.
        how: which.

    Example:
        >>> normalized(torch.tensor([4.0, 1.0]), torch.tensor([8.0, 1.0]), "rescale")
        (tensor([0.5000, 1.0000]), tensor([0.1250, 1.0000]))
    """
    if how == "none":
        return losses, torch.ones_like(losses)
    if how == "rescale":
        return losses / known, known.reciprocal()
    positive = torch.where(losses > 0, losses, torch.nan)
    ratios = positive / known
    logs = torch.where((ratios > 0) & (ratios < torch.inf), ratios.log(), positive.log() - known.log())
    return logs, positive.clamp(min=SMALLEST).reciprocal()


class Shares(ABC):
    """σ as a function of a free vector W, with its derivative in closed form."""

    @abstractmethod
    def of(self, outputs: Tensor) -> Tensor:
        """Shares ``[k]`` from the entries ``[k]`` of the tasks present."""

    @abstractmethod
    def back(self, shares: Tensor, by_shares: Tensor) -> Tensor:
        """The derivative by the entries ``[k]``, from that by the shares."""


class Softmax(Shares):
    """The shares add up to 1, as the paper has it.

    Example:
        >>> shares = Softmax().of(torch.zeros(4))
        >>> Softmax().back(shares, torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
        [0.1875, -0.0625, -0.0625, -0.0625]
    """

    def of(self, outputs: Tensor) -> Tensor:
        """exp(W_i)/Σ_j exp(W_j)."""
        return torch.softmax(outputs, 0)

    def back(self, shares: Tensor, by_shares: Tensor) -> Tensor:
        """σ_i (v_i − Σ_j σ_j v_j)."""
        return shares * (by_shares - (shares * by_shares).sum())


class Sigmoid(Shares):
    """Every share by itself between 0 and 1, as the released code has it for a free vector."""

    def of(self, outputs: Tensor) -> Tensor:
        """1/(1 + exp(−W_i))."""
        return torch.sigmoid(outputs)

    def back(self, shares: Tensor, by_shares: Tensor) -> Tensor:
        """σ_i (1 − σ_i) v_i."""
        return shares * (1.0 - shares) * by_shares


class SigmoidOfReLU(Sigmoid):
    """The sigmoid of max(W_i, 0), as the released code has it on QM9: at ½ for good once W_i is not positive."""

    def of(self, outputs: Tensor) -> Tensor:
        """1/(1 + exp(−max(W_i, 0)))."""
        return super().of(outputs.clamp(min=0.0))

    def back(self, shares: Tensor, by_shares: Tensor) -> Tensor:
        """That of the sigmoid where W_i > 0, else 0."""
        return torch.where(shares > 0.5, super().back(shares, by_shares), 0.0)


def clamped_softmax(outputs: Tensor) -> Tensor:
    """A softmax cut off at 0.2 and 0.8, as the released code has it for networks."""
    return torch.softmax(outputs, 0).clamp(0.2, 0.8)


@dataclass(frozen=True)
class Total:
    """``upper_factor · f + lower_factor · g`` at one step.

    Attributes:
        upper: f, the discrepancy.
        lower: g, the weighted sum of the losses.
        by_losses: derivative of the total by the losses, ``[k]``.
        by_shares: derivative of the total by the shares, ``[k]``.
        lower_by_shares: derivative of g by the shares, ``[k]``.
    """

    upper: Tensor
    lower: Tensor
    by_losses: Tensor
    by_shares: Tensor
    lower_by_shares: Tensor


def total(
    losses: Tensor,
    shares: Tensor,
    *,
    upper_factor: float,
    lower_factor: float,
    weighted: bool,
    smooth: float = 0.0,
    division: Division = "none",
) -> Total:
    """The total loss and its derivatives.

    Args:
        losses: normalised losses ``[k]`` of the tasks present, in their order.
        shares: their shares σ ``[k]``.
        upper_factor: of f.
        lower_factor: of g.
        weighted: τ = σ; otherwise τ = 1.
        smooth: γ of √(x² + γ), which takes the place of the absolute value; 0 for |x| (its derivative at 0 counts as 0).
        division: whether g is divided by the sum of the shares, ``"constant"`` or, differentiated as what it is, ``"through"``.

    Example:
        >>> found = total(torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]), upper_factor=1.0, lower_factor=2.0, weighted=True)
        >>> float(found.upper), float(found.lower), found.by_losses.tolist()
        (1.0, 2.0, [1.5, 0.5])
    """
    scaled = shares * losses if weighted else losses
    gaps = scaled[:-1] - scaled[1:]
    if smooth:
        sizes = (gaps.square() + smooth).sqrt()
        slopes = gaps / sizes
    else:
        sizes, slopes = gaps.abs(), gaps.sign()
    # Task i stands on the left of gap i and on the right of gap i − 1.
    upper_by_scaled = torch.zeros_like(losses)
    upper_by_scaled[:-1] = slopes
    upper_by_scaled[1:] -= slopes
    lower_by_losses = shares if division == "none" else shares / shares.sum()
    lower = (lower_by_losses * losses).sum()
    lower_by_shares = lower_slopes(losses, shares, division)
    by_losses = upper_factor * (upper_by_scaled * shares if weighted else upper_by_scaled) + lower_factor * lower_by_losses
    by_shares = lower_factor * lower_by_shares
    if weighted:
        by_shares = by_shares + upper_factor * upper_by_scaled * losses
    return Total(sizes.sum(), lower, by_losses, by_shares, lower_by_shares)


def lower_slopes(losses: Tensor, shares: Tensor, division: Division) -> Tensor:
    """The derivative of g by the shares.

    Example:
        >>> lower_slopes(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0]), "through").tolist()
        [0.375, -0.125]
    """
    if division == "none":
        return losses
    divisor = shares.sum()
    return (losses - (shares * losses).sum() / divisor if division == "through" else losses) / divisor


def lower_level_solution(
    elsewhere: Elsewhere,
    start: Mapping[str, Tensor] | None,
    shares: Tensor,
    normalize: Callable[[Tensor], Tensor],
    *,
    steps: int,
    lr: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Takes gradient steps z ← z − β ∇_z g(W, z) by substitution; the model stays as it is.

    Args:
        elsewhere: evaluates the step's losses at other parameters.
        start: z_0; the model's own parameters if left out.
        shares: σ(W) ``[k]`` of the tasks present, fixed.
        normalize: from losses ``[k]`` to those that g adds up.
        steps: N.
        lr: what ∇_z g is multiplied with.

    Returns:
        z_N, and the normalised losses there ``[k]``, in float64; not finite if it diverged.
    """
    own = elsewhere.parameters()
    held = {} if start is None else start
    point = {name: held.get(name, value).detach().clone().requires_grad_() for name, value in own.items()}
    for name, value in own.items():
        if point[name].shape != value.shape or point[name].dtype != value.dtype:
            raise InputError(f'z was kept of another model, in which "{name}" has the shape {list(point[name].shape)}')
    values = list(point.values())
    with torch.enable_grad():
        for _ in range(steps):
            found = torch.autograd.grad((shares * normalize(elsewhere.losses(point).double())).sum(), values, allow_unused=True)
            with torch.no_grad():
                moved = [(value, gradient) for value, gradient in zip(values, found, strict=True) if gradient is not None]
                torch._foreach_add_([value for value, _ in moved], [gradient for _, gradient in moved], alpha=-lr)
        # Gradients are on here, too, for losses may themselves differentiate.
        there = elsewhere.losses(point).detach().double()
    there = normalize(elsewhere.average(there))
    return {name: value.detach() for name, value in point.items()}, there
