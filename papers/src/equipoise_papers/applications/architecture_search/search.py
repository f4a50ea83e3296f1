"""The bilevel problem of the search, and its solution by MOML or FORUM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel.base import BilevelSolver
from equipoise.bilevel.forum import FORUM
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.problem import BilevelProblem
from equipoise.errors import InputError
from equipoise_papers.applications.architecture_search.cell import parameter_counts, size_loss
from equipoise_papers.applications.architecture_search.settings import ArchitectureSearchSettings
from equipoise_papers.applications.attack import PGD
from equipoise_papers.applications.digit_images import DigitImages, digit_images

__all__ = ["OBJECTIVES", "Split", "problem", "search", "split_digits"]

OBJECTIVES = ("clean", "robust", "size")


class Split(NamedTuple):
    """Training and validation images of the search, and test images that it never sees."""

    training: DigitImages
    validation: DigitImages
    test: DigitImages


def split_digits(seed: int, images: DigitImages | None = None) -> Split:
    """Splits scikit-learn's digits at random: 40 % for the weights, 30 % for the architecture, the rest for the test.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    data = digit_images() if images is None else images
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    first, second = int(0.4 * len(order)), int(0.7 * len(order))
    return Split(data.take(order[:first]), data.take(order[first:second]), data.take(order[second:]))


def problem(
    logits: Tensor,
    network: nn.Module,
    settings: ArchitectureSearchSettings,
    wished: float,
    objectives: Sequence[str] = OBJECTIVES,
) -> BilevelProblem:
    """Eq. 3.35: min over α of (validation loss, its attacked loss, |N̂ − L|), where ω minimises the training loss.

    Batches of both levels are :class:`DigitImages`.

    Args:
        logits: α ``[edges, operations]``.
        network: ω, a :class:`SearchNetwork`.
        settings: the numbers.
        wished: L, in parameters of the cell's operations.
        objectives: which of ``"clean"``, ``"robust"`` and ``"size"``.

    Raises:
        InputError: other objectives, or none.
    """
    if not objectives or not set(objectives) <= set(OBJECTIVES):
        raise InputError(f"objectives must be some of {', '.join(OBJECTIVES)}; got {list(objectives)}")
    attack = PGD(settings.radius, steps=1, step_size=settings.radius or None)  # FGSM
    counts = parameter_counts(settings.channels)

    def lower(logits: Tensor, network: nn.Module, batch: DigitImages) -> Tensor:
        return F.cross_entropy(network(batch.pixels, logits), batch.labels)

    def upper(logits: Tensor, network: nn.Module, batch: DigitImages) -> dict[str, Tensor]:
        values = {}
        if "clean" in objectives:
            values["clean"] = F.cross_entropy(network(batch.pixels, logits), batch.labels)
        if "robust" in objectives:
            perturbed = attack(lambda images: network(images, logits), *batch)
            values["robust"] = F.cross_entropy(network(perturbed, logits), batch.labels)
        if "size" in objectives:
            values["size"] = size_loss(logits, counts, wished)
        return values

    return BilevelProblem(lower, upper, (logits, network), objectives=tuple(objectives))


def search(
    logits: Tensor,
    network: nn.Module,
    split: Split,
    settings: ArchitectureSearchSettings,
    wished: float,
    *,
    solver: str = "moml",
    objectives: Sequence[str] = OBJECTIVES,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Changes α and ω in place.

    Args:
        logits: α.
        network: ω.
        split: training and validation images.
        settings: the numbers.
        wished: L.
        solver: ``"moml"`` with MGDA, or ``"forum"``.
        objectives: of the upper level.
        seed: of the batches.

    Returns:
        The upper objectives' values at every step.

    Raises:
        InputError: an unknown solver or objective.
    """
    posed = problem(logits, network, settings, wished, objectives)
    of_logits = torch.optim.Adam([logits], settings.logits_lr)
    made: BilevelSolver
    if solver == "moml":
        made = MOML(posed, of_logits, lower_steps=settings.lower_steps, lower_lr=settings.lower_lr)
    elif solver == "forum":
        of_weights = torch.optim.SGD(network.parameters(), settings.weights_lr)
        made = FORUM(
            posed, [of_logits, of_weights], lower_steps=settings.lower_steps, lower_lr=settings.lower_lr, rho=settings.rho
        )
    else:
        raise InputError(f'unknown solver "{solver}"; expected moml or forum')
    training = _batches(split.training, settings.batch_size, seed)
    validation = _batches(split.validation, settings.batch_size, seed + 1_000_000)
    history = []
    for _ in range(settings.steps):
        values = made.step(training, next(validation))
        history.append({name: float(value) for name, value in values.items()})
    return history


def _batches(images: DigitImages, size: int, seed: int) -> Iterator[DigitImages]:
    """Random batches without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield images.take(torch.randint(len(images.labels), (size,), generator=generator))
