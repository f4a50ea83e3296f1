"""Modules of a model by their names, the running statistics of those that keep any, and models in saved states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from equipoise.errors import InputError, near_misses
from equipoise.states import Maybe, Named, Of, read_entry, read_model

__all__ = [
    "RunningStatistics",
    "evaluating",
    "find_module",
    "find_part",
    "load_model",
    "moved",
    "read_saved_model",
    "saved_model",
]

# Entries of a frozen tensor that tell one pretrained model from another.
_SAMPLED = 8


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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the body; each module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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


def saved_model(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], *, trainable_only: bool) -> dict[str, Any]:
    """A model's entries of a state: ``"model"`` and, where what is frozen is left out, ``"frozen"`` with a few numbers of it.

    Args:
        model: the model.
        optimizers: what they have stepped was trained, frozen by now or not.
        trainable_only: leave out what is frozen. Buffers are kept: they may move in training.
    """
    whole = model.state_dict()
    if not trainable_only:
        return {"model": whole}
    kept = _trained(model, optimizers)
    return {
        "model": {name: value for name, value in whole.items() if name in kept},
        "frozen": {name: _sample(value) for name, value in whole.items() if name not in kept},
    }


def read_saved_model(state: Mapping[str, Any], model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Holds a model's entries of a state against the model; changes nothing.

    Raises:
        InputError: they are of another model, lack what is trained here, or were saved beside other frozen parameters.
    """
    present = model.state_dict()
    frozen = state.get("frozen")
    if frozen is None:
        read_model("the model", state["model"], present)
        return
    whose = "the model"
    frozen = read_entry(whose, "frozen", Named(Maybe(Of((_SAMPLED,), torch.float64, nan=True, inf=True, cpu=True))), frozen)
    saved = state["model"] if isinstance(state["model"], Mapping) else {}
    for name in sorted((_trained(model, optimizers) & present.keys()) - saved.keys()):
        raise InputError(
            f'the state holds trainable parameters only and lacks "{name}", which is trained here'
            f"{' and was frozen there: freeze it, or load a whole state' if name in frozen else ''}"
        )
    read_model(whose, {**dict.fromkeys(frozen), **saved}, dict.fromkeys(present))
    read_model(whose, saved, {name: present[name] for name in saved})
    for name, before in frozen.items():
        now = _sample(present[name])
        if before is None or now is None or torch.allclose(before, now, rtol=1e-2, atol=1e-7, equal_nan=True):
            continue
        raise InputError(
            f'the state holds trainable parameters only, and was saved beside another frozen "{name}" than this model has; '
            f'load those pretrained parameters first, or go on with these by state["frozen"] = dict.fromkeys(state["frozen"])'
        )


def load_model(state: Mapping[str, Any], model: nn.Module) -> None:
    """Loads a model's entries of a state that were read."""
    model.load_state_dict(state["model"], strict=len(state["model"]) == len(model.state_dict()))


def _trained(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> set[str]:
    """Names of a model's state that training changes."""
    stepped = {id(parameter) for optimizer in optimizers for parameter in optimizer.state}
    parameters = model.named_parameters(remove_duplicate=False)
    names = {name for name, own in parameters if own.requires_grad or id(own) in stepped}
    names |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return names | {name for name in model.state_dict() if name.rpartition(".")[2] == "_extra_state"}


def _sample(value: Any) -> Tensor | None:
    """A few entries, in float64 on the CPU; ``None`` where there are none to see."""
    if not isinstance(value, Tensor) or value.device.type == "meta" or not value.numel() or value.layout != torch.strided:
        return None
    flat = value.detach().reshape(-1)
    flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
    places = torch.linspace(0, flat.numel() - 1, _SAMPLED, dtype=torch.float64, device="cpu").long()
    return flat[places.to(flat.device)].to("cpu", torch.float64)


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device: tensors, whatever else has ``to``, and these in mappings and sequences; the rest as it is.

    Example:
        >>> moved({"x": torch.ones(2), "names": ["a", "b"]}, torch.device("cpu"))
        {'x': tensor([1., 1.]), 'names': ['a', 'b']}
    """
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return type(batch)({name: moved(part, device) for name, part in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(part, device) for part in batch)
    return batch
