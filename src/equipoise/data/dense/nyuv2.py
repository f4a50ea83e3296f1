"""NYUv2: rooms, with semantic classes, depth and surface normals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from equipoise.data.dense.scenes import Layout, Loaders, SceneDataset, ZoomAndFlip, scene_loaders

__all__ = ["NYUv2", "nyuv2_loaders"]

_LAYOUT = Layout(
    name="NYUv2",
    source="the preprocessed archive (288×384) that the README of github.com/lorenmt/mtan links to",
    folders={name: (name,) for name in ("image", "label", "depth", "normal")},
    classes=13,
)


class NYUv2(SceneDataset):
    """One split of NYUv2 (Silberman et al. 2012) in the preprocessing of MTAN (Liu et al. 2019).

    On disk: ``root/train`` (795 scenes) and ``root/val`` (654), in each of them the folders ``image`` (H×W×3, 0 to 1),
    ``label`` (H×W, 13 classes, −1 for void), ``depth`` (H×W×1, metres, 0 where unknown) and ``normal`` (H×W×3, of length 1, 0
    where unknown), in each of those ``0.npy``, ``1.npy``, …; H×W is 288×384 in the published files, any size is read.

    A row is ``{"image": [3, H, W] float32, "label": [H, W] int64, "depth": [1, H, W] float32, "normal": [3, H, W] float32}``.

    Args:
        root: the folder that holds ``train`` and ``val``.
        split: ``"train"`` or ``"val"``; ``"test"`` where there is such a folder, too.
        augmentation: applied to every row; none by default.
        seed: of the augmentation, which is a function of (seed, epoch, row).

    Raises:
        InputError: another split.
        DataSetError: a folder or file is missing; when a row is read, that a file is no array of the stated shape.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise_papers.samples import write_nyuv2_sample
        >>> scenes = NYUv2(write_nyuv2_sample(mkdtemp()), "train")
        >>> {name: tuple(array.shape) for name, array in scenes[0].items()}
        {'image': (3, 32, 48), 'label': (32, 48), 'depth': (1, 32, 48), 'normal': (3, 32, 48)}
    """

    classes = _LAYOUT.classes

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test"] = "train",
        *,
        augmentation: ZoomAndFlip | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(_LAYOUT, root, split, augmentation=augmentation, seed=seed)


def nyuv2_loaders(
    root: str | Path,
    batch_size: int = 2,
    *,
    augmentation: ZoomAndFlip | None = ZoomAndFlip(),  # noqa: B008  (frozen)
    validation: float = 0.0,
    seed: int = 0,
    split_seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> Loaders:
    """Loaders for training, validation and test. As in the literature, the ``val`` folder is what is tested on.

    Args:
        root: the folder that holds ``train`` and ``val``. If it has a folder ``test`` as well, that is tested on, and ``val``
            is the validation split.
        batch_size: scenes per batch; 2 in the literature.
        augmentation: of the training split alone; ``None`` for none.
        validation: fraction of the training scenes to keep back, without augmentation, as validation split; 0 for none.
        seed: of the training order and the augmentation.
        split_seed: of the choice of what is kept back.
        workers: processes of each loader that read ahead.
        pin_memory: whether batches lie in page-locked memory.
        drop_last: whether a last, smaller training batch is left out.

    Returns:
        Three :class:`~equipoise.data.DatasetBatches`, the second of which may be ``None``. A batch is as a row of
        :class:`NYUv2`, with one dimension more in front.

    Raises:
        DataSetError: as :class:`NYUv2`.
    """
    return scene_loaders(
        lambda split, seen: NYUv2(root, split, augmentation=seen, seed=seed),  # type: ignore[arg-type]
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
