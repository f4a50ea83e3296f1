"""Encoder and head, and the bilevel problem between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel.problem import BilevelProblem
from equipoise.errors import InputError
from equipoise_papers.applications.attack import PGD
from equipoise_papers.applications.digit_images import Images
from equipoise_papers.applications.few_shot.episodes import Episode
from equipoise_papers.applications.few_shot.settings import Settings

__all__ = ["Encoder", "head", "problem"]

FEATURES = 32


class Encoder(nn.Sequential):
    """Two 3×3 convolutions (8 and 16 channels, pooled after each) and a linear layer: ``[N, 1, 8, 8]`` → ``[N, 32]``.

    Without batch statistics, so that an image's features are its own; features are normalised (layer norm), so that a head's
    step size means the same whatever the encoder does.
    """

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, FEATURES),
            nn.LayerNorm(FEATURES),
        )


def head(ways: int) -> nn.Linear:
    """A linear classifier of the features with all entries 0: where every episode starts."""
    made = nn.Linear(FEATURES, ways)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made


def problem(
    encoder: nn.Module, classifier: nn.Module, settings: Settings, objectives: Sequence[str] = ("clean", "robust")
) -> BilevelProblem:
    """Eq. 3.34: min over the encoder of (clean, robust) query loss, where the head minimises the support loss.

    Batches of both levels are episodes.

    Args:
        encoder: α.
        classifier: ω.
        settings: the numbers.
        objectives: which of ``"clean"`` and ``"robust"``.

    Raises:
        InputError: another objective, or none.
    """
    if not objectives or not set(objectives) <= {"clean", "robust"}:
        raise InputError(f'objectives must be "clean", "robust" or both; got {list(objectives)}')
    attack = PGD(settings.radius, settings.attack_steps)

    def lower(encoder: nn.Module, classifier: nn.Module, episode: Episode) -> Tensor:
        decay = torch.stack([parameter.square().sum() for parameter in classifier.parameters()]).sum()
        return _loss(encoder, classifier, episode.support) + 0.5 * settings.decay * decay

    def upper(encoder: nn.Module, classifier: nn.Module, episode: Episode) -> dict[str, Tensor]:
        sets = {"clean": episode.query}
        if "robust" in objectives:
            perturbed = attack(lambda images: classifier(encoder(images)), *episode.query)
            sets["robust"] = Images(perturbed, episode.query.labels)
        return {name: _loss(encoder, classifier, sets[name]) for name in objectives}

    return BilevelProblem(lower, upper, (encoder, classifier), objectives=tuple(objectives))


def _loss(encoder: nn.Module, classifier: nn.Module, images: Images) -> Tensor:
    return F.cross_entropy(classifier(encoder(images.pixels)), images.labels)
