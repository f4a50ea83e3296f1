"""What a mean over metrics hides is said: collapsed metrics, worst tasks, unfinished baselines, ranks, methods that are one."""

import json

import pytest
from rich.console import Console

from equipoise.study import Results, Study, parse_methods
from equipoise.study.methods import alike
from equipoise.study.report import print_results, write_report
from equipoise.study.report.content import content
from equipoise.study.report.findings import collapses, ranks, unconverged, worst_task


def change(folder, name, change):
    path = folder / "runs" / f"{name}.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def set_test(values):
    return lambda record: record["final"]["test"].update(values)


def test_a_collapsed_metric_is_named_before_any_mean(made_up, capsys):
    folder = made_up(methods=("ls", "si", "famo"))
    # Of "near" less is better: si gains so much there that its mean is the best of all, and gives up "far" (in %).
    for seed in range(3):
        change(folder, f"1-seed{seed}", set_test({"near": 4.0, "far": 7.8 if seed else 9.9}))
        change(folder, f"2-seed{seed}", set_test({"near": 20.5 if seed < 2 else None}))
    results = Results(folder)
    found = collapses(results)
    assert list(found) == ["famo", "si"]  # ls is worse than single-task training by a tenth, which is no collapse
    (lost,) = found["si"]
    assert (lost.metric.name, lost.seeds, lost.of) == ("far", 2, 3)
    assert [one.seeds for one in found["famo"]] == [3]
    said = content(results)
    assert "si collapsed: far 8.5 % where single-task training has 10.2 %, on 2 of 3 seeds." in said.findings
    assert "famo collapsed: near no finite number where single-task training has 10.2, on 3 of 3 seeds." in said.findings
    assert said.rows[1].name == "si"
    assert said.lead.startswith("The lowest mean Δm is that of si")
    assert "its worst task is far, 16." in said.lead
    markdown, page = write_report(results)
    for text in (markdown.read_text(), page.read_text()):
        assert text.index("si collapsed: far") < text.index("The lowest mean Δm")
    print_results(results, Console(width=200))
    printed = capsys.readouterr().out
    assert printed.index("si collapsed: far") < printed.index("reference")


def test_worst_task_is_a_mean_over_its_metrics_and_seeds(made_up):
    folder = made_up(methods=("ls", "si"), seeds=(0, 1))
    change(folder, "1-seed0", set_test({"near": 10.1, "far": 10.1 * 0.9}))
    change(folder, "1-seed1", set_test({"near": 10.1, "far": 10.1 * 0.7}))
    results = Results(folder)
    task, drop = worst_task(results, "si")
    assert task == "far"
    assert drop == pytest.approx(20.0)  # the baseline's mean is 10.1
    row = next(row for row in content(results).rows if row.name == "si")
    assert "+20.0 (far)" in {cell.text for cell in row.cells}


def test_single_task_training_that_still_improves_is_said(made_up):
    folder = made_up(epochs=10)
    assert unconverged(Results(folder)) == {}

    def improve(by):
        def changed(record):
            for epoch in record["history"]:
                epoch["validation"] = {"far": 10.0 * (1 + by * epoch["epoch"])}

        return changed

    for seed in range(3):
        change(folder, f"stl~far-seed{seed}", improve(0.05))
    # Means of the last two epochs and the two before: 1.475 and 1.375.
    assert unconverged(Results(folder)) == {"far": pytest.approx(100 * (1.475 / 1.375 - 1))}
    said = " ".join(content(Results(folder)).findings)
    assert "has not converged: it was still better at far (by 7 %) over the last 2 epochs than over the 2 before" in said
    change(folder, "stl~far-seed1", improve(-0.001))  # what does not hold for every seed may be chance
    assert unconverged(Results(folder)) == {}
    for seed in range(3):
        change(folder, f"stl~far-seed{seed}", improve(0.001))
    assert unconverged(Results(folder)) == {}


