"""Two data sets with half of their training labels wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equipoise.bilevel import endless
from equipoise.data import TensorBatches
from equipoise.errors import InputError, require
from equipoise_papers.figures.hyper_cleaning.settings import Settings

__all__ = ["SOURCES", "CleaningData", "load"]

SOURCES = ("digits", "mnist")
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


def load(source: str, folder: Path | None, settings: Settings, seed: int) -> CleaningData:
    """Draws the splits and corrupts the training labels, all by the seed.

    Args:
        source: ``"digits"``: the digits that come with scikit-learn, upright and turned by a quarter; ``"mnist"``: MNIST and
            FashionMNIST from their IDX files.
        folder: holds the folders ``MNIST`` and ``FashionMNIST``; for ``"mnist"`` only.
        settings: how many samples, and how many of them corrupted.
        seed: of everything that is drawn.

    Raises:
        InputError: an unknown source, no folder, or fewer samples than asked for.
        DataSetError: files that are missing or broken.
    """
    splits, corrupted = {}, {}
    for position, (task, (images, labels)) in enumerate(_images(source, folder).items()):
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
    if source != "mnist":
        raise InputError(f'unknown data "{source}"; expected one of {", ".join(SOURCES)}')
    if folder is None:
        raise InputError('data "mnist" needs the folder that holds MNIST and FashionMNIST, each with its IDX files')
    from equipoise.data.mnist import MNIST, FashionMNIST

    found = {}
    for kind in (MNIST, FashionMNIST):
        halves = [kind(folder / kind.__name__, split).tensors() for split in ("train", "test")]
        images, labels = (torch.cat([half[name] for half in halves]) for name in ("image", "label"))
        found[kind.__name__] = (images.flatten(1), labels)
    return found
