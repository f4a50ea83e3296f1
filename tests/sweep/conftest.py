from pathlib import Path

import pytest
from rich.console import Console

from equipoise.study import find_problem

TUG = Path(__file__).parent / "problems" / "tug.py"


@pytest.fixture(scope="session")
def tug_path():
    return TUG


@pytest.fixture(scope="session")
def tug():
    return find_problem(f"{TUG}:problem")


@pytest.fixture(scope="session")
def quiet():
    return Console(quiet=True)
