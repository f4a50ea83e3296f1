"""A process of a study does not outlive it, not even while it still imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks of POSIX")

SLOW = "import time\n\n\ndef wait():\n    open({mark!r}, 'w').close()\n    time.sleep(600)\n\n\nwait()\n"


@pytest.mark.parametrize("way", ["template", "worker"])
def test_a_process_that_imports_goes_with_its_study(tmp_path, way) -> None:
    mark = tmp_path / "importing"
    (tmp_path / "slow_import.py").write_text(SLOW.format(mark=str(mark)))
    reading, lifeline = os.pipe()
    module = "equipoise.study.processes.template" if way == "template" else "slow_import"
    process = subprocess.Popen(
        [sys.executable, "-m", "equipoise.lifeline", str(reading), module, "slow_import"],
        pass_fds=(reading,),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        start_new_session=True,
    )
    os.close(reading)
    try:
        while not mark.exists():
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        os.close(lifeline)  # as the system does when the study is killed
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def test_a_module_that_cannot_be_imported_is_left_to_the_runs(tmp_path, monkeypatch) -> None:
    from equipoise.study.processes import template

    (tmp_path / "raising.py").write_text("raise ValueError")
    monkeypatch.syspath_prepend(tmp_path)
    template.prepare(["raising", "nothing_of_that_name", "json"])
