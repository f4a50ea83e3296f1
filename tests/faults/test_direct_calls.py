"""Balancers and solvers called by hand: arrays, lists, half precision and graphs are answered, the rest gets one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation
from equipoise.metrics.conflict import ConflictTally
from tests.faults.test_scales import BY_GRAMIAN, BY_LOSSES, BY_ROWS, SOLVERS

GRAMIAN = np.array([[4.0, 0.5, -0.25], [0.5, 1.0, -0.5], [-0.25, -0.5, 2.0]])
LOSSES = np.array([2.0, 0.5, 1.0])
ROWS = np.array([[1.0, -2.0, 0.5, 0.0], [0.5, 1.0, -1.0, 2.0], [-1.0, 0.25, 0.5, 1.0]])
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "NumPy": lambda values: values,
    "single NumPy": lambda values: values.astype(np.float32),
    "lists": lambda values: values.tolist(),
    "lists of tensors": lambda values: [torch.tensor(entry) for entry in values],
    "with a graph": lambda values: torch.tensor(values, requires_grad=True),
    "lists with a graph": lambda values: [torch.tensor(entry, requires_grad=True) for entry in values],
    "sparse": lambda values: torch.tensor(values).to_sparse(),
    "transposed": lambda values: torch.tensor(values.T.copy()).t(),
    "read-only": lambda values: np.frombuffer(values.tobytes()).reshape(values.shape),
}
# What is asked of which methods, how, and about what.
ASKED = [*((name, "weights", LOSSES) for name in BY_LOSSES), *((name, "weights", GRAMIAN) for name in BY_GRAMIAN)]
ASKED += [(name, "direction", ROWS) for name in BY_ROWS]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "call", "values"), ASKED, ids=[name for name, *_ in ASKED])
def test_any_form_of_numbers_has_the_same_answer(name: str, call: str, values: np.ndarray, form: str) -> None:
    expected = getattr(eq.balancer(name), call)(torch.tensor(values))
    given = FORMS[form](values)
    found = getattr(eq.balancer(name), call)(given)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("name", "call", "values"), ASKED, ids=[name for name, *_ in ASKED])
def test_tensors_keep_their_precision(name: str, call: str, values: np.ndarray, dtype: torch.dtype) -> None:
    found = getattr(eq.balancer(name), call)(torch.tensor(values, dtype=dtype))
    assert found.dtype == dtype
    if name == "graddrop":
        return  # which draws other random numbers in another precision
    expected = getattr(eq.balancer(name), call)(torch.tensor(values))
    assert_allclose(found.double(), expected, rtol=0.05, atol=0.02)


def test_whole_numbers_are_numbers() -> None:
    assert eq.MGDA().weights(torch.tensor([[4, 0], [0, 1]])).tolist() == [0.2, 0.8]
    assert eq.SI(epsilon=0.0).weights([2, 8]).tolist() == [0.5, 0.125]
    assert eq.IMTLG().weights(np.eye(2, dtype=np.int64) * 4).tolist() == [0.5, 0.5]


BAD: dict[str, Any] = {
    "a number": 1.0,
    "no dimension": torch.tensor(1.0),
    "nothing": None,
    "none at all": torch.zeros(0),
    "an empty matrix": torch.zeros(0, 0),
    "empty lists": [],
    "ragged lists": [[1.0, 2.0], [3.0]],
    "text": "1 2 3",
    "texts": ["1", "2"],
    "complex": torch.ones(3, 3, dtype=torch.complex64),
    "complex NumPy": np.ones((3, 3), dtype=complex),
    "objects": np.array([object(), None]),
    "a mapping": {"a": 1.0},
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("name", "call", "values"), ASKED, ids=[name for name, *_ in ASKED])
def test_what_holds_no_numbers_gets_one_line(name: str, call: str, values: np.ndarray, bad: str) -> None:
    balancer = eq.balancer(name)
    before = balancer.state_dict()
    with pytest.raises(eq.InputError) as caught:
        getattr(balancer, call)(BAD[bad])
    assert "\n" not in str(caught.value)
    assert str(balancer.state_dict()) == str(before)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_refuse_what_holds_no_numbers(name: str, bad: str) -> None:
    value: Any = BAD[bad]
    solve = SOLVERS[name]
    whole = isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 2 and len(value)
    if name in ("simplex", "groups", "nonnegative programme") and not whole:
        return  # the test itself takes these apart
    with pytest.raises(eq.InputError) as caught:
        solve(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_take_any_form_of_numbers(name: str, form: str) -> None:
    if name in ("simplex", "groups", "nonnegative programme") and "lists" in form:
        return  # the test itself takes these apart
    given = FORMS[form](GRAMIAN)
    if name in ("simplex", "groups") and form == "sparse":
        given = given.to_dense()
    if name == "nonnegative programme":
        found = solvers.nonnegative_quadratic_program(given, np.ones(3))
        expected = solvers.nonnegative_quadratic_program(GRAMIAN, np.ones(3))
    else:
        found, expected = SOLVERS[name](given), SOLVERS[name](GRAMIAN)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: solvers.fair_weights(GRAMIAN, "2"),  # type: ignore[arg-type]
        lambda: solvers.conflict_averse_weights(GRAMIAN, None),  # type: ignore[arg-type]
        lambda: solvers.conflict_averse_direction(GRAMIAN, torch.ones(2)),  # type: ignore[arg-type]
        lambda: solvers.constrained_descent(GRAMIAN, "much"),  # type: ignore[arg-type]
        lambda: solvers.group_values(LOSSES, 2.5),  # type: ignore[arg-type]
        lambda: solvers.group_values(LOSSES, "2"),  # type: ignore[arg-type]
        lambda: solvers.project_on_simplex(LOSSES, "1"),  # type: ignore[arg-type]
        lambda: solvers.project_conflicts(GRAMIAN, [[1, 2], [0]]),
        lambda: solvers.project_conflicts(GRAMIAN, None),  # type: ignore[arg-type]
        lambda: solvers.vaccinate(GRAMIAN, [[1, 2], [0]], GRAMIAN),
        lambda: solvers.random_orders(2.5, np.random.default_rng(0)),  # type: ignore[arg-type]
        lambda: solvers.random_orders(2, torch.Generator()),  # type: ignore[arg-type]
        lambda: solvers.aligned_weights(GRAMIAN, ["a", "b", "c"]),  # type: ignore[arg-type]
        lambda: solvers.minimum_norm_residual(GRAMIAN, "abc"),
    ],
)
def test_what_stands_beside_a_gramian_is_looked_at_too(call: Callable[[], object]) -> None:
    with pytest.raises(eq.InputError):
        call()


def test_masked_entries_are_not_read() -> None:
    hidden = np.ma.masked_array(GRAMIAN, mask=[[False, True, False], [True, False, False], [False] * 3])
    with pytest.raises(eq.NonFiniteError):
        eq.MGDA().weights(hidden)
    with pytest.raises(eq.InputError, match="not a number"):
        solvers.minimum_norm_point(hidden)


@pytest.mark.parametrize(("scale", "dtype"), [(6e-8, torch.float16), (1e-44, torch.float32)])
def test_answers_that_the_precision_cannot_hold_are_refused(scale: float, dtype: torch.dtype) -> None:
    small = torch.eye(2, dtype=dtype) * scale
    with pytest.raises(eq.InputError, match=r"which float\d\d cannot hold; .*ask in float64"):
        eq.FairGrad(alpha=50.0).weights(small)
    assert torch.isfinite(eq.FairGrad(alpha=50.0).weights(small.double())).all()
    with pytest.raises(eq.InputError, match="float16 cannot hold"):
        eq.SI().weights(torch.tensor([1e-6, 1.0], dtype=torch.float16))


def test_a_gramian_that_is_not_finite_names_its_tasks() -> None:
    bad = torch.eye(3)
    bad[1, 1] = torch.inf
    with pytest.raises(eq.NonFiniteError, match="task1") as caught:
        eq.MGDA().weights(bad)
    assert caught.value.tasks == ("task1",)


# -- decide() by hand

TASKS = ("a", "b", "c")


@pytest.mark.parametrize("form", FORMS)
def test_decisions_on_any_form_of_numbers(form: str) -> None:
    read = FORMS[form]
    by_losses = eq.SI().decide(Observation(TASKS, (0, 1, 2), read(LOSSES)))
    assert_allclose(by_losses, eq.SI().weights(LOSSES), rtol=1e-6)
    by_gramian = eq.MGDA().decide(Observation(TASKS, (0, 1, 2), gramian=read(GRAMIAN)))
    assert_allclose(by_gramian, eq.MGDA().weights(GRAMIAN), rtol=1e-6)
    by_rows = eq.DBMTL(log_losses=False).decide(Observation(TASKS, (0, 1, 2), gradients=read(ROWS)))
    assert_allclose(by_rows, eq.DBMTL(log_losses=False).direction(ROWS), rtol=1e-6)
    half = Observation(TASKS, (0, 1, 2), gramian=torch.tensor(GRAMIAN * 6e-8, dtype=torch.float16))
    assert torch.isfinite(eq.FairGrad(alpha=50.0).decide(half)).all()


@pytest.mark.parametrize(("name", "call", "values"), ASKED, ids=[name for name, *_ in ASKED])
def test_a_decision_says_what_it_lacks(name: str, call: str, values: np.ndarray) -> None:
    balancer = eq.balancer(name)
    if isinstance(balancer, eq.balance.LossBalancer) and not balancer.depends_on_losses:
        return
    if name in ("gradnorm", "rotograd"):  # decides on what it has learned; has no model here
        return
    with pytest.raises(eq.InputError):
        balancer.decide(Observation(TASKS, (0, 1, 2)))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"losses": torch.ones(2)}, r"losses must have the shape \[3\] for 3 tasks present; got \[2\]"),
        ({"losses": 1.0}, r"\[K\]; got \[\]"),
        ({"gramian": np.ones((2, 3))}, r"gramian must have the shape \[3, 3\]"),
        ({"gradients": torch.ones(2, 5)}, r"gradients must have the shape \[3, P\]"),
        ({"losses": ["x"]}, "no numbers"),
    ],
)
def test_observations_fit_their_tasks(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(eq.InputError, match=says):
        Observation(TASKS, (0, 1, 2), **parts)
    with pytest.raises(eq.InputError, match="positions among 3 tasks"):
        Observation(TASKS, (1, 3))


# -- the Gramian of gradients by hand


@pytest.mark.parametrize("form", FORMS)
def test_gramians_of_any_form_of_numbers(form: str) -> None:
    assert_allclose(eq.gramian(FORMS[form](ROWS)), ROWS @ ROWS.T, rtol=1e-6)


@pytest.mark.parametrize("bad", BAD)
def test_gramians_of_nothing_get_one_line(bad: str) -> None:
    if bad.startswith("complex"):
        return  # counts as pairs of reals
    with pytest.raises(eq.InputError):
        eq.gramian(BAD[bad])


def test_conflicts_of_gramians_of_any_form() -> None:
    expected = ConflictTally(TASKS)
    expected.add(GRAMIAN)
    for form in FORMS:
        found = ConflictTally(TASKS)
        found.add(FORMS[form](GRAMIAN))
        assert_allclose(found._cosines, expected._cosines, rtol=1e-6)
    for bad in BAD:
        with pytest.raises(eq.InputError):
            ConflictTally(TASKS[:2]).add(BAD[bad])


def test_observing_by_hand() -> None:
    balancer = eq.FAMO()
    with pytest.raises(eq.InputError, match="before any decision"):
        balancer.observe(torch.ones(3), torch.ones(3), (0, 1, 2))
    balancer.decide(Observation(TASKS, (0, 1, 2), LOSSES))
    before = balancer.state_dict()
    for bad in ((torch.ones(2), torch.ones(3), (0, 1, 2)), (1.0, 2.0, (0, 1, 2)), (["x"], ["y"], (0,))):
        with pytest.raises(eq.InputError):
            balancer.observe(*bad)  # type: ignore[arg-type]
        assert str(balancer.state_dict()) == str(before)
    lists, tensors = eq.FAMO(), eq.FAMO()
    for each, read in ((lists, lambda values: values.tolist()), (tensors, torch.tensor)):
        each.decide(Observation(TASKS, (0, 1, 2), LOSSES))
        each.observe(read(LOSSES), read(LOSSES / 2), (0, 1, 2))
    assert str(lists.state_dict()) == str(tensors.state_dict())
