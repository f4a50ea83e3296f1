"""Black-box optimizers: time of ask and tell, evaluations of f apart, against pycma."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.tables import duration, table, times
from benchmarks.timing import race
from equipoise.blackbox import make_optimizer

__all__ = ["run"]

Say = Callable[[str], None]

CASES = ((100, 100), (100, 1000), (200, 1000), (100, 2000))
OURS = ("asmg", "mmes", "es", "bes")


def run(say: Say, *, budget: float = 1.0) -> None:
    """Prints the table.

    Args:
        say: takes each line or table.
        budget: seconds per race, relative to the usual.
    """
    names = (*OURS, "cma-es") if peers.has("cma") else OURS
    rows = []
    for samples, dimension in CASES:
        outputs = np.random.default_rng(0).normal(size=(samples + 1, 2))
        optimizers = {name: make_optimizer(name, np.zeros(dimension), samples=samples, seed=0) for name in names}

        def step(name: str, optimizers: dict[str, Any] = optimizers, outputs: Any = outputs) -> Callable[[int], None]:
            def once(_turn: int) -> None:
                optimizers[name].tell(outputs[: len(optimizers[name].ask())])

            return once

        result = race({name: step(name) for name in names}, seconds=4 * budget, rounds=60, warm_up=2, sample=0.002, limit=60.0)
        cells = [duration(result.median(name)) for name in OURS]
        if "cma-es" in names:
            cells += [duration(result.median("cma-es")), times(result.ratio("cma-es", "asmg"))]
        rows.append([str(samples), str(dimension), *cells])
    head = ["N", "d", *OURS, *(["pycma", "pycma / asmg"] if "cma-es" in names else [])]
    say(
        "## Black-box optimizers\n\nAsk and tell of an iteration with two objectives, without the evaluation of f; pycma with "
        "its full covariance, which it updates lazily.\n\n" + table(head, rows)
    )
