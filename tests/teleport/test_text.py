"""COST from options as text has them, and back."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equipoise.errors import InputError, UnknownOptionError
from equipoise.method import MethodSpec, Nested
from equipoise.options import kinds_of
from equipoise.teleport import (
    COST,
    DELTAS,
    FORMULATIONS,
    HISTORIES,
    OFT,
    TRIGGERS,
    Delta,
    DenseDifference,
    Difference,
    Guard,
    LoHa,
    LowRank,
    Majority,
    PaperFormulation,
    Probes,
    Released,
    Schedule,
    Search,
)
from equipoise.teleport.text import KINDS, cost_of, options_of, shortest


def test_options_reach_the_group_that_has_them() -> None:
    cost = cost_of(
        {
            "steps": 3,
            "lr": 0.1,
            "tolerance": 0.5,
            "guard": "conflict",
            "start": 2,
            "per_epoch": 4,
            "probe": "current",
            "seed": 7,
        }
        | {"formulation": "paper", "gamma": 0.3, "trigger": "majority", "fraction": 0.25, "delta": "oft", "blocks": 2}
    )
    assert cost.search == Search(formulation=PaperFormulation(gamma=0.3), steps=3, lr=0.1)
    assert cost.guard == Guard(0.5, conflict=True)
    assert cost.schedule == Schedule(start=2, per_epoch=4)
    assert cost.probes == Probes(probe="current")
    assert (cost.trigger, cost.delta, cost.seed) == (Majority(0.25), OFT(blocks=2), 7)


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({"delta": Nested("oft", {"blocks": 2})}, {"delta": "oft", "blocks": 2}),
        ({"trigger": Nested("majority", {"fraction": 0.6})}, {"trigger": "majority", "fraction": 0.6}),
        (
            {"formulation": Nested("Paper", {"gamma": 0.2}), "radius": 0.3},
            {"formulation": "paper", "gamma": 0.2, "radius": 0.3},
        ),
        ({"history": Nested("keep")}, {"history": "keep"}),
    ],
)
def test_options_in_brackets_are_the_same_as_flat_ones(nested: dict[str, Any], flat: dict[str, Any]) -> None:
    assert options_of(cost_of(nested)) == options_of(cost_of(flat)) != {}
    assert shortest(nested) == shortest(flat)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"formulation": "released", "trigger": "weak"},
        {"formulation": "paper", "scaling": "none", "guard": "none", "history": "reset", "stop": 3},
        {"seek": "pairwise", "gamma": 0.1, "delta": "loha", "rank": 2, "guard": True, "tolerance": 0.1, "seed": 4},
        {"trigger": "majority", "optimizer": "sgd", "budget": None},
    ],
)
def test_what_is_in_force_makes_the_same_again(options: dict[str, Any]) -> None:
    cost = cost_of(options)
    in_force = options_of(cost)
    again = cost_of(in_force)
    assert options_of(again) == in_force
    assert options_of(cost_of(shortest(options))) == in_force
    assert (again.search.sought, again.guard, again.schedule, again.probes, again.history, again.trigger) == (
        cost.search.sought,
        Guard(cost.guard.tolerance_for(cost.search.sought), conflict=cost.guard.conflict) if cost.guard else None,
        cost.schedule,
        cost.probes,
        cost.history,
        cost.trigger,
    )
    assert all(value is None or isinstance(value, bool | int | float | str) for value in in_force.values())


NUMBERS = st.floats(1e-6, 1e3, allow_nan=False)
WORDS: dict[str, st.SearchStrategy[Any]] = {
    "guard": st.sampled_from([None, "losses", "conflict"]),
    "seek": st.just("sharpness"),
    "optimizer": st.sampled_from(["adam", "rmsprop", Nested("sgd", {"momentum": 0.5})]),
    "scaling": st.sampled_from(["relative", "none"]),
    "probe": st.sampled_from(["recent", "current", "training"]),
    "probe_batches": st.integers(1, 9),
    "fraction": st.floats(0.01, 1.0),
    "targets": st.sampled_from(["body", ["body.0", "*.attention.*"], "head 'a', b", None]),
}
"""Options whose annotation does not say what they may be, or that not every other one goes with."""


def values(name: str, kind: Any) -> st.SearchStrategy[Any]:
    """What an option may be."""
    if name in WORDS:
        return WORDS[name]
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_args(kind):
        return st.one_of(*(values(name, part) for part in get_args(kind)))
    whole = st.integers(2**20, 2**30) if "stop" in name else st.integers(1, 2**20)
    return {int: whole, float: NUMBERS, bool: st.booleans(), type(None): st.none()}[kind]


@st.composite
def any_options(draw: st.DrawFn) -> dict[str, Any]:
    """Some of all options, each written flat or in the brackets of what it belongs to."""
    options: dict[str, Any] = draw(st.sampled_from(PRESETS))
    for kind, known in KINDS.items():
        if name := draw(st.none() | st.sampled_from(known.names())):
            own = {option: values(option, of) for option, of in kinds_of(known.find(name)).items()}
            made = draw(st.fixed_dictionaries({}, optional=own))
            options = options | ({kind: Nested(name, made)} if draw(st.booleans()) else {kind: name, **made})
    groups = [pair for group in (Search, Schedule, Probes) for pair in kinds_of(group).items() if pair[0] != "formulation"]
    flat = {name: values(name, kind) for name, kind in [*groups, ("guard", str), ("seed", int)]}
    options = options | draw(st.fixed_dictionaries({}, optional=flat))
    if options.get("guard") is not None or ("guard" not in options and "preset" not in options):
        options |= draw(st.fixed_dictionaries({}, optional={"tolerance": NUMBERS}))
    if "preset" in options and {"probe", "held_out_batches"} & options.keys():
        options |= {"probe_batches": 3}
    return options


PRESETS = [{}, {}, {"preset": "paper"}, {"preset": Nested("released", {"epochs": 60})}]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(options=any_options())
def test_every_option_can_be_said_in_text(options: dict[str, Any]) -> None:
    cost = cost_of(options)
    in_force = options_of(cost)
    for said in (options, in_force, shortest(options)):
        text = str(MethodSpec("fairgrad", teleport=Nested("cost", said)))
        _, again = MethodSpec.parse(text).make()
        assert isinstance(again, COST)
        assert options_of(again) == in_force, text
        assert repr((again.search.sought, again.schedule, again.probes, again.history, again.trigger, again.delta)) == repr(
            (cost.search.sought, cost.schedule, cost.probes, cost.history, cost.trigger, cost.delta)
        )


def test_presets_in_text() -> None:
    assert options_of(cost_of({"preset": "paper"})) == options_of(COST.paper())
    assert options_of(cost_of({"preset": Nested("released", {"epochs": 60})})) == options_of(COST.released(epochs=60))
    changed = cost_of({"preset": "paper", "delta": Nested("oft", {"blocks": 2}), "gamma": 0.2, "guard": "losses", "steps": 9})
    expected = COST.paper(
        delta=OFT(blocks=2),
        search=Search(PaperFormulation(gamma=0.2), scaling="none", steps=9),
        guard=Guard(COST.paper().search.sought.tolerance),
    )
    assert options_of(changed) == options_of(expected)
    assert shortest({"preset": "paper", "steps": 9, "scaling": "none"}) == {"preset": "paper", "steps": 9}
    assert cost_of({"preset": "released", "formulation": "paper"}).trigger == Released()  # the preset's, as all else
    with pytest.raises(InputError, match="the option preset of COST is one of paper, released; got 'printed'"):
        cost_of({"preset": "printed"})
    with pytest.raises(UnknownOptionError, match='the preset "paper" has no option "epochs"'):
        cost_of({"preset": Nested("paper", {"epochs": 3})})


def test_targets_in_text() -> None:
    _, cost = MethodSpec.parse("cost(delta=loha(rank=2, targets=[body.0, '*.attention']))+ls").make()
    assert isinstance(cost, COST)
    assert cost.delta == LoHa(rank=2, targets=("body.0", "*.attention"))
    assert shortest({"delta": "dense", "targets": "body"}) == {"delta": "dense", "targets": ["body"]}
    with pytest.raises(InputError, match="targets are modules cannot be written in text; name them"):
        options_of(COST(delta=LowRank(targets=torch.nn.Linear(2, 2))))


def test_ready_settings_are_what_the_formulations_names_give() -> None:
    assert options_of(COST()) == options_of(cost_of({}))
    letter = {"formulation": "paper", "scaling": "none", "guard": None, "budget": None, "per_epoch": 1}
    letter |= {"held_out_batches": 0, "history": "reuse"}
    assert options_of(COST.paper()) == options_of(cost_of(letter))
    released = {"formulation": "released", "guard": None, "budget": None, "per_epoch": 1, "start": 50, "cooldown": 1}
    released |= {"check_every": 1, "passes": 2, "lr": "training", "probe": "training", "probe_batches": "all"}
    assert options_of(COST.released()) == options_of(cost_of(released | {"held_out_batches": 0}))
    assert options_of(COST.paper("weak", history="keep")) == options_of(
        cost_of(letter | {"trigger": "weak", "history": "keep"})
    )


def test_the_default_delta_is_the_default_however_it_is_said() -> None:
    for options in ({}, {"delta": "lowrank"}, {"rank": LowRank().rank}):
        assert not cost_of(options)._delta_given
    assert cost_of({"rank": 3}).delta == LowRank(rank=3)
    assert cost_of({"rank": 3})._delta_given


def test_an_inner_optimizer_with_options_of_its_own() -> None:
    cost = cost_of({"optimizer": Nested("SGD", {"momentum": 0.9, "nesterov": True})})
    inner = cost.search.optimizer([torch.zeros(2, requires_grad=True)], lr=0.1)
    assert isinstance(inner, torch.optim.SGD)
    assert (inner.defaults["lr"], inner.defaults["momentum"], inner.defaults["nesterov"]) == (0.1, 0.9, True)
    assert options_of(cost)["optimizer"] == "sgd(momentum=0.9,nesterov=True)"
    assert options_of(cost_of(options_of(cost))) == options_of(cost)
    assert shortest({"optimizer": "adam"}) == {}
    with pytest.raises(InputError, match='the optimizer "sgd" cannot be made'):
        cost_of({"optimizer": Nested("sgd", {"momentun": 0.9})})
    with pytest.raises(InputError, match='torch has no optimizer "lbfgs"'):
        cost_of({"optimizer": "lbfgs"})


def test_a_seed_stays() -> None:
    assert shortest({"seed": 0, "start": 0}) == {"seed": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": Nested("oft", {"block": 2})}, 'the delta "oft" has no option "block". Did you mean "blocks"'),
        ({"delta": Nested("dense", {"rank": 2})}, 'the delta "dense" has no option "rank". Its options: targets'),
        (
            {"trigger": Nested("majority", {"fraction": 0.1}), "fraction": 0.2},
            'the option "fraction" of the trigger "majority" is given',
        ),
        ({"fractoin": 0.2, "trigger": "majority"}, 'COST has no option "fractoin". Did you mean "fraction"'),
        ({"blocks": 2}, 'the option "blocks" belongs to delta=oft, which is not chosen here'),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        cost_of(options)
    assert message in str(caught.value)
    assert isinstance(caught.value, UnknownOptionError) or "twice" in str(caught.value)


@pytest.mark.parametrize(
    ("cost", "part"),
    [
        (COST(lambda gramian: True), "trigger is Custom"),
        (COST(probes=Probes(probe=[1, 2])), "probe is a loader"),
        (COST(search=Search(optimizer=lambda factors, lr: torch.optim.SGD(factors, lr))), "inner optimizer is <function"),
    ],
)
def test_what_cannot_be_written(cost: COST, part: str) -> None:
    with pytest.raises(InputError, match=f"a COST whose {part}.*cannot be written in text"):
        options_of(cost)


@dataclass(frozen=True)
class Own(Delta):
    """A delta of a user's own."""

    size: float = 1.0

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        return DenseDifference(parameter)


