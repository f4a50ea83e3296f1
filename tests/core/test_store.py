import json
import math
import os

import pytest

from equipoise.errors import InputError
from equipoise.store import TEMPORARY, RunStore, locked, plain, read_json, replacing, write_json, write_whole


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
    assert list(path.parent.iterdir()) == [path]


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


def test_only_whole_files_take_their_place(tmp_path):
    path = tmp_path / "deep" / "numbers"
    with replacing(path) as part:
        part.write_text("1")
        assert part.name.endswith(TEMPORARY)
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text(f"{1 / 0}")
    assert path.read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


def test_a_run_is_done_once(tmp_path):
    store = RunStore(tmp_path / "here")
    done = []

    def run():
        done.append(None)
        return {"values": (1.0, math.nan), "epochs": 3}

    def made():
        return store.find("a") or store.keep("a", run())

    assert store.find("a") is None
    assert made() == made() == {"values": [1.0, None], "epochs": 3}
    assert len(done) == 1
    assert store.find("a", {"epochs": 4}) is None
    assert store.find("a", {"values": (1.0, math.nan)}) == store.records()[0]
    store.file("a").write_text('{"values": [1')
    assert store.find("a") is None
    assert store.records() == []
    made()
    assert len(done) == 2


def test_a_folder_is_that_of_one_configuration(tmp_path):
    store = RunStore(tmp_path / "here", "asked.json", what="trip", schema=2)
    asked = {"lr": 0.1, "net": {"width": 3}, "note": "a", "seeds": [2, 0], "named": {"one": 1}, "found": None}
    rules = {"free": ["note"], "growing": ["seeds", "named"], "kept": ["found"]}
    with pytest.raises(InputError, match=r"not the folder of a trip: it holds no readable asked\.json"):
        store.configuration()
    store.claim(asked, **rules)
    store.remember(found=7)
    known = store.claim(asked | {"note": "b", "seeds": [1], "named": {"two": 2}}, **rules)
    assert known == store.configuration()
    assert known == asked | {"schema": 2, "note": "b", "seeds": [0, 1, 2], "named": {"one": 1, "two": 2}, "found": 7}
    for changed, said in [
        ({"lr": 0.2}, "lr 0.1 there, 0.2 now"),
        ({"net": {"depth": 1}}, "net width 3 there, None now; net depth None there, 1 now"),
        ({"named": {"one": 5}}, "named one 1 there, 5 now"),
    ]:
        with pytest.raises(InputError, match=f"a trip of another configuration \\({said}\\)"):
            store.claim(asked | changed, **rules)
    assert store.configuration() == known
    with pytest.raises(InputError, match="schema 2, this one reads 3"):
        RunStore(store.path, "asked.json", what="trip", schema=3).claim(asked)


def test_what_cannot_be_a_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds files but no set of runs"):
        RunStore(tmp_path).claim({})
    with pytest.raises(InputError, match="cannot be made"):
        RunStore(tmp_path / "thesis.tex").claim({})


def test_a_lock_says_so_or_waits(tmp_path):
    path = tmp_path / "deep" / "lock"
    with locked(path):
        with pytest.raises(InputError, match="somebody is here"), locked(path, busy="somebody is here"):
            pass
        calls = []

        def waiting():
            calls.append(None)
            if len(calls) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), locked(path, busy="not said", waiting=waiting):
            pass
    with locked(path, busy="free again"):
        pass
