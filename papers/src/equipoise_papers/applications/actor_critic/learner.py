"""The bilevel problem between critic and policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equipoise.bilevel.problem import BilevelProblem
from equipoise_papers.applications.actor_critic.replay import Transitions
from equipoise_papers.applications.actor_critic.settings import Settings

__all__ = ["problem"]


def problem(
    critic: nn.Module, policy: nn.Module, average: nn.Module, tasks: Sequence[str], settings: Settings
) -> BilevelProblem:
    """Eq. 3.38: min over the critic of every task's soft Bellman residual, where the policy minimises the sum of its losses.

    The residual of task i (eq. 3.39) is ½ (Q_α(s, a) − (R + γ V_α̂(s′)))², the mean over transitions, added over the two
    estimates, V = min Q_α̂(s′, a′) − β log π(a′). The policy's loss (eq. 3.40) is β log π(a) − min Q_α(s, a), which is β times
    the divergence from exp(Q/β), but for what does not depend on the policy. As in SAC, the target R + γ V is a constant.

    Batches of both levels are :class:`Transitions`.

    Args:
        critic: α, a :class:`Critic`.
        policy: ω, a :class:`Policy`.
        average: α̂, moving average of the critic; no variable of the problem.
        tasks: names of the m tasks.
        settings: the numbers.
    """
    codes = torch.eye(len(tasks))

    def told(batch: Transitions) -> Tensor:
        return codes.unsqueeze(1).expand(-1, batch.reward.shape[1], -1)

    def lower(critic: nn.Module, policy: nn.Module, batch: Transitions) -> Tensor:
        action, log_density = policy(batch.observation, told(batch), batch.noise)
        value = critic(batch.observation, action, told(batch)).amin(0)
        losses: Tensor = (settings.temperature * log_density - value).mean(1)
        return losses.sum()

    def upper(critic: nn.Module, policy: nn.Module, batch: Transitions) -> dict[str, Tensor]:
        with torch.no_grad():
            action, log_density = policy(batch.following, told(batch), batch.following_noise)
            value = average(batch.following, action, told(batch)).amin(0) - settings.temperature * log_density
            target = batch.reward + settings.discount * (1.0 - batch.ended) * value
        residuals = 0.5 * (critic(batch.observation, batch.action, told(batch)) - target).square()
        return dict(zip(tasks, residuals.sum(0).mean(1).unbind(), strict=True))

    return BilevelProblem(lower, upper, (critic, policy), objectives=tuple(tasks))
