"""A page per method, from the registry and the class's docstring, and a table of all that links to them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from equipoise import markdown
from equipoise.balance.registry import MethodInfo
from equipoise.balance.registry import methods as registered
from website import pictures
from website.pages import ROOT, put

__all__ = ["METHODS_PAGES", "method_of", "rows_of", "write"]

_NEEDS = {"losses": "losses", "gramian": "Gramian", "gradients": "gradients"}


def write(folder: Path, *, drawn: bool = True) -> list[Path]:
    """Writes the pages into ``folder/methods``, and returns them, the index last.

    Args:
        folder: of the site's source.
        drawn: draw pictures, which takes minutes, unless this very code has drawn them before. Without, those that are there
            are shown.
    """
    infos = [info for info in registered() if info.cls.__module__.startswith("equipoise.balance.")]
    shelf = folder / "methods"
    if drawn:
        pictures.draw_all([info for info in infos if pictures.drawable(info)], shelf / "pictures")
    written = [put(shelf / f"{info.name}.md", _page(info, infos, shelf)) for info in infos]
    rows = [[f"[`{i.name}`]({i.name}.md)", i.summary, _NEEDS[i.cost], i.price, i.promise, _year(i)] for i in infos]
    table = markdown.table(["method", "idea", "looks at", "cost of a step", "what it promises", "year"], rows, left=5)
    names = "\n".join(info.name for info in infos)
    index = (
        f"# Methods\n\nEvery balancer of the library: {len(infos)} of them. A click on a column's head sorts.\n"
        "[Choosing a method](../choosing-a-method.md) leads from what you have to two or three of them.\n\n"
        f"{table}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return [*written, put(shelf / "index.md", index)]


def _page(info: MethodInfo, infos: list[MethodInfo], shelf: Path) -> str:
    facts = [
        ["looks at", _NEEDS[info.cost]],
        ["cost of a step", info.price],
        ["what it promises", info.promise],
        ["when to use it", info.serves],
        ["what to mind", info.caveats],
        ["its weights add up to", info.adds_up_to],
        *([["what `preference` means", info.preference]] if info.preference else []),
        ["checked against", info.checked],
        ["other names", ", ".join(f"`{name}`" for name in info.aliases) or "none"],
        ["paper", info.paper],
    ]
    parts = [
        f"# {info.cls.__name__}\n\n`{info.name}`: {info.summary}.",
        f'```python\nmtl = eq.MultiTaskOptimizer(objective, optimizer, "{info.name}")\n```',
        markdown.table(["", ""], facts, left=2),
    ]
    if not pictures.drawable(info):
        parts.append("It acts on a network's features, so there is no picture of it in the plane.")
    elif (shelf / "pictures" / f"{info.name}-path.svg").is_file():
        parts.append(
            "::::{container} pair\n"
            f"![{info.name}: paths from five starts on a problem of two losses](pictures/{info.name}-path.svg)\n\n"
            f"![{info.name}: its direction among three task gradients](pictures/{info.name}-direction.svg)\n::::\n\n"
            "Left: two losses of the plane, the second ten times as loud; the blue line is the Pareto set. Right: three task "
            "gradients (gray), the direction that the method keeps after 200 steps at one point, and that of their mean (blue)."
        )
    parts += _measured(info)
    directive = f".. autoclass:: equipoise.{info.cls.__name__}\n   :members:\n   :exclude-members: stateful"
    parts.append(f"## Class\n\n```{{eval-rst}}\n{directive}\n```")
    kin = [other for other in infos if other.cost == info.cost and other is not info]
    near = sorted(kin, key=lambda other: (other.cls.__bases__ != info.cls.__bases__, other.name))[:5]
    parts.append("## See also\n\n" + "\n".join(f"- [`{other.name}`]({other.name}.md): {other.summary}" for other in near))
    return "\n\n".join(parts) + "\n"


def _measured(info: MethodInfo) -> list[str]:
    """Its rows of the studies of the whole shelf, from their pages of the guide."""
    found = []
    for name, page in METHODS_PAGES.items():
        own = [cells for cells in rows_of(name) if method_of(cells["method"]) == info.name]
        if own:
            table = markdown.table(list(own[0]), [list(cells.values()) for cells in own])
            found.append(
                f"## On {name.upper() if name == 'qm9' else name}\n\n{table}\n\nAll methods: [the study](../{page}.md)."
            )
    return found


METHODS_PAGES = {"digits": "methods-on-digits", "qm9": "methods-on-qm9"}
"""Studies of the whole shelf → their pages in the guide."""


@cache
def rows_of(study: str) -> list[dict[str, str]]:
    """The rows of a study's first table of methods, by the columns' names."""
    text = (ROOT / "docs" / f"{METHODS_PAGES[study]}.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]
    start = next(place for place, cells in enumerate(lines) if cells[0] == "method")
    head, found = lines[start], []
    for cells in lines[start + 2 :]:
        if len(cells) != len(head):
            break
        found.append(dict(zip(head, cells, strict=True)))
    return found


def method_of(cell: str) -> str:
    """The method of a row: its name, without options and proxy."""
    return cell.strip(" *`").partition("@")[0].partition(":")[0].partition(" ")[0]


def _year(info: MethodInfo) -> str:
    return next((word for word in info.paper.replace(",", " ").split() if word.isdigit() and len(word) == 4), "")
