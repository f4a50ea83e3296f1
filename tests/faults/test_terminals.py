"""Whatever the environment of a program is, its report is written first, and printed as far as it can be shown."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys

import pytest
from rich.console import Console

from equipoise import cli, terminal
from equipoise.progress import progress
from equipoise.terminal import printable, printed
from tests.study.conftest import made_up  # noqa: F401

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")


def report(folder, shell=None, **environment):
    """``equipoise report`` as a process of its own, with the first picture alone: all are drawn in other tests."""
    code = (
        "import runpy, equipoise.study.report.write as write; write.PICTURES = write.PICTURES[:1]; "
        "runpy.run_module('equipoise.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "report", str(folder)]
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONIOENCODING", "PYTHONUTF8")} | environment
    if shell is not None:
        command = ["bash", "-c", shell.format(command=shlex.join(command))]
    return subprocess.run(command, env=own, capture_output=True, check=False, timeout=120)


def test_an_encoding_that_lacks_signs(made_up) -> None:  # noqa: F811
    encoding = "ascii"
    folder = made_up(seeds=(0, 1), epochs=1)
    made = report(
        folder, PYTHONIOENCODING=encoding, MPLBACKEND="nonsense", TERM="dumb", NO_COLOR="1", FORCE_COLOR="", COLUMNS="150"
    )
    assert made.returncode == 0, made.stderr
    assert (folder / "report.md").exists()
    assert (folder / "pictures" / "delta_m.png").exists()  # drawn, though there is no such backend
    shown = made.stdout.decode(encoding)
    assert "Dm (%) v" in shown
    assert "\x1b" not in shown
    assert "Report: " in shown


@POSIX
def test_nobody_reads_on(made_up) -> None:  # noqa: F811
    folder = made_up(seeds=(0, 1), epochs=1)
    made = report(folder, "{command} | true; exit ${{PIPESTATUS[0]}}")
    assert made.returncode == 0
    assert made.stderr == b""
    assert (folder / "report.html").exists()


def test_signs_keep_their_width() -> None:
    for sign in "Δm (%) ↓ ±−–×→↑…─━":
        for encoding in ("ascii", "cp1252", "latin-1", "utf-8"):
            assert len(sign.encode(encoding, "equipoise.plainer").decode(encoding)) == 1


def test_the_library_prints_on_whatever_there_is(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    terminal.console().print("Δm ± 3")
    assert raw.getvalue() == b"Dm ~ 3\n"
    monkeypatch.setattr(sys, "stdout", None)
    terminal.console().print("nobody")


def test_a_closed_pipe_does_not_end_work(monkeypatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    terminal.console(stderr=True).print("a study goes on")


def test_a_backend_that_is_not_there_is_no_obstacle(monkeypatch, tmp_path) -> None:
    """It is hidden while matplotlib is imported; a report with it is written by the process of the first test."""
    from equipoise.errors import require

    (tmp_path / "matplotlib.py").write_text(
        "import os\nif 'MPLBACKEND' in os.environ:\n    raise ValueError('no such backend')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what is there now comes back
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert require("matplotlib", "study").__file__ == str(tmp_path / "matplotlib.py")
    assert os.environ["MPLBACKEND"] == "nonsense"


def test_a_broken_package_is_named(monkeypatch, tmp_path) -> None:
    from equipoise.errors import MissingExtraError, require

    (tmp_path / "broken_package.py").write_text("raise RuntimeError('built for\\nanother version')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=r"cannot be imported \(built for another version\)"):
        require("broken_package", "study")


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch) -> None:
    for term, shown in (("dumb", "_Lines"), ("xterm", "_OneBar")):
        monkeypatch.setenv("TERM", term)
        assert type(progress(1, 1, Console(file=io.StringIO(), force_terminal=True))).__name__ == shown


def test_text_from_anywhere_gives_a_terminal_no_commands() -> None:
    assert printable("\x1b]0;owned\x07") == r"\x1b]0;owned\x07"
    assert printable("a\u202eb\u2028c\ud800") == r"a\u202eb\u2028c\ud800"
    assert printable("Größe Δm ± 数") == "Größe Δm ± 数"
    assert printed({"a\n": ["\x1b", ("\t", 3)]}) == {r"a\n": [r"\x1b", (r"\t", 3)]}


def test_errors_of_files_are_one_line(monkeypatch, capsys) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr(cli, "_assembled", lambda typed: full)
    assert cli.main(["methods"]) == 2
    assert capsys.readouterr().err == "equipoise: No space left on device: /some/file\n"
