import json
import shutil

import pytest
import torch

import equipoise as eq
from equipoise.errors import EquipoiseError, InputError
from equipoise.study import Results, Study, find_problem
from equipoise.sweep import Outcome, Sweep
from equipoise.sweep.report import content, verdicts
from equipoise.sweep.trials import load_trials

pytestmark = pytest.mark.usefixtures("one_template")


def crawling():
    """A method that hardly moves, and so stays far from the front."""
    return eq.LS([0.01, 0.01])


@pytest.fixture(scope="module")
def done(tmp_path_factory, templates, tug, quiet):
    """A finished sweep of the weights; tests only read it."""
    folder = tmp_path_factory.mktemp("sweep") / "study"
    compare = ["ls", ("crawling", crawling)]
    # What a study has done already is shared.
    with templates.used():
        Study(tug, compare[1:], 2, folder=folder, jobs=2, console=quiet).run()
    times = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert len(times) == 6
    sweep = Sweep(tug, "ls", budget=8, compare=compare, seeds=2, confirm=3, jobs=2, folder=folder, console=quiet)
    with templates.used():
        outcome = sweep.run()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    sweep.report()
    return sweep, outcome


def test_trials_reach_the_known_front(done, tug):
    """Fixed weights end at p = ((w₁ − w₂)/(w₁ + w₂), 0), where both metrics add up to 2.2."""
    _, outcome = done
    assert [trial.state for trial in outcome.trials] == ["complete"] * 8
    assert outcome.trials[0].label == "ls"  # the method as it is comes first
    for trial in outcome.trials:
        assert trial.test["near"] + trial.test["far"] == pytest.approx(2.2, abs=1e-3)
        if trial.label != "ls":
            near, far = json.loads(trial.label.partition("=")[2])
            assert near + far == pytest.approx(2, abs=2e-3)
            assert trial.test["near"] == pytest.approx(1.1 - (near - far) / 2, abs=2e-3)


def test_objectives_are_those_of_the_validation_split(done):
    sweep, outcome = done
    baseline = outcome.settings["baseline"]
    record = json.loads(next((sweep.folder.trials / "runs").glob("ls-seed1000.json")).read_text())
    drops = [(record["final"]["validation"][name] - baseline[name]) / baseline[name] * 100 for name in ("near", "far")]
    assert outcome.trials[0].values == (pytest.approx(sum(drops) / 2),)


def test_confirmed_trials_are_trained_on_the_seeds_of_the_methods(done):
    sweep, outcome = done
    assert len(outcome.confirmed) + len(outcome.also_trials()) == 3
    for label in (*outcome.confirmed, *outcome.methods):
        assert list(outcome.results.records(label)) == [0, 1]
    assert {record["run"]["seed"] for record in sweep.study.records()} == {0, 1}
    # The study's own report holds them all.
    assert set(Results(sweep.study).methods) == {*outcome.confirmed, "ls", "crawling"}


def test_verdicts_and_hypervolume(done):
    _, outcome = done
    judged = verdicts(outcome, outcome.front)
    assert judged["crawling"].dominated
    assert not judged["ls"].mean  # on the front itself
    sweep = (*outcome.confirmed, *outcome.also_trials())
    assert outcome.volume((*sweep, "crawling")) == outcome.volume(sweep) > outcome.volume(["crawling"])
    said = content(outcome)
    assert any("Dominated: crawling" in sentence for sentence in said.lead)
    assert any("Not dominated: ls" in sentence for sentence in said.lead)
    methods = {row[0]: row for row in said.tables[0].rows}
    assert methods["crawling"][-1] == "0.000"


def test_the_report_is_written(done):
    sweep, _ = done
    text = (sweep.folder.path / "report.md").read_text()
    html = (sweep.folder.path / "report.html").read_text()
    for words in ("Pareto front", "reference point", "crawling", "seed 1000", "tuned with 8 trials"):
        assert words in text
        assert words in html
    assert (sweep.folder.path / "pictures" / "front.png").read_bytes()[:4] == b"\x89PNG"
    assert "data:image/png" in html
    assert ".lead {" in html


def test_started_again_it_does_only_what_is_missing(done, tug, quiet, tmp_path):
    sweep, _ = done
    folder = shutil.copytree(sweep.study.path, tmp_path / "study")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*seed*.json")}
    arguments = {"compare": ["ls", ("crawling", crawling)], "jobs": 2, "folder": folder, "console": quiet}
    same = Sweep(tug, "ls", budget=8, seeds=2, confirm=3, **arguments).run()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*seed*.json")} == times
    # More trials, and one seed more: the trials that are there keep their values.
    more = Sweep(tug, "ls", budget=10, seeds=3, confirm=3, **arguments).run()
    assert [trial.values for trial in more.trials[:8]] == [trial.values for trial in same.trials]
    assert len(more.trials) == 10
    assert set(same.confirmed) <= set(more.confirmed) | set(more.also_trials())
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for label in more.confirmed:
        assert list(more.results.records(label)) == [0, 1, 2]
    with pytest.raises(InputError, match=r"holds a sweep of another configuration .*seed 1000 there, 7 now"):
        Sweep(tug, "ls", budget=8, seed=7, seeds=2, **arguments).run()
    with pytest.raises(InputError, match="a sweep of another"):
        Sweep(tug, "ls", sweep="weights=dirichlet", seeds=2, **arguments).run()
    with pytest.raises(InputError, match="epochs 2 there, 3 now"):
        Sweep(tug, "ls", epochs=3, seeds=2, **arguments).run()


