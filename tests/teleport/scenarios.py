"""What the tests of teleports under data parallelism run in every process, and with the joint batches in one."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, OFT, Dense, LowRank
from tests import problems
from tests.integration.scenarios import State, model_of, share, some_losses, state
from tests.teleport.helpers import eager_cost, timeless

DELTAS: dict[str, Any] = {"dense": Dense(), "low rank": LowRank(rank=2), "oft": OFT(blocks=2)}
Answer = tuple[State, list[dict[str, Any]], str]


def double(batch: problems.Batch) -> problems.Batch:
    # |L - L*| has a kink: with single precision, rounding may fall on either side of it.
    return batch[0].double(), batch[1].double()


def cost_of(delta: str, options: dict[str, Any]) -> COST:
    # Plain gradient descent inside: Adam turns rounding of a gradient that is nearly zero into a whole step.
    settings: dict[str, Any] = {"delta": DELTAS[delta], "optimizer": torch.optim.SGD, "lr": 0.5, "steps": 3}
    return eager_cost(**(settings | options))


def answer(mtl: eq.MultiTaskOptimizer, cost: COST) -> Answer:
    return state(mtl.objective.model), [report.as_dict() for report in cost.attempts], timeless(cost.attempts)


def plain(
    rank: int, count: int, method: str, delta: str, options: dict[str, Any], micro_batches: int = 1, steps: int = 8
) -> Answer:
    """Every task everywhere."""
    cost = cost_of(delta, options)
    mtl = problems.optimizer_of(eq.balancer(method), model_of(rank).double(), make=torch.optim.Adam, lr=0.001, teleport=cost)
    for step in range(steps):
        mtl.step(*(share(double(problems.batch(16, seed=100 * step + m)), rank, count) for m in range(micro_batches)))
        if step % 4 == 3:
            mtl.end_epoch()
    return answer(mtl, cost)


def partly_labelled(rank: int, count: int, method: str, delta: str, options: dict[str, Any], steps: int = 8) -> Answer:
    """One task is labelled in the first process's data only, another in the second's only; alone, as the halves' means."""
    model = model_of(rank).double()
    labels = (("t0", "t1"), ("t1", "t2"))

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        if count > 1:
            return some_losses(model, (*batch, labels[rank]))
        halves = [some_losses(model, (*share(batch, half, 2), labels[half])) for half in range(2)]
        return {"t0": halves[0]["t0"], "t1": (halves[0]["t1"] + halves[1]["t1"]) / 2, "t2": halves[1]["t2"]}

    cost = cost_of(delta, options)
    objective = eq.Objective(model, losses, tasks=["t0", "t1", "t2"])
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), lr=0.001), eq.balancer(method), teleport=cost)
    for step in range(steps):
        mtl.step(share(double(problems.batch(16, seed=step)), rank, count))
    return answer(mtl, cost)


def cliff(rank: int, count: int) -> tuple[State, State, list[tuple[bool, str]]]:
    """A loss stops being finite during the search, in the last process only."""
    model = model_of(0)
    kept: State = {}

    def note(gramian: Any) -> bool:
        kept.update(state(model))
        return True

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        weight = model.encoder[0].weight  # type: ignore[union-attr, index]
        if rank == count - 1 and kept and not torch.equal(weight.detach(), kept["encoder.0.weight"]):
            found["t1"] = found["t1"] * torch.inf
        return found

    cost = eager_cost(note, delta=Dense(), stop_step=2)
    mtl = eq.MultiTaskOptimizer(
        # The step itself moves nothing, so that all that moves is the teleport.
        eq.Objective(model, losses),
        torch.optim.SGD(model.parameters(), lr=0.0),
        "mgda",
        teleport=cost,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(2):
            mtl.step(share(problems.batch(16, seed=step), rank, count))
    return state(model), dict(kept), [(report.accepted, report.reason) for report in cost.attempts]


def default_inner(rank: int, count: int, method: str, history: str) -> Answer:
    """With Adam inside and the guard on, as COST is by default: agreement of the processes to the bit is what counts."""
    options = {"history": history, "optimizer": torch.optim.Adam, "lr": 0.02, "guard": True, "tolerance": 0.05, "steps": 4}
    return plain(rank, count, method, "low rank", options, steps=12)


def with_dropout(rank: int, count: int) -> Answer:
    """Every process draws masks of its own."""
    torch.manual_seed(rank)
    cost = cost_of("dense", {})
    mtl = problems.optimizer_of("mgda", problems.Heads(dropout=0.3, norm=True), lr=0.01, teleport=cost)
    torch.manual_seed(50 + rank)
    for step in range(5):
        mtl.step(share(problems.batch(16, seed=step), rank, count))
    return answer(mtl, cost)
