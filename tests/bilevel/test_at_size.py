"""What a step costs less: the Gramian without rows, and one backward pass where weights follow from the losses alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.bilevel import BOME, FORUM, MOML, BilevelProblem, TaskWeighting
from equipoise.errors import InputError
from tests.bilevel.problems import small_network


class Wide(nn.Module):
    """Linear maps with fewer samples than half of their inputs, whose rows are shortened, a tied one, and one head per task."""

    def __init__(self, tasks: int = 3) -> None:
        super().__init__()
        self.first, self.tied = nn.Linear(40, 24), nn.Linear(24, 24)
        self.heads = nn.ModuleList(nn.Linear(24, 1) for _ in range(tasks))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = torch.tanh(self.tied(torch.tanh(self.tied(torch.tanh(self.first(inputs))))))
        return [head(features).squeeze(-1) for head in self.heads]


def weighted(tasks: int = 3) -> tuple[Tensor, nn.Module, BilevelProblem, list[Any]]:
    torch.manual_seed(0)
    model, free = Wide(tasks).double(), torch.zeros(tasks, dtype=torch.float64)
    batches = [(torch.randn(6, 40).double(), torch.randn(6, tasks).double()) for _ in range(2)]

    def losses(model: nn.Module, batch: Any) -> list[Tensor]:
        return [(out - batch[1][:, k]).square().mean() * 2**k for k, out in enumerate(model(batch[0]))]

    problem = BilevelProblem(
        lambda free, model, batch: (free.softmax(0) * torch.stack(losses(model, batch))).sum(),
        lambda free, model, batch: [loss + 0.01 * free.square().sum() for loss in losses(model, batch)],
        (free, model),
    )
    return free, model, problem, batches


@pytest.mark.parametrize(("kind", "options"), [(FORUM, {"normalize": True}), (FORUM, {}), (BOME, {})])
def test_streamed_steps_are_those_of_rows(kind: Any, options: dict[str, Any]) -> None:
    ends = []
    for memory in ("rows", "streamed"):
        free, model, problem, batches = weighted()
        optimizer = torch.optim.SGD([free, *model.parameters()], 0.1)
        solver = kind(problem, optimizer, lower_steps=3, lower_lr=0.1, memory=memory, **options)
        reports = []
        for _ in range(3):
            solver.step([batches[0]] * 3, batches[1])
            reports += [torch.tensor([solver.last.multiplier, solver.last.stationarity]).double(), solver.last.weights]
        ends.append([free.detach(), *(p.detach() for p in model.parameters()), *reports])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert float(ends[0][-2][0]) > 0  # the constraint takes part


def test_streamed_rows_say_what_does_not_depend_on_the_upper_variables() -> None:
    free, model, _, batches = weighted()
    problem = BilevelProblem(
        lambda free, model, batch: model(batch[0])[0].square().mean(),
        lambda free, model, batch: [model(batch[0])[0].mean() + free.sum(), model(batch[0])[1].mean()],
        (free, model),
    )
    solver = FORUM(problem, torch.optim.SGD([free, *model.parameters()], 0.1), lower_steps=1, lower_lr=0.1, memory="streamed")
    with pytest.raises(InputError, match='"objective1" does not depend on the upper-level variables'):
        solver.step([batches[0]], batches[1])


def test_streaming_refuses_what_it_cannot_add_up() -> None:
    free, model, problem, _ = weighted()
    optimizer = torch.optim.SGD([free, *model.parameters()], 0.1)
    with pytest.raises(InputError, match="leave memory= out"):
        FORUM(problem, optimizer, lower_steps=1, lower_lr=0.1, memory="streamed", accumulate=2)


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
def test_weights_from_losses_alone_take_one_backward_pass(memory: str) -> None:
    ends, counts = [], []
    for balancer in ("ls", "mgda"):
        logits, _, problem, validation = small_network()
        arrivals = [0]
        upper = problem._upper

        def counted(logits: Tensor, model: nn.Module, batch: Tensor, upper: Any = upper, arrivals: Any = arrivals) -> Any:
            values = upper(logits, model, batch)
            mark = torch.stack([*values.values()])
            mark.register_hook(lambda _: arrivals.__setitem__(0, arrivals[0] + 1))
            return dict(zip(values, (mark * 1.0).unbind(), strict=True))

        problem._upper = counted
        solver = MOML(problem, torch.optim.SGD([logits], 1.0), lower_steps=2, lower_lr=0.1, balancer=balancer, memory=memory)
        for _ in range(3):
            arrivals[0] = 0
            solver.step([torch.arange(8)] * 2, validation)
            counts.append(arrivals[0])
        ends.append(logits.detach())
    assert counts == [2, 1, 1, 2, 2, 2]  # the first step looks at every objective by itself
    logits, _, problem, validation = small_network()
    single = problem._upper
    problem._upper = lambda *given: torch.stack([*single(*given).values()]).sum()
    solver = MOML(problem, torch.optim.SGD([logits], 1.0), lower_steps=2, lower_lr=0.1)
    for _ in range(3):
        solver.step([torch.arange(8)] * 2, validation)
    torch.testing.assert_close(ends[0], logits.detach(), rtol=1e-9, atol=1e-12)


def test_looking_ahead_by_weights_from_losses_alone_goes_where_rows_lead() -> None:
    ends = []
    for tasks_at_once in (True, False):
        torch.manual_seed(0)
        model = Wide(5).double()
        objective = eq.Objective(
            model, lambda model, batch: {f"t{k}": (o - batch[1][:, k]).square().mean() for k, o in enumerate(model(batch[0]))}
        )
        weighting = TaskWeighting(objective, torch.optim.SGD(model.parameters(), 0.1), "moml", lr=0.1, balancer="ls")
        batches = [(torch.randn(6, 40).double(), torch.randn(6, 5).double()) for _ in range(2)]
        for _ in range(3):
            if not tasks_at_once and weighting._solver is not None:
                weighting._solver.steps = 0  # as in a first step
            weighting.step(*batches)
        ends.append([weighting._free.detach(), *(p.detach() for p in model.parameters())])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
