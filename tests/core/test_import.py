"""Importing the library is quick: rooms come when they are asked for, and nothing but torch and numpy is needed."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.tables import filled

import equipoise as eq

HEAVY = "matplotlib sklearn scipy rich typer jinja2 torchjd cloudpickle pandas"


def modules_after(statement: str, alone: str = "pass") -> set[str]:
    """What a statement imports in a fresh process, beyond what another one has before it."""
    said = "print(json.dumps(sorted(set(sys.modules) - before)))"
    code = f"import json, sys\n{alone}\nbefore = set(sys.modules)\n{statement}\n{said}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout))


def test_import_brings_no_room_and_not_even_torch() -> None:
    loaded = modules_after("import equipoise")
    assert {name for name in loaded if name.partition(".")[0] == "equipoise"} == {"equipoise", "equipoise.version"}
    assert not loaded & {"torch", "numpy"}


def test_what_a_loop_needs_brings_nothing_but_torch_and_numpy() -> None:
    loaded = modules_after("import equipoise as eq\neq.Objective, eq.MultiTaskOptimizer, eq.FairGrad()", "import torch, numpy")
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY.split())
    rooms = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("equipoise.")}
    assert not rooms & {f"equipoise.{room}" for room in ("bilevel", "blackbox", "data", "nets", "metrics", "study", "sweep")}


def test_a_study_does_not_bring_the_compiler() -> None:
    # It takes a second, in every process of every command.
    assert "torch._dynamo" not in modules_after("import equipoise.study, equipoise.sweep, equipoise.bilevel", "import torch")


def test_everything_public_exists_and_is_documented() -> None:
    for name in eq.__all__:
        thing = getattr(eq, name)
        assert name in dir(eq)
        if callable(thing) or isinstance(thing, type):
            assert thing.__doc__, f"{name} has no docstring"


def test_the_top_level_has_what_is_typed_in_a_loop() -> None:
    balancers = {info.cls.__name__ for info in eq.methods() if info.cls.__module__.startswith("equipoise.")}
    assert set(eq.__all__) >= balancers
    assert len(set(eq.__all__) - balancers) <= 16
    assert len(set(eq.__all__)) == len(eq.__all__)


@pytest.mark.parametrize("module", ["equipoise", "equipoise.balance"])
def test_type_checkers_know_every_balancer(module: str) -> None:
    text = Path(sys.modules[module].__file__ or "").read_text(encoding="utf-8")
    assert "# methods: classes" in text
    assert filled(text) == text, "write the lists again: make tables"


def test_type_checkers_know_every_room() -> None:
    text = Path(eq.__file__ or "").read_text(encoding="utf-8")
    rooms = {room.name for room in pkgutil.iter_modules(eq.__path__) if room.ispkg}
    assert {room for room in rooms if f"from equipoise import {room} as {room}\n" not in text} == set()


def test_rooms_and_names() -> None:
    for room in pkgutil.iter_modules(eq.__path__):
        assert room.name in dir(eq)
    assert eq.solvers.__name__ == "equipoise.solvers"
    assert eq.balance.FairGrad is eq.FairGrad
    for thing in (eq, eq.balance):
        with pytest.raises(AttributeError, match=f"module '{thing.__name__}' has no attribute 'FairGard'"):
            thing.FairGard  # noqa: B018
        assert not hasattr(thing, "__wrapped__")
