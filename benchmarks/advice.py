"""How good the advice of ``equipoise advise`` is: ``python -m benchmarks.advice <folder> [--problems digits,tasks,qm9]``.

Regret: how much worse the recommended training is than the best method of a full study, on the test split and, with the default
of three seeds, the same seeds. For ``digits`` the full study is that of ``docs/methods-on-digits.md`` (default options and
learning rate, Δm against single-task training), for a small ``qm9`` that of ``docs/methods-on-qm9.md`` (change against ``ls``).
For 40 synthetic tasks it is that of ``docs/data/price.csv`` (change against ``ls``), which has four seeds and is judged on all
test data, of which one half chooses here: that regret is between two samples. All at equal epochs, so nobody trains longer.
What lies in the folder is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.price_quality import BATCH, TASKS, TRAIN, _data, _losses, _Model
from benchmarks.tables import table
from equipoise.advice import Advice, Race
from equipoise.data import TensorBatches
from equipoise.metrics import Metric, delta_m
from equipoise.study import Problem, Results, Splits, Study, find_problem

__all__ = ["many_tasks"]

DOCS = Path(__file__).parents[1] / "docs"
QM9 = "qm9:train=1000,val=250,test=500,batch_size=50"


def many_tasks() -> Problem:
    """The 40 synthetic tasks of :mod:`benchmarks.price_quality`; validation is the first half of the test data there."""
    names = [f"t{k}" for k in range(TASKS)]

    def build(seed: int) -> Any:
        model = _Model()
        return model, lambda model, batch: _losses(model, (batch["x"], batch["y"])), torch.optim.Adam(model.parameters(), 2e-3)

    def data(seed: int) -> Splits:
        (inputs, targets), (held, wanted) = _data(seed)
        half = len(held) // 2
        parts = [{"x": held[rows], "y": wanted[rows]} for rows in (slice(half), slice(half, None))]
        train = TensorBatches({"x": inputs, "y": targets}, BATCH, shuffle=True, seed=seed)
        return Splits(train, *(TensorBatches(part, half) for part in parts))

    def evaluate(model: nn.Module, loader: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
        (batch,) = loader
        errors = (model(batch["x"]) - batch["y"]).square().mean(0) / batch["y"].var(0)
        return dict(zip(names, errors.tolist(), strict=True))

    metrics = [Metric(name, name, higher_is_better=False) for name in names]
    assert TRAIN % BATCH == 0
    return Problem("tasks", names, metrics, build, data, evaluate, epochs=20)


def _digits(folder: Path, seeds: int) -> tuple[Advice, list[tuple[str, float]], float, float]:
    advice = Race("digits", seeds=seeds, jobs=1, longer=False, folder=folder / "digits").run()
    rows = [line for line in (DOCS / "methods-on-digits.md").read_text().splitlines() if line.startswith("| ")]
    head = next(place for place, line in enumerate(rows) if "mean rank" in line)
    study: dict[str, list[float]] = {}
    for line in rows[head + 2 :]:
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if len(cells) != 8:
            break
        study[cells[0]] = [float(re.split(" ±", cell)[0].replace("−", "-")) for cell in cells[1:6]]
    alone = dict(zip([metric.name for metric in advice.metrics], study.pop("single-task"), strict=False))
    full = sorted(((name, own[4]) for name, own in study.items()), key=lambda entry: entry[1])
    chosen, plain = (delta_m(one.metrics, alone, advice.metrics) for one in (advice.recommended, advice.plain))
    return advice, full, chosen, plain


def _tasks(folder: Path, seeds: int) -> tuple[Advice, list[tuple[str, float]], float, float]:
    problem = many_tasks()
    advice = Race(problem, seeds=seeds, jobs=1, longer=False, folder=folder / "tasks", looks=8).run()
    with (DOCS / "data" / "price.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["study"] == "40 tasks"]
    full = sorted(((row["method"], float(row["change"])) for row in rows), key=lambda entry: entry[1])
    return advice, full, *_against_ls(problem, advice, folder / "tasks-ls", seeds)


def _qm9(folder: Path, seeds: int) -> tuple[Advice, list[tuple[str, float]], float, float]:
    advice = Race(find_problem(QM9), seeds=seeds, epochs=15, jobs=1, longer=False, folder=folder / "qm9", looks=8).run()
    values: dict[str, dict[str, list[float]]] = {}
    with (DOCS / "data" / "methods-on-qm9.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if int(row["seed"]) in advice.seeds:
                for metric in advice.metrics:
                    values.setdefault(row["method"], {}).setdefault(metric.name, []).append(float(row[metric.name]))
    means = {method: {name: fmean(found) for name, found in own.items()} for method, own in values.items()}
    full = [(method, delta_m(own, means["ls"], advice.metrics)) for method, own in means.items()]
    chosen, plain = (delta_m(one.metrics, means["ls"], advice.metrics) for one in (advice.recommended, advice.plain))
    return advice, sorted(full, key=lambda entry: entry[1]), chosen, plain


def _against_ls(problem: Problem, advice: Advice, folder: Path, seeds: int) -> tuple[float, float]:
    """The recommended training and tuned plain training, against equal weights at the problem's own learning rate."""
    base = _means(Study(problem, "ls", seeds, folder=folder, jobs=1, gramian_every=0, baselines=False).run(), "ls")
    chosen, plain = (delta_m(one.metrics, base, advice.metrics) for one in (advice.recommended, advice.plain))
    return chosen, plain


def _means(results: Results, method: str) -> dict[str, float]:
    return {metric.name: fmean(results.values(method, metric).values()) for metric in results.metrics}


def main() -> None:
    """Carries out what is missing and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", default="digits,tasks,qm9")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = {"digits": _digits, "tasks": _tasks, "qm9": _qm9}
    rows, said = [], []
    for name in options.problems.split(","):
        advice, full, chosen, plain = made[name](options.folder, options.seeds)
        best, lowest = full[0]
        own = advice.recommended
        place = 1 + sum(value < chosen for _, value in full)
        text = f"{own.label}, {advice.rate(own)}, {own.epochs} epochs"
        rows.append(
            [
                name,
                text,
                f"{chosen:+.1f}",
                f"{best}, {lowest:+.1f}",
                f"{chosen - lowest:+.1f}",
                f"{place} of {len(full) + 1}",
                f"{plain:+.1f}",
            ]
        )
        said.append(f"{name}: " + " ".join(advice.sentences()))
    head = ["problem", "recommended", "its Δm (%)", "best of the full study", "regret", "place", "tuned plain training"]
    print(table(head, rows), *said, sep="\n\n")


if __name__ == "__main__":
    main()
