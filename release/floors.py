"""Prints the lowest versions that ``pyproject.toml`` states, as constraints for pip: ``python release/floors.py > floors.txt``.

Tools that only look at the code (lint, types, the test runner and its reference solvers) are left at what is newest.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

SOLVERS = {"cvxpy", "ecos", "qpsolvers", "quadprog"}
TOOLS = {"hypothesis", "mypy", "pytest", "pytest-timeout", "pytest-xdist", "ruff", "sybil"}


def main() -> None:
    """Prints one line per dependency."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    floors = dict(re.fullmatch(r"([\w.-]+)>=([\w.]+)", line).groups() for line in stated)
    for name in sorted(floors.keys() - TOOLS - SOLVERS, key=str.casefold):
        print(f"{name}=={floors[name]}")


if __name__ == "__main__":
    main()
