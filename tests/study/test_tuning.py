"""Learning rates and fixed weights are chosen on the validation split, with a seed that judges nothing, and once."""

import io
import json
import math
from types import SimpleNamespace

import pytest
from rich.console import Console
from tests.study.problems import tiny as problems

from equipoise.errors import InputError
from equipoise.study import BestEpoch, Results, Splits, Study
from equipoise.study.folder import Folder
from equipoise.study.plan import Run
from equipoise.study.report.content import content
from equipoise.study.tuning import TUNING_SEED, Tuning, parse_rates, trial_weights


def study(folder, quiet, problem=None, methods="ls", seeds=1, **options):
    options = {"epochs": 1, "jobs": 2, "gramian_every": 0, "console": quiet} | options
    return Study(problem or problems.tiny(), methods, seeds, folder=folder, **options)


@pytest.mark.usefixtures("one_template")
def test_every_method_and_every_task_gets_the_rate_that_is_best_on_validation(tmp_path, quiet):
    asked = study(tmp_path, quiet, lr="1e-1, 1e-4", tuned_weights=4)
    assert len(asked.missing()) == 4  # of the runs that judge; what they are like is open
    results = asked.run()
    assert not results.failures
    chosen = json.loads((tmp_path / "study.json").read_text())["tuned"]
    # After three steps of Adam a thousand times longer steps have come further, whatever is trained.
    assert chosen["lr"] == {"stl:near": 0.1, "stl:far": 0.1, "ls": 0.1, "tuned-weights": 0.1}
    runs = {record["run"]["method"]: record["run"] for record in map(json.loads, map_read(tmp_path / "runs"))}
    assert {label: run["lr"] for label, run in runs.items()} == chosen["lr"]
    assert runs["tuned-weights"]["options"]["weights"] == pytest.approx(chosen["weights"])
    tried = [json.loads(text) for text in map_read(tmp_path / "tuning" / "runs")]
    assert {record["run"]["seed"] for record in tried} == {TUNING_SEED}
    assert len(tried) == asked.tuning.cost(1) == 2 * 3 + 4
    # The choice is the least Δm on the validation split among the trials, and the test split had no part in it.
    trials = [record for record in tried if "weights=" in record["run"]["method"]]
    assert len(trials) == 4
    best = min(
        trials,
        key=lambda record: sum(record["final"]["validation"][name] / chosen["baseline"][name] for name in chosen["baseline"]),
    )
    assert best["run"]["options"]["weights"] == pytest.approx(chosen["weights"])
    assert study(tmp_path, quiet, lr="1e-4,1e-1", tuned_weights=4).missing() == ()
    said = content(results)
    assert "lr" in said.columns
    assert "4 trials" in said.facts["tuned weights"]
    assert said.tuning is not None
    assert {row[0] for row in said.tuning.rows} == {"ls"}
    with pytest.raises(InputError, match=r"lr \[0.0001, 0.1\] there, \[\] now"):
        study(tmp_path, quiet).run()
    with pytest.raises(InputError, match="were chosen from 4 trials, and now 5"):
        study(tmp_path, quiet, lr="1e-4,1e-1", tuned_weights=5).run()


def map_read(folder):
    return [path.read_text() for path in sorted(folder.glob("*.json"))]


def test_the_rate_of_a_run_is_that_of_its_optimizer():
    import torch

    from equipoise.study.training import train

    problem = problems.tiny()
    slow, own, fast = (train(problem, Run(0, task="near", lr=lr), epochs=1, gramian_every=0) for lr in (1e-9, None, 1e-3))
    assert fast["final"] == own["final"]  # Adam at 1e-3 is the problem's own
    assert slow["final"] != own["final"]
    assert "lr" not in own["run"]

    def two(model):
        first, *others = model.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 0.2}, {"params": others, "lr": 0.1}])

    rates = []
    watched = problems.tiny(optimizer=two, schedule=lambda optimizer: rates.extend(g["lr"] for g in optimizer.param_groups))
    train(watched, Run(0, task="near", lr=0.02), epochs=1, gramian_every=0)
    assert rates == pytest.approx([0.02, 0.01])


@pytest.mark.usefixtures("one_template")
def test_without_a_validation_split_nothing_is_chosen(tmp_path, quiet):
    def data(seed):
        train, _, test = problems.data(seed)
        return Splits(train, None, test)

    problem = problems.tiny(data=data)
    by_default = study(tmp_path, quiet, problem, tuned_weights=None)
    assert by_default.run().methods == ("ls",)
    for number, options in enumerate(({"tuned_weights": 3}, {"lr": "1e-3,1e-2"})):
        with pytest.raises(InputError, match="has no validation split"):
            study(tmp_path / str(number), quiet, problem, **options).run()
        assert not list(tmp_path.glob(f"{number}/**/runs/*"))  # before anything is trained


