"""Tiny data sets of random content in the layouts of the real ones, to try code on without a download.

Each function writes into a folder, which is made if need be, and returns it. The same seed writes the same content.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.celeba import ATTRIBUTES
from equipoise.errors import InputError, require

__all__ = [
    "write_celeba_sample",
    "write_cityscapes_sample",
    "write_fashion_mnist_sample",
    "write_mnist_sample",
    "write_nyuv2_sample",
    "write_office31_sample",
    "write_office_home_sample",
    "write_qm9_sample",
]


def _patches(rng: np.random.Generator, size: tuple[int, int], edge: int = 8) -> NDArray[np.float64]:
    """A field ``[H, W]`` in [0, 1) that is constant on squares of ``edge`` pixels."""
    height, width = size
    coarse = rng.random((-(-height // edge), -(-width // edge)))
    return np.repeat(np.repeat(coarse, edge, axis=0), edge, axis=1)[:height, :width]


def _photograph(path: Path, rng: np.random.Generator, size: tuple[int, int], tint: float) -> None:
    """Writes an image whose mean red goes with ``tint``, from 0 to 1.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    module = require("PIL.Image", "images", "equipoise-papers")
    channels = [_patches(rng, size) * 0.5 + tint * 0.5, _patches(rng, size), _patches(rng, size)]
    pixels = (np.stack(channels, axis=-1) * 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    module.fromarray(pixels).save(path, quality=90)


_LAYOUTS = {  # images, attributes, partition
    "flat": ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"),
    "page": ("Img/img_align_celeba", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"),
    "kaggle": ("img_align_celeba/img_align_celeba", "list_attr_celeba.csv", "list_eval_partition.csv"),
}


def write_celeba_sample(
    root: str | Path,
    *,
    images: int = 12,
    size: tuple[int, int] = (218, 178),
    layout: Literal["flat", "page", "kaggle"] = "flat",
    seed: int = 0,
) -> Path:
    """Writes images and lists as :class:`~equipoise.data.CelebA` reads them: half training, a quarter each of the others.

    Args:
        root: where everything goes.
        images: how many, at least 4.
        size: height and width; real ones have 218 and 178 pixels.
        layout: ``"flat"``, all in one folder; ``"page"``, the project page's folders; ``"kaggle"``, with lists as ``.csv``.
        seed: of the content.

    Raises:
        InputError: fewer than 4 images, or another layout.
        MissingExtraError: Pillow is not installed.
    """
    if images < 4:
        raise InputError(f"images is {images}; at least 4 are needed for three splits")
    if layout not in _LAYOUTS:
        raise InputError(f'layout is "{layout}"; expected one of {", ".join(_LAYOUTS)}')
    folder = Path(root)
    where, attributes, partition = (folder / part for part in _LAYOUTS[layout])
    rng = np.random.default_rng(seed)
    names = [f"{number:06d}.jpg" for number in range(1, images + 1)]
    has = rng.random((images, len(ATTRIBUTES))) < 0.5
    parts = [0] * (images - 2 * (images // 4)) + [1] * (images // 4) + [2] * (images // 4)
    for name, own in zip(names, has, strict=True):
        _photograph(where / name, rng, size, float(own.mean()))
    rows = [[name, *("1" if one else "-1" for one in own)] for name, own in zip(names, has, strict=True)]
    for path in (attributes, partition):
        path.parent.mkdir(parents=True, exist_ok=True)
    pairs = [(name, str(part)) for name, part in zip(names, parts, strict=True)]
    if layout == "kaggle":
        attributes.write_text(_lines([["image_id", *ATTRIBUTES], *rows], ","), encoding="utf-8")
        partition.write_text(_lines([("image_id", "partition"), *pairs], ","), encoding="utf-8")
    else:
        attributes.write_text(f"{images}\n{' '.join(ATTRIBUTES)} \n{_lines(rows, ' ')}", encoding="utf-8")
        partition.write_text(_lines(pairs, " "), encoding="utf-8")
    return folder


def _lines(rows: list[list[str]] | list[tuple[str, str]], between: str) -> str:
    return "".join(f"{between.join(row)}\n" for row in rows)


def write_mnist_sample(
    root: str | Path, *, images: int = 60, test_images: int = 20, packed: bool = True, seed: int = 0
) -> Path:
    """Writes the four IDX files as :class:`~equipoise.data.MNIST` reads them.

    Args:
        root: where they go.
        images: in the training files.
        test_images: in the test files.
        packed: whether by gzip, with the ending ``.gz``.
        seed: of the content.

    Raises:
        InputError: no images.
    """
    return _write_idx(Path(root), images, test_images, packed, np.random.default_rng([seed, 0]))


def write_fashion_mnist_sample(
    root: str | Path, *, images: int = 60, test_images: int = 20, packed: bool = True, seed: int = 0
) -> Path:
    """Writes the four IDX files as :class:`~equipoise.data.FashionMNIST` reads them; they are named as MNIST's.

    Args:
        root: where they go.
        images: in the training files.
        test_images: in the test files.
        packed: whether by gzip, with the ending ``.gz``.
        seed: of the content.

    Raises:
        InputError: no images.
    """
    return _write_idx(Path(root), images, test_images, packed, np.random.default_rng([seed, 1]))


def _write_idx(root: Path, images: int, test_images: int, packed: bool, rng: np.random.Generator) -> Path:
    if images < 1 or test_images < 1:
        raise InputError(f"images is {images} and test_images {test_images}; at least one of each is needed")
    root.mkdir(parents=True, exist_ok=True)
    prototypes = rng.integers(0, 206, (10, 28, 28))
    for split, count in (("train", images), ("t10k", test_images)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        pixels = (prototypes[labels] + rng.integers(0, 50, (count, 28, 28))).astype(np.uint8)
        for name, array in ((f"{split}-images-idx3-ubyte", pixels), (f"{split}-labels-idx1-ubyte", labels)):
            content = _idx(array)
            path = root / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return root


def _idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write_office31_sample(
    root: str | Path,
    *,
    images: int = 5,
    classes: Sequence[str] = ("back_pack", "bike"),
    size: tuple[int, int] = (40, 40),
    seed: int = 0,
) -> Path:
    """Writes the sources amazon, dslr and webcam as :class:`~equipoise.data.Office` reads them.

    Args:
        root: where the sources' folders go.
        images: of each class in each source.
        classes: names of the classes; the real set has 31.
        size: height and width.
        seed: of the content.

    Raises:
        InputError: no images or classes.
        MissingExtraError: Pillow is not installed.
    """
    places = [f"{source}/images" for source in ("amazon", "dslr", "webcam")]
    return _write_office(Path(root), places, "frame_{:04d}.jpg", images, classes, size, seed)


def write_office_home_sample(
    root: str | Path,
    *,
    images: int = 5,
    classes: Sequence[str] = ("Alarm_Clock", "Backpack"),
    size: tuple[int, int] = (40, 40),
    seed: int = 0,
) -> Path:
    """Writes the sources Art, Clipart, Product and Real World as :class:`~equipoise.data.Office` reads them.

    Args:
        root: where the sources' folders go.
        images: of each class in each source.
        classes: names of the classes; the real set has 65.
        size: height and width.
        seed: of the content.

    Raises:
        InputError: no images or classes.
        MissingExtraError: Pillow is not installed.
    """
    return _write_office(Path(root), ["Art", "Clipart", "Product", "Real World"], "{:05d}.jpg", images, classes, size, seed)


def _write_office(
    root: Path, places: Sequence[str], name: str, images: int, classes: Sequence[str], size: tuple[int, int], seed: int
) -> Path:
    if images < 1 or not classes:
        raise InputError(f"images is {images} and classes {tuple(classes)}; at least one of each is needed")
    rng = np.random.default_rng(seed)
    for place in places:
        for number, label in enumerate(classes):
            for image in range(1, images + 1):
                _photograph(root / place / label / name.format(image), rng, size, number / max(len(classes) - 1, 1))
    return root


_ELEMENTS = (1, 6, 7, 8, 9)
# Roughly what the real targets' means and deviations are, so that scaling has something to do.
_MEANS = (2.7, 75, -6.5, 0.3, 6.9, 1190, 4.1, -11180, -11180, -11180, -11180, 31.6, -76, -77, -77, -71, 9.7, 1.4, 1.1)
_DEVIATIONS = (1.5, 8, 0.6, 1.3, 1.3, 280, 0.9, 1085, 1085, 1085, 1085, 4.1, 10, 10, 10, 9.5, 5, 0.3, 0.2)


def write_qm9_sample(root: str | Path, *, molecules: int = 60, seed: int = 0) -> Path:
    """Writes ``raw/qm9_v3.pt`` as :class:`~equipoise.data.QM9Molecules` reads it; the molecules are chains of random atoms.

    Args:
        root: where ``raw`` is made.
        molecules: how many.
        seed: of the content.

    Raises:
        InputError: fewer than 2 molecules.
    """
    if molecules < 2:
        raise InputError(f"molecules is {molecules}; at least 2 are needed")
    folder = Path(root)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((len(_ELEMENTS) + 1, len(_MEANS))) / 2
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    torch.save([_molecule(rng, number, weights) for number in range(molecules)], folder / "raw" / "qm9_v3.pt")
    return folder


def _molecule(rng: np.random.Generator, number: int, weights: np.ndarray) -> dict[str, Tensor | str | int]:
    count = int(rng.integers(3, 10))
    kinds = rng.integers(0, len(_ELEMENTS), count)
    z = torch.tensor([_ELEMENTS[kind] for kind in kinds])
    # A chain: every atom is bound to the one before it, in both directions, in the order that torch_geometric sorts them.
    edges = [(a, b) for a in range(count) for b in (a - 1, a + 1) if 0 <= b < count]
    bonds = rng.integers(0, 4, count)
    edge_index = torch.tensor(edges).T.contiguous()
    edge_attr = torch.eye(4)[torch.tensor([int(bonds[min(pair)]) for pair in edges])]
    hydrogens = torch.zeros(count).index_add(0, edge_index[0], (z[edge_index[1]] == 1).float())
    hybrid = torch.eye(4)[torch.from_numpy(rng.integers(0, 4, count))]  # aromatic, sp, sp2, sp3
    x = torch.cat([torch.eye(5)[torch.from_numpy(kinds)], z[:, None].float(), hybrid, hydrogens[:, None]], dim=1)
    composition = np.append(np.bincount(kinds, minlength=len(_ELEMENTS)), count) / 4 - 0.5
    standard = composition @ weights + 0.3 * rng.standard_normal(len(_MEANS))
    return {
        "x": x,
        "z": z,
        "pos": torch.from_numpy(np.cumsum(rng.normal(0.0, 1.0, (count, 3)), axis=0).astype(np.float32)),
        "edge_index": edge_index,
        "edge_attr": edge_attr,
        "y": torch.tensor(np.array(_MEANS) + np.array(_DEVIATIONS) * standard, dtype=torch.float32)[None],
        "name": f"sample_{number}",
        "idx": number,
    }


def write_nyuv2_sample(
    root: str | Path, *, images: int = 4, test_images: int = 2, size: tuple[int, int] = (32, 48), seed: int = 0
) -> Path:
    """Writes scenes as :class:`~equipoise.data.NYUv2` reads them: image, label, depth and normal.

    Args:
        root: where ``train`` and ``val`` are made.
        images: in ``train``.
        test_images: in ``val``.
        size: height and width.
        seed: of the content.

    Raises:
        InputError: no images, or a size below 1.
    """
    folder = Path(root)
    rng = np.random.default_rng(seed)
    for split, count in _counts(images, test_images, size):
        for number in range(count):
            classes, depth, image = _scene(rng, size, 13)
            normal = np.stack([_patches(rng, size) - 0.5, _patches(rng, size) - 0.5, _patches(rng, size) + 0.5], axis=-1)
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            normal[depth == 0] = 0
            arrays = {"image": image, "label": classes, "depth": depth[..., None], "normal": normal}
            _save(folder / split, number, arrays)
    return folder


def write_cityscapes_sample(
    root: str | Path,
    *,
    images: int = 4,
    test_images: int = 2,
    size: tuple[int, int] = (32, 64),
    classes: int = 7,
    seed: int = 0,
) -> Path:
    """Writes scenes as :class:`~equipoise.data.Cityscapes` reads them: image, label and inverse depth.

    Args:
        root: where ``train`` and ``val`` are made.
        images: in ``train``.
        test_images: in ``val``.
        size: height and width.
        classes: of the label, which lies in ``label_7``, for instance.
        seed: of the content.

    Raises:
        InputError: no images, or a size below 1.
    """
    folder = Path(root)
    rng = np.random.default_rng(seed)
    for split, count in _counts(images, test_images, size):
        for number in range(count):
            label, depth, image = _scene(rng, size, classes)
            inverse = np.where(depth > 0, 0.05 / np.maximum(depth, 0.1), 0)
            _save(folder / split, number, {"image": image, f"label_{classes}": label, "depth": inverse[..., None]})
    return folder


def _counts(images: int, test_images: int, size: tuple[int, int]) -> list[tuple[str, int]]:
    if images < 1 or test_images < 1 or min(size) < 1:
        raise InputError(f"images is {images}, test_images {test_images}, size {size}; all of these must be at least 1")
    return [("train", images), ("val", test_images)]


def _scene(
    rng: np.random.Generator, size: tuple[int, int], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Label (a tenth of it void), depth from 1 to 9 (a tenth of it unknown), and an image that shows both."""
    field, depth = _patches(rng, size), 1 + 8 * _patches(rng, size)
    label = np.floor(field * classes)
    noise = rng.random((*size, 3)) * 0.1
    image = np.stack([field, depth / 10, (field + depth / 10) / 2], axis=-1) * 0.9 + noise
    label[_patches(rng, size) < 0.1] = -1
    depth[_patches(rng, size) < 0.1] = 0
    return label, depth, image


def _save(folder: Path, number: int, arrays: dict[str, NDArray[np.float64]]) -> None:
    for name, array in arrays.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.save(folder / name / f"{number}.npy", array.astype(np.float32))
