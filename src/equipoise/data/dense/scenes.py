"""What NYUv2 and Cityscapes have in common: folders of arrays with the same count of samples, and their splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.data.loading import DatasetBatches, EpochDataset, generator_of, held_out
from equipoise.errors import DataSetError, InputError
from equipoise.reading import Unreadable, read_npy

__all__ = ["Layout", "Loaders", "SceneDataset", "ZoomAndFlip", "scene_loaders"]


@dataclass(frozen=True)
class ZoomAndFlip:
    """Cuts out a random part and enlarges it to the whole, then mirrors it left to right half of the time.

    The part has ⌊H/s⌋ × ⌊W/s⌋ pixels, with the scale s drawn from ``scales`` and its place drawn evenly. Image and normals
    are enlarged bilinearly with their corners kept in place; label and depth take the nearest value, so that no class and
    no depth arises that was not there. What is enlarged by s looks s times as near: depth is divided by s. Mirroring
    turns the sign of the normals' x component. With s = 1 and no mirroring everything stays as it is, bit by bit.

    This is what MTAN's released code does (Liu et al. 2019; the released code of CAGrad, FAMO, LDC-MTL and COST, too), except
    that random numbers come from a generator. Two of its traits are kept, since published numbers have them: interpolated
    normals are not brought back to length 1; and the depth of Cityscapes, which is an *inverse* depth, is divided as well,
    although what is nearer has the larger inverse depth. ``zoomed_depth="multiplied"`` does what geometry asks.

    Args:
        scales: the scales, all at least 1.
        flip: probability of mirroring.
        zoomed_depth: ``"divided"`` by the scale, or ``"multiplied"``.

    Raises:
        InputError: no scales, a scale below 1, a probability outside [0, 1], or another ``zoomed_depth``.

    Example:
        >>> arrays = {"image": torch.rand(3, 8, 8), "label": torch.zeros(8, 8, dtype=torch.int64)}
        >>> seen = ZoomAndFlip(scales=(2.0,))(arrays, torch.Generator().manual_seed(0))
        >>> {name: tuple(array.shape) for name, array in seen.items()}
        {'image': (3, 8, 8), 'label': (8, 8)}
    """

    scales: tuple[float, ...] = (1.0, 1.2, 1.5)
    flip: float = 0.5
    zoomed_depth: Literal["divided", "multiplied"] = "divided"

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1:
            raise InputError(f"scales is {self.scales}; expected at least one, and none below 1")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip is {self.flip}; expected a probability, from 0 to 1")
        if self.zoomed_depth not in ("divided", "multiplied"):
            raise InputError(f'zoomed_depth is "{self.zoomed_depth}"; expected "divided" or "multiplied"')

    def __call__(self, arrays: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The arrays of one scene, changed alike.

        Args:
            arrays: ``image`` [3, H, W], and whichever of ``label`` [H, W], ``depth`` [1, H, W] and ``normal`` [3, H, W] there
                are.
            generator: of the draws, always four numbers.
        """
        height, width = arrays["image"].shape[-2:]
        scale = self.scales[_draw(len(self.scales), generator)]
        high, wide = max(1, int(height / scale)), max(1, int(width / scale))
        top, left = _draw(height - high + 1, generator), _draw(width - wide + 1, generator)
        mirrored = float(torch.rand((), generator=generator, device="cpu")) < self.flip
        seen = dict(arrays)
        if (high, wide) != (height, width):
            seen = {
                name: _enlarged(array[..., top : top + high, left : left + wide], name, (height, width))
                for name, array in seen.items()
            }
        if "depth" in seen and scale != 1:
            seen["depth"] = seen["depth"] / scale if self.zoomed_depth == "divided" else seen["depth"] * scale
        if mirrored:
            seen = {name: array.flip(-1) for name, array in seen.items()}
            if "normal" in seen:
                seen["normal"][0].neg_()
        return seen


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator, device="cpu"))


