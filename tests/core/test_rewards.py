"""Advantages of several rewards, against the equations and the released codes' numbers; a tiny policy trained with each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import equipoise as eq
from equipoise.rewards import CTWA, gapo, gdpo, group_advantages

NAN = math.nan


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_group_advantages_are_those_of_each_reward_alone() -> None:
    rewards = random(3, 4, 5)
    found = group_advantages(rewards)
    for k in range(3):
        for group in range(4):
            own = rewards[k, group]
            torch.testing.assert_close(found[k, group], (own - own.mean()) / (own.std() + 1e-4))
    torch.testing.assert_close(group_advantages(rewards, scale=False), rewards - rewards.mean(-1, keepdim=True))
    shifted = group_advantages(rewards * torch.tensor([1.0, 1e3, 1e-3])[:, None, None] + 7.0, epsilon=0.0)
    torch.testing.assert_close(shifted, group_advantages(rewards, epsilon=0.0))


def test_gdpo_by_its_equations() -> None:
    rewards, weights = random(3, 4, 5), [1.0, 0.5, 2.0]
    total = sum(weight * group_advantages(own[None])[0] for weight, own in zip(weights, rewards, strict=True))
    expected = (total - total.mean()) / (total.std() + 1e-4)
    torch.testing.assert_close(gdpo(rewards, weights), expected)
    named = dict(zip("abc", rewards, strict=True))
    torch.testing.assert_close(gdpo(named, {"b": 0.5, "c": 2.0, "a": 1.0}), expected)


def test_gdpo_tells_combinations_apart_that_grpo_does_not() -> None:
    """The paper's example: of two binary rewards, groups with sums (0, 1) and (0, 2) get one advantage in GRPO."""
    first, second = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    grpo = group_advantages((first + second)[None], epsilon=0.0)[0]
    torch.testing.assert_close(grpo[0], grpo[1])
    found = gdpo(torch.stack([first, second]), epsilon=0.0)
    assert float(found[1, 1]) == pytest.approx(2 * float(found[0, 1]))


