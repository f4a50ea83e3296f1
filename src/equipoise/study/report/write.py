"""Writes ``report.md``, ``report.html`` and the pictures."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equipoise.study.files import write_whole
from equipoise.study.pictures import PICTURES, TELEPORT_PICTURES, Picture
from equipoise.study.report.content import content
from equipoise.study.results import Results

__all__ = ["write_report"]

_DPI = 160


@dataclass(frozen=True)
class _Shown:
    """A picture as the templates need it."""

    title: str
    caption: str
    file: str
    data: str
    width: int


def write_report(results: Results) -> tuple[Path, Path]:
    """Writes the report beside the records it is made of.

    Args:
        results: of a study's folder.

    Returns:
        Paths of ``report.md`` and of ``report.html``, which holds its pictures and needs no other file.
    """
    folder = results.folder
    pictures = _drawn(PICTURES, results)
    teleports = _drawn(TELEPORT_PICTURES, results)

    said = content(results)
    written = time.strftime("%Y-%m-%d %H:%M")
    paths = []
    for name, escape in (("report.md", False), ("report.html", True)):
        templates = Environment(
            loader=PackageLoader("equipoise.study", "templates"),
            autoescape=escape,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        paths.append(folder.path / name)
        page = templates.get_template(name)
        write_whole(paths[-1], page.render(said=said, pictures=pictures, teleports=teleports, written=written))
    return paths[0], paths[1]


def _drawn(pictures: Iterable[Picture], results: Results) -> list[_Shown]:
    """Draws the pictures into the folder; one that has nothing to show any more is taken away."""
    folder = results.folder
    shown = []
    for picture in pictures:
        path = folder.pictures / f"{picture.name}.png"
        figure = picture.draw(results)
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        image = _png(figure)
        write_whole(path, image)
        data = base64.b64encode(image).decode()
        file = str(path.relative_to(folder.path).as_posix())
        shown.append(_Shown(picture.title, picture.caption, file, data, round(figure.get_figwidth() * 96)))
    return shown


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
