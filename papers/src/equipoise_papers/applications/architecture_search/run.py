"""One run, which searches, trains what was found from scratch and tests it, and the tables of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from equipoise.errors import InputError
from equipoise.markdown import table
from equipoise_papers.applications.architecture_search.cell import (
    OPERATIONS,
    FoundNetwork,
    SearchNetwork,
    chosen,
    edges,
    expected_parameters,
    number_of_parameters,
    parameter_counts,
)
from equipoise_papers.applications.architecture_search.search import OBJECTIVES, Split, search, split_digits
from equipoise_papers.applications.architecture_search.settings import ArchitectureSearchSettings
from equipoise_papers.applications.attack import PGD
from equipoise_papers.commands import Told, silent
from equipoise_papers.tables import mean_and_spread

__all__ = ["METHODS", "ArchitectureSearchOutcome", "make", "run", "show"]

METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "darts": ("moml", ("clean",)),
    "moml": ("moml", OBJECTIVES),
    "forum": ("forum", OBJECTIVES),
}
"""Name → solver and upper objectives; DARTS has the first objective alone and does not know L."""


@dataclass(frozen=True)
class ArchitectureSearchOutcome:
    """What one run gave.

    Attributes:
        method: of :data:`METHODS`.
        seed: of split, weights and batches.
        wished: L.
        expected: N̂ of eq. 3.36 at the end of the search.
        parameters: N of the architecture found; both of the cell's operations alone.
        accuracy: test accuracy in percent of the architecture found, trained from scratch.
        robust_accuracy: the same on PGD-perturbed test images.
        architecture: operations found, one an edge.
    """

    method: str
    seed: int
    wished: float
    expected: float
    parameters: int
    accuracy: float
    robust_accuracy: float
    architecture: tuple[str, ...]


def run(method: str, wished: float, seed: int, settings: ArchitectureSearchSettings) -> ArchitectureSearchOutcome:
    """Searches, trains and tests.

    Args:
        method: of :data:`METHODS`.
        wished: L, in parameters of the cell's operations.
        seed: of everything.
        settings: the numbers.

    Raises:
        InputError: an unknown method, or an L that no cell can have.
        MissingExtraError: scikit-learn is not installed.
    """
    if method not in METHODS:
        raise InputError(f'unknown method "{method}"; expected one of {", ".join(METHODS)}')
    split = split_digits(seed)
    logits = torch.zeros(len(edges(settings.nodes)), len(OPERATIONS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SearchNetwork(settings.channels, settings.nodes)
    solver, objectives = METHODS[method]
    search(logits, network, split, settings, wished, solver=solver, objectives=objectives, seed=seed)
    counts, found = parameter_counts(settings.channels), logits.detach()
    architecture = chosen(found)
    accuracy, robust = _judge(architecture, split, settings, seed)
    expected = float(expected_parameters(found, counts))
    return ArchitectureSearchOutcome(
        method, seed, wished, expected, number_of_parameters(found, counts), accuracy, robust, architecture
    )


def _judge(architecture: tuple[str, ...], split: Split, settings: ArchitectureSearchSettings, seed: int) -> tuple[float, float]:
    """Accuracy in percent on clean and on perturbed test images, after training on all that the search saw."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = FoundNetwork(architecture, settings.channels, settings.nodes)
    pixels, labels = (torch.cat(both) for both in zip(split.training, split.validation, strict=True))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(settings.training_steps):
        rows = torch.randint(len(labels), (settings.batch_size,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(pixels[rows]), labels[rows]).backward()
        optimizer.step()
    perturbed = PGD(settings.radius, settings.test_attack_steps)(network, *split.test)
    with torch.no_grad():
        clean, robust = (
            100.0 * float((network(images).argmax(1) == split.test.labels).double().mean())
            for images in (split.test.pixels, perturbed)
        )
    return clean, robust


def make(settings: ArchitectureSearchSettings, told: Told = silent) -> str:
    """Searches by every method, for every size (DARTS, which does not know it, once), from every seed.

    Args:
        settings: which, and the numbers.
        told: takes a line on each search that begins.

    Returns:
        The tables of :func:`show`.

    Raises:
        InputError: an unknown method, or a size that no cell can have.
        MissingExtraError: scikit-learn is not installed.
    """
    outcomes = []
    for seed in settings.seeds:
        for method in settings.methods:
            for size in settings.sizes[:1] if method == "darts" else dict.fromkeys(settings.sizes):
                told(f"{method}, L = {size}, seed {seed}")
                outcomes.append(run(method, size, seed, settings))
    return show(outcomes, settings)


def show(outcomes: Sequence[ArchitectureSearchOutcome], settings: ArchitectureSearchSettings) -> str:
    """One row per method and L: means over the seeds (± standard deviation), then the architectures of the first seed."""
    groups: dict[tuple[str, str], list[ArchitectureSearchOutcome]] = {}
    for outcome in outcomes:
        wished = "none" if outcome.method == "darts" else f"{outcome.wished:g}"
        groups.setdefault((outcome.method, wished), []).append(outcome)
    rows = [
        [
            method,
            wished,
            mean_and_spread([outcome.expected for outcome in own], 0),
            mean_and_spread([outcome.parameters for outcome in own], 0),
            mean_and_spread([outcome.accuracy for outcome in own]),
            mean_and_spread([outcome.robust_accuracy for outcome in own]),
        ]
        for (method, wished), own in groups.items()
    ]
    first = outcomes[0].seed
    names = [f"{source}→{target}" for source, target in edges(settings.nodes)]
    found = [[method, wished, *own[0].architecture] for (method, wished), own in groups.items() if own[0].seed == first]
    seeds = len({outcome.seed for outcome in outcomes})
    return "\n".join(
        [
            f"cells of {settings.nodes} nodes and {settings.channels} channels, {settings.steps} steps, attacks within "
            f"{settings.radius:g}, {seeds} seed{'s' * (seeds > 1)}; parameters of the cell's operations",
            "",
            table(["method", "L", "expected (3.36)", "found", "accuracy %", "robust %"], rows),
            "",
            f"found with seed {first}:",
            "",
            table(["method", "L", *names], found),
        ]
    )
