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
    """Puts buffers back when a step turns out to be none: one bad batch would leave statistics non-finite for good.

    Only what moves is copied in each step: statistics of batch-norm layers, and any other buffer that was seen to move, in
    place or by a new tensor in its place. For the first step all others are copied as well.

    Args:
        model: whose buffers are looked after.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = list(model.modules())
        self._slots = [(layer._buffers, name, layer) for layer in layers for name in layer._buffers]
        self._before: list[Tensor | None] = []
        self._versions: list[int | None] = []
        self._moving: set[int] = set()
        self._copied: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._first = True

    def keep(self) -> None:
        """Remembers the present buffers."""
        if not self._slots:
            return
        now = [buffers[name] for buffers, name, _ in self._slots]
        versions = [None if buffer is None or buffer.is_inference() else buffer._version for buffer in now]
        if self._before:
            places = enumerate(zip(now, self._before, versions, self._versions, strict=True))
            self._moving |= {place for place, (a, b, v, w) in places if a is not b or v != w}
            self._first = False
        self._before, self._versions = now, versions
        kept: list[Tensor] = []
        for place, (_, _, layer) in enumerate(self._slots):
            buffer = now[place]
            norm = isinstance(layer, _NormBase)
            if buffer is None or (norm and not layer.training):
                continue
            if place in self._moving or norm or self._first:
                kept.append(buffer)
        if [id(buffer) for buffer in kept] != [id(buffer) for buffer in self._copied]:
            self._copied, self._copies = kept, [torch.empty_like(buffer) for buffer in kept]
        if kept:
            torch._foreach_copy_(self._copies, kept)

    def restore(self) -> None:
        """Puts them back."""
        for (buffers, name, _), buffer in zip(self._slots, self._before, strict=False):
            if buffers[name] is not buffer:
                buffers[name] = buffer
        if self._copied:
            with torch.no_grad():
                torch._foreach_copy_(self._copied, self._copies)
