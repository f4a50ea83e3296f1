"""From a router's outputs to the shares σ of the tasks, and for a free vector the derivatives on their way back."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Shares", "Sigmoid", "Softmax", "clamped_softmax"]


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


def clamped_softmax(outputs: Tensor) -> Tensor:
    """A softmax cut off at 0.2 and 0.8, as the released code has it for networks."""
    return torch.softmax(outputs, 0).clamp(0.2, 0.8)
