"""When does COST help? ``python -m benchmarks.cost_on_digits STAGE``: the tables of docs/cost-on-digits.md.

All stages are parts of one study on ``digits``, which can be interrupted and started again. The settings of COST were chosen on
seeds 0 to 4 and the validation split; what is reported is the test split with seeds 5 to 9.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.tables import table
from equipoise.metrics import delta_m
from equipoise.study import Study
from equipoise.study.methods import parse_method
from equipoise.study.plan import Run
from equipoise.study.problems import digits_problem
from equipoise.study.results import Results
from equipoise.study.training import train

__all__ = ["STAGES", "main"]

SEEDS = "5-9"
BALANCERS = ("ls", "cagrad", "nash-mtl", "fairgrad", "fairgrad:alpha=2")
# Plays the same role in all stages: the schedule of the paper's released script, one teleport per epoch.
ONE_AN_EPOCH = "formulation=paper,lr=0.01,probe_batches=2,held_out_batches=2,budget=none,per_epoch=1,check_every=5"
CHOSEN = (
    "formulation=pareto,lr=0.003,guard=losses,tolerance=0.02,probe_batches=8,held_out_batches=1,"
    "budget=none,per_epoch=2,check_every=5"
)
# As many epochs of plain training as cost what 20 epochs with COST() do (the first of each), and with CHOSEN, counted in
# evaluations of the losses.
LONGER = (("ls", 22), ("ls", 44), ("cagrad", 22), ("cagrad", 28), ("fairgrad", 22), ("fairgrad", 28))


def _on(options: str, balancers: Sequence[str] = BALANCERS) -> dict[str, str]:
    return {name: f"cost({options})+{name}" for name in balancers}


_PAPER = f"guard=none,history=reuse,{ONE_AN_EPOCH}"
STAGES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "default": {"COST()": {name: f"cost+{name}" for name in BALANCERS}},
    "chosen": {"pareto, two per epoch": _on(CHOSEN)},
    "early": {"pareto, two per epoch until epoch 10": _on(f"{CHOSEN},stop=10", ("ls", "cagrad", "fairgrad"))},
    "paper": {"to the letter of the paper, one per epoch": _on(f"scaling=none,{_PAPER}", ("ls", "cagrad", "fairgrad"))},
    # With γ = 0 the losses are at their best where they are: nothing moves, and what is left is what history reuse does alone.
    "history-alone": {
        "nothing moves, history reused": _on(f"gamma=0,scaling=none,{_PAPER}", ("ls", "cagrad")),
        "the paper's teleports, history kept": _on(f"scaling=none,{_PAPER}".replace("reuse", "keep"), ("ls", "cagrad")),
    },
    "table-4": {
        "paper, relative losses": _on(_PAPER, ("fairgrad",)),
        "without L_t": _on(f"invariance=0,{_PAPER}", ("fairgrad",)),
        "without L_g": _on(f"gamma=0,{_PAPER}", ("fairgrad",)),
        "without history reuse (kept)": _on(_PAPER.replace("reuse", "keep"), ("fairgrad",)),
        "history reset": _on(_PAPER.replace("reuse", "reset"), ("fairgrad",)),
        "history by mass": _on(_PAPER.replace("reuse", "mass"), ("fairgrad",)),
        "with the guard": _on(_PAPER.replace("guard=none", "guard=conflict"), ("fairgrad",)),
    },
    "tables-7-8": {
        "weak": _on(f"trigger=weak,{_PAPER}", ("fairgrad",)),
        "released trigger": _on(f"trigger=released,{_PAPER}", ("fairgrad",)),
        "majority": _on(f"trigger=majority,{_PAPER}", ("fairgrad",)),
        "LoHa": _on(f"delta=loha,{_PAPER}", ("fairgrad",)),
        "OFT": _on(f"delta=oft,{_PAPER}", ("fairgrad",)),
        "dense": _on(f"delta=dense,{_PAPER}", ("fairgrad",)),
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs stages and prints their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_on_digits", description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", help=f"which: {', '.join(STAGES)}; all of them if left out")
    parser.add_argument("--folder", type=Path, default=Path("results/cost-on-digits"))
    parser.add_argument("--seeds", default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    stages = options.stages or [*STAGES, "control"]
    for stage in stages:
        if stage not in (*STAGES, "control"):
            parser.error(f"there is no stage {stage}; there are {', '.join(STAGES)} and control")
    for stage in stages:
        if stage == "control":
            print(
                f"\n### control\n\n{_control(Results(options.folder), options.folder / 'control', options.jobs)}\n", flush=True
            )
            continue
        variants = STAGES[stage]
        plain = list(dict.fromkeys(name for own in variants.values() for name in own))
        methods = [*plain, *(label for own in variants.values() for label in own.values())]
        # One folder for all stages: baselines and methods without COST are trained once.
        results = Study("digits", methods, options.seeds, folder=options.folder, jobs=options.jobs).run()
        print(f"\n### {stage}\n\n{_table(results, variants)}\n", flush=True)


def _control(results: Results, folder: Path, jobs: int) -> str:
    """Plain training for longer, against the same single-task baselines."""
    folder.mkdir(parents=True, exist_ok=True)
    work = [(name, epochs, seed, str(folder)) for name, epochs in LONGER for seed in results.seeds]
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        pool.starmap(_longer, work)
    baseline = {name: own.mean for name, own in results.baseline().items()}
    rows = []
    for name, epochs in LONGER:
        finals = [json.loads((folder / f"{name}-{epochs}-{seed}.json").read_text()) for seed in results.seeds]
        drops = dict(zip(results.seeds, (delta_m(final, baseline, results.metrics) for final in finals), strict=True))
        alone = results.delta_m(name)
        gains = [drops[seed] - alone[seed] for seed in results.seeds]
        rows.append([name, str(epochs), _spread(list(drops.values())), _spread(gains, sign=True)])
    return table(["balancer alone", "epochs", "Δm %", "difference to 20 epochs"], rows)


def _longer(name: str, epochs: int, seed: int, folder: str) -> None:
    path = Path(folder) / f"{name}-{epochs}-{seed}.json"
    if path.exists():
        return
    torch.set_num_threads(1)
    record = train(digits_problem(), Run(seed, method=parse_method(name)), epochs=epochs, gramian_every=0)
    path.write_text(json.dumps(record["final"]["test"]))


def _table(results: Results, variants: Mapping[str, Mapping[str, str]]) -> str:
    rows = []
    labels = {text: parse_method(text).label for own in variants.values() for text in own.values()}
    for variant, own in variants.items():
        for name, text in own.items():
            label = labels[text]
            alone, with_cost = results.delta_m(name), results.delta_m(label)
            common = sorted(alone.keys() & with_cost.keys())
            gains = [with_cost[seed] - alone[seed] for seed in common]
            records = results.records(label).values()
            attempts = [len(record["teleports"]) for record in records]
            accepted = [sum(entry["accepted"] for entry in record["teleports"]) for record in records]
            spent = [sum(entry["seconds"] for entry in record["teleports"]) for record in records]
            trained = [record["seconds_a_step"]["mean"] * record["seconds_a_step"]["steps"] for record in records]
            rows.append(
                [
                    variant,
                    name,
                    _spread(list(alone.values())),
                    _spread(list(with_cost.values())),
                    _spread(gains, sign=True),
                    f"{sum(gain < 0 for gain in gains)} of {len(gains)}",
                    f"{statistics.fmean(accepted):.1f} / {statistics.fmean(attempts):.1f}",
                    f"{sum(trained) / max(sum(trained) - sum(spent), 1e-9):.2f}×",
                ]
            )
    head = ["COST", "balancer", "Δm % alone", "with COST", "difference", "seeds better", "landed / tried", "time"]
    return table(head, rows)


def _spread(values: Sequence[float], *, sign: bool = False) -> str:
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{mean:+.2f} ± {deviation:.2f}" if sign else f"{mean:.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    main()
