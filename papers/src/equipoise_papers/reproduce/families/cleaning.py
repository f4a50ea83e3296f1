"""Multi-task data hyper-cleaning of MNIST and FashionMNIST: the thesis' Table 3.2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equipoise_papers.figures.hyper_cleaning.settings import MNIST
from equipoise_papers.figures.hyper_cleaning.train import train
from equipoise_papers.reproduce.cost import Workload
from equipoise_papers.reproduce.recipe import Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.runs_part import RunsPart
from equipoise_papers.samples import write_fashion_mnist_sample, write_mnist_sample

__all__ = ["RECIPES", "CleaningPart"]

_SMALL = replace(MNIST, samples=(40, 10, 10, 20), batch_size=10, lower_steps=2)


@dataclass(frozen=True)
class CleaningPart(RunsPart):
    """One run of :mod:`equipoise_papers.figures.hyper_cleaning` per row and seed, in the thesis' setting."""

    name: str
    table: str
    rows: tuple[RecipeRow, ...]
    workload: Workload
    network: str
    hyperparameters: Mapping[str, str]
    open_choices: tuple[str, ...] = ()
    baselines: bool = False
    subfolder: str = ""

    def identity(self, setting: Setting) -> dict[str, Any]:
        return {"smoke": setting.smoke}

    def write_sample(self, folder: Path) -> Path:
        write_mnist_sample(folder / "MNIST", images=60, test_images=20)
        write_fashion_mnist_sample(folder / "FashionMNIST", images=60, test_images=20, seed=1)
        return folder

    def run(self, setting: Setting, row: RecipeRow, seed: int, epochs: int | None, folder: Path) -> dict[str, float]:
        """Solves the bilevel problem; ``epochs`` are its outer steps, 1200 in the thesis."""
        settings = replace(_SMALL if setting.smoke else MNIST, folder=setting.folder())
        if epochs is not None:
            settings = replace(settings, steps=epochs)
        outcome = train(row.method, seed, settings)
        judged = {"accuracy": outcome.accuracy, "F1": outcome.f1}
        return {f"{task} {name}": value for name, own in judged.items() for task, value in own.items()}


RECIPES = (
    Recipe(
        "thesis-table3.2",
        "Thesis, Table 3.2",
        "Data hyper-cleaning of MNIST and FashionMNIST by three bilevel methods",
        "two folders in one: MNIST/ and FashionMNIST/, each with the four IDX files",
        (
            CleaningPart(
                "cleaning",
                "thesis-table3.2",
                (RecipeRow("MOML", "moml"), RecipeRow("MoCo", "moco"), RecipeRow("FORUM", "forum")),
                # 64 lower steps and an upper one on 200 images.
                Workload(gigaflops=1.1e-3, batch=200, steps=65, epochs=1200, tasks=2, evaluated=0, overhead=0.003),
                "linear layers 784 → 512 → 256 that both data sets share, a linear head for each",
                hyper(
                    lower_level="SGD 0.3, 64 steps",
                    upper_level="SGD 10 for the weights, 0.3 for the network",
                    batch="100 of each data set",
                    outer_steps=1200,
                    FORUM="ρ = 0.5, β_k = (k + 1)^(−3/4), ν of eq. 3.27 and 3.29 as printed (2φ)",
                    reported="the model that is best on the second validation split",
                ),
                (
                    "FORUM's ν is that of eq. 3.27 and 3.29 as printed, with 2φ; the conditions of eq. 3.20 give φ.",
                    "The best model is looked for after every tenth outer step.",
                    "MOML and MoCo move ω by their lower steps alone; the thesis' second optimizer for ω is FORUM's.",
                    "An epoch of --epochs is an outer step. A network this small is trained on the CPU, whatever --device is.",
                ),
            ),
        ),
        family="hyper-cleaning",
    ),
)
