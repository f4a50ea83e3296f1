"""From rows of a data set to batches: splits, orders that can be resumed, workers, tensors that fit in memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from equipoise.errors import EquipoiseError, InputError

__all__ = ["DatasetBatches", "EpochDataset", "TensorBatches", "generator_of", "held_out", "mixed_seed"]


def mixed_seed(*numbers: int) -> int:
    """A seed of 63 bits in which every number counts, so that (0, 1) and (1, 0) have nothing in common.

    Example:
        >>> mixed_seed(0, 1) == mixed_seed(0, 1) != mixed_seed(1, 0)
        True
    """
    mixed = np.random.SeedSequence(numbers).generate_state(1, dtype=np.uint64)[0]
    return int(mixed >> np.uint64(1))


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of its own, seeded with :func:`mixed_seed`."""
    return torch.Generator().manual_seed(mixed_seed(*numbers))


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


class DatasetBatches:
    """An iterable over the batches of an :class:`EpochDataset`, read ahead by workers if so wished.

    It behaves as :class:`~equipoise.data.TensorBatches` does: every pass is one epoch and counts :attr:`epoch` up, the
    order is a function of ``(seed, epoch)``, and :meth:`set_epoch` goes straight to any epoch, and within it to any batch.
    Batches are the same whatever the number of workers, and torch's global generator is not touched. Workers live as
    long as the loader does. An error in a worker is raised here as the error it was.

    Args:
        dataset: what is read.
        batch_size: rows per batch; the last batch of an epoch may be smaller.
        rows: which rows of the data set are visited; all of them if left out.
        shuffle: whether the order changes from epoch to epoch; otherwise rows come in the order of ``rows``.
        seed: seed of the order.
        drop_last: whether a last batch that is smaller than the others is left out, as batch normalisation may need.
        workers: processes that read ahead; 0 reads in this process.
        pin_memory: whether batches are put into page-locked memory, from which they get to a GPU faster; without a GPU it
            has no effect.

    Raises:
        InputError: a batch size below 1, fewer than 0 workers, or no rows.

    Example:
        >>> class Squares(EpochDataset):
        ...     def __len__(self):
        ...         return 5
        ...     def at(self, row, epoch):
        ...         return {"square": torch.tensor(row * row)}
        >>> [batch["square"].tolist() for batch in DatasetBatches(Squares(), batch_size=2)]
        [[0, 1], [4, 9], [16]]
    """

    def __init__(
        self,
        dataset: EpochDataset,
        batch_size: int,
        *,
        rows: Tensor | Sequence[int] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        if workers < 0:
            raise InputError(f"workers is {workers}; it must be 0, to read in this process, or the number of processes")
        self.dataset = dataset
        self.batch_size = batch_size
        self.rows = (
            torch.arange(len(dataset), device="cpu") if rows is None else torch.as_tensor(rows, dtype=torch.int64, device="cpu")
        )
        if not len(self.rows):
            raise InputError("the loader was given no rows; it needs at least one")
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        self._skip = 0
        self.workers = workers
        self.pin_memory = pin_memory
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        if self.drop_last:
            return len(self.rows) // self.batch_size
        return -(-len(self.rows) // self.batch_size)

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Makes the next pass the one with this number, counted from 0, without its first ``skip`` batches."""
        self.epoch = epoch
        self._skip = skip

    def order(self, epoch: int) -> Tensor:
        """The row numbers ``[N]`` in the order in which that epoch visits them."""
        if not self.shuffle:
            return self.rows
        return self.rows[torch.randperm(len(self.rows), generator=generator_of(self.seed, epoch), device="cpu")]

    def plan(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of that epoch."""
        batches = [rows.tolist() for rows in self.order(epoch).split(self.batch_size)]
        return batches[: len(self)]

    def part(self, rows: Tensor, *, shuffle: bool, drop_last: bool) -> Self:
        """The same loader over some of its rows, at epoch 0; a derived class whose plan keeps to :attr:`rows` needs no more."""
        made = copy.copy(self)
        made.rows, made.shuffle, made.drop_last = rows, shuffle, drop_last
        made.epoch, made._skip, made._loader = 0, 0, None
        return made

    def groups(self) -> list[Tensor]:
        """The rows in groups of which each part of the data must have its share; one group here."""
        return [self.rows]

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches of the present epoch."""
        if self._loader is None:
            self._loader = self._opened()
        iterator = iter(self._loader)  # takes the plan of the present epoch
        self.epoch += 1
        self._skip = 0
        for batch in iterator:
            if isinstance(batch, _Raised):
                error = batch.error
                # The workers end here and now: whoever keeps the error keeps this frame, and see _Planned.
                del batch, iterator
                self._loader = None
                try:
                    raise error
                finally:
                    del error
            yield batch

    def _opened(self) -> DataLoader[Any]:
        return DataLoader(
            _Fetcher(self.dataset),
            batch_sampler=_Planned(self),  # type: ignore[arg-type]
            collate_fn=_as_it_is,
            num_workers=self.workers,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            # Only a seed for the workers' generators is drawn from it, which nothing here uses; without it, that seed
            # would come from the global generator.
            generator=torch.Generator(),
        )


class _Planned:
    """The plan of the loader's present epoch, each batch with the epoch's number for the workers to know."""

    def __init__(self, batches: DatasetBatches) -> None:
        # Not a cycle of references: the garbage collector would close the workers' queues before the loader has told the
        # workers to end, and then wait five seconds for each.
        self._batches = weakref.ref(batches)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        # No generator function: the epoch is looked up now, not when the first batch is asked for.
        batches = self._batches()
        assert batches is not None  # whoever iterates holds it
        epoch, skip = batches.epoch, batches._skip
        return iter([(epoch, rows) for rows in batches.plan(epoch)[skip:]])


class _Fetcher(Dataset[Any]):
    """Fetches a whole batch at once; an error of ours travels as a value, since torch would wrap a traceback around it."""

    def __init__(self, dataset: EpochDataset) -> None:
        self.dataset = dataset

    def __getitems__(self, planned: tuple[int, list[int]]) -> Any:
        epoch, rows = planned
        try:
            return self.dataset.batch(rows, epoch)
        except EquipoiseError as error:
            return _Raised(error)


class _Raised:
    def __init__(self, error: EquipoiseError) -> None:
        self.error = error


def _as_it_is(batch: Any) -> Any:
    return batch


def held_out(count: int, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Splits ``count`` rows at random: those to train on and those to validate on, each in ascending order.

    Args:
        count: rows there are.
        fraction: of them that are kept back, in [0, 1).
        seed: of the choice; not the seed of a run, so that all runs validate on the same rows.

    Returns:
        Row numbers ``[n]`` and ``[m]``, int64, n + m = count; m is 0 only if the fraction is.

    Raises:
        InputError: the fraction is outside [0, 1), or leaves nothing to train on.

    Example:
        >>> [len(rows) for rows in held_out(50, 0.1)]
        [45, 5]
    """
    if not 0 <= fraction < 1:
        raise InputError(f"validation is {fraction}; it must be the fraction of training rows to keep back, in [0, 1)")
    kept = max(1, round(fraction * count)) if fraction else 0
    if kept >= count:
        raise InputError(f"validation={fraction} keeps back {kept} of {count} training rows; at least one must be left")
    order = torch.randperm(count, generator=generator_of(seed), device="cpu")
    return order[kept:].sort().values, order[:kept].sort().values


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
            return torch.arange(self._rows, device="cpu")
        return torch.randperm(self._rows, generator=generator_of(self.seed, epoch), device="cpu")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yields the batches of the present epoch."""
        order = self.order(self.epoch)
        self.epoch += 1
        for start in range(0, self._rows, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield {name: tensor[rows] for name, tensor in self.tensors.items()}
