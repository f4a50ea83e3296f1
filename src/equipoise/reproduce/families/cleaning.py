"""Multi-task data hyper-cleaning of MNIST and FashionMNIST: the thesis' Table 3.2."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel import FORUM, MOML, BilevelProblem, BilevelSolver, MoCo
from equipoise.data import MNIST, FashionMNIST
from equipoise.data.samples import write_fashion_mnist_sample, write_mnist_sample
from equipoise.errors import InputError
from equipoise.metrics import ClassTally
from equipoise.nets import CleaningNet
from equipoise.reproduce.cost import Workload
from equipoise.reproduce.recipe import Recipe, Row, Setting, hyper
from equipoise.reproduce.runs_part import RunsPart

__all__ = ["RECIPES", "CleaningPart", "noisy_split"]

TASKS = ("mnist", "fashionmnist")
_READERS = {"mnist": MNIST, "fashionmnist": FashionMNIST}
_SIZES = {"train": 5000, "upper": 1000, "chosen": 1000, "test": 5000}
Rows = dict[str, Tensor]


@dataclass(frozen=True)
class CleaningPart(RunsPart):
    """A weight for each training image, half of which have wrong labels, learned so that clean images are classified well.

    Lower level: Σ_i 1/N_i Σ_j σ(α_ij) ℓ(ω; x_ij, y_ij) over both data sets. Upper level: the mean loss on clean images, an
    objective a data set. The model that is judged on the test split is the one that was best on a second clean split.
    """

    name: str
    table: str
    rows: tuple[Row, ...]
    workload: Workload
    network: str
    hyperparameters: Mapping[str, str]
    open_choices: tuple[str, ...] = ()
    baselines: bool = False
    subfolder: str = ""

    def identity(self, setting: Setting) -> dict[str, Any]:
        return {"smoke": setting.smoke}

    def write_sample(self, folder: Path) -> Path:
        write_mnist_sample(folder / "mnist", images=60, test_images=20)
        write_fashion_mnist_sample(folder / "fashionmnist", images=60, test_images=20, seed=1)
        return folder

    def run(self, setting: Setting, row: Row, seed: int, epochs: int | None, folder: Path) -> dict[str, float]:
        """Solves the bilevel problem; ``epochs`` are upper iterations here, 1200 in the thesis."""
        generator = torch.Generator().manual_seed(seed)
        sizes = {"train": 40, "upper": 10, "chosen": 10, "test": 20} if setting.smoke else _SIZES
        splits = {task: noisy_split(setting.folder() / task, _READERS[task], sizes, generator) for task in TASKS}
        splits = {
            task: {split: {name: part.to(setting.device) for name, part in own.items()} for split, own in both.items()}
            for task, both in splits.items()
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = CleaningNet(TASKS).to(setting.device)
        weights = {task: torch.zeros(sizes["train"], device=setting.device) for task in TASKS}
        problem = BilevelProblem(_lower(model, sizes["train"]), _upper(model), (weights, model), objectives=TASKS)
        batch = 10 if setting.smoke else 100
        iterations = 1200 if epochs is None else epochs
        solver = _solver(row.method, problem, weights, model, steps=2 if setting.smoke else 64)
        lower = {task: _batches(splits[task]["train"], batch, generator) for task in TASKS}
        upper = {task: _batches(splits[task]["upper"], batch, generator) for task in TASKS}
        best, kept = -1.0, copy.deepcopy(model.state_dict())
        for iteration in range(iterations):
            solver.step(_together(lower), {task: next(own) for task, own in upper.items()})
            if iteration % 10 == 9 or iteration == iterations - 1:
                values = _judged(model, splits, "chosen")
                mean = sum(values[f"{task} accuracy"] for task in TASKS) / len(TASKS)
                if mean > best:
                    best, kept = mean, copy.deepcopy(model.state_dict())
        model.load_state_dict(kept)
        return _judged(model, splits, "test")


def noisy_split(folder: Path, reader: type[MNIST], sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, Rows]:
    """Training images of which half have another class than their own, two clean validation splits, test images.

    Args:
        folder: the data set's.
        reader: of the data set.
        sizes: images of each split; all but ``"test"`` come from the training files.
        generator: draws images and wrong labels.

    Raises:
        InputError: the files hold fewer images.
    """
    training, test = reader(folder, "train"), reader(folder, "test")
    needed = sum(size for split, size in sizes.items() if split != "test")
    if needed > len(training) or sizes["test"] > len(test):
        raise InputError(
            f"{folder} holds {len(training)} training and {len(test)} test images; {needed} and {sizes['test']} are needed"
        )
    order = torch.randperm(len(training), generator=generator)
    found: dict[str, Rows] = {}
    for split, size in sizes.items():
        if split == "test":
            found[split] = test.tensors(torch.randperm(len(test), generator=generator)[:size])
            continue
        found[split] = training.tensors(order[:size])
        order = order[size:]
    labels = found["train"]["label"]
    wrong = torch.randperm(len(labels), generator=generator)[: len(labels) // 2]
    classes = len(training.classes)
    shift = torch.randint(1, classes, (len(wrong),), generator=generator)  # another class, never its own
    labels[wrong] = (labels[wrong] + shift) % classes
    found["train"]["row"] = torch.arange(len(labels))
    return found


def _lower(model: nn.Module, count: int) -> Any:
    def lower(weights: Mapping[str, Tensor], omega: Any, batch: Mapping[str, Rows]) -> Tensor:
        out = model({task: part["image"] for task, part in batch.items()})
        terms = []
        for task, part in batch.items():
            each = F.cross_entropy(out[task], part["label"], reduction="none")
            terms.append((torch.sigmoid(weights[task][part["row"]]) * each).mean())
        return torch.stack(terms).sum()

    return lower


def _upper(model: nn.Module) -> Any:
    def upper(weights: Any, omega: Any, batch: Mapping[str, Rows]) -> dict[str, Tensor]:
        out = model({task: part["image"] for task, part in batch.items()})
        return {task: F.cross_entropy(out[task], part["label"]) for task, part in batch.items()}

    return upper


def _solver(
    method: str, problem: BilevelProblem, weights: Mapping[str, Tensor], model: nn.Module, *, steps: int
) -> BilevelSolver:
    """With the thesis' settings: SGD at 10 for α and at 0.3 for ω, lower steps at 0.3, ρ = 0.5 for FORUM."""
    optimizer = torch.optim.SGD(
        [{"params": list(weights.values()), "lr": 10.0}, {"params": list(model.parameters()), "lr": 0.3}], lr=0.3
    )
    if method == "forum":
        return FORUM(problem, optimizer, lower_steps=steps, lower_step_size=0.3, rho=0.5)
    # These move ω by its lower steps; the outer optimizer has α alone.
    outer = torch.optim.SGD(list(weights.values()), lr=10.0)
    solver = MOML if method == "moml" else MoCo
    return solver(problem, outer, lower_steps=steps, lower_step_size=0.3)


