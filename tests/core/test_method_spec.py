"""A method as a value: what is written is read again, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import equipoise as eq
from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError
from equipoise.method import MethodSpec, Nested, read_value, written_value
from tests.problems import Heads, batch, losses

PARSED = {
    "ls": MethodSpec("ls"),
    " Nash_MTL ": MethodSpec("nash-mtl"),
    "FairGrad : alpha = 2.0": MethodSpec("fairgrad", {"alpha": 2.0}),
    "cagrad:c=0.2,rescale=true": MethodSpec("cagrad", {"c": 0.2, "rescale": True}),
    "ls:weights=[1, 2]": MethodSpec("ls", {"weights": [1, 2]}),
    "ls:weights={'a': 1.0, 'b,c': 2.0}": MethodSpec("ls", {"weights": {"a": 1.0, "b,c": 2.0}}),
    "mine:limit=1e+3": MethodSpec("mine", {"limit": 1000.0}),
    "mine:path=/data/a+b.pt": MethodSpec("mine", {"path": "/data/a+b.pt"}),
    "mine:name=it's": MethodSpec("mine", {"name": "it's"}),
    "mine:limit=-inf": MethodSpec("mine", {"limit": float("-inf")}),
    "cost+ls": MethodSpec("ls", teleport="cost"),
    "COST ( ) + ls": MethodSpec("ls", teleport=Nested("cost")),
    "cost(start=3, history=keep)+fairgrad:alpha=2": MethodSpec(
        "fairgrad", {"alpha": 2}, Nested("cost", {"history": "keep", "start": 3})
    ),
    "cost(trigger=majority(fraction=0.6),delta=oft(blocks=2))+ls": MethodSpec(
        "ls", teleport=Nested("cost", {"trigger": Nested("majority", {"fraction": 0.6}), "delta": Nested("oft", {"blocks": 2})})
    ),
    "a:b=c(d=e(f=1),g='h(')": MethodSpec("a", {"b": Nested("c", {"d": Nested("e", {"f": 1}), "g": "h("})}),
}


@pytest.mark.parametrize("text", PARSED)
def test_text_is_read(text: str) -> None:
    assert MethodSpec.parse(text) == PARSED[text]
    assert MethodSpec.parse(str(PARSED[text])) == PARSED[text]


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        (" COST( start = 3 )+ FairGrad: alpha=2", "cost(start=3)+fairgrad:alpha=2"),
        ("ls:weights=[1,2]", "ls:weights=[1, 2]"),
        ("cost()+ls:", "cost+ls"),
        ("a:b='word'", "a:b=word"),
        ("a:b='1'", "a:b='1'"),
        ("a:b=c()", "a:b=c"),
        ("a:b=TRUE,c=None,d=none", "a:b=True,c=None,d=none"),
        ("a:b=1e999", "a:b=inf"),
        ("a:b=[1e999]", "a:b=[1e999]"),
    ],
)
def test_the_shortest_text(text: str, shortest: str) -> None:
    assert str(MethodSpec.parse(text)) == shortest


words = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True).filter(str.isidentifier)
numbers = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False)
plain = st.none() | st.booleans() | numbers | st.text(max_size=12)
literals = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
values = st.recursive(
    literals | st.floats(), lambda inner: st.builds(Nested, words, st.dictionaries(words, inner, max_size=3)), max_leaves=5
)
options = st.dictionaries(words, values, max_size=4)
specs = st.builds(
    MethodSpec,
    st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name != "cost"),
    options,
    st.none() | st.builds(Nested, words.filter(lambda name: "_" not in name), options),
)


@given(specs)
def test_what_is_written_is_read_again(spec: MethodSpec) -> None:
    text = str(spec)
    again = MethodSpec.parse(text)
    assert again == spec
    assert hash(again) == hash(spec)
    assert str(again) == text
    for name, value in spec.options.items():
        if value == value and not isinstance(value, Nested):
            assert again.options[name] == value
            assert type(again.options[name]) is type(value)


@given(st.lists(specs, min_size=1, max_size=4))
def test_lists_are_read_again(listed: list[MethodSpec]) -> None:
    assert MethodSpec.parse_all(", ".join(map(str, listed))) == tuple(listed)


@given(values)
def test_values_are_read_again(value: Any) -> None:
    text = written_value(value)
    assert written_value(read_value(text)) == text


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        spec = MethodSpec.parse(text)
    except InputError:
        return
    assert MethodSpec.parse(str(spec)) == spec


def test_it_is_a_value() -> None:
    one = MethodSpec("cagrad", {"c": 0.2, "rescale": True}, "cost(start=3,stop=9)")
    other = MethodSpec("CAGrad", {"rescale": True, "c": 0.2}, Nested("COST", {"stop": 9, "start": 3}))
    assert one == other
    assert len({one, other, MethodSpec.parse(str(one))}) == 1
    assert one != MethodSpec("cagrad", {"c": 0.2}, one.teleport)
    assert one != one.balancer
    assert one.balancer.teleport is None
    assert MethodSpec.parse("a:b=c(d=1,e=2)") == MethodSpec.parse("a:b=c(e=2,d=1)")
    assert MethodSpec("a", {"b": 1}) != MethodSpec("a", {"b": True})  # equal numbers, another option
    assert one != "cagrad"
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), dataclasses.replace(one)):
        assert again == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "ls"  # type: ignore[misc]
    given = {"weights": [1.0, 2.0]}
    spec = MethodSpec("ls", given)
    given["weights"].append(3.0)
    spec.options["weights"].append(4.0)
    assert spec.options["weights"] == [1.0, 2.0]
    assert MethodSpec("a", {"b": np.float64(0.5), "c": np.int64(2)}) == MethodSpec("a", {"b": 0.5, "c": 2})
    assert repr(spec) == "MethodSpec.parse('ls:weights=[1.0, 2.0]')"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'such as "cagrad:c=0.2"; got nothing'),
        ("cost", 'COST goes on top of a method; write "cost+fairgrad"'),
        ("cost+", "COST goes on top of a method"),
        ("cost(gamma=0.2)", "COST goes on top of a method"),
        ("cost(gamma=0.2+ls", "COST goes on top of a method"),
        ("fairgrad:alpha", '"alpha" in the method "fairgrad:alpha" is not of the form option=value'),
        ("fairgrad:=2", "not of the form option=value"),
        ("fairgrad:alpha=", "not of the form option=value"),
        ("fairgrad:alpha=1,alpha=2", 'gives the option "alpha" twice'),
        ("fairgrad(alpha=2)", 'stand behind a colon; write "fairgrad:alpha=2"'),
        ("cost(trigger=majority(0.6))+ls", '"0.6" in the method'),
        ("co(st+l)s+ls", "cannot be read"),
        ("a b'c", "is no name of a method"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        MethodSpec.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MethodSpec.parse(3), "a method is a text"),  # type: ignore[arg-type]
        (lambda: MethodSpec("a,b"), "'a,b' is no name of a method"),
        (lambda: MethodSpec("a", {"b-c": 1}), "an option of \"a\" has the name 'b-c'"),
        (lambda: MethodSpec("a", {"b": object()}), "cannot be written as text"),
        (lambda: MethodSpec("a", {"b": [float("nan")]}), "cannot be written as text"),
        (lambda: MethodSpec("a", 3), "are a mapping"),  # type: ignore[arg-type]
        (lambda: MethodSpec("a", {}, 3), 'the teleport of a method is a text such as "cost(start=3)"; got 3'),  # type: ignore[arg-type]
        (lambda: Nested("a(b"), "is no name for something with options"),
    ],
)
def test_what_cannot_be_a_value(make: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert said in str(caught.value)


# -- wherever a method is named


def mtl_of(method: Any, **options: Any) -> eq.MultiTaskOptimizer:
    model = Heads()
    return eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.1), method, **options)


def test_options_in_the_text_of_a_balancer() -> None:
    for made in (
        eq.balancer("fairgrad:alpha=2"),
        eq.balancer(MethodSpec("fairgrad", {"alpha": 2})),
        eq.balance.as_balancer("FairGrad: alpha=2"),
        mtl_of("fairgrad:alpha=2").balancer,
        mtl_of(MethodSpec("fairgrad", {"alpha": 2})).balancer,
    ):
        assert isinstance(made, eq.FairGrad)
        assert made.alpha == 2
    assert eq.balancer("cagrad:c=0.2", rescale=True).rescale
    with pytest.raises(InputError, match=r'the option "c" is given twice: in "cagrad:c=0.2" and as c=0.3'):
        eq.balancer("cagrad:c=0.2", c=0.3)
    with pytest.raises(UnknownOptionError, match=r'"fairgrad" has no option "alfa".* "alpha"'):
        mtl_of("fairgrad:alfa=2")
    with pytest.raises(UnknownMethodError, match=r'no method "fairgard". Did you mean "fairgrad"'):
        eq.backward(losses(Heads(), batch()), "fairgard:alpha=2")


def test_backward_takes_options_and_refuses_teleports_and_memories() -> None:
    def gradient(balancer: Any) -> Any:
        torch.manual_seed(0)
        model = Heads()
        eq.backward(losses(model, batch()), balancer)
        return model.encoder[0].weight.grad

    assert torch.equal(gradient("fairgrad:alpha=2"), gradient(eq.FairGrad(alpha=2.0)))
    assert torch.equal(gradient(MethodSpec("fairgrad", {"alpha": 2})), gradient(eq.FairGrad(alpha=2.0)))
    assert not torch.equal(gradient("fairgrad:alpha=2"), gradient("fairgrad"))
    for name in (eq.balancer, gradient):
        with pytest.raises(InputError, match=r'^"cost\+ls" has a teleport, which takes more than a balancer') as caught:
            name("cost+ls")
        assert 'leave out "cost+"' in str(caught.value)
    with pytest.raises(InputError, match="has a memory"):
        gradient(MethodSpec("uw"))


def test_an_optimizer_teleports_by_text() -> None:
    mtl = mtl_of("cost(start=3,delta=oft(blocks=2),history=keep)+fairgrad:alpha=2")
    assert isinstance(mtl.balancer, eq.FairGrad)
    assert isinstance(mtl.teleport, eq.COST)
    assert mtl.teleport.schedule.start == 3
    assert mtl.teleport.delta == eq.teleport.OFT(blocks=2)
    assert mtl_of("fairgrad").teleport is None
    own = eq.COST()
    assert mtl_of("fairgrad:alpha=2", teleport=own).teleport is own
    with pytest.raises(InputError, match=r'^"cost\+fairgrad" has a teleport, and teleport= gives another'):
        mtl_of("cost+fairgrad", teleport=own)
    with pytest.raises(UnknownOptionError, match=r'COST has no option "strat". Did you mean "start"'):
        mtl_of("cost(strat=3)+fairgrad")
    with pytest.raises(UnknownMethodError, match=r'no teleport "cots". Did you mean "cost"'):
        mtl_of("cots+fairgrad")


def test_nested_options() -> None:
    nested = MethodSpec.parse(
        "cost(trigger=majority(fraction=0.6),optimizer=sgd(momentum=0.9))+consmtl:aggregator=cagrad(c=0.2)"
    )
    balancer, cost = nested.make()
    assert balancer.aggregator.c == 0.2
    assert cost.trigger.fraction == 0.6
    with pytest.raises(UnknownOptionError, match='"cagrad" has no option "d"'):
        eq.balancer("consmtl:aggregator=cagrad(d=0.2)")


def test_seeds() -> None:
    def seeds(text: str, seed: int | None) -> tuple[int, int]:
        balancer, cost = MethodSpec.parse(text).make(seed)
        return balancer.seed, cost.seed

    assert seeds("cost+rlw", 5) == (5, 5)
    assert seeds("cost(seed=1)+rlw:seed=2", 5) == (1, 2)[::-1]
    assert seeds("cost+rlw", None) == (0, 0)


def test_the_word_none_is_none_in_options() -> None:
    assert eq.balancer("dwa:steps_per_epoch=none").steps_per_epoch is None
    assert MethodSpec.parse("cost(scaling=none)+ls").make()[1].search.relative is False
