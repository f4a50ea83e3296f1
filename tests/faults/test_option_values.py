"""Values of options, in text and in Python: of the kind that the constructor's annotation says, or refused in one line."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.balance.registry import methods
from equipoise.errors import EquipoiseError, InputError
from equipoise.options import checked, kinds_of
from equipoise.study import parse_method
from equipoise.study.task_weights import task_weights
from equipoise.teleport import COST
from equipoise.teleport.text import options_of

VALUES = (
    "nan",
    "None",
    "true",
    "2.5",
    "1;2",
    "word",
    "[1,2]",
    "inf",
    "-1",
    "[]",
    "{}",
    "'x'",
    "[nan,1]",
    "[true,1]",
    "(1,)",
    "1j",
    "w(x=1)",
    "10**9",
    "[[1]]",
    "1000000000000000000000",
)
ENTRIES = [(f"{info.name}:", "", option) for info in (*methods(), *task_weights()) for option in info.options]
ENTRIES += [("cost(", ")+ls", option) for option in options_of(COST())]
ENTRIES += [("cost(delta=oft,", ")+ls", "blocks"), ("cost(trigger=majority,", ")+ls", "fraction")]


@pytest.mark.parametrize(("before", "after", "option"), ENTRIES, ids=["".join(entry) for entry in ENTRIES])
def test_every_value_of_every_option_is_taken_or_refused_in_one_line(before, after, option) -> None:
    taken = []
    for value in VALUES:
        with contextlib.suppress(EquipoiseError):
            parse_method(f"{before}{option}={value}{after}")
            taken.append(value)
    assert "nan" not in taken


REFUSED = {
    "cagrad:c=nan": "c must be finite and at least 0; got nan",
    "uw:initial=nan": 'the option "initial" of method "uw" must be a number; got nan',
    "upgrad:preference=word": 'the option "preference" of method "upgrad" must be a list of numbers',
    "cagrad:c=true": 'the option "c" of method "cagrad" must be a number; got True',
    "ls:weights=1;2": "must be a list of numbers, a mapping from names to numbers or none; got '1;2'",
    "ls:weights=[1,true]": "must be a list of numbers",
    "fairgrad:alpha=None": 'the option "alpha" of method "fairgrad" must be a number; got None',
    "nash-mtl:update_every=2.5": "must be a whole number; got 2.5",
    "nash-mtl:update_every=true": "must be a whole number; got True",
    "cagrad:rescale=1": "must be true or false; got 1",
    "cagrad:rescale=yes": "must be true or false; got 'yes'",
    "ldc-mtl:tau=3": "must be one of weights, ones; got",
    "famo:lr=word": "must be a number; got 'word'",
    "forum:lower_lr=None": 'the option "lower_lr" of method "forum" must be a number; got None',
    "moml:lower_steps=1.5": "must be a whole number; got 1.5",
    "cost(steps=2.5)+ls": 'the option "steps" of COST must be a whole number; got 2.5',
    "cost(cooldown=true)+ls": "must be a whole number; got True",
    "cost(gamma=nan)+ls": "must be a number; got nan",
    "cost(seed=1.5)+ls": "must be a whole number; got 1.5",
    "cost(trigger=majority(fraction=true))+ls": "must be a number; got True",
    "pcgrad:seed=-1": "cannot be made of these options",
    "cagrad:c=0.2,c=0.3": 'gives the option "c" twice',
    "cost(start=1,start=1)+ls": 'gives the option "start" twice',
    "cost(delta=oft(blocks=2),blocks=3)+ls": "is given twice",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text) -> None:
    with pytest.raises(InputError) as caught:
        parse_method(text)
    assert REFUSED[text] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [("nash-mtl:update_every=2.0", "update_every", 2), ("bayesagg-mtl:samples=1e3", "samples", 1000), ("cagrad:c=0", "c", 0)],
)
def test_whole_numbers_may_be_written_as_others_are(text, option, value) -> None:
    made = parse_method(text).make(0)
    given = getattr(made, option)
    assert given == value
    if option in ("update_every", "samples"):
        assert type(given) is int


PYTHON = {
    "nan": lambda: eq.CAGrad(c=math.nan),
    "NumPy's": lambda: eq.FairGrad(np.float64("nan")),
    "truth value": lambda: eq.CAGrad(True),
    "none": lambda: eq.FairGrad(alpha=None),
    "text": lambda: eq.LS(weights="1;2"),
    "no whole number": lambda: eq.NashMTL(update_every=2.5),
    "nan among numbers": lambda: eq.LS([1.0, math.nan]),
    "nan by name": lambda: eq.LS({"a": math.nan, "b": 1.0}),
    "by the registry": lambda: eq.balancer("cagrad", c=math.nan),
    "number for a truth value": lambda: eq.CAGrad(rescale=1),
}


@pytest.mark.parametrize("call", PYTHON)
def test_the_same_in_python(call) -> None:
    with pytest.raises(InputError, match="must be"):
        PYTHON[call]()


def test_what_python_has_for_numbers_is_taken() -> None:
    assert eq.CAGrad(np.float32(0.5)).c == np.float32(0.5)
    assert eq.NashMTL(np.int64(3)).update_every == 3
    assert eq.NashMTL(3.0).update_every == 3
    for weights in (np.array([1.0, 3.0]), torch.tensor([1.0, 3.0]), (1, 3)):
        eq.LS(weights)
    assert parse_method("ls:weights=[1,2.5]").spec.options["weights"] == [1, 2.5]


def test_wrong_arguments_are_still_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        eq.CAGrad(d=1)


def test_an_annotation_that_not_even_the_default_keeps_means_nothing() -> None:
    def make(width: int = 0.5, other: "Unknown" = 3) -> None:  # noqa: F821, UP037
        pass

    assert kinds_of(make) == {}
    assert checked(kinds_of(make), {"width": 0.7}, "mine") == {"width": 0.7}
