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
        self._layers = [layer for layer in model.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
        self._buffers: list[Tensor] = []
        self._copies: list[Tensor] = []

    def keep(self) -> None:
        """Remembers the present statistics of the layers in training mode."""
        if not self._layers:
            return
        layers = (layer for layer in self._layers if layer.training)
        buffers = [buffer for layer in layers for buffer in layer._buffers.values() if buffer is not None]
        if [id(buffer) for buffer in buffers] != [id(buffer) for buffer in self._buffers]:
            self._buffers, self._copies = buffers, [torch.empty_like(buffer) for buffer in buffers]
        if buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def restore(self) -> None:
        """Puts them back."""
        if self._buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._buffers, self._copies)
