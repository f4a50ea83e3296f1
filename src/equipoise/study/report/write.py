"""Writes ``report.md``, ``report.html`` and the pictures."""

from __future__ import annotations

import base64
import io
import re
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from equipoise.errors import EquipoiseError
from equipoise.markdown import code, escaped, table
from equipoise.reading import one_line
from equipoise.store import refuse_links, write_whole, writing
from equipoise.study.pictures import PICTURES, RECORDED, TELEPORT_PICTURES, Picture
from equipoise.study.report.content import content
from equipoise.study.results import Results
from equipoise.terminal import printable

__all__ = ["Shown", "cannot_be_drawn", "drawn", "plain_texts", "render", "write_report"]

T = TypeVar("T")

_DPI = 160


@dataclass(frozen=True)
class Shown:
    """A picture as the templates need it."""

    title: str
    caption: str
    file: str
    data: str
    width: int


def write_report(results: Results) -> tuple[Path, Path]:
    """Writes the report beside the records it is made of.

    Returns:
        Paths of ``report.md`` and of ``report.html``, which holds its pictures and needs no other file.
    """
    folder = results.folder.path
    return render(
        "report",
        folder,
        said=content(results),
        pictures=drawn((*PICTURES, RECORDED), results, folder),
        teleports=drawn(TELEPORT_PICTURES, results, folder),
    )


def render(name: str, folder: Path, *, package: str = "equipoise.study", **values: Any) -> tuple[Path, Path]:
    """Fills the templates ``<name>.md`` and ``<name>.html`` of a package and writes ``report.md`` and ``report.html``.

    What the templates include may also be of the study's; ``written``, the time, is there for them anyway.
    """
    written = time.strftime("%Y-%m-%d %H:%M")
    paths = []
    for ending, escape in (("md", False), ("html", True)):
        templates = Environment(
            loader=ChoiceLoader([PackageLoader(own, "templates") for own in (package, "equipoise.study")]),
            autoescape=escape,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        templates.globals["table"] = table
        templates.filters |= {"escaped": escaped, "code": code, "escaped_row": lambda row: tuple(map(escaped, row))}
        templates.filters["tight"] = _tight
        paths.append(folder / f"report.{ending}")
        write_whole(paths[-1], templates.get_template(f"{name}.{ending}").render(**values, written=written))
    return paths[0], paths[1]


def _tight(text: str) -> str:
    """A cell that may break before a sign, but never behind one."""
    return re.sub(r"(?<=[±=<]) | (?=[=<])", "\u00a0", text)


def drawn(pictures: Iterable[Picture[T]], source: T, folder: Path) -> list[Shown]:
    """Draws pictures into ``pictures/``; one that has nothing to show any more is taken away.

    One that cannot be drawn, of numbers that no axis can hold, is left out with a warning: the tables are still worth having.

    Raises:
        InputError: ``pictures/`` is a link.
        StorageError: a picture cannot be written.
    """
    refuse_links(folder, ["pictures"])
    shown = []
    for picture in pictures:
        path = folder / "pictures" / f"{picture.name}.png"
        try:
            figure = picture.draw(source)
            image = None if figure is None else _png(figure)
        except EquipoiseError:
            raise
        except Exception as error:
            cannot_be_drawn(picture.name, error)
            figure = image = None
        if figure is None or image is None:
            with writing(path):
                path.unlink(missing_ok=True)
            continue
        write_whole(path, image)
        data = base64.b64encode(image).decode()
        file = str(path.relative_to(folder).as_posix())
        shown.append(Shown(picture.title, picture.caption, file, data, round(figure.get_figwidth() * 96)))
    return shown


def cannot_be_drawn(name: str, error: Exception) -> None:
    """Warns that a picture is left out."""
    warnings.warn(f'the picture "{name}" cannot be drawn ({one_line(error)}); it is left out', stacklevel=3)


def plain_texts(figure: Figure) -> None:
    """Makes every text of a figure what it says: no formulas in names, no characters that no font has."""
    for label in figure.findobj(Text):
        text = label.get_text()
        if text and not text.startswith(r"$\mathdefault"):  # the numbers of logarithmic axes
            label.set_parse_math("$" not in text)  # in a name it is a dollar
            label.set_text(printable(text, lines=True))


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    plain_texts(figure)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
