"""The control tasks, variants of a Gymnasium environment, and the memory of what was met in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError, require

__all__ = ["Environments", "Replay", "TasksShape", "Transitions", "pendulums", "shape_of"]

Environments: TypeAlias = Mapping[str, Callable[[], Any]]
"""Task → what makes its environment (a ``gymnasium.Env`` with flat boxes of observations and actions)."""


class TasksShape(NamedTuple):
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
        gravities: in m/s², one per task; Gymnasium's own is 10.

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


def shape_of(environments: Mapping[str, Any]) -> TasksShape:
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
    return TasksShape(observations, actions, torch.tensor(low), torch.tensor(high))


class Transitions(NamedTuple):
    """Transitions ``B`` a task, and the normal numbers that the policy's actions are made of.

    Attributes:
        observation: s ``[m, B, observations]``.
        action: a ``[m, B, actions]``, in [−1, 1].
        reward: R(s, a) ``[m, B]``, scaled.
        following: the next s ``[m, B, observations]``.
        ended: 1 where the task ended there for good ``[m, B]``; an episode cut short by a time limit did not.
        noise: ``[m, B, actions]``, for actions at ``observation``.
        following_noise: the same, for actions at ``following``.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    ended: Tensor
    noise: Tensor
    following_noise: Tensor


class Replay:
    """Remembers the last transitions of every task.

    Args:
        tasks: m.
        observations: numbers in an observation.
        actions: numbers in an action.
        capacity: transitions per task.
        seed: of what is drawn.
    """

    def __init__(self, tasks: int, observations: int, actions: int, capacity: int, seed: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._place = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._observation, self._following = (torch.zeros(tasks, capacity, observations) for _ in range(2))
        self._action = torch.zeros(tasks, capacity, actions)
        self._reward, self._ended = (torch.zeros(tasks, capacity) for _ in range(2))

    def add(self, observation: Tensor, action: Tensor, reward: Tensor, following: Tensor, ended: Tensor) -> None:
        """One transition of every task, ``[m, …]``; the oldest is forgotten."""
        for kept, new in (
            (self._observation, observation),
            (self._action, action),
            (self._reward, reward),
            (self._following, following),
            (self._ended, ended),
        ):
            kept[:, self._place] = new
        self._place = (self._place + 1) % self.capacity
        self.length = min(self.length + 1, self.capacity)

    def draw(self, count: int) -> Transitions:
        """Random transitions, the same number of every task.

        Raises:
            InputError: nothing is remembered yet.
        """
        if not self.length:
            raise InputError("the replay is empty; add transitions first")
        tasks, _, actions = self._action.shape
        rows = torch.randint(self.length, (tasks, count), generator=self._generator)
        own = torch.arange(tasks).unsqueeze(1)
        first, second = torch.randn(2, tasks, count, actions, generator=self._generator)
        return Transitions(
            self._observation[own, rows],
            self._action[own, rows],
            self._reward[own, rows],
            self._following[own, rows],
            self._ended[own, rows],
            first,
            second,
        )
