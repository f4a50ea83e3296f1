"""Modules of a model: given as they are or by their dotted names, and the running statistics of those that keep any."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from equipoise.errors import InputError, near_misses

__all__ = ["RunningStatistics", "find_module", "find_part"]


def find_module(model: nn.Module, name: str) -> nn.Module:
    """A module of the model by its dotted name, as in ``model.named_modules()``.

    Raises:
        InputError: there is none; near misses are suggested.

    Example:
        >>> find_module(nn.ModuleDict({"encoder": nn.Linear(2, 3)}), "encoder")
        Linear(in_features=2, out_features=3, bias=True)
    """
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise InputError(f'the model has no module "{name}".{near_misses(name, [key for key in modules if key])}')
    found: nn.Module = modules[name]
    return found


def find_part(model: nn.Module, part: nn.Module | str, what: str) -> nn.Module:
    """A part of the model: a module of it, or the dotted name of one.

    Args:
        model: where to look.
        part: the module or its name.
        what: what it is, for the error message.

    Raises:
        InputError: the model has no such part.
    """
    if isinstance(part, str):
        return find_module(model, part)
    if not any(part is module for module in model.modules()):
        raise InputError(f"{what} must be a part of the objective's model; the {type(part).__name__} given is not")
    return part


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
