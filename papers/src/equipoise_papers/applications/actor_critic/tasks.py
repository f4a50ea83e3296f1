"""The control tasks: variants of a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError, require

__all__ = ["Environments", "Shape", "pendulums", "shape_of"]

Environments: TypeAlias = Mapping[str, Callable[[], Any]]
"""Task → what makes its environment (a ``gymnasium.Env`` with flat boxes of observations and actions)."""


class Shape(NamedTuple):
    """What all tasks have in common.

    Attributes:
        observations: numbers in an observation.
        actions: numbers in an action.
        low: of the actions ``[actions]``.
        high: the largest actions ``[actions]``.
    """

    observations: int
    actions: int
    low: Tensor
    high: Tensor

    def scaled(self, action: Tensor) -> np.ndarray:
        """An action in the environment's units, from one in [−1, 1]."""
        inner = self.low + (action.detach() + 1.0) / 2.0 * (self.high - self.low)
        return inner.numpy().astype(np.float32)


def pendulums(gravities: Sequence[float] = (4.0, 8.0, 12.0)) -> Environments:
    """Swinging a pendulum up and holding it, under different gravities: the torque that suffices for one is weak for another.

    Args:
        gravities: in m/s², one a task; Gymnasium's own is 10.

    Raises:
        InputError: no gravity, one named twice, or one that is not positive.
        MissingExtraError: gymnasium is not installed.

    Example:
        >>> sorted(pendulums((5.0, 10.0)))
        ['g=10', 'g=5']
    """
    gymnasium = require("gymnasium", "control", "equipoise-papers")
    if not gravities or len(set(gravities)) < len(gravities) or not all(0 < g < float("inf") for g in gravities):
        raise InputError(f"gravities must be different positive numbers; got {list(gravities)}")
    return {f"g={g:g}": partial(gymnasium.make, "Pendulum-v1", g=g, disable_env_checker=True) for g in gravities}


def shape_of(environments: Mapping[str, Any]) -> Shape:
    """What made environments have in common.

    Raises:
        InputError: no environment, spaces that are no flat boxes, or that differ between tasks.
    """
    shapes = {}
    for task, environment in environments.items():
        seen, done = environment.observation_space, environment.action_space
        if len(seen.shape or ()) != 1 or len(done.shape or ()) != 1 or not hasattr(done, "high"):
            raise InputError(f'task "{task}" needs flat boxes of observations and actions; it has {seen} and {done}')
        if not (np.isfinite(done.low).all() and np.isfinite(done.high).all()):
            raise InputError(f'task "{task}" has actions without bounds: {done}')
        shapes[task] = (seen.shape[0], done.shape[0], tuple(done.low.tolist()), tuple(done.high.tolist()))
    if len(set(shapes.values())) != 1:
        raise InputError(f"all tasks must share one shape of observations and actions, and its bounds; got {shapes}")
    observations, actions, low, high = next(iter(shapes.values()))
    return Shape(observations, actions, torch.tensor(low), torch.tensor(high))
