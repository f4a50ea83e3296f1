"""One registry for all kinds of names: aliases, near misses, and entries of other distributions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import equipoise as eq
from equipoise.registry import Registry
from tests.distributions import install


def colors() -> Registry[int]:
    made: Registry[int] = Registry("color", owner=lambda entry: f"number {entry}")
    made.add("dark-red", 1, aliases=("maroon",))
    made.add("blue", 2)
    return made


def test_case_hyphens_and_aliases() -> None:
    registry = colors()
    assert registry.find(" Dark_RED ") == registry.find("Maroon") == 1
    assert registry.names() == ("dark-red", "blue")
    assert list(registry) == [1, 2]
    assert len(registry) == 2
    assert "MAROON" in registry
    assert "green" not in registry
    assert 3 not in registry


def test_unknown_names() -> None:
    expected = r'^there is no color "bleu"\. Did you mean "blue"\? Known: blue, dark-red$'
    with pytest.raises(eq.errors.UnknownMethodError, match=expected):
        colors().find("bleu")
    with pytest.raises(eq.InputError, match="the name of a color is a text; got 3"):
        colors().find(3)  # type: ignore[arg-type]


def test_a_name_belongs_to_one_owner() -> None:
    registry = colors()
    registry.add("blue", 2, aliases=("azure",))  # the same once more, as in a notebook
    for name, aliases in (("maroon", ()), ("green", ("Blue",))):
        with pytest.raises(eq.InputError, match="is taken by number"):
            registry.add(name, 3, aliases=aliases)
        assert "green" not in registry
    registry.remove("maroon")
    assert registry.names() == ("blue",)
    assert "dark-red" not in registry


def test_it_is_filled_once_and_again_after_a_failure() -> None:
    calls: list[str] = []

    def fill() -> None:
        calls.append("filled")
        if len(calls) == 1:
            raise ImportError("not yet")
        registry.add("blue", 2)

    registry: Registry[int] = Registry("color", fill=fill)
    with pytest.raises(ImportError):
        registry.find("blue")
    assert registry.find("blue") == registry.find("BLUE") == 2
    assert len(calls) == 2


# -- other distributions


OWN = """
import equipoise as eq
from torch import Tensor

@eq.balance.register("{name}", summary="loses nothing", paper="none", aliases=("{alias}",))
class {cls}(eq.balance.LossBalancer):
    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def weights(self, losses: Tensor) -> Tensor:
        return losses**-self.power
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    before = {info.name for info in eq.methods()}
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in {info.name for info in eq.balance.REGISTRY.own()} - before:
        eq.balance.REGISTRY.remove(name)


def test_a_balancer_of_another_distribution(installed: Path) -> None:
    install(
        installed,
        "far-away",
        "[equipoise.methods]\nreciprocal = far_away:Reciprocal\n",
        far_away=OWN.format(name="reciprocal", alias="inverse", cls="Reciprocal"),
    )
    assert "far_away" not in sys.modules
    made = eq.balancer("reciprocal", power=2.0)
    assert type(made).__name__ == "Reciprocal"
    assert made.power == 2.0
    assert "reciprocal" in {info.name for info in eq.methods()}
    assert not hasattr(eq, "Reciprocal")  # the library's own names stay those of the library


def test_an_alias_of_another_distribution(installed: Path) -> None:
    install(
        installed,
        "far-alias",
        "[equipoise.methods]\nfar-one = far_alias\n",
        far_alias=OWN.format(name="far-one", alias="far-first", cls="FarOne"),
    )
    assert type(eq.balancer("far-first")).__name__ == "FarOne"


def test_broken_distributions_are_named_and_hide_nobody(installed: Path) -> None:
    install(installed, "bad-one", "[equipoise.methods]\nbad = bad_one\n", bad_one="import there_is_no_such_module\n")
    install(installed, "bad-two", "[equipoise.methods]\nworse = bad_two\n", bad_two="")
    with pytest.raises(eq.InputError, match=r'^the method "bad" of bad-one cannot be used: No module named'):
        eq.balancer("bad")
    with pytest.raises(eq.InputError, match=r'"worse" of bad-two cannot be used: .* registers no method of that name'):
        eq.balancer("worse")
    with pytest.warns(UserWarning, match="cannot be used") as said:
        assert "fairgrad" in {info.name for info in eq.methods()}
    assert len(said) == 2
    assert len(eq.methods()) >= 33  # said once


def test_a_distribution_cannot_take_a_name(installed: Path) -> None:
    text = OWN.format(name="fairgrad", alias="unfair", cls="Unfair")
    install(installed, "taker", "[equipoise.methods]\nfairgrad = taker\n", taker=text)
    assert isinstance(eq.balancer("fairgrad"), eq.FairGrad)
    with pytest.warns(UserWarning, match=r'of taker cannot be used: the method name "fairgrad" is taken by .*FairGrad'):
        eq.methods()
    assert isinstance(eq.balancer("fairgrad"), eq.FairGrad)
