"""A step of BayesAgg-MTL, which needs linear heads, over one of linear scalarization: ``python -m benchmarks.linear_heads``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import equipoise as eq
from benchmarks.tables import duration, table, times
from benchmarks.timing import race
from equipoise.balance import BayesAggMTL

__all__ = ["made", "main"]

_CLASSES = 10


def made(balancer: Callable[..., eq.balance.Balancer] | None, kinds: str, width: int, size: int = 128) -> Callable[[int], Any]:
    """A step on an MLP of three layers.

    Args:
        balancer: makes one from features, heads and targets; linear scalarization if ``None``.
        kinds: one letter per task: ``r`` for one number, ``b`` for a yes or no, ``c`` for ten classes.
        width: of the features.
        size: samples per batch.
    """
    torch.manual_seed(0)
    outputs = [_CLASSES if kind == "c" else 1 for kind in kinds]
    heads = {f"task{k}": nn.Linear(width, count) for k, count in enumerate(outputs)}
    encoder = nn.Sequential(nn.Linear(64, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ELU())
    model = nn.ModuleDict({"encoder": encoder, **heads})
    targets: dict[str, Tensor] = {}
    for task, kind in zip(heads, kinds, strict=True):
        targets[task] = {"r": torch.randn(size), "b": torch.rand(size) < 0.5, "c": torch.randint(_CLASSES, (size,))}[kind]
    inputs = torch.randn(size, 64)

    def losses(model: Any, batch: Any) -> dict[str, Tensor]:
        features = model["encoder"](batch)
        found = {}
        for task, values in targets.items():
            out = model[task](features)
            if values.dtype == torch.int64:
                found[task] = F.cross_entropy(out, values)
            elif values.dtype == torch.bool:
                found[task] = F.binary_cross_entropy_with_logits(out.squeeze(1), values.float())
            else:
                found[task] = F.mse_loss(out.squeeze(1), values)
        return found

    own = eq.LS() if balancer is None else balancer("encoder", {task: task for task in heads}, lambda _: targets)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), lr=1e-4), own)
    mtl.step(inputs)
    mtl.end_epoch()  # the warm-up is over
    return lambda _: mtl.step(inputs)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linear_heads", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="per row (default 8)")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    rows = []
    for kinds, width in (("rrr", 16), ("rrr", 64), ("r" * 11, 64), ("bbb", 64), ("rbc", 16), ("rbc", 64)):
        runs = {"ls": made(None, kinds, width), "features": made(_features, kinds, width)}
        runs |= {"bayesagg-mtl": made(BayesAggMTL, kinds, width), "few": made(_few, kinds, width)}
        result = race(runs, seconds=seconds, sample=0.01)
        ratios = [times(result.ratio(name, "ls")) for name in ("features", "few", "bayesagg-mtl")]
        rows.append([kinds, str(width), duration(result.median("ls")), *ratios])
    head = ["tasks", "features", "ls", "warm-up / ls", "64 draws / ls", "bayesagg-mtl / ls"]
    print(table(head, rows))


def _features(*parts: Any) -> eq.balance.Balancer:
    return BayesAggMTL(*parts, warm_up=1_000_000)


def _few(*parts: Any) -> eq.balance.Balancer:
    return BayesAggMTL(*parts, samples=64)


if __name__ == "__main__":
    main()
