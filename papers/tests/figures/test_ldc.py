"""The figures of LDC-MTL: the batch of trajectories is real training, and the commands write what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.cli import main
from equipoise.study.methods import parse_method
from equipoise_papers.figures.ldc_gradient_norms.settings import LDCGradientNormsSettings
from equipoise_papers.figures.ldc_toy.run import outcomes, run, shifted, spread
from equipoise_papers.figures.ldc_toy.settings import METHODS, LDCToySettings


class Point(nn.Module):
    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start, dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS)
def test_a_trajectory_is_what_training_does(method: str) -> None:
    # Where |a − b| is followed along a = b, rounding chooses the signs; a smooth |a − b| has none. The same at x₁ = 0,
    # where Adam would divide a gradient that cancels by its own size.
    method += ",smooth=0.1" if method.startswith("ldc-mtl") else ""
    settings = LDCToySettings(methods=(method,), starts=((1.0, 0.5), (9.0, 9.0)), steps=60, lr=0.01, record_every=60)
    trajectories = run(settings)
    for number, start in enumerate(settings.starts):
        model, problem = Point(start), settings.problem

        def losses(model: nn.Module, batch: None, problem: object = problem) -> Tensor:
            return shifted(problem.losses(model.at))  # type: ignore[attr-defined]

        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, losses), torch.optim.Adam(model.parameters(), lr=0.01), parse_method(method).make(0), model
        )
        for _ in range(60):
            mtl.step(None)
        assert np.allclose(trajectories.positions[-1, 0, number], model.at.detach().numpy(), atol=1e-9)


def test_losses_are_positive_once_they_are_shifted() -> None:
    points = 25.0 * (torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5)
    for sign in ("paper", "released"):
        assert (shifted(LDCToySettings(sign=sign).problem.losses(points)) > 0).all()  # type: ignore[arg-type]


def test_ends_are_judged_by_the_pareto_set() -> None:
    # A start on the set stays there with MGDA; one far away does not get there in a step.
    settings = LDCToySettings(methods=("mgda",), starts=((0.0, -8.36), (9.0, 9.0)), steps=2, record_every=1)
    on, off = outcomes(run(settings), tolerance=0.01)
    assert on.pareto
    assert on.steps == 0
    assert on.gap < 0.1
    assert not off.pareto
    assert off.steps is None
    assert spread([on, off], "mgda") > 19


def test_the_command_of_the_toy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["figure", "ldc-toy", "--steps", "100", "--timed-steps", "3", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"ldc-toy.png", "ldc-toy-cost.png", "ldc-toy.md", "ldc-toy.json"}
    assert (tmp_path / "ldc-toy.md").read_text() in capsys.readouterr().out
    numbers = json.loads((tmp_path / "ldc-toy.json").read_text())
    assert len(numbers["ends"]) == 20
    assert set(numbers["seconds per step"]) == set(METHODS)
    assert main(["figure", "ldc-toy", "--methods", "graddrop", "--output", str(tmp_path)]) == 2
    assert "only balancers that look at losses or the Gramian" in capsys.readouterr().err


def test_the_command_of_the_gradient_norms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["figure", "ldc-gradient-norms", "--epochs", "1", "--inner-steps", "2", "--output", str(tmp_path)]
    assert main([*arguments, "--options", "penalty=5"]) == 0
    assert "median" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "ldc-gradient-norms.json").read_text())
    assert numbers["settings"]["options"] == {"penalty": 5}
    assert len(numbers["norm"]) == len(numbers["norm at solution"]) == 47
    assert all(value >= 0 for value in numbers["norm"])
    assert (tmp_path / "ldc-gradient-norms.png").stat().st_size > 10_000


LINES = """
import torch
from equipoise.data import TensorBatches
from equipoise.metrics import Metric
from equipoise.study import Problem, Splits

def losses(model, batch):
    errors = (model(batch["x"]) - batch["y"]).square().mean(0)
    return {"first": errors[0], "second": errors[1]}

rows = {"x": torch.linspace(-1, 1, 32).reshape(-1, 1), "y": torch.ones(32, 2)}
problem = Problem(
    "lines", ["first", "second"], [Metric("first", "first", False), Metric("second", "second", False)],
    lambda seed: (torch.nn.Linear(1, 2), losses, ),
    lambda seed: Splits(TensorBatches(rows, 8), None, TensorBatches(rows, 8)),
    lambda model, loader: {"first": 1.0, "second": 2.0},
    schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.0),
)
"""


def test_the_gradient_norms_of_another_problem(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(LINES)
    arguments = ["figure", "ldc-gradient-norms", "--problem", str(tmp_path / "lines.py"), "--epochs", "3", "--inner-steps", "2"]
    assert main([*arguments, "--options", "warm_start=model", "--output", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "ldc-gradient-norms.json").read_text())
    assert len(numbers["norm"]) == 12
    # The schedule stops model and router after the first epoch, and the batches come round.
    assert np.allclose(numbers["norm"][4:8], numbers["norm"][8:12], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"inner_lr": 0.0}, "inner_lr must be"),
        ({"options": {"inner_steps": 3}}, "set by the figure"),
    ],
)
def test_bad_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        LDCGradientNormsSettings(**options)  # type: ignore[arg-type]
    with pytest.raises(eq.InputError, match="name at least one method"):
        LDCToySettings(methods=())
