"""Multi-task actor-critic: the losses by hand, the update against MOML, and a task that is learned."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equipoise.bilevel import MOML, BilevelProblem
from equipoise.errors import InputError, MissingExtraError, NonFiniteError
from equipoise_papers.applications.actor_critic.environments import Replay, Transitions, pendulums, shape_of
from equipoise_papers.applications.actor_critic.learner import AlternatingUpdate, Critic, Policy, Temperatures, problem
from equipoise_papers.applications.actor_critic.run import run, show
from equipoise_papers.applications.actor_critic.settings import ActorCriticSettings


class Reach(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point on a line, to be brought to ``goal``; an episode is 10 steps."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,))
    action_space = gymnasium.spaces.Box(-0.5, 0.5, (1,))

    def __init__(self, goal: float) -> None:
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.left = self.np_random.uniform(-1, 1, 1).astype(np.float32), 10
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.place, self.left = self.place + action, self.left - 1
        return self.place, -float((self.place[0] - self.goal) ** 2), False, self.left == 0, {}


LINE = {"left": partial(Reach, -2.0), "right": partial(Reach, 2.0)}
TINY = ActorCriticSettings(
    steps=350, warm_up=100, batch_size=32, hidden=16, lr=1e-2, discount=0.8, averaging=0.05, reward_scale=0.3,
    test_episodes=5, horizon=10, temperature=0.02,
)  # fmt: skip


def transitions(tasks: int = 2, count: int = 6) -> Transitions:
    shapes = {"observation": (3,), "action": (1,), "reward": (), "following": (3,), "noise": (1,), "following_noise": (1,)}
    drawn = {name: torch.randn(tasks, count, *shape) for name, shape in shapes.items()}
    return Transitions(**drawn, ended=torch.randint(2, (tasks, count)).float())


def built(**options: Any) -> tuple[Critic, Policy, Critic, BilevelProblem]:
    torch.manual_seed(0)
    critic, policy, average = Critic(3, 1, 2, 8), Policy(3, 1, 2, 8), Critic(3, 1, 2, 8)
    return critic, policy, average, problem(critic, policy, average, ("one", "two"), ActorCriticSettings(**options))


@pytest.mark.parametrize("balancer", ["ls", "mgda"])
def test_learns_tasks_that_want_opposite_things(balancer: str) -> None:
    met: list[dict[str, float]] = []
    outcome = run(balancer, 0, TINY, LINE, told=lambda step, residuals: met.append(residuals))
    for task in LINE:
        # From a start in [−1, 1], standing still costs about 43 on average; going to the goal at once, about 5.
        assert outcome.after[task] > max(-20, 0.5 * outcome.before[task])
        assert np.mean([entry[task] for entry in met[-50:]]) < 0.5 * np.mean([entry[task] for entry in met[:50]])
    assert met[-1].keys() == LINE.keys()
    assert sum(outcome.weights.values()) == pytest.approx(1.0)
    text = show([outcome], TINY)
    assert f"{outcome.after['left']:.0f}" in text
    assert "right" in text


def test_runs_on_pendulums_and_repeats_to_the_bit() -> None:
    few = ActorCriticSettings(steps=8, warm_up=4, batch_size=4, hidden=4, test_episodes=1, horizon=5)
    first, again = (run("mgda", 2, few) for _ in range(2))
    assert first == again
    assert list(first.after) == ["g=4", "g=8", "g=12"]
    assert all(beta != few.temperature for beta in first.temperatures.values())


def test_bellman_residual_by_hand() -> None:
    critic, policy, average, posed = built(discount=0.9, temperature=0.3)
    batch, codes = transitions(), torch.eye(2)
    values = posed.objectives_at(posed.here(), batch)
    for task in range(2):
        losses = []
        for row in range(6):
            (s, a, r, following, ended, _, noise), z = (entry[task, row] for entry in batch), codes[task]
            after, log = policy(following, z, noise)
            value = min(average(following, after, z).detach().tolist()) - 0.3 * log.item()
            target = float(r) + 0.9 * (1 - float(ended)) * value
            losses.append(sum(0.5 * (own - target) ** 2 for own in critic(s, a, z).detach().tolist()))
        assert values[task].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_policy_loss_by_hand_and_the_target_is_a_constant() -> None:
    critic, policy, _, posed = built(temperature=0.3)
    batch, codes = transitions(), torch.eye(2)
    total = 0.0
    for task in range(2):
        action, log = policy(batch.observation[task], codes[task].expand(6, 2), batch.noise[task])
        estimates = critic(batch.observation[task], action, codes[task].expand(6, 2))
        total += (0.3 * log - torch.minimum(estimates[0], estimates[1])).mean().item()
    assert posed.lower_at(posed.here(), batch).item() == pytest.approx(total, rel=1e-5)
    objectives = posed.objectives_at(posed.here(), batch)
    assert torch.autograd.grad(objectives[0], list(policy.parameters()), allow_unused=True) == (None,) * 6


def test_each_temperature_is_tuned_for_its_own_tasks_entropy() -> None:
    """Eq. 18 of Soft Actor-Critic Algorithms and Applications: the gradient of E[−β (log π + H̄)] by plain autograd."""
    settings = ActorCriticSettings(temperature=0.3, lr=0.1)
    temperatures = Temperatures(2, 3, settings)
    logarithms = torch.full((2,), 0.3).log().requires_grad_()
    optimizer = torch.optim.Adam([logarithms], 0.1)
    for _ in range(4):
        # Task 0 has an entropy of 4, more than the target of −3, and task 1 of −5.
        log_density = torch.tensor([[-4.0], [5.0]]).expand(2, 6) + 0.1 * torch.randn(2, 6)
        temperatures.update(log_density)
        optimizer.zero_grad()
        (-logarithms.exp() * (log_density.mean(1) - 3.0)).sum().backward()
        optimizer.step()
        torch.testing.assert_close(temperatures.values, logarithms.detach().exp())
    assert temperatures.values[0] < 0.3 < temperatures.values[1]
    fixed = Temperatures(2, 3, ActorCriticSettings(temperature=0.3, tuning=False))
    fixed.update(torch.tensor([[-4.0], [5.0]]))
    assert fixed.values.tolist() == pytest.approx([0.3, 0.3])


def test_losses_have_the_temperatures_of_now_each_tasks_own() -> None:
    torch.manual_seed(0)
    critic, policy, average = Critic(3, 1, 2, 8), Policy(3, 1, 2, 8), Critic(3, 1, 2, 8)
    settings, batch = ActorCriticSettings(temperature=0.3), transitions()
    temperatures = Temperatures(2, 1, settings)
    posed = problem(critic, policy, average, ("one", "two"), settings, temperatures)
    before = posed.lower_at(posed.here(), batch), *posed.objectives_at(posed.here(), batch)
    temperatures.values = torch.tensor([0.3, 0.9])
    after = posed.lower_at(posed.here(), batch), *posed.objectives_at(posed.here(), batch)
    log = policy(batch.observation, torch.eye(2)[:, None].expand(2, 6, 2), batch.noise)[1]
    assert (after[0] - before[0]).item() == pytest.approx(0.6 * log[1].mean().item(), rel=1e-4)
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[2], before[2])


def test_density_of_the_policy() -> None:
    policy = Policy(2, 2, 1, 4).double()
    observation, code = torch.randn(7, 2).double(), torch.ones(7, 1).double()
    action, log_density = policy(observation, code, torch.randn(7, 2).double())
    mean, raw = policy.layers(torch.cat([observation, code], 1)).chunk(2, 1)
    normal = torch.distributions.Normal(mean, nn.functional.softplus(raw) + 1e-3)
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(log_density, squashed.log_prob(action).sum(1))
    _, extreme = policy(observation, code, torch.full((7, 2), 60.0).double())
    assert bool(torch.isfinite(extreme).all())


@pytest.mark.parametrize("balancer", ["ls", "mgda", "pcgrad"])
def test_where_targets_are_constants_it_is_moml_with_one_lower_step(balancer: str) -> None:
    batches = [transitions() for _ in range(3)]
    results = []
    for alternating in (True, False):
        critic, policy, _, posed = built()
        if alternating:
            optimizers = [torch.optim.SGD(critic.parameters(), 0.1), torch.optim.SGD(policy.parameters(), 0.05)]
            solver: Any = AlternatingUpdate(posed, optimizers, balancer=balancer)
        else:
            optimizer = torch.optim.SGD(critic.parameters(), 0.1)
            solver = MOML(posed, optimizer, lower_steps=1, lower_lr=0.05, balancer=balancer)
        # MOML looks at F after its lower step, so only the first step is of the same point for both.
        solver.step(batches, batches[0])
        results.append([*policy.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_one_step_of_equal_weights_is_gradient_descent_on_the_sum() -> None:
    batch = transitions()
    critic, policy, _, posed = built()
    expected = copy.deepcopy(critic)
    optimizer = torch.optim.SGD([*critic.parameters(), *policy.parameters()], 0.1)
    solver = AlternatingUpdate(posed, optimizer, balancer="ls")
    gradients = torch.autograd.grad(torch.stack(posed.objectives_at(posed.here(), batch)).sum(), list(critic.parameters()))
    solver.step([batch], batch)
    assert solver.last is not None
    assert solver.last.weights is not None
    scale = float(solver.last.weights[0])
    for before, after, gradient in zip(expected.parameters(), critic.parameters(), gradients, strict=True):
        torch.testing.assert_close(after, before - 0.1 * scale * gradient)


def test_resumed_to_the_bit() -> None:
    batches = [transitions() for _ in range(4)]

    def go(steps: range, state: dict[str, Any] | None = None) -> tuple[Critic, Policy, dict[str, Any]]:
        critic, policy, _, posed = built()
        optimizers = [torch.optim.Adam(critic.parameters(), 0.1), torch.optim.Adam(policy.parameters(), 0.05)]
        solver = AlternatingUpdate(posed, optimizers, balancer="gradvac")
        if state is not None:
            solver.load_state_dict(state)
        for step in steps:
            solver.step([batches[step]], batches[step])
        return critic, policy, solver.state_dict()

    *straight, _ = go(range(4))
    *_, halfway = go(range(2))
    *resumed, _ = go(range(2, 4), halfway)
    for one, other in zip(straight, resumed, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


def test_an_infinite_reward_changes_nothing() -> None:
    batch = transitions()
    critic, policy, _, posed = built()
    optimizer = torch.optim.Adam([*critic.parameters(), *policy.parameters()], 0.1)
    solver = AlternatingUpdate(posed, optimizer)
    before = [parameter.clone() for parameter in (*critic.parameters(), *policy.parameters())]
    batch.reward[1, 0] = float("inf")
    with pytest.raises(NonFiniteError, match='objective "two" is not finite in step 0'):
        solver.step([batch], batch)
    after = [*critic.parameters(), *policy.parameters()]
    assert all(torch.equal(new, old) for new, old in zip(after, before, strict=True))
    assert all(parameter.grad is None for parameter in after)


def test_the_alternating_update_does_not_follow_omega() -> None:
    alpha, omega = torch.tensor(0.0), torch.tensor(1.0)

    def upper(alpha: Tensor, omega: Tensor, batch: None) -> list[Tensor]:
        return [(alpha - 1).square(), omega.square()]

    posed = BilevelProblem(lambda alpha, omega, batch: (omega - alpha).square(), upper, (alpha, omega))
    solver = AlternatingUpdate(posed, torch.optim.SGD([alpha, omega], 0.1))
    with pytest.raises(InputError, match=r'"objective1" does not depend on the upper-level variables; .* which MOML does'):
        solver.step()


def test_replay_forgets_the_oldest_and_keeps_tasks_apart() -> None:
    replay = Replay(2, 1, 1, capacity=3, seed=0)
    with pytest.raises(InputError, match="replay is empty"):
        replay.draw(1)
    for number in range(5):
        value = torch.tensor([[number], [100.0 + number]])
        replay.add(value, value, value.squeeze(1), value + 1, torch.zeros(2))
    drawn = replay.draw(200)
    assert replay.length == 3
    assert set(drawn.reward[0].tolist()) == {2.0, 3.0, 4.0}
    assert set(drawn.reward[1].tolist()) == {102.0, 103.0, 104.0}
    assert torch.equal(drawn.following, drawn.observation + 1)
    assert torch.equal(drawn.reward, drawn.action.squeeze(2))


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtraError, match=r"equipoise-papers\[control\]"):
        pendulums()


def other_bounds() -> Reach:
    environment = Reach(0.0)
    environment.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    return environment


def without_bounds() -> Reach:
    environment = Reach(0.0)
    environment.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    return environment


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: run("mgda", 0, TINY, {"a": partial(Reach, 0.0), "b": other_bounds}), "share one shape"),
        (lambda: run("mgda", 0, TINY, {"a": without_bounds}), '"a" has actions without bounds'),
        (lambda: shape_of({}), "share one shape"),
        (lambda: shape_of({"cart": gymnasium.make("CartPole-v1")}), '"cart" needs flat boxes'),
        (lambda: pendulums(()), "different positive numbers"),
        (lambda: pendulums((1.0, 1.0)), "different positive numbers"),
        (lambda: run("mgdaa", 0, TINY, LINE), "mgda"),
        (lambda: ActorCriticSettings(steps=10, warm_up=10), "steps must be more than warm_up"),
        (lambda: ActorCriticSettings(discount=1.0), "discount must be from 0 to below 1"),
        (lambda: ActorCriticSettings(averaging=0.0), "averaging"),
        (lambda: ActorCriticSettings(temperature=-1.0), "temperature"),
        (lambda: ActorCriticSettings(temperature=0.0), "so it must start above 0"),
        (lambda: ActorCriticSettings(reward_scale=0.0), "reward_scale"),
        (lambda: ActorCriticSettings(batch_size=0), "batch_size"),
    ],
)
def test_bad_input(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()
