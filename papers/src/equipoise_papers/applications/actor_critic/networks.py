"""Critic and policy; both are told the task by its one-hot code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Critic", "Policy"]


def _layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Critic(nn.Module):
    """Two independent estimates of Q_α(s, a, z), of which SAC takes the lower one.

    Args:
        observations: numbers in an observation.
        actions: numbers in an action.
        tasks: m.
        hidden: units of the two hidden layers.
    """

    def __init__(self, observations: int, actions: int, tasks: int, hidden: int) -> None:
        super().__init__()
        self.estimates = nn.ModuleList(_layers(observations + actions + tasks, hidden, 1) for _ in range(2))

    def forward(self, observation: Tensor, action: Tensor, code: Tensor) -> Tensor:
        """``[…, observations]``, ``[…, actions]``, ``[…, tasks]`` → ``[2, …]``."""
        inputs = torch.cat([observation, action, code], -1)
        return torch.stack([estimate(inputs).squeeze(-1) for estimate in self.estimates])


class Policy(nn.Module):
    """π_ω(a | s, z): the tanh of a normal variable, so that actions lie in (−1, 1).

    Args:
        observations: numbers in an observation.
        actions: numbers in an action.
        tasks: m.
        hidden: units of the two hidden layers.

    Example:
        >>> policy = Policy(observations=3, actions=1, tasks=2, hidden=8)
        >>> action, log_density = policy(torch.zeros(5, 3), torch.eye(2)[0].expand(5, 2), torch.zeros(5, 1))
        >>> tuple(action.shape), tuple(log_density.shape)
        ((5, 1), (5,))
    """

    def __init__(self, observations: int, actions: int, tasks: int, hidden: int) -> None:
        super().__init__()
        self.layers = _layers(observations + tasks, hidden, 2 * actions)

    def forward(self, observation: Tensor, code: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The action that standard normal ``noise`` ``[…, actions]`` leads to, and the logarithm of its density ``[…]``."""
        mean, raw = self.layers(torch.cat([observation, code], -1)).chunk(2, -1)
        deviation = F.softplus(raw) + 1e-3
        before = mean + deviation * noise
        normal = -0.5 * noise.square() - deviation.log() - 0.9189385332046727  # ½ log 2π
        # log(1 − tanh²x) = 2 (log 2 − x − softplus(−2x)), which stays finite where tanh x rounds to ±1.
        squashed = 2.0 * (0.6931471805599453 - before - F.softplus(-2.0 * before))
        return torch.tanh(before), (normal - squashed).sum(-1)
