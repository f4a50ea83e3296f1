"""The balanced loss in loops of one's own: what its backward pass leaves in ``.grad``, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equipoise as eq
from tests import problems
from tests.states import kept, same_state

UNAUDITED: dict[str, Any] = {"audit": 0}


def seeded(**options: Any) -> problems.Heads:
    torch.manual_seed(5)
    return problems.Heads(**options)


def grads(model: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def agree(first: nn.Module, second: nn.Module, atol: float) -> None:
    assert problems.same(problems.parameters_of(first), problems.parameters_of(second), atol=atol, rtol=0.0)


def expected(model: nn.Module, losses: dict[str, Tensor], weights: Tensor) -> list[Tensor]:
    total = sum(w * loss for w, loss in zip(weights.to(torch.float32), losses.values(), strict=True))
    return list(torch.autograd.grad(total, list(model.parameters()), retain_graph=True))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("method", ["fairgrad", "uw", "nash-mtl"])
@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_training_equals_the_optimizer(make: Callable[..., torch.optim.Optimizer], method: str, memory: float) -> None:
    """With the heads' own gradients the two ways in take the same steps."""
    first, second = seeded(), seeded()
    proxies = [eq.Proxy("last", audit=4, memory=memory) for _ in range(2)]
    balancers = [eq.balancer(method) for _ in range(2)]
    proxy = None if method == "uw" else proxies[0]
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(first, problems.losses), make(first.parameters(), lr=0.01), balancers[0], proxy=proxy
    )
    optimizer = make(second.parameters(), lr=0.01)
    heads: Any = "weighted" if method == "uw" else "own"  # weights of losses act on all that a loss reaches
    for step in range(6):
        batch = problems.batch(16, seed=step)
        mtl.step(batch)
        optimizer.zero_grad()
        eq.balanced_loss(problems.losses(second, batch), balancers[1], proxies[1], heads=heads).backward()
        optimizer.step()
    agree(first, second, 1e-4)


@pytest.mark.parametrize("named", [False, True])
def test_a_proxy_by_name_audits_once_in_many_steps(named: bool) -> None:
    model, balancer = seeded(), eq.FairGrad()
    audits = []
    for step in range(5):
        losses = problems.losses(model, problems.batch(16, seed=step))
        audits.append(eq.balanced_loss(losses, "fairgrad" if named else balancer).report.audit)
    # A balancer that is made anew in every step cannot count them.
    assert [audit is not None for audit in audits] == [not named, False, False, False, False]
    with pytest.raises(eq.InputError, match="before the loop"):
        eq.balanced_loss(losses, "fairgrad", "auto")


def test_two_steps_of_sharpness_aware_minimization() -> None:
    model, balancer, proxy = seeded(), eq.FairGrad(), eq.Proxy("last", **UNAUDITED)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batch = problems.batch(16)
    start = problems.parameters_of(model)
    for radius in (0.05, 0.0):
        optimizer.zero_grad()
        losses = problems.losses(model, batch)
        loss = eq.balanced_loss(losses, balancer, proxy)
        want = expected(model, losses, loss.report.weights)
        loss.backward()
        torch.testing.assert_close(grads(model), want)
        if radius:
            norm = torch.nn.utils.get_total_norm(grads(model))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(parameter.grad, alpha=float(radius / norm))
    model.load_state_dict(start)
    optimizer.step()
    assert proxy.steps == 2


def test_losses_with_fixed_weights_are_added() -> None:
    model, other = seeded(), seeded()
    balancer, same = eq.UW(), eq.UW()
    for _ in range(2):
        losses = problems.losses(model, problems.batch())
        penalty = sum(p.square().sum() for p in model.parameters())
        plain = eq.balanced_loss(problems.losses(other, problems.batch()), same)
        loss = eq.balanced_loss({**losses, "penalty": penalty}, balancer, fixed={"penalty": 0.1, "absent": 2.0})
        assert loss.report.tasks == plain.report.tasks  # type: ignore[attr-defined]
        assert torch.equal(loss.report.fixed["penalty"], penalty.detach())  # type: ignore[attr-defined, union-attr]
        for network, value in ((model, loss), (other, plain)):
            network.zero_grad()
            value.backward()
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one.grad, two.grad + 0.2 * one.detach())
    before = kept(balancer.state_dict())
    with pytest.raises(eq.errors.NonFiniteError, match="penalty"):
        eq.balanced_loss({**losses, "penalty": penalty * torch.inf}, balancer, fixed={"penalty": 0.1})
    assert same_state(before, balancer.state_dict())
    with pytest.raises(eq.InputError, match='heads="own"'):
        eq.balanced_loss(losses, balancer, heads="own", fixed={"penalty": 0.1})


