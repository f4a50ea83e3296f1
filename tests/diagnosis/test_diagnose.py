"""A diagnosis says what is so: norms, cosines, noise and conflicts against plain autograd and problems that are known."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.cli import main
from equipoise.diagnosis import Diagnosis, diagnose_problem
from equipoise.diagnosis.looks import Looks
from equipoise.diagnosis.summary import _lasting, learning
from equipoise.modules import moved
from equipoise.study import find_problem
from tests.study.conftest import TINY


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in ("a", "b", "c")})

    def forward(self, inputs):
        features = self.encoder(inputs)
        return {task: head(features)[:, 0] for task, head in self.heads.items()}


def losses(model, batch):
    out = model(batch["x"])
    return {task: (out[task] - batch["y"][:, k]).square().mean() * 10.0**k for k, task in enumerate(out)}


def batches(count=3, rows=12):
    drawn = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(rows, 3, generator=drawn), "y": torch.randn(rows, 3, generator=drawn)} for _ in range(count)]


def made(seed=0):
    torch.manual_seed(seed)
    return Model()


def gradients(model, batch):
    """Rows of task gradients of the encoder, by plain autograd."""
    shared = list(model.encoder.parameters())
    found = losses(model, batch)
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in found.values()]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).double().numpy()


def without_dropout():
    model = made()
    model.encoder[-1].p = 0.0
    return model


def test_a_look_has_the_gramians_of_batch_and_halves() -> None:
    model = without_dropout()
    batch = batches(1)[0]
    look = Looks(eq.Objective(model, losses)).look(0, batch, None)
    rows = gradients(copy.deepcopy(model), batch)
    assert look.tasks == look.halved == ("a", "b", "c")
    np.testing.assert_allclose(look.gramian, rows @ rows.T, rtol=1e-4, atol=1e-6)
    one, two = (
        gradients(copy.deepcopy(model), {name: part[half] for name, part in batch.items()})
        for half in (slice(0, 6), slice(6, 12))
    )
    np.testing.assert_allclose(look.between, one @ two.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(look.within, np.stack([one @ one.T, two @ two.T]), rtol=1e-4, atol=1e-5)
    assert list(look.proxies) == ["features", "last", "last 2", "last 3"]
    # A proxy of all shared layers but the normalization is nearly the whole: same shape, up to a factor.
    factor = np.trace(look.gramian) / np.trace(look.proxies["last 3"])
    assert np.abs(factor * look.proxies["last 3"] - look.gramian).max() < 0.2 * np.abs(look.gramian).max()


def test_nothing_is_left_behind() -> None:
    model = made()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    data = batches()
    sum(losses(model, data[0]).values()).backward()
    optimizer.step()
    model.eval()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]))
    random = torch.get_rng_state()
    objective = eq.Objective(model, losses)
    found = eq.diagnose(objective, data, optimizer, steps=7, looks=3, name="left")
    assert found.steps == 7
    assert found.looks == (0, 4, 7)
    assert {cost["kind"] for cost in found.costs if not cost["failure"]} >= {"plain training", "exact Gramian", "proxy Gramian"}
    after = (model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert not objective.tasks.known


def test_looks_do_not_change_the_training_between_them() -> None:
    curves = []
    for looks in (2, 9):
        torch.manual_seed(3)
        found = eq.diagnose(eq.Objective(made(), losses), batches(), steps=8, looks=looks, timed=False)
        curves.append(found.losses)
    assert curves[0] == curves[1]


def opposed(first, second, noise=0.0):
    """Two tasks on one parameter vector, whose gradients are given, with noise per sample."""
    model = nn.Linear(4, 1, bias=False)

    def losses(model, batch):
        weight = model.weight[0]
        return {"one": 5 + weight @ (first + noise * batch.mean(0)), "two": 5 + weight @ (second + noise * batch.mean(0))}

    drawn = torch.Generator().manual_seed(0)
    return eq.Objective(model, losses), [torch.randn(8, 4, generator=drawn) for _ in range(5)]


def test_tasks_that_conflict_whatever_the_batch_are_named() -> None:
    unit = torch.eye(4)
    found = eq.diagnose(*opposed(unit[0], 0.1 * unit[1] - unit[0], 0.1), steps=10, looks=6, timed=False)
    assert found.lasting == [["one", "two"]]
    assert found.conflicts["pairs"] == 1
    assert found.conflicts["floor"] == 0
    assert any("one with two" in sentence for sentence in found.sentences())


def test_noise_is_told_from_conflict() -> None:
    zero = torch.zeros(4)
    found = eq.diagnose(*opposed(zero, zero, 1.0), steps=30, looks=31, timed=False)
    # Both tasks are the same noise: on one batch they agree wholly, on two halves no more than each with itself.
    assert found.cosines[0][1] == pytest.approx(1)
    assert found.conflicts["pairs"] == found.conflicts["floor"] > 0.2
    assert found.lasting == []
    assert any("mostly noise" in sentence for sentence in found.sentences())


def test_noise_of_many_pairs_is_no_lasting_conflict() -> None:
    drawn = np.random.default_rng(0).normal(0, 0.1, (780, 20))  # cosines of the pairs of 40 unrelated tasks in 20 looks
    beyond = [own for own in drawn if own.mean() < -3 * own.std(ddof=1) / 20**0.5]
    assert len(beyond) > 1
    assert not any(_lasting(own, 780) for own in drawn)
    assert _lasting(drawn[0] - 0.3, 780)
    assert not _lasting([0.0] * 6, 1)
    assert _lasting([-0.1] * 6, 780)


def test_shares_scales_and_pareto_distance_of_orthogonal_gradients() -> None:
    unit = torch.eye(4)
    found = eq.diagnose(*opposed(3 * unit[0], unit[1]), steps=4, looks=2, timed=False)
    assert found.norms == {"one": [3.0, 3.0], "two": [1.0, 1.0]}
    assert found.shares == pytest.approx({"one": 0.9, "two": 0.1})
    assert found.pareto == pytest.approx([0.5**0.5] * 2)
    assert "The gradient of one is 3 times as long" in " ".join(found.sentences())


def test_losses_that_are_not_positive_rule_methods_out() -> None:
    def shifted(model, batch):
        return {task: loss - 1e3 * (task == "b") for task, loss in losses(model, batch).items()}

    found = eq.diagnose(eq.Objective(made(), shifted), batches(), steps=4, looks=2, timed=False)
    assert not found.positive
    assert found.losses["b"]["not_positive"] == 4
    (said,) = [sentence for sentence in found.sentences() if "not always positive" in sentence]
    assert "famo" in said
    assert "fairgrad" not in said


def test_batches_that_cannot_be_cut_are_compared_with_the_next() -> None:
    ragged = [{**batch, "names": object()} for batch in batches()]
    found = eq.diagnose(eq.Objective(made(), losses), ragged, steps=4, looks=3, timed=False)
    assert "cut" in found.lacking
    assert set(found.agreement) == {"a", "b", "c"}


def test_batches_without_some_labels() -> None:
    def partly(model, batch):
        return {task: loss for task, loss in losses(model, batch).items() if task != batch.get("lacks")}

    data = [{**batch, "lacks": task} for batch, task in zip(batches(), ("a", "b", "none"), strict=True)]
    found = eq.diagnose(eq.Objective(made(), partly, ["a", "b", "c"]), data, steps=6, looks=4, timed=False)
    assert found.norms["a"][0] is None
    assert found.norms["c"].count(None) == 0
    assert len(found.losses["a"]["curve"]) == 4


def test_a_training_that_breaks_down_is_a_finding() -> None:
    model = nn.Linear(3, 3)
    squares = eq.Objective(
        model, lambda model, batch: {"a": model(batch["x"]).square().mean(), "b": model(batch["y"]).square().mean()}
    )
    found = eq.diagnose(squares, batches(), torch.optim.SGD(model.parameters(), 1e6), steps=50, looks=50)
    assert 0 < found.steps < 50
    assert "broke down" in found.sentences()[0]
    assert not found.costs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"looks": 1}, "looks is 1"),
        ({"loader": iter([1])}, "again and again"),
        ({"loader": []}, "gave no batch"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(arguments, said) -> None:
    with pytest.raises(eq.InputError, match=said):
        eq.diagnose(eq.Objective(made(), losses), **{"loader": batches(), **arguments})


def test_tasks_without_anything_shared_are_refused() -> None:
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    apart = eq.Objective(model, lambda model, batch: {f"t{k}": part(batch).square().mean() for k, part in enumerate(model)})
    with pytest.raises(eq.InputError, match="share nothing"):
        eq.diagnose(apart, [torch.ones(4, 2)], steps=2, looks=2)


def test_states_of_learning() -> None:
    noise = np.random.default_rng(0).normal(size=200)
    falling = 1 / (1 + 0.05 * np.arange(200))
    assert learning(falling + 0.01 * noise) == "falls"
    assert learning(np.maximum(0, 1 - np.arange(200) / 60) + 0.01 * noise) == "stopped"
    assert learning(1 + 0.3 * noise) == "never"
    assert learning((np.arange(200) / 100 - 0.7) ** 2 + 0.01 * noise) == "rises"


def test_a_named_tuple_of_a_batch_is_moved_as_one() -> None:
    Pair = namedtuple("Pair", "x names")
    assert moved(Pair([torch.ones(2)], ("a",)), torch.device("cpu")).names == ("a",)


def test_the_command_writes_a_page_and_its_numbers(tmp_path, capsys) -> None:
    folder = tmp_path / "page"
    assert main(["diagnose", f"{TINY}:problem", "--steps", "6", "--looks", "3", "--device", "cpu", "-o", str(folder)]) == 0
    printed = capsys.readouterr().out
    known = json.loads((folder / "diagnosis.json").read_text())
    assert known["tasks"] == ["near", "far"]
    assert all(sentence in printed for sentence in known["sentences"])
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 4
    assert "http" not in page.replace("http://www.w3.org", "")
    again = Diagnosis.read(folder / "diagnosis.json")
    assert again.sentences() == known["sentences"]
    (folder / "report.md").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.md").exists()
    (folder / "diagnosis.json").write_text('{"schema": 99}')
    assert main(["report", str(folder)]) == 2


def test_a_problem_is_diagnosed_as_a_run_would_meet_it() -> None:
    problem = find_problem(f"{TINY}:problem")
    random = torch.get_rng_state()
    one, two = (diagnose_problem(problem, steps=5, looks=2, timed=False) for _ in range(2))
    assert dataclasses.replace(one, seconds=0.0) == dataclasses.replace(two, seconds=0.0)
    assert torch.equal(torch.get_rng_state(), random)
    with pytest.raises(eq.InputError, match="no device"):
        diagnose_problem(problem, device="abacus")
