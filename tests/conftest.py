"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.processes import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two processes that talk to each other, started when the first test needs them."""
    made = Pool(2)
    yield made
    made.close()
