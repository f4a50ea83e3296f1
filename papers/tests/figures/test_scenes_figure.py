"""The pictures of scenes: colors that say what they should, files that are promised."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from equipoise.cli import main
from equipoise_papers.figures.scenes import Settings
from equipoise_papers.figures.scenes.make import CLASS_COLORS, of_depth, of_labels, of_normals
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


def test_the_command_draws_scenes_and_predictions(tmp_path, monkeypatch, capsys):
    from equipoise_papers.figures.scenes import make, predict

    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(make.__globals__, "_SIZES", {"rooms": (36, 48), "streets": (24, 48)})
    small = partial(scenes_problem, size=(32, 64), train=4, val=1, test=2, batch_size=2)
    monkeypatch.setattr(predict, "scenes_problem", small)
    arguments = ["--output", str(tmp_path / "out"), "--rooms", "1", "--streets", "1", "--width", "2", "--epochs", "1"]
    assert main(["figure", "scenes", *arguments, "--predict", "--method", "famo"]) == 0
    out, err = capsys.readouterr()
    assert "epoch 1 of 1: semantic" in err
    assert "predictions.png" in out
    for name in ("scenes.png", "predictions.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert about["method"] == "famo"
    assert len(about["test"]) == 9


@pytest.mark.parametrize("bad", [{"rooms": 0}, {"streets": 0}, {"epochs": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"at least one|at least 1"):
        Settings(**bad)
