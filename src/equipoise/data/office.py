"""Office-31 and Office-Home: the same classes of objects from several sources, each of which is a task."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.images import Images, channels_first
from equipoise.data.loading import DatasetBatches, EpochDataset, generator_of
from equipoise.errors import DataSetError, InputError
from equipoise.reading import Unreadable, read_text

__all__ = ["SPLITS", "ImageSource", "Office", "SourceBatches", "office_loaders", "read_office", "split_indices"]

SPLITS = ("train", "validation", "test")


def split_indices(count: int, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Row numbers of a random 60/20/20 split of so many images, always the same for a seed.

    Raises:
        InputError: fewer than five images, of which some split would be empty.

    Example:
        >>> {split: len(rows) for split, rows in split_indices(50).items()}
        {'train': 30, 'validation': 10, 'test': 10}
    """
    if count < 5:
        raise InputError(f"{count} images cannot be split 60/20/20; at least 5 are needed")
    order = np.random.default_rng(seed).permutation(count)
    first, second = round(0.6 * count), round(0.8 * count)
    return dict(zip(SPLITS, np.split(order, [first, second]), strict=True))


_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp"}
_SOURCE = (
    "the project pages faculty.cc.gatech.edu/~judy/domainadapt (Office-31) "
    "and hemanthdv.github.io/officehome-dataset (Office-Home)"
)


@dataclass(frozen=True)
class ImageSource:
    """The images of one source.

    Attributes:
        name: of its folder.
        paths: split → files.
        labels: split → class numbers [n].
        classes: names, in the order of the numbers, the same for all sources.
    """

    name: str
    paths: Mapping[str, tuple[Path, ...]]
    labels: Mapping[str, NDArray[np.int64]]
    classes: tuple[str, ...]


def read_office(
    root: str | Path,
    sources: Sequence[str] | None = None,
    *,
    seed: int = 0,
    lists: Mapping[str, Mapping[str, str | Path]] | None = None,
) -> list[ImageSource]:
    """Finds the images of all sources, split 60/20/20 at random with a fixed seed, or by the user's lists.

    Args:
        root: holds ``amazon``, ``dslr``, ``webcam`` (Office-31; ``amazon/images/<class>`` is understood, too), or ``Art``,
            ``Clipart``, ``Product``, ``Real World`` (Office-Home), or sources of the user's own.
        sources: which folders; all if left out.
        seed: of the splits.
        lists: source → split (``train``, ``validation``, ``test``) → a text file with one line per image: its path, relative to
            ``root`` or to the list's folder, and its class number, separated by a space. Where the image lies in the folder of
            a class, its label is that class's place among the folders in alphabetical order, and the list's number only has
            to go with the same folder throughout: published lists number the classes in an order of their own.

    Returns:
        The sources, in the order asked for, or by name.

    Raises:
        DataSetError: a folder or file is missing, sources differ in their classes, or a list cannot be read.
    """
    folder = Path(root).expanduser()
    there = _folders(folder) if folder.is_dir() else []
    names = list(sources) if sources is not None else there
    if not there or not names:
        raise DataSetError(
            f"{folder} holds no folders; give the one that holds a folder for each source, such as amazon or Art; "
            f"to get them: {_SOURCE}"
        )
    found: list[ImageSource] = []
    for name in names:
        own = folder / name
        if not own.is_dir():
            raise DataSetError(f'{folder} has no source "{name}"; it has {", ".join(there)}; to get it: {_SOURCE}')
        # Office-31 as it is distributed has one folder more.
        own = own / "images" if (own / "images").is_dir() else own
        classes = tuple(_folders(own))
        if found and classes != found[0].classes:
            odd = sorted(set(classes) ^ set(found[0].classes))
            raise DataSetError(f'sources "{found[0].name}" and "{name}" differ in their classes: {", ".join(odd)}')
        if lists is not None:
            if name not in lists:
                raise DataSetError(f'lists has no entry for source "{name}"; it has {", ".join(lists)}')
            found.append(_by_lists(name, classes, folder, lists[name]))
        else:
            found.append(_by_split(name, classes, own, seed))
    return found


