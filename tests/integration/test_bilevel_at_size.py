"""Bilevel solvers in two processes, with micro-batches, with a gradient scaler: the same steps as without."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, Implicit, TaskWeighting, Unrolled
from equipoise.errors import InputError, NonFiniteError
from tests.integration.processes import Pool

SOLVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "forum": (FORUM, {}),
    "bome": (BOME, {"constraint_batches": 2}),
    "bvfim": (BVFIM, {}),
    "moml": (MOML, {}),
    "moml, checkpointed": (MOML, {"memory": "checkpointed"}),
    "moml, ls": (MOML, {"balancer": "ls"}),
    "moml, adam": (MOML, {"adam": True, "lower_clip": 0.5}),
    "moml, implicit": (MOML, {"hypergradient": Implicit(damping=3.0, iterations=4)}),
    "moml, neumann": (MOML, {"hypergradient": Implicit("neumann", iterations=3, lr=0.05)}),
    "moml, differences": (MOML, {"hypergradient": Unrolled(last=2, products="differences")}),
}


def made(name: str, seed: int = 0, dtype: torch.dtype = torch.float64, **further: Any) -> tuple[Any, Tensor, nn.Module]:
    kind, options = SOLVERS[name]
    options = {**options, **further}
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).to(dtype)
    logits = torch.full((3,), float(seed), dtype=dtype)
    if options.pop("adam", False):
        options["lower_optimizer"] = torch.optim.Adam(model.parameters(), 0.05)
    else:
        options["lower_lr"] = 0.1

    def lower(logits: Tensor, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets, kinds = batch
        return (logits.sigmoid()[kinds] * (model(inputs) - targets).square().mean(1)).mean()

    def upper(logits: Tensor, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets, _ = batch
        return (model(inputs) - targets).square().mean(0)

    problem = BilevelProblem(lower, upper, (logits, model))
    held = [logits, *model.parameters()] if kind.moves_both else [logits]
    return kind(problem, torch.optim.SGD(held, 0.2), lower_steps=3, **options), logits, model


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(8, 5, generator=generator, dtype=dtype)
    return inputs, torch.randn(8, 2, generator=generator, dtype=dtype), torch.randint(3, (8,), generator=generator)


def share(whole: tuple[Tensor, ...], rank: int, count: int) -> tuple[Tensor, ...]:
    size = len(whole[0]) // count
    return tuple(part[rank * size : (rank + 1) * size] for part in whole)


def run(rank: int, count: int, name: str, parts: int = 1) -> list[Tensor]:
    # Every process starts elsewhere: the first one's variables must win.
    solver, logits, model = made(name, seed=rank, accumulate=parts)
    for step in range(3):
        whole = [share(batch(10 * step + number), rank, count) for number in range(4)]
        if parts > 1:
            lower = [share(whole[number], part, parts) for number in range(3) for part in range(parts)]
            solver.step(lower, [share(whole[3], part, parts) for part in range(parts)])
        else:
            solver.step(whole[:3], whole[3])
    report = solver.last
    numbers = torch.tensor([report.lower, report.stationarity, report.constraint or 0.0], dtype=torch.float64)
    return [logits.detach(), *(p.detach() for p in model.parameters()), report.upper, numbers]


def agree(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-9, atol: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", SOLVERS)
def test_two_processes_take_the_steps_of_one_on_the_joint_batch(pool: Pool, name: str) -> None:
    alone = run(0, 1, name)
    tolerance = 1e-5 if "differences" in name else 1e-9
    for found in pool.run(run, name):
        agree(found, alone, tolerance)


@pytest.mark.parametrize("name", SOLVERS)
def test_micro_batches_are_one_batch(name: str) -> None:
    agree(run(0, 1, name, 2), run(0, 1, name), 1e-5 if "differences" in name else 1e-9)


def test_micro_batches_in_two_processes(pool: Pool) -> None:
    for name in ("forum", "moml"):
        agree(pool.run(run, name, 2)[0], run(0, 1, name))


def test_micro_batches_that_cannot_be() -> None:
    solver = made("forum", accumulate=2)[0]
    with pytest.raises(InputError, match="upper_batch must be a sequence of micro-batches"):
        solver.step([batch(0)] * 6, 3)
    with pytest.raises(InputError, match="ended after 3 of the 6"):
        solver.step(iter([batch(0)] * 3), [batch(1)])
    with pytest.raises(InputError, match="accumulate must be a whole number"):
        made("forum", accumulate=0)


def failing(rank: int, count: int) -> str:
    solver, logits, _ = made("moml")
    whole = [share(batch(number), rank, count) for number in range(4)]
    if rank == 1:
        whole[1][0][0, 0] = float("nan")
    try:
        solver.step(whole[:3], whole[3])
    except NonFiniteError as error:
        return f"{error} {solver.steps} {bool(logits.any())}"
    return "no error"


def test_what_is_not_finite_in_one_process_stops_both(pool: Pool) -> None:
    for said in pool.run(failing):
        assert "the lower level is not finite in its step 2 of 3" in said
        assert said.endswith("0 False")


def weighting(rank: int, count: int, name: str) -> list[Tensor]:
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    objective = eq.Objective(
        model, lambda model, batch: dict(zip("ab", (model(batch[0]) - batch[1]).square().mean(0), strict=True))
    )
    mtl = TaskWeighting(objective, torch.optim.SGD(model.parameters(), 0.1), name, lr=0.1)
    losses: dict[str, Tensor] = {}
    for step in range(3):
        losses = mtl.step(share(batch(step), rank, count), share(batch(50 + step), rank, count))
    return [*(p.detach() for p in model.parameters()), mtl._free.detach(), torch.stack([*losses.values()])]


@pytest.mark.parametrize("name", ["forum", "moml"])
def test_task_weights_in_two_processes(pool: Pool, name: str) -> None:
    alone = weighting(0, 1, name)
    for found in pool.run(weighting, name):
        agree(found, alone, 1e-8, 1e-10)


@pytest.mark.parametrize("name", ["forum", "moml", "moml, adam", "moml, implicit"])
def test_a_scale_changes_nothing_where_it_does_not_overflow(name: str) -> None:
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)):
        solver, logits, model = made(name, scaler=scaler)
        for step in range(3):
            solver.step([batch(10 * step + number) for number in range(3)], batch(99))
        ends.append([logits.detach(), *(p.detach() for p in model.parameters())])
    agree(*ends)
    assert scaler is not None
    assert scaler.get_scale() == 2048.0


@pytest.mark.parametrize("name", ["forum", "moml"])
def test_a_step_that_overflows_is_repeated_at_a_smaller_scale(name: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    solver, logits, model = made(name, dtype=torch.float32, scaler=scaler)
    with torch.autocast("cpu", torch.float16):
        solver.step([batch(number, torch.float32) for number in range(3)], batch(3, torch.float32))
    assert solver.steps == 1
    assert scaler.get_scale() < 2.0**24
    plain, expected, other = made(name, dtype=torch.float32)
    plain.step([batch(number, torch.float32) for number in range(3)], batch(3, torch.float32))
    moved = [value.detach() for value in (logits, *model.parameters())]
    agree(moved, [value.detach() for value in (expected, *other.parameters())], 0.05, 5e-3)
    state = copy.deepcopy(solver.state_dict())
    again = made(name, dtype=torch.float32, scaler=torch.amp.GradScaler("cpu", init_scale=4.0))[0]
    again.load_state_dict(state)
    assert again.scaler.get_scale() == scaler.get_scale()


@pytest.mark.parametrize("name", ["forum", "moml", "moml, checkpointed", "moml, differences"])
def test_bfloat16_leads_near_to_where_single_precision_does(name: str) -> None:
    ends = []
    for half in (True, False):
        solver, logits, model = made(name, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            for step in range(3):
                solver.step([batch(10 * step + n, torch.float32) for n in range(3)], batch(3, torch.float32))
        ends.append([logits.detach(), *(p.detach() for p in model.parameters())])
    agree(*ends, 0.1, 0.02)
    assert not torch.equal(ends[0][1], ends[1][1])
