"""Weights and inputs that a formula gives, so that outputs can be compared without a random generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["filled", "wave"]


def wave(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers within ±1, ``sin(0.7311 i² / (1 + 0.01 i) + phase)`` for the i-th."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7311 * i * i / (1 + 0.01 * i) + phase).reshape(shape)


def filled(module: nn.Module) -> nn.Module:
    """Makes the module float64 and fills its parameters, those of several dimensions scaled by their fan-in."""
    module.double()
    with torch.no_grad():
        for place, (name, parameter) in enumerate(module.named_parameters()):
            values = wave(*parameter.shape, phase=1.3 * place)
            if parameter.dim() > 1:
                parameter.copy_(values * math.sqrt(4 / parameter[0].numel()))
            else:
                parameter.copy_(1 + 0.2 * values if name.endswith("weight") else 0.1 * values)
    return module