@pytest.mark.usefixtures("one_template")
def test_methods_that_are_one_are_said_before_runs_that_choose(tmp_path):
    problem = problems.tiny(reported=BestEpoch("test"), score=sum)
    shown = Console(record=True, width=200, file=io.StringIO())
    with pytest.raises(InputError, match="reports the epoch that is best on the test split"):
        study(tmp_path, shown, problem, "fairgrad,nash-mtl", lr="1e-3,1e-2").run()
    assert "fairgrad with alpha=1.0 is nash-mtl" in shown.export_text()
    assert not list(tmp_path.glob("**/runs/*"))


def test_weights_are_tried_around_those_that_make_the_losses_equal():
    scales = [1.0, 100.0, 1.0]
    trials = [trial_weights(number, scales) for number in range(20)]
    assert trials[0] == [1.0] * 3
    assert trials[1] == pytest.approx([3 / 2.01, 3 / 201, 3 / 2.01], rel=1e-3)
    assert all(sum(weights) == pytest.approx(3, rel=1e-3) for weights in trials)
    assert len({tuple(weights) for weights in trials}) == 20
    assert trials[7] == trial_weights(7, scales)
    for weights in trials[1:]:
        shares = [weight * scale for weight, scale in zip(weights, scales, strict=True)]
        assert max(shares) / min(shares) <= 101


@pytest.mark.parametrize("given", ["", "a", "0", "1e-3,-1", "inf", [], True])
def test_rates_that_cannot_be(given):
    with pytest.raises(InputError, match="give positive learning rates"):
        parse_rates(given)


def test_what_cannot_be_asked_for(tmp_path, quiet):
    with pytest.raises(InputError, match="without baselines there is no Δm"):
        study(tmp_path, quiet, tuned_weights=3, baselines=False)
    with pytest.raises(InputError, match="seed 1000 is that of the runs that choose"):
        study(tmp_path, quiet, tuned_weights=3, seeds="1000,")
    with pytest.raises(InputError, match="nothing to choose"):
        study(tmp_path, quiet, tuned_weights=1)


def test_folders_from_before_go_on(made_up, tiny, quiet):
    folder = made_up()
    known = json.loads((folder / "study.json").read_text())
    assert "lr" not in known
    assert Results(folder).configuration["lr"] == []


def validated(near, far=1.0):
    return {"final": {"validation": {"near error": near, "far error": far}}}


@pytest.fixture
def tried(tmp_path, quiet, monkeypatch):
    """A study of three rates whose runs that choose are made up: key of the run → record."""
    asked, records = study(tmp_path, quiet, lr="1e-4,1e-2,1e-1", tuned_weights=3), {}
    asked.folder.claim_for(asked.problem, asked.methods, asked.seeds, {"epochs": 1, "lr": asked.tuning.rates})
    monkeypatch.setattr(Tuning, "runs", SimpleNamespace(find=records.get, finished=lambda run, epochs: True))
    return asked, records


def test_a_rate_that_leaves_no_number_is_not_chosen_and_a_task_that_fails_at_all_is_tried_again(tried):
    asked, records = tried
    for rate, near in zip(asked.tuning.rates, (math.nan, 2.0, 1.0), strict=True):
        records[Run(TUNING_SEED, task="near", lr=rate).key] = validated(near)
    asked.tuning.choose_baselines(None)
    assert asked.tuning.chosen["lr"] == {"stl:near": 0.1}  # the first has no finite metric: the others are judged by the second
    assert [run.task for run in asked._tuned_only(asked.missing())] == ["near"]  # never at a rate that nobody chose
    records[Run(TUNING_SEED, task="far", lr=0.01).key] = validated(1.0)
    asked.tuning.choose_baselines(None)
    assert asked.tuning.chosen["lr"] == {"stl:near": 0.1, "stl:far": 0.01}


def test_weights_are_never_remembered_without_their_rate(tried, monkeypatch):
    asked, records = tried
    asked.folder.remember(tuned={"baseline": {"near error": 1.0, "far error": 1.0}, "lr": {"ls": 0.1}})
    for run in asked.tuning._trials():
        records[run.key] = validated(math.nan)
    records[Run(TUNING_SEED, method=asked.methods[0], lr=0.1).key] = validated(1.0)
    assert "none of the trials" in asked.tuning.choose(asked.methods, None)
    assert "weights" not in asked.tuning.chosen
    for place, run in enumerate(asked.tuning._trials()):
        records[run.key] = validated((3.0, 1.0, 2.0)[place])
    remember, seen = Folder.remember, []
    monkeypatch.setattr(Folder, "remember", lambda own, **found: (seen.append(found["tuned"]), remember(own, **found)))
    asked.tuning.choose(asked.methods, None)
    assert [own["lr"] for own in seen if "weights" in own] == [{"ls": 0.1, "tuned-weights": 0.01}]


def test_an_epoch_that_the_test_split_picked_chooses_nothing():
    problem = problems.tiny(reported=BestEpoch("test"), score=sum)
    with pytest.raises(InputError, match="reports the epoch that is best on the test split"):
        problem.validated({"near error": 1.0})
    assert math.isnan(problems.tiny().validated({"near error": None})["near error"])
