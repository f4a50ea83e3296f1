"""Groups of tasks that take turns: conflicts by coloring, one group per step; affinities, group after group within a step."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.groups import AffinityGroups, ConflictGroups
from equipoise.method import MethodSpec
from equipoise.study.methods import parse_method

TASKS = ("a", "b", "c", "d")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})


def losses(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    features = model.encoder(batch["x"])
    return {task: (model.heads[task](features) - batch[task]).square().mean() for task in TASKS if task in batch}


def batches(count: int = 8) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    made = []
    for _ in range(count):
        x = torch.randn(8, 3)
        y = x[:, :1]
        made.append({"x": x, "a": y, "b": 2 * y, "c": x[:, 1:2], "d": -x[:, 1:2]})
    return made


def trainer(
    groups: Any, balancer: Any = "fairgrad", lr: float = 0.05, tasks: Any = None, **arguments: Any
) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.5)
    return eq.MultiTaskOptimizer(eq.Objective(model, losses, tasks=tasks), optimizer, balancer, groups=groups, **arguments)


def parameters(mtl: eq.MultiTaskOptimizer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in mtl.objective.model.parameters()]


# Shared linear features: tasks 0 and 1 pull opposite ways, 2 is orthogonal to both.
def pulling(model: nn.Linear, x: Tensor) -> dict[str, Tensor]:
    near, far = model(x).mean(0)
    return {"up": near, "down": -2 * near, "side": 3 * far, "with": near + 0.5 * far}


def test_groups_are_the_colors_of_the_conflicts_and_act_in_turn() -> None:
    model = nn.Linear(1, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, pulling), optimizer, "ls", groups=ConflictGroups(refresh=2))
    acted = []
    for _ in range(6):
        before = model.weight.detach().clone()
        step = mtl.step(torch.ones(1, 1))
        assert mtl.last is not None
        assert tuple(step) == mtl.last.tasks
        acted.append(mtl.last.tasks)
        expected = {"up": [1.0, 0.0], "down": [-2.0, 0.0], "side": [0.0, 3.0], "with": [1.0, 0.5]}
        gradient = torch.tensor([expected[task] for task in step]).sum(0)
        weights = mtl.last.weights
        assert weights is not None
        assert torch.equal(weights, weights[0].expand(len(step)))
        assert torch.allclose(before[:, 0] - model.weight[:, 0], 0.1 * gradient * weights[0], atol=1e-6)
    # "down" conflicts with two, is colored first, and takes "side" along; all act until the first look.
    assert acted == [("up", "down", "side", "with")] * 2 + [("down", "side"), ("up", "with")] * 2
    assert mtl.groups is not None
    assert mtl.groups.active == [[1, 2], [0, 3]]


def test_the_threshold_falls_and_tasks_may_be_covered_twice() -> None:
    model = nn.Linear(1, 2, bias=False)
    seen: dict[str, list[list[int]]] = {}
    for text in ("conflict-groups(refresh=1,anneal=4,threshold=0.5)", "conflict-groups(refresh=1,coverage=2)"):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, pulling), optimizer, f"{text}+ls")
        for _ in range(2 if "anneal" in text else 3):
            mtl.step(torch.ones(1, 1))
        assert mtl.groups is not None
        seen[text] = mtl.groups.active
        if "anneal" in text:
            # cos(down, with) = -0.894 conflicts from τ = 0.5^(k/4) < 0.894 on: k = 1 gives 0.84.
            assert math.isclose(0.5**0.25, 0.8409, abs_tol=1e-4)
    assert seen["conflict-groups(refresh=1,anneal=4,threshold=0.5)"] == [[1, 2], [0, 3]]
    assert seen["conflict-groups(refresh=1,coverage=2)"] == [[1, 2], [0, 2, 3]]


def test_inactive_heads_stay_where_they_are() -> None:
    mtl = trainer(ConflictGroups(threshold=0.0, refresh=1))
    for batch in batches():
        before = {task: head.weight.detach().clone() for task, head in mtl.objective.model.heads.items()}
        mtl.step(batch)
        assert mtl.last is not None
        for task, head in mtl.objective.model.heads.items():
            assert torch.equal(before[task], head.weight) == (task not in mtl.last.tasks)


@pytest.mark.parametrize("balancer", ["fairgrad", "nash-mtl", "famo", "pcgrad", "graddrop", "dwa", "fairgrad@last", "stch"])
@pytest.mark.parametrize("groups", ["conflict-groups(refresh=2,threshold=0.1)", "affinity-groups(warm_up=2,decay=0.5)"])
def test_training_stopped_and_resumed_is_the_same(groups: str, balancer: str) -> None:
    whole = trainer(None, f"{groups}+{balancer}")
    data = batches()
    for batch in data[:5]:
        whole.step(batch)
    state = copy.deepcopy(whole.state_dict())
    again = trainer(None, f"{groups}+{balancer}")
    again.load_state_dict(state)
    for batch in data[5:]:
        one, two = whole.step(batch), again.step(batch)
        assert {task: loss.item() for task, loss in one.items()} == {task: loss.item() for task, loss in two.items()}
    assert all(torch.equal(one, two) for one, two in zip(parameters(whole), parameters(again), strict=True))
    assert whole.groups is not None
    assert again.groups is not None
    assert whole.groups.active == again.groups.active
    assert whole.steps == again.steps == len(data)


def test_a_proxy_gives_the_conflicts_at_its_price() -> None:
    mtl = trainer(ConflictGroups(threshold=0.3, refresh=1), "fairgrad", proxy=eq.Proxy("last", audit=0))
    passes: list[int] = []
    mtl.objective.model.encoder[0].weight.register_hook(lambda _: passes.append(1))
    exact = trainer(ConflictGroups(threshold=0.3, refresh=1))
    for batch in batches(4):
        mtl.step(batch)
        exact.step(batch)
    # The first layer of the encoder is differentiated once per step, and never for a look.
    assert len(passes) == 4
    assert mtl.groups is not None
    assert exact.groups is not None
    assert mtl.groups.active
    assert exact.groups.active
    assert mtl.groups._cosines is not None
    assert mtl.groups._cosines[2, 3] < 0


def test_batches_that_lack_tasks_pass_the_turn_on() -> None:
    mtl = trainer(ConflictGroups(refresh=1, threshold=0.0))
    full = batches(6)
    mtl.step(full[0])
    mtl.step(full[1])
    assert mtl.groups is not None
    groups = [[TASKS[task] for task in group] for group in mtl.groups.active]
    assert len(groups) > 1
    mtl.groups.refresh = 1000
    lone = groups[0][0]
    for batch in full[2:]:
        mtl.step({"x": batch["x"], lone: batch[lone]})
        assert mtl.last is not None
        assert mtl.last.tasks == (lone,)
    assert mtl.unlabelled == 0
    with pytest.warns(UserWarning, match="held no task"):
        assert mtl.step({"x": full[0]["x"]}) == {}
    assert mtl.unlabelled == 1


def test_micro_batches_that_hold_other_groups_tasks_are_no_empty_ones() -> None:
    mtl = trainer(ConflictGroups(refresh=1, threshold=0.0))
    full = batches(6)
    mtl.step(full[0])
    for batch in full[1:]:
        one, two = ({"x": batch["x"]} | {task: batch[task] for task in tasks} for tasks in ("a", "bc"))
        mtl.step(one, two)
        assert mtl.last is not None
        assert mtl.last.tasks in (("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c"))
    assert mtl.unlabelled == 0
    assert mtl.groups is not None
    assert len(mtl.groups.active) > 1


def test_updates_within_a_step_are_those_of_the_groups_one_after_the_other() -> None:
    mtl = trainer(AffinityGroups(seed=3), "ls")
    plain = trainer(None, "ls")
    data = batches(3)
    mtl.step(data[0])
    plain.step(data[0])
    for batch in data[1:]:
        assert mtl.groups is not None
        generator = torch.Generator().manual_seed(0)
        generator.set_state(mtl.groups.state_dict()["generator"])
        order = torch.randperm(4, generator=generator).tolist()
        told = mtl.step(batch)
        for place in order:
            plain.step({"x": batch["x"], TASKS[place]: batch[TASKS[place]]})
        assert list(told) == list(TASKS)
        for one, two in zip(parameters(mtl), parameters(plain), strict=True):
            assert torch.allclose(one, two, atol=1e-6)
    assert mtl.steps == 3


def test_declared_tasks_act_alone_from_the_first_step_without_a_warning() -> None:
    steps: list[int] = []

    class Noted(eq.FairGrad):
        def decide(self, observation: Any) -> Tensor:
            steps.append(observation.step)
            return super().decide(observation)

    mtl = trainer(AffinityGroups(), Noted(), tasks=[*TASKS, "never seen"])
    evaluated: list[int] = []
    inner = mtl.objective.losses
    mtl.objective.losses = lambda model, batch: evaluated.append(1) or inner(model, batch)  # type: ignore[func-returns-value]
    for batch in batches(4):
        mtl.step(batch)
    assert steps == [number for number in range(4) for _ in TASKS]
    # Before the first update, after each, and once for what the tasks share.
    assert len(evaluated) == 4 * (1 + 2 * len(TASKS)) + 1


def test_affinities_are_what_updates_make_of_the_losses() -> None:
    groups = AffinityGroups(decay=1.0, warm_up=100)
    mtl = trainer(groups, "ls", lr=0.01)
    data = batches(2)
    mtl.step(data[0])
    before = {task: loss.item() for task, loss in mtl.objective(data[1]).items()}
    generator = torch.Generator()
    generator.set_state(groups.state_dict()["generator"])
    first = int(torch.randperm(4, generator=generator)[0])
    twin = copy.deepcopy(mtl)
    twin.groups = None
    twin.step({"x": data[1]["x"], TASKS[first]: data[1][TASKS[first]]})
    after = {task: loss.item() for task, loss in twin.objective(data[1]).items()}
    mtl.step(data[1])
    assert groups._affinity is not None
    for place, task in enumerate(TASKS):
        assert groups._affinity[first, place].item() == pytest.approx(1 - after[task] / before[task], rel=1e-3, abs=1e-6)


def test_affine_tasks_end_up_in_one_group() -> None:
    mtl = trainer(AffinityGroups(decay=0.2, warm_up=10), "ls", lr=0.02)
    for _ in range(6):
        for batch in batches(4):
            mtl.step(batch)
    assert mtl.groups is not None
    groups = mtl.groups.active
    assert 1 < len(groups) < 4
    assert any({0, 1} <= set(group) for group in groups)


def test_learning_within_a_group_follows_the_released_rule() -> None:
    groups = AffinityGroups(decay=0.5)
    groups._affinity = torch.zeros(3, 3, dtype=torch.float64)
    groups._learn([0, 1], {0: 1.0, 1: 1.0, 2: 2.0}, {0: 0.8, 1: 1.4, 2: 1.0})
    # b = (0.1, -0.2, 0.25): 0 gained and 1 lost, so each counts as -0.1 for the other; 1's own loss is passed over.
    expected = 0.5 * torch.tensor([[0.1, -0.1, 0.25], [-0.1, 0.0, 0.25], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(groups._affinity, expected)
    groups._learn([2], {2: 0.0, 0: 1.0}, {2: 0.0, 0: 0.5})  # a loss of 0 says nothing
    assert groups._affinity[2].tolist() == [0.25, 0.0, 0.0]


class Fragile(nn.Module):
    """Breaks in the evaluation of a given number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.left = Model(), 10**9

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.left -= 1
        found = losses(self.inner, batch)
        return {task: loss * (math.nan if self.left < 0 else 1.0) for task, loss in found.items()}


