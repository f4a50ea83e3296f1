"""Differentiating for several seeds at once, where the graph admits it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["gradients_at_once"]


def gradients_at_once(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Tensor]
) -> tuple[Tensor | None, ...] | Exception:
    """Gradients by ``vmap`` for seeds ``[k, …]``, or what was raised by a graph that cannot be differentiated so.

    Such are sparse embeddings, random numbers drawn again by a checkpoint, and functions of one's own that look at values. The
    graph is kept: the caller goes on one after the other, and an error that had another cause comes again.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return torch.autograd.grad(outputs, inputs, seeds, retain_graph=True, allow_unused=True, is_grads_batched=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what is raised is up to the graph's functions
        return error
