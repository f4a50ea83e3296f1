"""What COST adds to training: on average at its default schedule, in one attempt, and in steps in which none is due."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import equipoise as eq
from benchmarks.memory import peak
from benchmarks.memory_process import PROBLEM as WIDE
from benchmarks.memory_process import SHARED
from benchmarks.networks import PROBLEMS, Problem
from benchmarks.tables import table
from benchmarks.trainers import equipoise_optimizer
from equipoise.teleport import Schedule

__all__ = ["run"]

TASKS = (2, 4, 40)
METHODS = ("ls", "fairgrad")
BLOCK = 20
Say = Callable[[str], None]


def run(say: Say, *, budget: float = 1.0) -> None:
    """Prints the tables.

    Args:
        say: takes each line or table.
        budget: how many attempts each training is to see, relative to the usual three.
    """
    attempts = max(1, round(3 * budget))
    rows = [_training(PROBLEMS[0], tasks, method, attempts) for method in METHODS for tasks in TASKS]
    rows += [_training(PROBLEMS[-1], 4, method, attempts) for method in METHODS]
    head = ["network", "method", "K", "steps", "attempts", "with COST / without", "an attempt, in steps", "not due / without"]
    say(
        "## Teleporting\n\n"
        f"Training with `teleport=COST()` and without, in turns of {BLOCK} steps, from the first step to attempt number "
        f"{attempts}; every step counts as a conflict, so that the schedule alone decides. `not due`: steps of a COST whose "
        "first epoch is far away.\n\n" + table(head, rows)
    )
    say(_memory())


def _training(problem: Problem, tasks: int, method: str, attempts: int) -> list[str]:
    # A condition that always holds: how often tasks conflict is a matter of the data.
    cost = eq.COST(lambda gramian: True)
    idle = eq.COST(lambda gramian: True, schedule=Schedule(start=10**6))
    batches = [problem.batch(tasks, seed) for seed in range(8)]
    runs = {
        "with": equipoise_optimizer(problem, tasks, method, teleport=cost),
        "without": equipoise_optimizer(problem, tasks, method),
        "not due": equipoise_optimizer(problem, tasks, method, teleport=idle),
    }
    seconds = dict.fromkeys(runs, 0.0)
    for mtl in runs.values():
        mtl.step(batches[0])  # the first step finds the shared parameters
    turn = 0
    while len(cost.attempts) < attempts:
        order = list(runs)
        for name in order[turn % 3 :] + order[: turn % 3]:
            start = process_time()
            for step in range(BLOCK):
                runs[name].step(batches[(turn * BLOCK + step) % len(batches)])
            seconds[name] += process_time() - start
        turn += 1
    plain = seconds["without"] / (turn * BLOCK)
    spent = sum(report.seconds for report in cost.attempts) / len(cost.attempts)
    return [
        problem.name,
        method,
        str(tasks),
        str(turn * BLOCK),
        str(len(cost.attempts)),
        f"{seconds['with'] / seconds['without']:.3f}×",
        f"{spent / plain:.0f}",
        f"{seconds['not due'] / seconds['without']:.3f}×",
    ]


def _memory() -> str:
    rows = []
    for tasks in (2, 4):
        plain = peak("ours", tasks)
        extra = [f"{(peak(name, tasks) - plain) / (SHARED * 4):.2f}" for name in ("ours, COST", "ours, COST, paper")]
        rows.append([str(tasks), f"{plain / 2**20:.0f} MiB", *extra])
    head = ["K", "MGDA", "beyond that: COST()", "COST.paper()"]
    return (
        f"Peak resident memory of {WIDE.name} with P = {SHARED:,} shared parameters, batch {WIDE.batch_size}, in a fresh "
        "process, without teleports and with one in every step, in units of P·4 bytes: 1 is one copy of the parameters.\n\n"
        + table(head, rows)
    )
