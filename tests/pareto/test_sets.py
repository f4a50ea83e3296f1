"""Sets of models: what a preference changes, and how they are trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.balance import STCH
from equipoise.errors import InputError, NonFiniteError
from equipoise.pareto import LowRankUpdates, ParetoSet, ParetoTraining, Preferences, igd_plus

FAMILY = ("phn:hidden=7", "cosmos", "film:hidden=5", "palora:rank=2", "lorpman:rank=2", "pamal")
TASKS = ("a", "b")


class Small(nn.Module):
    """A convolution, a norm and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.heads = nn.ModuleDict({task: nn.Linear(4 * 3 * 3, 3) for task in TASKS})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shared = self.body(images)
        return {task: head(shared) for task, head in self.heads.items()}


def losses(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = model(batch["image"])
    return {task: F.cross_entropy(out[task], batch[task]) for task in TASKS}


def batches(count: int) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return [
        {"image": torch.randn(8, 1, 6, 6, generator=draw)} | {task: torch.randint(3, (8,), generator=draw) for task in TASKS}
        for _ in range(count)
    ]


def made(family: str, seed: int = 0) -> ParetoSet:
    torch.manual_seed(seed)
    return ParetoSet(Small(), TASKS, family, seed=seed)


def training_of(pareto: ParetoSet, balancer: str = "stch:mu=0.1", steps: int = 6) -> ParetoTraining:
    return ParetoTraining(pareto, losses, torch.optim.Adam(pareto.groups(1e-2)), balancer, steps=steps, seed=1)


def moved(pareto: ParetoSet) -> ParetoSet:
    """With parameters that are not those of the start."""
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for own in pareto.family.parameters():
            own += 0.1 * torch.randn(own.shape, generator=draw)
    return pareto


OWN = sum(own.numel() for own in Small().parameters())
MATRICES = ((4, 9), (3, 36), (3, 36))
COUNTS = {
    "phn:hidden=7": (2 * 7 + 7) + 2 * (7 * 7 + 7) + 7 * OWN,
    "cosmos": 4 * 2 * 9 + 2 * 2 * (16 + 36),
    "film:hidden=5": 2 * 5 + 5 + 5 * 2 * (4 + 3 + 3),
    "palora:rank=2": sum(2 * 2 * (rows + columns) for rows, columns in MATRICES),
    "lorpman:rank=2": sum(2 * 2 * (rows + columns) for rows, columns in MATRICES),
    "pamal": OWN,
}


@pytest.mark.parametrize("family", FAMILY)
def test_parameters_are_as_many_as_the_formulas_say(family: str) -> None:
    pareto = made(family)
    assert sum(own.numel() for own in pareto.family.parameters()) == COUNTS[family]
    assert sum(own.numel() for own in pareto.parameters()) == OWN + COUNTS[family]


@pytest.mark.parametrize("family", FAMILY)
def test_at_the_start_every_member_is_the_model(family: str) -> None:
    pareto = made(family)
    images = batches(1)[0]["image"]
    pareto.eval()
    plain = pareto.model(images)
    same = [torch.equal(pareto.prefer(p)(images)[task], plain[task]) for p in ([1.0, 0.0], [0.3, 0.7]) for task in TASKS]
    assert all(same) or family == "pamal"
    if family == "pamal":
        assert same == [True, True, False, False]  # the first member is the model; the others start on their own


@pytest.mark.parametrize("family", FAMILY)
def test_a_member_stands_alone_and_the_model_is_left_as_it_was(family: str) -> None:
    pareto = moved(made(family))
    images = batches(1)[0]["image"]
    before = copy.deepcopy(pareto.model.state_dict())
    pareto.eval()
    member = pareto.member([0.2, 0.8])
    told = pareto.prefer([0.2, 0.8])(images)
    other = pareto.prefer([0.8, 0.2])(images)
    for task in TASKS:
        torch.testing.assert_close(member(images)[task], told[task])
        assert not torch.allclose(other[task], told[task])
    assert type(pareto.model) is Small
    assert not any(module._forward_hooks for module in pareto.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in pareto.model.state_dict().items())


def test_tensors_follow_the_formulas() -> None:
    p = torch.tensor([0.25, 0.75])
    pareto = moved(made("palora:rank=2,scale=3"))
    own = dict(pareto.model.named_parameters())
    family = pareto.family
    assert isinstance(family, LowRankUpdates)
    for name, first, second in zip(family.names, family.first, family.second, strict=True):
        update = sum(p[k] * second[k] @ first[k] for k in range(2)) * 3 / 2
        torch.testing.assert_close(family.tensors(p, own)[name], own[name] + update.view_as(own[name]))
    pareto = moved(made("pamal"))
    tensors = pareto.family.tensors(p, dict(pareto.model.named_parameters()))
    first, second = list(pareto.model.parameters()), list(pareto.family.parameters())
    for tensor, one, other in zip(tensors.values(), first, second, strict=True):
        torch.testing.assert_close(tensor, 0.25 * one + 0.75 * other)
    pareto = moved(made("phn:hidden=7"))
    tensors = pareto.family.tensors(p, dict(pareto.model.named_parameters()))
    flat = torch.cat([own.flatten() for own in pareto.model.parameters()])
    expected = flat + pareto.family.output @ pareto.family.body(p) / math.sqrt(7)
    torch.testing.assert_close(torch.cat([own.flatten() for own in tensors.values()]), expected)


def test_conditions_are_further_inputs_and_scaled_outputs() -> None:
    images, p = batches(1)[0]["image"], torch.tensor([0.25, 0.75])
    pareto = moved(made("cosmos")).prefer(p)
    convolution, family = pareto.model.body[0], pareto.family
    planes = F.interpolate(family.planes(p[None, :, None, None]), size=(6, 6)).expand(8, -1, -1, -1)
    both = torch.cat([images, planes], 1), torch.cat([convolution.weight, family.weight], 1)
    expected = F.conv2d(*both, convolution.bias, stride=2, padding=1)
    torch.testing.assert_close(pareto.play(lambda model: model.body[0](images)), expected)

    linear = nn.Linear(3, 2)
    pareto = moved(ParetoSet(linear, TASKS, "cosmos")).prefer(p)
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([rows, p.expand(4, -1)], 1) @ torch.cat([linear.weight, pareto.family.weight], 1).T + linear.bias
    torch.testing.assert_close(pareto(rows), expected)

    pareto = moved(made("film:hidden=5")).prefer(p)
    out = pareto.family.output @ pareto.family.body(p).relu()
    expected = pareto.model.body[0](images) * (1 + out[:4, None, None]) + out[4:8, None, None]
    torch.testing.assert_close(pareto.play(lambda model: model.body[0](images)), expected)


D = 6


def gaussians(model: Any, batch: Tensor) -> dict[str, Tensor]:
    """Two bumps (Fonseca and Fleming, 1995): the front is concave, and weighted sums have their minima at its ends."""
    point, centre = model(batch)[0], 1 / math.sqrt(D)
    return {"a": 1 - (-(point - centre).square().sum()).exp(), "b": 1 - (-(point + centre).square().sum()).exp()}


@pytest.mark.parametrize("family", ["phn:hidden=20", "cosmos", "film:hidden=20", "palora:rank=1", "lorpman:rank=1", "pamal"])
def test_the_members_cover_a_concave_front(family: str) -> None:
    line = np.linspace(-1, 1, 201)
    true = np.stack([1 - np.exp(-((line - 1) ** 2)), 1 - np.exp(-((line + 1) ** 2))], axis=1)
    torch.manual_seed(0)
    pareto = ParetoSet(nn.Linear(1, D), TASKS, family)
    batch = torch.ones(1, 1)

    def distance() -> float:
        return igd_plus(pareto.front([batch], 41, losses=gaussians).points(TASKS), true)

    before = distance()
    optimizer = torch.optim.Adam(pareto.groups(0.01))
    training = ParetoTraining(pareto, gaussians, optimizer, "stch:mu=0.02", preferences=Preferences(2), steps=250)
    for _ in range(250):
        training.step(batch)
    assert distance() < 0.02 < 0.1 < before


@pytest.mark.parametrize("family", FAMILY)
def test_stopped_and_resumed_training_is_the_same(family: str) -> None:
    data = batches(6)
    whole = training_of(made(family))
    for batch in data:
        whole.step(batch)
    first = training_of(made(family))
    for batch in data[:3]:
        first.step(batch)
    saved = copy.deepcopy(first.state_dict())
    second = training_of(made(family, seed=3))
    second.load_state_dict(saved)
    for batch in data[3:]:
        second.step(batch)
    expected, found = whole.pareto.state_dict(), second.pareto.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert torch.equal(whole.preference, second.preference)


@pytest.mark.parametrize("balancer", ["ls", "upgrad"])
def test_a_frozen_model_stays_as_it_is_and_its_updates_go_on(balancer: str) -> None:
    pareto = made("lorpman:rank=2,freeze=0.5")
    training = training_of(pareto, balancer)
    for batch in batches(3):
        training.step(batch)
    own, updates = copy.deepcopy(list(pareto.model.parameters())), copy.deepcopy(list(pareto.family.parameters()))
    for batch in batches(3):
        training.step(batch)
    assert all(torch.equal(before, now) for before, now in zip(own, pareto.model.parameters(), strict=True))
    assert not any(torch.equal(before, now) for before, now in zip(updates, pareto.family.parameters(), strict=True))


def test_the_step_is_that_of_the_preference() -> None:
    pareto = moved(made("palora:rank=1"))
    training = ParetoTraining(pareto, losses, torch.optim.SGD(pareto.parameters(), 0.5), "ls", seed=2)
    twin = copy.deepcopy(pareto)
    (batch,) = batches(1)
    training.step(batch)
    p = training.preference
    twin.prefer(p)
    values = losses(twin, batch)
    (p[0] * values["a"] + p[1] * values["b"]).backward()
    for now, own in zip(pareto.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(now, own - 0.5 * own.grad)


def test_of_a_ray_of_losses_the_inverse_is_told() -> None:
    pareto = made("cosmos")
    training = training_of(pareto, "cosmos:penalty=1")
    training.step(batches(1)[0])
    told = training.mtl.balancer.preference.given
    inverse = 1 / training.preference
    torch.testing.assert_close(torch.tensor(told, dtype=torch.float64), inverse / inverse.sum())


def test_a_step_that_fails_leaves_everything() -> None:
    pareto = made("phn:hidden=7")
    training = training_of(pareto, "stch:mu=0.1")
    good, bad = batches(2)
    training.step(good)
    before, balancer, preference = copy.deepcopy(training.state_dict()), repr(training.mtl.balancer), pareto.preference.clone()
    with pytest.raises(NonFiniteError):
        training.step({**bad, "image": bad["image"] * math.nan})
    after = training.state_dict()
    assert after["preferences"] == before["preferences"]
    assert all(torch.equal(value, after["mtl"]["model"][name]) for name, value in before["mtl"]["model"].items())
    assert repr(training.mtl.balancer) == balancer
    assert torch.equal(pareto.preference, preference)


def test_losses_may_be_callables_and_look_into_the_model() -> None:
    def lazy(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            task: lambda task=task: F.cross_entropy(model.heads[task](model.body(batch["image"])), batch[task])
            for task in TASKS
        }

    pareto = moved(made("film:hidden=5")).prefer([0.1, 0.9])
    (batch,) = batches(1)
    pareto.eval()
    found = pareto.losses(lazy)(pareto, batch)
    for task, loss in losses(pareto, batch).items():
        torch.testing.assert_close(found[task](), loss)


@pytest.mark.parametrize("family", FAMILY)
def test_a_set_has_the_precision_of_the_model(family: str) -> None:
    pareto = ParetoSet(Small().double(), TASKS, family)
    batch = {name: own.double() if own.is_floating_point() else own for name, own in batches(1)[0].items()}
    training_of(pareto).step(batch)
    assert {own.dtype for own in pareto.parameters()} == {torch.float64}


def test_a_front_keeps_preference_and_modes() -> None:
    pareto = made("palora").prefer([0.9, 0.1])
    pareto.model.heads.eval()
    front = pareto.front(batches(2), 5, losses=losses)
    assert front.preferences.shape == (5, 2)
    assert torch.allclose(pareto.preference, torch.tensor([0.9, 0.1]))
    assert pareto.model.body.training
    assert not pareto.model.heads.training
    assert front.best(TASKS) == [0, 1, 2, 3, 4]  # all are the model
    assert front.hypervolume(TASKS, [3.0, 3.0]) == pytest.approx(float(np.prod(3 - front.points(TASKS)[0])))


def test_what_is_refused() -> None:
    model = Small()
    for wrong, said in (
        (lambda: ParetoSet(model, ["a"]), "two different names"),
        (lambda: ParetoSet(model, TASKS, "plora"), 'Did you mean "palora"'),
        (lambda: ParetoSet(model, TASKS, "palora:rnk=2"), "rank"),
        (lambda: ParetoSet(model, TASKS, "palora:rank=0"), "at least 1"),
        (lambda: ParetoSet(nn.BatchNorm1d(3), TASKS, "palora"), "no trainable matrix"),
        (lambda: ParetoSet(nn.BatchNorm1d(3), TASKS, "cosmos"), "layer="),
        (lambda: ParetoSet(nn.BatchNorm1d(3), TASKS, "film"), "no linear or convolutional"),
        (lambda: made("palora").prefer([1.0, -1.0]), "at least 0"),
        (lambda: made("palora").prefer({"a": 1.0}), "must name a, b"),
        (lambda: made("palora").front([]), "evaluate= or losses="),
        (lambda: training_of(made("palora"), "mgda"), "takes no preference"),
        (lambda: training_of(made("palora"), "cost+ls"), "leave it out"),
        (lambda: ParetoTraining(made("lorpman"), losses, torch.optim.SGD(model.parameters(), 1.0)), "steps="),
    ):
        with pytest.raises(InputError, match=said):
            wrong()
    pareto = made("palora")
    training = ParetoTraining(pareto, losses, torch.optim.SGD(pareto.parameters(), 0.1), STCH())
    training.step(batches(1)[0])
    with pytest.raises(InputError, match="mtl"):
        training.load_state_dict({"mtl": {}})
