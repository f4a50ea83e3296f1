"""A few steps of some rows on generated data, through the real readers, losses, networks (narrow) and the study's own loop.

``equipoise reproduce NAME --smoke`` does so for every row; here is one of each kind.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise_papers.published import find_table
from equipoise_papers.reproduce import find_recipe


@pytest.fixture(autouse=True)
def _generators_as_before():
    """A run seeds the global generators of its process, which here is pytest's."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@pytest.mark.parametrize(
    ("recipe", "part", "row"),
    [
        ("cost-table7", "triggers", "COST weak"),
        ("ldc-table7", "ldc-mtl", "LDC-MTL"),
        ("cost-table2", "mtan", "CAGrad clipped"),
        ("ldc-table4", "ldc-mtl", "LDC-MTL λ=0.01"),
        ("ldc-table10", "reordered-1", "LDC-MTL reordered, seed 1"),
        ("ldc-table6", "qm9", "LDC-MTL"),
        ("thesis-table3.2", "cleaning", "FORUM"),
        ("thesis-table3.3", "office31", "MGDA"),
        ("thesis-table3.3", "office31", "FORUM"),
        ("thesis-table3.4", "deeplab", "MoCo"),
        ("thesis-table4.1", "officehome", "ASMG d=256"),
        ("thesis-table5.1", "officehome-normal", "NORMAL"),
        ("thesis-table5.2", "normal", "NORMAL"),
        ("thesis-table5.3", "normal", "NORMAL"),
        ("thesis-table5.4", "office31-first-order-node", "first-order NODE"),
        ("thesis-table5.4", "office31-task-specific-layers", "task-specific layers"),
    ],
)
def test_a_row_runs(recipe: str, part: str, row: str, tmp_path: Path) -> None:
    chosen = next(one for one in find_recipe(recipe).parts if one.name == part)
    found = chosen.smoke(chosen.write_sample(tmp_path / "data"), [row])
    assert list(found) == [row]
    values = found[row]
    assert values
    assert all(math.isfinite(value) for own in values.values() for value in own)
    metrics = {metric.name for metric in find_table(chosen.table).metrics}
    if not (metrics & {"loss mean"}):
        assert metrics <= set(values)