def _enlarged(array: Tensor, name: str, size: tuple[int, int]) -> Tensor:
    if name in ("image", "normal"):
        return F.interpolate(array[None], size=size, mode="bilinear", align_corners=True)[0]
    values = array.to(torch.float32).reshape(1, -1, *array.shape[-2:])
    return F.interpolate(values, size=size, mode="nearest").reshape(*array.shape[:-2], *size).to(array.dtype)


@dataclass(frozen=True)
class Layout:
    """What lies in a split's folder, and what a user is told if it does not.

    Attributes:
        name: of the data set.
        source: where to get it, in words.
        folders: array → names of its folder, of which the first that exists counts.
        classes: how many the label tells apart.
        ignored: labels that count as void, beside −1.
    """

    name: str
    source: str
    folders: dict[str, tuple[str, ...]]
    classes: int
    ignored: tuple[int, ...] = ()


# Array → channels in the file, in its last dimension; None where there is no such dimension.
_CHANNELS = {"image": 3, "label": None, "depth": 1, "normal": 3}


class SceneDataset(EpochDataset):
    """The scenes of one split. Base class of :class:`~equipoise.data.NYUv2` and :class:`~equipoise.data.Cityscapes`."""

    def __init__(
        self, layout: Layout, root: str | Path, split: str, *, augmentation: ZoomAndFlip | None = None, seed: int = 0
    ) -> None:
        self.layout = layout
        self.split = split
        self.augmentation = augmentation
        self.seed = seed
        self.folder = Path(root).expanduser() / split
        if split not in ("train", "val", "test"):
            raise InputError(f'split is "{split}"; {layout.name} has "train" and "val" (and "test" where a user made one)')
        self._folders = {name: self._find(names) for name, names in layout.folders.items()}
        self._named: dict[str, dict[int, str]] = {}  # array → number → file
        self._count = self._counted()

    def __len__(self) -> int:
        """Scenes of the split."""
        return self._count

    def at(self, row: int, epoch: int) -> dict[str, Tensor]:
        """The arrays of one scene, as that epoch sees it.

        Raises:
            DataSetError: a file is missing, is no array, or has another shape than the layout's.
        """
        arrays = {name: self._read(name, row) for name in self._folders}
        size = arrays["image"].shape[-2:]
        for name, array in arrays.items():
            if array.shape[-2:] != size:
                raise self._wrong(
                    self._path(name, row), f"has {_by(array.shape[-2:])} pixels, but the image of that number {_by(size)}"
                )
        if self.augmentation is not None:
            arrays = self.augmentation(arrays, generator_of(self.seed, epoch, row))
        # Until here channels are last in memory, as in the files: bilinear enlargement takes half the time with that.
        return {name: array.contiguous() for name, array in arrays.items()}

    def _path(self, name: str, row: int) -> Path:
        return self._folders[name] / self._named[name].get(row, f"{row}.npy")

    def _find(self, names: tuple[str, ...]) -> Path:
        for name in names:
            if (self.folder / name).is_dir():
                return self.folder / name
        expected = " or ".join(str(self.folder / name) for name in names)
        raise DataSetError(
            f"{self.layout.name} needs a folder {expected} with files 0.npy, 1.npy, …, and there is none; "
            f"to get it: {self.layout.source}"
        )

    def _counted(self) -> int:
        """How many scenes there are: every folder must hold the same numbers, from 0 without a gap."""
        numbers: dict[str, set[int]] = {}
        for name, folder in self._folders.items():
            named = self._named[name] = {}
            for path in sorted(path for path in folder.iterdir() if path.suffix == ".npy" and path.stem.isdecimal()):
                if named.setdefault(int(path.stem), path.name) != path.name:  # 0000.npy is understood, but not beside 0.npy
                    raise self._wrong(path, f"has the number of {named[int(path.stem)]}")
            numbers[name] = set(named)
        count = max(len(own) for own in numbers.values())
        if not count:
            raise DataSetError(
                f"{self.layout.name} needs files 0.npy, 1.npy, … in {self._folders['image']}, and there are none; "
                f"to get them: {self.layout.source}"
            )
        for name, own in numbers.items():
            missing = sorted(set(range(count)) - own)
            if missing:
                raise DataSetError(
                    f"{self._path(name, missing[0])} is missing, and {len(missing) - 1} more of the {count} files that "
                    f"{self.layout.name} needs there; to get them: {self.layout.source}"
                )
            if len(own) != count:
                raise self._wrong(self._folders[name], f"holds {len(own)} numbered files, but another folder {count}")
        return count

    def _read(self, name: str, row: int) -> Tensor:
        path = self._path(name, row)
        try:
            array = read_npy(path)
        except Unreadable as error:
            raise self._wrong(path, f"cannot be read as an array of numbers ({error})") from error
        channels = _CHANNELS[name]
        if channels in (None, 1) and array.ndim == (3 if channels is None else 2):
            # Some copies have one dimension of length 1 more or less.
            array = array[..., 0] if channels is None and array.shape[-1] == 1 else array
            array = array[..., None] if channels == 1 else array
        if array.ndim != (2 if channels is None else 3) or (channels is not None and array.shape[-1] != channels):
            wanted = "H×W" if channels is None else f"H×W×{channels}"
            raise self._wrong(path, f"has the shape {_by(array.shape)}, but {name} is {wanted}")
        if not array.size:
            raise self._wrong(path, "holds no pixels")
        if channels is None:
            return self._label(array, path)
        if name == "image" and array.dtype.kind != "f" and array.dtype != np.uint8:
            raise self._wrong(path, f"holds {array.dtype}; an image is uint8, 0 to 255, or floats, 0 to 1")
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32, copy=False)).all()
        if not finite:
            raise self._wrong(path, "has values that are not finite in single precision")
        values = torch.from_numpy(np.moveaxis(array.astype(np.float32, copy=False), -1, 0))
        return values.div_(255.0) if name == "image" and array.dtype == np.uint8 else values

    def _label(self, array: np.ndarray, path: Path) -> Tensor:
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int64)
        if not (whole == array).all() or (array.dtype.kind == "u" and (whole < 0).any()):
            raise self._wrong(path, "has labels that are no whole numbers")
        label = torch.from_numpy(whole)
        for ignored in self.layout.ignored:
            label[label == ignored] = -1
        low, high = int(label.min()), int(label.max())
        if low < -1 or high >= self.layout.classes:
            raise self._wrong(
                path,
                f"has labels from {low} to {high}, but there are {self.layout.classes} classes, 0 to "
                f"{self.layout.classes - 1}, and −1 for void",
            )
        return label

    def _wrong(self, path: Path, what: str) -> DataSetError:
        return DataSetError(f"{path} {what}; to get {self.layout.name} again: {self.layout.source}")


