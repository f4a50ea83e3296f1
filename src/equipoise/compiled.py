"""Looking behind ``torch.compile``, whose functions are single nodes of the autograd graph."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["not_compiled"]


def not_compiled() -> AbstractContextManager[object]:
    """Runs compiled functions eagerly in the body."""
    # Where nothing has been compiled, this must not be what imports the compiler.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
