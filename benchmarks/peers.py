"""The libraries compared with, each if it is there."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

__all__ = ["absent", "has", "libmtl", "torchjd", "version_of"]


def torchjd() -> bool:
    """Whether TorchJD can be imported."""
    return has("torchjd.autojac")


def libmtl() -> tuple[Any, Any] | None:
    """LibMTL's architectures and weightings, or ``None`` if they cannot be imported.

    Its package imports torchvision as a whole, for networks that are not needed here, so the two rooms that are needed are
    entered without running the package's own ``__init__``.
    """
    if "LibMTL" not in sys.modules:
        found = PathFinder.find_spec("LibMTL")
        if found is None or found.submodule_search_locations is None:
            return None
        package = ModuleType("LibMTL")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["LibMTL"] = package
    try:
        return importlib.import_module("LibMTL.architecture"), importlib.import_module("LibMTL.weighting")
    except ImportError:
        return None


def version_of(package: str) -> str:
    """The version of an installed package, or ``absent``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def absent() -> list[str]:
    """A line for each peer that is not there, saying what will be missing."""
    lines = []
    if not torchjd():
        lines.append("TorchJD is not installed: its columns are left out (pip install torchjd).")
    if libmtl() is None:
        lines.append("LibMTL cannot be imported: its columns are left out (pip install --no-deps LibMTL).")
    for module, what in (
        ("cvxpy", "the reference route of Nash-MTL"),
        ("quadprog", "TorchJD's UPGrad and DualProj (with qpsolvers)"),
        ("scipy", "the reference routes of CAGrad and FairGrad"),
    ):
        if not has(module):
            lines.append(f"{module} is not installed: {what} is left out (pip install {module}).")
    return lines


def has(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