def _by(shape: Sequence[int]) -> str:
    return "×".join(str(length) for length in shape)


Loaders = tuple[DatasetBatches, DatasetBatches | None, DatasetBatches]


def scene_loaders(
    open_split: Callable[[str, ZoomAndFlip | None], SceneDataset],
    root: str | Path,
    batch_size: int,
    *,
    augmentation: ZoomAndFlip | None,
    validation: float,
    seed: int,
    split_seed: int,
    workers: int,
    pin_memory: bool,
    drop_last: bool,
) -> Loaders:
    """Loaders for training, validation and test; see :func:`~equipoise.data.nyuv2_loaders`."""
    train = open_split("train", augmentation)
    own_test = (Path(root).expanduser() / "test").is_dir()
    test = open_split("test" if own_test else "val", None)
    rows, kept = held_out(len(train), 0.0 if own_test else validation, split_seed)
    validating = None
    if own_test:
        validating = DatasetBatches(open_split("val", None), batch_size, workers=workers, pin_memory=pin_memory)
    elif len(kept):
        validating = DatasetBatches(open_split("train", None), batch_size, rows=kept, workers=workers, pin_memory=pin_memory)
    return (
        DatasetBatches(
            train, batch_size, rows=rows, shuffle=True, seed=seed, drop_last=drop_last, workers=workers, pin_memory=pin_memory
        ),
        validating,
        DatasetBatches(test, batch_size, workers=workers, pin_memory=pin_memory),
    )
