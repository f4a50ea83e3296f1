"""Batches to where the model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["moved", "place"]


def moved(batch: Any, model: nn.Module) -> Any:
    """The batch on the model's device: tensors, graphs with a ``to``, and mappings and sequences of these."""
    return _moved(batch, place(model))


def place(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(part, device) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(part, device) for part in value)
    return value.to(device, non_blocking=True) if hasattr(value, "to") else value