def test_rewards_that_do_not_apply_count_as_the_groups_mean() -> None:
    rewards = torch.tensor([[[1.0, NAN, 3.0]], [[NAN, NAN, NAN]]])
    assert group_advantages(rewards, scale=False).tolist() == [[[-1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]]
    assert group_advantages(rewards, epsilon=0.0)[0, 0].tolist() == pytest.approx([-(2**-0.5), 0.0, 2**-0.5])
    assert bool(torch.isfinite(gdpo(rewards)).all())


def slopes(logits: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
    """The gradient of −mean A log π for a categorical policy, one row for each of K advantages."""
    chosen = torch.log_softmax(logits, -1)[actions]
    return torch.stack([torch.autograd.grad(-(own * chosen).mean(), logits, retain_graph=True)[0] for own in advantages])


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_gapo_steps_along_the_shortest_rescaled_combination(power: float) -> None:
    """Every reward gains in proportion to its gradient's norm to the power."""
    logits = random(6).requires_grad_()
    actions = torch.randint(6, (4, 8), generator=torch.Generator().manual_seed(1))
    rewards = random(6, 3, seed=2)[actions].permute(2, 0, 1) * torch.tensor([1.0, 3.0, 0.2])[:, None, None]
    rows = slopes(logits, actions, group_advantages(rewards))
    gramian = rows @ rows.T
    (direction,) = slopes(logits, actions, gapo(rewards, gramian, power)[None])
    norms = rows.norm(dim=1)
    torch.testing.assert_close(direction, eq.MGDA(power=power).weights(gramian) @ rows)
    rescaled = rows / norms[:, None] ** power
    torch.testing.assert_close(direction, eq.MGDA().weights(rescaled @ rescaled.T) @ rescaled)
    gains, least = rows @ direction, direction.square().sum() * norms**power
    assert bool((gains >= least * (1 - 1e-9)).all())
    preferred = gapo(rewards, gramian, power, preference=[0.2, 0.3, 0.5])
    torch.testing.assert_close(
        slopes(logits, actions, preferred[None])[0], (torch.tensor([0.2, 0.3, 0.5]).double() / norms**power) @ rows
    )


def test_rescaling_takes_gradients_of_any_size() -> None:
    rows = random(3, 5) * torch.tensor([1e-9, 1.0, 1e12])[:, None]
    found = eq.MGDA(power=1).weights(rows @ rows.T) * rows.norm(dim=1)
    torch.testing.assert_close(found, eq.MGDA(normalization="l2").weights(rows @ rows.T), rtol=1e-6, atol=1e-9)
    assert eq.MGDA(power=2).weights(torch.zeros(3, 3)).isfinite().all()
    assert eq.MGDA(power=0.5).weights(torch.eye(1) * 16).tolist() == [0.5]


# compute_ctwa_stats and the weights' update of the released trainer, on the rewards and signals below.
RELEASED_CTWA = {
    False: [
        [1.1027777194976807, 1.156524896621704, 1.0883593559265137],
        [1.2165595293045044, 1.336914300918579, 1.1926556825637817],
        [1.3492306470870972, 1.5447418689727783, 1.1926556825637817],
    ],
    True: [
        [1.1328818798065186, 1.1963809728622437, 1.0],
        [1.2902352809906006, 1.4197832345962524, 1.0],
        [1.4859579801559448, 1.657727599143982, 1.0],
    ],
}


@pytest.mark.parametrize("correlation", [False, True])
def test_ctwa_as_released(correlation: bool) -> None:
    """Three batches; in the second a completion's signal is an outlier, in the third reward c has reached its cap."""
    ctwa = CTWA([0.15, 0.3, 0.3], lr=0.5, caps=[1e9, 1e9, -0.1], correlation=correlation)
    for step, expected in enumerate(RELEASED_CTWA[correlation]):
        rewards = torch.tensor([[math.sin(1.7 * i * k + step) for i in range(1, 9)] for k in (1, 2, 3)], dtype=torch.float64)
        rewards[1] *= 0.2
        signal = torch.tensor([math.cos(2.3 * i + 0.5 * step) for i in range(1, 9)], dtype=torch.float64)
        if step == 1:
            signal[3] = 500.0
        ctwa.update(rewards.view(3, 2, 4), signal.view(2, 4))
        assert list(ctwa.weights.values()) == pytest.approx(expected, rel=1e-6)


def test_ctwa_goes_on_from_its_state_and_refuses_without_a_change() -> None:
    ctwa, batches = CTWA(targets=0.5), [{"a": random(2, 4, seed=s), "b": random(2, 4, seed=s + 9)} for s in range(4)]
    for rewards in batches[:2]:
        ctwa.update(rewards)
    state, again = copy.deepcopy(ctwa.state_dict()), CTWA(targets=0.5)
    again.load_state_dict(state)
    for wrong, message in (
        ({"a": batches[0]["a"]}, "before, there were a, b"),
        (random(3, 2, 4), "3 rewards were given; before, there were 2"),
        ({name: own[0] for name, own in batches[0].items()}, r"the shape \[K, groups, samples\]"),
        ({name: own / 0 for name, own in batches[0].items()}, "a reward is infinite"),
    ):
        with pytest.raises(eq.InputError, match=message):
            ctwa.update(wrong)
    with pytest.raises(eq.InputError, match="signal must have the shape"):
        ctwa.update(batches[2], torch.ones(3))
    with pytest.raises(eq.InputError, match="log_weights"):
        ctwa.load_state_dict({**state, "log_weights": torch.ones(2, 2)})
    for own in (ctwa, again):
        for rewards in batches[2:]:
            own.update(rewards)
    assert ctwa.weights == again.weights
    assert set(ctwa.weights) == {"a", "b"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CTWA(lr=-1.0), "lr must be finite"),
        (lambda: CTWA(tau=0.0), "tau must be above 0"),
        (lambda: gdpo(torch.ones(2, 3)), "the shape"),
        (lambda: gdpo(torch.ones(2, 3, 1)), "at least 2 samples"),
        (lambda: gdpo(torch.ones(2, 3, 4), [1.0]), "weights has 1 numbers for 2 tasks"),
        (lambda: gapo(torch.ones(2, 3, 4), torch.eye(3)), "is of 3 gradients; there are 2 rewards"),
        (lambda: eq.MGDA(power=-1.0), "power must be finite"),
        (lambda: eq.MGDA(normalization="l2", power=1.0), "give one of them"),
    ],
)
def test_what_rewards_refuse(make: Callable[[], object], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        make()


@pytest.mark.parametrize("way", ["gdpo", "gapo", "ctwa"])
def test_a_policy_learns_from_two_rewards(way: str) -> None:
    """A letter is good for one reward, for the other (a thousand times as large), for both, or for none."""
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1000.0], [1.0, 1000.0]])
    generator, ctwa = torch.Generator().manual_seed(0), CTWA(targets=0.4, correlation=True)
    logits = torch.tensor([1.0, 0.0, 0.0, -1.0], requires_grad=True)
    for _ in range(60):
        actions = torch.multinomial(logits.detach().softmax(0), 64, replacement=True, generator=generator).view(4, 16)
        rewards = table[actions].permute(2, 0, 1)
        if way == "gdpo":
            advantages = gdpo(rewards)
        elif way == "gapo":
            rows = slopes(logits, actions, group_advantages(rewards))
            advantages = gapo(rewards, rows @ rows.T)
        else:
            advantages = ctwa.advantages(rewards)
            ctwa.update(rewards)
        (slope,) = slopes(logits, actions, advantages[None])
        logits = (logits - 0.5 * slope).detach().requires_grad_()
    found = logits.detach().softmax(0)
    assert int(found.argmax()) == 3
    assert float(found[3]) > 0.5
    if way == "ctwa":
        weights = list(ctwa.weights.values())
        assert weights[0] > weights[1]
