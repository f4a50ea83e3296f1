import json
import os
import subprocess
import sys
import textwrap
import time

import optuna
import pytest

from equipoise.store import locked
from equipoise.sweep.folder import Owners, SweepFolder, open_journal
from equipoise.sweep.trials import load_trials


def test_a_half_written_line_is_taken_away(tmp_path):
    path = tmp_path / "trials.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    study.ask()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    again = optuna.load_study(storage=open_journal(path), study_name="s")
    assert path.read_bytes() == whole
    again.tell(0, 1.0)
    assert [json.loads(line) for line in path.read_text().splitlines()]
    assert optuna.load_study(storage=open_journal(path), study_name="s").best_value == 1.0


def test_an_owner_lives_as_long_as_its_process(tmp_path):
    with Owners(tmp_path) as mine:
        code = f"""
        import sys
        from pathlib import Path
        from equipoise.sweep.folder import Owners
        with Owners(Path({str(tmp_path)!r})) as owners:
            print(owners.own, *owners.others(), flush=True)
            sys.stdin.read()
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        theirs, seen = process.stdout.readline().split()
        assert seen == mine.own
        assert mine.alive(theirs)
        assert mine.others() == [theirs]
        process.kill()
        process.communicate()
        assert not mine.alive(theirs)
        assert mine.others() == []
    assert list(tmp_path.iterdir()) == []
    assert not Owners(tmp_path).alive("")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_turns_are_taken_one_at_a_time(tmp_path):
    """Two processes append twice each with a pause in between; their lines stay together."""
    children = []
    for name in "ab":
        child = os.fork()
        if not child:
            try:
                for _ in range(5):
                    with locked(tmp_path / "turn"), (tmp_path / "log").open("a") as log:
                        log.write(name)
                        log.flush()
                        time.sleep(0.005)
                        log.write(name)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    text = (tmp_path / "log").read_text()
    assert len(text) == 20
    assert all(text[place] == text[place + 1] for place in range(0, 20, 2))


def test_a_journal_that_another_process_has_only_just_made_holds_no_trials(tmp_path):
    """There is a moment between the making of the file and the writing of the study's name into it."""
    folder = SweepFolder(tmp_path / "sweeps" / "ls")
    open_journal(folder.journal)
    folder.journal.touch()
    assert load_trials(folder) == []
