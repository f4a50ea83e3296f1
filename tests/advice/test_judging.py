"""What an advice concludes from numbers, and who may take part in a race."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.advice.advice import Advice, Entrant, judged
from equipoise.advice.candidates import PLAIN, WEIGHTS, candidates
from equipoise.advice.race import _Scaled
from equipoise.metrics import Metric
from equipoise.study import find_problem
from tests.study.conftest import TINY

METRICS = [Metric("error", "a", higher_is_better=False), Metric("right", "b", higher_is_better=True, unit="%")]
SEEDS = range(4)


def entrant(name, level, noise=0.5, *, epochs=10, price=1.0, rate=1.0, metrics=(1.0, 50.0)):
    """Changes around a level, different on every seed."""
    changes = {seed: level + noise * (-1) ** seed * (1 + 0.1 * seed) for seed in SEEDS}
    return Entrant(name, name, name, rate, epochs, price, changes, changes, dict(zip(("error", "right"), metrics, strict=True)))


def advice(*entrants, **changes):
    rungs = [
        [
            {"candidate": one.candidate, "method": one.label, "rate": rate, "change": 0.0}
            for one in entrants
            for rate in (0.3, 1, 3)
        ]
    ]
    given = {"problem": "made-up", "metrics": METRICS, "seeds": SEEDS, "epochs": 10, "lr": 0.01, "rungs": rungs, "left_out": {}}
    return judged(entrants=entrants, **given | changes)


def test_a_method_that_is_told_apart_is_recommended() -> None:
    found = advice(
        entrant(PLAIN, 0.0),
        entrant("famo", -20.0, 2.0, metrics=(1.2, 60.0)),
        entrant("uw", -8.0, 1.0),
        left_out={"si": "it is"},
    )
    assert found.recommended.label == "famo"
    assert found.entrants[found.runner_up].label == "uw"
    assert found.confidence(found.plain) > 0.99
    said = " ".join(found.sentences())
    assert "Use famo with lr 0.01" in said
    assert "loses on error (1.2 in place of 1)" in said
    assert "Left out: si, because it is." in said


def test_nothing_told_apart_keeps_plain_training() -> None:
    found = advice(entrant(PLAIN, 0.0), entrant("famo", -2.0, 9.0), entrant("uw", 4.0, 1.0))
    assert found.keeps_plain
    assert found.recommended.epochs == 10
    assert "Keep plain training" in found.sentences()[0]
    assert "not told apart" in found.sentences()[1] or "Nothing is told apart" in found.sentences()[1]


def test_a_method_that_is_worse_is_not_recommended_however_sure() -> None:
    assert advice(entrant(PLAIN, 0.0), entrant("famo", 30.0, 0.1)).keeps_plain


def test_plain_training_for_the_same_time_is_kept_where_it_does_as_well() -> None:
    expensive = entrant("fairgrad", -20.0, 1.0, price=3.0)
    longer = advice(entrant(PLAIN, 0.0), expensive, entrant(PLAIN, -21.0, 1.0, epochs=30))
    assert longer.keeps_plain
    assert "for 30 epochs in place of 10" in longer.sentences()[0]
    behind = advice(entrant(PLAIN, 0.0), expensive, entrant(PLAIN, -12.0, 1.0, epochs=30))
    assert behind.recommended.label == "fairgrad"
    assert any("Plain training for the time of the best method (30 epochs)" in said for said in behind.sentences())


def test_the_choice_is_by_validation_and_the_numbers_by_test() -> None:
    lucky = dataclasses.replace(entrant("famo", -20.0, 1.0), validation=dict.fromkeys(SEEDS, -5.0))
    found = advice(entrant(PLAIN, 0.0), lucky, entrant("uw", -10.0, 1.0))
    assert found.recommended.label == "uw"


def test_the_edge_of_the_learning_rates_is_said() -> None:
    found = advice(entrant(PLAIN, 0.0), entrant("famo", -20.0, rate=3.0))
    assert "lr 0.03" in found.sentences()[0]
    assert "at the edge" in found.sentences()[-1]


def test_what_failed_is_no_number_and_comes_last(tmp_path) -> None:
    broken = dataclasses.replace(
        entrant("uw", 0.0), test=dict.fromkeys(SEEDS, math.nan), validation=dict.fromkeys(SEEDS, math.nan)
    )
    found = advice(entrant(PLAIN, 0.0), broken, entrant("famo", -20.0))
    assert [one.label for one in found.entrants] == ["famo", PLAIN, "uw"]
    from equipoise.store import write_json

    write_json(tmp_path / "advice.json", found.as_json())
    again = Advice.read(tmp_path / "advice.json")
    assert again.sentences() == found.sentences()
    assert again.as_json() == found.as_json()
    (tmp_path / "advice.json").write_text("{}")
    with pytest.raises(eq.InputError, match="no advice"):
        Advice.read(tmp_path / "advice.json")


@pytest.fixture(scope="module")
def tiny():
    return find_problem(f"{TINY}:problem")


@pytest.fixture(scope="module")
def diagnosed(tiny):
    return eq.diagnosis.diagnose_problem(tiny, steps=10, looks=2, timed=False)


def test_weights_level_what_was_measured(tiny, diagnosed) -> None:
    (plain, weights, *others), left_out = candidates(tiny, diagnosed)
    assert plain.name == PLAIN
    assert not left_out
    assert len(others) == 7
    by_losses = weights.variants[0].make(0).weights(torch.ones(2))
    first = torch.tensor([diagnosed.losses[task]["first"] for task in tiny.tasks])
    torch.testing.assert_close(by_losses * first, (by_losses * first).mean().expand(2), rtol=1e-3, atol=0)
    assert float(by_losses.sum()) == pytest.approx(2, rel=1e-3)
    assert [method.label for method in weights.variants] == [
        f"{WEIGHTS} by {what}" for what in ("first losses", "last losses", "gradients")
    ]


def test_methods_that_need_positive_losses_are_left_out_and_said(tiny, diagnosed) -> None:
    losses = {task: {**own, "not_positive": 3 * (task == "far")} for task, own in diagnosed.losses.items()}
    taking_part, left_out = candidates(tiny, dataclasses.replace(diagnosed, losses=losses), "famo,fairgrad,rotograd")
    assert [own.name for own in taking_part] == [PLAIN, WEIGHTS, "fairgrad"]
    assert '"far" is not always' in left_out["famo"]
    assert "parts of the model" in left_out["rotograd"]
    with pytest.raises(eq.InputError, match="no method is left"):
        candidates(tiny, dataclasses.replace(diagnosed, losses=losses), "famo,uw")


def test_a_good_and_cheap_proxy_takes_the_place_of_the_exact_gramian(tiny, diagnosed) -> None:
    def timed(exact):
        costs = [{"kind": kind, "ratio": ratio} for kind, ratio in (("exact Gramian", exact), ("proxy Gramian", 1.5))]
        good = [
            {"source": source, "method": "fairgrad", "cosine": cosine}
            for source, cosine in (("features", 0.5), ("last 2", 0.95))
        ]
        return dataclasses.replace(diagnosed, costs=costs, proxies=good)

    far, near = ([own.name for own in candidates(tiny, timed(exact))[0]] for exact in (20.0, 2.5))
    assert "fairgrad@last(layers=2)" in far
    assert "fairgrad" in near


def test_learning_rates_are_multiplied_before_schedules_see_them(tiny) -> None:
    def build(seed):
        model = nn.Linear(2, 2)
        groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias]}]
        return model, None, torch.optim.SGD(groups, lr=0.01)

    assert [group["lr"] for group in _Scaled(build, tiny.optimizer, 3.0)(0)[2].param_groups] == pytest.approx([0.3, 0.03])
    assert _Scaled(tiny.build, tiny.optimizer, 0.5)(0)[2].param_groups[0]["lr"] == pytest.approx(5e-4)
