"""A bilevel problem: what the upper level wants of variables that the lower level answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from equipoise.errors import InputError, UnknownTaskError
from equipoise.randomness import RandomState
from equipoise.tasks import Tasks, as_losses, scalar

__all__ = ["BilevelProblem", "LevelVariables", "LowerFunction", "Point", "UpperFunction", "Variables"]

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
            if not tensor.is_floating_point() and not tensor.is_complex():
                raise InputError(f'{level}-level variable "{name}" must be a floating-point tensor; it is {tensor.dtype}')
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


LowerFunction: TypeAlias = Callable[[Any, Any, Any], Tensor]
UpperFunction: TypeAlias = Callable[[Any, Any, Any], Any]


@dataclass
class Point:
    """Values of all variables, and the buffers that go with them.

    Attributes:
        upper: values of α, in the order of the problem's upper-level variables.
        lower: values of ω.
        buffers: of the problem's modules, by their names there; evaluations at this point change them.
    """

    upper: list[Tensor]
    lower: list[Tensor]
    buffers: dict[str, Tensor]


class _Stage(nn.Module):
    """Holds all modules that take part, so that whatever runs in ``forward`` meets the substituted parameters."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, play: Callable[[], Any]) -> Any:
        return play()


class BilevelProblem:
    """min over α of F(α, ω*(α)) = (F_1, …, F_m), where ω*(α) minimises f(α, ω) (thesis, eq. 3.3 and 3.4).

    Both functions can be evaluated at any values of the variables, differentiably to any order; the variables themselves
    only change when a solver steps. Modules' buffers (batch-norm statistics) change with the lower level's own evaluations, and
    with no others.

    Args:
        lower: ``lower(upper_variables, lower_variables, batch) -> scalar``, the function f.
        upper: ``upper(upper_variables, lower_variables, batch)`` returns the m objectives: a mapping name → scalar, a sequence
            of scalars, a tensor ``[m]`` or one scalar. A scalar may also be given as a zero-argument callable. Their names, or
            ``objective0`` …, are fixed by the first evaluation.
        variables: ``(upper_variables, lower_variables)``. Each is a module (its parameters that require gradients), a mapping
            name → leaf tensor, or one leaf tensor; functions are given the module, a dictionary, or a tensor.
        model: a module, used by the functions, of which variables given as tensors are parameters: then those
            parameters are replaced in it as well. Not needed for variables that are given as modules.
        objectives: the objectives' names, in order; left out, the first evaluation fixes them.

    Attributes:
        by_differences: whether f has turned out to have no second derivative, so that differences stand for it.

    Raises:
        InputError: functions that cannot be called, variables that cannot be used, a tensor on both levels, or a module that
            is wrapped in ``DistributedDataParallel``.

    Example:
        The answer of the lower level is ω = α, so both objectives want α between 1 and 2.

        >>> alpha, omega = torch.zeros(()), torch.zeros(2)
        >>> problem = BilevelProblem(
        ...     lower=lambda alpha, omega, batch: (omega - alpha).square().sum(),
        ...     upper=lambda alpha, omega, batch: {"one": (omega - 1).square().sum(), "two": (omega - 2).square().sum()},
        ...     variables=(alpha, omega),
        ... )
        >>> [value.item() for value in problem.objectives_at(problem.here(), None)]
        [2.0, 8.0]
    """

    def __init__(
        self,
        lower: LowerFunction,
        upper: UpperFunction,
        variables: tuple[Variables, Variables],
        *,
        model: nn.Module | None = None,
        objectives: Sequence[str] | None = None,
    ) -> None:
        for level, function in (("lower", lower), ("upper", upper)):
            if not callable(function):
                raise InputError(f"{level} must be a function {level}(α, ω, batch); got {type(function).__name__}")
        if not isinstance(variables, tuple | list) or len(variables) != 2:
            raise InputError("variables must be a pair: those of the upper level, those of the lower level")
        self._lower = lower
        self._upper = upper
        self.upper_variables = LevelVariables("upper", variables[0])
        self.lower_variables = LevelVariables("lower", variables[1])
        both = {id(tensor) for tensor in self.upper_variables.tensors}
        for name, tensor in zip(self.lower_variables.names, self.lower_variables.tensors, strict=True):
            if id(tensor) in both:
                raise InputError(f'the tensor "{name}" is a variable of both levels; it can belong to one only')
        self.names = Tasks(objectives)
        self.by_differences = False
        modules = {"upper": self.upper_variables.module, "lower": self.lower_variables.module, "model": model}
        self._stage = _Stage({name: module for name, module in modules.items() if module is not None})
        if any(isinstance(part, DistributedDataParallel) for part in self._stage.modules()):
            raise InputError(
                "a module is wrapped in DistributedDataParallel, which cannot follow evaluations at other parameters; pass the "
                "module itself: solvers average the gradients of both levels over the processes"
            )
        # Where each variable sits in the modules; a parameter that several modules share sits in several places.
        self._variables = [*self.upper_variables.tensors, *self.lower_variables.tensors]
        positions = {id(tensor): position for position, tensor in enumerate(self._variables)}
        self._places = [
            (name, positions[id(parameter)])
            for name, parameter in self._stage.named_parameters(remove_duplicate=False)
            if id(parameter) in positions
        ]
        for tensor in self._variables:
            tensor.requires_grad_()
        # Parameters that belong to no level are constants: no gradient is computed for them. Of a tied one a single name is
        # substituted, for functional_call refuses different tensors under two.
        self._constants = [
            (name, parameter)
            for name, parameter in self._stage.named_parameters()
            if id(parameter) not in positions and parameter.requires_grad
        ]

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the upper objectives; empty before the first evaluation, unless they were declared."""
        return self.names.names

    def here(self) -> Point:
        """The variables themselves, and copies of the buffers."""
        return Point(
            self.upper_variables.tensors,
            self.lower_variables.tensors,
            {name: buffer.clone() for name, buffer in self._stage.named_buffers()},
        )

    def own_buffers(self) -> list[Tensor]:
        """The modules' buffers themselves."""
        return list(self._stage.buffers())

    def keep_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Makes the buffers of a point the modules' own."""
        with torch.no_grad():
            for name, buffer in self._stage.named_buffers():
                buffer.copy_(buffers[name])

    def random_state(self) -> RandomState:
        """A snapshot of the random state of every device that the variables lie on."""
        return RandomState.capture(self._variables)

    def lower_at(self, point: Point, batch: Any) -> Tensor:
        """Value of f at a point, a differentiable scalar.

        Raises:
            InputError: not a scalar.
        """
        value = self._play(self._lower, point, batch)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            got = f"shape {list(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"lower(α, ω, batch) must return one real scalar tensor; got {got}")
        return value if value.dim() == 0 else value.reshape(())

    def objectives_at(self, point: Point, batch: Any) -> list[Tensor]:
        """F at a point, m differentiable scalars in the order of :attr:`objectives`.

        Raises:
            InputError: something that cannot be read as scalars, or other objectives than before.
        """
        fixed = self.names.names if self.names.known else None
        scalars: dict[str, Tensor] = self._play(lambda *given: _scalars(self._upper(*given), fixed), point, batch)
        if fixed is None:
            self.names.fix(scalars)
        elif set(scalars) != set(fixed):
            raise UnknownTaskError(
                f"upper(α, ω, batch) returned the objectives {', '.join(scalars)}; expected {', '.join(fixed)}"
            )
        return [scalars[name] for name in self.names.names]

    def _play(self, function: Callable[[Any, Any, Any], Any], point: Point, batch: Any) -> Any:
        values = [*point.upper, *point.lower]
        substituted = {name: values[position] for name, position in self._places}
        substituted.update((name, parameter.detach()) for name, parameter in self._constants)
        substituted.update(point.buffers)
        upper = self.upper_variables.view(point.upper)
        lower = self.lower_variables.view(point.lower)
        if not substituted:
            return function(upper, lower, batch)
        value = functional_call(self._stage, substituted, (lambda: function(upper, lower, batch),))
        for name in point.buffers:
            # Modules may put another tensor in a buffer's place where others write into it.
            point.buffers[name] = substituted[name].detach()
        return value


def _scalars(value: Any, names: Sequence[str] | None) -> dict[str, Tensor]:
    """What ``upper`` returned, by name; callables among it are evaluated, so this has to happen at the point in question."""
    if isinstance(value, Tensor) and value.dim() == 0:
        value = value.unsqueeze(0)
    try:
        named = as_losses(value, names or _default_names(value))
        return {name: scalar(name, entry, differentiable=False) for name, entry in named.items()}
    except InputError as error:
        raise InputError(f"upper(α, ω, batch) returned no objectives that can be used: {error}") from None


def _default_names(value: Any) -> list[str] | None:
    """Names for objectives that came without."""
    unnamed = isinstance(value, Sequence) and not isinstance(value, str)
    if unnamed or (isinstance(value, Tensor) and value.dim() == 1):
        return [f"objective{position}" for position in range(len(value))]
    return None