def test_methods_that_are_not_told_apart_share_ranks(made_up):
    names = ("ls", "si", "famo", "mgda")
    folder = made_up(methods=names, seeds=(0, 1, 2, 3))
    jitter = (0.0, 0.01, 0.02, 0.01)
    for place, level in enumerate((5.0, 5.001, 9.0, 9.5)):
        for seed, moved in enumerate(jitter):
            own = level + moved * (1 + place % 2) * (-1) ** seed
            change(folder, f"{place}-seed{seed}", set_test({"near": own, "far": 10.0}))
    placed = ranks(Results(folder))
    assert placed == {"ls": (1, 2), "si": (1, 2), "famo": (3, 3), "mgda": (4, 4)}
    rows = {row.name: [cell.text for cell in row.cells] for row in content(Results(folder)).rows}
    assert "1–2" in rows["ls"]
    assert "3" in rows["famo"]
    # One seed tells nothing apart.
    one = Results(made_up(methods=names, seeds=(0,)))
    assert set(ranks(one).values()) == {(1, 4)}


def described(text):
    return {method.label: {"name": method.name, "options": dict(method.options)} for method in parse_methods(text)}


@pytest.mark.parametrize(
    ("methods", "pairs"),
    [
        ("ls,fairgrad,nash-mtl", 1),
        ("fairgrad:max_norm=1,nash-mtl:max_norm=1", 1),
        ("cost+fairgrad,cost+nash-mtl", 1),
        ("fairgrad@last,nash-mtl@last", 1),
        ("ls,cagrad:c=0", 1),
        ("fairgrad:alpha=2,nash-mtl", 0),
        ("fairgrad:max_norm=1,nash-mtl", 0),
        ("fairgrad,nash-mtl:update_every=5", 0),
        ("cost+fairgrad,nash-mtl", 0),
        ("ls:weights=[1,2],cagrad:c=0", 0),
        ("ls,cagrad:c=0,max_norm=1", 0),
    ],
)
def test_methods_that_take_one_direction_are_said_before_anything_runs(methods, pairs):
    assert len(alike(described(methods))) == pairs


def test_what_the_registry_says_of_equal_directions_is_so():
    import torch

    from equipoise.balance.registry import balancer, methods

    gradients = torch.randn(4, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def direction(made):
        found = made.direction(gradients) if hasattr(made, "direction") else made.weights(gradients @ gradients.T) @ gradients
        return found / found.norm()

    facts = [(info.name, options, other) for info in methods() for options, other in info.same_as]
    assert {(name, other) for name, _, other in facts} >= {("fairgrad", "nash-mtl"), ("cagrad", "ls")}
    for name, options, other in facts:
        one = direction(balancer(name, **options))
        two = gradients.sum(0) / gradients.sum(0).norm() if other == "ls" else direction(balancer(other))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_study_says_so_and_without_baselines_it_has_no_delta_m(tiny, tmp_path, one_template):
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    study = Study(tiny, "fairgrad,nash-mtl", 1, epochs=1, folder=tmp_path, jobs=2, baselines=False, console=console)
    results = study.run()
    console.file.close()
    printed = console.export_text()
    assert "fairgrad with alpha=1.0 is nash-mtl" in printed
    assert printed.index("is nash-mtl") < printed.index("done")
    said = content(results)
    assert said.lead.startswith("There is no Δm")
    assert any("take the same direction" in finding for finding in said.findings)
    assert {cell.text for row in said.rows for cell in row.cells[2:4]} <= {"–", "0"}


def test_a_counter_never_says_that_more_is_done_than_there_is(capsys):
    from types import SimpleNamespace

    from equipoise.progress import progress

    runs = [SimpleNamespace(key=str(k)) for k in range(4)]
    with progress(2, 1, Console(width=80, force_terminal=False)) as shown:  # two, and those that another process left behind
        for run in runs:
            shown.started(run)
            shown.ended(run, "")
    counts = [line.partition("]")[0].strip("[ ").split("/") for line in capsys.readouterr().out.splitlines()]
    assert [int(done) for done, _ in counts] == [1, 2, 3, 4]
    assert all(int(done) <= int(wanted) for done, wanted in counts)
