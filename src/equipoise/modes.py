"""Keeping out a caller's autocast, and ``torch.compile``, whose functions are single nodes of the autograd graph."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["not_compiled", "without_autocast"]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turns autocast off in the body, if it is on for this kind of device."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def not_compiled() -> AbstractContextManager[object]:
    """Runs compiled functions eagerly in the body."""
    # Where nothing has been compiled, this must not be what imports the compiler.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
