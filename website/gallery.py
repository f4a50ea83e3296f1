"""The gallery: every script of ``gallery/`` is run, and becomes a page with its code, what it printed and what it drew.

A script starts with a docstring: title, blank line, text. ``# %%`` begins a cell; comment lines right behind it are text. What
the script prints in a cell, and figures that are open at the cell's end, stand behind the cell; a figure's label
(``plt.subplots(num="…")``) is its alternative text. A script that fails fails the build. What came out is kept until the
script, the library or this file changes.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from website.pages import ROOT, copied, put

__all__ = ["SCRIPTS", "Cell", "cells_of", "outcome_of", "run", "write"]

SCRIPTS = ROOT / "gallery"
ORDER = (
    "own_loop",
    "lightning_trainer",
    "hugging_face_trainer",
    "lora_three_data_sets",
    "graphs_missing_labels",
    "dense_scenes",
    "physics_informed",
    "hyper_cleaning",
    "pareto_front",
    "blackbox_prompts",
    "cost_explained",
    "ldc_explained",
)
"""In which the gallery shows them; a script that is missing here fails the build."""

_CELL = re.compile(r"^# %%.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A part of a script.

    Attributes:
        text: Markdown.
        code: Python, without the text.
        line: the first line of the code in the script, counted from 1.
    """

    text: str
    code: str
    line: int


def cells_of(script: str) -> list[Cell]:
    r"""The cells of a script; the first one's text is the docstring.

    Raises:
        ValueError: it does not start with a docstring.

    Example:
        >>> cells_of("'Title'\n# %%\n# Some text.\nprint(1)\n")[1]
        Cell(text='Some text.', code='print(1)\n', line=4)
    """
    head = ast.get_docstring(ast.parse(script))
    if head is None:
        raise ValueError("a script of the gallery starts with a docstring: title, blank line, text")
    marks = [match.span() for match in _CELL.finditer(script)]
    edges = [*marks, (len(script), len(script))]
    first = ast.parse(script).body[0].end_lineno or 1
    found = [Cell(head, "".join(script[: edges[0][0]].splitlines(keepends=True)[first:]), first + 1)]
    for (_, start), (end, _) in zip(marks, edges[1:], strict=True):
        lines = script[start:end].splitlines(keepends=True)
        said = 0
        while said < len(lines) and lines[said].startswith("#"):
            said += 1
        text = "".join(line.removeprefix("#").removeprefix(" ") for line in lines[:said]).strip()
        found.append(Cell(text, "".join(lines[said:]), script.count("\n", 0, start) + said + 1))
    return found