def test_lbfgs_is_refused() -> None:
    model, balancer = seeded(), eq.balancer("nash-mtl")
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    before = kept(balancer.state_dict())
    with pytest.raises(eq.InputError, match="LBFGS"):
        optimizer.step(lambda: eq.balanced_loss(problems.losses(model, problems.batch(16)), balancer))
    assert same_state(balancer.state_dict(), before)


def test_without_gradients_there_is_nothing_to_balance() -> None:
    with torch.no_grad(), pytest.raises(eq.InputError, match="no_grad"):
        eq.balanced_loss(problems.losses(seeded(), problems.batch(16)), eq.FairGrad())


@pytest.mark.parametrize("heads", ["weighted", "own"])
def test_a_gradient_scaler_changes_nothing(heads: Any) -> None:
    plain, scaled = seeded(), seeded()
    for model, scaler in ((plain, None), (scaled, torch.amp.GradScaler("cpu", init_scale=1024.0))):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        balancer, proxy = eq.FairGrad(), eq.Proxy("last", **UNAUDITED)
        for step in range(3):
            optimizer.zero_grad()
            loss = eq.balanced_loss(problems.losses(model, problems.batch(16, seed=step)), balancer, proxy, heads=heads)
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
    agree(plain, scaled, 1e-5)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("proxy", ["last", "features", "exact"])
def test_autocast(proxy: str, inside: bool) -> None:
    """Called inside or outside of the region, with a graph in bfloat16."""
    model, batch = seeded(), problems.batch(16)
    with torch.autocast("cpu", torch.bfloat16):
        losses = problems.losses(model, batch)
        loss = eq.balanced_loss(losses, eq.FairGrad(), proxy) if inside else None
    loss = eq.balanced_loss(losses, eq.FairGrad(), proxy) if loss is None else loss
    want = expected(model, losses, loss.report.weights)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(grads(model), want, rtol=2e-2, atol=1e-3)


def test_accumulation_adds_up_what_each_part_has_been_given() -> None:
    model, balancer, proxy = seeded(), eq.FairGrad(), eq.Proxy("last", **UNAUDITED)
    total = [torch.zeros_like(p) for p in model.parameters()]
    for part in range(3):
        losses = problems.losses(model, problems.batch(16, seed=part))
        loss = eq.balanced_loss(losses, balancer, proxy)
        total = [t + g / 3 for t, g in zip(total, expected(model, losses, loss.report.weights), strict=True)]
        (loss / 3).backward()
    torch.testing.assert_close(grads(model), total)


class Checkpointed(problems.Heads):
    """Checkpoints the first layer, the whole encoder, or a head."""

    def __init__(self, part: str, reentrant: bool) -> None:
        super().__init__()
        self.part, self.reentrant = part, reentrant

    def forward(self, inputs: Tensor) -> list[Tensor]:
        def run(part: str, module: nn.Module, x: Tensor) -> Tensor:
            return checkpoint(module, x, use_reentrant=self.reentrant) if self.part == part else module(x)

        features = run("first", self.encoder[:2], inputs.requires_grad_())
        features = run("last", self.encoder[2:], features)
        return [run("head", head, features).squeeze(-1) for head in self.heads]


def checkpointed(part: str, reentrant: bool) -> Checkpointed:
    torch.manual_seed(5)
    return Checkpointed(part, reentrant)


@pytest.mark.parametrize("proxy", ["last", "features", "exact"])
@pytest.mark.parametrize("heads", ["weighted", "own"])
@pytest.mark.parametrize("part", ["first", "last", "head"])
def test_checkpoints(part: str, heads: Any, proxy: str) -> None:
    results = []
    for model in (seeded(), checkpointed(part, False)):
        loss = eq.balanced_loss(problems.losses(model, problems.batch(16)), eq.FairGrad(), proxy, heads=heads)
        loss.backward()
        results.append([loss.report.weights, *grads(model)])
    torch.testing.assert_close(results[0], results[1])


