"""Comparisons of fronts, on a problem of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.cli import main
from equipoise.data import TensorBatches
from equipoise.errors import EquipoiseError, InputError
from equipoise.fronts import Fronts, FrontsOutcome, narrowed, running
from equipoise.fronts.outcome import Interval
from equipoise.fronts.running import next_weights
from equipoise.metrics import Metric
from equipoise.study import Problem, Splits, find_problem

SOURCE = Path(__file__).parents[1] / "study" / "problems" / "tiny.py"


def tiny(**changes: object) -> Problem:
    found = find_problem(f"{SOURCE}:problem")
    return Problem(**{**vars(found), **changes})  # type: ignore[arg-type]


def fronts(folder: Path, methods: str = "film:hidden=3,palora:rank=1", **given: object) -> Fronts:
    options = {"seeds": 2, "epochs": 2, "models": 4, "members": 3, "jobs": 1, **given}
    return Fronts(tiny(), methods, folder=folder, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fronts") / "compared"
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    fronts(folder).run()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    return folder


def test_every_method_spends_the_same(compared: Path) -> None:
    outcome = FrontsOutcome(compared)
    assert outcome.methods == ("film:hidden=3", "palora:rank=1", "sweep")
    for method in outcome.methods:
        for record in outcome.runs(method).values():
            assert [own["epochs"] for own in record["fronts"]] == [2, 4, 6, 8]
            assert [own["steps"] for own in record["fronts"]] == [6, 12, 18, 24]
    weights = [point["preference"] for point in outcome.runs("sweep")[0]["fronts"][-1]["points"]]
    assert weights[:3] == [[0.5, 0.5], [0.95, 0.05], [0.05, 0.95]]
    assert weights[3][0] in (0.275, 0.725)
    assert [len(own["points"]) for own in outcome.runs("sweep")[0]["fronts"]] == [1, 2, 3, 4]
    own = sum(parameter.numel() for parameter in tiny().build(0)[0].parameters())
    assert outcome.runs("sweep")[0]["parameters"] == 4 * own
    assert outcome.runs("palora:rank=1")[0]["parameters"] == own + 2 * (3 + 4 + 4 + 2)


def test_hypervolumes_are_shares_of_the_box_of_what_counts(compared: Path) -> None:
    outcome = FrontsOutcome(compared)
    every = np.concatenate([outcome.points(method, seed) for method in outcome.methods for seed in (0, 1)])
    ideal, reference = outcome.box
    np.testing.assert_allclose(ideal, every.min(0))
    np.testing.assert_allclose(reference, every.max(0) + 0.1 * (every.max(0) - every.min(0)))
    points = outcome.points("sweep", 0)
    # By counting: the share of a fine grid's cells that some point dominates.
    cells = [np.linspace(low, high, 401)[:-1] + (high - low) / 800 for low, high in zip(ideal, reference, strict=True)]
    x, y = np.meshgrid(*cells, indexing="ij")
    covered = np.zeros_like(x, dtype=bool)
    for point in points:
        covered |= (x >= point[0]) & (y >= point[1])
    assert outcome.hypervolumes("sweep")[0] == pytest.approx(covered.mean(), abs=5e-3)
    against = outcome.against("film:hidden=3")
    assert against[1] == outcome.hypervolumes("film:hidden=3")[1] - outcome.hypervolumes("sweep")[1]


def test_what_counts_is_chosen_on_the_validation_split(compared: Path, tmp_path: Path) -> None:
    outcome = FrontsOutcome(compared)
    seed = outcome.runs("sweep")[0]
    points = seed["fronts"][-1]["points"]
    for place, point in enumerate(points):  # on the validation split the second alone is good, on the test split the last
        point["validation"] = {"near error": float(place != 1), "far error": float(place != 1)}
    assert outcome.points("sweep", 0).tolist() == [[points[1]["test"]["near error"], points[1]["test"]["far error"]]]


def test_started_again_it_does_what_is_missing_and_the_same(compared: Path) -> None:
    asked = fronts(compared)
    assert asked.missing() == []
    path = next((compared / "runs").glob("palora*seed1*"))
    before = json.loads(path.read_text())
    path.unlink()
    assert asked.missing() == [("palora:rank=1", 1)]
    asked.run()
    again = json.loads(path.read_text())
    assert [own["points"] for own in again["fronts"]] == [own["points"] for own in before["fronts"]]
    with pytest.raises(InputError, match="models 4 there, 3 now"):
        fronts(compared, models=3).run()


def test_the_command_writes_a_page_with_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "front"
    command = ["front", str(SOURCE), "-m", "film:hidden=3", "--seeds", "1", "-e", "1", "--models", "2", "--members", "3"]
    assert main([*command, "--jobs", "1", "-o", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "film:hidden=3" in out
    assert "one seed tells little" in out
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "pictures/front.png" in page
    assert (folder / "pictures" / "hypervolume.png").stat().st_size > 5000
    assert main(["report", str(folder), "--paper"]) == 0
    assert "For a paper" in capsys.readouterr().out


def test_runs_that_fail_are_told_and_the_others_are_kept(tmp_path: Path) -> None:
    asked = fronts(tmp_path, "film:layers=[nowhere],palora:rank=1", seeds=1, models=1)
    with pytest.raises(EquipoiseError, match=r"(?s)1 of 3 runs failed, such as film.*nowhere"):
        asked.run()
    assert set(FrontsOutcome(tmp_path).methods) == {"palora:rank=1", "sweep"}


def test_a_set_is_trained_by_what_its_paper_has(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    made = running.ParetoTraining
    monkeypatch.setattr(running, "ParetoTraining", lambda *given, **named: told.append(given[3]) or made(*given, **named))
    for method, balancer in (("cosmos", ""), ("pamal", ""), ("cosmos", "stch:mu=0.1"), ("phn:hidden=3", "epo")):
        assert "failed" not in running.front_run(tiny(), method, 0, 1, 1, 2, balancer)
    assert told == ["cosmos:penalty=2", "ls", "stch:mu=0.1", "epo"]


def test_weights_go_to_the_widest_gap() -> None:
    tried = [[0.5, 0.5], [0.95, 0.05], [0.05, 0.95]]
    points = np.array([[1.0, 1.0], [0.9, 5.0], [3.0, 0.9]])
    assert next_weights(tried, points) == [0.725, 0.275]
    assert next_weights([*tried, [0.725, 0.275]], np.concatenate([points, [[0.95, 2.0]]])) == [0.275, 0.725]
    assert next_weights(tried, np.full((3, 2), np.nan))[0] in (0.275, 0.725)


def test_a_problem_is_narrowed_to_two_tasks() -> None:
    rows = TensorBatches({"x": torch.ones(4, 1)}, 2)

    def losses(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["x"]).square().mean(0)

    whole = Problem(
        "three",
        ("a", "b", "c"),
        (Metric("a", "a", False), Metric("b1", "b", False), Metric("b2", "b", False), Metric("c", "c", False)),
        lambda seed: (torch.nn.Linear(1, 3), losses),
        lambda seed: Splits(rows, rows, rows),
        lambda model, loader: {},
    )
    problem = narrowed(whole, ["c", "b"])
    assert (problem.tasks, [metric.name for metric in problem.metrics]) == (("b", "c"), ["b1", "b2", "c"])
    model, some, *_ = problem.build(0)
    assert list(some(model, {"x": torch.ones(2, 1)})) == ["b", "c"]
    assert narrowed(whole, ["a", "b", "c"]) is whole
    for wrong, said in ((["a"], "two or more"), (["a", "d"], 'no task "d"')):
        with pytest.raises(InputError, match=said):
            narrowed(whole, wrong)


def test_a_longer_sweep_costs_so_many_times_as_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = fronts(tmp_path, "sweep:times=3", seeds=1, models=2, epochs=1).run()
    assert outcome.methods == ("sweep:times=3", "sweep")
    assert [own["steps"] for own in outcome.runs("sweep:times=3")[0]["fronts"]] == [9, 18]
    assert main(["report", str(tmp_path)]) == 0
    assert "a sweep of 3 times the cost has" in capsys.readouterr().out


def test_what_is_refused(tmp_path: Path) -> None:
    for given, said in (
        ({"methods": "plora"}, 'no family of Pareto sets "plora"'),
        ({"methods": "palora:rnk=1"}, 'no option "rnk"'),
        ({"models": 0}, "models is 0"),
        ({"methods": "sweep:times=0"}, "times of the sweep is 0"),
        ({"balancer": "mgda"}, "takes no preference"),
    ):
        with pytest.raises(InputError, match=said):
            fronts(tmp_path / "refused", **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"fronts\.json"):
        FrontsOutcome(tmp_path)
    assert Interval.of([1.0]).text() == "1.000"
