"""Folders of sweeps from strangers: what cannot be used is refused in one line, and nothing outside the folder is touched."""

from __future__ import annotations

import os
import sys

import pytest

from equipoise.errors import InputError
from equipoise.store import write_json
from equipoise.sweep import Outcome
from equipoise.sweep.folder import Owners, TrialFolder, open_journal
from tests.study.conftest import made_up  # noqa: F401

GOOD = {
    "schema": 1,
    "problem": {},
    "method": "ls",
    "swept": {"weights": "log"},
    "objectives": ["delta_m"],
    "seed": 1000,
    "epochs": 5,
    "sampler": "tpe",
    "pruner": "none",
    "budget": 3,
    "confirm": 1,
    "front": ["near", "far"],
    "compare": ["ls", "fairgrad"],
    "seeds": [0, 1, 2],
    "baseline": None,
    "confirmed": [0],
}


@pytest.fixture
def sweep(made_up):  # noqa: F811
    folder = made_up() / "sweeps" / "ls"
    write_json(folder / "sweep.json", GOOD)
    return folder


def test_a_folder_in_order(sweep) -> None:
    assert Outcome(sweep).methods == ("ls", "fairgrad")


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("front", ["x", "y"], 'the study has no metric "x"'),
        ("front", ["near"], "front has 1 entries, not 2"),
        ("seeds", "01", "seeds is a text"),
        ("swept", [1], "swept is a list"),
        ("baseline", {"near": "x"}, "baseline.near is a text"),
        ("objectives", ["nope"], 'there is no metric "nope"'),
        ("confirmed", ["a"], r"confirmed\[0\] is a text"),
        ("compare", [[1]], r"compare\[0\] is a list"),
    ],
)
def test_settings_that_are_damaged(sweep, entry, value, said) -> None:
    write_json(sweep / "sweep.json", GOOD | {entry: value})
    with pytest.raises(InputError, match=said):
        Outcome(sweep)


@pytest.mark.parametrize(
    "content",
    [b"[1]\n", b'{"op_code": 99}\n', b'{"op_code":0,"worker_id":"x","study_name":"s","directions":["a"]}\n', b"[" * 100_000],
    ids=["list", "operation", "direction", "nested"],
)
def test_journals_that_are_none(sweep, content) -> None:
    (sweep / "trials.journal").write_bytes(content + b"\n")
    with pytest.raises(InputError, match="cannot be read as a journal of trials") as caught:
        Outcome(sweep)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
def test_journals_that_are_no_files(sweep, tmp_path_factory) -> None:
    journal = sweep / "trials.journal"
    os.mkfifo(journal)
    with pytest.raises(InputError, match="it is no regular file"):
        Outcome(sweep)
    journal.unlink()
    outside = tmp_path_factory.mktemp("outside") / "mine"
    outside.write_text("half a line")
    journal.symlink_to(outside)
    with pytest.raises(InputError, match="is a link"):
        Outcome(sweep)
    assert outside.read_text() == "half a line"


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_a_lock_that_came_with_the_folder_is_not_waited_for(sweep) -> None:
    (sweep / "trials.journal").write_text("")
    (sweep / "trials.journal.lock").symlink_to("/of/another/machine/trials.journal")
    open_journal(sweep / "trials.journal")


def test_a_journal_may_name_any_owner_and_reaches_nothing(tmp_path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "work").write_text("mine")
    (tmp_path / "mine.lock").write_text("")
    folder = tmp_path / "sweep" / "trials"
    (folder / ".work-x").mkdir(parents=True)
    TrialFolder(folder, "1-00000000").clear("x/../../../mine")
    assert (mine / "work").exists()
    assert not Owners(tmp_path / "sweep").alive("../mine")
    assert (tmp_path / "mine.lock").exists()
