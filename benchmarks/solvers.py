"""Solvers: equipoise against TorchJD's weightings and the reference routes, with each answer's residual beside its time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import surgery
from benchmarks.gramians import FAMILIES, draws
from benchmarks.routes import Method, Route, methods
from benchmarks.tables import duration, small, table, times
from benchmarks.timing import race

__all__ = ["run"]

Array = NDArray[np.float64]
Say = Callable[[str], None]

SIZES = (2, 3, 11, 40, 100)
STEPS = 8
"""Gramians of successive steps that the rounds go through."""


def run(say: Say, *, budget: float = 1.0) -> None:
    """Prints the tables.

    Args:
        say: takes each line or table.
        budget: seconds per race, relative to the usual.
    """
    families = "; ".join(f"*{name}*: {what}" for name, what in FAMILIES.items())
    say(
        f"## Solvers\n\nTime of one solve, and the KKT residual of the answer (the worst over {STEPS} Gramians), as the "
        f"companions in `equipoise.solvers` measure it for all alike (UPGrad: the distance from K programmes solved alone; "
        f"GradVac, which draws orders, has none; Aligned-MTL's leaves out components below 1e-5 of the largest, which TorchJD "
        f"keeps). {families}."
    )
    for family in FAMILIES:
        rows = []
        for method in methods():
            rows += [_row(method, family, tasks, budget) for tasks in SIZES]
        head = ["method", "K", "ours", "residual", "TorchJD", "/ ours", "residual", "reference", "/ ours", "residual"]
        say(f"### Gramians: {family}\n\n" + table(head, rows))
    surgery.run(say, SIZES, budget=budget)


def _row(method: Method, family: str, tasks: int, budget: float) -> list[str]:
    gradients = draws(family, tasks, STEPS)
    gramians = [matrix @ matrix.T for matrix in gradients]
    routes = method.routes(gradients, gramians)
    answers: dict[str, dict[int, Any]] = {name: {} for name in routes}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The routes compared with warn of inaccurate answers, which the residuals tell better.
        warnings.simplefilter("ignore")
        result = race(
            {name: _kept(route.solve, answers[name]) for name, route in routes.items()},
            seconds=budget * 1.0,
            rounds=24,
            warm_up=1,
            sample=0.004,
            limit=8.0,
        )
        residuals = {name: _worst(method, route, gramians, answers[name]) for name, route in routes.items()}
    cells = [method.name, str(tasks), duration(result.median("ours")), small(residuals["ours"])]
    for name in ("TorchJD", "reference"):
        if name not in routes:
            cells += ["–", "–", "–"]
        elif name in result.failed:
            cells += [result.failed[name], "–", "–"]
        else:
            cells += [duration(result.median(name)), times(result.ratio(name, "ours")), small(residuals[name])]
    return cells


def _kept(solve: Callable[[int], Any], answers: dict[int, Any]) -> Callable[[int], None]:
    def run(turn: int) -> None:
        answers[turn % STEPS] = solve(turn % STEPS)

    return run


def _worst(method: Method, route: Route, gramians: list[Array], answers: dict[int, Any]) -> float:
    """The largest residual; of an answer that is not finite, infinite."""
    worst = 0.0
    for turn, answer in answers.items():
        weights = route.finish(answer, gramians[turn])
        found = method.residual(gramians[turn], weights) if np.isfinite(weights).all() else np.inf
        if np.isnan(found):
            return found  # there is no equation to measure
        worst = max(worst, found)
    return worst
