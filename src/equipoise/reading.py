"""Files from strangers: what a file claims is checked against its size before memory is taken, and none of it is run.

Everything here ends in a value or in :class:`Unreadable`, whose text is one line; the caller says which file and what to do.

What JSON should hold is said by *kinds*: functions that take a value and say in words what is wrong with it, or nothing::

    run = fields({"seed": whole, "losses": named(maybe(number))}, {"note": text})
    run({"seed": "0", "losses": {}})                         # ".seed is a text, not a whole number"
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Kind",
    "Unreadable",
    "anything",
    "fields",
    "listed",
    "maybe",
    "named",
    "number",
    "one_line",
    "read_bytes",
    "read_json",
    "read_npy",
    "read_npz",
    "read_tensors",
    "read_text",
    "regular",
    "shielded",
    "text",
    "truth",
    "unzipped",
    "whole",
]

_LARGEST = 1 << 36  # bytes of a file that is read as a whole
_HEADER = 1 << 14  # bytes in which a .npy header ends; NumPy refuses more than 10,000 characters
_LONGEST = 10_000  # characters of a name in JSON
_DEEPEST = 64  # levels of JSON; whoever goes through it does so by calling himself
_RATIO = 1040  # bytes that one byte packed by gzip can become, and a little


class Unreadable(ValueError):
    """A file cannot be read as what it should be; the text is one line and says why."""


def one_line(error: BaseException) -> str:
    r"""An error's own words in one line, or its kind where it has none.

    Example:
        >>> one_line(ValueError("first\nsecond")), one_line(EOFError())
        ('first second', 'EOFError')
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # a __str__ of somebody else's
        text = ""
    return (text if len(text) <= 500 else text[:500] + " …") or type(error).__name__


@contextmanager
def shielded() -> Iterator[None]:
    """Turns whatever a decoder raises at a broken file into :class:`Unreadable`; those of formats can raise anything."""
    try:
        yield
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("it needs more memory than there is") from error
    except OSError as error:
        raise Unreadable(error.strerror or one_line(error)) from error
    except Exception as error:
        raise Unreadable(one_line(error)) from error


@contextmanager
def regular(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """Opens a regular file; a pipe or a device, which could be without an end, is refused and not waited for."""
    with shielded():
        # Where it is a pipe, opening alone would wait for a writer.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise Unreadable("it is no regular file")
            yield file


def read_bytes(path: str | os.PathLike[str], largest: int = _LARGEST) -> bytearray:
    """The content of a regular file of at most so many bytes."""
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise Unreadable(f"it has {size} bytes; at most {largest} are read")
        content = bytearray(size)
        if file.readinto(content) != size:
            raise Unreadable("it changed while it was read")
        return content


def read_text(path: str | os.PathLike[str], largest: int = 1 << 30) -> str:
    """The content of a text file in UTF-8, with or without its mark."""
    with shielded():
        return read_bytes(path, largest).decode("utf-8-sig")


def read_json(path: str | os.PathLike[str], largest: int = 1 << 28) -> Any:
    """The content of a JSON file of at most so many bytes, and not nested deeper than anybody needs."""
    content = read_text(path, largest)
    try:
        value = json.loads(content)
    except RecursionError:
        raise Unreadable(f"it is nested more than {_DEEPEST} levels deep") from None
    except ValueError as error:
        raise Unreadable(f"it is no JSON: {one_line(error)}") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            part for one in level if isinstance(one, dict | list) for part in (one.values() if isinstance(one, dict) else one)
        ]
    if level:
        raise Unreadable(f"it is nested more than {_DEEPEST} levels deep")
    return value


Kind = Callable[[Any], str]
"""Says in words what is wrong with a value that JSON held, beginning with its place; nothing if all is well."""


def anything(value: Any) -> str:
    """Whatever JSON has."""
    return ""


