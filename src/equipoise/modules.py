"""Modules of a model, given as they are or by their dotted names."""

from __future__ import annotations

from torch import nn

from equipoise.errors import InputError, near_misses

__all__ = ["find_module", "find_part"]


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
