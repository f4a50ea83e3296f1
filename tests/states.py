"""Whether two states are the same, exactly: to the bit, with type, dtype and shape, wherever in them a number lies.

Comparing what is printed of states does not do: four decimals are printed, of large tensors only the corners.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SHOWN = 5


def kept(state: Any) -> Any:
    """A copy that nothing done to the original changes."""
    return copy.deepcopy(state, {})


def same_state(found: object, expected: object) -> bool:
    """Whether the two are the same; :func:`assert_same_state` says where they are not."""
    return next(differences(found, expected), None) is None


def assert_same_state(found: object, expected: object, what: str = "state") -> None:
    """Fails, naming the first places that differ, unless the two are the same to the bit.

    Looks into mappings, sequences, sets, dataclasses, tensors, arrays and generators of random numbers; anything else has to
    be of the same type and equal. Not a number is the same as itself, and 0.0 is not the same as -0.0.
    """
    __tracebackhide__ = True
    lines = []
    for line in differences(found, expected, what):
        if len(lines) == _SHOWN:
            lines.append("...")
            break
        lines.append(line)
    assert not lines, "not the same:\n  " + "\n  ".join(lines)


def differences(found: object, expected: object, place: str = "state") -> Iterator[str]:
    """One line for each place where the two differ."""
    if type(found) is not type(expected):
        yield f"{place}: {_short(found)} of type {type(found).__name__}, expected {_short(expected)} of type " + (
            type(expected).__name__
        )
    elif isinstance(found, Tensor):
        yield from _tensors(found, expected, place)  # type: ignore[arg-type]
    elif isinstance(found, np.ndarray | np.generic):
        yield from _arrays(np.asarray(found), np.asarray(expected), place)
    elif isinstance(found, Mapping):
        yield from _mappings(found, expected, place)  # type: ignore[arg-type]
    elif isinstance(found, list | tuple):
        yield from _sequences(found, expected, place)  # type: ignore[arg-type]
    elif isinstance(found, torch.Generator):
        yield from differences(found.get_state(), expected.get_state(), f"{place}.get_state()")  # type: ignore[attr-defined]
    elif isinstance(found, np.random.Generator):
        yield from differences(found.bit_generator.state, expected.bit_generator.state, f"{place}.state")  # type: ignore[attr-defined]
    elif isinstance(found, random.Random):
        yield from differences(found.getstate(), expected.getstate(), f"{place}.getstate()")  # type: ignore[attr-defined]
    elif dataclasses.is_dataclass(found):
        for field in dataclasses.fields(found):
            yield from differences(getattr(found, field.name), getattr(expected, field.name), f"{place}.{field.name}")
    elif isinstance(found, float | complex):
        if _bits(found) != _bits(expected):  # type: ignore[arg-type]
            yield f"{place}: {found!r}, expected {expected!r}"
    elif found is not expected and not bool(found == expected):
        yield f"{place}: {_short(found)}, expected {_short(expected)}"


def _tensors(found: Tensor, expected: Tensor, place: str) -> Iterator[str]:
    for fact in ("dtype", "shape", "device", "layout"):
        mine, other = getattr(found, fact), getattr(expected, fact)
        if mine != other:
            yield f"{place}: {fact} {mine}, expected {other}"
            return
    if found.numel():
        pair = [tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1) for tensor in (found, expected)]
        rows = [tensor.view(torch.uint8).view(len(tensor), -1) for tensor in pair]
        unlike = (rows[0] != rows[1]).any(1)
        yield from _entries(pair[0], pair[1], unlike.numpy(), tuple(found.shape), place)


def _arrays(found: np.ndarray, expected: np.ndarray, place: str) -> Iterator[str]:
    if found.dtype != expected.dtype:
        yield f"{place}: dtype {found.dtype}, expected {expected.dtype}"
    elif found.shape != expected.shape:
        yield f"{place}: shape {found.shape}, expected {expected.shape}"
    elif found.dtype.hasobject:
        yield from _sequences(found.ravel().tolist(), expected.ravel().tolist(), place)
    elif found.size:
        pair = [np.ascontiguousarray(array).reshape(-1) for array in (found, expected)]
        rows = [array.view(np.uint8).reshape(len(array), -1) for array in pair]
        yield from _entries(pair[0], pair[1], (rows[0] != rows[1]).any(1), found.shape, place)


def _entries(found: Any, expected: Any, unlike: np.ndarray, shape: tuple[int, ...], place: str) -> Iterator[str]:
    """One line for all entries of a tensor that differ."""
    if unlike.any():
        first = int(unlike.argmax())
        where = "" if not shape else f", first at {[int(i) for i in np.unravel_index(first, shape)]}"
        mine, other = found[first].item(), expected[first].item()
        yield f"{place}: {int(unlike.sum())} of {len(unlike)} entries differ{where}: {mine!r}, expected {other!r}"


def _mappings(found: Mapping[Any, object], expected: Mapping[Any, object], place: str) -> Iterator[str]:
    for key in found:
        if key in expected:
            yield from differences(found[key], expected[key], f"{place}[{key!r}]")
        else:
            yield f"{place}[{key!r}]: {_short(found[key])}, expected nothing of that name"
    for key in expected:
        if key not in found:
            yield f"{place}[{key!r}]: missing, expected {_short(expected[key])}"


def _sequences(found: list[object], expected: list[object], place: str) -> Iterator[str]:
    if len(found) != len(expected):
        yield f"{place}: {len(found)} entries, expected {len(expected)}"
    else:
        for number, (mine, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(mine, other, f"{place}[{number}]")


def _bits(number: complex) -> bytes:
    return struct.pack("dd", number.real, number.imag)


def _short(thing: object) -> str:
    text = " ".join(repr(thing).split())
    return text if len(text) <= 60 else text[:57] + "..."
