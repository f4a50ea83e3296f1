"""Under ``torch.distributed`` an error that one process meets alone is raised by all, and the next step pairs as it should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.balance.double_sampling import further_batches
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import share, state
from tests.states import kept, same_state

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
