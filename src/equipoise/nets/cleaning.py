"""The network of multi-task data hyper-cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from equipoise.errors import InputError
from equipoise.nets.sharing import HardSharing

__all__ = ["CleaningNet"]


class CleaningNet(HardSharing):
    """Linear layers (784 → 512 → 256) that all data sets share, ReLU after each, and a linear head for each data set.

    The network of FORUM's study of MNIST and FashionMNIST (Ye's thesis, section 3.7.1; Ye et al., 2024); 538,388 parameters
    for the two. Each data set has its own images, so it is given a mapping data set → images.

    Args:
        datasets: names of the data sets, which are the tasks.
        classes: of each.
        further: how many further layers 512 → 512 lie between the two; the thesis grows the network by them.
        sizes: pixels of an image, and widths of the two shared layers.

    Attributes:
        encoder: what the data sets share, ``[N, 1, 28, 28]`` or ``[N, 784]`` → ``[N, 256]``; it runs once for each data
            set, so it cannot serve as ``features=``.
        heads: data set → head, ``[N, 256]`` → ``[N, classes]``.

    Raises:
        InputError: no data sets, or numbers that are too small.

    Example:
        >>> import torch
        >>> images = {"mnist": torch.zeros(3, 1, 28, 28), "fashion": torch.zeros(5, 1, 28, 28)}
        >>> {dataset: tuple(logits.shape) for dataset, logits in CleaningNet()(images).items()}
        {'mnist': (3, 10), 'fashion': (5, 10)}
    """

    def __init__(
        self,
        datasets: Sequence[str] = ("mnist", "fashion"),
        classes: int = 10,
        further: int = 0,
        *,
        sizes: tuple[int, int, int] = (784, 512, 256),
    ) -> None:
        if classes < 1 or further < 0:
            raise InputError(f"classes must be from 1 on and further from 0 on; got classes={classes}, further={further}")
        if min(sizes) < 1:
            raise InputError(f"sizes must be whole numbers from 1 on; got {sizes}")
        pixels, first, last = sizes
        widths = (pixels, first, *([first] * further), last)
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        super().__init__(
            nn.Sequential(nn.Flatten(), *layers), {dataset: nn.Linear(last, classes) for dataset in datasets}, own_inputs=True
        )
