"""A torch data set whose rows may look different in each epoch, repeatably."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset, default_collate

__all__ = ["EpochDataset"]


class EpochDataset(Dataset[dict[str, Any]]):
    """Base class of the readers: ``at(row, epoch)`` is a function of its arguments and the data set's seed alone.

    That makes training repeatable whatever the number of workers, and resumable at any epoch. ``dataset[row]`` is
    ``at(row, epoch)`` for the epoch last given to :meth:`set_epoch`, for use with a plain ``DataLoader``;
    :class:`~equipoise.data.DatasetBatches` passes the epoch by itself.

    Derived classes define ``__len__`` and ``at``, and ``collate`` or ``batch`` where stacking is not what is needed.
    """

    epoch = 0

    def __len__(self) -> int:
        """Rows of the split."""
        raise NotImplementedError

    def at(self, row: int, epoch: int) -> dict[str, Any]:
        """The row as that epoch sees it."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that ``dataset[row]`` shows."""
        self.epoch = epoch

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The row as the present epoch sees it; negative numbers count from the end."""
        count = len(self)
        if not -count <= row < count:
            raise IndexError(f"row {row} of a data set with {count} rows")
        return self.at(int(row) % count, self.epoch)

    def collate(self, items: Sequence[dict[str, Any]]) -> Any:
        """One batch from several rows: tensors are stacked by name."""
        return default_collate(list(items))

    def batch(self, rows: Sequence[int], epoch: int) -> Any:
        """The batch of those rows as that epoch sees it; overridden where many rows are read faster at once."""
        return self.collate([self.at(row, epoch) for row in rows])