def _batches(rows: Rows, size: int, generator: torch.Generator) -> Iterator[Rows]:
    """Mini-batches without end, every pass in another order; of all images where there are fewer than a batch."""
    count = len(rows["label"])
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=generator).to(rows["label"].device)
        for start in range(0, count - size + 1, size):
            yield {name: part[order[start : start + size]] for name, part in rows.items()}


def _together(batches: Mapping[str, Iterator[Rows]]) -> Iterator[dict[str, Rows]]:
    while True:
        yield {task: next(own) for task, own in batches.items()}


@torch.no_grad()
def _judged(model: nn.Module, splits: Mapping[str, Mapping[str, Rows]], split: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for task in TASKS:
        tally = ClassTally(10, f1=True)
        part = splits[task][split]
        tally.add(model({task: part["image"]})[task], part["label"])
        found |= tally.values(task)
    return found


RECIPES = (
    Recipe(
        "thesis-table3.2",
        "Thesis, Table 3.2",
        "Data hyper-cleaning of MNIST and FashionMNIST by three bilevel methods",
        "two folders in one: mnist/ and fashionmnist/, each with the four IDX files",
        (
            CleaningPart(
                "cleaning",
                "thesis-table3.2",
                (Row("MOML", "moml"), Row("MoCo", "moco"), Row("FORUM", "forum")),
                # 64 lower steps and an upper one on 200 images; unrolled methods go back through all of them.
                Workload(gigaflops=1.1e-3, batch=200, steps=65, epochs=1200, tasks=2, evaluated=0, overhead=0.003),
                "linear layers 784 → 512 → 256 that both data sets share, a linear head for each",
                hyper(
                    lower_level="SGD 0.3, 64 steps",
                    upper_level="SGD 10 for the weights, 0.3 for the network",
                    batch="100 of each data set",
                    iterations=1200,
                    FORUM="ρ = 0.5, β_k = (k + 1)^(−3/4)",
                    reported="the model that is best on the second validation split",
                ),
                (
                    "ρ means eq. 3.20's here; eq. 3.27's is half of it.",
                    "The best model is looked for after every tenth iteration.",
                    "MOML and MoCo move ω by their lower steps alone; the thesis' second optimizer for ω is FORUM's.",
                    "An epoch of --epochs is an upper iteration.",
                ),
            ),
        ),
        family="hyper-cleaning",
    ),
)
