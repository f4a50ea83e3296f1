"""Checkpoints of a search."""

from __future__ import annotations

import io
import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.errors import InputError
from equipoise.reading import Unreadable, read_npz, shielded
from equipoise.store import write_whole

__all__ = ["check_storable", "read_checkpoint", "write_checkpoint"]


def check_storable(state: Any) -> None:
    """Whether a state comes back as it was, but for tuples, which come back as lists.

    Raises:
        TypeError: it is no dictionary, has keys that are no strings, or holds what is neither an array of numbers nor JSON.
    """
    if not isinstance(state, dict):
        raise TypeError(f"{type(state).__name__} is no dictionary")
    arrays: dict[str, Any] = {}
    json.dumps(_packed(state, arrays))
    for array in arrays.values():
        if array.dtype.hasobject:
            raise TypeError("an array of objects")


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a nested dictionary of arrays, numbers, strings and bytes, whole or not at all."""
    arrays: dict[str, Any] = {}
    text = json.dumps(_packed(state, arrays))
    buffer = io.BytesIO()
    np.savez(buffer, __state__=np.array(text), **arrays)
    write_whole(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what :func:`write_checkpoint` wrote. Raises InputError: the file is none of these."""
    try:
        with shielded():
            found = read_npz(path, kinds="fiubcSUmM")
            state = _unpacked(json.loads(str(found["__state__"])), found)
            if not isinstance(state, dict):
                raise Unreadable("it holds no state")
    except Unreadable as error:
        raise InputError(f"{path} is no checkpoint of a search ({error}); take another file name or remove it") from error
    return state


def _packed(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"__array__": name}
    if isinstance(value, bytes):
        return {"__bytes__": b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no string")
        return {key: _packed(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(entry, arrays) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if "__array__" in value:
            return arrays[value["__array__"]]
        if "__bytes__" in value:
            return b64decode(value["__bytes__"])
        return {key: _unpacked(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list):
        return [_unpacked(entry, arrays) for entry in value]
    return value
