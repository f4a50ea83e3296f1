"""Methods that learn task weights on validation data, in studies and sweeps."""

import dataclasses
import json
from pathlib import Path

import cloudpickle
import pytest
import torch
from tests.study.timeless import timeless

from equipoise.bilevel.weighting import TaskWeighting, weightings
from equipoise.cli import main
from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError
from equipoise.study import parse_method, parse_methods
from equipoise.study.plan import Run
from equipoise.study.task_weights import TaskWeights
from equipoise.study.training import train
from equipoise.sweep.space import Space
from equipoise.teleport import COST

NAMES = [info.name for info in weightings()]


@pytest.fixture(autouse=True)
def _generators_as_before():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def run(problem, method, **options):
    return train(problem, Run(0, method=parse_method(method)), epochs=2, gramian_every=2, **options)


def test_text_with_options():
    method = parse_method("Forum:rho=0.3,lower_steps=5,holdout=none")
    assert (method.label, method.name) == ("forum:holdout=None,rho=0.3", "forum")
    assert method.make(3) == TaskWeights("forum", holdout=None, options={"rho": 0.3, "lower_steps": 5})
    assert method.options["averaging"] == 0.75
    assert cloudpickle.loads(cloudpickle.dumps(method)).make(3) == method.make(3)
    assert [own.label for own in parse_methods("ls,MoCo_bilevel:gamma=1.0,moco")] == ["ls", "moco-bilevel:gamma=1.0", "moco"]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("forun", UnknownMethodError, 'no method "forun".* Did you mean "forum"'),
        ("forum:roh=1", UnknownOptionError, 'no option "roh".* Did you mean "rho"'),
        ("forum:rho=-1", InputError, "rho must be finite"),
        ("forum:holdout=1.5", InputError, "holdout must lie between 0 and 1"),
        ("moml:lr=-1", InputError, "lr must be finite and at least 0"),
        ("cost+forum", InputError, 'COST cannot go on top of "forum"'),
    ],
)
def test_bad_texts(text, error, said):
    with pytest.raises(error, match=said):
        parse_method(text)


def test_a_teleport_of_ones_own_is_refused_too():
    with pytest.raises(InputError, match='COST cannot go on top of "mine"'):
        parse_methods([("mine", "moml", COST())])


@pytest.mark.parametrize("method", NAMES)
def test_record(tiny, method):
    record = run(tiny, method)
    assert record["run"]["name"] == method
    assert record["run"]["options"]["holdout"] == 0.2
    for epoch in record["history"]:
        assert epoch["steps"] == 3  # 38 of the 48 rows, 16 a batch
        # Auto-λ's two begin at 0.1 each.
        assert sum(epoch["weights"].values()) == pytest.approx(1.0 if method != "auto-lambda" else 0.2, rel=0.05)
        assert epoch["conflicts"]["steps"] in (1, 2)  # the probes
    assert run(tiny, method) is not record
    assert timeless(run(tiny, method)) == timeless(record)


def test_the_weights_see_nothing_of_the_other_splits(tiny, monkeypatch):
    seen = []
    step = TaskWeighting.step

    def watched(self, batch, validation_batch=None):
        seen.append((self.validation.loader, batch))
        return step(self, batch, validation_batch)

    monkeypatch.setattr(TaskWeighting, "step", watched)
    run(tiny, "forum:holdout=0.5")
    everything = tiny.data(0).train.tensors["x"]
    kept = torch.cat([batch["x"] for _, batch in seen[:2]])
    aside = seen[0][0].tensors["x"]
    rows = {tuple(row) for row in torch.cat([kept, aside]).tolist()}
    assert len(kept) == len(aside) == 24
    assert rows == {tuple(row) for row in everything.tolist()}


def test_halves_of_batches(tiny):
    record = run(tiny, "forum:holdout=none")
    assert record["history"][0]["steps"] == 3
    assert timeless(record)["final"] != timeless(run(tiny, "forum"))["final"]


def test_clipping_and_a_scaler_reach_it(tiny):
    crawling = dataclasses.replace(
        tiny,
        stepping=lambda model: {"clip": 1e-9, "features": model[0]},
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    for method in ("forum", "moml"):
        history = run(crawling, method)["history"]
        assert history[0]["test"]["near error"] == pytest.approx(history[-1]["test"]["near error"], rel=1e-5)
    scaled = dataclasses.replace(tiny, stepping=lambda model: {"scaler": torch.amp.GradScaler("cpu")})
    found, expected = (run(problem, "forum")["final"]["test"] for problem in (scaled, tiny))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("one_template")
def test_a_study_on_the_command_line(capsys, tmp_path):
    problem = f"{Path(__file__).parent / 'problems' / 'tiny.py'}:problem"
    arguments = ["study", problem, "--methods", "forum:rho=0.2,moml", "--seeds", "1", "--epochs", "1", "--jobs", "2"]
    assert main([*arguments, "--folder", str(tmp_path / "study")]) == 0
    assert "forum:rho=0.2" in capsys.readouterr().out
    known = json.loads((tmp_path / "study" / "study.json").read_text())["methods"]
    assert known["forum:rho=0.2"]["options"]["lower_steps"] == 5
    assert (tmp_path / "study" / "pictures" / "weights.png").exists()
    assert "nothing to do" in (main([*arguments, "--folder", str(tmp_path / "study")]), capsys.readouterr().err)[1]


def test_methods_lists_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    assert "learn task weights on validation data" in out
    for info in weightings():
        assert info.name in out
        assert info.paper in out
        assert all(option in out for option in info.options)


@pytest.mark.parametrize("method", NAMES)
def test_sweeps_have_ranges_for_them(method):
    space = Space(method, ("near", "far"))
    assert space.dimensions
    assert space.method(space.default() or space._middle()).name == method


def test_a_sweep_of_an_option():
    space = Space("forum:lower_steps=2", ("near", "far"), "rho=0.05:0.5:log")
    assert space.method({"rho": 0.2}).label == "forum:lower_steps=2,rho=0.2"
    with pytest.raises(UnknownOptionError, match='no option "gamma"'):
        Space("forum", ("near", "far"), "gamma=1:2")
