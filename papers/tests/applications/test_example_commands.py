"""``equipoise example``: from what is typed to what is printed."""

from __future__ import annotations

import sys

import pytest

from equipoise.cli import main
from equipoise.errors import InputError
from equipoise.markdown import table


def test_few_shot(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--methods untrained --seeds 1 --ways 2 --shots 1 --test-episodes 3"
    assert main(["example", "few-shot", *options.split()]) == 0
    out, err = capsys.readouterr()
    assert "untrained, seed 0" in err
    assert "2-way 1-shot on novel characters" in out
    assert "| untrained |" in out


def test_architecture_search(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--methods forum --sizes 10 --seeds 1 --steps 1 --nodes 2 --channels 2"
    assert main(["example", "architecture-search", *options.split()]) == 0
    out, _ = capsys.readouterr()
    assert "cells of 2 nodes and 2 channels, 1 steps" in out
    assert "| forum  |  10 |" in out
    assert "0→1" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("few-shot --methods none", 'unknown method "none"'),
        ("few-shot --ways 1", "ways must be from 2"),
        ("architecture-search --sizes many", 'sizes is "many"'),
        ("actor-critic --gravities 0", "gravities must be different positive numbers"),
        ("actor-critic --steps 3", "steps must be more than warm_up"),
    ],
)
def test_bad_input_is_one_line(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err.splitlines()[-1]


def test_actor_critic_without_gymnasium(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert main(["example", "actor-critic"]) == 2
    assert 'pip install "equipoise-papers[control]"' in capsys.readouterr().err


def test_a_row_that_does_not_fit_its_head() -> None:
    with pytest.raises(InputError, match="has 1 cells; its head has 2: a, b"):
        table(["a", "b"], [["1"]])