@pytest.mark.parametrize("evaluations", [0, 1, 3])
@pytest.mark.parametrize("groups", ["conflict-groups(refresh=1)", "affinity-groups(warm_up=1)"])
def test_a_step_that_fails_leaves_nothing_behind(groups: str, evaluations: int) -> None:
    torch.manual_seed(0)
    model = Fragile()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, lambda model, batch: model(batch)), optimizer, f"{groups}+fairgrad")
    data = batches(4)
    mtl.step(data[0])
    mtl.step(data[1])
    before, random, last = copy.deepcopy(mtl.state_dict()), torch.get_rng_state(), mtl.last
    model.left = evaluations if "affinity" in groups else 0
    with pytest.raises(eq.NonFiniteError):
        mtl.step(data[2])
    model.left = 10**9
    assert mtl.last is last
    assert torch.equal(torch.get_rng_state(), random)
    now = mtl.state_dict()
    assert str(now) == str(before)
    mtl.step(data[2])


def test_what_does_not_go_together_is_refused() -> None:
    for wrong in (
        lambda: ConflictGroups(threshold=1.5),
        lambda: ConflictGroups(refresh=0),
        lambda: AffinityGroups(decay=0.0),
        lambda: trainer("conflict-grops"),
        lambda: trainer("conflict-groups(tau=1)"),
        lambda: trainer("conflict-groups", "affinity-groups+ls"),
        lambda: trainer("conflict-groups", "cost+ls"),
        lambda: trainer("conflict-groups", "ls", memory="best"),
        lambda: eq.integrations.BalancedLoss("conflict-groups+fairgrad"),
        lambda: eq.balance.balancer("conflict-groups+fairgrad"),
        lambda: MethodSpec("ls", teleport="cost", groups="conflict-groups"),
        lambda: parse_method("conflict-groups(refresh=0)+ls"),
        lambda: trainer(None).load_state_dict(trainer("conflict-groups").state_dict()),
        lambda: trainer("conflict-groups").load_state_dict(trainer("affinity-groups").state_dict()),
    ):
        with pytest.raises(eq.InputError):
            wrong()


def test_methods_with_groups_are_values_with_text() -> None:
    spec = MethodSpec.parse("Conflict_Groups(refresh=8)+FairGrad:alpha=2@last")
    assert str(spec) == "conflict-groups(refresh=8)+fairgrad:alpha=2@last"
    assert MethodSpec.parse(str(spec)) == spec
    assert str(spec.balancer) == "fairgrad:alpha=2"
    assert spec != MethodSpec.parse("fairgrad:alpha=2@last")
    method = parse_method(spec)
    assert method.label == str(spec)
    assert method.options["groups"] == "conflict-groups(refresh=8)"
    assert parse_method("affinity-groups+ls").groups is not None
