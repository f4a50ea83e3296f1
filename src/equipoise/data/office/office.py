"""The images of all sources of Office-31 or Office-Home, in batches that have a part for each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from equipoise.data.images import Images, channels_first
from equipoise.data.loading import DatasetBatches, EpochDataset, generator_of
from equipoise.data.office.sources import ImageSource, read_office
from equipoise.errors import InputError

__all__ = ["Office", "SourceBatches", "office_loaders"]

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
# Channel means and deviations of ImageNet, on which the usual encoders were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Office(EpochDataset):
    """One split of Office-31 (Saenko et al. 2010) or Office-Home (Venkateswara et al. 2017), all sources.

    On disk: ``root/<source>/<class>/*.jpg``, or ``root/<source>/images/<class>/*.jpg`` as Office-31 is distributed; Office-31
    has the sources ``amazon``, ``dslr`` and ``webcam`` with 31 classes (4,110 images), Office-Home ``Art``, ``Clipart``,
    ``Product`` and ``Real World`` with 65 (15,588). Each source is split 60/20/20 at random, or by lists.

    Rows are counted through all sources, one after the other. A row is ``{"image": [3, size, size] float32, "label": int64,
    "source": int64}``; a batch has a part for each source that occurs in it, ``{source: {"image": [n, 3, size, size], "label":
    [n]}}``, since the sources are the tasks and each image belongs to one of them only.

    Args:
        root: the folder that holds a folder for each source.
        split: ``"train"``, ``"val"`` or ``"test"``.
        sources: which ones, in which order; all by name if left out.
        size: pixels of an edge to which images are squeezed; 224 in the literature (LibMTL's code).
        normalise: whether ImageNet's channel means and deviations are taken out; otherwise values are in [0, 1].
        split_seed: of the splits.
        lists: text files in place of random splits, see :func:`~equipoise.data.read_office`.
        cache: folder in which each source's resized images are kept, whatever the split; ``None`` to decode each time.
        workers: processes that fill the cache.

    Raises:
        InputError: another split.
        DataSetError: as :func:`~equipoise.data.read_office`; when a row is read, that its image cannot be decoded.
        MissingExtraError: Pillow is not installed; raised when the first image is read.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise_papers.samples import write_office31_sample
        >>> pictures = Office(write_office31_sample(mkdtemp()), "train", size=32)
        >>> pictures.sources, len(pictures), pictures[0]["image"].shape
        (('amazon', 'dslr', 'webcam'), 18, torch.Size([3, 32, 32]))
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test"] = "train",
        *,
        sources: Sequence[str] | None = None,
        size: int = 224,
        normalise: bool = True,
        split_seed: int = 0,
        lists: Mapping[str, Mapping[str, str | Path]] | None = None,
        cache: str | Path | None = None,
        workers: int = 0,
    ) -> None:
        if split not in _SPLITS:
            raise InputError(f'split is "{split}"; expected {", ".join(_SPLITS)}')
        found = read_office(root, sources, seed=split_seed, lists=lists)
        own = _SPLITS[split]
        for source in found:
            if own not in source.paths:
                raise InputError(f'lists has no split "{own}" of source "{source.name}"; it has {", ".join(source.paths)}')
        self.split = split
        self.normalise = normalise
        self.sources = tuple(source.name for source in found)
        self.classes = found[0].classes
        self.labels = torch.from_numpy(np.concatenate([source.labels[own] for source in found]))
        self.lengths = tuple(len(source.paths[own]) for source in found)
        self._starts = np.cumsum([0, *self.lengths])
        # All of a source's images in one cache, so that other splits and seeds find them there, too.
        self._images = [_images(source, size, cache, workers) for source in found]
        self._places = [_places(source, own) for source in found]

    def __len__(self) -> int:
        """Images of the split, of all sources together."""
        return len(self.labels)

    def rows_of(self, source: str) -> range:
        """The rows of one source.

        Raises:
            InputError: there is no such source.
        """
        if source not in self.sources:
            raise InputError(f'there is no source "{source}"; there are {", ".join(self.sources)}')
        number = self.sources.index(source)
        return range(int(self._starts[number]), int(self._starts[number + 1]))

    def at(self, row: int, epoch: int) -> dict[str, Tensor]:
        """One image with its class and the number of its source; the same in every epoch."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        part = self._part(number, [row])
        return {"image": part["image"][0], "label": part["label"][0], "source": torch.tensor(number)}

    def batch(self, rows: Sequence[int], epoch: int) -> Any:
        """Several images, grouped by source."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        return {
            name: self._part(number, [row for row, own in zip(rows, numbers, strict=True) if own == number])
            for number, name in enumerate(self.sources)
            if number in numbers
        }

    def _part(self, number: int, rows: Sequence[int]) -> dict[str, Tensor]:
        places = self._places[number][np.array(rows) - self._starts[number]]
        image = channels_first(self._images[number].rows(places.tolist()))
        if self.normalise:
            image = (image - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
        return {"image": image, "label": self.labels[list(rows)]}


class SourceBatches(DatasetBatches):
    """Batches with ``batch_size`` images of each source.

    In training (``shuffle=True``) an epoch is as long as the largest source needs; the smaller ones start over, in another
    order each time. Otherwise each source is gone through once, and the last batches lack those that have ended.

    Args:
        dataset: the images.
        batch_size: images of each source in a batch.
        shuffle: whether this is training.
        seed: seed of the order.
        drop_last: whether an epoch of training ends before the batch that the largest source cannot fill.
        workers: processes that read ahead.
        pin_memory: whether batches lie in page-locked memory.

    Raises:
        InputError: a batch size below 1, or fewer than 0 workers.
    """

    dataset: Office

    def __init__(
        self,
        dataset: Office,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            workers=workers,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        """Batches in one epoch."""
        longest = max(self.dataset.lengths)
        return longest // self.batch_size if self.drop_last else -(-longest // self.batch_size)

    def plan(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of that epoch, those of the first source first."""
        longest = max(self.dataset.lengths)
        streams = [self._stream(number, epoch, longest) for number in range(len(self.dataset.sources))]
        size = self.batch_size
        return [[row for stream in streams for row in stream[step * size : (step + 1) * size]] for step in range(len(self))]

    def _stream(self, number: int, epoch: int, longest: int) -> list[int]:
        """The rows of one source in the order in which that epoch visits them."""
        own = torch.tensor(self.dataset.rows_of(self.dataset.sources[number]))
        if not self.shuffle:
            return own.tolist()
        # Smaller sources fill the last batch, too.
        needed = len(own) if len(own) == longest else len(self) * self.batch_size
        rounds = [
            own[torch.randperm(len(own), generator=generator_of(self.seed, epoch, number, turn))]
            for turn in range(-(-needed // len(own)) or 1)
        ]
        return torch.cat(rounds)[:needed].tolist()


def office_loaders(
    root: str | Path,
    batch_size: int = 64,
    *,
    sources: Sequence[str] | None = None,
    size: int = 224,
    normalise: bool = True,
    lists: Mapping[str, Mapping[str, str | Path]] | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    split_seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> tuple[SourceBatches, SourceBatches, SourceBatches]:
    """Loaders for training, validation and test; what a batch is, :class:`Office` and :class:`SourceBatches` say.

    Args:
        root: the folder that holds a folder for each source.
        batch_size: images of each source in a batch; 64 in the literature.
        sources: which ones; all by name if left out.
        size: pixels of an edge.
        normalise: whether ImageNet's channel means and deviations are taken out.
        lists: text files in place of random splits.
        cache: folder of the resized images; ``None`` to decode each time.
        seed: of the training order.
        split_seed: of the splits, the same for all runs of a study.
        workers: processes a loader that read ahead, and that fill the cache.
        pin_memory: whether batches lie in page-locked memory.
        drop_last: whether a last, smaller training batch is left out.

    Raises:
        DataSetError: as :class:`Office`.
    """
    train, validation, test = (
        Office(
            root,
            split,  # type: ignore[arg-type]
            sources=sources,
            size=size,
            normalise=normalise,
            split_seed=split_seed,
            lists=lists,
            cache=cache,
            workers=workers,
        )
        for split in _SPLITS
    )
    return (
        SourceBatches(train, batch_size, shuffle=True, seed=seed, drop_last=drop_last, workers=workers, pin_memory=pin_memory),
        SourceBatches(validation, batch_size, workers=workers, pin_memory=pin_memory),
        SourceBatches(test, batch_size, workers=workers, pin_memory=pin_memory),
    )


def _all_paths(source: ImageSource) -> list[Path]:
    return sorted({path for paths in source.paths.values() for path in paths})


def _images(source: ImageSource, size: int, cache: str | Path | None, workers: int) -> Images:
    return Images(_all_paths(source), size, cache=cache, workers=workers)


def _places(source: ImageSource, split: str) -> np.ndarray:
    """Where the images of a split are among all of the source's."""
    places = {path: place for place, path in enumerate(_all_paths(source))}
    return np.array([places[path] for path in source.paths[split]], dtype=np.int64)
