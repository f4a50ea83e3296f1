"""What one teleport does, and what it is worth: ``python -m benchmarks.one_teleport digits|qm9``.

Training with a balancer is stopped at some steps. From there it goes on with the same batches, once as it is and once with
one teleport in the first step, for each way to search. On validation batches, which no search sees, the losses, the norms of
the task gradients and their conflict are measured at θ and at θ + Δθ, and the losses once more after the further steps. All
differences are paired: the same parameters, batches and random numbers.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equipoise as eq
from benchmarks.tables import table
from equipoise.method import MethodSpec
from equipoise.solvers import pareto_distance
from equipoise.study.problem import Problem, Splits
from equipoise.study.problems import find_problem
from equipoise.study.records import seed_process
from equipoise.teleport import COST
from equipoise.teleport.text import cost_of
from equipoise.teleport.triggers import mean_cosines, norms, pairwise_cosines

__all__ = ["VARIANTS", "main"]

_PAPER: Mapping[str, Any] = {"formulation": "paper", "scaling": "none", "history": "keep"}
_SEEK: Mapping[str, Any] = {"formulation": "paper", "gamma": 1.0, "history": "keep", "lr": 0.003}
_STILL: Mapping[str, Any] = {"formulation": "paper", "gamma": 0.0, "steps": 1}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "paper, lr 1e-4": {**_PAPER, "lr": 1e-4},
    "paper, lr 3e-3": {**_PAPER, "lr": 3e-3},
    "paper, lr 1e-2": {**_PAPER, "lr": 1e-2},
    "paper, lr 3e-3, 100 steps": {**_PAPER, "lr": 3e-3, "steps": 100},
    "paper, lr 3e-3, γ 10": {**_PAPER, "lr": 3e-3, "gamma": 10.0},
    "paper, lr 3e-3, γ 10, δ 1": {**_PAPER, "lr": 3e-3, "gamma": 10.0, "radius": 1.0},
    "paper, lr 3e-3, reuse": {**_PAPER, "lr": 3e-3, "history": "reuse"},
    "pareto (ours)": {"history": "keep"},
    "pareto (ours), reset": {"history": "reset"},
    "pareto (ours), 5 steps": {"history": "keep", "steps": 5},
    "pareto (ours), lr 1e-3": {"history": "keep", "lr": 1e-3},
    "pareto (ours), dense": {"history": "keep", "delta": "dense", "lr": 3e-4},
    "pareto (ours), descent 0.05": {"history": "keep", "descent": 0.05},
    "pareto (ours), reuse": {"history": "reuse"},
    "agreement of gradients": {**_SEEK, "seek": "mean"},
    "agreement, lr 1e-2": {**_SEEK, "seek": "mean", "lr": 1e-2},
    "nothing moves, reuse": {**_STILL, "history": "reuse"},
    "nothing moves, reset": {**_STILL, "history": "reset"},
}
"""Options of COST by name; what is not said is COST's own."""
COSTLY = ("pareto (ours)", "pareto (ours), 5 steps", "paper, lr 3e-3", "agreement of gradients")
"""Those whose cost is spent on plain steps as well."""


@dataclass
class Point:
    """What is measured at one point on the validation batches."""

    losses: list[float]
    norms: list[float]
    cosine: float  # the smallest with the mean gradient
    pairwise: float  # the mean of all pairs
    distance: float  # from Pareto stationarity, relative


class Looking(COST):
    """Measures at the new point."""

    look: Any = None
    there: Point | None = None

    def arrived(self, mtl: eq.MultiTaskOptimizer, report: Any) -> bool:
        stays = super().arrived(mtl, report)
        self.there = self.look(mtl) if stays else None
        return stays


def looking(options: Mapping[str, Any], seed: int) -> Looking:
    """A COST of these options that teleports in its first step, whatever the gradients, and searches on the given batches."""
    cost = cost_of({"guard": None, "budget": None, "seed": seed, **options})
    return Looking(
        lambda gramian: True,
        delta=cost.delta if "delta" in options else None,
        search=cost.search,
        guard=None,
        schedule=eq.teleport.Schedule(budget=None, stop_step=10**9, per_epoch=1),
        probes=cost.probes,
        history=cost.history,
        seed=seed,
    )


