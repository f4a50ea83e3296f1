"""The figures of the bilevel chapter: the commands write what they promise, and the synthetic one what the thesis says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.cli import main
from equipoise.errors import InputError
from equipoise_papers.figures.forum_cost import make as forum_cost
from equipoise_papers.figures.forum_cost.measure import measured
from equipoise_papers.figures.forum_cost.settings import ForumCostSettings
from equipoise_papers.figures.forum_synthetic.run import Synthetic, run
from equipoise_papers.figures.forum_synthetic.settings import ForumSyntheticSettings
from equipoise_papers.figures.hyper_cleaning.settings import DIGITS
from equipoise_papers.figures.hyper_cleaning.settings import MNIST as THESIS
from equipoise_papers.figures.hyper_cleaning.train import load, train

SMALL = replace(DIGITS, samples=(400, 100, 100, 200), steps=40, lower_steps=4, evaluate_every=10, seeds=(0,))


def test_forum_gets_within_a_thousandth_of_the_optimal_set_from_every_start() -> None:
    curves = run(ForumSyntheticSettings(steps=70, lower_steps=20, lower_lr=0.12), methods=("forum",))
    for own in curves:
        assert own.gaps[-1] < 1e-3
        assert own.stationarities[-1] < 1e-4
        assert own.constraints[-1] < 1e-6
        assert len(own.gaps) == len(own.constraints) == 71
    assert {own.start for own in curves} == {(a, w) for a in (0.0, 2.0) for w in ((0.0, 3.0), (3.0, 3.0))}


def test_distances_to_the_optimal_set_are_those_of_geometry() -> None:
    assert Synthetic(1.5, (1.5, 1.5)).gap() == pytest.approx(0)
    assert Synthetic(0.0, (0.0, 0.0)).gap() == pytest.approx(3**0.5)
    assert Synthetic(1.5, (1.5, 1.8)).gap() == pytest.approx(np.linalg.norm(np.array([1.5, 1.5, 1.8]) - 1.6))
    # At the optimum of the first objective alone its gradient vanishes, the constraint's, too.
    assert Synthetic(1.0, (1.0, 1.0)).stationarity(torch.tensor([1.0, 0.0]), 3.0) == pytest.approx(0)


def test_the_synthetic_command_writes_picture_table_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", "forum-synthetic", "-o", str(tmp_path / "out"), "--steps", "2", "--lower-steps", "2"]) == 0
    assert "| FORUM | 2 | (3, 3) |" in re.sub(" +", " ", capsys.readouterr().out)
    numbers = json.loads((tmp_path / "out" / "forum-synthetic.json").read_text())
    assert len(numbers["curves"]) == 12
    assert (tmp_path / "out" / "forum-synthetic.png").stat().st_size > 10_000


def test_the_cost_command_writes_picture_table_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["figure", "forum-cost", "-o", str(tmp_path), "--lower-steps", "1", "--layers", "0"]
    assert main([*command, "--fixed-lower-steps", "1", "--repeats", "1", "--batch-size", "4", "--methods", "forum"]) == 0
    assert "| 1 | 538,388 |" in re.sub(" +", " ", capsys.readouterr().out)
    (found,) = json.loads((tmp_path / "forum-cost.json").read_text())["measurements"]
    assert found["method"] == "forum"
    assert found["seconds"] > 0
    assert found["bytes"] > 0


def test_the_cost_table_has_every_method_once_per_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_up(method: str, steps: int, layers: int, settings: ForumCostSettings) -> forum_cost.Measurement:
        return forum_cost.Measurement(
            method, steps, layers, 100 + layers, 0.01 * steps + (method == "moml"), (7 + layers) << 20
        )

    monkeypatch.setattr(forum_cost, "_one", made_up)
    settings = ForumCostSettings(methods=("forum", "moml"), lower_steps=(1, 2), layers=(0, 3), fixed_lower_steps=2)
    text = re.sub(" +", " ", forum_cost.make(settings, tmp_path))
    for row in ("| 1 | 100 | 10 | 1010 | 7 | 7 |", "| 2 | 100 | 20 | 1020 | 7 | 7 |", "| 2 | 103 | 20 | 1020 | 10 | 10 |"):
        assert text.count(row) == 1
    found = json.loads((tmp_path / "forum-cost.json").read_text())["measurements"]
    assert [one["method"] for one in found] == ["forum", "moml"] * 3


@pytest.mark.parametrize("method", ["moco", "moml-checkpointed"])
def test_every_method_of_the_cost_figure_runs(method: str) -> None:
    assert measured(method, 2, 1, 4, 1, "cpu")["parameters"] == 538_388 + 512 * 512 + 512


def test_half_of_the_labels_are_wrong_and_the_splits_are_apart() -> None:
    data = load(SMALL, seed=3)
    again, other = load(SMALL, seed=3), load(SMALL, seed=4)
    for task in ("upright", "turned"):
        own = data.splits[task]
        assert int(data.corrupted[task].sum()) == 200
        assert [len(own[split]["label"]) for split in ("train", "first", "second", "test")] == [400, 100, 100, 200]
        images = torch.cat([own[split]["image"] for split in own])
        assert len(torch.unique(images, dim=0)) == len(images)
        assert torch.equal(own["train"]["label"], again.splits[task]["train"]["label"])
        assert not torch.equal(own["train"]["label"], other.splits[task]["train"]["label"])
    clean = load(replace(SMALL, corrupted=0.0), seed=3)
    for task in ("upright", "turned"):
        differ = clean.splits[task]["train"]["label"] != data.splits[task]["train"]["label"]
        assert torch.equal(differ, data.corrupted[task])


def test_weights_tell_clean_from_corrupted_labels() -> None:
    settings = replace(SMALL, steps=80, lower_steps=4, batch_size=200, weights_lr=100.0)
    outcome = train("forum", 0, settings)
    assert min(outcome.auc.values()) > 0.6
    assert min(outcome.accuracy.values()) > 50
    assert outcome.roc["upright"][0][-1] == outcome.roc["upright"][1][-1] == 1.0
    assert len(outcome.history) == 8


def test_hyper_cleaning_goes_on_with_the_runs_that_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["figure", "hyper-cleaning", "-o", str(tmp_path), "--seeds", "1", "--steps", "10", "--lower-steps", "1"]
    assert main([*command, "--methods", "noisy"]) == 0
    first = (tmp_path / "runs" / "noisy-0.json").stat().st_mtime_ns
    assert main([*command, "--methods", "noisy,moml"]) == 0
    assert "| MOML " in capsys.readouterr().out
    assert (tmp_path / "runs" / "noisy-0.json").stat().st_mtime_ns == first
    assert main([*command, "--methods", "noisy", "--lower-steps", "2"]) != 0
    assert "lower_steps 1 there, 2 now" in capsys.readouterr().err


def test_the_thesis_setting_reads_idx_files(tmp_path: Path) -> None:
    from equipoise_papers.samples import write_fashion_mnist_sample, write_mnist_sample

    write_mnist_sample(tmp_path / "MNIST")
    write_fashion_mnist_sample(tmp_path / "FashionMNIST")
    settings = replace(THESIS, folder=tmp_path, samples=(10, 4, 4, 4), steps=2, lower_steps=2, batch_size=4)
    outcome = train("moco", 0, settings)
    assert set(outcome.accuracy) == {"MNIST", "FashionMNIST"}
    assert THESIS.samples == (5000, 1000, 1000, 5000)
    with pytest.raises(InputError, match="samples; the splits"):
        load(replace(THESIS, folder=tmp_path), 0)
    with pytest.raises(InputError, match="needs the folder"):
        load(THESIS, 0)


def test_settings_that_are_none() -> None:
    with pytest.raises(InputError, match='Did you mean "forum"'):
        replace(DIGITS, methods=("forun",))
    with pytest.raises(InputError, match="unknown method"):
        ForumCostSettings(methods=("adam",))
    with pytest.raises(InputError, match='"warm" or "cold"'):
        ForumSyntheticSettings(start="hot")  # type: ignore[arg-type]
