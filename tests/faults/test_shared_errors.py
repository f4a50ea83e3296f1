"""Under ``torch.distributed`` an error that one process meets alone is raised by all, and the next step pairs as it should."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import further_batches
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import State, share, state
from tests.states import kept, same_state
from tests.teleport.helpers import eager_cost

BAD = 2


class _Fails(torch.autograd.Function):
    """Passes its input on, and cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ValueError("no way back")


def spoilt(found: dict[str, Any], where: str) -> dict[str, Any]:
    """Losses that fail in some way."""
    match where:
        case "evaluation":
            raise ValueError("no labels")
        case "kind":
            return found | {"t1": "a word"}
        case "name":
            return found | {"other": found["t1"]}
        case "backward":
            return found | {"t1": _Fails.apply(found["t1"])}
    return found


def interrupted(rank: int, count: int, method: str, where: str, features: bool = False, lazy: bool = False) -> Any:
    """Four steps, the third of which fails in the last process alone: what was raised, whether all was as before, the end."""
    torch.manual_seed(0)
    model = problems.Heads()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
        found: dict[str, Any] = dict(problems.losses(model, batch))
        if lazy:
            return {name: (lambda name=name: spoilt(found, where if bad else "")[name]) for name in found}
        return spoilt(found, where) if bad else found

    options: dict[str, Any] = {"features": model.encoder} if features else {}
    mtl = problems.optimizer_of(problems.balancer_of(method) if "cost" not in method else method, model, lr=0.01, **options)
    mtl.objective.losses = losses
    raised: Exception | None = None
    unchanged = False
    for step in range(4):
        bad = step == BAD and rank == count - 1 and count > 1
        batches = [share(problems.batch(16, seed=10 * step + place), rank, count) for place in range(3)]
        further = batches[1 : 1 + further_batches(mtl.balancer)] or None
        if count == 1 and step == BAD:
            continue
        before = kept((state(model), mtl.state_dict()))
        try:
            if bad and where == "arguments":
                mtl.step()
            else:
                mtl.step(batches[0], further=further)
        except Exception as error:
            raised = error
            unchanged = same_state((state(model), mtl.state_dict()), before)
    told = None if raised is None else (type(raised).__name__, str(raised), isinstance(raised, ValueError))
    return told, unchanged, state(model)


def check(pool: Pool, *arguments: Any, kinds: tuple[str, str], says: str) -> None:
    (first, same, there), (second, also, here) = pool.run(interrupted, *arguments)
    assert (first[0], second[0]) == kinds
    assert says in first[1]
    assert says in second[1]
    assert "process 1" in first[1]
    assert "process 1" not in second[1]
    assert first[2]
    assert second[2]
    assert same
    assert also
    assert problems.same(here, there)
    _, _, alone = interrupted(0, 1, *arguments)
    for name in alone:
        assert torch.allclose(here[name], alone[name], atol=2e-5), name


@pytest.mark.parametrize("method", ["ls", "uw", "famo", "mgda", "pcgrad", "modo", "consmtl", "ldc-mtl"])
def test_an_evaluation_that_fails_in_one_process(pool: Pool, method: str) -> None:
    check(pool, method, "evaluation", kinds=("ProcessError", "ValueError"), says="no labels")


@pytest.mark.parametrize("method", ["uw", "mgda", "consmtl"])
def test_a_backward_pass_that_fails_in_one_process(pool: Pool, method: str) -> None:
    check(pool, method, "backward", kinds=("ProcessError", "ValueError"), says="no way back")


@pytest.mark.parametrize("method", ["famo", "mgda"])
def test_a_callable_that_fails_in_one_process(pool: Pool, method: str) -> None:
    check(pool, method, "evaluation", False, True, kinds=("ProcessError", "ValueError"), says="no labels")


@pytest.mark.parametrize("where", ["evaluation", "backward"])
def test_features(pool: Pool, where: str) -> None:
    check(pool, "mgda", where, True, kinds=("ProcessError", "ValueError"), says="no ")


