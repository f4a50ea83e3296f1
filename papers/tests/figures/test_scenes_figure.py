"""The pictures of scenes: colors that say what they should, files that are promised."""

from __future__ import annotations

import json

import numpy as np
import pytest

from equipoise.cli import main
from equipoise_papers.figures.scenes.make import CLASS_COLORS, make, of_depth, of_labels, of_normals
from equipoise_papers.figures.scenes.settings import ScenesFigureSettings
from equipoise_papers.problems.scenes import scenes_problem
from equipoise_papers.scenes import ROOM_CLASSES, STREET_CLASSES


def test_every_class_has_a_color_of_its_own():
    for kind, names in (("rooms", ROOM_CLASSES), ("streets", STREET_CLASSES)):
        assert len(CLASS_COLORS[kind]) == len(names)
        colors = of_labels(np.arange(-1, len(names))[None], kind)[0]
        assert len(np.unique(colors, axis=0)) == len(names) + 1
        assert colors[0].tolist() == [1, 1, 1]  # void


def test_near_is_bright_and_nothing_is_white():
    colors = of_depth(np.array([[0.0, 0.5, 1.0, 0.7]]), 0.0, 1.0, np.array([[True, True, True, False]]))[0]
    assert colors[0].sum() < colors[1].sum() < colors[2].sum()
    assert colors[3].tolist() == [1, 1, 1]
    facing, none = of_normals(np.array([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]))[0]
    assert facing.tolist() == [0.5, 0.5, 1]
    assert none.tolist() == [1, 1, 1]


def test_scenes_and_predictions_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    settings = ScenesFigureSettings(rooms=1, streets=1, predict=True, method="famo", epochs=1, width=2)
    small = scenes_problem(width=2, size=(32, 64), train=4, val=1, test=2, batch_size=2)
    told = []
    said = make(settings, tmp_path / "out", told.append, problem=small)
    assert told[-1].startswith("epoch 1 of 1: semantic")
    for name, line in zip(("scenes.png", "predictions.png"), said.splitlines(), strict=True):
        assert line.startswith(str(tmp_path / "out" / name))
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert about["method"] == "famo"
    assert set(about["test"]) == {metric.name for metric in small.metrics}


def test_the_options_of_the_command_reach_training(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("equipoise_papers.figures.scenes.make.make", lambda *given: seen.append(given[:2]) or "")
    scenes = ["--rooms", "1", "--streets", "2", "--seed", "3", "--predict"]
    training = ["--method", "famo", "--epochs", "5", "--network", "segnet-mtan", "--width", "6"]
    assert main(["figure", "scenes", "--output", str(tmp_path), *scenes, *training]) == 0
    assert seen == [(ScenesFigureSettings(1, 2, 3, True, "famo", 5, "segnet-mtan", 6), tmp_path)]


@pytest.mark.parametrize("bad", [{"rooms": 0}, {"streets": 0}, {"epochs": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"at least one|at least 1"):
        ScenesFigureSettings(**bad)
