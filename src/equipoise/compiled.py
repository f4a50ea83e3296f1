"""What ``torch.compile`` needs to know of steps that differentiate one evaluation several times."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["kept_buffers", "not_compiled"]


def not_compiled() -> AbstractContextManager[object]:
    """Runs compiled functions eagerly in the body."""
    # Where nothing has been compiled, this must not be what imports the compiler.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def kept_buffers() -> AbstractContextManager[object]:
    """Compiles what is compiled in the body so that its graph can be differentiated more than once.

    A backward pass that the compiler first meets as a single one is compiled to overwrite what the forward pass saved.
    """
    config = sys.modules.get("torch._functorch.config")
    if config is None or not getattr(config, "donated_buffer", False):
        return nullcontext()
    kept: AbstractContextManager[object] = config.patch(donated_buffer=False)
    return kept
