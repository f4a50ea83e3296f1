"""The guide's script for DDP and FSDP2, on two and four processes: the parameters of one process with all rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integration.processes import Pool

PAGE = Path(__file__).parents[2] / "docs" / "integrations" / "sharded.md"


def trained(rank: int, count: int, how: str) -> dict[str, Tensor]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "train"}
    exec(compile(code, PAGE.name, "exec"), names)
    found: dict[str, Tensor] = names["train"](rank, count, how)
    return found


@pytest.fixture(scope="module", params=[2, 4])
def processes(request: pytest.FixtureRequest) -> Iterator[Pool]:
    made = Pool(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_the_script_of_the_guide(processes: Pool, how: str) -> None:
    expected = trained(0, 1, "plain")
    for found in processes.run(trained, how):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4)
