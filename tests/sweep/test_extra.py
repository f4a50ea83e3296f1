"""What the extra brings: nothing that could change a user's torch, and everything pinned."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def brought(package):
    """All packages that installing one brings with it, itself included, extras left out."""
    found, waiting = set(), [package]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue  # for another system or Python
        found.add(name)
        wanted = [Requirement(line) for line in needed]
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_neither_torch_nor_cuda_comes_with_it():
    packages = brought("optuna") | brought("pymoo")
    assert {"optuna", "pymoo", "numpy", "sqlalchemy", "moocore"} <= packages
    assert not [name for name in packages if name.startswith(("torch", "nvidia", "triton", "cuda"))]


def test_all_of_it_is_pinned():
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert brought("optuna") | brought("pymoo") <= pinned