def measured(mtl: eq.MultiTaskOptimizer, batches: Sequence[Any]) -> Point:
    """Means over the batches; the gradients are those of all of them together."""
    gramian = mtl.gramian(*batches).numpy()
    seen = [list(mtl.objective.values({}, batch, random_state=mtl.objective.random_state()).values()) for batch in batches]
    losses = torch.tensor(seen, dtype=torch.float64).mean(0).tolist()
    cosines = pairwise_cosines(gramian)
    off = cosines[~np.eye(len(cosines), dtype=bool)]
    distance = pareto_distance(gramian)
    return Point(losses, norms(gramian).tolist(), float(mean_cosines(gramian).min()), float(off.mean()), float(distance))


class Run:
    """Training with one balancer from one seed."""

    def __init__(self, problem: Problem, method: str, seed: int, held: int) -> None:
        self.problem, self.spec, self.seed = problem, MethodSpec.parse(method), seed
        seed_process(seed)
        splits = Splits(*problem.data(seed))
        self.batches = itertools.chain.from_iterable(iter(splits.train) for _ in itertools.count())
        seed_process(seed)
        model, losses, *_ = problem.build(seed)
        self.losses, self.model = losses, model
        self.validation = list(itertools.islice(iter(splits.validation), held))
        self.mtl = self.made(model, None)
        seed_process(seed)

    def made(self, model: torch.nn.Module, teleport: Any) -> eq.MultiTaskOptimizer:
        balancer, _ = self.spec.make(self.seed)
        proxy = None if self.spec.proxy is None else str(self.spec.proxy)
        objective = eq.Objective(model, self.losses, tasks=self.problem.tasks)
        optimizer = self.problem.optimizer(model)
        return eq.MultiTaskOptimizer(objective, optimizer, balancer, teleport=teleport, proxy=proxy)

    def forked(self, options: Mapping[str, Any] | None, further: Sequence[Any]) -> dict[str, Any]:
        """Goes on from the present state on a copy: with a teleport first, or without."""
        state, random = copy.deepcopy(self.mtl.state_dict()), torch.get_rng_state()
        cost = None if options is None else looking({"probe_batches": 8, **options}, self.seed)
        mtl = self.made(copy.deepcopy(self.model), cost)
        state["teleport"] = None if cost is None else cost.state_dict()
        mtl.load_state_dict(state)
        if cost is not None:
            cost.look = lambda mtl: measured(mtl, self.validation)
            for batch in self.recent:
                cost._held.remember((batch,))
        for batch in further:
            mtl.step(batch)
        after = measured(mtl, self.validation)
        torch.set_rng_state(random)
        report = None if cost is None or not cost.attempts else cost.attempts[0].as_dict()
        there = None if cost is None or cost.there is None else vars(cost.there)
        return {"there": there, "after": vars(after), "report": report}

    def worth(self, name: str) -> int:
        """How many plain steps an attempt costs, in evaluations, a backward pass counted as two."""
        tasks = len(self.problem.tasks)
        backwards = 1 if self.mtl.balancer.needs == "losses" or self.mtl.proxy is not None else tasks
        step = 1.0 + 2.0 * backwards
        look = 2.0 * (1.0 + 2.0 * tasks) if self.mtl.balancer.needs == "losses" else 0.0
        search = cost_of({"guard": None, **VARIANTS[name]}).search
        return round((search.cost(tasks, 8) + 8.0 + look + step) / step)

    def advance(self, steps: int) -> None:
        self.recent = list(itertools.islice(self.batches, steps))
        for batch in self.recent:
            self.mtl.step(batch)


def run(problem: Problem, method: str, seed: int, stops: Sequence[int], further: int, held: int, names: Sequence[str]) -> Any:
    """Everything measured in one training, by stop."""
    training, found, done = Run(problem, method, seed, held), {}, 0
    for stop in stops:
        training.advance(stop - done)
        training.recent = training.recent[-9:]
        steps = list(itertools.islice(training.batches, further))
        before = vars(measured(training.mtl, training.validation))
        ways = {"none": training.forked(None, steps)} | {name: training.forked(VARIANTS[name], steps) for name in names}
        others = list(itertools.islice(training.batches, 200))
        for name in set(COSTLY) & set(names):
            ways[f"plain steps for {name}"] = training.forked(None, [*others[: training.worth(name)], *steps])
        found[str(stop)] = {"before": before, "ways": ways}
        for batch in steps:
            training.mtl.step(batch)
        done = stop + further
    return found


