"""What task weights are learned on: training data put aside, half of each batch, or a loader whose place can be saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler, SequentialSampler, Subset

from equipoise.data.loading import DatasetBatches, TensorBatches
from equipoise.errors import InputError
from equipoise.randomness import RandomState
from equipoise.states import Generator, Maybe, Whole, read_state

__all__ = ["HeldOut", "Validation", "halves", "hold_out"]


class HeldOut(NamedTuple):
    """Training data in two parts.

    Attributes:
        train: a loader of the part that is trained on.
        validation: a loader of the part that was put aside; ``None`` where the data cannot be divided, so that every
            batch has to be cut in two instead.
    """

    train: Iterable[Any]
    validation: Iterable[Any] | None


def hold_out(loader: Iterable[Any], fraction: float = 0.2, seed: int = 0) -> HeldOut:
    """Divides a *training* loader into two fixed parts, so that validation and test data stay untouched.

    Args:
        loader: a :class:`~equipoise.data.TensorBatches` or :class:`~equipoise.data.DatasetBatches`, divided by rows (where each
            task has rows of its own, as the sources of Office have, each task's are divided); a
            :class:`torch.utils.data.DataLoader` over a data set of known length, divided by indices, whatever its sampler; for
            anything else ``validation`` is ``None``, and batches are to be cut in two.
        fraction: which part of the rows is put aside, between 0 and 1.
        seed: decides which rows, and their order.

    Returns:
        Loaders for both parts; batch sizes are as before, or all rows where the part has fewer.

    Raises:
        InputError: a fraction out of range, or too few rows.

    Example:
        >>> rows = TensorBatches({"x": torch.arange(10)}, batch_size=4, shuffle=True)
        >>> train, validation = hold_out(rows, 0.3)
        >>> sum(len(batch["x"]) for batch in train), sum(len(batch["x"]) for batch in validation)
        (7, 3)
    """
    if isinstance(fraction, bool) or not 0 < fraction < 1:
        raise InputError(f"the fraction to hold out must lie between 0 and 1; got {fraction}")
    if isinstance(loader, TensorBatches):
        return _of_rows(loader, fraction, seed)
    if isinstance(loader, DatasetBatches):
        return _of_files(loader, fraction, seed)
    if isinstance(loader, DataLoader) and _divisible(loader):
        return _of_indices(loader, fraction, seed)
    return HeldOut(loader, None)


def _divided(rows: int, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of both parts, each ascending."""
    if rows < 2:
        raise InputError(f"{rows} row cannot be divided into training and validation data; there must be at least 2")
    aside = min(rows - 1, max(1, round(rows * fraction)))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed), device="cpu")
    return order[aside:].sort().values, order[:aside].sort().values


def _of_rows(loader: TensorBatches, fraction: float, seed: int) -> HeldOut:
    kept, aside = _divided(len(next(iter(loader.tensors.values()))), fraction, seed)

    def part(rows: torch.Tensor, shuffle: bool) -> TensorBatches:
        tensors = {name: tensor[rows.to(tensor.device)] for name, tensor in loader.tensors.items()}
        return TensorBatches(tensors, loader.batch_size, shuffle=shuffle, seed=loader.seed)

    return HeldOut(part(kept, loader.shuffle), part(aside, True))


def _of_files(loader: DatasetBatches, fraction: float, seed: int) -> HeldOut:
    shares = [_divided(len(own), fraction, seed) for own in loader.groups()]
    kept, aside = (torch.cat([own[share[side]] for own, share in zip(loader.groups(), shares, strict=True)]) for side in (0, 1))
    train = loader.part(kept, shuffle=loader.shuffle, drop_last=loader.drop_last)
    validation = loader.part(aside, shuffle=True, drop_last=False)
    if any(set(itertools.chain(*part.plan(0))) - set(part.rows.tolist()) for part in (train, validation)):
        return HeldOut(loader, None)  # a plan of its own that does not keep to the rows
    return HeldOut(train, validation)


