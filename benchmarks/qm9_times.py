"""The numbers of ``docs/qm9.md``: ``python -m benchmarks.qm9_times``, two to three minutes, with ``pip install '.[qm9]'``.

Times are processor time on one thread, with evaluation and diagnostics as a study has them; tables and bonds are read into a
cache that is thrown away.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np
import torch

from benchmarks.tables import table
from equipoise.data.qm9.bonds import read_bonds
from equipoise.data.qm9.packed import package_folder, read_packed
from equipoise.store import cache_folder
from equipoise.study.methods import parse_method
from equipoise.study.plan import Run
from equipoise.study.problems import find_problem
from equipoise.study.training import train

__all__ = ["main"]

EPOCHS = 30
SHORT = ("single task", "ldc-mtl", "fairgrad", "cost(start=0)+fairgrad")


def main() -> None:
    """Prints the tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EQUIPOISE_CACHE"] = cache
        _reading()
        _training()


def _reading() -> None:
    folder = package_folder()
    rows = []
    for what, read in (("tables", lambda: read_packed(folder)), ("bonds", lambda: read_bonds(folder, read_packed(folder)))):
        first, found = _timed(read)
        again, found = _timed(read)
        rows.append([what, f"{first:.1f}", f"{again:.1f}"])
    print(table(["reading", "first start (s)", "later (s)"], rows), end="\n\n")
    known = list(zip(("in order", "of coordinates", "none"), np.bincount(found.source, minlength=3).tolist(), strict=True))
    sizes = [f"{path.stat().st_size / 1e6:.0f} MB" for path in sorted((cache_folder() / "qm9").glob("*.npz"))]
    print(f"Bonds: {known}; kept: {', '.join(sizes)}", end="\n\n")


def _training() -> None:
    problem = find_problem("qm9")
    rows = []
    for name in SHORT:
        ends: list[float] = []
        run = Run(0, task="mu") if name == "single task" else Run(0, parse_method(name))
        train(problem, run, epochs=2, gramian_every=None, finished_epoch=lambda *_, ends=ends: ends.append(process_time()))
        rows.append([name, f"{ends[1] - ends[0]:.1f}"])
    errors: list[Any] = []
    spent, record = _timed(
        lambda: train(
            problem,
            Run(0, parse_method("ls")),
            epochs=EPOCHS,
            gramian_every=None,
            finished_epoch=lambda epoch, validation: errors.append(validation),
        )
    )
    print(table(["one epoch, the second", "s"], [*rows, [f"ls, mean of {EPOCHS}", f"{spent / EPOCHS:.1f}"]]), end="\n\n")
    print(f"ls, {EPOCHS} epochs: {spent:.0f} s; test errors { ({k: round(v, 2) for k, v in record['final']['test'].items()}) }")
    print(f"homo on validation after 1, 10 and 20 epochs: {[round(errors[epoch - 1]['homo']) for epoch in (1, 10, 20)]}")


def _timed(what: Callable[[], Any]) -> tuple[float, Any]:
    began = process_time()
    found = what()
    return process_time() - began, found


if __name__ == "__main__":
    main()
