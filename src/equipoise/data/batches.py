"""Batches from tensors that fit in memory, in an order that depends on nothing but the seed and the epoch.

A ``torch.utils.data.DataLoader`` fetches items one by one and stacks them again; for small data held in memory that
takes longer than the training step itself. Here a batch is one indexing operation per tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from equipoise.data.loading import generator_of
from equipoise.errors import InputError

__all__ = ["TensorBatches"]


class TensorBatches:
    """An iterable over batches, each a dictionary of tensors.

    Every pass over it is one epoch and counts :attr:`epoch` up, so that a plain ``for batch in batches`` sees another
    order each time. The order is a function of ``(seed, epoch)`` alone: it does not touch torch's global generator, and
    :meth:`set_epoch` goes straight to any epoch, which is all that a resumed training needs.

    Args:
        tensors: name → tensor; all of them have the same length ``N`` in their first dimension.
        batch_size: rows per batch; the last batch of an epoch may be smaller.
        shuffle: whether the order changes from epoch to epoch; otherwise rows come as they are stored.
        seed: seed of the order.

    Raises:
        InputError: no tensors, tensors of different lengths, or a batch size below 1.

    Example:
        >>> rows = TensorBatches({"x": torch.arange(5)}, batch_size=2)
        >>> [batch["x"].tolist() for batch in rows]
        [[0, 1], [2, 3], [4]]
        >>> len(rows), rows.epoch
        (3, 1)
    """

    def __init__(self, tensors: Mapping[str, Tensor], batch_size: int, *, shuffle: bool = False, seed: int = 0) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if not lengths:
            raise InputError("TensorBatches was given no tensors; pass at least one as {name: tensor}")
        if len(set(lengths.values())) > 1:
            raise InputError(f"TensorBatches needs tensors of one length, but was given {lengths}")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        self.tensors = dict(tensors)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self._rows = next(iter(lengths.values()))

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-self._rows // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass the one with this number, counted from 0."""
        self.epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """The row numbers ``[N]`` in the order in which that epoch visits them."""
        if not self.shuffle:
            return torch.arange(self._rows)
        return torch.randperm(self._rows, generator=generator_of(self.seed, epoch))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yields the batches of the present epoch."""
        order = self.order(self.epoch)
        self.epoch += 1
        for start in range(0, self._rows, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield {name: tensor[rows] for name, tensor in self.tensors.items()}
