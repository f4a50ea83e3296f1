"""A race from its diagnosis to its advice, killed on the way and gone on with."""

from __future__ import annotations

import dataclasses
import math

import pytest
from rich.console import Console

import equipoise as eq
from equipoise.advice import Race
from equipoise.advice.candidates import PLAIN, Candidate
from equipoise.advice.race import Arm, _better
from equipoise.cli import main
from equipoise.study import Splits, Study, find_problem
from equipoise.study.methods import parse_method
from tests.study.conftest import TINY


def race(folder, **changes):
    given = {"methods": "famo", "seeds": 2, "epochs": 2, "rates": (1.0, 3.0), "jobs": 2, "steps": 10, "looks": 2}
    return Race(find_problem(f"{TINY}:problem"), folder=folder, console=Console(quiet=True), **given | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, templates):
    """A race that was stopped after its second rung, and went on; and how many runs it carried out the second time."""
    folder = tmp_path_factory.mktemp("advice") / "race"
    run, executed = Study.run, []

    def stopped(study):
        if study.folder.path.parent.name == "final":
            raise KeyboardInterrupt
        return run(study)

    def counted(study):
        executed.append(len(study.missing()))
        return run(study)

    with pytest.MonkeyPatch.context() as patch, templates.used():
        patch.setattr(Study, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            race(folder).run()
        assert not (folder / "advice.json").exists()
        patch.setattr(Study, "run", counted)
        return race(folder).run(), folder, executed


def test_it_goes_on_where_it_was_stopped(finished) -> None:
    advice, folder, executed = finished
    finalists = {one.candidate for one in advice.entrants}
    assert finalists == {"ls", "fixed weights", "famo"}
    assert len(advice.rungs[0]) == 2 * (1 + 3 + 1)
    assert len(advice.rungs[1]) == 3
    usual = [one for one in advice.entrants if one.epochs == 2]
    longer = [one for one in advice.entrants if one.epochs != 2]
    assert sum(executed) == 2 * len(usual) + 2 * len(longer)
    assert all(set(one.test) == {0, 1} for one in advice.entrants)
    # Plain training is what the others are measured against.
    assert sum(advice.plain.test.values()) == pytest.approx(0, abs=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "run", lambda study: pytest.fail("nothing is left to do"))
        assert race(folder).run().as_json() == advice.as_json()
        assert all(one.epochs == 2 for one in race(folder, longer=False).run().entrants)


def test_another_race_does_not_fit_into_its_folder(finished) -> None:
    with pytest.raises(eq.InputError, match="holds a race of another configuration"):
        race(finished[1], epochs=3).run()


def test_the_command_prints_it_and_writes_a_page(finished, capsys) -> None:
    advice, folder, _ = finished
    arguments = ["-m", "famo", "-s", "2", "-e", "2", "--rates", "1,3", "--steps", "10", "--looks", "2", "-o", str(folder)]
    assert main(["advise", f"{TINY}:problem", *arguments]) == 0
    printed = capsys.readouterr().out
    assert advice.sentences()[1] in printed
    assert "data:image/png" in (folder / "report.html").read_text()
    (folder / "report.md").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.md").exists()
    assert main(["advise", f"{TINY}:problem", "--rates", "1,x"]) == 2


def test_what_diverges_or_fails_on_a_seed_is_not_ranked(tmp_path, monkeypatch) -> None:
    asked = race(tmp_path, rates=(0.3, 1.0))
    low, own = (Arm(PLAIN, parse_method("ls"), rate) for rate in (0.3, 1.0))
    famo, uw = (Arm(name, parse_method(name), 1.0) for name in ("famo", "uw"))

    def run(value):
        return {"near error": value, "far error": value}

    broken = run(math.nan)
    values = {low: {1: run(2.0), 2: run(2.0)}, own: {1: broken, 2: broken}, famo: {1: run(1.0)}, uw: {1: run(1.0), 2: run(2.0)}}
    monkeypatch.setattr(asked, "_trained", lambda *given: {"validation": values})
    scores = asked._rung("1", list(values), (1, 2), 1)
    # Against plain training at a rate at which it did not diverge; half of a result is none.
    assert scores[low] == 0
    assert scores[uw] == -25
    assert math.isnan(scores[own])
    assert math.isnan(scores[famo])
    taking_part = [Candidate(name, ()) for name in (PLAIN, "famo", "uw")]
    assert _better(scores, taking_part, 2) == [low, uw]
    # Where nothing is left of anything, plain training is what everything would be compared with.
    assert _better({own: math.nan, famo: math.nan}, taking_part, 2) == [own]
    values.update({low: {}, own: {}})
    with pytest.raises(eq.EquipoiseError, match="plain training failed; look at"):
        asked._rung("1", list(values), (1, 2), 1)


def test_a_finalist_that_fails_on_a_seed_is_left_out_and_trained_once(tmp_path, monkeypatch) -> None:
    asked, started = race(tmp_path, longer=False), []
    monkeypatch.setattr(asked, "_prices", lambda arms: {arm.key: 1.0 for arm in arms})
    arms = [Arm(PLAIN, parse_method("ls"), 1.0), Arm("famo", parse_method("famo"), 1.0)]
    whole = {"near error": 1.0, "far error": 1.0}
    found = {arms[0]: {0: whole, 1: whole}, arms[1]: {0: whole}}
    monkeypatch.setattr(asked, "_trained", lambda *given: started.append(given[0]) or {"validation": found, "test": found})
    left_out: dict[str, str] = {}
    assert [one.candidate for one in asked._final(arms, left_out)] == [PLAIN]
    assert left_out == {"famo": "it failed on 1 of 2 seeds that judge"}
    assert started == ["final"]


def test_without_a_validation_split_nothing_is_begun(tmp_path) -> None:
    asked = race(tmp_path / "new")
    asked.problem = dataclasses.replace(asked.problem, data=lambda seed: Splits([], None, []))
    with pytest.raises(eq.InputError, match="has no validation split"):
        asked.run()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rates": (0.5, 2.0)}, "1 among them"),
        ({"rates": (1.0, 1.0)}, "different"),
        ({"seeds": "1000,3"}, "are among the seeds"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_cannot_be_raced_is_refused(tmp_path, changes, said) -> None:
    with pytest.raises(eq.InputError, match=said):
        race(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()
