"""What the guide's pages on graphs, segmentation and physics say that balancing did: their own code, trained for longer.

``python -m benchmarks.pages graphs|segmentation|physics``: means and deviations over three seeds.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import table

__all__ = ["main"]

FOLDER = Path(__file__).parents[1] / "docs" / "integrations"
Found = dict[str, float]


def graphs(page: dict[str, Any], method: str, seed: int) -> Found:
    """Mean absolute errors on 1,000 fresh molecules, after 8 epochs over 200."""
    generator = torch.Generator().manual_seed(0)
    molecules = [page["molecule"](generator) for _ in range(1200)]
    model, _ = page["trained"](method, molecules[:200], seed, epochs=8)
    batch = next(iter(page["DataLoader"](molecules[200:], batch_size=1000)))
    with torch.no_grad():
        return {name: float(loss) for name, loss in page["losses"](model, batch).items()}


def segmentation(page: dict[str, Any], method: str, seed: int) -> Found:
    """Dice of the mask, accuracy of "large" and mean error of the distance on 200 fresh images, after 150 steps."""
    model, _ = page["trained"](method, seed, steps=150)
    batch = page["scans"](200, torch.Generator().manual_seed(1000))
    with torch.no_grad():
        out = model(batch["image"])
    mask = (out["mask"] > 0).float()
    dice = 2 * (mask * batch["mask"]).sum((1, 2)) / (mask.sum((1, 2)) + batch["mask"].sum((1, 2)))
    right = (out["large"] > 0) == (batch["large"] > 0)
    return {
        "Dice": float(dice.mean()),
        "accuracy": float(right.float().mean()),
        "distance": float((out["distance"] - batch["distance"]).abs().mean()),
    }


def physics(page: dict[str, Any], method: str, seed: int) -> Found:
    """Relative error of u, the last step's losses and the processor time, after 800 steps."""
    begun = time.process_time()
    model, mtl = page["trained"](method, seed, steps=800)
    spent = time.process_time() - begun
    losses = dict(zip(mtl.last.tasks, mtl.last.losses.tolist(), strict=True))
    return {"error": page["error"](model), **losses, "seconds": spent}


METHODS: dict[Callable[[dict[str, Any], str, int], Found], Sequence[str]] = {
    graphs: ("ls", "fairgrad"),
    segmentation: ("ls", "fairgrad", "si"),
    physics: ("ls", "config", "famo"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table."""
    known = {measure.__name__: measure for measure in METHODS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("page", choices=tuple(known))
    measure = known[parser.parse_args(arguments).page]
    torch.set_num_threads(1)
    code, *_ = re.findall(r"```python\n(.*?)```", (FOLDER / f"{measure.__name__}.md").read_text(encoding="utf-8"), re.DOTALL)
    page: dict[str, Any] = {"__name__": measure.__name__}
    exec(compile(code, measure.__name__, "exec"), page)
    rows = []
    for method in METHODS[measure]:
        runs = [measure(page, method, seed) for seed in range(3)]
        each = {name: torch.tensor([run[name] for run in runs], dtype=torch.float64) for name in runs[0]}
        rows.append([method, *(f"{found.mean():.3g} ± {found.std():.2g}" for found in each.values())])
    print(table(["method", *each], rows))


if __name__ == "__main__":
    main()