def _divisible(loader: DataLoader[Any]) -> bool:
    return (
        not isinstance(loader.dataset, IterableDataset)
        and isinstance(loader.dataset, Sized)
        and loader.batch_size is not None  # else the batches are a sampler's own, or there are none
    )


def _passes_over_all(sampler: Any) -> bool:
    """Whether a sampler visits every row once; what another one wants is not known, but that it is asked."""
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


class _Kept(Sampler[int]):
    """What a sampler draws, without the rows that were put aside."""

    def __init__(self, sampler: Any, kept: Tensor, rows: int) -> None:
        self.sampler = sampler
        self.kept = frozenset(kept.tolist())
        self.share = len(kept) / rows

    def __len__(self) -> int:
        return max(1, round(self.share * len(self.sampler)))

    def __iter__(self) -> Iterator[int]:
        """As many as :meth:`__len__` says, so that the loader's length is true: the sampler is asked again where it ends."""
        left = len(self)
        while left:
            drawn = [row for row in map(int, self.sampler) if row in self.kept][:left]
            if not drawn:
                raise InputError("the loader's sampler draws none of the rows that are left to train on; hold out fewer rows")
            yield from drawn
            left -= len(drawn)


def _of_indices(loader: DataLoader[Any], fraction: float, seed: int) -> HeldOut:
    kept, aside = _divided(len(loader.dataset), fraction, seed)  # type: ignore[arg-type]
    shuffled = isinstance(loader.sampler, RandomSampler)
    own = None if _passes_over_all(loader.sampler) else _Kept(loader.sampler, kept, len(loader.dataset))  # type: ignore[arg-type]

    def part(
        data: Any, shuffle: bool, generator: torch.Generator | None, drop_last: bool, sampler: _Kept | None = None
    ) -> DataLoader[Any]:
        # Loaders of other kinds, such as those of graphs, differ in how they collate.
        return DataLoader(
            data,
            batch_size=loader.batch_size,
            shuffle=shuffle,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=drop_last,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    rest = Subset(loader.dataset, aside.tolist())
    held = part(rest, True, torch.Generator().manual_seed(seed), False)
    if own is not None:
        return HeldOut(part(loader.dataset, False, loader.generator, loader.drop_last, own), held)
    return HeldOut(part(Subset(loader.dataset, kept.tolist()), shuffled, loader.generator, loader.drop_last), held)


def halves(batch: Any) -> tuple[Any, Any]:
    """Cuts a batch in two along the first dimension of all its tensors; of an odd number of rows the first half has one more.

    The batch is a tensor, or a mapping or sequence (nested as you like) of tensors; the halves are views. A mapping of mappings
    whose lengths differ, as where each task has rows of its own, is cut part by part.

    Raises:
        InputError: something else is in the batch, the tensors differ in length, or there is one row only.

    Example:
        >>> import torch
        >>> first, second = halves({"x": torch.arange(5), "y": torch.arange(5)})
        >>> first["x"].tolist(), second["y"].tolist()
        ([0, 1, 2], [3, 4])
    """
    lengths = {len(tensor) if tensor.dim() else 0 for tensor in _tensors(batch)}
    if len(lengths) > 1 and isinstance(batch, Mapping) and all(isinstance(part, Mapping) for part in batch.values()):
        cut = {name: halves(part) for name, part in batch.items()}
        return {name: first for name, (first, _) in cut.items()}, {name: second for name, (_, second) in cut.items()}
    if len(lengths) != 1 or min(lengths) < 2:
        found = f"tensors whose first dimensions are {', '.join(map(str, sorted(lengths)))}" if lengths else "no tensor"
        raise InputError(
            f"a batch is cut in two, training and validation half, only if all its tensors have one first dimension of at "
            f"least 2; this one holds {found}. Give step() two batches, or a validation loader"
        )
    middle = -(-lengths.pop() // 2)
    return _cut(batch, slice(None, middle)), _cut(batch, slice(middle, None))


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for entry in batch.values():
            yield from _tensors(entry)
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        for entry in batch:
            yield from _tensors(entry)
    else:
        raise InputError(
            f"a batch is cut in two, training and validation half, only if it consists of tensors in mappings and sequences; "
            f"this one holds {type(batch).__name__}. Give step() two batches, or a validation loader"
        )


def _cut(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, Mapping):
        return {name: _cut(entry, rows) for name, entry in batch.items()}
    entries = [_cut(entry, rows) for entry in batch]
    if hasattr(batch, "_fields"):  # a named tuple takes its entries one by one
        return type(batch)(*entries)
    return tuple(entries) if isinstance(batch, tuple) else entries


class Validation:
    """Draws batch after batch from a loader, pass after pass.

    Of a loader with a method ``set_epoch`` every pass is told its number. What a shuffling
    :class:`torch.utils.data.DataLoader` draws for its order, from its generator or torch's own, is remembered at the
    beginning of a pass, so that :meth:`load_state_dict` finds the same place in the same order.

    Raises:
        InputError: it cannot.

    Example:
        >>> batches = Validation([1, 2, 3])
        >>> [batches.draw() for _ in range(4)]
        [1, 2, 3, 1]
        >>> state = batches.state_dict()
        >>> later = Validation([1, 2, 3])
        >>> later.load_state_dict(state)
        >>> later.draw()
        2
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if isinstance(loader, Iterator) or not isinstance(loader, Iterable):
            raise InputError(
                f"validation must be a loader that can be iterated over again and again; got {type(loader).__name__}"
            )
        self.loader = loader
        self.passes = 0
        self.position = 0
        self._batches: Iterator[Any] | None = None
        self._random: torch.Tensor | None = None
        self._generator: torch.Tensor | None = None

    def draw(self) -> Any:
        """The next batch. Raises InputError: a pass over the loader gave none."""
        if self._batches is None:
            self._batches = self._begin()
        missing = object()
        batch = next(self._batches, missing)
        if batch is missing:
            if self.position == 0:
                raise InputError("the validation loader is empty; it must give at least one batch")
            self.passes += 1
            self._batches, self.position = None, 0
            return self.draw()
        self.position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place, and the random state from which the present pass began."""
        return {"passes": self.passes, "position": self.position, "random": self._random, "generator": self._generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place: starts the pass again, as it began then, and skips what had been drawn.

        Raises:
            InputError: it is no such state, or of a longer loader; nothing has changed.
        """
        read = self.read_state(state)
        before = dict(vars(self))
        try:
            self._go_to(read)
        except BaseException:
            vars(self).update(before)
            raise

    def read_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state as it is loaded. Raises InputError: it is none."""
        kinds = {"passes": Whole(), "position": Whole(), "random": Maybe(Generator()), "generator": Maybe(Generator())}
        return read_state("a validation loader", state, kinds)

    def _go_to(self, state: dict[str, Any]) -> None:
        self.passes, self.position = state["passes"], state["position"]
        self._random, self._generator = state["random"], state["generator"]
        self._batches = None
        if self.position == 0:
            return
        generator = _generator(self.loader)
        if generator is not None and self._generator is not None:
            generator.set_state(self._generator)
        before = RandomState.capture()
        with RandomState(before.cpu if self._random is None else self._random, {}).replayed():
            self._batches = self._begin()
            for skipped in range(self.position):
                if next(self._batches, None) is None:
                    raise InputError(f"the validation loader gives {skipped} batches; the state is of one with more of them")

    def _begin(self) -> Iterator[Any]:
        self._random = torch.get_rng_state()
        generator = _generator(self.loader)
        self._generator = None if generator is None else generator.get_state()
        set_epoch = getattr(self.loader, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.passes)
        return iter(self.loader)


def _generator(loader: Any) -> torch.Generator | None:
    """The generator that decides a DataLoader's order, if it has one of its own."""
    for owner in (getattr(loader, "sampler", None), loader):
        found = getattr(owner, "generator", None)
        if isinstance(found, torch.Generator):
            return found
    return None
