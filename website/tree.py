"""The decision tree of "Choosing a method": ``python -m website.tree`` writes it into the page, as a list and as a picture."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import equipoise as eq

__all__ = ["PAGE", "PICTURE", "TREE", "Branch", "filled", "listed", "picture"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "choosing-a-method.md"
PICTURE = DOCS / "pictures" / "decision-tree.svg"


@dataclass(frozen=True)
class Branch:
    """An answer, and what follows from it: further answers, or methods."""

    answer: str
    then: tuple[Branch, ...] = ()
    methods: tuple[str, ...] = ()


TREE = (
    Branch("No conflicts, gradients of one size", methods=("ls",)),
    Branch(
        "A step may cost one backward pass",
        (
            Branch("losses in different units", methods=("si", "famo", "uw")),
            Branch("no task may be left behind", methods=("ldc-mtl", "stch")),
            Branch("tasks that learn at different rates", methods=("dwa", "go4align")),
        ),
    ),
    Branch(
        "A step may cost K backward passes, or use a proxy",
        (
            Branch("losses in different units", methods=("fairgrad", "nash-mtl", "imtl-g")),
            Branch("no task may pay for another", methods=("upgrad", "mgda", "dualproj")),
            Branch("the mean loss counts most", methods=("cagrad", "pcgrad")),
        ),
    ),
    Branch(
        "A special difficulty",
        (
            Branch("small, noisy batches", methods=("moco", "modo", "sdmgrad")),
            Branch("unequal label noise", methods=("excess-mtl",)),
            Branch("physics-informed networks", methods=("config", "ntk")),
            Branch("a point of your choice on the front", methods=("epo", "stch", "cosmos")),
            Branch("one encoder, features in conflict", methods=("rotograd", "consmtl")),
        ),
    ),
)


def listed() -> str:
    """The tree as a nested list of Markdown, with links to the methods' files."""
    lines = []
    for branch in TREE:
        lines.append(f"- **{branch.answer}**{_methods(branch)}")
        lines += [f"  - {further.answer}{_methods(further)}" for further in branch.then]
    return "\n".join(lines) + "\n"


def _methods(branch: Branch) -> str:
    files = {name: eq.balance.method(name).cls.__module__.replace(".", "/") for name in branch.methods}
    return ": " + ", ".join(f"[`{name}`](../src/{file}.py)" for name, file in files.items()) if files else ""


def picture() -> str:
    """The tree as SVG, from left to right: the question, the answers, what follows."""
    height, gap, x = 40, 12, (10, 230, 560, 840)
    leaves = [(branch, leaf) for branch in TREE for leaf in (branch.then or (branch,))]
    at = {id(leaf): 10 + row * (height + gap) for row, (_, leaf) in enumerate(leaves)}
    total = 10 + len(leaves) * (height + gap)
    middle = total / 2 - height / 2
    parts = [_box(x[0], middle - 20, 180, height + 40, "What do your tasks do, and what may a step cost?", "root")]
    lines = []
    for branch in TREE:
        rows = [at[id(leaf)] for leaf in (branch.then or (branch,))]
        here = (rows[0] + rows[-1]) / 2
        lines.append(_line(x[0] + 180, middle + height / 2, x[1], here + height / 2))
        parts.append(_box(x[1], here - 4, 270, height + 8, branch.answer, "branch"))
        for leaf in branch.then:
            lines.append(_line(x[1] + 270, here + height / 2, x[2], at[id(leaf)] + height / 2))
            parts.append(_box(x[2], at[id(leaf)], 230, height, leaf.answer, "branch"))
        for leaf in branch.then or (branch,):
            start = x[2] + 230 if branch.then else x[1] + 270
            lines.append(_line(start, at[id(leaf)] + height / 2, x[3], at[id(leaf)] + height / 2))
            parts.append(_box(x[3], at[id(leaf)], 270, height, ", ".join(leaf.methods), "leaf"))
    style = (
        "text{font:15px system-ui,sans-serif;fill:#1f2933}.leaf text{font-family:ui-monospace,monospace;font-weight:600}"
        "rect{fill:#f1f4f8;stroke:#9aa5b1}.root rect{fill:#fde8dc;stroke:#c2410c}.leaf rect{fill:#e6effd;stroke:#2563eb}"
        "path{fill:none;stroke:#9aa5b1;stroke-width:1.5}"
    )
    body = "\n".join((*lines, *parts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1120 {total}" role="img">\n<style>{style}</style>\n'
        f'<rect width="1120" height="{total}" style="fill:white;stroke:none"/>\n{body}\n</svg>\n'
    )


def _box(left: float, top: float, width: float, height: float, text: str, kind: str) -> str:
    lines = [text] if kind == "leaf" else textwrap.wrap(text, int((width - 20) / 8), break_on_hyphens=False)
    first = top + height / 2 - 9 * (len(lines) - 1) + 5
    said = "".join(f'<text x="{left + 10:g}" y="{first + 18 * row:g}">{escape(line)}</text>' for row, line in enumerate(lines))
    return f'<g class="{kind}"><rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6"/>{said}</g>'


def _line(left: float, top: float, right: float, bottom: float) -> str:
    middle = (left + right) / 2
    return f'<path d="M{left:g} {top:g}C{middle:g} {top:g} {middle:g} {bottom:g} {right:g} {bottom:g}"/>'


def filled(text: str) -> str:
    """The page with its list rewritten."""
    return re.sub(
        r"(?<=^<!-- decision tree -->\n).*?(?=^<!-- end of decision tree -->$)",
        lambda _: listed(),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
