"""CelebA: faces with forty attributes, each a task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.images import Images, channels_first
from equipoise.data.loading import DatasetBatches, EpochDataset
from equipoise.errors import DataSetError, InputError
from equipoise.reading import Unreadable, read_text

__all__ = ["ATTRIBUTES", "SOURCE", "CelebA", "celeba_loaders", "read_attributes", "read_partition"]

SOURCE = "the project page mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned and cropped images, attributes, partitions)"

# In the order of the file's own header, which is also alphabetical.
ATTRIBUTES: tuple[str, ...] = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)


_VALUES = frozenset(("1", "-1", "0"))


def read_attributes(path: Path) -> tuple[list[str], NDArray[np.uint8]]:
    """File names, and for each of them the forty attributes as 0 and 1, in the order of :data:`ATTRIBUTES`.

    Raises:
        DataSetError: not the forty names, a line with another number of values, or a value other than 1, −1 and 0.
    """
    lines = _lines(path)
    first = 0
    if lines[0].strip().isdecimal():  # the project page's file starts with the number of images
        first = 1
    if first == len(lines):
        raise _wrong(path, 1, "there is nothing after the first line")
    names = _fields(lines[first])
    if names[0] == "image_id":
        names = names[1:]
    if tuple(names) != ATTRIBUTES:
        odd = sorted(set(names) ^ set(ATTRIBUTES))
        raise _wrong(
            path, first + 1, f"expected the forty names of attributes, but these differ: {', '.join(odd[:5]) or 'order'}"
        )
    files: list[str] = []
    values = bytearray()  # a list of eight million strings would take half a gigabyte
    for number, line in enumerate(lines[first + 1 :], first + 2):
        file, *own = _fields(line)
        if len(own) != len(ATTRIBUTES):
            raise _wrong(path, number, f"expected a file name and 40 values, but found {len(own)} values")
        if not _VALUES.issuperset(own):
            raise _wrong(path, number, f'"{min(set(own) - _VALUES)}" is neither 1 nor −1')
        files.append(file)
        values.extend([value == "1" for value in own])
    if first and int(lines[0].strip()[:18]) != len(files):
        raise _wrong(path, 1, f"{lines[0].strip()[:18]} images are announced, but {len(files)} follow")
    if len(set(files)) != len(files):
        raise _wrong(path, first + 2, "an image is there twice")
    return files, np.frombuffer(values, dtype=np.uint8).reshape(-1, len(ATTRIBUTES))


def read_partition(path: Path) -> dict[str, int]:
    """File name → 0 (training), 1 (validation) or 2 (test).

    Raises:
        DataSetError: a line that is no file name and one of these numbers.
    """
    lines = _lines(path)
    first = 1 if _fields(lines[0])[0] == "image_id" else 0
    parts: dict[str, int] = {}
    for number, line in enumerate(lines[first:], first + 1):
        fields = _fields(line)
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise _wrong(path, number, f'expected a file name and 0, 1 or 2, but found "{line.strip()}"')
        if fields[0] in parts:
            raise _wrong(path, number, f"{fields[0]} is there twice")
        parts[fields[0]] = int(fields[1])
    return parts


def _lines(path: Path) -> Sequence[str]:
    try:
        lines = read_text(path).rstrip().splitlines()
    except Unreadable as error:
        raise DataSetError(f"{path} cannot be read as text ({error}); get it again from {SOURCE}") from error
    if not lines:
        raise DataSetError(f"{path} is empty; get it again from {SOURCE}")
    return lines


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split(",")] if "," in line else line.split() or [""]


def _wrong(path: Path, number: int, what: str) -> DataSetError:
    return DataSetError(f"line {number} of {path}: {what}; get the file again from {SOURCE}")


_SPLITS = ("train", "val", "test")
# Where the project page's folders, a folder for everything, and Kaggle's archive have them.
_IMAGES = ("img_align_celeba", "Img/img_align_celeba", "img_align_celeba/img_align_celeba")
_ATTRIBUTES = tuple(f"{folder}list_attr_celeba.{end}" for folder in ("", "Anno/") for end in ("txt", "csv"))
_PARTITION = tuple(f"{folder}list_eval_partition.{end}" for folder in ("", "Eval/") for end in ("txt", "csv"))


@dataclass(frozen=True)
class Listed:
    """What CelebA's two lists say.

    Attributes:
        folder: where they lie.
        files: names of the images.
        labels: [N, 40] uint8, 0 or 1.
        parts: [N] 0 (training), 1 (validation) or 2 (test).
    """

    folder: Path
    files: Sequence[str]
    labels: NDArray[np.uint8]
    parts: NDArray[np.int64]

    @classmethod
    def read(cls, root: str | Path) -> Listed:
        """Finds and reads the lists.

        Raises:
            DataSetError: a list is missing or not in one of the published formats, or one lacks an image of the other.
        """
        folder = Path(root).expanduser()
        partition, attributes = _find(folder, _PARTITION), _find(folder, _ATTRIBUTES)
        parts = read_partition(partition)
        files, labels = read_attributes(attributes)
        unknown = [file for file in files if file not in parts]
        if unknown:
            raise DataSetError(f"{partition} lacks {unknown[0]}, which {attributes} has; get both from {SOURCE}")
        missing = set(parts).difference(files)
        if missing:
            raise DataSetError(f"{attributes} lacks {min(missing)}, which {partition} has; get both from {SOURCE}")
        return cls(folder, files, labels, np.array([parts[file] for file in files], dtype=np.int64))


class CelebA(EpochDataset):
    """One split of CelebA (Liu et al. 2015): 162,770 training, 19,867 validation and 19,962 test images.

    On disk, in ``root``: the images ``img_align_celeba/000001.jpg``, … (178×218; also ``Img/img_align_celeba`` or Kaggle's
    ``img_align_celeba/img_align_celeba``), ``list_attr_celeba.txt`` (or ``Anno/…``, or ``.csv``) and
    ``list_eval_partition.txt`` (or ``Eval/…``, or ``.csv``).

    A row is ``{"image": [3, size, size] float32 in [0, 1], "label": [40] float32, 0 or 1}``, the labels in the order of
    :attr:`tasks`. As in the literature on balancing (FAMO's code), images are squeezed to 64×64 by an antialiased bilinear
    filter.

    Args:
        root: the folder.
        split: ``"train"``, ``"val"`` or ``"test"``, by the published partition.
        size: pixels of an edge.
        cache: folder in which the resized images of this split are kept (N·3·size² bytes, 2.0 GB for the training split),
            so that they are decoded only once; ``None`` to decode each time.
        workers: processes that fill the cache.
        listed: ``other.listed`` of another split, so that the lists are read only once.

    Raises:
        InputError: another split, or a size below 1.
        DataSetError: images or a list are missing, or a list is not in one of the published formats.
        MissingExtraError: Pillow is not installed; raised when the first image is read.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise_papers.samples import write_celeba_sample
        >>> faces = CelebA(write_celeba_sample(mkdtemp(), images=8), "train")
        >>> len(faces), faces[0]["image"].shape, faces[0]["label"].shape, faces.tasks[20]
        (4, torch.Size([3, 64, 64]), torch.Size([40]), 'Male')
    """

    tasks = ATTRIBUTES

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test"] = "train",
        *,
        size: int = 64,
        cache: str | Path | None = None,
        workers: int = 0,
        listed: Listed | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise InputError(f'split is "{split}"; CelebA has {", ".join(_SPLITS)}')
        self.listed = Listed.read(root) if listed is None else listed
        rows = np.flatnonzero(self.listed.parts == _SPLITS.index(split))
        if not len(rows):
            raise DataSetError(f'the partition of {root} has no image of split "{split}"; get it again from {SOURCE}')
        self.split = split
        self.labels = torch.from_numpy(self.listed.labels[rows])
        names = [self.listed.files[row] for row in rows.tolist()]
        self.images = Images(_all_there(self.listed.folder, names), size, cache=cache, workers=workers)

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.images)

    def at(self, row: int, epoch: int) -> dict[str, Tensor]:
        """One face; the same in every epoch."""
        return {name: rows[0] for name, rows in self.batch([row], epoch).items()}

    def batch(self, rows: Sequence[int], epoch: int) -> Any:
        """Several faces, stacked."""
        return {"image": channels_first(self.images.rows(rows)), "label": self.labels[list(rows)].to(torch.float32)}


def celeba_loaders(
    root: str | Path,
    batch_size: int = 256,
    *,
    size: int = 64,
    cache: str | Path | None = None,
    seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> tuple[DatasetBatches, DatasetBatches, DatasetBatches]:
    """Loaders for training, validation and test, by the published partition.

    Args:
        root: CelebA's folder, see :class:`CelebA`.
        batch_size: images per batch; 256 in the literature.
        size: pixels of an edge.
        cache: folder of the resized images; ``None`` to decode each time.
        seed: of the training order.
        workers: processes of each loader that read ahead, and that fill the cache.
        pin_memory: whether batches lie in page-locked memory.
        drop_last: whether a last, smaller training batch is left out.

    Raises:
        DataSetError: as :class:`CelebA`.
    """
    listed = Listed.read(root)
    train, validation, test = (
        CelebA(root, split, size=size, cache=cache, workers=workers, listed=listed)  # type: ignore[arg-type]
        for split in _SPLITS
    )
    return (
        DatasetBatches(train, batch_size, shuffle=True, seed=seed, drop_last=drop_last, workers=workers, pin_memory=pin_memory),
        DatasetBatches(validation, batch_size, workers=workers, pin_memory=pin_memory),
        DatasetBatches(test, batch_size, workers=workers, pin_memory=pin_memory),
    )


def _find(folder: Path, candidates: Sequence[str]) -> Path:
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataSetError(f"CelebA needs {' or '.join(candidates)} in {folder}, and there is none; to get it: {SOURCE}")


def _all_there(folder: Path, names: Sequence[str]) -> list[Path]:
    """The images' paths; one listing of the folder instead of a look for each of 200,000 files."""
    for candidate in reversed(_IMAGES):  # Kaggle's inner folder before the outer one
        where = folder / candidate
        if where.is_dir():
            there = set(os.listdir(where))
            missing = [name for name in names if name not in there]
            if missing:
                raise DataSetError(
                    f"{where / missing[0]} is missing, and {len(missing) - 1} more of {len(names)} images; "
                    f"to get them: {SOURCE}"
                )
            return [where / name for name in names]
    raise DataSetError(f"CelebA needs the images in {' or '.join(_IMAGES)} in {folder}, and there is none; to get it: {SOURCE}")
