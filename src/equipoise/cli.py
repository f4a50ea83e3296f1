"""The command line: ``equipoise study``, ``sweep``, ``report``, ``methods``, ``figure``, ``reproduce``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from equipoise.errors import EquipoiseError, require

__all__ = ["main"]


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
    try:
        # Imported only now: the library is used without this extra, and then the program has to say so in one line.
        require("typer", "study")
        from equipoise.study.commands import app

        app(args=list(arguments) if arguments is not None else None, prog_name="equipoise")
    except EquipoiseError as error:
        print(f"equipoise: {error}", file=sys.stderr)
        return 2
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
