"""A batch cut in two, for those who have no validation data at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from equipoise.errors import InputError

__all__ = ["halves"]


def halves(batch: Any) -> tuple[Any, Any]:
    """Cuts a batch in two along the first dimension of all its tensors; of an odd number of rows the first half has one more.

    The batch is a tensor, or a mapping or sequence (nested as you like) of tensors; the halves are views.

    Raises:
        InputError: something else is in the batch, the tensors differ in length, or there is one row only.

    Example:
        >>> import torch
        >>> first, second = halves({"x": torch.arange(5), "y": torch.arange(5)})
        >>> first["x"].tolist(), second["y"].tolist()
        ([0, 1, 2], [3, 4])
    """
    lengths = {len(tensor) if tensor.dim() else 0 for tensor in _tensors(batch)}
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
