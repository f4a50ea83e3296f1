"""What a release states: versions that agree, floors that can be read, files that packages must bring."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import equipoise

ROOT = Path(__file__).parents[2]


def test_versions_agree() -> None:
    papers = re.search(r'__version__ = "(.*)"', (ROOT / "papers/src/equipoise_papers/version.py").read_text()).group(1)
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1)
    changelog = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert equipoise.__version__ == papers == citation
    assert changelog in (equipoise.__version__, "Unreleased")
    wanted = tomllib.loads((ROOT / "papers/pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    low, high = re.fullmatch(r"equipoise\[study\]>=([\d.]+),<([\d.]+)", wanted[0]).groups()
    numbers = [tuple(map(int, text.split("."))) for text in (low, equipoise.__version__, high)]
    assert numbers[0] <= numbers[1] < numbers[2]


def test_floors_are_of_every_dependency_and_pinned_versions_are_above_them() -> None:
    told = subprocess.run([sys.executable, ROOT / "release/floors.py"], check=True, capture_output=True, text=True).stdout
    floors = dict(line.split("==") for line in told.split())
    assert {"torch", "numpy", "scipy", "typer"} <= floors.keys()
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {name.casefold().replace("_", "-"): pin for name, pin in pins.items()}

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", text.split("post")[0]))

    for name, floor in floors.items():
        pin = pins.get(name.casefold().replace("_", "-"))
        assert pin is None or numbers(floor) <= numbers(pin), name


def test_what_is_not_python_is_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    stated = project["tool"]["setuptools"]["package-data"]["equipoise"]
    brought = {path for pattern in stated for path in (ROOT / "src/equipoise").glob(pattern)}
    there = {path for path in (ROOT / "src/equipoise").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == brought
