"""From runs to the published rows beside ours."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.cli import main
from equipoise.store import write_json
from equipoise.study import Results, Study
from equipoise.study.records import SCHEMA
from equipoise_papers.published import find_table
from equipoise_papers.reproduce import Asked, Setting, find_recipe
from equipoise_papers.reproduce.compare import compare, write_comparison
from equipoise_papers.reproduce.show import show_comparison


def written(folder: Path, recipe: str, values: dict[str, dict[int, dict[str, float]]]) -> None:
    """The study of a recipe's first part that never was: row → seed → metrics."""
    part = find_recipe(recipe).parts[0]
    problem = part.problem(Setting())
    methods = part.methods(part.rows)
    where = folder / part.name
    write_json(
        where / "study.json",
        {
            "schema": SCHEMA,
            "problem": problem.identity(),
            "epochs": 1,
            "methods": {methods[row].label: {"name": methods[row].name, "options": {}} for row in values},
            "seeds": [0, 1],
        },
    )
    for place, (row, seeds) in enumerate(values.items()):
        for seed, own in seeds.items():
            write_json(
                where / "runs" / f"{place}-{seed}.json",
                {
                    "schema": SCHEMA,
                    "run": {"method": methods[row].label, "name": "", "options": {}, "task": None, "seed": seed},
                    "epochs": 1,
                    "history": [{"epoch": 1, "test": own, "validation": None, "losses": {}}],
                    "final": {"test": own, "validation": None},
                    "seconds_a_step": {"median": 1.0, "mean": 1.0, "steps": 1},
                    "memory_mb": {"training": None},
                    "wall_seconds": 1.0,
                    "versions": {},
                    "complete": True,
                },
            )


def test_the_published_rows_themselves_differ_by_nothing_but_rounding(tmp_path: Path) -> None:
    table = find_table("cost-table1")
    names = [metric.name for metric in table.metrics]
    rows = {row: {0: {name: table.row(row)[name] for name in names}} for row in table.methods}
    written(tmp_path, "cost-table1", rows)
    (compared,) = write_comparison(find_recipe("cost-table1"), tmp_path)
    assert [row.name for row in compared.rows] == list(table.methods)
    assert compared.missing == ("STL",)
    for row in compared.rows:
        assert all(row.differences[name] == 0 for name in names)
        assert abs(row.differences["delta_m"]) < 0.35
        assert abs(row.differences["MR"]) < 0.6  # ties share a rank here
    assert json.loads((tmp_path / "comparison.json").read_text())["tables"][0]["table"] == "cost-table1"


def test_means_over_seeds_and_differences(tmp_path: Path) -> None:
    row = find_table("cost-table1").row("FairGrad")
    metrics = {name: value for name, value in row.items() if name not in ("MR", "delta_m")}
    higher = {**metrics, "semantic mIoU": metrics["semantic mIoU"] + 2}
    written(tmp_path, "cost-table1", {"FairGrad": {0: metrics, 1: higher}})
    (compared,) = write_comparison(find_recipe("cost-table1"), tmp_path)
    (own,) = compared.rows
    assert own.ours["semantic mIoU"].mean == pytest.approx(metrics["semantic mIoU"] + 1)
    assert own.ours["semantic mIoU"].n == 2
    assert own.differences["semantic mIoU"] == pytest.approx(1)
    # One more point of mIoU is a smaller drop: 100/74.01/4 of Δm.
    assert own.ours["delta_m"].mean == pytest.approx(5.1151 - 100 / 74.01 / 4, abs=1e-3)
    assert "MR" not in own.ours  # ranks among one method would mean nothing
    text = re.sub(" +", " ", (tmp_path / "comparison.md").read_text(encoding="utf-8"))
    assert "| FairGrad | published | | 75.72 | 93.68 | 0.0134 | 32.25 | 2.25 | 5.18 |" in text
    assert "| | ours | 2 | 76.72 ± 1.41 | 93.68 ± 0.00 |" in text
    assert "| | difference | | +1.00 | +0.00 | +0.0000 | +0.00 | – |" in text
    assert "Not run: STL, LS, RLW" in text


