"""Cityscapes: streets, with semantic classes and inverse depth."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from equipoise.data.dense.scenes import Layout, Loaders, SceneDataset, ZoomAndFlip, scene_loaders
from equipoise.errors import InputError

__all__ = ["Cityscapes", "cityscapes_loaders"]


def _layout(classes: int) -> Layout:
    if classes not in (2, 7, 19):
        raise InputError(f"classes is {classes}; the preprocessed Cityscapes has labels with 2, 7 and 19 classes")
    # Where only one kind of label was kept, it is often called "label".
    names = ("label_7", "label") if classes == 7 else (f"label_{classes}",)
    return Layout(
        name="Cityscapes",
        source="the preprocessed archive (128×256) that the README of github.com/lorenmt/mtan links to",
        folders={"image": ("image",), "label": names, "depth": ("depth",)},
        classes=classes,
        ignored=(255,),  # Cityscapes' own number for what does not count
    )


class Cityscapes(SceneDataset):
    """One split of Cityscapes (Cordts et al. 2016) in the preprocessing of MTAN (Liu et al. 2019).

    On disk: ``root/train`` (2,975 scenes) and ``root/val`` (500), in each of them the folders ``image`` (H×W×3, 0 to 1),
    ``label_7`` or ``label`` (H×W, 7 classes, −1 for void; ``label_19`` and ``label_2`` likewise) and ``depth`` (H×W×1,
    *inverse* depth, 0 where unknown), in each of those ``0.npy``, ``1.npy``, …; H×W is 128×256 or 256×512 in the published
    files, any size is read.

    A row is ``{"image": [3, H, W] float32, "label": [H, W] int64, "depth": [1, H, W] float32}``.

    Args:
        root: the folder that holds ``train`` and ``val``.
        split: ``"train"`` or ``"val"``; ``"test"`` where there is such a folder, too.
        classes: 7, as in the literature on balancing, 19 or 2.
        augmentation: applied to every row; none by default.
        seed: of the augmentation, which is a function of (seed, epoch, row).

    Raises:
        InputError: another split or number of classes.
        DataSetError: a folder or file is missing; when a row is read, that a file is no array of the stated shape.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise_papers.samples import write_cityscapes_sample
        >>> scenes = Cityscapes(write_cityscapes_sample(mkdtemp()), "val")
        >>> {name: tuple(array.shape) for name, array in scenes[0].items()}
        {'image': (3, 32, 64), 'label': (32, 64), 'depth': (1, 32, 64)}
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test"] = "train",
        *,
        classes: int = 7,
        augmentation: ZoomAndFlip | None = None,
        seed: int = 0,
    ) -> None:
        self.classes = classes
        super().__init__(_layout(classes), root, split, augmentation=augmentation, seed=seed)


def cityscapes_loaders(
    root: str | Path,
    batch_size: int = 8,
    *,
    classes: int = 7,
    augmentation: ZoomAndFlip | None = ZoomAndFlip(),  # noqa: B008  (frozen)
    validation: float = 0.0,
    seed: int = 0,
    split_seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> Loaders:
    """Loaders for training, validation and test; everything as for :func:`~equipoise.data.nyuv2_loaders`.

    Args:
        root: the folder that holds ``train`` and ``val``, and maybe ``test``.
        batch_size: scenes per batch; 8 in the literature.
        classes: 7, 19 or 2.

    Raises:
        InputError: another number of classes.
        DataSetError: as :class:`Cityscapes`.
    """
    return scene_loaders(
        lambda split, seen: Cityscapes(root, split, classes=classes, augmentation=seen, seed=seed),  # type: ignore[arg-type]
        root,
        batch_size,
        augmentation=augmentation,
        validation=validation,
        seed=seed,
        split_seed=split_seed,
        workers=workers,
        pin_memory=pin_memory,
        drop_last=drop_last,
    )
