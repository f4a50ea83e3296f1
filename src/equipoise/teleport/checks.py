"""The checks that several options of COST have in common."""

from __future__ import annotations

from typing import Any

from equipoise.errors import InputError

__all__ = ["check_whole"]


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuses what is no whole number, or too small a one; ``True`` is no number.

    Raises:
        InputError: with the option's name and what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number from {least} on; got {value!r}")
