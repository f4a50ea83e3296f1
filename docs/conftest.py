"""Studies on the pages of the guide fork their runs from one process, which spares the tests an import of torch for each."""

from collections.abc import Iterator

import pytest
from tests.templates import Templates


@pytest.fixture(autouse=True)
def _one_template(templates: Templates) -> Iterator[None]:
    with templates.used():
        yield