def _folders(where: Path) -> list[str]:
    return sorted(entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _by_split(name: str, classes: tuple[str, ...], folder: Path, seed: int) -> ImageSource:
    paths = []
    labels = []
    for number, label in enumerate(classes):
        files = sorted(path for path in (folder / label).iterdir() if path.suffix.lower() in _ENDINGS)
        paths += files
        labels += [number] * len(files)
    if len(paths) < 5:
        raise DataSetError(
            f"{folder} holds {len(paths)} images in folders of classes; at least 5 are needed for three splits; "
            f"to get them: {_SOURCE}"
        )
    rows = split_indices(len(paths), seed)
    truth = np.array(labels, dtype=np.int64)
    return ImageSource(
        name,
        {split: tuple(paths[row] for row in own) for split, own in rows.items()},
        {split: truth[own] for split, own in rows.items()},
        classes,
    )


def _by_lists(name: str, classes: tuple[str, ...], root: Path, lists: Mapping[str, str | Path]) -> ImageSource:
    paths: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    called: dict[str, str] = {}
    for split, file in lists.items():
        if split not in SPLITS:
            raise DataSetError(f'lists has a split "{split}" of source "{name}"; expected {", ".join(SPLITS)}')
        if not Path(file).is_file():
            raise DataSetError(f'the list {file} of source "{name}" does not exist')
        own: list[Path] = []
        truth: list[int] = []
        try:
            lines = read_text(file).splitlines()
        except Unreadable as error:
            raise DataSetError(f"the list {file} cannot be read as text ({error})") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdecimal() or len(label) > 9 or (classes and int(label) >= len(classes)):
                raise DataSetError(f'line {number} of {file} is "{line}"; expected a path, a space, and a class number')
            where = next((base / path for base in (root, Path(file).parent) if (base / path).is_file()), None)
            if where is None:
                raise DataSetError(f"line {number} of {file} names {path}, which is neither in {root} nor beside the list")
            own.append(where)
            kind = where.parent.name
            if kind not in classes:
                truth.append(int(label))
                continue
            if called.setdefault(label, kind) != kind:
                raise DataSetError(f'line {number} of {file} gives "{kind}" the number {label}, which "{called[label]}" has')
            truth.append(classes.index(kind))
        if not own:
            raise DataSetError(f'the list {file} of source "{name}" is empty')
        paths[split], labels[split] = tuple(own), np.array(truth, dtype=np.int64)
    return ImageSource(name, paths, labels, classes)


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
        normalize: whether ImageNet's channel means and deviations are taken out; otherwise values are in [0, 1].
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
        normalize: bool = True,
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
        self.normalize = normalize
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
        return {"image": part["image"][0], "label": part["label"][0], "source": torch.tensor(number, device="cpu")}

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
        if self.normalize:
            image = (image - torch.tensor(_MEAN, device="cpu")[:, None, None]) / torch.tensor(_STD, device="cpu")[:, None, None]
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
            dataset, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, workers=workers, pin_memory=pin_memory
        )

    def __len__(self) -> int:
        """Batches in one epoch."""
        longest = max(map(len, self.groups()))
        return longest // self.batch_size if self.drop_last else -(-longest // self.batch_size)

    def groups(self) -> list[Tensor]:
        """The rows of each source."""
        starts = self.dataset._starts.tolist()
        return [self.rows[(self.rows >= low) & (self.rows < high)] for low, high in itertools.pairwise(starts)]

    def plan(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of that epoch, those of the first source first."""
        groups = self.groups()
        longest = max(map(len, groups))
        streams = [self._stream(number, own, epoch, longest) for number, own in enumerate(groups)]
        size = self.batch_size
        return [[row for stream in streams for row in stream[step * size : (step + 1) * size]] for step in range(len(self))]

    def _stream(self, number: int, own: Tensor, epoch: int, longest: int) -> list[int]:
        """The rows of one source in the order in which that epoch visits them."""
        if not self.shuffle or not len(own):
            return own.tolist()
        # Smaller sources fill the last batch, too.
        needed = len(own) if len(own) == longest else len(self) * self.batch_size
        rounds = [
            own[torch.randperm(len(own), generator=generator_of(self.seed, epoch, number, turn), device="cpu")]
            for turn in range(-(-needed // len(own)) or 1)
        ]
        return torch.cat(rounds)[:needed].tolist()


def office_loaders(
    root: str | Path,
    batch_size: int = 64,
    *,
    sources: Sequence[str] | None = None,
    size: int = 224,
    normalize: bool = True,
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
        normalize: whether ImageNet's channel means and deviations are taken out.
        lists: text files in place of random splits.
        cache: folder of the resized images; ``None`` to decode each time.
        seed: of the training order.
        split_seed: of the splits, the same for all runs of a study.
        workers: processes of each loader that read ahead, and that fill the cache.
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
            normalize=normalize,
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
