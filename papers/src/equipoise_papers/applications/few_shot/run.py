"""One run, an encoder learned on episodes of base classes and judged on novel ones, and the table of all runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from equipoise.bilevel.levels import Levels
from equipoise.bilevel.lower import descend
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.problem import BilevelProblem
from equipoise.bilevel.rules import Descent
from equipoise.errors import InputError
from equipoise.markdown import table
from equipoise_papers.applications.attack import PGD
from equipoise_papers.applications.characters import characters
from equipoise_papers.applications.digit_images import DigitImages
from equipoise_papers.applications.few_shot.learner import Encoder, Episodes, head, problem, split_classes
from equipoise_papers.applications.few_shot.settings import FewShotSettings
from equipoise_papers.commands import Told, silent
from equipoise_papers.tables import mean_and_spread

__all__ = ["METHODS", "FewShotOutcome", "evaluate", "make", "run", "show", "train"]

METHODS: dict[str, tuple[tuple[str, ...], str]] = {
    "untrained": ((), ""),
    "clean": (("clean",), "mgda"),
    "robust": (("robust",), "mgda"),
    "both-ls": (("clean", "robust"), "ls"),
    "both-mgda": (("clean", "robust"), "mgda"),
}
"""Name → upper objectives, and the balancer that combines their hypergradients."""


@dataclass(frozen=True)
class FewShotOutcome:
    """Means over episodes of novel classes.

    Attributes:
        method: of :data:`METHODS`.
        seed: of class split, encoder and episodes.
        clean_accuracy: in percent.
        robust_accuracy: in percent, of PGD-perturbed query images.
        clean_loss: cross-entropy.
        robust_loss: the same of perturbed query images.
        share: mean share of the robust objective in the weights of training; ``None`` where there are not two.
    """

    method: str
    seed: int
    clean_accuracy: float
    robust_accuracy: float
    clean_loss: float
    robust_loss: float
    share: float | None


def run(method: str, seed: int, settings: FewShotSettings, images: DigitImages | None = None) -> FewShotOutcome:
    """Trains on base classes and evaluates on novel ones; of one seed, all methods meet the same classes and episodes.

    Args:
        method: of :data:`METHODS`.
        seed: of everything.
        settings: the numbers.
        images: classes of 28×28 images, ``characters`` many; rendered ones if left out.

    Raises:
        InputError: an unknown method.
    """
    if method not in METHODS:
        raise InputError(f'unknown method "{method}"; expected one of {", ".join(METHODS)}')
    data = characters(settings.characters) if images is None else images
    base, novel = split_classes(settings.base_classes, seed, settings.characters)
    sizes = {"ways": settings.ways, "shots": settings.shots, "queries": settings.queries}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(settings.channels)
    objectives, balancer = METHODS[method]
    share = None
    if objectives:
        share = train(encoder, Episodes(data, base, seed=seed, **sizes), settings, objectives, balancer)
    clean, robust = evaluate(encoder, Episodes(data, novel, seed=seed + 1_000_000, **sizes), settings)
    return FewShotOutcome(method, seed, clean[0], robust[0], clean[1], robust[1], share)


def train(
    encoder: nn.Module,
    episodes: Episodes,
    settings: FewShotSettings,
    objectives: tuple[str, ...] = ("clean", "robust"),
    balancer: str = "mgda",
    told: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> float | None:
    """Meta-trains an encoder in place by MOML, the head starting from 0 in every episode.

    Args:
        encoder: α.
        episodes: of the base classes.
        settings: the numbers.
        objectives: of the upper level.
        balancer: combines their hypergradients.
        told: called with the step and the objectives' values after every step.

    Returns:
        Mean share of the last objective in the balancer's weights, if there are two.
    """
    solver = MOML(
        problem(encoder, head(settings.ways, settings.channels), settings, objectives),
        torch.optim.Adam(encoder.parameters(), settings.lr),
        lower_steps=settings.lower_steps,
        lower_lr=settings.lower_lr,
        balancer=balancer,
        start="cold",
    )
    shares = []
    for step in range(settings.steps):
        episode = episodes.draw()
        values = solver.step([episode] * settings.lower_steps, episode)
        assert solver.last is not None
        if len(objectives) == 2 and solver.last.weights is not None:
            shares.append(float(solver.last.weights[-1] / solver.last.weights.sum()))
        told(step, {name: float(value) for name, value in values.items()})
    return sum(shares) / len(shares) if shares else None


def evaluate(
    encoder: nn.Module, episodes: Episodes, settings: FewShotSettings
) -> tuple[tuple[float, float], tuple[float, float]]:
    """A head is learned in every episode; accuracy in percent and loss of clean and of perturbed query images, mean.

    Returns:
        (accuracy, loss) of clean and of perturbed images.
    """
    classifier = head(settings.ways, settings.channels)
    judged: BilevelProblem = problem(encoder, classifier, settings, ("clean",))
    attack = PGD(settings.radius, settings.test_attack_steps)
    start = [parameter.detach().clone() for parameter in classifier.parameters()]
    sums = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(settings.test_episodes):
        episode = episodes.draw()
        with torch.no_grad():
            for parameter, first in zip(classifier.parameters(), start, strict=True):
                parameter.copy_(first)
        rule = Descent(settings.lower_lr)
        answer = descend(Levels(judged), judged.here(), [(episode,)] * settings.lower_steps, rule, step=0).point
        with torch.no_grad():
            for parameter, value in zip(classifier.parameters(), answer.lower, strict=True):
                parameter.copy_(value)
        perturbed = attack(lambda images: classifier(encoder(images)), *episode.query)
        for row, pixels in enumerate((episode.query.pixels, perturbed)):
            with torch.no_grad():
                logits = classifier(encoder(pixels))
            sums[row, 0] += 100.0 * (logits.argmax(1) == episode.query.labels).double().mean()
            sums[row, 1] += F.cross_entropy(logits, episode.query.labels)
    (clean, clean_loss), (robust, robust_loss) = (sums / settings.test_episodes).tolist()
    return (clean, clean_loss), (robust, robust_loss)


def make(settings: FewShotSettings, told: Told = silent) -> str:
    """Runs every method from every seed.

    Args:
        settings: which, and the numbers.
        told: takes a line on each run that begins.

    Returns:
        The table of :func:`show`.

    Raises:
        InputError: an unknown method.
    """
    outcomes = []
    for seed in settings.seeds:
        for method in settings.methods:
            told(f"{method}, seed {seed}")
            outcomes.append(run(method, seed, settings))
    return show(outcomes, settings)


def show(outcomes: Sequence[FewShotOutcome], settings: FewShotSettings) -> str:
    """One row per method: means over the seeds (± standard deviation)."""
    rows = []
    for method in dict.fromkeys(outcome.method for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.method == method]
        shares = [outcome.share for outcome in own if outcome.share is not None]
        rows.append(
            [
                method,
                mean_and_spread([outcome.clean_accuracy for outcome in own]),
                mean_and_spread([outcome.robust_accuracy for outcome in own]),
                mean_and_spread([outcome.clean_loss for outcome in own], 3),
                mean_and_spread([outcome.robust_loss for outcome in own], 3),
                mean_and_spread(shares, 2) if shares else "",
            ]
        )
    seeds = sorted({outcome.seed for outcome in outcomes})
    return "\n".join(
        [
            f"{settings.ways}-way {settings.shots}-shot on novel characters, PGD within {settings.radius:g}; {settings.steps} "
            f"meta-training episodes, {len(seeds)} seed{'s' * (len(seeds) > 1)} (each with other novel classes); chance is "
            f"{100 / settings.ways:.1f} %",
            "",
            table(["method", "clean %", "robust %", "clean loss", "robust loss", "weight of robust"], rows),
        ]
    )
