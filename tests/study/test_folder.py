import dataclasses
import json

import pytest

from equipoise.errors import InputError
from equipoise.store import write_json
from equipoise.study import parse_methods
from equipoise.study.folder import Folder
from equipoise.study.records import SCHEMA

SETTINGS = {"epochs": 3, "gramian_every": 10}


@pytest.fixture
def claimed(tmp_path, tiny):
    folder = Folder(tmp_path / "study")
    folder.claim_for(tiny, parse_methods("ls"), [0], SETTINGS)
    return folder


def test_methods_and_seeds_may_be_added(claimed, tiny):
    claimed.claim_for(tiny, parse_methods("fairgrad"), [2, 0], SETTINGS)
    known = claimed.configuration()
    assert list(known["methods"]) == ["ls", "fairgrad"]
    assert known["seeds"] == [0, 2]


def test_anything_else_may_not_be_changed(claimed, tiny):
    before = (claimed.path / "study.json").read_bytes()
    with pytest.raises(InputError, match="another configuration \\(epochs 3 there, 4 now\\)"):
        claimed.claim_for(tiny, parse_methods("ls"), [0], SETTINGS | {"epochs": 4})
    renamed = dataclasses.replace(tiny, name="small")
    with pytest.raises(InputError, match="problem name 'tiny' there, 'small' now"):
        claimed.claim_for(renamed, parse_methods("ls"), [0], SETTINGS)
    with pytest.raises(InputError, match="problem options width None there, 3 now"):
        claimed.claim_for(dataclasses.replace(tiny, options={"width": 3}), parse_methods("ls"), [0], SETTINGS)
    metrics = [dataclasses.replace(metric, higher_is_better=True) for metric in tiny.metrics]
    with pytest.raises(InputError, match="problem metrics"):
        claimed.claim_for(dataclasses.replace(tiny, metrics=metrics), parse_methods("ls"), [0], SETTINGS)
    with pytest.raises(InputError, match="methods ls name 'ls' there, 'si' now"):
        claimed.claim_for(tiny, parse_methods({"ls": "si"}), [0], SETTINGS)
    assert (claimed.path / "study.json").read_bytes() == before


def test_options_that_were_called_otherwise(claimed, tiny):
    claimed.claim_for(tiny, parse_methods("famo"), [0], SETTINGS)
    told = (claimed.path / "study.json").read_text()
    (claimed.path / "study.json").write_text(told.replace('"lr"', '"learning_rate"'))
    claimed.claim_for(tiny, parse_methods("famo"), [1], SETTINGS)
    assert "learning_rate" not in (claimed.path / "study.json").read_text()


def test_options_that_came_later(claimed, tiny):
    methods = parse_methods("fairgrad,cagrad,pcgrad,graddrop")
    claimed.claim_for(tiny, methods, [0], SETTINGS)
    known = json.loads((claimed.path / "study.json").read_text())
    for method in known["methods"].values():
        method["options"].pop("max_norm", None)
    (claimed.path / "study.json").write_text(json.dumps(known))
    claimed.claim_for(tiny, methods, [1], SETTINGS)
    assert claimed.configuration()["methods"]["pcgrad"]["options"]["max_norm"] is None


def test_every_difference_is_named(claimed, tiny):
    with pytest.raises(InputError, match="epochs 3 there, 5 now; gramian_every 10 there, 2 now"):
        claimed.claim_for(tiny, parse_methods("ls"), [0], {"epochs": 5, "gramian_every": 2})


def test_a_folder_with_other_files_is_left_alone(tmp_path, tiny):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds files but no study"):
        Folder(tmp_path).claim_for(tiny, parse_methods("ls"), [0], SETTINGS)


def test_not_a_study(tmp_path):
    with pytest.raises(InputError, match=r"holds no readable study\.json"):
        Folder(tmp_path).configuration()
    write_json(tmp_path / "study.json", {"schema": SCHEMA + 1})
    with pytest.raises(InputError, match="another version of equipoise"):
        Folder(tmp_path).configuration()


def test_only_one_study_at_a_time(tmp_path):
    folder = Folder(tmp_path / "study")
    with folder.locked(), pytest.raises(InputError, match="another study is running"), Folder(folder.path).locked():
        pass
    with folder.locked():  # and the lock is given back
        pass


def test_what_a_killed_study_left_is_cleared_away(tmp_path):
    folder = Folder(tmp_path)
    left = tmp_path / "runs" / "ls-seed0.json.123.part"
    left.parent.mkdir()
    left.write_text('{"schema": 1, "compl')
    with folder.locked():
        assert not left.exists()
        (folder.work / "payload").touch()
    assert not folder.work.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record | {"complete": False},
        lambda record: {key: value for key, value in record.items() if key != "complete"},
        lambda record: record | {"schema": SCHEMA + 1},
        lambda record: record | {"history": record["history"][:-1]},
        lambda record: record | {"final": None},
        lambda record: [record],
    ],
)
def test_a_damaged_record_does_not_count(finished, tmp_path, damage):
    _, folder = finished
    record = json.loads((folder / "runs" / "ls-seed0.json").read_text())
    store = Folder(tmp_path)
    write_json(store.file("x"), record)
    assert store.find("x") == record
    write_json(store.file("x"), damage(record))
    assert store.find("x") is None


def test_a_record_cut_off_anywhere_does_not_count(finished, tmp_path):
    _, folder = finished
    whole = (folder / "runs" / "ls-seed0.json").read_bytes().rstrip()
    path = tmp_path / "runs" / "x.json"
    path.parent.mkdir()
    for length in (*range(0, len(whole), len(whole) // 50), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert Folder(tmp_path).find("x") is None