def run(script: Path, folder: Path) -> dict[str, Any]:
    """Runs a script in this process: what each cell printed and drew, and the processor time of all, with imports.

    Args:
        script: Python.
        folder: for the pictures.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.close("all")
    # A module of its own under the name __main__, so that what the script defines is found by what pickles or inspects it.
    module = ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    text = script.read_text(encoding="utf-8")
    shown: list[dict[str, Any]] = []
    for number, cell in enumerate(cells_of(text)):
        printed, pictures = io.StringIO(), []
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (cell.line - 1) + cell.code, str(script), "exec"), vars(module))
        for place, open_one in enumerate(pyplot.get_fignums()):
            figure = pyplot.figure(open_one)
            if not figure.get_label():
                raise ValueError(f'{script.name}: a figure without alternative text; say plt.subplots(num="what is seen")')
            name = f"{script.stem}-{number}-{place}.png"
            figure.savefig(folder / name, dpi=140, bbox_inches="tight")
            pictures.append((name, figure.get_label()))
        pyplot.close("all")
        shown.append({"printed": printed.getvalue(), "pictures": pictures})
    return {"cells": shown, "seconds": time.process_time()}


def outcome_of(script: Path, folder: Path) -> dict[str, Any]:
    """What a script gave, from the last run if nothing has changed since."""
    code = hashlib.sha256()
    text = script.read_text(encoding="utf-8")
    rooms = ["src/equipoise", *(["papers/src"] if "equipoise_papers" in text else [])]
    for file in sorted([script, Path(__file__), *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]):
        code.update(file.read_bytes())
    known = folder / f"{script.stem}.json"
    if known.is_file() and (old := json.loads(known.read_text(encoding="utf-8")))["code"] == code.hexdigest():
        return old
    print(f"the gallery: {script.name}", flush=True)
    rooms_on_path = os.pathsep.join(str(ROOT / room) for room in ("src", "papers/src", "."))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "website.gallery", str(script), str(folder), code.hexdigest()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": rooms_on_path, "MPLBACKEND": "agg", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"gallery/{script.name} failed:\n{done.stderr[-3000:]}")
    return json.loads(known.read_text(encoding="utf-8"))


def write(folder: Path, kept: Path, *, executed: bool = True) -> list[Path]:
    """Writes the pages into ``folder/gallery``, and returns what it wrote.

    Args:
        folder: of the site's source.
        kept: where what the scripts gave is kept from one build to the next.
        executed: run scripts that have changed; without, pages show the code alone.

    Raises:
        SystemExit: a script failed, or :data:`ORDER` does not fit the folder.
    """
    there = {path.stem for path in SCRIPTS.glob("*.py")}
    if wrong := there.symmetric_difference(ORDER):
        raise SystemExit(f"ORDER in website/gallery.py does not fit gallery/: {', '.join(sorted(wrong))}")
    shelf = folder / "gallery"
    kept.mkdir(parents=True, exist_ok=True)
    cards, written = [], []
    for name in ORDER:
        script = SCRIPTS / f"{name}.py"
        cells = cells_of(script.read_text(encoding="utf-8"))
        outcome = (
            outcome_of(script, kept) if executed else {"cells": [{"printed": "", "pictures": []}] * len(cells), "seconds": 0}
        )
        pictures = [picture for cell in outcome["cells"] for picture in cell["pictures"]]
        written += [copied(kept / file, shelf / "pictures" / file) for file, _ in pictures]
        written += [copied(script, shelf / script.name), put(shelf / f"{name}.md", _page(name, cells, outcome))]
        title, _, said = cells[0].text.partition("\n\n")
        seen = f"[![]({'pictures/' + pictures[-1][0]})]({name}.md)\n\n" if pictures else ""
        sentence = re.match(r".*?[.:](?=\s|$)", " ".join(said.split()))
        cards.append(f":::{{container}} card\n{seen}**[{title}]({name}.md)**\n\n{sentence[0] if sentence else ''}\n:::")
    names = "\n".join(ORDER)
    index = (
        f"# Gallery\n\n{len(ORDER)} whole examples, run when this site was built: each is one file that you can download and "
        "start. None takes longer than a minute on two cores, and none downloads anything.\n\n"
        f"::::{{container}} cards\n{chr(10).join(cards)}\n::::\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return [*written, put(shelf / "index.md", index)]


def _page(name: str, cells: list[Cell], outcome: dict[str, Any]) -> str:
    title, _, said = cells[0].text.partition("\n\n")
    parts = [f"# {title}", said]
    for cell, result in zip(cells, outcome["cells"], strict=True):
        if cell is not cells[0] and cell.text:
            parts.append(cell.text)
        if cell.code.strip():
            parts.append(f"```python\n{cell.code.strip()}\n```")
        if result["printed"].strip():
            parts.append(f"```{{code-block}} text\n:class: printed\n\n{result['printed'].rstrip()}\n```")
        parts += [f"![{alt}](pictures/{file})" for file, alt in result["pictures"]]
    took = f" It takes {outcome['seconds']:.0f} seconds of processor time." if outcome["seconds"] else ""
    parts.append(f"---\n\nThe whole example is {{download}}`{name}.py <{name}.py>`.{took}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    _script, _folder, _code = sys.argv[1:]
    _found = run(Path(_script), Path(_folder))
    Path(_folder, f"{Path(_script).stem}.json").write_text(json.dumps({**_found, "code": _code}), encoding="utf-8")
