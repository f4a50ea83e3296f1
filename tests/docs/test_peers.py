"""The page of peers: what it lists is here, nothing of TorchJD's is missing, and it is written from its list."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pytest
from torchjd import aggregation, autogram, autojac, scalarization

import equipoise as eq
from docs import peers

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "peers.md"
MODULES = (aggregation, scalarization, autojac, autogram)


def missing(names: Iterable[str], listed: Iterable[str]) -> set[str]:
    """Names that are not listed; a weighting counts as the aggregator that it is the weighting of."""
    listed = set(listed)
    return {name for name in names if name not in listed and name.removesuffix("Weighting") not in listed}


def public(module: object) -> set[str]:
    return set(getattr(module, "__all__", ()))


def test_the_page_is_written_from_its_list() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("<!-- peers: ") == 5
    assert peers.filled(text) == text, "write the page again: make tables"


def test_every_entry_has_a_counterpart_or_a_reason() -> None:
    for row in peers.rows():
        assert row.peer in peers.PEERS
        assert row.ours or row.difference, f"{row.theirs} of {row.peer} has neither"
        if row.ours:
            assert peers.counterpart(row.ours) is not None
    keys = [(row.peer, row.part, row.theirs) for row in peers.rows()]
    assert len(keys) == len(set(keys))
    with pytest.raises(eq.InputError, match='nothing here is called "fairgard"'):
        peers.counterpart("fairgard")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_nothing_of_torchjd_is_missing(module: object) -> None:
    rows = peers.rows("TorchJD")
    assert {row.at for row in rows} == {version("torchjd")}, "look at the new version, and write it into docs/data/peers.csv"
    part = module.__name__.rpartition(".")[2]
    listed = {row.theirs for row in rows if row.part in (part, "base class")}
    assert missing(public(module), listed) == set(), "TorchJD has these, and docs/data/peers.csv does not say what is here"
    assert missing({*public(module), "Fresh", "FreshWeighting"}, listed) == {"Fresh", "FreshWeighting"}
    stale = {row.theirs for row in rows if row.part == part} - public(module)
    assert {name for name in stale if f"{name}Weighting" not in public(module)} == set(), "TorchJD has these no longer"


def test_all_of_torchjds_aggregators_with_a_counterpart_are_compared_with_it() -> None:
    """By their names in the tests; what differs on purpose is told there."""
    tests = "".join((ROOT / "tests" / "balance" / name).read_text(encoding="utf-8") for name in COMPARED)
    for row in peers.rows("TorchJD"):
        if row.part == "aggregation" and row.ours:
            assert re.search(rf"aggregation\.{row.theirs}(Weighting)?\(", tests), f"{row.theirs} is compared nowhere"
            assert inspect.isclass(peers.counterpart(row.ours).cls)


COMPARED = ("test_torchjd_agreement.py", "test_wrapping.py")


def test_lists_of_methods_are_those_of_the_registry() -> None:
    alone, unread = peers.only_here(), peers.unread()
    assert "`si`" in alone
    assert "`mgda`" not in alone
    assert "`conicgrad`" in unread
    assert "`fairgrad`" not in unread
