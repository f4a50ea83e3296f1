"""Hooks of the user's own on parameters, which may take optimizer steps in the middle of a backward pass."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Never

import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["HookWatch", "put_back", "state_kept"]


class HookWatch:
    """Finds out whether hooks on parameters step: balanced gradients are known only after the last backward pass.

    Hooks that look at gradients or change them are welcome. One that moves a parameter, or takes a gradient away, is not. The
    first time that a parameter with hooks is met, its value is kept until the step is over, to be put back.
    """

    def __init__(self) -> None:
        self._trusted: dict[int, int] = {}

    @contextmanager
    def watching(self, parameters: Sequence[Tensor], *, first: bool, whole: bool = True) -> Iterator[None]:
        """Watches the backward passes of the body.

        Args:
            parameters: those that may be reached.
            first: whether this is the first step, in which what torch itself fuses is refused at once.
            whole: whether all that is reached has a gradient afterwards.

        Raises:
            InputError: a step was taken in a backward pass; parameters and the states of all optimizers are as before.
        """
        if first and any(getattr(parameter, "_in_backward_optimizers", None) for parameter in parameters):
            _refuse()
        hooked = [p for p in parameters if p.requires_grad and (p._backward_hooks or p._post_accumulate_grad_hooks)]
        if not hooked:
            yield
            return
        unknown = [p for p in hooked if self._trusted.get(id(p)) != _count(p)]
        guard = _Guard(hooked, unknown)
        try:
            yield
            guard.check_all(whole=whole)
        except BaseException:
            guard.undo()
            raise
        finally:
            guard.remove()
        self._trusted |= {id(p): _count(p) for p in unknown if p in guard.passed}


class _Guard:
    """The hooks of one step that surround the user's."""

    def __init__(self, hooked: Sequence[Tensor], unknown: Sequence[Tensor]) -> None:
        self.passed: set[Tensor] = set()
        self._values = {parameter: parameter.detach().clone() for parameter in unknown}
        self._states = _states_of(unknown) if unknown else []
        self._begun = {parameter: parameter._version for parameter in unknown}
        self._versions: dict[Tensor, int] = {}
        self._handles: list[Any] = []
        for parameter in hooked:
            # Noted right before the user's last hook: a forward pass may well change parameters in place.
            self._handles.append(parameter.register_hook(self._noter(parameter)))
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._check))

    def _noter(self, parameter: Tensor) -> Any:
        def note(_: Tensor) -> None:
            self._versions[parameter] = parameter._version

        return note

    def _check(self, parameter: Tensor) -> None:
        if parameter.grad is None or parameter._version != self._versions.get(parameter, parameter._version):
            _refuse()
        self.passed.add(parameter)

    def check_all(self, *, whole: bool) -> None:
        """Finds what moved without telling torch, as ``parameter.data.add_`` does, and gradients taken away later."""
        for parameter, value in self._values.items():
            # Where torch noticed as well, a forward pass has changed it.
            if self._begun[parameter] == parameter._version and not torch.equal(parameter.detach(), value):
                _refuse()
        if whole and any(parameter.grad is None for parameter in self.passed):
            _refuse()

    def undo(self) -> None:
        put_back(self._values, self._states)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _count(parameter: Tensor) -> int:
    """How many hooks a parameter has."""
    return len(parameter._backward_hooks or ()) + len(parameter._post_accumulate_grad_hooks or ())


def _refuse() -> Never:
    raise InputError(
        "an optimizer steps inside the backward pass (a hook on a parameter moved it or took its gradient away), before the "
        "balanced gradient is known; remove these hooks and give one optimizer of all parameters"
    )


def _states_of(parameters: Sequence[Tensor]) -> list[tuple[torch.optim.Optimizer, dict[Any, Any]]]:
    """Copies of what optimizers remember of these parameters: a hook may hide its optimizer anywhere."""
    ids = {id(parameter) for parameter in parameters}
    optimizers = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.optim.Optimizer)]
    holding = [
        optimizer
        for optimizer in optimizers
        if any(id(p) in ids for group in getattr(optimizer, "param_groups", ()) for p in group["params"])
    ]
    return [(optimizer, state_kept(optimizer.state)) for optimizer in holding]


def state_kept(state: Any) -> Any:
    """A copy of an optimizer's state. Tensors in lists are not copied: LBFGS replaces them, and has a hundred."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: state_kept(value) for key, value in state.items()}
    return list(state) if isinstance(state, list) else state


@torch.no_grad()
def put_back(values: dict[Tensor, Tensor], states: Sequence[tuple[torch.optim.Optimizer, dict[Any, Any]]]) -> None:
    """Makes parameters and optimizers what they were."""
    for parameter, value in values.items():
        parameter.copy_(value)
    for optimizer, state in states:
        optimizer.state.clear()
        optimizer.state.update(state)
