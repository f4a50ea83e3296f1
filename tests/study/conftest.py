from pathlib import Path

import pytest
from rich.console import Console

from equipoise.study import Study, find_problem

TINY = Path(__file__).parent / "problems" / "tiny.py"


@pytest.fixture(scope="session")
def tiny_path():
    return TINY


@pytest.fixture(scope="session")
def tiny():
    return find_problem(f"{TINY}:problem")


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny):
    """A finished study of two methods and two seeds, and its folder; tests only read it."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    study = Study(tiny, "ls,fairgrad", 2, folder=folder, jobs=2, gramian_every=2, console=Console(quiet=True))
    return study.run(), folder
