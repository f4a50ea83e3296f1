"""MNIST and FashionMNIST: 28×28 pixels, ten classes, in the IDX format."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.loading import EpochDataset, TensorBatches, held_out
from equipoise.errors import DataSetError, InputError
from equipoise.reading import Unreadable, read_bytes, unzipped

__all__ = ["MNIST", "FashionMNIST", "fashion_mnist_loaders", "mnist_loaders", "read_idx"]

_UNSIGNED_BYTES = 0x08
_MOST = 1 << 31  # values; MNIST has 47 million


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, packed by gzip (told by its first two bytes, not its name) or not.

    The file starts with two zero bytes, the kind of the values (8: unsigned bytes) and the number of dimensions; then come
    the dimensions, 32 bits each, most significant byte first; then the values.

    Raises:
        DataSetError: the file cannot be read, is no IDX file of bytes, or is shorter or longer than its header says.
    """
    try:
        content = read_bytes(path)
        if content[:2] == b"\x1f\x8b":
            content = unzipped(content, 4 + 4 * 255, lambda head: sum(_declared(head, path)[::2]))
    except Unreadable as error:
        raise DataSetError(f"{path} cannot be read ({error}); get the file again from its source") from error
    start, shape, size = _declared(bytes(content[: 4 + 4 * 255]), path)
    if len(content) != start + size:
        raise DataSetError(
            f"{path} has {len(content) - start} values, but its header says {'×'.join(map(str, shape))}; "
            "get the file again from its source"
        )
    return np.frombuffer(content, dtype=np.uint8, count=size, offset=start if size else 0).reshape(shape)


def _declared(head: bytes, path: str | Path) -> tuple[int, tuple[int, ...], int]:
    """Where the values start, their shape, and how many they are, all from the header."""
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTES:
        raise DataSetError(
            f"{path} starts with the bytes {head[:4].hex(' ') or 'of an empty file'}; an IDX file of unsigned "
            "bytes starts with 00 00 08 and the number of dimensions"
        )
    start = 4 + 4 * head[3]
    if len(head) < start:
        raise DataSetError(f"{path} ends within its header, after {len(head)} bytes; get the file again from its source")
    shape = tuple(np.frombuffer(head[4:start], dtype=">u4").tolist())
    if len(shape) > 64 or prod(max(length, 1) for length in shape) > _MOST:
        said = f"{len(shape)} dimensions" if len(shape) > 8 else "×".join(map(str, shape)) + " values"
        raise DataSetError(f"the header of {path} says {said}; at most 64 dimensions and {_MOST} values are read")
    return start, shape, prod(shape)


_STEMS = {"train": "train", "test": "t10k"}
Loaders = tuple[TensorBatches, TensorBatches | None, TensorBatches]


