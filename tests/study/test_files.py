import json
import math
import os

import pytest

from equipoise.study.files import TEMPORARY, plain, read_json, write_json, write_whole


def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "value.json"
    write_json(path, {"a": 1})

    def dies(source, target):
        assert os.path.getsize(source) > 0  # all of it is on disk before it takes the old one's place
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [left.name.endswith(TEMPORARY) for left in path.parent.iterdir() if left != path] == [True]


def test_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda source, target: (events.append("replace"), replace(source, target)))
    write_whole(tmp_path / "x", b"1")
    assert events[:2] == ["fsync", "replace"]


def test_every_reader_understands_the_numbers(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"nan": math.nan, "list": (1, math.inf, 0.1), 3: "ü", "other": {1}})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "nan": None,
        "list": [1, None, 0.1],
        "3": "ü",
        "other": "{1}",
    }


def test_numbers_survive_to_the_last_bit(tmp_path):
    value = 0.1 + 0.2
    write_json(tmp_path / "x", value)
    assert read_json(tmp_path / "x") == value
    assert plain(True) is True


@pytest.mark.parametrize("content", ["", '{"a": 1', "\x00\x00"])
def test_half_a_file_is_no_file(tmp_path, content):
    (tmp_path / "x").write_text(content)
    assert read_json(tmp_path / "x") is None
    assert read_json(tmp_path / "absent") is None
