"""Two data sets with half of their training labels wrong, and one run on them: a method, a seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, BilevelSolver, MoCoBilevel, endless
from equipoise.data import TensorBatches
from equipoise.errors import InputError, require
from equipoise.nets import CleaningNet
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.hyper_cleaning.settings import HyperCleaningSettings

__all__ = ["CleaningData", "HyperCleaningOutcome", "load", "train"]

_CLASSES = 10
Batch = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class CleaningData:
    """Splits of every data set: task → split → ``image`` ``[N, pixels]``, ``label`` ``[N]``, ``row`` ``[N]``.

    Attributes:
        splits: the splits ``train`` (labels as corrupted), ``first`` and ``second`` (validation) and ``test``.
        corrupted: task → which training labels are wrong, ``[N]`` bool.
    """

    splits: dict[str, dict[str, dict[str, Tensor]]]
    corrupted: dict[str, Tensor]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return tuple(self.splits)

    def batches(self, split: str, size: int, seed: int) -> Iterator[Batch]:
        """Batches of a split without end, ``size`` samples of each data set, every data set in its own order."""
        own = {
            task: endless(TensorBatches(splits[split], size, shuffle=True, seed=seed + 1000 * position))
            for position, (task, splits) in enumerate(self.splits.items())
        }
        while True:
            yield {task: next(batches) for task, batches in own.items()}


def load(settings: HyperCleaningSettings, seed: int) -> CleaningData:
    """Draws the splits and corrupts the training labels, all by the seed.

    Args:
        settings: which data, how many samples, and how many of them corrupted.
        seed: of everything that is drawn.

    Raises:
        InputError: no folder, or fewer samples than asked for.
        DataSetError: files that are missing or broken.
    """
    splits, corrupted = {}, {}
    for position, (task, (images, labels)) in enumerate(_images(settings.data, settings.folder).items()):
        generator = np.random.default_rng([seed, position])
        needed = sum(settings.samples)
        if len(images) < needed:
            raise InputError(f'"{task}" has {len(images)} samples; the splits {settings.samples} take {needed}')
        if images.shape[1] != settings.sizes[0]:
            raise InputError(f'images of "{task}" have {images.shape[1]} pixels; sizes says {settings.sizes[0]}')
        order = torch.from_numpy(generator.permutation(len(images))[:needed])
        own = {}
        for split, rows in zip(("train", "first", "second", "test"), order.split(list(settings.samples)), strict=True):
            own[split] = {"image": images[rows], "label": labels[rows].clone(), "row": torch.arange(len(rows))}
        wrong = torch.zeros(settings.samples[0], dtype=torch.bool)
        wrong[torch.from_numpy(generator.permutation(len(wrong))[: round(settings.corrupted * len(wrong))])] = True
        # Another class: at least one further, at most nine.
        shift = torch.from_numpy(generator.integers(1, _CLASSES, size=int(wrong.sum())))
        own["train"]["label"][wrong] = (own["train"]["label"][wrong] + shift) % _CLASSES
        splits[task], corrupted[task] = own, wrong
    return CleaningData(splits, corrupted)


def _images(source: str, folder: Path | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Task → images ``[N, pixels]`` in [0, 1] and true labels ``[N]``."""
    if source == "digits":
        bundled = require("sklearn.datasets", "study").load_digits()
        upright = np.asarray(bundled.images, dtype=np.float32) / 16.0
        labels = torch.from_numpy(np.asarray(bundled.target, dtype=np.int64))
        return {
            name: (torch.from_numpy(np.ascontiguousarray(images)).flatten(1), labels)
            for name, images in (("upright", upright), ("turned", np.rot90(upright, axes=(1, 2))))
        }
    if folder is None:
        raise InputError('data "mnist" needs the folder that holds MNIST and FashionMNIST, each with its IDX files')
    from equipoise.data.mnist import MNIST, FashionMNIST

    found = {}
    for kind in (MNIST, FashionMNIST):
        halves = [kind(folder / kind.__name__, split).tensors() for split in ("train", "test")]
        images, labels = (torch.cat([half[name] for half in halves]) for name in ("image", "label"))
        found[kind.__name__] = (images.flatten(1), labels)
    return found


@dataclass(frozen=True)
class HyperCleaningOutcome:
    """What one run gave.

    Attributes:
        method: which.
        seed: which.
        accuracy: test accuracy in percent, by data set, of the model that was best on the second validation set.
        f1: macro F1 in percent, the same.
        chosen: the outer step of that model.
        last: test accuracy in percent of the model after the last step, by data set.
        auc: area under the ROC curve of the learned weights against "this label is clean"; empty without weights.
        roc: by data set, the curve's false and true positive rates; empty without weights.
        seconds: of an outer step, mean.
        history: validation accuracy (second set, mean of the data sets) at every look.
    """

    method: str
    seed: int
    accuracy: dict[str, float]
    f1: dict[str, float]
    chosen: int
    last: dict[str, float]
    auc: dict[str, float]
    roc: dict[str, tuple[list[float], list[float]]]
    seconds: float
    history: list[float]


