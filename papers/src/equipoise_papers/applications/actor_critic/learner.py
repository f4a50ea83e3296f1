"""Critic and policy, the bilevel problem between them, and the update that minimises both levels separately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.balance import Balancer
from equipoise.bilevel.hypergradients import Hypergradients
from equipoise.bilevel.levels import Parts, lower_gradients
from equipoise.bilevel.lower import check_lower, check_upper
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.problem import BilevelProblem
from equipoise.errors import InputError
from equipoise_papers.applications.actor_critic.environments import Transitions
from equipoise_papers.applications.actor_critic.settings import ActorCriticSettings

__all__ = ["AlternatingUpdate", "Critic", "Policy", "Temperatures", "problem"]


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


class Temperatures:
    """β_i of every task, tuned for the policy's entropy (Haarnoja et al., Soft Actor-Critic Algorithms and Applications, 2018).

    Each minimises E[−β_i (log π(a | s, z_i) + H̄)] (their eq. 18), H̄ = minus the number of actions, by Adam on log β_i: where
    the policy's entropy is below H̄ the temperature rises, above it falls. One for each task, since returns differ.

    Args:
        tasks: m.
        actions: numbers in an action.
        settings: the numbers.

    Attributes:
        values: β ``[m]``.
    """

    def __init__(self, tasks: int, actions: int, settings: ActorCriticSettings) -> None:
        self.values = torch.full((tasks,), settings.temperature)
        self._aim = -float(actions)
        self._logarithms = self.values.log().requires_grad_(settings.tuning)
        self._optimizer = torch.optim.Adam([self._logarithms], settings.lr) if settings.tuning else None

    def update(self, log_density: Tensor) -> None:
        """One step, from log π ``[m, B]`` of actions that the policy took just now; none where they are fixed."""
        if self._optimizer is None:
            return
        self._logarithms.grad = -self.values * (log_density.detach().mean(1) + self._aim)
        self._optimizer.step()
        self.values = self._logarithms.detach().exp()


def problem(
    critic: nn.Module,
    policy: nn.Module,
    average: nn.Module,
    tasks: Sequence[str],
    settings: ActorCriticSettings,
    temperatures: Temperatures | None = None,
) -> BilevelProblem:
    """Eq. 3.38: min over the critic of every task's soft Bellman residual, where the policy minimises the sum of its losses.

    The residual of task i (eq. 3.39) is ½ (Q_α(s, a) − (R + γ V_α̂(s′)))², the mean over transitions, added over the two
    estimates, V = min Q_α̂(s′, a′) − β_i log π(a′). The policy's loss (eq. 3.40) is β_i log π(a) − min Q_α(s, a), which is β_i
    times the divergence from exp(Q/β_i), but for what does not depend on the policy. As in SAC, the target is a constant.

    Batches of both levels are :class:`Transitions`.

    Args:
        critic: α, a :class:`Critic`.
        policy: ω, a :class:`Policy`.
        average: α̂, moving average of the critic; no variable of the problem.
        tasks: names of the m tasks.
        settings: the numbers.
        temperatures: β, as it is when the problem is evaluated; the settings' start if left out.
    """
    codes = torch.eye(len(tasks))
    beta = Temperatures(len(tasks), 1, settings) if temperatures is None else temperatures

    def told(batch: Transitions) -> Tensor:
        return codes.unsqueeze(1).expand(-1, batch.reward.shape[1], -1)

    def lower(critic: nn.Module, policy: nn.Module, batch: Transitions) -> Tensor:
        action, log_density = policy(batch.observation, told(batch), batch.noise)
        value = critic(batch.observation, action, told(batch)).amin(0)
        losses: Tensor = (beta.values.unsqueeze(1) * log_density - value).mean(1)
        return losses.sum()

    def upper(critic: nn.Module, policy: nn.Module, batch: Transitions) -> dict[str, Tensor]:
        with torch.no_grad():
            action, log_density = policy(batch.following, told(batch), batch.following_noise)
            value = average(batch.following, action, told(batch)).amin(0) - beta.values.unsqueeze(1) * log_density
            target = batch.reward + settings.discount * (1.0 - batch.ended) * value
        residuals = 0.5 * (critic(batch.observation, batch.action, told(batch)) - target).square()
        return dict(zip(tasks, residuals.sum(0).mean(1).unbind(), strict=True))

    return BilevelProblem(lower, upper, (critic, policy), objectives=tuple(tasks))


class AlternatingUpdate(MOML):
    """α steps along a balancer's combination of ∂F_i/∂α at the present ω, ω along −∂f/∂ω (thesis, end of section 3.8.3).

    It is MOML with T = 1 in which the answer ω counts as a constant when F is differentiated, and ω moves by a torch optimizer.
    SAC needs both. Its policy learns by Adam, while MOML's lower steps are plain gradient steps; and its target is a constant,
    so F has no gradient with respect to ω: differentiated through the policy, a critic could lower its error by leading the
    policy to where targets are easily met instead of predicting returns. Both gradients are taken at the same point.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, that hold α and ω.
        balancer: as in :class:`equipoise.bilevel.MOML`.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> alpha, omega = torch.tensor(0.0), torch.tensor([0.0, 3.0])
        >>> problem = BilevelProblem(
        ...     lower=lambda alpha, omega, batch: (omega - alpha).square().sum(),
        ...     upper=lambda alpha, omega, batch: {"one": (alpha - 1).square(), "two": (alpha - 2).square()},
        ...     variables=(alpha, omega),
        ... )
        >>> solver = AlternatingUpdate(problem, torch.optim.SGD([alpha, omega], 0.1))
        >>> for _ in range(50):
        ...     values = solver.step()
        >>> bool(0.99 <= alpha <= 2), bool((omega - alpha).abs().max() < 0.1)
        (True, True)
    """

    moves_both = True

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        balancer: Balancer | str | Any = None,
    ) -> None:
        # One lower batch per step; the step size is the optimizer's.
        super().__init__(problem, optimizer, lower_steps=1, lower_lr=1.0, balancer=balancer)

    def _hypergradients(self, batches: list[Parts], upper_parts: Parts) -> Hypergradients:
        here = self.problem.here()
        objectives = self.problem.objectives_at(here, upper_parts[0])
        names = self.problem.objectives
        values = check_upper(torch.stack([objective.detach() for objective in objectives]), names, self.steps)
        rows = []
        for position, (name, objective) in enumerate(zip(names, objectives, strict=True)):
            found: Sequence[Tensor | None] = ()
            if objective.requires_grad:
                retain = position < len(names) - 1
                found = torch.autograd.grad(objective, here.upper, retain_graph=retain, allow_unused=True)
            if all(gradient is None for gradient in found):
                raise InputError(
                    f'upper(α, ω, batch): the objective "{name}" does not depend on the upper-level variables; the alternating '
                    f"update does not follow the dependence through ω, which MOML does"
                )
            filled = [
                torch.zeros_like(tensor) if gradient is None else gradient
                for gradient, tensor in zip(found, here.upper, strict=True)
            ]
            rows.append(torch.cat([gradient.reshape(-1) for gradient in filled]))
        value = self.problem.lower_at(here, batches[0][0])
        check_lower([value.detach()], self.steps)
        for tensor, gradient in zip(here.lower, lower_gradients(self.problem, value, here.lower), strict=True):
            tensor.grad = gradient
        # The solution is where the optimizer leads to: the variables themselves.
        return Hypergradients(torch.stack(rows), values, here, float(value.detach()))
