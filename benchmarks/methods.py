"""A step of every method of the library, over plain training and over the least that the method needs."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.networks import PROBLEMS
from benchmarks.tables import table
from benchmarks.timing import Times, race
from benchmarks.trainers import equipoise_step, ideal_step, plain_step
from equipoise.balance import MethodInfo, methods
from equipoise.balance.double_sampling import DoubleSampling

__all__ = ["run"]

TASKS = (2, 11, 40)
_SECONDS = {2: 10.0, 11: 25.0, 40: 60.0}


def run(say: Callable[[str], None], *, budget: float = 1.0) -> None:
    """Prints the table.

    Args:
        say: takes each line or table.
        budget: seconds per race, relative to the usual.
    """
    problem = PROBLEMS[-1]
    # The heads have two layers, and targets are asked for by methods that need linear ones.
    listed = [info for info in methods() if not getattr(info.cls, "needs_targets", False)]
    cells: dict[str, list[str]] = {info.name: [] for info in listed}
    for tasks in TASKS:
        runs = {
            "plain": plain_step(problem, tasks),
            "plain + forward": plain_step(problem, tasks, forwards=2),
            "ideal": ideal_step(problem, tasks),
            "ideal of three": ideal_step(problem, tasks, further=2),
        }
        runs |= {info.name: equipoise_step(problem, tasks, info.name) for info in listed}
        result = race(runs, seconds=budget * _SECONDS[tasks], warm_up=1, sample=0.01)
        for info in listed:
            cells[info.name].append(_cell(result, info))
    rows = [[info.name, info.cost, *cells[info.name]] for info in listed]
    say(
        f"## All methods\n\n{problem.name}, default options: time of a step over plain LS and, in brackets, over the least "
        "that the method needs: our own LS for methods of losses (plain LS with a second forward pass for FAMO), one forward "
        "and K backward passes for the others, for each of the three batches that MoDo and SDMGrad look at.\n\n"
        + table(["method", "needs", *(f"K = {tasks}" for tasks in TASKS)], rows)
    )


def _cell(result: Times, info: MethodInfo) -> str:
    if info.name in result.failed:
        return result.failed[info.name]
    if info.cost == "losses":
        least = "plain + forward" if info.cls.watches else "ls"
    else:
        least = "ideal of three" if issubclass(info.cls, DoubleSampling) else "ideal"
    return f"{result.ratio(info.name, 'plain'):.2f}× ({result.ratio(info.name, least):.3f}×)"
