"""NORMAL beside hard parameter sharing on other data than digits: ``python -m benchmarks.normal_elsewhere PROBLEM``.

A part of docs/learned-task-positions.md. The problem is ``qm9`` or one of the rendered scenes, with options as in a study.
What the folder holds is not trained again. η, ξ, the start and the steps of Euler's method are those chosen for digits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import equipoise as eq
from benchmarks.tables import table
from equipoise.metrics import delta_m, holm, paired_comparison, spread
from equipoise.nets import (
    NORMAL,
    ContinuousFilterNet,
    FixedPositions,
    LearnedPositions,
    Output,
    SegNet,
    Solver,
    TaskFlow,
    position_groups,
)
from equipoise.store import RunStore
from equipoise.study.methods import parse_method
from equipoise.study.problem import Problem, Splits
from equipoise.study.problems import find_problem
from equipoise.study.records import seed_process
from equipoise.study.report.words import brief

__all__ = ["NETWORKS", "main"]

NETWORKS = {
    "hps": "hard parameter sharing",
    "wide": "hard parameter sharing, wider",
    "normal": "NORMAL",
    "equal": "constant and identical positions",
    "first-order": "first-order flow",
}
WIDER = 66
"""Size of the atoms' states with which the network of QM9 has as many parameters as NORMAL on top of it, to a percent."""


class _Finished(nn.Module):
    def __init__(self, head: nn.Module, output: Output) -> None:
        super().__init__()
        self.head, self.output = head, output

    def forward(self, maps: Tensor) -> Tensor:
        return self.output.finish(self.head(maps))


def build(base: ContinuousFilterNet | SegNet, network: str) -> nn.Module:
    """A variant of a problem's own network, whose features and heads become the variant's."""
    if network == "hps":
        return base
    tasks, dense = list(base.heads), isinstance(base, SegNet)
    if network == "wide":
        if dense:
            raise SystemExit("the flow of maps has few parameters: hard sharing needs no wider network beside it")
        return ContinuousFilterNet(tasks, size=WIDER)
    first = next(module for module in base.heads.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    size = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    first_order = network == "first-order"
    flow = (TaskFlow.for_maps if dense else TaskFlow.for_vectors)(
        tasks,
        size,
        hidden=2 * size if first_order else None,
        first_order=first_order,
        positions=(FixedPositions if network == "equal" else LearnedPositions)(tasks, 1.0),
        solver=Solver(step_size=0.5),
    )
    heads = {
        task: _Finished(head, base.outputs[task]) if isinstance(base, SegNet) else nn.Sequential(head, nn.Flatten(0))
        for task, head in base.heads.items()
    }
    return NORMAL(base.features, flow, heads)


def train(problem: Problem, network: str, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """One training: metrics of the test split after the last epoch, where positions ended, size, processor time per step."""
    seed_process(seed)
    splits = Splits(*problem.data(seed))
    base, losses, *_ = problem.build(seed)
    assert isinstance(base, ContinuousFilterNet | SegNet)
    model = build(base, network)
    groups: Any = position_groups(model, 0.1) if isinstance(model, NORMAL) else model.parameters()
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses, tasks=problem.tasks), optimizer, parse_method(method).make(seed))
    began = time.process_time()
    for epoch in range(epochs):
        model.train()
        if hasattr(splits.train, "set_epoch"):
            splits.train.set_epoch(epoch)
        for batch in splits.train:
            mtl.step(batch)
        mtl.end_epoch()
    seconds = time.process_time() - began
    model.eval()
    with torch.no_grad():
        test = {name: float(value) for name, value in problem.evaluate(model, splits.test).items()}
    return {
        "test": test,
        "positions": model.flow.positions.values() if isinstance(model, NORMAL) else {},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": seconds / mtl.steps,
    }


def report(problem: Problem, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One row per network, next to the mean of hard sharing; below it NORMAL against each other one, and its positions."""
    metrics = problem.metrics
    usual = {metric.name: spread(run["test"][metric.name] for run in results["hps"]).mean for metric in metrics}
    drops = {network: [delta_m(run["test"], usual, metrics) for run in runs] for network, runs in results.items()}
    compared = {network: paired_comparison(own, drops["hps"]) for network, own in drops.items() if network != "hps"}
    corrected = holm({network: comparison.p for network, comparison in compared.items()})
    step = spread(run["seconds"] for run in results["hps"]).mean
    rows, lines = [], []
    for network, runs in results.items():
        rows.append(
            [
                NETWORKS[network],
                f"{runs[0]['parameters']:,}",
                *(f"{spread(run['test'][metric.name] for run in runs).mean:.4g}" for metric in metrics),
                spread(drops[network]).text(1, sign=True),
                brief(compared[network], corrected[network]) if network in compared else "–",
                f"{spread(run['seconds'] for run in runs).mean / step:.2f}×",
            ]
        )
        if network in ("normal", "first-order"):
            ends = (f"{task} {spread(run['positions'][task] for run in runs).text(2, sign=True)}" for task in problem.tasks)
            lines.append(f"{NETWORKS[network]}, positions at the end: {', '.join(ends)}.")
    for network in results if "normal" in results else ():
        if network not in ("hps", "normal"):
            alone = paired_comparison(drops["normal"], drops[network])
            lines.append(f"NORMAL against {NETWORKS[network]}: {alone.difference:+.1f} points, p = {alone.p:.2f} alone.")
    head = ["network", "parameters", *(metric.heading for metric in metrics), "Δm % ↓", "against sharing", "time per step"]
    return "\n\n".join([table(head, rows), *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing and prints the table of each method."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.normal_elsewhere", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problem", help="qm9, scenes or scenes-streets, with options as in a study")
    parser.add_argument("--methods", default="ls,fairgrad", help="balancers (default ls,fairgrad)")
    parser.add_argument("--networks", default="hps,wide,normal,equal", help=f"some of {', '.join(NETWORKS)}; hps first")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--epochs", type=int, help="passes over the data; the problem's own if left out")
    parser.add_argument("--output", type=Path, required=True, help="folder of the trainings")
    options = parser.parse_args(arguments)
    networks = options.networks.split(",")
    if networks[0] != "hps" or not set(networks) <= set(NETWORKS):
        parser.error(f"--networks must begin with hps and name some of {', '.join(NETWORKS)}; got {options.networks}")
    torch.set_num_threads(1)
    problem = find_problem(options.problem)
    epochs = options.epochs or problem.epochs
    store = RunStore(options.output, what="set of trainings")
    store.claim({"problem": options.problem, "epochs": epochs})
    for method in options.methods.split(","):
        results: dict[str, list[dict[str, Any]]] = {}
        for seed in range(options.seeds):
            for network in networks:
                key = f"{network}-{method.replace(':', '~')}-{seed}"
                record = store.find(key) or store.keep(key, train(problem, network, method, seed, epochs))
                results.setdefault(network, []).append(record)
        print(
            f"{options.problem}, {method}, {epochs} epochs, {options.seeds} seeds\n\n{report(problem, results)}\n", flush=True
        )


if __name__ == "__main__":
    main()