class MNIST(EpochDataset):
    """One split of MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images of 28×28 pixels, ten classes.

    On disk, in ``root`` (or ``root/raw`` or ``root/MNIST/raw``, where torchvision puts them): the four IDX files
    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each
    plain or with ``.gz``; a dot in place of the second hyphen is understood, too.

    A row is ``{"image": [1, 28, 28] float32 in [0, 1], "label": int64}``.

    Args:
        root: the folder.
        split: ``"train"`` or ``"test"``.

    Attributes:
        pixels: [N, 28, 28] uint8.
        labels: [N] int64.

    Raises:
        InputError: another split.
        DataSetError: a file is missing or broken, or images and labels do not belong together.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise_papers.samples import write_mnist_sample
        >>> digits = MNIST(write_mnist_sample(mkdtemp()), "test")
        >>> digits[0]["image"].shape, digits[0]["label"].dtype
        (torch.Size([1, 28, 28]), torch.int64)
    """

    name: ClassVar[str] = "MNIST"
    source: ClassVar[str] = "the project page yann.lecun.com/exdb/mnist, or the mirrors that torchvision's MNIST class names"
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def __init__(self, root: str | Path, split: Literal["train", "test"] = "train") -> None:
        if split not in _STEMS:
            raise InputError(f'split is "{split}"; {self.name} has "train" and "test"')
        folder = Path(root).expanduser()
        images, labels = (self._find(folder, _STEMS[split], what) for what in ("images-idx3", "labels-idx1"))
        pixels, truth = read_idx(images), read_idx(labels)
        if pixels.shape[1:] != (28, 28) or truth.ndim != 1 or len(pixels) != len(truth) or not len(truth):
            raise DataSetError(
                f"{images} holds {_by(pixels.shape)} and {labels} {_by(truth.shape)} values; expected N×28×28 and N; "
                f"to get both again: {self.source}"
            )
        if truth.max() >= len(self.classes):
            raise DataSetError(f"{labels} has the label {truth.max()}; expected 0 to 9; to get it again: {self.source}")
        self.split = split
        self.pixels = torch.from_numpy(pixels)
        self.labels = torch.from_numpy(truth).long()

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.labels)

    def at(self, row: int, epoch: int) -> dict[str, Tensor]:
        """One image; the same in every epoch."""
        return {name: rows[0] for name, rows in self.batch([row], epoch).items()}

    def batch(self, rows: Sequence[int], epoch: int) -> Any:
        """Several images, stacked."""
        return self.tensors(torch.as_tensor(list(rows), device="cpu"))

    def tensors(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """The rows, or all of them, as ``image`` [n, 1, 28, 28] float32 and ``label`` [n] int64."""
        pixels, labels = (self.pixels, self.labels) if rows is None else (self.pixels[rows], self.labels[rows])
        return {"image": pixels.unsqueeze(1).to(torch.float32).div_(255.0), "label": labels}

    @classmethod
    def _find(cls, folder: Path, stem: str, what: str) -> Path:
        names = [f"{stem}-{what}-ubyte", f"{stem}-{what.replace('-idx', '.idx')}-ubyte"]
        for where in (folder, folder / "raw", folder / cls.__name__ / "raw"):
            for name in names:
                for candidate in (where / name, where / f"{name}.gz"):
                    if candidate.is_file():
                        return candidate
        raise DataSetError(
            f"{cls.name} needs {names[0]} or {names[0]}.gz in {folder}, and there is none; to get it: {cls.source}"
        )


class FashionMNIST(MNIST):
    """One split of Fashion-MNIST (Xiao et al. 2017): clothes, in the very layout of :class:`MNIST`."""

    name: ClassVar[str] = "Fashion-MNIST"
    source: ClassVar[str] = "the project page github.com/zalandoresearch/fashion-mnist"
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )


def mnist_loaders(
    root: str | Path, batch_size: int = 128, *, validation: float = 1 / 6, seed: int = 0, split_seed: int = 0
) -> Loaders:
    """Loaders for training, validation and test, all in memory.

    Args:
        root: MNIST's folder, see :class:`MNIST`.
        batch_size: images per batch.
        validation: fraction of the training images to keep back; 1/6, the usual 50,000 and 10,000, by default; 0 for none.
        seed: of the training order.
        split_seed: of the choice of what is kept back.

    Returns:
        Three :class:`~equipoise.data.TensorBatches`, the second of which may be ``None``.

    Raises:
        InputError: ``validation`` is outside [0, 1).
        DataSetError: as :class:`MNIST`.
    """
    return _loaders(MNIST, root, batch_size, validation, seed, split_seed)


def fashion_mnist_loaders(
    root: str | Path, batch_size: int = 128, *, validation: float = 1 / 6, seed: int = 0, split_seed: int = 0
) -> Loaders:
    """Loaders for training, validation and test; everything as for :func:`mnist_loaders`."""
    return _loaders(FashionMNIST, root, batch_size, validation, seed, split_seed)


def _loaders(kind: type[MNIST], root: str | Path, batch_size: int, validation: float, seed: int, split_seed: int) -> Loaders:
    train, test = kind(root, "train"), kind(root, "test")
    rows, kept = held_out(len(train), validation, split_seed)
    return (
        TensorBatches(train.tensors(rows), batch_size, shuffle=True, seed=seed),
        TensorBatches(train.tensors(kept), batch_size) if len(kept) else None,
        TensorBatches(test.tensors(), batch_size),
    )


def _by(shape: Sequence[int]) -> str:
    return "×".join(str(length) for length in shape)
