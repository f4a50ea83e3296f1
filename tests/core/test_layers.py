"""The house: who may import whom, how deep it is, and how large."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import equipoise

ROOT = Path(equipoise.__file__).parent
REPOSITORY = Path(__file__).parents[2]
FILES = sorted(ROOT.rglob("*.py"))

# From the bottom up. A room imports from those below it, and from its own row only where the row says so.
ROWS: tuple[tuple[set[str], bool], ...] = (
    ({"errors", "version"}, False),
    ({"states"}, False),
    ({"reading", "terminal", "lifeline"}, False),
    ({"solvers", "registry", "options", "store", "progress", "markdown", "tasks", "further", "randomness"}, False),
    ({"modes", "modules", "cluster"}, False),
    ({"metrics", "data", "engine"}, False),
    ({"distributed", "objective", "nets", "blackbox", "points"}, False),
    # A balancer is given to the step, the step to the optimizer, the teleport to both; a method names all of them.
    ({"balance", "step", "method", "teleport", "optimizer", "dropin", "loss", "proxy", "groups", "rewards"}, True),
    ({"bilevel", "integrations", "pareto"}, False),
    ({"study"}, False),
    ({"sweep", "diagnosis"}, False),
    ({"advice", "fronts"}, False),
    ({"commands"}, False),
    ({"cli"}, False),
    ({"__main__"}, False),
)
LEVEL = {room: level for level, (rooms, _) in enumerate(ROWS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports anywhere, for types only or in a function as well; doctests do not count."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    """The rooms of ours that a file imports, its own aside; ``""`` for the top level."""
    own = [name.split(".") for name in imports_of(path) if name.split(".")[0] == "equipoise"]
    return {parts[1] if len(parts) > 1 and (parts[1] in LEVEL) else "" for parts in own} - {room_of(path)}


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_imports_run_downwards(room: str) -> None:
    level = LEVEL[room]
    allowed = {other for other in LEVEL if LEVEL[other] < level} | (ROWS[level][0] if ROWS[level][1] else set())
    for path in FILES:
        if room_of(path) == room:
            # The top level is what users write; a study shows it to the code that a user names on the command line.
            above = rooms_imported(path) - allowed - ({""} if level >= LEVEL["study"] else set())
            assert not above, f"{path.relative_to(ROOT)} imports {', '.join(above) or 'equipoise itself'}"


def test_solvers_are_mathematics_alone() -> None:
    for path in FILES:
        if room_of(path) == "solvers":
            assert rooms_imported(path) <= {"errors"}
            assert not {name.split(".")[0] for name in imports_of(path)} & {"torch"}


def test_the_library_knows_nothing_of_the_papers() -> None:
    for path in FILES:
        assert not {name for name in imports_of(path) if name.startswith("equipoise_papers")}, path


def test_a_room_is_a_folder_of_several_files_and_not_deep() -> None:
    for path in FILES:
        assert len(path.relative_to(ROOT).parts) <= 3, f"{path} is deeper than room/part/file.py"
    for folder in {path.parent for path in FILES}:
        modules = [path for path in folder.iterdir() if path.suffix == ".py" and path.name != "__init__.py"]
        others = [path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"]
        assert len(modules) + len(others) > 1, f"{folder} has one file: make it a file"


def test_the_library_stays_small() -> None:
    # Raised for preferences, Pareto sets and some forty further methods, at a file of about 150 lines each.
    assert len(FILES) <= 375
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= 66_000