@dataclass(frozen=True)
class Colliding(Own):
    """One whose option is COST's as well."""

    lr: float = 1.0


@pytest.fixture
def added() -> Any:
    yield DELTAS.add
    for name in {"own", "colliding"} & set(DELTAS.names()):
        DELTAS.remove(name)


def test_no_two_groups_have_an_option_of_one_name() -> None:
    groups = [{field.name for field in fields(group)} for group in (Search, Guard, Schedule, Probes)]
    assert sum(map(len, groups)) == len(set().union(*groups))
    # Each of the library's kinds can be chosen together with each other one.
    for kinds in product(*(registry.names() for registry in (TRIGGERS, DELTAS, FORMULATIONS, HISTORIES))):
        cost_of(dict(zip(("trigger", "delta", "formulation", "history"), kinds, strict=True)))


def test_a_delta_of_ones_own(added: Any) -> None:
    added("own", Own)
    assert cost_of({"delta": "own", "size": 2.0}).delta == Own(2.0)
    assert COST(delta="own").delta == Own()
    assert shortest({"delta": "Own", "size": 1.0}) == {"delta": "own"}
    added("colliding", Colliding)
    with pytest.raises(InputError, match='the delta "colliding" has an option "lr", which COST has too'):
        cost_of({"delta": "colliding"})
    with pytest.raises(InputError, match='the delta name "oft" is taken'):
        added("oft", Own)


def test_a_fresh_one_has_the_same_settings_and_no_past() -> None:
    cost = COST("weak", delta=OFT(blocks=2), search=Search(optimizer=functools.partial(torch.optim.SGD, momentum=0.9)), seed=3)
    cost.end_epoch()
    fresh = cost.fresh(5)
    assert options_of(fresh) == options_of(cost) | {"seed": 5}
    assert fresh.state_dict()["schedule"] == COST().state_dict()["schedule"] != cost.state_dict()["schedule"]
    assert not COST().fresh()._delta_given
