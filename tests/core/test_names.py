"""What the library calls its things: one name for one class."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import equipoise

ROOT = Path(equipoise.__file__).parent


def public_classes() -> dict[str, list[str]]:
    """Class → the modules that define it and have it in their ``__all__``."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(ROOT.rglob("*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        classes = {statement.name for statement in body if isinstance(statement, ast.ClassDef)}
        for statement in body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                    for name in classes & set(ast.literal_eval(value)):
                        found[name].append(str(file.relative_to(ROOT)))
    return found


def test_no_two_public_classes_share_a_name() -> None:
    found = public_classes()
    assert found["MultiTaskOptimizer"] == ["optimizer.py"]
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_no_alias_voids_types() -> None:
    for file in ROOT.rglob("*.py"):
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id="Any")):
                    raise AssertionError(f"{file.relative_to(ROOT)}: {name} = Any")
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.Name(id="Any")):
                    raise AssertionError(f"{file.relative_to(ROOT)}: {name} = Any")
