"""bf16 autocast and gradient scaling, in which nothing but rounding may differ from full precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import further_batches
from tests import problems
from tests.states import assert_same_state, kept

METHODS = ["ls", "si", "uw", "famo", "mgda", "pcgrad", "fairgrad", "nash-mtl", "modo"]


def scaler_of(scale: float = 2.0**10, **options: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale, **options)


def train(mtl: eq.MultiTaskOptimizer, steps: int = 6, micro_batches: int = 1) -> dict[str, Tensor]:
    for step in range(steps):
        mtl.step(*(problems.batch(seed=10 * step + part) for part in range(micro_batches)))
    return problems.parameters_of(mtl.objective.model)


def autocast_losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        return problems.losses(model, batch)


def autocast_optimizer(balancer: object, losses: Any, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = problems.Heads()
    objective = eq.Objective(model, losses, batches=problems.further_batches(model))
    return eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), lr=0.01), balancer, **options)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_autocast_around_the_steps_is_as_around_the_losses(method: str, micro_batches: int) -> None:
    """Autocast remembers casts of parameters for as long as it is on: they must not be used once the parameters moved."""
    inside = train(autocast_optimizer(eq.balancer(method), autocast_losses), 6, micro_batches)
    around = autocast_optimizer(eq.balancer(method), problems.losses)
    with torch.autocast("cpu", torch.bfloat16):
        outside = train(around, 6, micro_batches)
    assert problems.same(inside, outside)
    plain = train(autocast_optimizer(eq.balancer(method), problems.losses), 6, micro_batches)
    assert not problems.same(inside, plain), "autocast had no effect, so this test shows nothing"
    assert problems.same(inside, plain, atol=0.03)


def test_autocast_equals_a_loop_by_hand() -> None:
    mtl = autocast_optimizer("ls", autocast_losses)
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(6):
        optimizer.zero_grad()
        sum(autocast_losses(model, problems.batch(seed=10 * step)).values()).backward()
        optimizer.step()
    assert problems.same(train(mtl), problems.parameters_of(model))


def test_autocast_leaves_the_gramian_in_full_precision() -> None:
    mtl = autocast_optimizer("ls", problems.losses)
    with torch.autocast("cpu", torch.bfloat16):
        around = mtl.gramian(problems.batch())
    mtl.objective.losses = autocast_losses
    assert torch.equal(around, mtl.gramian(problems.batch()))


def test_autocast_with_features() -> None:
    def trained(around: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = problems.Heads()
        losses = problems.losses if around else autocast_losses
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), "mgda", features=model.encoder
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            return train(mtl)

    assert problems.same(trained(True), trained(False))


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("method", METHODS)
def test_scaling_changes_nothing_but_rounding(method: str, clip: float | None, micro_batches: int) -> None:
    plain = train(problems.optimizer_of(eq.balancer(method), lr=0.02, clip=clip), 6, micro_batches)
    mtl = problems.optimizer_of(eq.balancer(method), lr=0.02, clip=clip, scaler=scaler_of(growth_interval=2))
    assert problems.same(train(mtl, 6, micro_batches), plain, atol=2e-5)
    assert mtl.scaler is not None
    assert mtl.scaler.get_scale() == 2.0**13


def test_scaling_with_a_balancer_of_gradients() -> None:
    torchjd = pytest.importorskip("torchjd.aggregation")
    plain = train(problems.optimizer_of(torchjd.ConFIG(), lr=0.02))
    scaled = train(problems.optimizer_of(torchjd.ConFIG(), lr=0.02, scaler=scaler_of()))
    assert problems.same(plain, scaled, atol=2e-5)


def test_scaling_with_features() -> None:
    def trained(**options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = problems.Heads()
        mtl = problems.optimizer_of("mgda", model, lr=0.02, features=model.encoder, **options)
        return train(mtl)

    assert problems.same(trained(), trained(scaler=scaler_of()), atol=2e-5)


def test_a_scaler_that_is_off_is_as_none() -> None:
    off = torch.amp.GradScaler("cpu", enabled=False)
    assert problems.same(train(problems.optimizer_of("mgda")), train(problems.optimizer_of("mgda", scaler=off)))


OVERFLOWING = 1e35  # finite itself, but not once it is multiplied by a scale of 2**16


def overflowing_losses(where: str) -> Any:
    def losses(model: nn.Module, batch: tuple[problems.Batch, bool]) -> dict[str, Tensor]:
        assert isinstance(model, problems.Heads)
        found = problems.losses(model, batch[0])
        if batch[1]:
            parameter = model.encoder[0].weight if where == "shared" else model.heads[0].weight
            found["t0"] = found["t0"] + OVERFLOWING * (parameter - parameter.detach()).sum()
        return found

    return losses


@pytest.mark.parametrize("where", ["shared", "own"])
@pytest.mark.parametrize("method", METHODS)
def test_an_overflow_skips_the_step(method: str, where: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    further = [(data, False) for data in problems.further_batches(model)]
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, overflowing_losses(where), batches=further),
        torch.optim.Adam(model.parameters(), lr=0.01),
        eq.balancer(method, **({"update_every": 3} if method == "nash-mtl" else {})),
        scaler=scaler_of(2.0**16),
        clip=1.0,
    )
    for overflow in (True, False, False, True):
        before = mtl.state_dict()
        frozen = {key: str(before[key]) for key in ("model", "optimizer", "balancer")}
        assert mtl.scaler is not None
        scale = mtl.scaler.get_scale()
        mtl.step((problems.batch(seed=mtl.steps), overflow))
        assert mtl.last is not None
        assert mtl.last.skipped is overflow
        assert mtl.scaler.get_scale() == (scale / 2 if overflow else scale)
        after = mtl.state_dict()
        changed = {key for key in frozen if str(after[key]) != frozen[key]}
        assert changed.isdisjoint(frozen) if overflow else "model" in changed


def test_an_overflow_that_the_scaler_works_off() -> None:
    """Steps are skipped until the scale fits, and then they are those of full precision."""
    mtl = problems.optimizer_of("fairgrad", lr=0.02, scaler=scaler_of(2.0**127))
    taken = 0
    while taken < 6:
        mtl.step(problems.batch(seed=10 * taken))
        assert mtl.last is not None
        taken += not mtl.last.skipped
        assert mtl.steps < 80
    assert mtl.steps > 6
    assert problems.same(
        problems.parameters_of(mtl.objective.model), train(problems.optimizer_of("fairgrad", lr=0.02)), atol=1e-4
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_drop_in_with_a_scaler(method: str) -> None:
    def trained(scaler: torch.amp.GradScaler | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = problems.Heads()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        balancer = eq.balancer(method)
        for step in range(6):
            optimizer.zero_grad()
            further = [problems.losses(model, problems.batch(seed=100 + k)) for k in range(further_batches(balancer))]
            eq.backward(problems.losses(model, problems.batch(seed=step)), balancer, scaler=scaler, further=further)
            if scaler is None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
            else:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                scaler.step(optimizer)
                scaler.update()
        return problems.parameters_of(model)

    assert problems.same(trained(None), trained(scaler_of()), atol=2e-5)


@pytest.mark.parametrize("options", [{"update_every": 1}, {"update_every": 3}])
def test_the_drop_in_meets_an_overflow(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    balancer, scaler = eq.NashMTL(**options), scaler_of(2.0**16)
    losses = overflowing_losses("shared")
    before = problems.parameters_of(model), kept(balancer.state_dict())
    report = eq.backward(losses(model, (problems.batch(), True)), balancer, scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    assert report.skipped
    assert scaler.get_scale() == 2.0**15
    assert_same_state((problems.parameters_of(model), balancer.state_dict()), before)


@pytest.mark.parametrize("method", ["uw", "fairgrad"])
def test_parameters_in_bfloat16(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads().bfloat16()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        return problems.losses(model, (batch[0].bfloat16(), batch[1].bfloat16()))

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), method)
    first = mtl.step(problems.batch())
    for _ in range(30):
        last = mtl.step(problems.batch())
    assert sum(last.values()) < sum(first.values())
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert mtl.last is not None
    assert mtl.last.losses.dtype == torch.float32
