"""What proxies do to the final quality on 40 synthetic tasks: ``python -m benchmarks.price_quality <folder> [--seeds 5]``.

``--csv docs/data/price.csv`` puts the numbers where ``python -m benchmarks.price_picture`` draws them from.

Every run writes one line to ``<folder>/runs.jsonl``, and runs that are there already are not carried out again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from time import process_time

import torch
from torch import Tensor, nn

import equipoise as eq
from benchmarks.price_picture import rewrite
from benchmarks.tables import table

__all__ = ["main"]

TASKS, TRAIN, TEST, BATCH = 40, 2048, 2048, 64
METHODS = ("fairgrad", "nash-mtl", "cagrad", "upgrad", "imtl-g", "mgda")
PROXIES = ("last", "last(memory=0.5)")


def main() -> None:
    """Carries out what is missing and prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--csv", type=Path, help="a file to put the numbers into")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "runs.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(run["method"], run["seed"], run["steps"]) for run in done}
    steps = options.epochs * TRAIN // BATCH
    for seed in range(options.seeds):
        for method in ("ls", "famo", *METHODS, *(f"{method}@{proxy}" for method in METHODS for proxy in PROXIES)):
            if (method, seed, steps) in known:
                continue
            done.append(_run(method, seed, steps))
            with file.open("a") as stream:
                stream.write(json.dumps(done[-1]) + "\n")
    print(_tables([run for run in done if run["seed"] in range(options.seeds)], steps, options.csv))


def _data(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Targets of one random teacher of two layers, whose outputs' scales span three decades, with noise."""
    teacher = torch.Generator().manual_seed(7)
    first, second = torch.randn(32, 64, generator=teacher) / 32**0.5, torch.randn(64, TASKS, generator=teacher) / 8
    drawn = torch.Generator().manual_seed(1000 + seed)
    inputs = torch.randn(TRAIN + TEST, 32, generator=drawn)
    targets = torch.tanh(2 * inputs @ first) @ second + 0.3 * torch.randn(TRAIN + TEST, TASKS, generator=drawn)
    targets = targets * torch.logspace(-0.75, 0.75, TASKS)
    return (inputs[:TRAIN], targets[:TRAIN]), (inputs[TRAIN:], targets[TRAIN:])


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
        )
        self.heads = nn.ModuleList(nn.Linear(64, 1) for _ in range(TASKS))

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.encoder(inputs)
        return torch.cat([head(features) for head in self.heads], 1)


def _losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    features = model.get_submodule("encoder")(batch[0])
    heads = model.get_submodule("heads").children()
    return {f"t{k}": (head(features)[:, 0] - batch[1][:, k]).square().mean() for k, head in enumerate(heads)}


def _run(method: str, seed: int, steps: int) -> dict[str, object]:
    (inputs, targets), (held, wanted) = _data(seed)
    torch.manual_seed(seed)
    model = _Model()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, _losses), torch.optim.Adam(model.parameters(), 2e-3), method)
    order = torch.Generator().manual_seed(seed)
    curve, start = [], process_time()
    indices = torch.randperm(TRAIN, generator=order)
    per_epoch = TRAIN // BATCH
    for step in range(steps):
        place = step % per_epoch
        if place == 0:
            indices = torch.randperm(TRAIN, generator=order)
        chosen = indices[place * BATCH : (place + 1) * BATCH]
        mtl.step((inputs[chosen], targets[chosen]))
        if place == per_epoch - 1:
            spent = process_time() - start
            with torch.no_grad():
                errors = (model(held) - wanted).square().mean(0) / wanted.var(0)
            curve.append([spent, *errors.tolist()])
            start = process_time() - spent
    return {"method": method, "seed": seed, "steps": steps, "curve": curve}


def _tables(runs: list[dict[str, object]], steps: int, file: Path | None = None) -> str:
    """Δm against ``ls``, at equal epochs and at the time that the proxy took."""
    curves = {(str(run["method"]), run["seed"]): run["curve"] for run in runs if run["steps"] == steps}
    seeds = sorted({seed for _, seed in curves})  # type: ignore[type-var]
    rows, numbers = [], []
    for method in ("ls", "famo", *METHODS):
        for name in (method, *(f"{method}@{proxy}" for proxy in PROXIES)):
            if any((name, seed) not in curves for seed in seeds):
                continue
            final, timed, cost = [], [], []
            for seed in seeds:
                curve, base = curves[name, seed], curves["ls", seed]
                rival = curves.get((f"{method}@last", seed), base)
                final.append(_change(curve[-1], base[-1]))  # type: ignore[index]
                cost.append(curve[-1][0] / base[-1][0])  # type: ignore[index]
                within = [point for point in curve if point[0] <= rival[-1][0]] or curve[:1]  # type: ignore[index, attr-defined]
                timed.append(_change(within[-1], base[-1]))  # type: ignore[index]
            rows.append([name, _mean(final), _mean(timed), f"{statistics.median(cost):.2f}×"])
            spread = statistics.stdev(final) if len(final) > 1 else None
            numbers.append((name, statistics.fmean(final), spread, statistics.median(cost)))
    if file is not None:
        rewrite("40 tasks", numbers, file)
    head = ["method", "Δm (%) against ls", "Δm (%) after the time of `@last`", "time over ls"]
    return f"{len(seeds)} seeds, {steps} steps; less is better.\n\n" + table(head, rows)


def _change(point: list[float], base: list[float]) -> float:
    return 100 * statistics.fmean(one / other - 1 for one, other in zip(point[1:], base[1:], strict=True))


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.1f}{spread}"


if __name__ == "__main__":
    main()
