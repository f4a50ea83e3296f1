"""The torch optimizers' own step: one or several of them, with a closure where they evaluate more than once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.states import read_optimizer
from equipoise.step.fused import put_back, state_kept

__all__ = ["Moving"]

Evaluate = Callable[[], Tensor]


class Moving:
    """Steps with the optimizers of a training run.

    Args:
        given: one torch optimizer, or several that hold different parameters.
        scaler: of half precision; it lets all of them step or none.

    Raises:
        InputError: none, no torch optimizers, a parameter in two of them, or one that does not go with a scaler.
    """

    def __init__(self, given: Any, scaler: torch.amp.GradScaler | None = None) -> None:
        self.optimizers: list[torch.optim.Optimizer] = list(given) if isinstance(given, list | tuple) else [given]
        if not self.optimizers:
            raise InputError("optimizer must be a torch optimizer, or several; the list is empty")
        held: set[int] = set()
        for optimizer in self.optimizers:
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise InputError(f"optimizer must be a torch optimizer; got {type(optimizer).__name__}")
            own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            if own & held:
                raise InputError(
                    f"{len(own & held)} parameters are held by two of the optimizers, and would step twice; give each to one"
                )
            held |= own
            if getattr(optimizer, "scaler", None) is not None and getattr(optimizer, "gradient_state", None) is not None:
                raise InputError(
                    "Accelerate's optimizer divides by the scale of a scaler that the gradients do not have; give "
                    "MultiTaskOptimizer the optimizer inside, optimizer.optimizer, and scaler=accelerator.scaler"
                )
        self.scaler = scaler
        self._single = [_Single(optimizer) for optimizer in self.optimizers]
        if scaler is not None and any(single.ways == [True] for single in self._single):
            raise InputError("an optimizer that needs a closure does not go with a scaler; train in bfloat16, which needs none")
        self._all: Any = self.optimizers[0] if len(self.optimizers) == 1 else _Together(self.optimizers)

    def parameters(self) -> list[Tensor]:
        """What the optimizers hold, as it is now."""
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def check_ready(self) -> None:
        """Refuses a step that the optimizers would not take.

        Raises:
            InputError: one of them waits for further batches.
        """
        for optimizer in self.optimizers:
            if not getattr(getattr(optimizer, "gradient_state", None), "sync_gradients", True):
                raise InputError(
                    "Accelerate's optimizer takes no step inside accumulate() until its last batch, so this one would be lost; "
                    "leave accumulate() out and give all micro-batches to one step: mtl.step(*micro_batches)"
                )

    def unscale(self) -> None:
        """Takes the scaler's scale out of the gradients."""
        if self.scaler is not None:
            self.scaler.unscale_(self._all)

    def undo(self) -> None:
        """After a step that failed: the scaler would refuse to unscale the next one's gradients, as if they were the same."""
        if self.scaler is not None:
            self.scaler._per_optimizer_states.pop(id(self._all), None)

    def move(self, value: Evaluate, again: Evaluate) -> bool:
        """Steps, and says whether anything did.

        Args:
            value: the combined loss that belongs to the gradients in ``.grad``.
            again: evaluates it, and fills ``.grad``, at the parameters of now.
        """
        if self.scaler is None:
            gradients = [(parameter, parameter.grad) for parameter in self.parameters()] if len(self._single) > 1 else []
            moved = False
            for single in self._single:
                moved = single.step(value, again) or moved
                # The next one meets the gradients that the step began with, whatever this one evaluated.
                for parameter, gradient in gradients:
                    parameter.grad = gradient
            return moved
        before = self.scaler.get_scale()
        try:
            self.scaler.step(self._all)
        except (TypeError, AssertionError) as error:
            if all(single.ways == [False] for single in self._single):
                raise
            raise InputError(f"{self!r} does not step without a closure, and with one it does not go with a scaler") from error
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def state_dict(self) -> Any:
        """The optimizer's state; a list of them where there are several."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        return states[0] if len(states) == 1 else states

    def check_state(self, state: Any) -> None:
        """Raises if a state is of another number of optimizers, or of other ones."""
        count = len(state) if isinstance(state, list) else 1
        if count != len(self.optimizers):
            raise InputError(f"the state is of {count} optimizers; here are {len(self.optimizers)}")
        for optimizer, own in zip(self.optimizers, state if isinstance(state, list) else [state], strict=True):
            read_optimizer("the optimizer", own, optimizer)

    def load_state_dict(self, state: Any) -> None:
        """Continues from a saved state, which :meth:`check_state` has looked at."""
        for optimizer, own in zip(self.optimizers, state if isinstance(state, list) else [state], strict=True):
            optimizer.load_state_dict(own)

    def __repr__(self) -> str:
        return " + ".join(type(optimizer).__name__ for optimizer in self.optimizers)


class _Together:
    """Several optimizers as a scaler sees one: an overflow anywhere keeps all of them from stepping."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


class _Single:
    """One optimizer, and what is known of its ways.

    Attributes:
        ways: with a closure (``True``) or without, in the order in which they are tried. Torch's own step without one, all but
            LBFGS. Another class may need a closure though its signature does not say so, and many call one at once if they
            get it: that costs nothing, for the first evaluation is there already.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._plain = type(optimizer).__module__.startswith("torch.")
        needs, takes = _closures(optimizer.step)
        self.ways = [True] if needs else [False] if self._plain or not takes else [True, False]
        self._evaluates: bool | None = None  # whether it calls the closure after it has moved; not known yet
        self._tells: bool | None = None  # whether torch notices what it moves: `parameter.data.add_` goes unnoticed

    def step(self, value: Evaluate, again: Evaluate) -> bool:
        if self.ways == [False] and self._plain:
            self.optimizer.step()
            return True
        held = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        marks = [(p, p._version, p.grad, p.grad._version) for p in held]
        keep = self._tells is None or (self.ways[0] and self._evaluates is not False)
        values = {p: p.detach().clone() for p in held} if keep else {}
        states = [(self.optimizer, state_kept(self.optimizer.state))] if values and self.ways[0] else []
        called = False

        def unmoved() -> bool:
            return all(
                p._version == version and p.grad is grad and grad._version == written for p, version, grad, written in marks
            ) and not any(not torch.equal(p.detach(), before) for p, before in values.items())

        def closure() -> Tensor:
            nonlocal called
            called = True
            if unmoved():
                return value()
            self._evaluates = True
            return again()

        for place, with_closure in enumerate(self.ways):
            try:
                self.optimizer.step(closure) if with_closure else self.optimizer.step()  # type: ignore[arg-type]
            except Exception:
                if place + 1 < len(self.ways) and not called and unmoved():
                    continue
                put_back(values, states)
                raise
            except BaseException:
                put_back(values, states)
                raise
            self.ways = [with_closure]
            break
        if called and self._evaluates is None:
            self._evaluates = False
        return self._moved(marks, values)

    def _moved(self, marks: Iterable[tuple[Tensor, int, Tensor, int]], values: dict[Tensor, Tensor]) -> bool:
        marks = list(marks)
        if self._plain:
            return True  # LBFGS may find that there is nothing left to do
        if not marks or any(p._version != version for p, version, _, _ in marks):
            self._tells = self._tells or bool(marks) or None
            return True
        if self._tells is None and any(not torch.equal(p.detach(), before) for p, before in values.items()):
            self._tells = False
        return self._tells is False


def _closures(step: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a step needs a closure, and whether it takes one."""
    try:
        parameters = [p for p in inspect.signature(step).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return False, False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not positional:
        return False, False
    return positional[0].default is inspect.Parameter.empty, "closure" in positional[0].name
