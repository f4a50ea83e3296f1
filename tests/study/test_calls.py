"""Functions called in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equipoise.errors import EquipoiseError, InputError
from equipoise.study.processes.calls import calls

# The example in the docstring of ``calls``, and the script at the end, start processes of their own.
pytestmark = pytest.mark.usefixtures("one_template")


def _divided(a: int, b: int) -> tuple[int, int]:
    if b == 0:
        raise InputError("b is zero")
    if b < 0:
        os._exit(3)
    return a // b, os.getpid()


def test_results_come_with_their_positions_from_other_processes() -> None:
    found = dict(calls(_divided, [(6, 1), (6, 2), (6, 3)], jobs=2))
    assert {number: result for number, (result, _) in found.items()} == {0: 6, 1: 3, 2: 2}
    assert os.getpid() not in {process for _, process in found.values()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_ours_is_raised_as_it_is(jobs: int) -> None:
    with pytest.raises(InputError, match=r"^b is zero$"):
        list(calls(_divided, [(1, 0)], jobs=jobs))


def test_one_at_a_time_they_are_made_here_with_one_thread() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = list(calls(lambda x: (x, os.getpid(), torch.get_num_threads()), [(1,), (2,)], jobs=1))
        assert found == [(0, (1, os.getpid(), 1)), (1, (2, os.getpid(), 1))]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_another_failure_shows_its_output() -> None:
    with pytest.raises(EquipoiseError, match="TypeError"):
        list(calls(_divided, [("x", 1)], jobs=2))
    with pytest.raises(EquipoiseError, match="exit code 3"):
        list(calls(_divided, [(1, -1)], jobs=2))


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from equipoise.study.processes.calls import calls\n"
        "def double(x):\n    return 2 * x\n"
        "print(sorted(calls(double, [(2,)], jobs=2, start='spawn')))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(0, 4)]", done.stderr
