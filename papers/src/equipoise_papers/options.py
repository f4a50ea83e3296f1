"""Command-line options derived from a settings dataclass."""

from __future__ import annotations

from equipoise.errors import InputError

__all__ = ["whole_numbers"]


def whole_numbers(text: str, name: str, least: int = 1) -> tuple[int, ...]:
    """Reads ``"10,50,100"``.

    Raises:
        InputError: an entry is no whole number, or below ``least``.

    Example:
        >>> whole_numbers("10,50", "samples")
        (10, 50)
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < least:
        raise InputError(f'{name} is "{text}"; expected whole numbers from {least} on with commas between, such as 10,50')
    return numbers
