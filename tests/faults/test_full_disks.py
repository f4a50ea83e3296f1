"""What cannot be written says so in one line: no space, no permission, a file in the place of a folder."""

from __future__ import annotations

import errno
import os
import sys

import numpy as np
import pytest

from equipoise import cli
from equipoise.blackbox import minimize
from equipoise.errors import EquipoiseError, InputError, StorageError
from equipoise.store import RunStore, locked, replacing, write_json, write_whole, writing
from equipoise.study import Results, Study, find_problem
from equipoise.study.report import write_report
from tests.study.conftest import made_up  # noqa: F401

REASONS = {
    errno.ENOSPC: ("No space left on device", "free some space"),
    errno.EACCES: ("Permission denied", "give a folder that you may write to"),
    errno.EROFS: ("Read-only file system", "give a folder that you may write to"),
    errno.EIO: ("Input/output error", "give another folder"),
}


@pytest.fixture
def folder(made_up):  # noqa: F811
    """Written while there was room."""
    return made_up(seeds=(0,), epochs=1)


@pytest.fixture(params=REASONS, ids=errno.errorcode.get)
def refusing(request, folder, monkeypatch):
    """A disk that takes nothing more."""

    def refuse(*_, **__):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "fsync", refuse)
    return REASONS[request.param]


def test_single_files(tmp_path, refusing) -> None:
    for write in (lambda path: write_whole(path, "x"), lambda path: write_json(path, {})):
        with pytest.raises(StorageError) as caught:
            write(tmp_path / "new" / "file")
        assert str(caught.value).startswith(f'"{tmp_path / "new" / "file"}" cannot be written ({refusing[0]}); {refusing[1]}')
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, EquipoiseError)
        assert caught.value.errno
    assert not list((tmp_path / "new").iterdir())


def test_runs_and_reports(folder, refusing) -> None:
    before = (folder / "study.json").read_bytes()
    with pytest.raises(StorageError):
        RunStore(folder).keep("a", {"x": 1})
    with pytest.raises(StorageError):
        write_report(Results(folder))
    assert (folder / "study.json").read_bytes() == before


def test_the_command_prints_what_it_cannot_write(folder, refusing, capsys) -> None:
    assert cli.main(["report", str(folder)]) == 2
    said = capsys.readouterr()
    assert "made-up: balancing methods compared" in said.out
    assert said.err.count("\n") == 1
    assert refusing[0] in said.err


def test_checkpoints_of_black_box_searches(tmp_path, refusing) -> None:
    with pytest.raises(StorageError):
        minimize(
            lambda x: [float(np.square(x).sum())],
            np.ones(2),
            iterations=3,
            seed=0,
            checkpoint=tmp_path / "a",
            checkpoint_every=1,
        )


def test_a_file_in_the_place_of_a_folder(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "deep" / "x.json"
    for write in (
        lambda: write_json(path, {}),
        lambda: locked(path).__enter__(),
        lambda: RunStore(path.parent).make(),
        lambda: replacing(path).__enter__(),
    ):
        with pytest.raises(EquipoiseError, match="Not a directory"):
            write()
    with pytest.raises(InputError, match="Not a directory"):
        Study(find_problem("digits"), "ls", 1, folder=path.parent).run()
    assert cli.main(["study", "digits", "--methods", "ls", "--folder", str(path.parent)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_what_torch_says_of_a_full_disk(tmp_path) -> None:
    import subprocess

    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from equipoise.store import replacing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    torch.save(torch.zeros(100_000), part)\n"
    )
    made = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.pt")], capture_output=True, text=True, check=False)
    assert "equipoise.errors.StorageError" in made.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), writing("x"):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="shapes"), writing("x"):
        raise RuntimeError("shapes")
    with pytest.raises(InputError), writing("x"):
        raise InputError("mine")