@pytest.mark.parametrize(
    ("where", "kind", "says"),
    [("kind", "InputError", "t1"), ("name", "UnknownTaskError", "other"), ("arguments", "InputError", "needs a batch")],
)
def test_errors_of_ours_are_of_their_class_everywhere(pool: Pool, where: str, kind: str, says: str) -> None:
    check(pool, "mgda", where, kinds=(kind, kind), says=says)


class Counted:
    """A loss function that fails in the last process when it is evaluated for the n-th time."""

    def __init__(self, rank: int, count: int, fails_at: int) -> None:
        self.left = fails_at if rank == count - 1 else -1

    def __call__(self, model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        self.left -= 1
        if self.left == -1:
            raise ValueError("no labels")
        return problems.losses(model, batch)


def every_evaluation(rank: int, count: int, method: str, micro_batches: int, stride: int) -> list[tuple[Any, ...]]:
    """For each n whose evaluation fails in the last process: the steps that raised, what they raised, and the end."""
    ends: list[tuple[Any, ...]] = []
    for fails_at in itertools.count(0, stride):
        torch.manual_seed(0)
        model = problems.Heads()
        function = Counted(rank, count, fails_at)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
        teleport = eager_cost() if method == "fairgrad" else None
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, function), optimizer, method, teleport=teleport)
        raised = []
        for step in range(3):
            batches = [share(problems.batch(16, seed=10 * step + place), rank, count) for place in range(micro_batches + 2)]
            further = batches[-2:] if further_batches(mtl.balancer) else None
            try:
                mtl.step(*batches[:micro_batches], further=further)
            except ValueError as error:
                raised.append((step, str(error)[-60:]))
        if not raised:
            break
        ends.append((raised, state(model)))
    return ends


@pytest.mark.parametrize(
    ("method", "micro_batches", "stride", "evaluations"),
    [
        ("famo", 1, 1, 6),  # each step looks again
        ("si", 2, 1, 12),
        ("consmtl", 2, 2, 4),
        ("modo", 1, 3, 3),
        ("ldc-mtl:double_loop=true,inner_steps=2", 1, 2, 5),
        ("fairgrad", 1, 13, 3),  # with a teleport
    ],
)
def test_whatever_evaluation_fails(pool: Pool, method: str, micro_batches: int, stride: int, evaluations: int) -> None:
    first, second = pool.run(every_evaluation, method, micro_batches, stride)
    assert len(first) == len(second) >= evaluations
    for (raised, here), (also, there) in zip(first, second, strict=True):
        assert [step for step, _ in raised] == [step for step, _ in also]
        assert len(raised) == 1, raised
        assert problems.same(here, there)


