"""Learned task weights beside their controls where weights do matter: ``python -m benchmarks.weight_controls [--seeds 5]``.

Four regressions on one network, 160 training rows; the labels of two have noise of deviation 6, of the others 0.1. Forty clean
rows are held out. Beside learned weights stand frozen ones, and equal ones with the held-out rows added to the training data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import equipoise as eq
from benchmarks.tables import table
from equipoise.bilevel import TaskWeighting

__all__ = ["main"]

TASKS = "abcd"
NOISE = (0.1, 0.1, 6.0, 6.0)
STEPS, BATCH = 400, 40
WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("equal weights", "ls", {}),
    ("equal weights, held-out rows added", "added", {}),
    ("moml, frozen weights", "moml", {"lr": 0.0}),
    ("moml", "moml", {"lr": 0.05}),
    ("forum, frozen weights", "forum", {"lr": 0.0}),
    ("forum", "forum", {"lr": 0.05}),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weight_controls", description="Learned weights and controls.")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (default 5)")
    seeds = range(parser.parse_args(arguments).seeds)
    rows = []
    for name, kind, options in WAYS:
        found = np.array([_run(kind, seed, options) for seed in seeds])
        columns = [f"{own.mean():.3f} ± {own.std(ddof=1) if len(own) > 1 else 0:.3f}" for own in found.T]
        rows.append([name, *columns])
    print(table(["way", "error of clean tasks", "error of noisy tasks", "weight of clean tasks"], rows))


def _losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return dict(zip(TASKS, (model(batch[0]) - batch[1]).square().mean(0), strict=True))


def _run(kind: str, seed: int, options: dict[str, Any]) -> tuple[float, float, float]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(20, 3, generator=generator)
    heads = torch.randn(3, len(TASKS), generator=generator)

    def data(rows: int, noise: Sequence[float]) -> tuple[Tensor, Tensor]:
        x = torch.randn(rows, 20, generator=generator)
        return x, torch.tanh(x @ mixing / 4) @ heads + torch.tensor(noise) * torch.randn(rows, len(TASKS), generator=generator)

    train, held_out, test = data(160, NOISE), data(40, [0.1] * 4), data(2000, [0.0] * 4)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, len(TASKS)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-4)
    objective = eq.Objective(model, _losses)
    order = torch.Generator().manual_seed(seed + 1)
    if kind == "added":
        train = (torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]]))
    learned = None if kind in ("ls", "added") else TaskWeighting(objective, optimizer, kind, **options)
    equal = eq.MultiTaskOptimizer(objective, optimizer, "ls") if learned is None else None
    for _ in range(STEPS):
        rows = torch.randint(len(train[0]), (BATCH,), generator=order)
        batch = (train[0][rows], train[1][rows])
        if learned is not None:
            learned.step(batch, held_out)
        elif equal is not None:
            equal.step(batch)
    with torch.no_grad():
        errors = (model(test[0]) - test[1]).square().mean(0)
    weights = list(learned.weights.values()) if learned is not None else [0.25] * 4
    return float(errors[:2].mean()), float(errors[2:].mean()), sum(weights[:2])


if __name__ == "__main__":
    main()
