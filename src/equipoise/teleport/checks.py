"""Checks of options, which the parts of COST have in common."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from equipoise.errors import InputError
from equipoise.registry import Registry

__all__ = ["check_number", "check_switch", "check_whole", "chosen"]

T = TypeVar("T")


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuses what is not a whole number, and a number that is too small; ``True`` is not a number.

    Raises:
        InputError: with the option's name and what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number from {least} on; got {value!r}")


def check_number(name: str, value: Any, what: str, *, positive: bool = True) -> None:
    """Refuses what is not a finite number above zero (or, with ``positive=False``, not below zero).

    Raises:
        InputError: ``what`` says what was expected.
    """
    fine = not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < math.inf
    if not fine or (positive and value == 0):
        raise InputError(f"{name} must be {what}; got {value!r}")


def check_switch(name: str, value: Any) -> None:
    """Refuses what is neither ``True`` nor ``False``. Raises InputError: with the option's name and what was given."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False; got {value!r}")


def chosen(known: Registry[type[T]], value: Any, base: type[T], further: str = "") -> T:
    """One of several kinds, given as an object or by its name; ``further`` says what else it may be, for the message.

    Raises:
        InputError: neither of these, or an unknown name; near misses are suggested.
    """
    if isinstance(value, base):
        return value
    if not isinstance(value, str):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise InputError(f"{known.kind} must be a {base.__name__}{further} or one of {', '.join(known.names())}; got {given}")
    return known.find(value)()
