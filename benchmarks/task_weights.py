"""A step of the methods that learn task weights, next to balancers, on digits: ``python -m benchmarks.task_weights``.

Also hypergradients of one virtual step, by inner products of first derivatives and by unrolling. It is no family of
``python -m benchmarks``, as there is no peer in it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import equipoise as eq
from benchmarks.tables import duration, table, times
from benchmarks.timing import race
from equipoise.bilevel import TaskWeighting, hypergradients, weightings
from equipoise.bilevel.weighting import hold_out
from equipoise.bilevel.weighting.look_ahead import one_step_hypergradients
from equipoise.bilevel.weighting.problem import WeightProblem
from equipoise.data import digits
from equipoise.study import find_problem

__all__ = ["main"]

BALANCERS = ("ls", "fairgrad", "mgda")


def main(seconds: float = 30.0) -> None:
    """Prints one row per method, and one per way to hypergradients; times are processor time of the whole process."""
    torch.set_num_threads(1)
    problem = find_problem("digits")
    train, validation = hold_out(digits().loaders(0)[0], 0.2)
    assert validation is not None
    batch, held_out = next(iter(train)), next(iter(validation))

    def fresh() -> tuple[eq.Objective, torch.optim.Optimizer]:
        model, losses = problem.build(0)[:2]
        return eq.Objective(model, losses, problem.tasks), problem.optimizer(model)

    runs: dict[str, Callable[[int], object]] = {}
    for name in BALANCERS:
        mtl = eq.MultiTaskOptimizer(*fresh(), name)
        runs[name] = lambda _, mtl=mtl: mtl.step(batch)  # type: ignore[misc]
    for info in weightings():
        weighting = TaskWeighting(*fresh(), info.name)
        runs[info.name] = lambda _, weighting=weighting: weighting.step(batch, held_out)  # type: ignore[misc]
    objective, _ = fresh()
    look = WeightProblem(objective, torch.zeros(len(problem.tasks)))
    runs["inner products"] = lambda _: one_step_hypergradients(look, look.here(), batch, held_out, 0.01)
    runs["unrolling"] = lambda _: hypergradients(look, look.here(), [batch], held_out, 0.01)
    result = race(runs, seconds=seconds)
    rows = [[name, duration(result.median(name)), times(result.ratio(name, "ls"))] for name in runs]
    print(table(["", "time", "over ls"], rows))


if __name__ == "__main__":
    main()
