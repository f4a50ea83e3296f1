"""Functions called in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.errors import EquipoiseError, InputError
from equipoise.study.processes.calls import calls


def _divided(a: int, b: int) -> tuple[int, int]:
    if b == 0:
        raise InputError("b is zero")
    if b < 0:
        os._exit(3)
    return a // b, os.getpid()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_results_come_with_their_positions_from_other_processes(start: str) -> None:
    found = dict(calls(_divided, [(6, 1), (6, 2), (6, 3)], jobs=2, start=start))
    assert {number: result for number, (result, _) in found.items()} == {0: 6, 1: 3, 2: 2}
    assert os.getpid() not in {process for _, process in found.values()}


def test_an_error_of_ours_is_raised_as_it_is() -> None:
    with pytest.raises(InputError, match=r"^b is zero$"):
        list(calls(_divided, [(1, 0)], jobs=1))


def test_another_failure_shows_its_output() -> None:
    with pytest.raises(EquipoiseError, match="TypeError"):
        list(calls(_divided, [("x", 1)], jobs=1))
    with pytest.raises(EquipoiseError, match="exit code 3"):
        list(calls(_divided, [(1, -1)], jobs=1))


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from equipoise.study.processes.calls import calls\n"
        "def double(x):\n    return 2 * x\n"
        "print(sorted(calls(double, [(1,), (2,)], jobs=2, start='spawn')))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(0, 2), (1, 4)]", done.stderr
