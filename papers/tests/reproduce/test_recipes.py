"""Every recipe can be planned and built; what it says of itself is what it does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from equipoise.cli import main
from equipoise.errors import InputError
from equipoise.nets import CelebANet, ResNet
from equipoise.study import BestEpoch, LastEpochs, parse_method
from equipoise.study.methods import Method
from equipoise_papers.published import check, find_table, published_tables
from equipoise_papers.reproduce import Recipe, Setting, find_recipe, recipes
from equipoise_papers.reproduce.cost import Workload, hours, in_words
from equipoise_papers.reproduce.families import celeba, office
from equipoise_papers.reproduce.families.common import POSITION_LR
from equipoise_papers.reproduce.page import filled
from equipoise_papers.reproduce.plan import planned, total_hours
from equipoise_papers.reproduce.recipe import Asked, RecipeRow
from equipoise_papers.reproduce.runs_part import RunsPart
from equipoise_papers.reproduce.study_part import StudyPart

ROOT = Path(__file__).parents[2]
STUDIES = [(recipe.name, part) for recipe in recipes() for part in recipe.parts if isinstance(part, StudyPart)]
# Columns of LDC-MTL's Table 1 that are the last columns of its Tables 6 and 7.
REPEATED = {"ldc-table1-qm9", "ldc-table1-nyuv2"}


def test_every_published_table_has_a_recipe() -> None:
    made = {part.table for recipe in recipes() for part in recipe.parts}
    assert {table.key for table in published_tables()} - made == REPEATED


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_every_row_of_its_tables_is_made_once(recipe: Recipe) -> None:
    for key in {part.table for part in recipe.parts}:
        table = find_table(key)
        made = [row for part in recipe.parts if part.table == key for row in part.rows]
        assert len(made) == len({row.name for row in made})
        rows = {row.name for row in made if not row.of}
        assert {row.of for row in made} <= rows | {""}
        # The baseline is a row of its own where it is a method, as EW is in the thesis' Table 5.2.
        assert set(table.methods) <= rows | {"STL"} <= set(table.printed) | {"STL"}


def test_a_package_can_be_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The sample of qm9pack's tables is read in its place, and is too small for the published splits."""
    pytest.importorskip("rdkit")
    sample = Path(__file__).parents[3] / "tests" / "data" / "qm9_tables"
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path))
    monkeypatch.setattr("equipoise.data.qm9.stored.package_folder", lambda: sample)
    assert main(["reproduce", "cost-table3", "--dry-run", "--data", "qm9pack", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "qm9pack has no data for celeba, left out here" in said.err
    assert "qm9pack holds 51 molecules, too few to keep back 10000" in said.out
    assert "617,675 parameters" in said.out
    assert main(["reproduce", "cost-table1", "--dry-run", "--data", "qm9pack", "--device", "cpu"]) == 0
    assert "qm9pack is not a folder" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_dry_run(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", recipe.name, "--dry-run", "--seeds", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert recipe.source in said
    assert recipe.data in said
    assert "not given; --data DIR" in said
    for part in recipe.parts:
        assert part.network in said
        for row in part.made():
            assert re.search(rf"^    {re.escape(row.name)} +2 × ", said, re.MULTILINE), row.name
    for obstacle in recipe.obstacles():
        assert f"missing: {obstacle}" in said


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["reproduce"], ["reproduce", "--list"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert all(recipe.name in said for recipe in recipes())


@pytest.mark.parametrize("page", ["reproducing.md"])
def test_the_page_is_what_the_recipes_say(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert text.count("<!-- recipes: ") == text.count("<!-- end of recipes -->") > 0
    checks = [one for table in published_tables() for one in check(table)]
    assert f"{sum(one.agrees for one in checks)} of {len(checks)} printed summaries" in text
    assert f"experiments in {len(recipes())} tables" in text
    assert filled(text) == text, "write the tables anew: make tables"


def test_full_networks_have_the_size_that_is_stated() -> None:
    """Built on the meta device, which takes no memory; once a network."""
    seen: dict[str, int] = {}
    for name, part in STUDIES:
        if part.network in seen:
            continue
        with torch.device("meta"):
            model, *_ = part.problem(Setting(device="meta")).build(0)
        seen[part.network] = sum(parameter.numel() for parameter in model.parameters())
        stated = re.search(r"([\d.,]+)( million)? parameters", part.network)
        if stated:
            number = float(stated[1].replace(",", "")) * (1e6 if stated[2] else 1)
            assert seen[part.network] == pytest.approx(number, rel=2e-3), name
    assert len(seen) > 15


@pytest.mark.parametrize(("name", "part"), STUDIES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_hyper_parameters_are_those_that_are_stated(name: str, part: StudyPart) -> None:
    problem = part.problem(Setting())
    stated = part.hyperparameters
    assert problem.epochs == part.workload.epochs == int(stated["epochs"])
    assert len(problem.tasks) == part.workload.tasks
    optimizer = problem.optimizer(torch.nn.Linear(1, 1))
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert group["lr"] == float(stated["learning rate"].split(",")[0])
    assert group["weight_decay"] == (1e-5 if "weight decay 1e-5" in stated["optimizer"] else 0)
    if "times 0.3 after every 3 epochs" in stated["learning rate"]:
        scheduler = problem.schedule(optimizer)  # type: ignore[misc]
        optimizer.step()
        for _ in range(7):
            scheduler.step()
        assert group["lr"] == pytest.approx(0.09 * float(stated["learning rate"].split(",")[0]))
    if "halved after 100 epochs" in stated["learning rate"]:
        scheduler = problem.schedule(optimizer)  # type: ignore[misc]
        optimizer.step()
        for _ in range(100):
            scheduler.step()
        assert group["lr"] == float(stated["learning rate"].split(",")[0]) / 2
    if stated["reported"].startswith("mean of the last 10"):
        assert problem.reported == LastEpochs(10)
    else:
        assert problem.reported == BestEpoch("validation")
        assert problem.score is not None
    table = find_table(part.table)
    if table.metrics and part.further is None:
        assert {metric.name for metric in table.metrics} == {metric.name for metric in problem.metrics}
        directions = {metric.name: metric.higher_is_better for metric in problem.metrics}
        assert all(directions[metric.name] == metric.higher_is_better for metric in table.metrics)


@pytest.mark.parametrize("name", ["thesis-table5.1", "thesis-table5.2", "thesis-table5.3"])
def test_positions_have_a_step_size_of_their_own_and_are_recorded(name: str) -> None:
    part = find_recipe(name).parts[1]
    assert isinstance(part, StudyPart)
    problem = part.problem(Setting(smoke=True))
    model, *_ = problem.build(0)
    rest, positions = problem.optimizer(model).param_groups
    assert (positions["lr"], positions["weight_decay"], rest["lr"]) == (POSITION_LR, 0.0, 1e-4)
    assert f"η = {POSITION_LR:g}" in part.hyperparameters["positions"]
    assert problem.recorded is not None
    assert problem.recorded(model) == dict.fromkeys(problem.tasks, 1.0)


def test_networks_that_are_compared_have_as_many_parameters() -> None:
    """But the first-order flow, whose row says so."""
    for kind in ("office31", "officehome"):
        sizes = {}
        for part in find_recipe("thesis-table5.4").parts:
            if part.name.startswith(f"{kind}-"):
                assert isinstance(part, StudyPart)
                with torch.device("meta"):
                    model, *_ = part.problem(Setting(device="meta")).build(0)
                sizes[part.name] = sum(parameter.numel() for parameter in model.parameters())
        smaller = sizes.pop(f"{kind}-first-order-node")
        assert max(sizes.values()) / min(sizes.values()) < 1.001
        assert smaller < min(sizes.values())


def test_faces_have_the_features_that_the_thesis_prints() -> None:
    part = find_recipe("thesis-table5.3").parts[1]
    assert isinstance(part, StudyPart)
    with torch.device("meta"):
        model, *_ = part.problem(Setting(device="meta")).build(0)
        assert model.network.encoder.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)
    assert model.network.flow.dynamics.function[0].weight.shape == (2048, 2048)


def test_prompts_are_tuned_where_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLIP of one's own is asked for with the device of --device; Table 4.1 once computed on the CPU whatever that was."""
    asked = []

    def made(classes: object, device: str) -> None:
        asked.append(device)
        raise InputError("that will do")

    monkeypatch.setitem(sys.modules, "clip_of_ones_own", SimpleNamespace(made=made))
    part = find_recipe("thesis-table4.1").parts[0]
    assert isinstance(part, RunsPart)
    setting = Setting(data=part.write_sample(tmp_path), device="cuda:7", extra={"clip": "clip_of_ones_own:made"})
    with pytest.raises(InputError, match="that will do"):
        part.run(setting, part.rows[1], 0, 1, tmp_path)
    assert asked == ["cuda:7"]


def test_methods_of_a_part_differ() -> None:
    for name, part in STUDIES:
        labels = [method.label for method in part.methods(part.possible()).values()]
        assert len(labels) == len(set(labels)), name


def test_operations_are_those_that_are_stated() -> None:
    """Two of the quick ones; the others were counted in the same way."""
    with torch.device("meta"):
        networks = (
            (CelebANet().eval(), torch.zeros(1, 3, 64, 64), celeba.WORK.gigaflops),
            (ResNet(18, classifier=False, pool=True).eval(), torch.zeros(1, 3, 224, 224), office._WORK["office31"].gigaflops),
        )
        for network, image, stated in networks:
            with FlopCounterMode(display=False) as counter:
                network(image)
            assert counter.get_total_flops() / 1e9 == pytest.approx(stated, rel=5e-3)


def test_hours_by_hand() -> None:
    work = Workload(gigaflops=100, batch=8, steps=100, epochs=10, tasks=3, evaluated=0, overhead=0.0)
    forward = 100e9 * 8 / 20e12
    assert hours(work, None) == pytest.approx(10 * 100 * 3 * forward / 3600)
    assert hours(work, parse_method("famo")) == pytest.approx(hours(work, None))
    assert hours(work, parse_method("mgda"), epochs=1) == pytest.approx(100 * 7 * forward / 3600)
    # T = 5 steps of the lower level, one gradient of the constraint, three objectives.
    assert hours(work, parse_method("forum:lower_steps=5"), epochs=1) == pytest.approx(100 * 25 * forward / 3600)
    teleporting: Method = parse_method("cost+mgda")
    assert hours(work, teleporting) == pytest.approx(1.3 * hours(work, parse_method("mgda")))
    assert in_words(1e-3) == "1 min"


def test_further_versions_of_a_row_are_told_and_made_where_they_are_named() -> None:
    recipe = find_recipe("ldc-table7")
    said = "\n".join(planned(recipe, Asked(Setting())))
    assert "CAGrad clipped: cagrad:c=0.4,rescale=True,max_norm=0.333333" in said
    assert "clip the gradient of the shared parameters" in said
    assert "LDC-MTL as printed: ldc-mtl:penalty=0.05" in said
    assert "with the divisor differentiated" in said
    part = recipe.parts[0]
    assert [row.name for row in part.made(("CAGrad clipped", "LS"))] == ["LS", "CAGrad clipped"]
    assert not any("clipped" in row.name for row in part.made())
    assert total_hours(recipe, Asked(Setting(), rows=("PCGrad clipped",))) > 0
    assert not any("clipped" in row.name for row in find_recipe("thesis-table3.5").rows())
    for name in ("ldc-table1-celeba", "ldc-table6"):
        assert "As in the released code" in "\n".join(planned(find_recipe(name), Asked(Setting())))


def test_the_total_counts_runs() -> None:
    recipe = find_recipe("ldc-table9")
    part = recipe.parts[0]
    asked = Asked(Setting(), seeds=(0, 1), rows=("LS 0.1:0.9", "LS 0.2:0.8"), epochs=20)
    assert total_hours(recipe, asked) == pytest.approx(4 * part.hours(part.rows[0], 20))
    alone = Asked(Setting(), seeds=(0, 1), rows=("LS 0.1:0.9", "LS 0.2:0.8"), epochs=20, baselines=True)
    assert total_hours(recipe, alone) > total_hours(recipe, asked)


def test_a_plan_says_whether_the_data_can_be_read(tmp_path: Path) -> None:
    recipe = find_recipe("cost-table7")
    part = recipe.parts[0]
    good = part.write_sample(tmp_path / "good")
    assert f"data: {good} can be read" in "\n".join(planned(recipe, Asked(Setting(data=good))))
    (tmp_path / "empty").mkdir()
    assert "Cityscapes needs a folder" in "\n".join(planned(recipe, Asked(Setting(data=tmp_path / "empty"))))
    assert "is not a folder" in "\n".join(planned(recipe, Asked(Setting(data=tmp_path / "none"))))


def test_rows_that_need_what_is_not_there_are_listed() -> None:
    class Lacking(RunsPart):
        rows = (RecipeRow("one", missing="there is no such network"), RecipeRow("two"))
        table = "thesis-table3.2"

        def run(self, *_):  # type: ignore[no-untyped-def]
            raise NotImplementedError

        identity = write_sample = run

    part = Lacking()
    assert [row.name for row in part.made()] == ["two"]
    recipe = Recipe("r", "source", "title", "data", (part,), missing=("a reader",))
    assert recipe.obstacles() == ("a reader", "one: there is no such network")


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match='no recipe "cost-tabel1"'):
        find_recipe("cost-tabel1")
    assert main(["reproduce", "cost-table1", "--rows", "Costs", "--dry-run"]) == 2
    assert 'has no row "Costs" to make. It has: LS, RLW' in capsys.readouterr().err
    assert main(["reproduce", "cost-table1", "--device", "cpu"]) == 2
    assert "give its folder with --data" in capsys.readouterr().err
