"""One word per idea: no public class of the laboratory has the name of another one, here or in the library."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import equipoise
import equipoise_papers


def public_classes(package: Path) -> dict[str, set[str]]:
    """Name → the files in which a class of that name is defined and listed in ``__all__``."""
    found = defaultdict(set)
    for file in package.rglob("*.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        public: set[str] = set()
        for node in body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" and isinstance(node.value, ast.List):
                public |= {ast.literal_eval(entry) for entry in node.value.elts if isinstance(entry, ast.Constant)}
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name in public:
                found[node.name].add(str(file.relative_to(package.parent)))
    return found


def test_no_two_public_classes_share_a_name() -> None:
    library, papers = (public_classes(Path(package.__file__).parent) for package in (equipoise, equipoise_papers))
    assert len(library) > 100
    assert len(papers) > 50
    shared = {
        name: files | library.get(name, set()) for name, files in papers.items() if len(files | library.get(name, set())) > 1
    }
    assert shared == {}
