"""Whole training steps: equipoise against plain training, the ideal, and the peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.networks import PROBLEMS, Problem
from benchmarks.tables import duration, table, times
from benchmarks.timing import Times, race
from benchmarks.trainers import Step, equipoise_step, ideal_step, libmtl_step, plain_step, torchjd_step

__all__ = ["loss_based", "run"]

TASKS = (2, 11, 40)
ENGINE_METHOD = "imtl-g"
LOSS_METHODS = ("ls", "si", "rlw", "dwa", "uw", "famo")
UNCHECKED = "ls, `check_finite=False`"
COLUMNS = ("ls", UNCHECKED, *LOSS_METHODS[1:])
Say = Callable[[str], None]


def run(say: Say, *, budget: float = 1.0) -> None:
    """Prints the tables.

    Args:
        say: takes each line or table.
        budget: seconds per race, relative to the usual.
    """
    sizes = "; ".join(f"{problem.name}: {problem.shared():,} shared parameters" for problem in PROBLEMS)
    say(f"## Training steps\n\n{sizes}. Heads of two layers (128 → 32 → 1) per task. Adam. IMTL-G where not said otherwise.")
    _engines(say, budget)
    _methods(say, budget)


def _engines(say: Say, budget: float) -> None:
    rows, worst = [], 0.0
    for problem in PROBLEMS:
        for tasks in TASKS:
            result = race(
                _entered(
                    {
                        "plain": plain_step(problem, tasks),
                        "ideal": ideal_step(problem, tasks),
                        "ours": equipoise_step(problem, tasks, ENGINE_METHOD),
                        "features": equipoise_step(problem, tasks, ENGINE_METHOD, features=True),
                        "TorchJD": torchjd_step(problem, tasks, ENGINE_METHOD),
                        "TorchJD, chunk 1": torchjd_step(problem, tasks, ENGINE_METHOD, 1),
                        "LibMTL": libmtl_step(problem, tasks, ENGINE_METHOD),
                    }
                ),
                seconds=budget * _seconds(problem, tasks),
                sample=0.01,
            )
            worst = max(worst, result.spread("ours", "ideal"))
            rows.append(
                [
                    problem.name,
                    str(tasks),
                    duration(result.median("ideal")),
                    _against(result, "ours", "ideal"),
                    _against(result, "plain", "ideal"),
                    _against(result, "features", "ideal"),
                    *(_against(result, peer, "ours") for peer in ("TorchJD", "TorchJD, chunk 1", "LibMTL")),
                    str(result.rounds("ours")),
                ]
            )
    head = ["network", "K", "ideal", "ours / ideal", "plain LS / ideal", "ours on features / ideal"]
    head += ["TorchJD / ours", "TorchJD chunk 1 / ours", "LibMTL / ours", "rounds"]
    say(
        "### Gradient engines\n\n"
        "`ideal`: one forward and K backward passes into `.grad`, without balancing. `ours on features`: "
        "`features=`, which differentiates the encoder once.\n\n"
        + table(head, rows)
        + f"\n\nHalf the range between the quartiles of ours / ideal is at most {100 * worst:.0f} %."
    )


def _methods(say: Say, budget: float) -> None:
    rows = []
    for problem, tasks in ((PROBLEMS[0], 11), (PROBLEMS[0], 40), (PROBLEMS[-1], 11)):
        for method in ("mgda", "pcgrad", "cagrad", "nash-mtl", "fairgrad"):
            result = race(
                _entered(
                    {
                        "ideal": ideal_step(problem, tasks),
                        "ours": equipoise_step(problem, tasks, method),
                        "TorchJD": torchjd_step(problem, tasks, method),
                        "LibMTL": libmtl_step(problem, tasks, method),
                    }
                ),
                seconds=budget * (3.0 if tasks < 40 else 6.0),
                warm_up=1,
                sample=0.01,
            )
            cells = [_against(result, "ours", "ideal"), *(_against(result, peer, "ours") for peer in ("TorchJD", "LibMTL"))]
            rows.append([problem.name, str(tasks), method, *cells])
    head = ["network", "K", "method", "ours / ideal", "TorchJD / ours", "LibMTL / ours"]
    say(
        "### The other methods\n\nLibMTL 1.1.5 has no Nash-MTL and no FairGrad, and its CAGrad takes three tasks only.\n\n"
        + table(head, rows)
    )


def loss_based(say: Say, *, budget: float = 1.0) -> None:
    """Prints the table of methods that look at losses alone; arguments as of :func:`run`."""
    rows, worst = [], 0.0
    for problem in PROBLEMS:
        for tasks in TASKS:
            runs = {"plain": plain_step(problem, tasks), "plain + forward": plain_step(problem, tasks, forwards=2)}
            runs |= {method: equipoise_step(problem, tasks, method) for method in LOSS_METHODS}
            runs[UNCHECKED] = equipoise_step(problem, tasks, "ls", check_finite=False)
            result = race(runs, seconds=budget * 4, sample=0.02)
            worst = max(worst, result.spread("ls", "plain"))
            cells = [_against(result, m, "plain + forward" if m == "famo" else "plain", digits=3) for m in COLUMNS]
            rows.append([problem.name, str(tasks), duration(result.median("plain")), *cells, str(result.rounds("ls"))])
    head = ["network", "K", "plain LS", *(f"{m} / plain" for m in COLUMNS[:-1]), "famo / plain + forward", "rounds"]
    say(
        "## Steps of loss-based methods\n\n"
        "FAMO is compared with plain training that evaluates the losses once more after the step.\n\n"
        + table(head, rows)
        + f"\n\nHalf the range between the quartiles of ls / plain is at most {100 * worst:.0f} %."
    )


def _seconds(problem: Problem, tasks: int) -> float:
    """Longer where a round takes longer."""
    return (3.0 if problem is PROBLEMS[0] else 5.0) * (1.0 if tasks < 11 else 2.0 if tasks < 40 else 4.0)


def _entered(runs: Mapping[str, Step | None]) -> dict[str, Step]:
    return {name: step for name, step in runs.items() if step is not None}


def _against(result: Times, name: str, other: str, digits: int | None = None) -> str:
    if name in result.failed:
        return result.failed[name]
    if not result.rounds(name):
        return "–"
    ratio = result.ratio(name, other)
    return times(ratio) if digits is None else f"{ratio:.{digits}f}×"
