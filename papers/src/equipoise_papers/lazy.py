"""Packages whose names are imported when they are first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["on_demand"]


def on_demand(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Makes a package's ``__getattr__``, which imports a name when it is first asked for.

    For type checkers, import the names as usual under ``if TYPE_CHECKING:`` and leave the function out there.

    Args:
        package: its name.
        homes: name → the module below the package that has it.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
