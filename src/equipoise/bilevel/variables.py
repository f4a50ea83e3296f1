"""The variables of one level: named tensors, one tensor, or a module's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from equipoise.errors import InputError

__all__ = ["LevelVariables", "Variables"]

Variables: TypeAlias = nn.Module | Tensor | Mapping[str, Tensor]


class LevelVariables:
    """What one level moves, and how the user's functions see it.

    A module shows itself, with other parameters in place while a function runs; a mapping shows a dictionary of tensors; a
    tensor shows a tensor. A module's parameters that require gradients are the variables.

    Raises:
        InputError: nothing to move, or something that is no real leaf tensor.
    """

    def __init__(self, level: str, source: Variables) -> None:
        self.level = level
        self.module = source if isinstance(source, nn.Module) else None
        if isinstance(source, nn.Module):
            named: Mapping[Any, Any] = {
                name: parameter for name, parameter in source.named_parameters() if parameter.requires_grad
            }
        elif isinstance(source, Tensor):
            named = {level: source}
        elif isinstance(source, Mapping):
            named = source
        else:
            raise InputError(
                f"the {level}-level variables must be a module, a tensor or a mapping name → tensor; "
                f"got {type(source).__name__}"
            )
        if not named:
            what = "the module has no parameter that requires gradients" if self.module is not None else "the mapping is empty"
            raise InputError(f"there are no {level}-level variables: {what}")
        for name, tensor in named.items():
            if not isinstance(tensor, Tensor):
                raise InputError(f'{level}-level variable "{name}" must be a tensor; got {type(tensor).__name__}')
            if not tensor.is_floating_point():
                raise InputError(f'{level}-level variable "{name}" must be a real floating-point tensor; it is {tensor.dtype}')
            if not tensor.is_leaf:
                raise InputError(
                    f'{level}-level variable "{name}" is the result of a computation; pass the tensor that it is computed from'
                )
        self._single = isinstance(source, Tensor)
        self.names = tuple(str(name) for name in named)
        self.tensors: list[Tensor] = list(named.values())

    def view(self, values: Sequence[Tensor]) -> Any:
        """What a user's function gets for values of the variables."""
        if self.module is not None:
            return self.module
        return values[0] if self._single else dict(zip(self.names, values, strict=True))

    def __len__(self) -> int:
        return len(self.tensors)
