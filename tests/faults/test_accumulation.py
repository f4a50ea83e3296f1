"""Accumulation by hand: one balanced step of several micro-batches, scaled calls, and batches without labels among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.step.report import StepReport
from tests import problems
from tests.states import assert_same_state, kept

METHODS = problems.METHODS

Micro = tuple[problems.Batch, tuple[str, ...]]
ALL = ("t0", "t1", "t2")


def made(**options: Any) -> problems.Heads:
    torch.manual_seed(0)
    return problems.Heads(**options)


def some_losses(model: nn.Module, batch: Micro) -> dict[str, Tensor]:
    everything = problems.losses(model, batch[0]) if batch[1] else {}
    return {name: everything[name] for name in batch[1]}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.detach().clone() for name, p in model.named_parameters()}


def alike(first: dict[str, Tensor | None], second: dict[str, Tensor | None], **tolerance: float) -> bool:
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-7}
    return all(
        (first[name] is None) == (second[name] is None)
        and (first[name] is None or torch.allclose(first[name], second[name], **tolerance))  # type: ignore[arg-type]
        for name in first
    )


FULL: list[Micro] = [(problems.batch(seed=seed), ALL) for seed in range(3)]
PARTLY: list[Micro] = [
    (problems.batch(seed=0), ("t0",)),
    (problems.batch(seed=1), ()),
    (problems.batch(seed=2), ("t1", "t2")),
    (problems.batch(seed=3), ("t0", "t1")),
]


def stepped(method: str, steps: Sequence[Sequence[Micro]], **options: Any) -> tuple[problems.Heads, eq.Balancer]:
    model = made(**options)
    objective = eq.Objective(model, some_losses, tasks=ALL)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.05), problems.balancer_of(method))
    torch.manual_seed(3)
    for micro_batches in steps:
        mtl.step(*micro_batches)
    return model, mtl.balancer


def accumulated(
    method: str, steps: Sequence[Sequence[Micro]], *, late: bool, **options: Any
) -> tuple[problems.Heads, eq.Balancer]:
    model = made(**options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    balancer = problems.balancer_of(method)
    accumulator = eq.Accumulator(balancer, shared=model.encoder, tasks=ALL, model=model)
    torch.manual_seed(3)
    for micro_batches in steps:
        optimizer.zero_grad()
        for micro_batch in micro_batches:
            evaluate: Callable[[], Any] = lambda micro_batch=micro_batch: some_losses(model, micro_batch)  # noqa: E731
            accumulator.add(evaluate if late else evaluate())
        report = accumulator.backward()
        optimizer.step()
        if balancer.watches:
            before = report.losses
            sums: dict[str, list[Tensor]] = {}
            with torch.no_grad():
                for micro_batch in micro_batches:
                    for name, loss in some_losses(model, micro_batch).items():
                        sums.setdefault(name, []).append(loss)
            after = torch.stack([torch.stack(sums[name]).mean() for name in report.tasks])
            balancer.observe(before, after, tuple(ALL.index(name) for name in report.tasks))
    return model, balancer


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:a batch held no task's loss")
def test_an_accumulator_is_a_step_of_micro_batches(method: str, late: bool) -> None:
    if method == "consmtl" and not late:
        with pytest.raises(eq.InputError, match="add functions"):
            accumulated(method, [FULL], late=late)
        return
    steps = [FULL, PARTLY, FULL]
    (one, first), (two, second) = stepped(method, steps), accumulated(method, steps, late=late)
    assert problems.same(problems.parameters_of(one), problems.parameters_of(two), rtol=1e-4, atol=1e-6)
    assert first.state_dict().keys() == second.state_dict().keys()


@pytest.mark.parametrize("method", ["si", "mgda"])
def test_functions_draw_the_same_masks_and_move_buffers_once(method: str) -> None:
    options = {"dropout": 0.3, "norm": True}
    (one, _), (two, _) = stepped(method, [FULL], **options), accumulated(method, [FULL], late=True, **options)
    assert problems.same(problems.parameters_of(one), problems.parameters_of(two), rtol=1e-4, atol=1e-6)
    for first, second in zip(one.buffers(), two.buffers(), strict=True):
        assert torch.allclose(first, second)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", ["ls", "uw", "mgda", "moco"])
def test_it_adds_to_grad(method: str, late: bool) -> None:
    """What was there before is neither scaled nor lost, partly labelled micro-batches or not."""

    def added(there: bool) -> dict[str, Tensor | None]:
        model = made()
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 2.0) if there else None
        accumulator = eq.Accumulator(method, model.encoder, tasks=ALL)
        for micro_batch in PARTLY:
            evaluate: Callable[[], Any] = lambda micro_batch=micro_batch: some_losses(model, micro_batch)  # noqa: E731
            accumulator.add(evaluate if late else evaluate())
        with pytest.warns(UserWarning, match="no task's loss"):
            accumulator.backward()
        return gradients(model)

    alone, both = added(False), added(True)
    assert alike({name: None if g is None else g + 2 for name, g in alone.items()}, both)


def test_a_failing_micro_batch_leaves_grad_alone() -> None:
    model = made()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    accumulator = eq.Accumulator("mgda", model.encoder)
    accumulator.add(problems.losses(model, problems.batch()))
    bad = problems.losses(model, problems.batch(seed=1))
    accumulator.add({**bad, "t2": bad["t2"] + (bad["t2"] - bad["t2"]).sqrt()})
    with pytest.raises(eq.NonFiniteError, match='"t2"'):
        accumulator.backward()
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in model.parameters())  # type: ignore[arg-type]
    assert len(accumulator) == 0
    with pytest.raises(eq.InputError, match=r"add\(\) some first"):
        accumulator.backward()


def test_what_an_accumulator_cannot_do() -> None:
    with pytest.raises(eq.InputError, match="further batches"):
        eq.Accumulator("modo")
    with pytest.raises(eq.InputError, match="MultiTaskOptimizer"):
        eq.Accumulator("rotograd")


# -- scaled calls


@pytest.mark.parametrize("method", METHODS)
def test_scale_multiplies_all_that_is_added(method: str) -> None:
    """Shared and task-specific parameters alike, and the balancer sees nothing of it."""

    def filled(scale: float) -> tuple[dict[str, Tensor | None], eq.Balancer, StepReport]:
        model, balancer = made(), problems.balancer_of(method)
        report = eq.backward(problems.losses(model, problems.batch()), balancer, model.encoder, scale=scale)
        return gradients(model), balancer, report

    (whole, first, plain), (part, second, scaled) = filled(1.0), filled(0.125)
    assert alike({name: None if g is None else g / 8 for name, g in whole.items()}, part)
    assert torch.equal(plain.losses, scaled.losses)
    if plain.gramian is not None:
        assert scaled.gramian is not None
        assert torch.allclose(plain.gramian, scaled.gramian, rtol=1e-6)
    assert first.state_dict().keys() == second.state_dict().keys()


@pytest.mark.parametrize("method", ["si", "mgda", "fairgrad"])
def test_dividing_the_losses_is_no_scaling(method: str) -> None:
    """Where the weights follow the units of the losses, dividing them changes nothing, or squares the division."""
    model, other = made(), made()
    eq.backward({name: loss / 4 for name, loss in problems.losses(model, problems.batch()).items()}, method, model.encoder)
    report = eq.backward(problems.losses(other, problems.batch()), method, other.encoder, scale=1 / 4)
    assert report.weights is not None
    found = [p.grad for p in model.encoder.parameters()], [p.grad for p in other.encoder.parameters()]
    if method == "si":
        assert all(torch.allclose(a, 4 * b, rtol=1e-4, atol=1e-7) for a, b in zip(*found, strict=True))  # type: ignore[arg-type,operator]
    weighted = zip(report.weights.float(), problems.losses(other, problems.batch()).values(), strict=True)
    by_hand = torch.autograd.grad(torch.stack([w * loss for w, loss in weighted]).sum(), list(other.encoder.parameters()))
    assert all(torch.allclose(a / 4, b, rtol=1e-4, atol=1e-7) for a, b in zip(by_hand, found[1], strict=True))  # type: ignore[arg-type]


def test_scale_goes_with_a_scaler_and_is_no_scaler() -> None:
    model, other = made(), made()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    eq.backward(problems.losses(model, problems.batch()), "mgda", model.encoder, scaler=scaler, scale=0.5)
    eq.backward(problems.losses(other, problems.batch()), "mgda", other.encoder, scale=32.0)
    assert alike(gradients(model), gradients(other))
    bad = problems.losses(model, problems.batch())
    bad["t1"] = bad["t1"] + (bad["t1"] - bad["t1"]).sqrt()
    with pytest.raises(eq.NonFiniteError, match='"t1"'):  # a scaler would look by itself; a scale does not
        eq.backward(bad, "mgda", model.encoder, scale=0.5)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(eq.InputError, match="scale must be a positive number"):
            eq.backward(problems.losses(model, problems.batch()), "mgda", scale=scale)


def test_double_precision_is_scaled_in_double_precision() -> None:
    model, other = made().double(), made().double()
    inputs, targets = problems.batch()
    batch = inputs.double(), targets.double()
    eq.backward(problems.losses(model, batch), "mgda", model.encoder, scale=1 / 3)
    eq.backward(problems.losses(other, batch), "mgda", other.encoder)
    third = {name: None if g is None else g / 3 for name, g in gradients(other).items()}
    assert alike(gradients(model), third, rtol=1e-13, atol=0.0)


# -- batches without any label


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:a batch held no task's loss")
def test_an_unlabelled_batch_is_as_if_it_had_not_been(method: str) -> None:
    nothing: Micro = (problems.batch(seed=9), ())

    def trained(between: bool) -> dict[str, Any]:
        model = made(dropout=0.3, norm=True)
        objective = eq.Objective(model, some_losses_of_all)
        mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), lr=0.01), problems.balancer_of(method))
        torch.manual_seed(3)
        for step in range(3):
            if between:
                assert mtl.step(nothing) == {}
                assert mtl.last is not None
                assert mtl.last.skipped
                assert mtl.last.tasks == ()
                assert mtl.unlabelled == step + 1
                assert mtl.step(nothing, nothing) == {} if step == 2 else True
            mtl.step((problems.batch(seed=step), ALL))
        assert mtl.steps == 3
        assert mtl.unlabelled == 5 * between
        return {**mtl.state_dict(), "unlabelled": 0, "random": torch.get_rng_state()}

    assert_same_state(trained(True), trained(False))


def some_losses_of_all(model: nn.Module, batch: Micro) -> dict[str, Tensor]:
    """As :func:`some_losses`, but evaluates the model in any case, so that statistics and random numbers move."""
    everything = problems.losses(model, batch[0])
    return {name: everything[name] for name in batch[1]}


@pytest.mark.parametrize("method", ["ls", "uw", "famo", "si", "mgda", "nash-mtl", "graddrop", "consmtl"])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_unlabelled_micro_batches_are_left_out(method: str, declared: bool, first: int) -> None:
    """They count as if they were not there, wherever among the others they come."""

    def trained(micro_batches: Sequence[Micro]) -> dict[str, Tensor]:
        model = made()
        objective = eq.Objective(model, some_losses, tasks=ALL if declared else None)
        mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.05), problems.balancer_of(method))
        for _ in range(2):
            mtl.step(*micro_batches)
        assert objective.tasks.names == ALL
        assert mtl.unlabelled == 2 * sum(not present for _, present in micro_batches)
        return problems.parameters_of(model)

    labelled = FULL[:2]
    micro_batches = [*labelled[:first], (problems.batch(seed=7), ()), *labelled[first:]]
    with pytest.warns(UserWarning, match="no task's loss") as said:
        found = trained(micro_batches)
    assert len(said) == 1
    assert problems.same(found, trained(labelled), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("method", ["modo", "sdmgrad"])
@pytest.mark.filterwarnings("ignore:a batch held no task's loss")
def test_an_unlabelled_further_batch_moves_no_share(method: str, which: int) -> None:
    model = made()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, some_losses, tasks=ALL), torch.optim.SGD(model.parameters(), lr=0.05), eq.balancer(method)
    )
    further: list[Micro] = [FULL[1], FULL[2]]
    further[which] = (problems.batch(seed=7), ())
    mtl.step(FULL[0], further=further)
    assert torch.equal(mtl.balancer.state_dict()["shares"], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert mtl.steps == 1
    mtl.step(FULL[0], further=FULL[1:])
    assert not torch.equal(mtl.balancer.state_dict()["shares"], torch.full((3,), 1 / 3, dtype=torch.float64))


def test_unlabelled_batches_with_features() -> None:
    model = made()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, some_losses), torch.optim.SGD(model.parameters(), lr=0.05), "mgda", features="encoder"
    )
    with pytest.warns(UserWarning, match="no task's loss"):
        assert mtl.step((problems.batch(), ())) == {}
    assert set(mtl.step(FULL[0])) == set(ALL)


def test_unlabelled_batches_in_the_dropin() -> None:
    model, balancer = made(), eq.UW()
    before = kept(balancer.state_dict())
    with pytest.warns(UserWarning, match="no task's loss"):
        report = eq.backward({}, balancer, model.encoder)
    assert report.skipped
    assert report.tasks == ()
    assert gradients(model) == dict.fromkeys(gradients(model))
    assert_same_state(balancer.state_dict(), before)
    assert eq.backward({}, balancer).skipped
    assert eq.backward(problems.losses(model, problems.batch()), balancer).tasks == ALL


@pytest.mark.filterwarnings("ignore:a batch held no task's loss")
def test_teleports_do_not_meet_unlabelled_micro_batches() -> None:
    from tests.teleport.helpers import eager_cost

    model, cost = made(), eager_cost()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, some_losses), torch.optim.SGD(model.parameters(), lr=0.01), "mgda", teleport=cost
    )
    for seed in range(4):
        mtl.step((problems.batch(seed=seed), ALL), (problems.batch(seed=9), ()))
    assert cost.attempts


def test_looks_and_states() -> None:
    model = made()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, some_losses), torch.optim.SGD(model.parameters(), lr=0.05), "mgda")
    with pytest.raises(eq.InputError, match="holds no task's loss"):
        mtl.gramian((problems.batch(), ()))
    assert mtl.gramian((problems.batch(), ()), FULL[0]).shape == (3, 3)
    with pytest.warns(UserWarning, match="no task's loss"):
        mtl.step((problems.batch(), ()))
    state = kept(mtl.state_dict())
    mtl.load_state_dict({name: value for name, value in state.items() if name != "unlabelled"})  # as older versions saved it
    assert mtl.unlabelled == 0
    mtl.load_state_dict(state)
    assert mtl.unlabelled == 1
    with pytest.raises(eq.InputError, match="no losses were given"):
        eq.Objective(model, some_losses)((problems.batch(), ()))
