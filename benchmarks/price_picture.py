"""Quality over cost with exact Gramians and with proxies: ``python -m benchmarks.price_picture`` draws the guide's picture.

The numbers are those of ``docs/data/price.csv``. ``python -m benchmarks.price_quality <folder> --csv docs/data/price.csv``
writes those of the 40 tasks; ``--digits`` measures what a step on digits takes, beside the changes of the guide's study.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from time import process_time

import torch
from matplotlib.figure import Figure

import equipoise as eq
from benchmarks.timing import race
from equipoise.study.pictures.style import STYLES, method_looks
from equipoise.study.problems import digits_problem

__all__ = ["FILE", "main", "rewrite"]

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "data" / "price.csv"
HEAD = ("study", "method", "change", "spread", "time")
# Nash-MTL's results are FairGrad's.
METHODS = ("ls", "famo", "fairgrad", "imtl-g", "cagrad", "upgrad", "mgda")
TITLES = {"digits": "Digits: 4 tasks, against single tasks", "40 tasks": "40 synthetic tasks, against equal weighting"}


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--digits", action="store_true", help="measure the times on digits again")
    if parser.parse_args().digits:
        _time_digits()
    rows = _read(FILE)
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    for axes, (study, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        points = {
            row["method"]: (float(row["time"]), float(row["change"]), row["spread"]) for row in rows if row["study"] == study
        }
        for base, (color, style) in method_looks(METHODS).items():
            shape = dict(zip(STYLES, "osD^", strict=True))[style]
            for name in (base, f"{base}@last"):
                if name in points:
                    time, change, spread = points[name]
                    axes.errorbar(
                        time,
                        change,
                        float(spread or 0),
                        fmt=shape,
                        color=color,
                        mfc=color if name == base else "white",
                        capsize=2,
                        elinewidth=0.8,
                        label=base if name == base else None,
                    )
            if f"{base}@last" in points:
                (x, y, _), (to_x, to_y, _) = points[base], points[f"{base}@last"]
                axes.plot((x, to_x), (y, to_y), color=color, lw=0.8, ls=":")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("time of training, in that of equal weighting")
        axes.set_ylabel("Δm (%), less is better")
        axes.grid(alpha=0.3)
        if study == "digits":
            axes.legend(fontsize=8, title='● exact   ○ proxy="last"', title_fontsize=8)
    figure.savefig(ROOT / "docs" / "pictures" / "price.png", dpi=130)


def rewrite(study: str, rows: list[tuple[str, float, float | None, float]], file: Path = FILE) -> None:
    """Puts the rows of a study (method, change, spread, time) into the file in place of those that are there."""
    kept = [row for row in _read(file) if row["study"] != study] if file.exists() else []
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        for method, change, spread, time in rows:
            cells = (study, method, f"{change:.2f}", "" if spread is None else f"{spread:.2f}", f"{time:.3f}")
            writer.writerow(dict(zip(HEAD, cells, strict=True)))


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _time_digits() -> None:
    """Whole steps on digits, side by side, in the time of equal weighting."""
    torch.set_num_threads(1)
    problem = digits_problem()
    batches = list(problem.data(0).train)
    rows = [row for row in _read(FILE) if row["study"] == "digits"]
    steps = {}
    for row in rows:
        model, losses = problem.build(0)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), problem.optimizer(model), row["method"])
        steps[row["method"]] = lambda turn, mtl=mtl: mtl.step(batches[turn % len(batches)])
    start = process_time()
    result = race(steps, seconds=60.0, rounds=60, warm_up=3)
    print(f"{result.rounds('ls')} rounds, {process_time() - start:.0f} s")
    rewrite("digits", [(r["method"], float(r["change"]), float(r["spread"]), result.ratio(r["method"], "ls")) for r in rows])


if __name__ == "__main__":
    main()