REENTRANT = {
    ("first", "last"): "",
    ("last", "last"): "use_reentrant=False",
    ("head", "last"): "use_reentrant=False",
    ("first", "features"): "",
    ("last", "features"): "",
    ("first", "exact"): "use_reentrant=True",
}


@pytest.mark.parametrize(("part", "proxy"), REENTRANT)
def test_reentrant_checkpoints_work_below_the_proxy(part: str, proxy: str) -> None:
    model = checkpointed(part, True)
    losses, balancer = problems.losses(model, problems.batch(16)), eq.FairGrad()
    said = REENTRANT[part, proxy]
    if said:
        with pytest.raises(eq.InputError, match=said) as error:
            eq.balanced_loss(losses, balancer, proxy)
        assert "\n" not in str(error.value)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        return
    # The automatic audit, which would enter the checkpoint, is left out.
    loss = eq.balanced_loss(losses, balancer, proxy)
    assert loss.report.audit is None
    loss.backward()
    plain = seeded()
    other = problems.losses(plain, problems.batch(16))
    torch.testing.assert_close(grads(model), expected(plain, other, loss.report.weights))


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_encoders(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Kernels that were kept for this machine's own instructions are wrong where others are asked for.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    torch._dynamo.reset()
    model, plain = seeded(), seeded()
    body = torch.compile(model.encoder[:2], backend=backend)

    def losses(batch: problems.Batch, first: Callable[[Tensor], Tensor], of: problems.Heads) -> dict[str, Tensor]:
        features = of.encoder[2](first(batch[0]))
        return {
            f"t{k}": problems.SCALES[k] * (head(features).squeeze(-1) - batch[1][:, k]).square().mean()
            for k, head in enumerate(of.heads)
        }

    try:
        body(problems.batch(16)[0])
    except torch._dynamo.exc.BackendCompilerFailed:
        pytest.skip("the C++ compiler of this machine does not get along with inductor")
    balancers = eq.FairGrad(), eq.FairGrad()
    proxies = [eq.Proxy("last"), eq.Proxy("last", **UNAUDITED)]
    for step in range(3):
        model.zero_grad()
        plain.zero_grad()
        batch = problems.batch(16, seed=step)
        loss = eq.balanced_loss(losses(batch, body, model), balancers[0], proxies[0])
        assert loss.report.audit is None  # it would run the compiled backward pass once per task
        loss.backward()
        eq.balanced_loss(losses(batch, plain.encoder[:2], plain), balancers[1], proxies[1]).backward()
        torch.testing.assert_close(grads(model), grads(plain))
    with pytest.raises(eq.InputError, match="compiled"):
        eq.balanced_loss(losses(batch, body, model), balancers[0], "exact")


@pytest.mark.parametrize("proxy", ["last", "features", "exact", "auto"])
def test_a_model_that_is_compiled_as_a_whole_is_refused(proxy: str) -> None:
    torch._dynamo.reset()
    model = seeded()
    losses = problems.losses(torch.compile(model, backend="aot_eager"), problems.batch(16))
    with pytest.raises(eq.InputError, match="compile") as error:
        eq.balanced_loss(losses, eq.FairGrad(), proxy)
    assert "\n" not in str(error.value)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_head_whose_compiled_backward_pass_runs_once_only_is_refused() -> None:
    torch._dynamo.reset()
    model = seeded()
    head = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)), backend="aot_eager")

    def losses() -> dict[str, Tensor]:
        features = model.encoder(problems.batch(16)[0])
        return {"a": head(features).square().mean(), "b": model.heads[1](features).square().mean()}

    sum(losses().values()).backward()  # type: ignore[union-attr]
    with pytest.raises(eq.InputError, match="compile"):
        eq.balanced_loss(losses(), eq.FairGrad(), eq.Proxy("last", **UNAUDITED))


def test_a_network_whose_gradients_reach_the_model_is_refused() -> None:
    model = seeded()
    balancer = eq.LDCMTL(router="mlp", features=model.encoder, formulation="released", initial=[1.0, 8.0, 0.1])
    losses = problems.losses(model, problems.batch(16))
    with pytest.raises(eq.InputError, match="network"):
        eq.balanced_loss(losses, balancer)