def unaided(found: Mapping[str, Any]) -> str:
    """What becomes of the conflict by itself, in a sentence."""
    pairs = [
        (stop["before"]["cosine"], stop["ways"]["none"]["after"]["cosine"]) for own in found.values() for stop in own.values()
    ]
    moved = statistics.fmean(abs(after - before) for before, after in pairs)
    told = f"Without a teleport the smallest cosine moves by {moved:.2f} either way in the further steps"
    if len(pairs) < 3:
        return f"{told}."
    return f"{told}; before and after correlate by {statistics.correlation(*zip(*pairs, strict=True)):.2f}."


def rows(found: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
    """A row per way to search: means over methods, seeds and stops, with standard errors for what is paired."""
    made = []
    stops = [stop for own in found.values() for stop in own.values()]
    controls = [f"plain steps for {name}" for name in COSTLY if name in names]
    for name in [*names, *controls]:
        pairs = [(stop["before"], stop["ways"]["none"]["after"], stop["ways"][name]) for stop in stops]
        landed = [pair for pair in pairs if pair[2]["there"] is not None]
        if not landed:
            after = _mean([_change(none, way["after"]) for _, none, way in pairs], percent=True) if name in controls else "–"
            made.append([name, *["–"] * 7, after])
            continue
        there = [(before, way["there"]) for before, _, way in landed]
        made.append(
            [
                name,
                f"{len(landed)} of {len(pairs)}",
                _mean([way["report"]["sigma"] for _, _, way in landed]),
                _mean([_change(before, then) for before, then in there], percent=True),
                _mean([_ratio(before["norms"], then["norms"]) for before, then in there]),
                f"{_plain([b['cosine'] for b, _ in there])} → {_plain([t['cosine'] for _, t in there])}",
                _mean([then["cosine"] - before["cosine"] for before, then in there]),
                _mean([math.log(max(then["distance"], 1e-12) / max(b["distance"], 1e-12)) for b, then in there]),
                _mean([_change(none, way["after"]) for _, none, way in landed], percent=True),
            ]
        )
    return made


HEAD = ["search", "landed", "σ", "loss at θ+Δθ", "norms ×", "smallest cosine", "its change", "ln distance", "loss after"]


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """The mean relative change of the losses."""
    return statistics.fmean(then / now - 1 for now, then in zip(before["losses"], after["losses"], strict=True))


def _ratio(before: Sequence[float], after: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(then / now) for now, then in zip(before, after, strict=True)))


def _plain(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):+.3f}"


def _mean(values: Sequence[float], *, percent: bool = False) -> str:
    """Mean ± standard error."""
    factor, digits = (100.0, 2) if percent else (1.0, 3)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{factor * statistics.fmean(values):+.{digits}f} ± {factor * error:.{digits}f}" + (" %" if percent else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is not there yet, or was asked for otherwise, and prints a table per method."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_teleport", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problem", help="digits, or qm9:train=2000,…")
    parser.add_argument("--methods", default="ls,fairgrad")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stops", default="42,126,294", help="after how many steps")
    parser.add_argument("--further", type=int, default=21, help="steps from there")
    parser.add_argument("--held", type=int, default=4, help="validation batches")
    parser.add_argument("--ways", default=";".join(VARIANTS), help="names of searches, with semicolons between")
    parser.add_argument("--folder", type=Path, default=Path("results/one-teleport"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    problem, names = find_problem(options.problem), options.ways.split(";")
    options.folder.mkdir(parents=True, exist_ok=True)
    stops = [int(stop) for stop in options.stops.split(",")]
    for method in options.methods.split(","):
        found = {}
        for seed in range(options.seeds):
            asked = [options.problem, stops, options.further, options.held, names]
            path = options.folder / f"{problem.name}-{method.replace(':', '-')}-{seed}.json"
            kept = json.loads(path.read_text()) if path.exists() else {}
            if kept.get("asked") != asked:
                kept = {"asked": asked, "found": run(problem, method, seed, stops, options.further, options.held, names)}
                path.write_text(json.dumps(kept))
            found[str(seed)] = kept["found"]
        print(f"\n### {problem.name}, {method}\n\n{table(HEAD, rows(found, names))}\n\n{unaided(found)}\n", flush=True)


if __name__ == "__main__":
    main()