def test_several_objectives(tug, quiet, tmp_path):
    outcome = Sweep(
        tug, "ls", budget=7, objectives="near error,far", seeds=1, confirm=4, jobs=2, epochs=1, folder=tmp_path, console=quiet
    ).run()
    assert [metric.name for metric in outcome.front] == ["near", "far"]
    assert all(len(trial.values) == 2 for trial in outcome.trials)
    assert len({trial.label for trial in outcome.trials}) >= 6
    assert len((*outcome.confirmed, *outcome.also_trials())) == 4
    # Both ends of the validation front are among what is confirmed.
    for place in (0, 1):
        best = min(outcome.trials, key=lambda trial: trial.values[place])
        assert best.label in (*outcome.confirmed, *outcome.also_trials())


def make_scaled(scale):
    return eq.LS([scale, scale])


def test_pruned_trials_end_early(tug_path, quiet, tmp_path):
    problem = find_problem(f"{tug_path}:slow")
    sweep = Sweep(
        problem,
        ("scaled", make_scaled),
        sweep={"scale": (1e-4, 1.0, "log")},
        budget=10,
        sampler="random",
        pruner="median",
        seeds=1,
        confirm=1,
        epochs=4,
        jobs=2,
        folder=tmp_path,
        console=quiet,
    )
    outcome = sweep.run()
    states = [trial.state for trial in outcome.trials]
    assert set(states) == {"complete", "pruned"}
    pruned = [trial for trial in load_trials(sweep.folder) if trial.state.name == "PRUNED"]
    for trial in pruned:
        assert 1 <= len(trial.intermediate_values) < 4
        assert not list((sweep.folder.trials / "runs").glob(f"*{trial.user_attrs['label'].partition('=')[2]}-*"))
    # What was reported is Δm of the validation split: that of a complete trial's last epoch is its value.
    whole = next(trial for trial in load_trials(sweep.folder) if trial.state.name == "COMPLETE")
    assert whole.intermediate_values[4] == pytest.approx(whole.value)
    assert not list((sweep.folder.trials / "failed").glob("*"))
    # The pruned ones are those that crawl.
    complete = [trial.parameters["scale"] for trial in outcome.trials if trial.state == "complete"]
    assert max(complete) > max(trial.params["scale"] for trial in pruned)


def test_trials_that_fail_are_told_and_the_others_go_on(tug, quiet, tmp_path):
    def make(scale):
        class Broken(eq.balance.LossBalancer):
            def weights(self, losses):
                if scale.lower() == "bad":
                    raise RuntimeError("no such scale")
                return torch.ones_like(losses)

        return Broken()

    method = ("mine", make)
    sweep = Sweep(
        tug, method, sweep={"scale": ["good", "bad", "fine"]}, budget=9, seeds=1, jobs=2, folder=tmp_path, console=quiet
    )
    outcome = sweep.run()
    failed = [trial for trial in outcome.trials if trial.state == "failed"]
    assert failed
    assert {trial.label for trial in failed} == {"mine:scale=bad"}
    assert "RuntimeError: no such scale" in next((sweep.folder.trials / "failed").iterdir()).read_text()
    assert load_trials(sweep.folder)[failed[0].number].user_attrs["why"] == "RuntimeError: no such scale"
    # Equal parameters share one run.
    assert len(list((sweep.folder.trials / "runs").iterdir())) <= 2
    with pytest.raises(EquipoiseError, match="no trial of the sweep succeeded"):
        Sweep(tug, method, sweep={"scale": ["bad", "Bad"]}, name="b", budget=1, seeds=1, folder=tmp_path, console=quiet).run()


def test_a_problem_without_validation_split_is_refused(tug_path, quiet, tmp_path):
    with pytest.raises(InputError, match="has no validation split"):
        Sweep(find_problem(f"{tug_path}:without_validation"), "ls", budget=2, seeds=1, folder=tmp_path, console=quiet).run()
    assert not list((tmp_path / "runs").glob("*"))  # before anything is trained


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": 0}, "budget is 0; it must be a whole number, at least 1"),
        ({"budget": 2.5}, "budget is 2.5"),
        ({"confirm": 0}, "confirm is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"seed": 1}, "seed 1 of the search is among the seeds 0, 1, 2"),
        ({"objectives": "neer"}, 'no metric "neer". Did you mean "near"'),
        ({"front": "near"}, "give two different ones"),
        ({"front": "near,near error"}, "give two different ones"),
        ({"sampler": "tpee"}, 'no sampler "tpee". Did you mean "tpe"?'),
        ({"pruner": "medain"}, 'no pruner "medain". Did you mean "median"?'),
        ({"pruner": "median", "objectives": "near,far"}, "Optuna cannot prune trials that have several"),
        ({"compare": "fairgard"}, 'no method "fairgard". Did you mean "fairgrad"'),
        ({"name": "../other"}, "not a path"),
        ({"method": "ls", "sweep": "wieghts=0.1:1:log"}, 'Did you mean "weights"?'),
    ],
)
def test_bad_input_is_refused_in_one_line(tug, tmp_path, quiet, arguments, said):
    with pytest.raises(InputError) as raised:
        Sweep(tug, **({"folder": tmp_path, "console": quiet} | arguments))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_not_the_folder_of_a_sweep(tmp_path):
    with pytest.raises(InputError, match="is not the folder of a sweep"):
        Outcome(tmp_path)
