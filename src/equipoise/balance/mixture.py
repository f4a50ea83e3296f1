"""What the methods that learn a mixture of domains have in common: shares on the simplex, and their mean."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.errors import InputError
from equipoise.states import Maybe, Of, Whole

__all__ = ["Mixture"]


class Mixture:
    """Shares p of K domains on the simplex, kept as logarithms; they start equal.

    Args:
        smoothing: c, how much of equal shares is mixed in after every move: p ← (1 − c) p + c/K.
    """

    decides_purely = True
    stateful: ClassVar = {
        "log_shares": Maybe(Of(("K",), most=0), "memory"),
        "sums": Maybe(Of(("K",), least=0), "memory"),
        "steps": Whole(),
    }

    def __init__(self, smoothing: float) -> None:
        if not 0 <= smoothing <= 1:
            raise InputError(f"smoothing must lie between 0 and 1; got {smoothing}")
        self.smoothing = float(smoothing)
        self.log_shares: Tensor | None = None
        self.sums: Tensor | None = None
        self.steps = 0

    @property
    def mixture(self) -> Tensor | None:
        """The mean shares ``[K]`` of all steps so far, for training anew with; ``None`` before the first step."""
        return None if self.sums is None else self.sums / self.steps

    def _before(self, observation: Observation, device: torch.device) -> Tensor:
        """Logarithms of the present shares ``[K]``."""
        if self.log_shares is None:
            count = len(observation.tasks)
            return torch.full((count,), -math.log(count), dtype=torch.float64, device=device)
        return self.log_shares.to(device)

    def _moved(self, logs: Tensor, gains: Tensor) -> Tensor:
        """Logarithms of p exp(gains), normalized and smoothed."""
        logs = torch.log_softmax(logs + gains, 0)
        if self.smoothing:
            logs = ((1 - self.smoothing) * logs.exp() + self.smoothing / len(logs)).log()
        return logs.clamp(min=-1e300, max=0.0)

    def _keep(self, logs: Tensor) -> None:
        self.log_shares = logs
        self.sums = logs.exp() if self.sums is None else self.sums.to(logs.device) + logs.exp()
        self.steps += 1