def dropin(rank: int, count: int, method: str) -> tuple[list[tuple[str, str]], State]:
    """The drop-in, with losses that cannot be used in the last process alone."""
    torch.manual_seed(0)
    model = problems.Heads()
    balancer = eq.balancer(method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    said = []
    for step in range(5):
        optimizer.zero_grad()
        losses: dict[str, Any] = problems.losses(model, share(problems.batch(16, seed=step), rank, count))
        if rank == count - 1 and count > 1:
            losses = spoilt(losses, {1: "kind", 2: "name", 3: "backward"}.get(step, ""))
        try:
            eq.backward(losses, balancer)
        except Exception as error:
            said.append((type(error).__name__, str(error)))
            continue
        if count > 1 or step in (0, 4):
            optimizer.step()
    return said, state(model)


@pytest.mark.parametrize("method", ["famo", "mgda"])
def test_the_drop_in(pool: Pool, method: str) -> None:
    (first, here), (second, there) = pool.run(dropin, method)
    assert [kind for kind, _ in first] == ["InputError", "UnknownTaskError", "ProcessError"]
    assert [kind for kind, _ in second] == ["InputError", "UnknownTaskError", "ValueError"]
    assert all("process 1" in text for _, text in first)
    assert problems.same(here, there)


def astray(rank: int, count: int) -> list[str]:
    """What is said where the processes do different things."""
    said: list[str] = []

    def attempt(call: Any) -> None:
        try:
            call()
        except eq.InputError as error:
            said.append(str(error))
        else:
            said.append("nothing")

    batch = problems.batch(8)
    other = rank == count - 1

    def make(**options: Any) -> eq.MultiTaskOptimizer:
        model = problems.Heads(**options)
        return problems.optimizer_of("mgda", model)

    attempt(lambda: make(width=4 if other else 8))
    objective, optimizer = (mtl := make()).objective, mtl.optimizer
    attempt(lambda: eq.MultiTaskOptimizer(objective, optimizer, "no such" if other else "mgda"))
    attempt(lambda: mtl.step(*[batch] * (2 + other)))
    attempt(lambda: mtl.gramian(batch) if other else mtl.step(batch))
    attempt(lambda: mtl.step(batch))
    if other:
        mtl.steps = 0  # as if it had loaded another checkpoint
    attempt(lambda: mtl.step(batch))
    names = ["t0", "t1", "t2"]
    objective = eq.Objective(problems.Heads(), problems.losses, tasks=names[::-1] if other else names)
    mixed = eq.MultiTaskOptimizer(objective, torch.optim.SGD(objective.model.parameters(), lr=0.1), "mgda")
    attempt(lambda: mixed.step(batch))
    return said


def test_processes_that_do_different_things_are_told(pool: Pool) -> None:
    for models, method, micro_batches, calls, fine, steps, order in pool.run(astray):
        assert "build the same model everywhere" in models
        assert "no such" in method
        assert fine == "nothing"
        for said in (micro_batches, calls, steps, order):
            assert "not in the same place" in said


class Stuck(torch.optim.SGD):
    """An optimizer whose step may fail."""

    fails = False

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.fails:
            raise MemoryError("no room for the state")
        super().step(closure)


def half_moved(rank: int, count: int) -> list[str]:
    """The last process's optimizer fails in its step, so the models differ from there on."""
    model = problems.Heads()
    optimizer = Stuck(model.parameters(), lr=0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), optimizer, "mgda")
    mtl.step(problems.batch(8))
    saved = kept(mtl.state_dict())
    said = []
    # The others learn of it in their next step; the one after that shows that they differ.
    for step in range(3 - (rank == count - 1)):
        optimizer.fails = rank == count - 1 and step == 0
        try:
            mtl.step(problems.batch(8))
        except Exception as error:
            said.append(f"{step}: {type(error).__name__}: {error}")
    mtl.load_state_dict(saved)
    mtl.step(problems.batch(8))
    return said


def test_no_process_goes_on_from_another_model(pool: Pool) -> None:
    first, second = pool.run(half_moved)
    assert next(line[0] for line in second) == "0"
    assert "MemoryError" in first[0]
    assert all("not in the same place" in said[-1] for said in (first, second))


@pytest.fixture
def four() -> Iterator[Pool]:
    made = Pool(4)
    yield made
    made.close()


def several(rank: int, count: int) -> tuple[str, State]:
    """Two of the processes fail, each in its own way and at its own place."""
    torch.manual_seed(0)
    model = problems.Heads()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
        found: dict[str, Any] = dict(problems.losses(model, batch))
        return spoilt(found, {1: "backward", 3: "evaluation"}.get(rank, "")) if mtl.steps == 1 and not said else found

    said: list[str] = []
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), "pcgrad")
    for step in range(3):
        try:
            mtl.step(share(problems.batch(16, seed=step), rank, count))
        except ValueError as error:
            said.append(str(error))
    return said[0], state(model)


def test_four_processes(four: Pool) -> None:
    answers = four.run(several)
    said = [text for text, _ in answers]
    assert "no labels" in said[3]
    assert all("process 3 raised ValueError: no labels" in text for text in said[:3])
    assert all(problems.same(answers[0][1], end) for _, end in answers)
