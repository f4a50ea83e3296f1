"""Encoder and head, the bilevel problem between them, and the episodes they learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel.problem import BilevelProblem
from equipoise.errors import InputError
from equipoise_papers.applications.attack import PGD
from equipoise_papers.applications.digit_images import DigitImages
from equipoise_papers.applications.few_shot.settings import FewShotSettings

__all__ = ["Encoder", "Episode", "Episodes", "head", "problem", "split_classes"]


class Episode(NamedTuple):
    """One task; labels are 0 … N − 1 in an order drawn for this episode.

    Attributes:
        support: N·k images to learn from.
        query: images of the same classes to be judged on; none of them is in ``support``.
        classes: what the labels stand for in the data set.
        rows: of ``support`` and ``query`` in the data set.
    """

    support: DigitImages
    query: DigitImages
    classes: tuple[int, ...]
    rows: tuple[Tensor, Tensor]


class Episodes:
    """Draws episodes of some classes of a data set, without end.

    Args:
        images: the data set.
        classes: which of its classes take part.
        ways: N, classes of an episode.
        shots: k, support images of a class.
        queries: query images of a class.
        seed: of everything that is drawn.

    Raises:
        InputError: fewer classes than ``ways``, a class named twice, or one with too few images.

    Example:
        >>> data = DigitImages(torch.rand(30, 1, 2, 2), torch.arange(30) % 3)
        >>> episode = Episodes(data, [0, 2], ways=2, shots=1, queries=4, seed=0).draw()
        >>> sorted(episode.classes), episode.support.labels.tolist(), tuple(episode.query.pixels.shape)
        ([0, 2], [0, 1], (8, 1, 2, 2))
    """

    def __init__(self, images: DigitImages, classes: Sequence[int], *, ways: int, shots: int, queries: int, seed: int) -> None:
        if min(ways, shots, queries) < 1:
            raise InputError(f"ways, shots and queries must be at least 1; got {ways}, {shots} and {queries}")
        if len(set(classes)) < len(classes) or len(classes) < ways:
            raise InputError(f"{ways} ways need at least that many different classes; got {list(classes)}")
        self._rows = {int(label): (images.labels == label).nonzero().flatten() for label in classes}
        for label, rows in self._rows.items():
            if len(rows) < shots + queries:
                raise InputError(f"class {label} has {len(rows)} images; {shots} shots and {queries} queries need more")
        self._images = images
        self._sizes = (ways, shots, queries)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Episode:
        """The next episode."""
        ways, shots, queries = self._sizes
        labels = list(self._rows)
        order = torch.randperm(len(labels), generator=self._generator)[:ways].tolist()
        classes = tuple(labels[position] for position in order)
        support, query = [], []
        for label in classes:
            own = self._rows[label]
            drawn = own[torch.randperm(len(own), generator=self._generator)[: shots + queries]]
            support.append(drawn[:shots])
            query.append(drawn[shots:])
        rows = torch.cat(support), torch.cat(query)
        return Episode(
            DigitImages(self._images.pixels[rows[0]], torch.arange(ways).repeat_interleave(shots)),
            DigitImages(self._images.pixels[rows[1]], torch.arange(ways).repeat_interleave(queries)),
            classes,
            rows,
        )


def split_classes(base: int, seed: int, classes: int = 10) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits the classes 0 … classes − 1 into base and novel ones at random.

    Example:
        >>> base, novel = split_classes(6, seed=0)
        >>> sorted(base + novel), len(base)
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 6)
    """
    if not 1 <= base < classes:
        raise InputError(f"base must be from 1 to {classes - 1}, so that both sides have classes; got {base}")
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(sorted(order[:base])), tuple(sorted(order[base:]))


class Encoder(nn.Sequential):
    """``[N, 1, 28, 28]`` → ``[N, channels]`` by four blocks of 3×3 convolution, norm, ReLU, 2×2 maximum (Vinyals et al., 2016).

    The norm is over groups of one sample instead of the batch, so that an image's features are its own; features are normalised
    as well (layer norm), so that a head's step size means the same whatever the encoder does.
    """

    def __init__(self, channels: int = 16) -> None:
        blocks = []
        for inputs in (1, channels, channels, channels):
            convolution = nn.Conv2d(inputs, channels, 3, padding=1)
            blocks += [convolution, nn.GroupNorm(1, channels), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*blocks, nn.Flatten(), nn.LayerNorm(channels))


def head(ways: int, features: int = 16) -> nn.Linear:
    """A linear classifier of the features with all entries 0: where every episode starts."""
    made = nn.Linear(features, ways)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made


def problem(
    encoder: nn.Module, classifier: nn.Module, settings: FewShotSettings, objectives: Sequence[str] = ("clean", "robust")
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
            sets["robust"] = DigitImages(perturbed, episode.query.labels)
        return {name: _loss(encoder, classifier, sets[name]) for name in objectives}

    return BilevelProblem(lower, upper, (encoder, classifier), objectives=tuple(objectives))


def _loss(encoder: nn.Module, classifier: nn.Module, images: DigitImages) -> Tensor:
    return F.cross_entropy(classifier(encoder(images.pixels)), images.labels)
