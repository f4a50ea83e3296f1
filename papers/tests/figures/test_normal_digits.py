"""NORMAL on digits: the networks are matched, trainings are the library's, and the command writes what it promises."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.cli import main
from equipoise.data import TensorBatches
from equipoise.data.digits import digits
from equipoise.nets import NORMAL, DigitsNet
from equipoise.study.problem import Problem, Splits
from equipoise.study.problems import find_problem
from equipoise_papers.figures.normal_digits.make import make
from equipoise_papers.figures.normal_digits.run import build, train
from equipoise_papers.figures.normal_digits.settings import NETWORKS, NormalDigitsRun, NormalDigitsSettings

BATCHES = 6


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Problem:
    """The problem with a few batches a pass."""
    problem = find_problem("digits")
    rows = {name: values[: 128 * BATCHES] for name, values in digits().train.items()}

    def data(seed: int) -> Splits:
        _, validation, test = problem.data(seed)
        return Splits(TensorBatches(rows, 128, shuffle=True, seed=seed), validation, test)

    less = dataclasses.replace(problem, data=data)
    monkeypatch.setattr("equipoise_papers.figures.normal_digits.run.find_problem", lambda name: less)
    return less


def built(network: str) -> nn.Module:
    torch.manual_seed(0)
    fixed = (1.0, 1.25, 1.5, 1.75)
    return build(DigitsNet(), network, positions=fixed, start=1.0, xi=0.0, step_size=0.5)


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_all_have_as_many_parameters_as_normal_but_sharing() -> None:
    normal = size(built("normal"))
    assert normal - size(built("hps")) == 4 * (50 * 50 + 50) + 1 + 4
    for network in NETWORKS:
        if network != "hps":
            assert size(built(network)) == pytest.approx(normal, rel=0.005)


@pytest.mark.parametrize("network", NETWORKS)
def test_all_start_from_the_same_parameters_and_give_the_same_shapes(network: str) -> None:
    model, base = built(network), built("hps")
    given = dict(base.named_parameters())
    kept = [name for name, value in model.named_parameters() if name in given and torch.equal(value, given[name])]
    assert len(kept) >= 4  # heads or encoder; layers that were put in front of others shift their names
    out = model(torch.rand(3, 1, 12, 12))
    assert {task: tuple(value.shape) for task, value in out.items()} == {
        "left": (3, 10),
        "right": (3, 10),
        "sum": (3,),
        "ink": (3,),
    }


def test_a_training_by_hand(small: Problem) -> None:
    result = train(NormalDigitsRun("normal", 3), NormalDigitsSettings(epochs=2))
    torch.manual_seed(3)
    loader, _, test = small.data(3)
    base, losses, *_ = small.build(3)
    assert isinstance(base, DigitsNet)
    model = build(base, "normal", positions=None, start=1.0, xi=0.0, step_size=0.5)
    assert isinstance(model, NORMAL)
    own = list(model.flow.positions.parameters())
    rest = [parameter for parameter in model.parameters() if not any(parameter is place for place in own)]
    optimizer = torch.optim.Adam([{"params": rest}, {"params": own, "lr": 0.1}], lr=1e-3, fused=True)
    steps = 0
    for epoch in range(2):
        loader.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            sum(losses(model, batch).values()).backward()
            optimizer.step()
            steps += 1
            if steps == 10:
                places = model.flow.positions.values()
    assert result["steps"] == [0, 5, 10]
    for task, value in places.items():
        assert result["positions"][task][0] == 1.0
        assert result["positions"][task][2] == pytest.approx(value, rel=1e-4)
        assert abs(value - 1.0) > 0.05
    model.eval()
    with torch.no_grad():
        assert result["test"] == pytest.approx(small.evaluate(model, test), rel=1e-3)
    assert result["gamma"] == pytest.approx(float(model.flow.dynamics.damping.detach()), rel=1e-4)
    assert torch.tensor(result["cosines"]).diagonal().tolist() == pytest.approx([1.0] * 4)


def test_the_command_writes_what_it_promises_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: Problem
) -> None:
    folder = tmp_path / "out"
    arguments = [
        "figure",
        "normal-digits",
        "-o",
        str(folder),
        "-n",
        "hps,normal,different",
        "-s",
        "2",
        "-e",
        "1",
        "--orders",
        "2",
    ]
    assert main(arguments) == 0
    first = capsys.readouterr()
    assert len(first.err.strip().splitlines()) == 3 * 2 + 1 + 2
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert text.strip() in first.out
    assert all(NETWORKS[name] in text for name in ("hps", "normal", "different"))
    assert "best of 2 orders by validation" in text
    for picture in ("positions.png", "relations.png"):
        assert (folder / picture).stat().st_size > 10_000
    run = json.loads((folder / "runs" / "normal-seed-0.json").read_text(encoding="utf-8"))
    assert run["steps"] == [0, 5]
    assert len({round(places[-1], 3) for places in run["positions"].values()}) > 1

    (folder / "runs" / "normal-seed-1.json").unlink()
    assert main(arguments) == 0
    again = capsys.readouterr()
    assert again.err.strip().startswith("normal-seed-1")
    assert len(again.err.strip().splitlines()) == 1


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    for change, message in (
        ({"networks": ("hps", "norml")}, 'Did you mean "normal"?'),
        ({"networks": ("normal",)}, "hps must be among"),
        ({"seeds": (1000,)}, "seed 1000 chooses"),
        ({"orders": 25}, "between 1 and 24"),
        ({"position_lr": 0.0}, "position_lr must be"),
        ({"step_size": 0.0}, "step_size must be"),
        ({"method": "fairgard"}, "fairgrad"),
    ):
        with pytest.raises(eq.InputError, match=message.replace("?", r"\?")):
            NormalDigitsSettings(**change)
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    with pytest.raises(eq.InputError, match="choose another folder"):
        make(NormalDigitsSettings(epochs=1), tmp_path)
