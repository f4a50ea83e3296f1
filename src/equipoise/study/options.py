"""Reading options as they are written on a command line: ``c=0.2,rescale=True``."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from equipoise.errors import InputError

__all__ = ["read_options", "split_outside", "written"]

_WORDS = {"true": True, "false": False, "none": None}


def read_options(text: str, whole: str) -> dict[str, Any]:
    """Reads ``option=value,option=value``.

    Args:
        text: the options. Values are Python literals; anything else is taken as a string.
        whole: what they are a part of, for the error message.

    Raises:
        InputError: a part that is not of that form.

    Example:
        >>> read_options("c=0.2, weights=[1,2], history=mass, stop=none", "")
        {'c': 0.2, 'weights': [1, 2], 'history': 'mass', 'stop': None}
    """
    read: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in split_outside(text, ","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value:
            raise InputError(f'"{part}" in the method "{whole}" is not of the form option=value')
        read[option] = _value(value)
    return read


def written(options: Iterable[tuple[str, Any]]) -> str:
    """The text from which :func:`read_options` reads these options."""
    return ",".join(f"{option}={value}" for option, value in options)


def split_outside(text: str, separator: str) -> list[str]:
    """Splits at separators outside brackets, so that a value may be a list.

    Example:
        >>> split_outside("ls:weights=[1,2],si", ",")
        ['ls:weights=[1,2]', 'si']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
