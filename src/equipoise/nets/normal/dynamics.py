"""The flow's differential equation, second order with damping (heavy ball) or first order, and the small maps in it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from equipoise.errors import InputError

__all__ = ["HALF", "Dynamics", "FirstOrder", "HeavyBall", "State", "pointwise_map", "vector_map"]


HALF = (torch.float16, torch.bfloat16)
"""Precisions too coarse to integrate in."""


def vector_map(size: int, hidden: int | None = None) -> nn.Sequential:
    """FC – LeakyReLU – FC on vectors ``[..., size]`` (thesis, section 5.5, Office-31, Office-Home and CelebA).

    Args:
        size: entries of a vector, in and out.
        hidden: units in between; ``size`` if left out, as in the thesis.

    Raises:
        InputError: a number below 1.

    Example:
        >>> import torch
        >>> vector_map(50)(torch.zeros(7, 50)).shape
        torch.Size([7, 50])
    """
    hidden = _positive(size, hidden)
    return nn.Sequential(nn.Linear(size, hidden), nn.LeakyReLU(), nn.Linear(hidden, size))


def pointwise_map(channels: int, hidden: int | None = None) -> nn.Sequential:
    """1×1 convolution – LeakyReLU – 1×1 convolution on maps ``[N, channels, H, W]`` (thesis, section 5.5, NYUv2).

    Args:
        channels: of a map, in and out.
        hidden: channels in between; ``channels`` if left out, as in the thesis.

    Raises:
        InputError: a number below 1.

    Example:
        >>> import torch
        >>> pointwise_map(8)(torch.zeros(2, 8, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """
    hidden = _positive(channels, hidden)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(), nn.Conv2d(hidden, channels, 1))


def _positive(size: int, hidden: int | None) -> int:
    hidden = size if hidden is None else hidden
    for name, value in (("size", size), ("hidden", hidden)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number from 1 on; got {value!r}")
    return hidden


State: TypeAlias = tuple[Tensor, ...]


class Dynamics(nn.Module, ABC):
    """A differential equation for features z(t) that start at z(0) and keep their shape.

    A state is a tuple of tensors in the features' shape, z first.
    """

    @abstractmethod
    def start(self, features: Tensor) -> State:
        """The state at 0, from z(0)."""

    @abstractmethod
    def forward(self, time: Tensor, state: State) -> State:
        """The state's derivative by time."""

    @abstractmethod
    def velocity(self, time: Tensor, state: State) -> Tensor:
        """dz/dt where the state is."""


class HeavyBall(Dynamics):
    """dz/dt = −q, dq/dt = −γ q + g(z) + ξ z, with z(0) the features and q(0) = u(z(0)) (thesis, eq. 5.5 and 5.9).

    Written as one equation this is z″ + γ z′ + g(z) + ξ z = 0: damping γ, and a spring ξ that pulls towards 0. Mind the
    sign that the thesis gives q: it is *minus* the velocity, so what u computes, the "initial velocity" of section 5.4.2, is
    minus the velocity at 0, and a task position's gradient has a minus in front (eq. 5.11).

    γ = sigmoid(ω) is learned, and lies between 0 and 1.

    Args:
        initial: u, any module that keeps the shape of its input.
        function: g, any module that keeps the shape of its input.
        xi: ξ; 0 leaves eq. 5.4. The thesis tunes it and names no value.
        damping: γ at the start, above 0 and below 1.
        timed: call g as ``function(z, t)``, t a scalar tensor, rather than as ``function(z)``.

    Raises:
        InputError: something that is no module, or a number out of range; when run, a map that changes the shape.

    Example:
        >>> ball = HeavyBall(nn.Linear(3, 3), nn.Linear(3, 3), xi=0.5)
        >>> z, q = ball.start(torch.ones(4, 3))
        >>> dz, dq = ball(torch.tensor(0.0), (z, q))
        >>> bool((dz == -q).all()), round(float(ball.damping.detach()), 6)
        (True, 0.5)
    """

    def __init__(
        self, initial: nn.Module, function: nn.Module, *, xi: float = 0.0, damping: float = 0.5, timed: bool = False
    ) -> None:
        super().__init__()
        _check_modules(initial=initial, function=function)
        if not math.isfinite(xi):
            raise InputError(f"xi must be a finite number; got {xi}")
        if not 0 < damping < 1:
            raise InputError(f"damping must lie above 0 and below 1, for it is a sigmoid; got {damping}")
        self.initial = initial
        self.function = function
        self.xi = float(xi)
        self.timed = timed
        self.omega = nn.Parameter(torch.tensor(math.log(damping / (1 - damping))))

    @property
    def damping(self) -> Tensor:
        """γ = sigmoid(ω), a scalar."""
        return torch.sigmoid(self.omega)

    def start(self, features: Tensor) -> State:
        """z(0), q(0)."""
        return features, _same_shape(_cast_for(self.initial, features), features, "the initial velocity")

    def forward(self, time: Tensor, state: State) -> State:
        """−q, −γ q + g(z) + ξ z."""
        z, q = state
        force = _evaluate(self.function, z, time, self.timed)
        change = force - self.damping * q
        return -q, change + self.xi * z if self.xi else change

    def velocity(self, time: Tensor, state: State) -> Tensor:
        """−q."""
        return -state[1]

    def extra_repr(self) -> str:
        """ξ."""
        return f"xi={self.xi}"


class FirstOrder(Dynamics):
    """dz/dt = g(z) (thesis, eq. 5.1; the variant "first-order NODE" of Table 5.4).

    Args:
        function: g, any module that keeps the shape of its input.
        timed: call g as ``function(z, t)``.

    Raises:
        InputError: something that is no module; when run, a map that changes the shape.
    """

    def __init__(self, function: nn.Module, *, timed: bool = False) -> None:
        super().__init__()
        _check_modules(function=function)
        self.function = function
        self.timed = timed

    def start(self, features: Tensor) -> State:
        """z(0)."""
        return (features,)

    def forward(self, time: Tensor, state: State) -> State:
        """g(z)."""
        return (self.velocity(time, state),)

    def velocity(self, time: Tensor, state: State) -> Tensor:
        """g(z)."""
        return _evaluate(self.function, state[0], time, self.timed)


def _check_modules(**modules: nn.Module) -> None:
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise InputError(f"{name} must be a torch.nn.Module; got {type(module).__name__}")


def _evaluate(function: nn.Module, z: Tensor, time: Tensor, timed: bool) -> Tensor:
    return _same_shape(_cast_for(function, z, time) if timed else _cast_for(function, z), z, "the ODE function")


def _cast_for(function: nn.Module, z: Tensor, *others: Tensor) -> Tensor:
    """A map's answer in the state's precision, whatever precision the map was cast to."""
    own = next((parameter.dtype for parameter in function.parameters() if parameter.dtype in HALF), z.dtype)
    answer: Tensor = function(z.to(own), *others)
    # Under autocast the answer stays what it is, and so does any that a module of one's own gives in another precision.
    return answer if own == z.dtype else answer.to(z.dtype)


def _same_shape(output: Tensor, z: Tensor, what: str) -> Tensor:
    if output.shape != z.shape:
        raise InputError(f"{what} must keep the features' shape {list(z.shape)}; it gave {list(output.shape)}")
    return output
