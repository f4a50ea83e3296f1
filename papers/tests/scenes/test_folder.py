"""Scenes on disk: the readers' layouts, going on where it was, refusing what is something else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from equipoise.cli import main
from equipoise.data import Cityscapes, NYUv2
from equipoise.errors import InputError
from equipoise_papers.scenes import cached_scenes, make_scene, write_scenes

SIZE = (16, 24)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npy")}


def test_rooms_are_read_as_nyuv2(tmp_path):
    write_scenes(tmp_path, "rooms", SIZE, train=2, val=1, test=1, seed=5)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        rows = NYUv2(tmp_path, split)
        assert len(rows) == count
        scene = make_scene("rooms", SIZE, seed=5, split=split, number=count - 1)
        row = {name: array.numpy() for name, array in rows[count - 1].items()}
        np.testing.assert_array_equal(row["image"], scene.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(row["label"], scene.label)
        np.testing.assert_array_equal(row["depth"][0], scene.depth)
        np.testing.assert_array_equal(row["normal"], scene.normal.transpose(2, 0, 1))


def test_streets_are_read_as_cityscapes(tmp_path):
    write_scenes(tmp_path, "streets", (16, 32), train=1, val=0)
    row = Cityscapes(tmp_path, "train")[0]
    scene = make_scene("streets", (16, 32))
    assert set(row) == {"image", "label", "depth"}
    np.testing.assert_array_equal(row["depth"][0].numpy(), scene.inverse_depth)
    np.testing.assert_array_equal(row["label"].numpy(), scene.label)
    assert not (tmp_path / "val").exists()


def test_it_goes_on_where_it_was_and_adds_scenes(tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    write_scenes(whole, "rooms", SIZE, train=3, val=1)
    write_scenes(pieces, "rooms", SIZE, train=1, val=0)
    counts = []
    (pieces / "train" / "label" / "0.npy").unlink()
    kept = (pieces / "train" / "image" / "0.npy").stat().st_mtime_ns
    write_scenes(pieces, "rooms", SIZE, train=3, val=1, told=lambda done, wanted: counts.append((done, wanted)))
    assert counts == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert contents(pieces) == contents(whole)
    counts.clear()
    write_scenes(pieces, "rooms", SIZE, train=3, val=1, told=lambda done, wanted: counts.append((done, wanted)))
    assert counts == [(4, 4)]
    assert (pieces / "train" / "image" / "0.npy").stat().st_mtime_ns > kept  # the broken scene was written anew
    assert not list(pieces.rglob("*.part"))


def test_other_processes_make_the_same_scenes(tmp_path):
    write_scenes(tmp_path / "one", "rooms", SIZE, train=2, val=1)
    write_scenes(tmp_path / "two", "rooms", SIZE, train=2, val=1, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed 0 there, 1 now"),
        ({"size": (16, 32)}, "size [16, 24] there, [16, 32] now"),
        ({"kind": "streets"}, "kind 'rooms' there, 'streets' now"),
    ],
)
def test_a_folder_with_other_scenes_is_refused(tmp_path, change, said):
    write_scenes(tmp_path, "rooms", SIZE, train=1, val=0)
    before = contents(tmp_path)
    with pytest.raises(InputError) as error:
        write_scenes(tmp_path, **({"kind": "rooms", "size": SIZE, "train": 1, "val": 0} | change))
    assert said in str(error.value)
    assert contents(tmp_path) == before


def test_real_data_is_not_mixed_with_rendered(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="holds data that was not generated here"):
        write_scenes(tmp_path, "rooms", SIZE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train": 0}, "train must be at least 1"),
        ({"val": -1}, "val and test at least 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"kind": "street"}, 'Did you mean "streets"?'),
        ({"size": (2, 2)}, "at least 8 pixels"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, arguments, said):
    with pytest.raises(InputError) as error:
        write_scenes(tmp_path / "new", **arguments)
    assert said in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_cache_is_where_it_is_asked_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    folder = cached_scenes("rooms", SIZE, train=1, val=1, test=1)
    assert folder.is_relative_to(tmp_path / "cache")
    before = contents(folder)
    assert len(before) == 12
    assert cached_scenes("rooms", SIZE, train=1, val=1, test=1) == folder
    assert contents(folder) == before
    assert cached_scenes("rooms", SIZE, train=2, val=1, test=1) != folder
    (tmp_path / "file").touch()
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="name another cache with EQUIPOISE_CACHE"):
        cached_scenes("rooms", SIZE, train=1, val=1, test=1)


def test_the_command_line(tmp_path, capsys):
    folder = tmp_path / "rooms"
    arguments = ["data", "scenes", "--out", str(folder), "--images", "2", "--size", "16x24", "--seed", "3"]
    assert main(arguments) == 0
    assert f"{folder}: 3 scenes, 3 of them new" in capsys.readouterr().out
    assert json.loads((folder / "scenes.json").read_text())["seed"] == 3
    assert len(NYUv2(folder, "val")) == 1
    assert main([*arguments[:-1], "4"]) == 2
    err = capsys.readouterr().err
    assert "seed 3 there, 4 now" in err
    assert err.strip().count("\n") == 0
    assert main(["data", "scenes", "--out", str(tmp_path / "x"), "--size", "16"]) == 2
    assert 'size is "16"; expected HEIGHTxWIDTH' in capsys.readouterr().err
    assert main(["data", "scenes", "--out", str(tmp_path / "x"), "--kind", "rooom"]) == 2
    assert 'Did you mean "rooms"?' in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
