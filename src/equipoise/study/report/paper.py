"""What a report shows, in the form that a paper takes: pictures as PDF at the width of a page, tables as LaTeX."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import matplotlib
from matplotlib.backends.backend_pdf import FigureCanvasPdf

from equipoise.errors import EquipoiseError
from equipoise.store import refuse_links, write_whole, writing
from equipoise.study.pictures import PICTURES, RECORDED, TELEPORT_PICTURES, Picture
from equipoise.study.pictures.style import on_page
from equipoise.study.report.content import content
from equipoise.study.report.words import SideTable
from equipoise.study.report.write import cannot_be_drawn, plain_texts
from equipoise.study.results import Results

__all__ = ["latex", "latex_table", "study_paper", "write_paper"]

T = TypeVar("T")

_COLUMNS = 8

_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "→": r"$\rightarrow$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ε": r"$\varepsilon$",
    "σ": r"$\sigma$",
    "°": r"$^\circ$",
    "²": "$^2$",
    "³": "$^3$",
    "«": "``",
    "»": "''",
    "\u00a0": "~",
}


def latex(text: str) -> str:
    r"""A text that LaTeX sets as it is; signs that its fonts lack in text are set as formulas.

    Example:
        >>> print(latex("my_task: −1.2 ± 0.3 %"))
        my\_task: $-$1.2 $\pm$ 0.3 \%
    """
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def latex_table(head: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = (), best: str = "**") -> str:
    r"""A ``tabular`` with the rules of the package booktabs; names to the left, numbers to the right.

    A table of more than eight columns is turned over where that makes it narrower.

    Args:
        head: titles of the columns.
        rows: cells, as many per row as there are titles.
        notes: how to read it; comments above the table, for a caption to be written from.
        best: what stands on both sides of a cell that is to be bold.

    Example:
        >>> print(latex_table(["method", "Δm"], [["ls", "**3.2**"]]))
        % \usepackage{booktabs}
        \begin{tabular}{lr}
        \toprule
        method & $\Delta$m \\
        \midrule
        ls & \textbf{3.2} \\
        \bottomrule
        \end{tabular}
        <BLANKLINE>
    """
    rows = [tuple(row) for row in rows]
    if len(head) > _COLUMNS and len(rows) < len(head):
        head, *rows = zip(head, *rows, strict=True)

    def cell(text: str) -> str:
        bold = text.startswith(best) and text.endswith(best) and len(text) > 2 * len(best)
        return rf"\textbf{{{latex(text[len(best) : -len(best)])}}}" if bold else latex(text)

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cells) + r" \\"

    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            *(f"% {' '.join(note.split())}" for note in notes),
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            line(map(latex, head)),
            r"\midrule",
            *(line(map(cell, row)) for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def write_paper(folder: Path, pictures: Iterable[Picture[T]], source: T, tables: Mapping[str, str]) -> Path:
    """Writes ``paper/`` beside a report: every picture as ``<name>.pdf``, every table as ``<name>.tex``.

    The pictures are drawn anew, no wider than the text of a page (6.75 inches), so that their letters have 8 to 10 points where
    they are included at that width. Letters stay letters, and the same numbers give the same bytes.

    Raises:
        InputError: ``paper/`` is a link.
        StorageError: a file cannot be written.
    """
    refuse_links(folder, ["paper"])
    there = folder / "paper"
    for picture in pictures:
        path = there / f"{picture.name}.pdf"
        try:
            with on_page():
                figure = picture.draw(source)
            image = io.BytesIO()
            if figure is not None:
                plain_texts(figure)
                with matplotlib.rc_context({"pdf.fonttype": 42}):
                    canvas = FigureCanvasPdf(figure)
                    canvas.print_figure(image, format="pdf", metadata={"CreationDate": None, "Title": picture.title})
        except EquipoiseError:
            raise
        except Exception as error:
            cannot_be_drawn(picture.name, error)
            figure = None
        if figure is None:
            with writing(path):
                path.unlink(missing_ok=True)
        else:
            write_whole(path, image.getvalue())
    for name, text in tables.items():
        write_whole(there / f"{name}.tex", text)
    return there


def study_paper(results: Results) -> Path:
    """Writes the pictures and tables of a study for a paper; see :func:`write_paper`."""
    said = content(results)
    rows = [
        (row.name, *(f"**{cell.text}**" if cell.best else cell.text for cell in row.cells), row.verdict) for row in said.rows
    ]
    sides: dict[str, SideTable | None] = {
        "learning_rates": said.tuning,
        "discrepancy": said.discrepancy,
        "proxies": said.proxies,
        "teleports": said.teleports,
    }
    tables = {"results": latex_table(said.head, rows, said.notes)}
    tables |= {name: latex_table(own.columns, own.rows, own.notes) for name, own in sides.items() if own is not None}
    return write_paper(results.folder.path, (*PICTURES, RECORDED, *TELEPORT_PICTURES), results, tables)
