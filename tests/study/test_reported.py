"""Which epochs are reported, scores, plateaus, and studies without single-task baselines."""

import dataclasses
import math

import pytest
import torch
from tests.study.test_training import run

from equipoise.errors import InputError
from equipoise.study import BestEpoch, LastEpochs, Results, Study, parse_methods
from equipoise.study.folder import Folder
from equipoise.study.plan import plan


def score(metrics):
    return sum(metrics.values())


def mean(record, split, epochs):
    entries = [entry[split] for entry in record["history"][-epochs:]]
    return {name: pytest.approx(sum(entry[name] for entry in entries) / len(entries)) for name in entries[0]}


def test_the_mean_over_the_last_epochs(tiny):
    averaged = run(dataclasses.replace(tiny, reported=LastEpochs(2)), "ls")
    for split in ("validation", "test"):
        assert averaged["final"][split] == mean(averaged, split, 2)
        assert averaged["final"][split] != averaged["history"][-1][split]
    assert averaged["history"][-1]["test"] == run(tiny, "ls")["final"]["test"]  # the training is the same
    few = run(dataclasses.replace(tiny, reported=LastEpochs(10)), "ls")
    assert few["final"]["test"] == mean(few, "test", 3)


def test_an_epoch_that_went_wrong_spoils_the_mean():
    history = [{"validation": None, "test": {"error": error}} for error in (1.0, math.nan)]
    assert math.isnan(LastEpochs(2).final(history)["test"]["error"])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_best_epoch(tiny, split):
    # The other way round, so that it is not the last epoch that is the best.
    record = run(dataclasses.replace(tiny, reported=BestEpoch(split), score=lambda metrics: -score(metrics)), "ls")
    scores = [score(entry[split]) for entry in record["history"]]
    best = record["history"][scores.index(max(scores))]
    assert best is not record["history"][-1]
    assert record["final"] == {"validation": best["validation"], "test": best["test"]}


def test_a_baseline_is_scored_by_its_own_metrics(tiny):
    seen = []

    def own(metrics):
        seen.append(set(metrics))
        return score(metrics)

    run(dataclasses.replace(tiny, reported=BestEpoch(), score=own), task="far")
    assert seen == [{"far error"}] * 3


def test_what_is_no_number_is_not_the_best():
    history = [{"validation": {"error": error}, "test": {"error": error}} for error in (math.nan, 2.0, 1.0, math.nan)]
    assert BestEpoch().final(history, score)["test"] == {"error": 1.0}


def test_a_plateau_lowers_the_learning_rate(tiny):
    schedulers = []

    def schedule(optimizer):
        schedulers.append(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0))
        return schedulers[-1]

    told = iter([3.0, 2.0, 2.0, 2.0])
    run(dataclasses.replace(tiny, schedule=schedule, score=lambda metrics: next(told)), "ls", epochs=4)
    before = tiny.optimizer(torch.nn.Linear(1, 1)).param_groups[0]["lr"]
    assert schedulers[0].optimizer.param_groups[0]["lr"] == pytest.approx(before / 4)
    with pytest.raises(InputError, match="waits for a plateau of the validation split, and the problem has no score"):
        run(dataclasses.replace(tiny, schedule=schedule), "ls")


def test_bad_input(tiny):
    with pytest.raises(InputError, match="at least one epoch"):
        LastEpochs(0)
    with pytest.raises(InputError, match='"validation" or "test"'):
        BestEpoch("train")
    with pytest.raises(InputError, match="the problem has no score"):
        run(dataclasses.replace(tiny, reported=BestEpoch()), "ls")
    with pytest.raises(InputError, match="there is no such split"):
        BestEpoch().final([{"validation": None, "test": {}}], score)


def test_a_folder_remembers_what_is_reported(tiny, tmp_path):
    """And folders of problems that report the last epoch look as they always did."""
    assert "reported" not in tiny.identity()
    folder = Folder(tmp_path / "study")
    averaged = dataclasses.replace(tiny, reported=LastEpochs(2))
    folder.claim_for(averaged, parse_methods("ls"), [0], {"epochs": 2})
    assert Results(folder).reported == "mean over the last 2 epochs"
    with pytest.raises(InputError, match="another configuration"):
        folder.claim_for(tiny, parse_methods("ls"), [0], {"epochs": 2})


def test_a_study_without_baselines_misses_none(tiny, tmp_path):
    study = Study(tiny, "ls,si", 1, folder=tmp_path, baselines=False)
    assert [str(missing) for missing in study.missing()] == ["ls seed 0", "si seed 0"]
    assert {missing.task for missing in Study(tiny, "ls,si", 1, folder=tmp_path).missing()} == {*tiny.tasks, None}


def test_plan_without_baselines():
    assert plan(["a", "b"], [], [0, 1], baselines=False) == ()
