"""Commands are derived from settings: names, defaults and help are written once, and a folder is all that a figure takes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.errors import InputError
from equipoise_papers.applications import EXAMPLES
from equipoise_papers.commands import Command, Commands, _made, _options, numbers
from equipoise_papers.figures import FIGURES

EVERY = [*FIGURES, *EXAMPLES]


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.name)
def test_what_is_shown_as_default_is_the_default(command: Command) -> None:
    found = list(_options(command.settings))
    typed = {one.name: one.read(one.parameter().default) for one in found}
    assert _made(command.settings, typed) == command.settings()
    assert len({one.name for one in found}) == len(found) == len(typed)


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.name)
def test_every_option_says_what_it_is(command: Command) -> None:
    silent = [one.name for one in _options(command.settings) if not one.help]
    assert not silent


def test_every_folder_has_a_command() -> None:
    for commands in (FIGURES, EXAMPLES):
        folder = Path(sys.modules[commands.package].__file__ or "").parent
        folders = {path.parent.name.replace("_", "-") for path in folder.glob("*/__init__.py")}
        assert {command.name for command in commands} == folders


def test_a_list_of_commands_needs_no_torch() -> None:
    """Neither does the help of a single one."""
    code = """
import sys
from equipoise.cli import main
for group in ("figure", "example"):
    assert main([group, "--help"]) == 0
assert main(["figure", "cost-toy", "--help"]) == 0
assert not {"torch", "matplotlib", "numpy"} & set(sys.modules), "slow"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "forum-synthetic" in done.stdout
    assert "few-shot" in done.stdout
    assert "--start-step" in done.stdout


def test_a_folder_is_all_that_a_figure_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "own_figures" / "my_figure"
    folder.mkdir(parents=True)
    (tmp_path / "own_figures" / "__init__.py").write_text(
        "from equipoise_papers.commands import Commands\n"
        "OWN = Commands('figure', __name__, 'Mine.', work='make:make', output='out/{}')\n"
    )
    (folder / "__init__.py").write_text("")
    (folder / "settings.py").write_text(
        '''
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from own_figures import OWN

@OWN.add("Draws.", quick={"steps": 2})
@dataclass(frozen=True)
class MySettings:
    """Mine.

    Attributes:
        steps: how many, in
            ``numbers``.
        last: the end; ``None`` for none.
        sizes: of things.
        kind: which.
        loud: whether.
    """

    steps: int = 5
    last: int | None = 7
    sizes: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"
    loud: bool = False
'''
    )
    (folder / "make.py").write_text("def make(settings, folder, told):\n    told('going')\n    return f'{settings} {folder}'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_figures import OWN  # type: ignore[import-not-found]

    assert isinstance(OWN, Commands)
    app = OWN.app()
    run = CliRunner().invoke
    assert "Draws." in run(app, ["--help"]).output
    assert "How many, in numbers." in " ".join(run(app, ["my-figure", "--help"]).output.split())
    plain = run(app, ["my-figure"])
    assert "MySettings(steps=5, last=7, sizes=(1, 2), kind='a', loud=False) out/my-figure" in plain.output
    assert "going" in plain.stderr
    typed = run(app, ["my-figure", "--quick", "--last", "none", "--sizes", "4", "--kind", "b", "--loud", "-o", "here"])
    assert "MySettings(steps=2, last=None, sizes=(4,), kind='b', loud=True) here" in typed.output
    wrong = run(app, ["my-figure", "--sizes", "4,x"])
    assert isinstance(wrong.exception, InputError)
    assert 'sizes is "4,x"; expected whole numbers' in str(wrong.exception)


def test_numbers_of_a_kind() -> None:
    assert numbers("1,2.5", "x", float) == (1.0, 2.5)
    with pytest.raises(InputError, match="expected whole numbers"):
        numbers("1,2.5", "x")


def test_a_nested_dataclass_gives_its_options_too() -> None:
    @dataclass(frozen=True)
    class Inner:
        """Inner.

        Attributes:
            depth: of it.
        """

        depth: int = 3

    globals()["Inner"] = Inner

    @dataclass(frozen=True)
    class Outer:
        """Outer.

        Attributes:
            inner: the inner.
            height: of it.
        """

        inner: Inner = Inner()
        height: float = 1.0

    assert [one.name for one in _options(Outer)] == ["depth", "height"]
    assert _made(Outer, {"depth": 9, "height": 2.0}) == Outer(Inner(9), 2.0)
