"""Loss discrepancy and pairwise cosines in every study's record, table and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.metrics import ConflictTally
from equipoise.study import Results
from equipoise.study.pictures.training import cosines_picture, loss_distribution_picture
from equipoise.study.report.content import discrepancy_table
from equipoise.study.results import discrepancy, final_losses, relative_losses


def test_cosines_are_means_over_the_steps_that_hold_both_tasks() -> None:
    tally = ConflictTally(["a", "b", "c"])
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    tally.add(rows @ rows.T)
    part = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    tally.add(part @ part.T, ["a", "b"])
    summary = tally.summary()
    assert summary is not None
    assert summary["cosines"] == [[1.0, 0.5, -1.0], [0.5, 1.0, 0.0], [-1.0, 0.0, 1.0]]


def test_two_tasks_that_never_meet_have_no_cosine() -> None:
    tally = ConflictTally(["a", "b"])
    tally.add([[2.0]], ["a"])
    tally.add([[3.0]], ["b"])
    summary = tally.summary()
    assert summary is not None
    assert summary["cosines"] == [[1.0, None], [None, 1.0]]


def test_statistics_over_tasks_are_averaged_over_seeds() -> None:
    found = discrepancy([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])
    assert found is not None
    assert (found.mean, found.lowest, found.highest) == (3.0, 2.5, 3.5)
    assert math.isclose(found.deviation, np.std([1.0, 2.0, 3.0]) / 2)
    assert discrepancy([[math.nan, 1.0]]) is None
    assert discrepancy([]) is None


def test_a_real_study(finished: tuple[Results, Path]) -> None:
    results, _ = finished
    table = discrepancy_table(results)
    assert table is not None
    for name, *cells in table.rows:
        losses = final_losses(results, name)
        assert len(losses) == 2
        own = discrepancy(losses)
        assert own is not None
        assert cells[0] == f"{own.mean:.3g}"
        assert cells[3] == f"{own.highest:.3g}"
        assert len(relative_losses(results, name)) == 2
        assert "–" not in cells
        assert 0 < float(cells[-1]) < 1
    for record in results.records("ls").values():
        assert "cosines" not in record["history"][0]["conflicts"]
        matrix = np.array(record["history"][-1]["conflicts"]["cosines"])
        assert np.allclose(np.diag(matrix), 1.0)
        assert np.allclose(matrix, matrix.T)
    assert cosines_picture(results) is not None
    assert loss_distribution_picture(results) is not None


def test_records_of_earlier_versions_have_no_cosines_and_no_scales(made_up) -> None:  # type: ignore[no-untyped-def]
    folder = made_up()
    for path in (folder / "runs").iterdir():
        record = json.loads(path.read_text())
        record["history"][-1]["conflicts"] = None
        record["points"] = None
        path.write_text(json.dumps(record))
    results = Results(folder)
    assert cosines_picture(results) is None
    assert loss_distribution_picture(results) is None
    assert discrepancy_table(results) is not None


@pytest.mark.parametrize("tasks", [("one",)])
def test_one_task_has_no_discrepancy(made_up, tasks: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert discrepancy_table(Results(made_up(tasks=tasks))) is None
