"""The command line: the library's own commands and, by entry points, those of other distributions.

A distribution adds a command by an entry point of the group ``equipoise.commands``: its name is the command's, and what it
names is a function, or a ``typer.Typer`` with commands below it. Its module is imported for ``equipoise --help`` too, so it
should import what it needs only when it is called.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from equipoise.errors import EquipoiseError, InputError, require
from equipoise.terminal import printable, tolerant

if TYPE_CHECKING:
    import typer

__all__ = ["main"]

_OF_THE_PAPERS = ("data", "example", "figure", "reproduce")
"""Commands of the distribution ``equipoise-papers``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: what was typed behind the program's name; from ``sys.argv`` if left out.

    Returns:
        The exit status: 0 if all went well, 1 if a run of a study failed, 2 for a wrong argument or a missing extra (one
        line on standard error says which), 130 if interrupted.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        equipoise ...
        0
    """
    typed = _addressed(sys.argv[1:] if arguments is None else arguments)
    with tolerant():
        try:
            # Imported only now: the library is used without this extra, and then the program has to say so in one line.
            require("typer", "study")
            require("rich", "study")
            _assembled(typed)(args=typed, prog_name="equipoise")
        except BrokenPipeError:
            return 0  # whoever read has seen enough; files are written before anything is printed
        except EquipoiseError as error:
            return _refused(str(error))
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            return _refused(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))
        except SystemExit as exit_:
            return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        return 0


def _addressed(typed: Sequence[str]) -> list[str]:
    """``--ray`` may stand alone, which typer does not know of options with a value: what follows must look like an address."""
    address = re.compile(r"auto|ray://\S+|[^\s/:]+:\d+|\[[0-9a-fA-F:]+\]:\d+")
    pairs = zip(typed, [*typed, ""][1:], strict=True)
    return ["--ray=" if word == "--ray" and not address.fullmatch(after) else word for word, after in pairs]


def _refused(why: str) -> int:
    with contextlib.suppress(OSError):
        print(f"equipoise: {printable(why, lines=True)}", file=sys.stderr)
    return 2


def _assembled(typed: Sequence[str]) -> typer.Typer:
    """The library's commands with those of other distributions, as far as they can be what was typed.

    Raises:
        InputError: what was typed asks for a command of ``equipoise-papers``, which is not installed, or for one that cannot
            be loaded.
    """
    import typer

    from equipoise.commands import app

    whole = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=app.info.help)
    whole.registered_callback = app.registered_callback
    whole.registered_commands = list(app.registered_commands)
    own = {command.name for command in whole.registered_commands}
    first = next((word for word in typed if not word.startswith("-")), None)
    if first in own or (first is None and "--version" in typed):
        _say_whole(whole)
        return whole
    points = sorted(entry_points(group="equipoise.commands"), key=lambda point: point.name)
    asked = [point for point in points if point.name == first]
    if not asked and first in _OF_THE_PAPERS:
        raise InputError(
            f'the command "{first}" comes with equipoise-papers, which is not installed; '
            "from a clone of the repository: pip install ./papers"
        )
    taken = set(own)
    for point in asked or points:
        try:
            if point.name in taken:
                raise InputError("there is another of that name")
            command = point.load()
        except Exception as error:
            source = point.dist.name if point.dist is not None else point.value
            said = f'the command "{point.name}" of {source} cannot be loaded: {error}'
            if asked:
                raise InputError(said) from error
            print(f"equipoise: {printable(said)}", file=sys.stderr)  # the others can be listed and used
            continue
        taken.add(point.name)
        if isinstance(command, typer.Typer):
            whole.add_typer(command, name=point.name)
        else:
            whole.command(point.name)(command)
    _say_whole(whole)
    return whole


def _say_whole(app: typer.Typer) -> None:
    """Lets lists of commands have whole sentences, which would be cut to the width of the terminal."""
    for command in app.registered_commands:
        command.short_help = command.short_help or _first_sentence(command.help or getattr(command.callback, "__doc__", None))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _say_whole(group.typer_instance)
            group.short_help = group.short_help or _first_sentence(group.help or group.typer_instance.info.help)


def _first_sentence(said: Any) -> str | None:
    text = getattr(said, "value", said)  # typer marks what was left out
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split()) if isinstance(text, str) and text else None


if __name__ == "__main__":
    sys.exit(main())
