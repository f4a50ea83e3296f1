"""Why UPGrad loses by proxy on digits: ``python -m benchmarks.proxies_on_digits``, a passage of docs/price.md.

One training with the exact UPGrad; at every step proxies look at the same batch and point.
"""

from __future__ import annotations

import statistics
import warnings

import torch
from torch import Tensor

import equipoise as eq
from benchmarks.tables import table
from equipoise.step.proxying import cosine
from equipoise.study.problems import digits_problem

__all__ = ["main"]

SOURCES = ("last", "last 2", "features")
EPOCHS = 8


def main() -> None:
    """Prints one row per source."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    problem = digits_problem()
    model, losses = problem.build(0)[:2]
    objective = eq.Objective(model, losses, tasks=problem.tasks)
    trained = eq.MultiTaskOptimizer(objective, problem.optimizer(model), "upgrad")
    # Steps of size 0, so that a look leaves everything where it is.
    still = torch.optim.SGD(model.parameters(), 0.0)
    lookers = {name: eq.MultiTaskOptimizer(objective, still, "upgrad", proxy=eq.Proxy(name, audit=0)) for name in SOURCES}
    seen: dict[str, list[list[float]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = problem.data(0)[0]
        for _ in range(EPOCHS):
            for batch in loader:
                found = {}
                for name, looker in lookers.items():
                    looker.step(batch)
                    found[name] = _gramian(looker)
                trained.step(batch)
                exact = _gramian(trained)
                for name, gramian in {"exact": exact, **found}.items():
                    seen.setdefault(name, []).append(_measured(gramian, exact))
    rows = [[name, *(f"{statistics.median(values):.2f}" for values in zip(*own, strict=True))] for name, own in seen.items()]
    head = ["source", "`ink` over its share", "norm of `sum` over `ink`", "lowest cosine", "direction", "direction of FairGrad"]
    print(f"UPGrad on digits, {EPOCHS} epochs, medians over {len(seen['exact'])} steps.\n\n" + table(head, rows))


def _gramian(optimizer: eq.MultiTaskOptimizer) -> Tensor:
    assert optimizer.last is not None
    assert optimizer.last.gramian is not None
    return optimizer.last.gramian


def _measured(gramian: Tensor, exact: Tensor) -> list[float]:
    norms = gramian.diagonal().sqrt()
    cosines = gramian / torch.outer(norms, norms)
    upgrad, fairgrad = eq.balancer("upgrad"), eq.balancer("fairgrad")
    weights = upgrad.weights(gramian)
    directions = [cosine(exact, one.weights(gramian), one.weights(exact))[0] for one in (upgrad, fairgrad)]
    return [float(weights[3]) * len(weights), float(norms[2] / norms[3]), float(cosines.min()), *directions]


if __name__ == "__main__":
    main()
