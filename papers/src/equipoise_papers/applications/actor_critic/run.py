"""One run, in which critic and policy learn in all tasks at once, and the table of all runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.markdown import table
from equipoise_papers.applications.actor_critic.environments import Environments, Replay, TasksShape, pendulums, shape_of
from equipoise_papers.applications.actor_critic.learner import AlternatingUpdate, Critic, Policy, Temperatures, problem
from equipoise_papers.applications.actor_critic.settings import ActorCriticSettings
from equipoise_papers.commands import Told, silent
from equipoise_papers.tables import mean_and_spread

__all__ = ["ActorCriticOutcome", "evaluate", "make", "run", "show"]

_TEST_SEED = 1_000_000


@dataclass(frozen=True)
class ActorCriticOutcome:
    """What one run gave; entries by task.

    Attributes:
        balancer: which.
        seed: of networks, environments and what is drawn.
        before: return of the untrained policy, mean over test episodes.
        after: the same of the trained one.
        residuals: soft Bellman residual over the last tenth of the updates, mean.
        weights: share in the balancer's weights, mean over all updates; empty if it gave directions.
        temperatures: β_i at the end.
    """

    balancer: str
    seed: int
    before: dict[str, float]
    after: dict[str, float]
    residuals: dict[str, float]
    weights: dict[str, float]
    temperatures: dict[str, float]


def run(
    balancer: str,
    seed: int,
    settings: ActorCriticSettings,
    environments: Environments | None = None,
    told: Callable[[int, dict[str, float]], None] = lambda step, residuals: None,
) -> ActorCriticOutcome:
    """Learns in all tasks: in every step one transition of each is remembered, then critic and policy are updated once.

    Args:
        balancer: combines the critic's gradients, such as ``"ls"`` (equal weights) or ``"mgda"``.
        seed: of everything.
        settings: the numbers.
        environments: the tasks; :func:`pendulums` under the settings' gravities if left out.
        told: called with step and residuals after every update.

    Raises:
        InputError: environments that do not fit together, or an unknown balancer.
        MissingExtraError: gymnasium is not installed.
    """
    made = {task: make() for task, make in (pendulums(settings.gravities) if environments is None else environments).items()}
    shape, tasks = shape_of(made), tuple(made)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (shape.observations, shape.actions, len(tasks), settings.hidden)
        critic, policy = Critic(*sizes), Policy(*sizes)
    average = copy.deepcopy(critic).requires_grad_(False)
    before = evaluate(policy, made, shape, settings)
    optimizers = [torch.optim.Adam(module.parameters(), settings.lr) for module in (critic, policy)]
    temperatures = Temperatures(len(tasks), shape.actions, settings)
    posed = problem(critic, policy, average, tasks, settings, temperatures)
    solver = AlternatingUpdate(posed, optimizers, balancer=balancer)
    codes = torch.eye(len(tasks)).unsqueeze(1).expand(-1, settings.batch_size, -1)
    replay = Replay(len(tasks), shape.observations, shape.actions, settings.capacity, seed)
    world = _World(made, shape, seed)
    residuals, weights = [], []
    for step in range(settings.steps):
        world.step(None if step < settings.warm_up else policy, replay, settings.reward_scale)
        if step < settings.warm_up:
            continue
        batch = replay.draw(settings.batch_size)
        values = solver.step([batch], batch)
        with torch.no_grad():
            for mean, new in zip(average.parameters(), critic.parameters(), strict=True):
                mean.lerp_(new, settings.averaging)
            if settings.tuning:
                temperatures.update(policy(batch.observation, codes, batch.noise)[1])
        residuals.append(torch.stack(list(values.values())))
        assert solver.last is not None
        if solver.last.weights is not None:
            weights.append(solver.last.weights / solver.last.weights.sum())
        told(step, {task: float(value) for task, value in values.items()})
    after = evaluate(policy, made, shape, settings)
    late = torch.stack(residuals[-max(1, len(residuals) // 10) :]).mean(0).tolist()
    shares = torch.stack(weights).mean(0).tolist() if weights else []
    for environment in made.values():
        environment.close()
    return ActorCriticOutcome(
        balancer,
        seed,
        before,
        after,
        dict(zip(tasks, late, strict=True)),
        dict(zip(tasks, shares, strict=bool(shares))),
        dict(zip(tasks, temperatures.values.tolist(), strict=True)),
    )


class _World:
    """All tasks' environments, side by side."""

    def __init__(self, made: dict[str, Any], shape: TasksShape, seed: int) -> None:
        self._environments = list(made.values())
        self._shape = shape
        self._generator = torch.Generator().manual_seed(seed + 1)
        # Every task has its own episodes.
        self._observations = [
            environment.reset(seed=1000 * seed + place)[0] for place, environment in enumerate(self._environments)
        ]

    def step(self, policy: nn.Module | None, replay: Replay, reward_scale: float) -> None:
        """One step in every task, by the policy or at random."""
        count = len(self._environments)
        observations = _stacked(self._observations)
        if policy is None:
            actions = 2.0 * torch.rand(count, self._shape.actions, generator=self._generator) - 1.0
        else:
            noise = torch.randn(count, self._shape.actions, generator=self._generator)
            with torch.no_grad():
                actions, _ = policy(observations, torch.eye(count), noise)
        rewards, followings, ends = [], [], []
        for place, environment in enumerate(self._environments):
            following, reward, ended, cut, _ = environment.step(self._shape.scaled(actions[place]))
            rewards.append(float(reward) * reward_scale)
            followings.append(following)
            ends.append(float(ended))
            self._observations[place] = environment.reset()[0] if ended or cut else following
        replay.add(observations, actions, torch.tensor(rewards), _stacked(followings), torch.tensor(ends))


