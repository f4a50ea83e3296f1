"""The pages of the reference: one per room, from what each says is its own, and one of the command line."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import equipoise as eq
from website.pages import put

__all__ = ["ROOMS", "write"]

ROOMS = (
    "balance",
    "teleport",
    "groups",
    "bilevel",
    "blackbox",
    "pareto",
    "diagnosis",
    "advice",
    "cluster",
    "integrations",
    "data",
    "nets",
    "metrics",
    "study",
    "sweep",
    "fronts",
    "engine",
    "step",
    "solvers",
    "distributed",
    "further",
    "randomness",
    "errors",
)
"""In the order in which somebody would look for them."""


def write(folder: Path) -> list[Path]:
    """Writes the pages into ``folder/reference``, and returns them."""
    shelf = folder / "reference"
    own_pages = [info.cls for info in eq.methods()]
    seen: set[int] = set()
    top = [name for name in eq.__all__ if not inspect.ismodule(getattr(eq, name)) and getattr(eq, name) not in own_pages]
    said = "What a training loop needs. `import equipoise as eq`."
    written = [_page(shelf / "top.md", "The top level", said, "equipoise", eq, top, seen)]
    for room in ROOMS:
        module = importlib.import_module(f"equipoise.{room}")
        names = [name for name in getattr(module, "__all__", ()) if getattr(module, name) not in own_pages]
        said = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
        written.append(_page(shelf / f"{room}.md", f"equipoise.{room}", said, f"equipoise.{room}", module, names, seen))
    pages = "\n".join(("top", *ROOMS, "commands"))
    index = (
        f"# Reference\n\nFrom the docstrings. Balancers have [pages of their own](../methods/index.md).\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{pages}\n```\n"
    )
    return [*written, put(shelf / "index.md", index), put(shelf / "commands.md", _commands())]


def _page(file: Path, title: str, said: str, prefix: str, module: ModuleType, names: list[str], seen: set[int]) -> Path:
    parts = [f"# {title}\n\n{said}"]
    for name in names:
        value = getattr(module, name)
        if inspect.ismodule(value) or (callable(value) and id(value) in seen):
            continue  # documented where it is more public
        if inspect.isclass(value):
            directive = f".. autoclass:: {prefix}.{name}\n   :members:\n   :show-inheritance:\n   :exclude-members: stateful"
        elif callable(value):
            directive = f".. autofunction:: {prefix}.{name}"
        else:
            directive = f".. py:data:: {prefix}.{name}"
        seen.add(id(value))
        parts.append(f"```{{eval-rst}}\n{directive}\n```")
    return put(file, "\n\n".join(parts) + "\n")


def _commands() -> str:
    """What ``--help`` says, of every command."""
    import typer.main

    from equipoise.cli import _assembled

    guide = "[the command line](../command-line.md)"
    parts = [f"# Commands\n\nWhat `equipoise COMMAND --help` says; {guide} tells how they work together."]
    group = typer.main.get_command(_assembled([]))
    stack = [((), group)]
    while stack:
        path, command = stack.pop(0)
        if hasattr(command, "commands"):
            stack += [((*path, name), each) for name, each in command.commands.items() if not each.hidden]
            continue
        about = " ".join((command.help or "").split())
        rows = []
        for option in command.params:
            names = ", ".join(option.opts) if option.param_type_name == "option" else (option.name or "").upper()
            rows.append(f"`{names}`\n: {' '.join((getattr(option, 'help', None) or '').split()) or '(see above)'}")
        parts.append(f"## equipoise {' '.join(path)}\n\n{about}\n\n" + "\n\n".join(rows))
    return "\n\n".join(parts) + "\n"
