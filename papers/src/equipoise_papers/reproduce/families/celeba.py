"""CelebA, 40 tasks: COST's Table 3, LDC-MTL's Tables 1, 3, 4 and 10 on nine layers; the thesis' Table 5.3 on ResNet-18."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.data import celeba_loaders
from equipoise.metrics import BinaryTally, Evaluation
from equipoise.nets import CELEBA_ATTRIBUTES, CelebANet
from equipoise.study.problem import Built, Problem, Splits
from equipoise.study.reported import BestEpoch
from equipoise.study.results import Results
from equipoise_papers.reproduce.batches import moved
from equipoise_papers.reproduce.cost import Workload
from equipoise_papers.reproduce.families.common import (
    CLIPPED_OPEN,
    LDC_LAMBDA,
    MTAN_LINE,
    adam,
    clipped,
    cost,
    highest_mean,
    ldc,
    positions,
    rows,
)
from equipoise_papers.reproduce.recipe import Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.study_part import StudyPart
from equipoise_papers.samples import write_celeba_sample

__all__ = ["DATA", "RECIPES", "celeba_problem", "part", "write_sample"]

DATA = "CelebA as it is distributed: img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt"
WORK = Workload(gigaflops=1.37, batch=256, steps=636, epochs=15, tasks=40, evaluated=39829)
MISSING_ROW = (
    "The papers print no F1 scores of single-task training. Δm is against the 40 that FAMO's authors published beside their "
    "code (issue 2) and that LDC-MTL's trainer takes; --stl trains 40 networks per seed as well."
)
START = 4
SINGLE_TASK_F1 = (
    *(0.6736886, 0.68121034, 0.81524944, 0.5760289, 0.7205613, 0.8555076, 0.38203922, 0.58225113),
    *(0.787647, 0.8321292, 0.5029583, 0.68694085, 0.6781237, 0.5240381, 0.5161666, 0.95694304),
    *(0.6968786, 0.67976356, 0.8808315, 0.8582131, 0.97034, 0.93267566, 0.5057539, 0.40307626),
    *(0.9703734, 0.48644206, 0.60786104, 0.5261031, 0.56907415, 0.59815097, 0.6858371, 0.924108),
    *(0.5424991, 0.7406311, 0.71019936, 0.87365365, 0.9305602, 0.33704284, 0.7647628, 0.91907),
)
"""F1 scores of the nine layers trained on one attribute each, in the order of the attributes: FAMO's repository
(Cranial-XIX/FAMO), issue 2, and LDC-MTL's (OptMN-Lab/LDC-MTL), ``experiments/celeba/trainer.py``."""


