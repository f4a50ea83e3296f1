"""One numerical solution of the flow, read at many times, on a grid that does not depend on the times.

Euler's method is here, without a look at a tensor's value; torchdiffeq has the others, and the adjoint equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from equipoise.errors import InputError, near_misses, require
from equipoise.modes import uncompiled
from equipoise.nets.normal.dynamics import Dynamics, State

__all__ = ["Solver"]

_FIXED = ("euler", "midpoint", "heun3", "rk4", "explicit_adams", "implicit_adams")
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Solver:
    """How the flow is integrated.

    Methods with a fixed step go from 0 in whole steps of ``step_size`` to the first multiple of it at or beyond the last
    position, and between two grid points they interpolate (linearly for Euler, which is then the same as a shorter last
    step; by cubic polynomials for the others). Left to itself, torchdiffeq would take the positions as the grid: a single
    Euler step from one task to the next, and every task's features would depend on where the tasks before it sit.

    Args:
        method: a fixed step: ``euler`` (the thesis' choice), ``midpoint``, ``heun3``, ``rk4``, ``explicit_adams``,
            ``implicit_adams``; adaptive steps: ``dopri5``, ``dopri8``, ``bosh3``, ``fehlberg2``, ``adaptive_heun``. Between
            steps, where positions are, torchdiffeq interpolates well for ``dopri5``, coarsely for the other adaptive ones.
        step_size: of a fixed step, in the units of positions. The thesis names none.
        rtol: relative tolerance of adaptive steps.
        atol: absolute tolerance of adaptive steps.
        adjoint: compute gradients by solving the adjoint equation backwards (thesis, section 5.4.3): memory does not grow
            with the number of steps, time does, and gradients carry a discretisation error of their own. First
            derivatives only; a second one raises.
        options: passed on to torchdiffeq's ``options``, such as ``{"max_num_steps": 1000}``.

    Raises:
        InputError: an unknown method or a number that is not positive.

    Example:
        >>> Solver("rk4", step_size=0.1)
        Solver(method='rk4', step_size=0.1, rtol=1e-05, atol=1e-06, adjoint=False, options={})
        >>> Solver("rk5")
        Traceback (most recent call last):
            ...
        equipoise.errors.InputError: there is no solver "rk5". Did you mean "rk4"? There are: euler, midpoint, heun3, rk4, \
explicit_adams, implicit_adams, dopri5, dopri8, bosh3, fehlberg2, adaptive_heun
    """

    method: str = "euler"
    step_size: float = 0.25
    rtol: float = 1e-5
    atol: float = 1e-6
    adjoint: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        methods = (*_FIXED, *_ADAPTIVE)
        if self.method not in methods:
            raise InputError(
                f'there is no solver "{self.method}".{near_misses(str(self.method), methods)} There are: {", ".join(methods)}'
            )
        for name in ("step_size", "rtol", "atol"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise InputError(f"{name} must be a finite number above 0; got {value!r}")
        taken = {"step_size", "grid_constructor", "interp", "perturb"} & set(self.options)
        if taken:
            raise InputError(f"the solver sets the option {sorted(taken)[0]} itself; leave it out of options")

    def states(self, dynamics: Dynamics, start: State, times: Sequence[float]) -> dict[float, State]:
        """Solves once from 0 forwards, if there is a time above 0, and once backwards, if there is one below 0.

        Args:
            dynamics: the equation.
            start: the state at 0.
            times: any finite numbers, in any order, also repeatedly.

        Returns:
            The state at each of the times and at 0. Gradients flow from each of them to everything in ``start`` and to all
            parameters of the equation (with value 0 where there is no influence), so that no task that sits at 0 hides from
            the engine that it shares the flow. A state or derivative that is not finite makes all states not a number, as it
            does with fixed steps: the losses show it, and the training step says which.

        Raises:
            InputError: more steps than any flow needs, or the method gives up on finite numbers.
            MissingExtraError: torchdiffeq is not installed.
        """
        ahead = sorted({time for time in times if time > 0})
        behind = sorted({time for time in times if time < 0}, reverse=True)
        solved: dict[float, State] = {}
        if ahead or not behind:
            solved |= self._solve(dynamics, start, ahead, 1.0)
        if behind:
            solved = self._solve(dynamics, start, behind, -1.0) | solved
        return solved

    def _solve(self, dynamics: Dynamics, start: State, times: Sequence[float], sign: float) -> dict[float, State]:
        grid = [0.0, *times]
        if self.method == "euler" and not self.adjoint:
            return self._euler(dynamics, start, grid, sign)
        if self.method in _FIXED or not times:
            end = sign * self.step_size * self._steps(abs(grid[-1]))
            grid += [end] if end != grid[-1] else []
        device = start[0].device
        precision = torch.float32 if device.type == "mps" else torch.float64
        arguments: dict[str, Any] = {
            "t": torch.tensor(grid, dtype=precision, device=device),
            "rtol": self.rtol,
            "atol": self.atol,
            "method": self.method,
            "options": self._options(),
        }
        package = require("torchdiffeq", "normal")
        try:
            if self.adjoint:
                # Adaptive steps would never end, or fail, on gradients that are not finite.
                lost: set[int] | None = set() if self.method in _ADAPTIVE else None
                function, parameters = _captured(dynamics, lost)
                arguments["adjoint_params"] = parameters
                begun = start if lost is None else tuple(_Spoilt.apply(part, lost) for part in start)
                solution = package.odeint_adjoint(function, begun, **arguments)
                solution = tuple(_OnceDifferentiable.apply(part, lost) for part in solution)
            else:
                solution = package.odeint(dynamics, start, **arguments)
        except AssertionError as error:  # how torchdiffeq says that a step became too small or that there were too many
            if "non-finite" in str(error) or not _finite((*start, *dynamics(arguments["t"][0], start))):
                return dict.fromkeys(grid, tuple(part * torch.nan for part in start))
            raise InputError(
                f"{self.method} cannot integrate the flow to {grid[-1]:g} ({error}); allow more steps in options, loosen "
                f"rtol and atol, or use a fixed step"
            ) from error
        return {time: tuple(part[place] for part in solution) for place, time in enumerate(grid)}

    def _euler(self, dynamics: Dynamics, start: State, times: Sequence[float], sign: float) -> dict[float, State]:
        """Whole steps from 0 to the first grid point at or beyond the last time; straight lines between them."""
        begun, nodes = 0.0, self._nodes(dynamics, start, self._steps(abs(times[-1])), sign)
        found: dict[float, State] = {0.0: start}
        state = start
        for number, reached in enumerate(nodes, 1):
            end = sign * self.step_size * number
            for time in times:
                if begun < time <= end if sign > 0 else end <= time < begun:
                    share = (time - begun) / (end - begun)
                    between = zip(state, reached, strict=True)
                    found[time] = reached if time == end else tuple(a + share * (b - a) for a, b in between)
            begun, state = end, reached
        found.setdefault(begun, state)
        # Side by side, so that every task's loss reaches all of the equation (with value 0 where there is no influence).
        parts = torch.stack([part for own in found.values() for part in own]).unbind()
        width = len(start)
        return {time: parts[place * width : (place + 1) * width] for place, time in enumerate(found)}

    def _nodes(self, dynamics: Dynamics, state: State, steps: int, sign: float) -> Iterator[State]:
        """The states after 1, 2, … steps."""
        for number in range(steps):
            time = sign * self.step_size * number
            step = sign * self.step_size * (number + 1) - time
            # Filled where it is: a copy from the host would have it wait.
            slope = dynamics(torch.full((), time, dtype=state[0].dtype, device=state[0].device), state)
            state = tuple(part + step * change for part, change in zip(state, slope, strict=True))
            yield state

    def compiled(self, dynamics: Dynamics, start: State, positions: Sequence[Tensor]) -> list[State]:
        """Euler's method for a compiled graph: positions stay tensors, and only how far they reach is read.

        That is rounded up to a power of two steps on either side of 0, so that a few graphs serve all of a training.
        """
        places = torch.stack([position.detach().reshape(()) for position in positions])
        ahead, behind = self._reach(places)
        before = list(self._nodes(dynamics, start, behind, -1.0))
        grid = [*reversed(before), start, *self._nodes(dynamics, start, ahead, 1.0)]
        stacked = torch.stack([torch.stack(state) for state in grid])
        ratio = places / self.step_size + behind
        nodes = ratio.floor().clamp(0, ahead + behind - 1)
        shares = (ratio - nodes).to(stacked.dtype)
        low, high = stacked[nodes.long()], stacked[nodes.long() + 1]
        between = low + shares.reshape(-1, *[1] * (low.dim() - 1)) * (high - low)
        return [own.unbind() for own in between.unbind()]

    @uncompiled
    def _reach(self, places: Tensor) -> tuple[int, int]:
        """Steps ahead of 0 and behind it."""
        numbers = places.tolist()
        lost = [number for number in numbers if not math.isfinite(number)]
        if lost:
            raise InputError(
                f"a task position is {lost[0]}; take a smaller step size for the positions (position_groups), or look for a "
                f"loss that is not finite"
            )
        most, least = max(numbers), min(numbers)
        ahead = self._steps(most) if most > 0 or least >= 0 else 0
        behind = self._steps(-least) if least < 0 else 0
        return tuple(1 << (steps - 1).bit_length() if steps else 0 for steps in (ahead, behind))  # type: ignore[return-value]

    def _options(self) -> dict[str, Any]:
        if self.method in _ADAPTIVE:
            return dict(self.options)
        own: dict[str, Any] = {"grid_constructor": self._grid, "interp": "linear" if self.method == "euler" else "cubic"}
        if self.method.endswith("adams"):
            own["max_order"] = 4  # torchdiffeq's default is 12, of which the explicit method is stable for tiny steps only
        return {**own, **self.options}

    def _steps(self, distance: float) -> int:
        """Whole steps to a distance from 0 or just beyond, one at least."""
        ratio = distance / self.step_size
        if ratio > _MOST_STEPS:
            raise InputError(
                f"a position is {distance:g} away from 0, more than {_MOST_STEPS:,} steps of {self.step_size:g}; take a "
                f"smaller step size for the positions (position_groups), or a larger one for the solver"
            )
        near = math.ceil(ratio)  # of a quotient that was rounded: off by one at most
        return next(steps for steps in range(max(1, near - 1), near + 2) if self.step_size * steps >= distance)

    def _grid(self, function: object, state: Tensor, times: Tensor) -> Tensor:
        """The ends of a stretch of time and the multiples of the step within it; stretches of the adjoint equation too."""
        first, last = float(times[0]), float(times[-1])
        low, high = min(first, last), max(first, last)
        between = (
            self.step_size * step for step in range(math.floor(low / self.step_size), math.ceil(high / self.step_size) + 1)
        )
        inside = [node for node in between if low < node < high]
        nodes = torch.tensor([low, *inside, high], dtype=times.dtype, device=times.device)
        nodes = nodes if first < last else nodes.flip(0)
        nodes[0], nodes[-1] = times[0], times[-1]  # to the bit
        return nodes


def _finite(parts: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(part).all()) for part in parts)


def _captured(dynamics: Dynamics, lost: set[int] | None) -> tuple[Callable[[Tensor, State], State], tuple[Tensor, ...]]:
    """The equation with the parameters and buffers that it has now.

    The adjoint method evaluates it in the backward pass, when substituted parameters (see :class:`equipoise.Objective`) are
    long gone from the module.
    """
    parameters: dict[str, Tensor] = dict(dynamics.named_parameters())
    if lost is not None:
        parameters = {name: _Spoilt.apply(parameter, lost) for name, parameter in parameters.items()}
    held = {**parameters, **dict(dynamics.named_buffers())}

    def function(time: Tensor, state: State) -> State:
        derivative: State = functional_call(dynamics, held, (time, state))
        return derivative

    return function, tuple(parameters.values())


class _OnceDifferentiable(torch.autograd.Function):
    """The tensor itself. The adjoint method's gradients have no graph, and would silently count as constants.

    A gradient that is not finite goes no further: the backward pass is noted down as ``lost``, see :class:`_Spoilt`.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, lost: set[int] | None) -> Tensor:
        ctx.lost = lost
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise InputError("Solver(adjoint=True) has first derivatives only; take Solver(adjoint=False) for second ones")
        if ctx.lost is not None and not _finite([gradient]):
            ctx.lost.add(torch._C._current_graph_task_id())
            return torch.zeros_like(gradient), None
        return gradient, None


class _Spoilt(torch.autograd.Function):
    """The tensor itself, whose gradient is not a number in a backward pass that was lost."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, lost: set[int]) -> Tensor:
        ctx.lost = lost
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * torch.nan if torch._C._current_graph_task_id() in ctx.lost else gradient, None