def train(method: str, seed: int, settings: HyperCleaningSettings, told: Told = silent) -> HyperCleaningOutcome:
    """Trains one model.

    Args:
        method: ``"noisy"`` trains on the labels as they are, with as many gradient steps as the others take on ω in the lower
            level; the others learn a weight for every training sample.
        seed: of data, parameters and order.
        settings: the numbers.
        told: takes a line now and then.
    """
    data = load(settings, seed)
    torch.manual_seed(seed)
    model = CleaningNet(data.tasks, sizes=settings.sizes)
    weights = {task: torch.zeros(settings.samples[0]) for task in data.tasks}
    step = _plain(model, data, settings, seed) if method == "noisy" else _bilevel(method, model, weights, data, settings, seed)
    best, chosen, kept, kept_weights = -1.0, 0, model.state_dict(), weights
    history, seconds = [], 0.0
    for number in range(1, settings.steps + 1):
        started = time.perf_counter()
        step()
        seconds += time.perf_counter() - started
        if number % settings.evaluate_every == 0 or number == settings.steps:
            score = sum(_scores(model, data, "second")[0].values()) / len(data.tasks)
            history.append(score)
            if score > best:
                best, chosen = score, number
                kept = {name: value.clone() for name, value in model.state_dict().items()}
                kept_weights = {task: value.detach().clone() for task, value in weights.items()}
            if number % (10 * settings.evaluate_every) == 0:
                told(f"{method}, seed {seed}, step {number}: {score:.1f} % on the second validation set")
    last, _ = _scores(model, data, "test")
    model.load_state_dict(kept)
    accuracy, f1 = _scores(model, data, "test")
    auc, roc = ({}, {}) if method == "noisy" else _curves(kept_weights, data)
    return HyperCleaningOutcome(method, seed, accuracy, f1, chosen, last, auc, roc, seconds / settings.steps, history)


def _losses(model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Every sample's loss, ``[N]`` by data set."""
    logits = model({task: own["image"] for task, own in batch.items()})
    return {task: F.cross_entropy(out, batch[task]["label"], reduction="none") for task, out in logits.items()}


def _plain(model: nn.Module, data: CleaningData, settings: HyperCleaningSettings, seed: int) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(model.parameters(), settings.lower_lr)
    batches = data.batches("train", settings.batch_size, seed)

    def step() -> None:
        for _ in range(settings.lower_steps):
            optimizer.zero_grad()
            torch.stack([own.mean() for own in _losses(model, next(batches)).values()]).sum().backward()
            optimizer.step()

    return step


def _bilevel(
    method: str, model: nn.Module, weights: dict[str, Tensor], data: CleaningData, settings: HyperCleaningSettings, seed: int
) -> Callable[[], Any]:
    def lower(weights: dict[str, Tensor], model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> Tensor:
        own = _losses(model, batch)
        return torch.stack([(torch.sigmoid(weights[task][batch[task]["row"]]) * own[task]).mean() for task in own]).sum()

    def upper(weights: dict[str, Tensor], model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        return {task: own.mean() for task, own in _losses(model, batch).items()}

    problem = BilevelProblem(lower, upper, (weights, model), objectives=data.tasks)
    solver = _solver(method, problem, model, weights, settings)
    training = data.batches("train", settings.batch_size, seed)
    validation = data.batches("first", settings.batch_size, seed + 1)
    return lambda: solver.step(training, next(validation))


def _solver(
    method: str, problem: BilevelProblem, model: nn.Module, weights: dict[str, Tensor], settings: HyperCleaningSettings
) -> BilevelSolver:
    options: dict[str, Any] = {"lower_steps": settings.lower_steps, "lower_lr": settings.lower_lr, "start": settings.start}
    of_weights = torch.optim.SGD(weights.values(), settings.weights_lr)
    if method in ("moml", "moco"):
        return (MOML if method == "moml" else MoCoBilevel)(problem, of_weights, **options)
    options["constraint_batches"] = settings.constraint_batches
    both = [of_weights, torch.optim.SGD(model.parameters(), settings.model_lr)]
    if method == "bvfim":
        return BVFIM(problem, both, **options)
    if method == "bome":
        return BOME(problem, both, rho=settings.rho, **options)
    return FORUM(problem, both, rho=settings.rho, formulation=settings.formulation, **options)


@torch.no_grad()
def _scores(model: nn.Module, data: CleaningData, split: str) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy and macro F1 in percent, by data set."""
    f1_score = require("sklearn.metrics", "study").f1_score
    accuracy, f1 = {}, {}
    answers = model({task: splits[split]["image"] for task, splits in data.splits.items()})
    for task, logits in answers.items():
        truth, guess = data.splits[task][split]["label"], logits.argmax(1)
        accuracy[task] = 100 * float((guess == truth).double().mean())
        f1[task] = 100 * float(f1_score(truth.numpy(), guess.numpy(), average="macro"))
    return accuracy, f1


def _curves(
    weights: dict[str, Tensor], data: CleaningData
) -> tuple[dict[str, float], dict[str, tuple[list[float], list[float]]]]:
    """How well the weights tell clean from corrupted labels."""
    metrics = require("sklearn.metrics", "study")
    auc, roc = {}, {}
    for task, own in weights.items():
        clean = (~data.corrupted[task]).numpy()
        false, true, _ = metrics.roc_curve(clean, own.numpy())
        auc[task] = float(metrics.auc(false, true))
        every = max(1, len(false) // 200)
        thinned = [*range(0, len(false) - 1, every), len(false) - 1]
        roc[task] = (false[thinned].tolist(), true[thinned].tolist())
    return auc, roc
