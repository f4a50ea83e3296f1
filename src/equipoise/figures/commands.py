"""``equipoise figure NAME``: one command a figure; each imports what it needs only when it is called."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Make a figure of one of the papers again, with the numbers behind it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _figure() -> None:
    """Make a figure of one of the papers again, with the numbers behind it."""