def truth(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else f" is {_called(value)}, not true or false"


def number(value: Any) -> str:
    """A number that a float can hold; also one that is not finite, which other writers than ours have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f" is {_called(value)}, not a number"
    return "" if isinstance(value, float) or abs(value) < 2**1023 else " is a number beyond all bounds"


def whole(value: Any) -> str:
    """A whole number from 0 on, of a size that something can be counted to."""
    if isinstance(value, bool) or not isinstance(value, int):
        return f" is {_called(value)}, not a whole number"
    return "" if 0 <= value < 2**63 else f" is {'below 0' if value < 0 else 'a number beyond all bounds'}"


def text(value: Any) -> str:
    """A text that can be shown."""
    if not isinstance(value, str):
        return f" is {_called(value)}, not a text"
    if len(value) > _LONGEST:
        return f" has {len(value)} characters"
    return " holds halves of characters" if any("\ud800" <= sign <= "\udfff" for sign in value) else ""


def maybe(kind: Kind) -> Kind:
    """That, or ``null``."""
    return lambda value: "" if value is None else kind(value)


def listed(kind: Kind, length: int | None = None) -> Kind:
    """A list of those, of any length or of one."""

    def check(value: Any) -> str:
        if not isinstance(value, list | tuple):
            return f" is {_called(value)}, not a list"
        if length is not None and len(value) != length:
            return f" has {len(value)} entries, not {length}"
        return next((f"[{place}]{said}" for place, one in enumerate(value) if (said := kind(one))), "")

    return check


def named(kind: Kind) -> Kind:
    """A mapping from texts to those."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return f" is {_called(value)}, not a mapping"
        for name, one in value.items():
            if said := text(name):
                return f": a name{said}"
            if said := kind(one):
                return f".{name}{said}"
        return ""

    return check


def fields(needed: Mapping[str, Kind], others: Mapping[str, Kind] | None = None) -> Kind:
    """A mapping that holds these entries, maybe those others, and whatever else.

    Example:
        >>> fields({"seed": whole})({"seed": True}), fields({"seed": whole})({}), fields({}, {"seed": whole})({})
        ('.seed is a truth value, not a whole number', ' lacks seed', '')
    """

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return f" is {_called(value)}, not a mapping"
        for name in needed:
            if name not in value:
                return f" lacks {name}"
        known = {**needed, **(others or {})}
        return next((f".{name}{said}" for name, kind in known.items() if name in value and (said := kind(value[name]))), "")

    return check


def _called(value: Any) -> str:
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def unzipped(content: bytes | bytearray, head: int, size: Callable[[bytes], int]) -> bytearray:
    """What gzip packed, without unpacking more than it should be.

    Args:
        content: packed, of one or more members.
        head: so many bytes say how many there should be in all.
        size: from these bytes (fewer where there are no more) to how many there should be; may raise.

    Returns:
        At most one byte more than there should be, so that an excess shows.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        with shielded():
            found = bytearray(file.read(head))
        wanted = size(bytes(found))
        if wanted > _RATIO * len(content) + head:
            raise Unreadable(f"its header says {wanted} bytes, which cannot be in {len(content)} packed ones")
        with shielded():
            while len(found) <= wanted and (part := file.read(min(wanted + 1 - len(found), 1 << 24))):
                found += part
    return found


def _npy(content: bytearray, kinds: str) -> NDArray[Any]:
    """The array in the bytes of a ``.npy`` file, which shares their memory."""
    head = io.BytesIO(bytes(content[:_HEADER]))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise Unreadable(f"version {version[0]}.{version[1]} of the format is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(head)
    if dtype.kind not in kinds or dtype.itemsize == 0:
        raise Unreadable(f"it holds something else than an array of numbers, values of the kind {dtype}")
    if any(isinstance(length, bool) or length < 0 for length in shape) or len(shape) > 64:
        raise Unreadable(f"its header says {_by(shape)}")
    have = len(content) - head.tell()
    if prod(shape) * dtype.itemsize != have:
        raise Unreadable(f"its header says {_by(shape)} values of {dtype.itemsize} bytes, but {have} bytes follow")
    flat: NDArray[Any] = np.frombuffer(content, dtype, offset=head.tell()) if have else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C")


def read_npy(path: str | os.PathLike[str], kinds: str = "fiub") -> NDArray[Any]:
    """The array in a ``.npy`` file, in memory of its own.

    Args:
        path: the file.
        kinds: NumPy's letters of the kinds of values that are taken: floats, integers and truth values by default.
    """
    with shielded():
        return _npy(read_bytes(path), kinds)


def _stored(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in a file, if nothing in it is packed, as ``np.savez`` and ``torch.save`` leave it."""
    archive = zipfile.ZipFile(file)
    size = os.fstat(file.fileno()).st_size
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Unreadable("it holds packed entries, whose size cannot be known before")
    if sum(entry.file_size for entry in entries) > size:
        raise Unreadable("its entries claim more bytes than it has")
    return archive


def read_npz(path: str | os.PathLike[str], kinds: str = "fiubU") -> dict[str, NDArray[Any]]:
    """The arrays in a ``.npz`` file that ``np.savez`` wrote, by their names."""
    with regular(path) as file, _stored(file) as archive:
        return {
            entry.filename.removesuffix(".npy"): _npy(bytearray(archive.read(entry)), kinds) for entry in archive.infolist()
        }


def read_tensors(path: str | os.PathLike[str], stand_ins: Mapping[str, type] | None = None) -> Any:
    """What ``torch.save`` wrote, if it is tensors, numbers, texts and containers of them; it is brought to the CPU.

    Args:
        path: the file.
        stand_ins: full name of a class that the file may name → a class of ours that is put in its place.
    """
    import torch

    with regular(path) as file:
        if zipfile.is_zipfile(file):
            file.seek(0)
            _stored(file)
        file.seek(0)
        known: Sequence[Any] = [(own, name) for name, own in (stand_ins or {}).items()]
        with torch.serialization.safe_globals(list(known)):
            found = torch.load(file, map_location="cpu", weights_only=True)
    for tensor in _tensors(found):
        # A stride of 0 makes any number of entries out of one.
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > max(
            tensor.untyped_storage().nbytes(), 1
        ):
            raise Unreadable(f"a tensor claims {_by(tensor.shape)} entries, more than are stored")
    return found


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    left = [value]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            left.extend(one.values() if isinstance(one, dict) else one)


def _by(shape: Sequence[object]) -> str:
    return "×".join(map(str, shape)) or "one"