def evaluate(policy: nn.Module, made: dict[str, Any], shape: TasksShape, settings: ActorCriticSettings) -> dict[str, float]:
    """Return without discount of the policy's most likely actions, by task, the mean over episodes.

    The episodes' starts are the same in every evaluation. The environments are left in the middle of an episode.
    """
    count, returns = len(made), dict.fromkeys(made, 0.0)
    for place, (task, environment) in enumerate(made.items()):
        code = torch.eye(count)[place]
        for episode in range(settings.test_episodes):
            observation, _ = environment.reset(seed=_TEST_SEED + episode)
            for _ in range(settings.horizon):
                with torch.no_grad():
                    action, _ = policy(_stacked([observation])[0], code, torch.zeros(shape.actions))
                observation, reward, ended, cut, _ = environment.step(shape.scaled(action))
                returns[task] += float(reward) / settings.test_episodes
                if ended or cut:
                    break
    return returns


def _stacked(observations: list[Any]) -> Tensor:
    return torch.from_numpy(np.stack(observations).astype(np.float32))


def make(settings: ActorCriticSettings, told: Told = silent) -> str:
    """Learns with every balancer from every seed.

    Args:
        settings: which, and the numbers.
        told: takes a line on each run that begins.

    Returns:
        The table of :func:`show`.

    Raises:
        InputError: an unknown balancer, or gravities that cannot be used.
        MissingExtraError: gymnasium is not installed.
    """
    outcomes = []
    for seed in settings.seeds:
        for balancer in settings.balancers:
            told(f"{balancer}, seed {seed}")
            outcomes.append(run(balancer, seed, settings))
    return show(outcomes, settings)


def show(outcomes: Sequence[ActorCriticOutcome], settings: ActorCriticSettings) -> str:
    """One row per balancer and task: means over the seeds (± standard deviation), and the mean of the tasks."""
    rows = []
    for balancer in dict.fromkeys(outcome.balancer for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.balancer == balancer]
        tasks = list(own[0].after)
        for task in tasks:
            shares = [outcome.weights[task] for outcome in own if outcome.weights]
            rows.append(
                [
                    balancer,
                    task,
                    mean_and_spread([outcome.before[task] for outcome in own], 0),
                    mean_and_spread([outcome.after[task] for outcome in own], 0),
                    mean_and_spread([outcome.residuals[task] for outcome in own], 4),
                    mean_and_spread(shares, 2) if shares else "",
                    mean_and_spread([outcome.temperatures[task] for outcome in own], 3),
                ]
            )
        rows.append(
            [
                balancer,
                "mean",
                mean_and_spread([sum(outcome.before.values()) / len(tasks) for outcome in own], 0),
                mean_and_spread([sum(outcome.after.values()) / len(tasks) for outcome in own], 0),
                mean_and_spread([sum(outcome.residuals.values()) / len(tasks) for outcome in own], 4),
                "",
                "",
            ]
        )
    seeds = len({outcome.seed for outcome in outcomes})
    return "\n".join(
        [
            f"soft actor-critic, {settings.steps} steps per task, {seeds} seed{'s' * (seeds > 1)}, "
            f"returns over {settings.test_episodes} episodes",
            "",
            table(["balancer", "task", "return before", "return after", "Bellman residual", "weight", "β"], rows),
        ]
    )
