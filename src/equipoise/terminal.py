"""What a terminal can show: text of strangers without commands to it, and signs that its encoding lacks written otherwise."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "printable", "printed", "tolerant"]

T = TypeVar("T")

_PLAINER = dict(zip("Δσθ±−–×→↑↓…°«»‖─━╸╺│", "Dst~--x>^v.o''|----|", strict=True))
_UNBOUNDED = 10_000
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, *, lines: bool = False) -> str:
    r"""A text whose control characters are seen and do nothing: a name can neither clear a screen nor begin a line.

    Args:
        text: from anywhere.
        lines: whether it may have several lines.

    Example:
        >>> printable("a\x1b[2Jb\nc"), printable("two\nlines", lines=True)
        ('a\\x1b[2Jb\\nc', 'two\nlines')
    """
    if text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode()
        if unicodedata.category(sign) in _HIDDEN and not (lines and sign in "\n\t")
        else sign
        for sign in text
    )


def printed(value: T) -> T:
    """A value with every text in it :func:`printable`: lists, mappings and dataclasses of texts."""
    made: Any = value
    if isinstance(value, str):
        made = printable(value)
    elif isinstance(value, list | tuple):
        made = type(value)(map(printed, value))
    elif isinstance(value, dict):
        made = {printed(key): printed(entry) for key, entry in value.items()}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = dataclasses.replace(value, **{own.name: printed(getattr(value, own.name)) for own in dataclasses.fields(value)})
    return made  # type: ignore[no-any-return]


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """For signs that an encoding lacks: one that looks like it, of the same width, which keeps tables in line."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAINER.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("equipoise.plainer", _plainer)


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Lets standard output and error show what they can while a program runs, and ends quietly if nobody reads on."""
    before = []
    for stream in (sys.stdout, sys.stderr):
        errors = getattr(stream, "errors", None)
        if hasattr(stream, "reconfigure") and isinstance(errors, str):
            before.append((stream, errors))
            stream.reconfigure(errors="equipoise.plainer")
    try:
        yield
    finally:
        for stream, errors in before:
            with contextlib.suppress(ValueError):  # closed meanwhile
                _flushed(stream)
                stream.reconfigure(errors=errors)


def _flushed(stream: Any) -> None:
    try:
        stream.flush()
    except BrokenPipeError:
        # Python would try again at its end, and complain.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Unread:
    """Standard output or error, whichever it is at the time; once nobody reads it any more, nothing is written."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        stream = getattr(sys, self._name)
        if stream is None:
            raise AttributeError(attribute)
        return getattr(stream, attribute)

    def isatty(self) -> bool:
        stream = getattr(sys, self._name)
        with contextlib.suppress(ValueError, AttributeError):
            return bool(stream.isatty())
        return False

    def write(self, text: str) -> int:
        stream: TextIO | None = getattr(sys, self._name)
        with contextlib.suppress(BrokenPipeError):
            if stream is not None:
                try:
                    return stream.write(text)
                except UnicodeEncodeError:
                    encoding = stream.encoding or "ascii"
                    return stream.write(text.encode(encoding, "equipoise.plainer").decode(encoding))
        return len(text)

    def flush(self) -> None:
        stream = getattr(sys, self._name)
        with contextlib.suppress(BrokenPipeError):
            if stream is not None:
                stream.flush()


def console(*, stderr: bool = False) -> Console:
    """Rich's console on standard output or error, which shows what it can: work must not end because nobody looks on."""
    from rich.console import Console

    stream = _Unread("stderr" if stderr else "stdout")
    # What goes into a file or another program is not made to fit a width that it does not have.
    width = None if stream.isatty() or "COLUMNS" in os.environ else _UNBOUNDED
    return Console(file=stream, stderr=stderr, emoji=False, width=width)  # type: ignore[arg-type]
