"""Running statistics of normalisation layers, which a forward pass moves before anybody has seen the losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """Puts running statistics back when a step turns out to be none: one bad batch would leave them non-finite for good.

    Args:
        model: whose batch-norm and instance-norm layers are looked after.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
        self._layers = [layer for layer in layers if any(True for _ in layer.buffers(recurse=False))]
        self._kept: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}

    def keep(self) -> None:
        """Remembers the present statistics of the layers in training mode."""
        self._kept = {}
        for layer in self._layers:
            if layer.training:
                for buffer in layer.buffers(recurse=False):
                    buffers, copies = self._kept.setdefault(buffer.dtype, ([], []))
                    buffers.append(buffer)
                    copies.append(torch.empty_like(buffer))
        for buffers, copies in self._kept.values():
            torch._foreach_copy_(copies, buffers)

    def restore(self) -> None:
        """Puts them back."""
        with torch.no_grad():
            for buffers, copies in self._kept.values():
                torch._foreach_copy_(buffers, copies)