def test_a_further_version_stands_below_its_row(tmp_path: Path) -> None:
    table = find_table("cost-table1")
    values = {metric.name: table.row("CAGrad")[metric.name] for metric in table.metrics}
    written(tmp_path, "cost-table1", {"CAGrad": {0: values}, "CAGrad clipped": {0: values}})
    (compared,) = compare(find_recipe("cost-table1"), tmp_path)
    assert [row.name for row in compared.rows] == ["CAGrad", "CAGrad clipped"]
    assert compared.rows[0].published == compared.rows[1].published
    assert "CAGrad clipped" not in compared.missing


def test_celeba_is_against_the_published_single_task_scores(tmp_path: Path) -> None:
    part = find_recipe("ldc-table1-celeba").parts[0]
    assert len(part.alone) == 40
    assert part.alone["Eyeglasses F1"] == pytest.approx(95.694304)
    assert set(part.alone) == {metric.name for metric in part.problem(Setting()).metrics}
    worse = {name: 0.9 * value for name, value in part.alone.items()}
    written(tmp_path, "ldc-table1-celeba", {"LS": {0: dict(part.alone), 1: worse}})
    (compared,) = compare(find_recipe("ldc-table1-celeba"), tmp_path)
    assert compared.rows[0].ours["delta_m"].mean == pytest.approx(5.0)
    assert compared.rows[0].differences["delta_m"] == pytest.approx(5.0 - 4.15)


@pytest.mark.parametrize("width", [70, 200])
def test_a_narrow_terminal_shows_the_summaries(tmp_path: Path, width: int) -> None:
    row = find_table("cost-table1").row("FairGrad")
    written(tmp_path, "cost-table1", {"FairGrad": {0: {name: row[name] for name in row if name not in ("MR", "delta_m")}}})
    console = Console(width=width, record=True, file=io.StringIO())
    show_comparison(find_recipe("cost-table1"), tmp_path, console)
    said = console.export_text()
    assert "…" not in said
    assert "5.18" in said
    assert ("32.25" in said) == (width == 200)


def test_nothing_run_is_nothing_compared(tmp_path: Path) -> None:
    (compared,) = compare(find_recipe("cost-table1"), tmp_path)
    assert not compared.rows
    assert main(["reproduce", "cost-table1", "--report", "--folder", str(tmp_path)]) == 0


def test_a_study_is_run_gone_on_with_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "report", lambda study: None)  # its pictures take longer than all the rest
    recipe = find_recipe("ldc-table9")
    part = recipe.parts[0]
    data = part.write_sample(tmp_path / "data")
    console = Console(quiet=True)
    asked = Asked(Setting(data=data, smoke=True), (0,), 1, rows=("LS 0.1:0.9",), console=console)
    part.execute(asked, tmp_path / part.name)
    results = Results(tmp_path / part.name)
    assert results.delta_m(results.methods[0]) == {}  # without baselines
    assert "no finished single-task baseline" in results.obstacle()
    record = next((tmp_path / part.name / "runs").glob("*.json"))
    before = record.stat().st_mtime_ns
    part.execute(asked, tmp_path / part.name)
    assert record.stat().st_mtime_ns == before
    (compared,) = compare(recipe, tmp_path)
    (row,) = compared.rows
    assert row.name == "LS 0.1:0.9"
    assert compared.departures == ("mtan: 1 epochs instead of 200.", "mtan: a narrow network on small batches.")
    assert set(row.differences) == {*(metric.name for metric in compared.table.metrics), "delta_m"}


def test_runs_without_a_study_are_gone_on_with(tmp_path: Path) -> None:
    recipe = find_recipe("thesis-table3.2")
    (part,) = recipe.parts
    data = part.write_sample(tmp_path / "data")
    asked = Asked(Setting(data=data, smoke=True), (0, 1), 2, rows=("FORUM",))
    part.execute(asked, tmp_path / part.name)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / part.name / "runs").glob("*.json")}
    assert len(files) == 2
    part.execute(asked, tmp_path / part.name)
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    # Other settings are other runs.
    part.execute(Asked(asked.setting, (0,), 3, rows=("FORUM",)), tmp_path / part.name)
    assert sum(path.stat().st_mtime_ns != time for path, time in files.items()) == 1
    (compared,) = compare(recipe, tmp_path)
    assert compared.rows[0].ours["MNIST accuracy"].n == 2
    assert compared.departures == tuple(
        f"cleaning: {said}"
        for said in ("2 iterations instead of 1200.", "3 iterations instead of 1200.", "a small model on a few rows.")
    )
