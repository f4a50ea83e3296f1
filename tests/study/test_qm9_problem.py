"""The problem ``qm9``: its molecules, units and options, from 51 molecules in the package's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equipoise.data.qm9 import packed
from equipoise.errors import DataSetError, InputError, MissingExtraError, UnknownOptionError
from equipoise.study import find_problem
from equipoise.study.methods import parse_method
from equipoise.study.plan import Run
from equipoise.study.qm9 import qm9_problem
from equipoise.study.training import train

SAMPLE = Path(__file__).parents[1] / "data" / "qm9_tables"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))


def small(**others):
    return qm9_problem(**{"train": 30, "val": 8, "test": 10, "batch_size": 12, "folder": SAMPLE} | others)


def rows(loader):
    """The molecules of a loader, told apart by where their first atom is."""
    return {tuple(pos[0].tolist()) for pos in loader.tensors["pos"]}


def test_splits_are_fixed_and_have_nothing_in_common():
    first, again, other = small().data(0), small().data(5), small(data_seed=1).data(0)
    assert [len(rows(loader)) for loader in first] == [30, 8, 10]
    assert len(set().union(*(rows(loader) for loader in first))) == 48
    assert [rows(loader) for loader in first] == [rows(loader) for loader in again]
    assert rows(first.test) != rows(other.test)
    fewer = small(train=20, val=5).data(0)
    assert rows(fewer.train) < rows(first.train)
    assert rows(fewer.validation) < rows(first.validation)
    assert rows(fewer.test) == rows(first.test)
    # The order of training batches is the seed's, and what is shown needs no place that no molecule of it has.
    orders = [[batch["label"][:, 0].tolist() for batch in small().data(seed).train] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    for batch in first.train:
        assert (batch["z"] > 0).any(0).all()


def test_targets_are_scaled_and_errors_are_not():
    problem = small()
    splits = problem.data(0)
    label = splits.train.tensors["label"]
    torch.testing.assert_close(label.mean(0), torch.zeros(11), atol=1e-5, rtol=0)
    torch.testing.assert_close(label.std(0), torch.ones(11), atol=1e-5, rtol=0)

    class Off(torch.nn.Module):  # by one deviation
        def forward(self, z, pos):
            found = next(batch["label"] for batch in splits.test if torch.equal(batch["pos"], pos))
            return {task: found[:, place] + 1 for place, task in enumerate(problem.tasks)}

    errors = problem.evaluate(Off(), splits.test)
    read = packed.read_packed(SAMPLE)
    training = [tuple(pos) in rows(splits.train) for pos in read.pos[read.first_atom[:-1]].tolist()]
    targets = torch.from_numpy(read.targets[training]).double()
    assert len(targets) == 30
    assert errors["mu"] == pytest.approx(float(targets[:, 0].std()), rel=1e-4)
    assert errors["homo"] == pytest.approx(float(targets[:, 2].std()) * 1000, rel=1e-4)
    assert errors["U0"] == pytest.approx(float(targets[:, 12].std()) * 1000, rel=1e-4)
    assert errors["Cv"] == pytest.approx(float(targets[:, 11].std()), rel=1e-4)
    assert [metric.unit for metric in problem.metrics if metric.name in ("mu", "homo", "U0")] == ["D", "meV", "meV"]


def test_it_trains_and_learns():
    problem = small()
    record = train(problem, Run(0, method=parse_method("fairgrad")), epochs=1, gramian_every=0)
    assert set(record["final"]["test"]) == set(problem.tasks)
    model, losses = problem.build(0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 36_923
    batch = next(iter(problem.data(0).train))
    optimizer = problem.optimizer(model)
    before = sum(losses(model, batch).values()).detach()
    for _ in range(15):
        optimizer.zero_grad()
        loss = sum(losses(model, batch).values())
        loss.backward()
        optimizer.step()
    assert loss.detach() < 0.8 * before


def test_options_stand_behind_a_colon():
    problem = find_problem(f"qm9:train=30,val=8,test=10,folder='{SAMPLE}'")
    assert problem.options["molecules"] == "30/8/10, seed 0"
    assert find_problem(f"equipoise.study.qm9:qm9_problem:epochs=3,folder='{SAMPLE}'").epochs == 3
    with pytest.raises(UnknownOptionError, match=r'problem "qm9" has no option "trian". Did you mean "train"'):
        find_problem("qm9:trian=30")
    with pytest.raises(InputError, match=r'option "train" of problem "qm9" must be a whole number; got 2.5'):
        find_problem("qm9:train=2.5")
    with pytest.raises(InputError, match=r'"5" in the problem "qm9:train=5,5" is not of the form option=value'):
        find_problem("qm9:train=5,5")
    with pytest.raises(InputError, match=r'"digits:train" names no option; write "digits:option=value"'):
        find_problem("digits:train")
    with pytest.raises(UnknownOptionError, match=r'problem "digits" has no option "train"\. It has none'):
        find_problem("digits:train=30")


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(InputError, match="val is 0; it must be at least 1"):
        small(val=0)
    with pytest.raises(InputError, match=r"train \+ val \+ test is 130832; QM9 has 130831 molecules"):
        qm9_problem(train=130_000, val=416, test=416)
    with pytest.raises(DataSetError, match=r"no tables qm9_part1\.csv … in .*give another folder"):
        small(folder=SAMPLE.parent)
    with pytest.raises(DataSetError, match=r"holds 51 molecules, too few for 40 \+ 8 \+ 10; ask for fewer"):
        small(train=40).data(0)
    monkeypatch.setattr(packed, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"equipoise\[qm9\]") as raised:
        find_problem("qm9")
    assert "\n" not in str(raised.value)