def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Binary cross-entropy of each attribute."""
    batch = moved(batch, model)
    out = model(batch["image"])
    return {
        task: F.binary_cross_entropy_with_logits(logits, batch["label"][:, CELEBA_ATTRIBUTES.index(task)])
        for task, logits in out.items()
    }


def _outputs(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
    batch = moved(batch, model)
    return {task: (logits, batch["label"][:, CELEBA_ATTRIBUTES.index(task)]) for task, logits in model(batch["image"]).items()}


def celeba_problem(
    name: str,
    setting: Setting,
    network: Any,
    *,
    lr: float,
    accuracy: bool = False,
    weight_decay: float = 0.0,
    epochs: int = 15,
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    tasks: Sequence[str] = CELEBA_ATTRIBUTES,
    options: Mapping[str, Any] | None = None,
) -> Problem:
    """Adam; F1 scores or accuracies on the test split, in the epoch whose mean is best on the validation split."""
    judged = Evaluation({task: lambda: BinaryTally(accuracy=accuracy, f1=not accuracy) for task in tasks}, _outputs)

    def build(seed: int) -> Built:
        return network(setting, tasks).to(setting.device), losses

    def data(seed: int) -> Splits:
        return Splits(
            *celeba_loaders(
                setting.folder(),
                4 if setting.smoke else 256,
                cache=setting.cache,
                seed=seed,
                workers=setting.workers,
                pin_memory=setting.device != "cpu",
            )
        )

    return Problem(
        name=name,
        tasks=tuple(tasks),
        metrics=judged.metrics,
        build=build,
        data=data,
        evaluate=judged,
        epochs=epochs,
        optimizer=adam(lr, weight_decay),
        schedule=schedule,
        recorded=positions,
        reported=BestEpoch(),
        score=highest_mean,
        options={"lr": lr, "batch": 256, "smoke": setting.smoke, **(options or {})},
    )


def _nine_layers(setting: Setting, tasks: Sequence[str]) -> nn.Module:
    return CelebANet(tasks, 2 if setting.smoke else 64)


def _statistics(results: Results, method: str) -> dict[str, list[float]]:
    """Mean, deviation, least and largest of the 40 losses, of each seed."""
    found: dict[str, list[float]] = {f"loss {name}": [] for name in ("mean", "deviation", "min", "max")}
    for record in results.records(method).values():
        own = torch.tensor(list(record["history"][-1]["losses"].values()), dtype=torch.float64)
        for name, value in zip(found, (own.mean(), own.std(), own.min(), own.max()), strict=True):
            found[name].append(float(value))
    return found


def write_sample(folder: Any) -> Any:
    """Faces for a smoke test: two batches of four."""
    return write_celeba_sample(folder, images=16, size=(64, 64))


def part(
    name: str,
    table: str,
    made: tuple[RecipeRow, ...],
    *,
    lr: float = 3e-4,
    further: tuple[str, ...] = (),
    order: int | None = None,
    losses_too: bool = False,
    stepped: bool = False,
) -> StudyPart:
    """A study of CelebA with nine layers; ``order`` shuffles the tasks by that seed, ``stepped`` lowers the learning rate."""
    tasks = list(CELEBA_ATTRIBUTES)
    if order is not None:
        tasks = [tasks[place] for place in torch.randperm(len(tasks), generator=torch.Generator().manual_seed(order)).tolist()]
    return StudyPart(
        name=name,
        table=table,
        rows=(*made, *clipped(made, WORK.tasks)),
        workload=WORK,
        network="seven convolutions and two linear layers, one linear head per attribute, 5.2 million parameters; images 64×64",
        hyperparameters=hyper(
            optimizer="Adam",
            learning_rate=f"{lr:g}" + (", times 0.3 after every 3 epochs" if stepped else ""),
            batch=256,
            epochs=15,
            reported="best epoch on validation, by mean F1",
        ),
        problem=lambda setting: celeba_problem(
            f"celeba-{name}",
            setting,
            _nine_layers,
            lr=lr,
            tasks=tasks,
            schedule=(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.3)) if stepped else None,
            options={"order": order, **({"schedule": "StepLR(3, 0.3)"} if stepped else {})},
        ),
        sample=write_sample,
        open_choices=(MISSING_ROW, *([CLIPPED_OPEN] if clipped(made, WORK.tasks) else []), *further),
        further=_statistics if losses_too else None,
        alone={f"{task} F1": 100 * value for task, value in zip(CELEBA_ATTRIBUTES, SINGLE_TASK_F1, strict=True)},
    )


_LINE = {**MTAN_LINE, "FAMO": "famo:weight_decay=0.001"}
_COST = (
    "COST is taken by the letter of the paper, with the trigger of eq. 4; teleporting starts after 4 of 15 epochs, and neither "
    "the paper nor the released scripts name a number for CelebA.",
    "FairGrad has α = 1, as the paper says; the released scripts have α = 2.",
)
_LDC = (
    LDC_LAMBDA,
    "As in the released code: the learning rate is multiplied by 0.3 after every 3 epochs, for model and router; the paper "
    "prints no schedule. The router is a sigmoid of 40 free numbers that start at 1, and g is divided by the sum of the "
    "sigmoids, held constant; the paper prints a softmax, whose sum is 1.",
)
_ldc_part = partial(part, "ldc-mtl", lr=1e-3, further=_LDC, stepped=True)


def ldc_row(name: str, penalty: float = 0.01) -> RecipeRow:
    """LDC-MTL with τ = σ(W), a free vector, and losses as they are."""
    return RecipeRow(name, ldc(penalty, tau="weights", normalize="none"))


RECIPES = (
    Recipe(
        "ldc-table1-celeba",
        "LDC-MTL, Table 1, CelebA",
        "LDC-MTL and 14 balancers on CelebA",
        DATA,
        (
            part("nine-layers", "ldc-table1-celeba", rows("ldc-table1-celeba", _LINE)),
            _ldc_part("ldc-table1-celeba", (ldc_row("LDC-MTL"),)),
        ),
        family="celeba",
    ),
    Recipe(
        "ldc-table3",
        "LDC-MTL, Table 3",
        "Statistics over the 40 losses on CelebA",
        DATA,
        (
            part(
                "nine-layers",
                "ldc-table3",
                (RecipeRow("GO4Align", "go4align"), RecipeRow("FAMO", _LINE["FAMO"]), RecipeRow("LS", "ls")),
                losses_too=True,
                further=("Training losses, means over the last epoch; the paper does not say which losses.",),
            ),
            _ldc_part("ldc-table3", (ldc_row("LDC-MTL"),), losses_too=True),
        ),
        family="celeba",
    ),
    Recipe(
        "ldc-table4",
        "LDC-MTL, Table 4",
        "LDC-MTL's λ, on CelebA",
        DATA,
        (
            part("nine-layers", "ldc-table4", (RecipeRow("FairGrad", "fairgrad"),)),
            _ldc_part("ldc-table4", tuple(ldc_row(f"LDC-MTL λ={value:g}", value) for value in (0.005, 0.008, 0.01, 0.02))),
        ),
        family="celeba",
    ),
    Recipe(
        "ldc-table10",
        "LDC-MTL, Table 10",
        "The order of the tasks, on CelebA",
        DATA,
        (
            _ldc_part("ldc-table10", (ldc_row("LDC-MTL"),)),
            *(
                part(
                    f"reordered-{seed}",
                    "ldc-table10",
                    (ldc_row(f"LDC-MTL reordered, seed {seed}"),),
                    lr=1e-3,
                    stepped=True,
                    order=seed,
                    further=(*_LDC, "The paper's permutations are not published; these are others."),
                )
                for seed in (0, 1, 2)
            ),
        ),
        family="celeba",
    ),
)
COST_PART = part("celeba", "cost-table3-celeba", rows("cost-table3-celeba", _LINE, COST=cost(start=START)), further=_COST)
