"""Lists of whole numbers as they are typed."""

from __future__ import annotations

from equipoise.errors import InputError

__all__ = ["whole_numbers"]


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """Reads ``"10,50,100"``.

    Raises:
        InputError: an entry is no positive whole number.

    Example:
        >>> whole_numbers("10,50", "samples")
        (10, 50)
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InputError(f'{name} is "{text}"; expected positive whole numbers with commas between them, such as 10,50')
    return numbers
