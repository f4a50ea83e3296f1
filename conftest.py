"""Test-wide set-up: one torch thread per process, and the Python blocks of the Markdown pages as tests."""

import gc
import logging
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from tests.templates import Templates

# Small problems are fastest with one thread, and tests run in parallel as it is.
torch.set_num_threads(1)

# Where there is no such device, torch keeps the stack of every call that seeds, for an error message: most of a millisecond.
for device in (torch.cuda, torch.xpu, torch.mtia):
    if not device.is_available():
        device.manual_seed_all = lambda seed: None

# What other packages log is not printed between what tests look at.
logging.getLogger().addHandler(logging.NullHandler())

# Python's readline, which pytest's parent process loads, gives the terminal's width to the workers that it starts; what is
# printed would be cut there, and nowhere else.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

settings.register_profile("equipoise", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("equipoise")

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"], fixtures=["one_template"]
).pytest()


# Importing these imports Lightning and transformers, seconds in every worker; tests/trainers runs their examples.
collect_ignore = [f"src/equipoise/integrations/{name}.py" for name in ("lightning", "hugging_face")]

# Files whose tests take long or wait for other processes come first, or one worker has them alone at the end.
LONG = ("papers/", "tests/trainers/", "tests/sweep/", "tests/study/", "tests/integration/", "tests/cli/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are handed out; and other people's trainers warn of each other."""
    items.sort(key=lambda item: next((n for n, part in enumerate(LONG) if item.nodeid.startswith(part)), len(LONG)))
    for item in items:
        if item.path.parent.name == "integrations" or item.path.name == "logging.md":
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def pytest_collection_finish() -> None:
    """Modules and thousands of collected tests stay to the end: no later garbage collection has to look through them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    """Processes that runs of studies are forked from, kept from test to test."""
    kept = Templates(tmp_path_factory.mktemp("templates"))
    yield kept
    kept.close()


@pytest.fixture
def one_template(templates: Templates) -> Iterator[None]:
    """Studies of this test fork their runs from a process that is there already."""
    with templates.used():
        yield


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    """Every test starts from the same random state of torch, whatever ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
