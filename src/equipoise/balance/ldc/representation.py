"""Catches the shared representation on its way through the model, for a router that looks at it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equipoise.errors import InputError

__all__ = ["Representation", "pooled"]


class Representation:
    """Listens to a module's forward passes and keeps what it gave, averaged over everything but its channels.

    Args:
        module: whose output all tasks start from.
        differentiable: keep the graph, so that gradients flow from the router back into the module.
    """

    def __init__(self, module: nn.Module, *, differentiable: bool) -> None:
        self.differentiable = differentiable
        self._seen: list[Tensor] = []
        self._handle = module.register_forward_hook(self._catch)

    def begin(self) -> None:
        """Forgets what evaluations between the steps left."""
        self._seen.clear()

    def take(self) -> Tensor:
        """The mean ``[C]`` of what was seen since the last time, in float32 or better.

        Raises:
            InputError: nothing was seen, or the graph is to be kept of several forward passes.
        """
        seen, self._seen = self._seen, []
        if not seen:
            raise InputError("the router's features module was not run in this step; give the module that all tasks start from")
        if self.differentiable:
            if len(seen) > 1:
                raise InputError(
                    f"the features module ran {len(seen)} times in this step, and only the last run's graph is differentiated; "
                    "take one batch per step, or leave through_features off"
                )
            return seen[0]
        return torch.stack(seen).mean(0)

    def _catch(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not (module.training or torch.is_grad_enabled()):
            return  # an evaluation, not a step
        if not isinstance(output, Tensor):
            raise InputError(
                f"the router's features module {type(module).__name__} must give one tensor; it gave {type(output).__name__}"
            )
        self._seen.append(pooled(output if self.differentiable else output.detach()))


def pooled(features: Tensor) -> Tensor:
    """The mean over samples and places: ``[N, C, ...]`` → ``[C]``.

    Example:
        >>> pooled(torch.ones(8, 5, 3, 3)).shape
        torch.Size([5])
    """
    if features.dim() < 2:
        raise InputError(f"features must have the shape [samples, channels, ...]; got {list(features.shape)}")
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return features.mean((0, *range(2, features.dim())))
