"""What was met in the environments, for all tasks alike."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["Replay", "Transitions"]


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
        capacity: transitions a task.
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
