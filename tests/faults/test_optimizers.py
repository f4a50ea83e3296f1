"""Optimizers that step in the backward pass, that do not step, that evaluate several times, and several of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems
from tests.states import assert_same_state, kept
from tests.teleport.helpers import eager_cost

TASKS = ("t0", "t1", "t2")


def made(seed: int = 0, **options: Any) -> problems.Heads:
    torch.manual_seed(seed)
    return problems.Heads(**options)


def combined(model: nn.Module, batch: problems.Batch) -> Tensor:
    return torch.stack(list(problems.losses(model, batch).values())).sum()


# -- steps inside the backward pass


def steps_at_once(model: nn.Module, *, clear: bool) -> list[torch.optim.Optimizer]:
    optimizers = {parameter: torch.optim.SGD([parameter], lr=0.1, momentum=0.9) for parameter in model.parameters()}

    def step(parameter: Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]
        if clear:
            parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    return list(optimizers.values())


def writes_past_torch(model: nn.Module) -> list[torch.optim.Optimizer]:
    def step(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.data.add_(parameter.grad, alpha=-0.1)

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    return []


def steps_when_the_next_arrives(model: nn.Module) -> list[torch.optim.Optimizer]:
    """As LOMO does: each gradient that arrives has all those before it spent."""

    def spend(gradient: Tensor) -> Tensor:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.data.add_(parameter.grad, alpha=-0.1)
                parameter.grad = None
        return gradient

    for parameter in model.parameters():
        parameter.register_hook(spend)
    return []


def fused_by_torch(model: nn.Module) -> list[torch.optim.Optimizer]:
    from torch.distributed.optim import _apply_optimizer_in_backward

    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), optimizer_kwargs={"lr": 0.1})
    return []


FUSED: dict[str, Callable[[nn.Module], list[torch.optim.Optimizer]]] = {
    "stepped": lambda model: steps_at_once(model, clear=False),
    "stepped and cleared": lambda model: steps_at_once(model, clear=True),
    "past torch": writes_past_torch,
    "the next one": steps_when_the_next_arrives,
    "torch's": fused_by_torch,
}


@pytest.mark.parametrize(  # every way with every method, and each of both with and without the drop-in
    ("way", "method", "dropin"),
    [
        (way, method, (i + k) % 2 == 0)
        for i, way in enumerate(FUSED)
        for k, method in enumerate(["ls", "famo", "mgda", "graddrop"])
    ],
)
def test_a_step_inside_the_backward_pass_is_refused(way: str, method: str, dropin: bool) -> None:
    model = made()
    hidden = FUSED[way](model)
    before, states = problems.parameters_of(model), [kept(optimizer.state_dict()) for optimizer in hidden]
    balancer = eq.balancer(method)

    def step() -> None:
        if dropin:
            eq.backward(problems.losses(model, problems.batch()), balancer)
        else:
            objective = eq.Objective(model, problems.losses)
            eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.1), balancer).step(problems.batch())

    with pytest.raises(eq.InputError, match="steps inside the backward pass"):
        step()
    assert problems.same(problems.parameters_of(model), before)
    for optimizer, state in zip(hidden, states, strict=True):
        assert_same_state(optimizer.state_dict(), state)
    assert_same_state(balancer.state_dict(), eq.balancer(method).state_dict())


def test_hooks_that_step_later_only_are_refused_then() -> None:
    model, calls = made(), 0
    weight = model.heads[0].weight

    def step(parameter: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            with torch.no_grad():
                parameter.sub_(0.1)

    weight.register_post_accumulate_grad_hook(step)
    mtl = problems.optimizer_of("ls", model)
    mtl.step(problems.batch())
    mtl.step(problems.batch())
    with pytest.raises(eq.InputError, match="steps inside the backward pass"):
        mtl.step(problems.batch())


def test_hooks_that_look_or_change_gradients_are_welcome() -> None:
    def trained(hooked: bool) -> dict[str, Tensor]:
        model = made()
        seen: list[float] = []
        for parameter in model.parameters() if hooked else ():

            def note(parameter: Tensor) -> None:
                assert parameter.grad is not None
                seen.append(float(parameter.grad.norm()))
                parameter.grad.mul_(1.0)

            parameter.register_post_accumulate_grad_hook(note)
        mtl = problems.optimizer_of("mgda", model)
        for seed in range(3):
            mtl.step(problems.batch(seed=seed))
        assert bool(seen) == hooked
        return problems.parameters_of(model)

    assert problems.same(trained(True), trained(False))


def test_a_forward_pass_may_change_parameters() -> None:
    """Weights that are normalised in place as the model runs are no step inside the backward pass."""

    class Normalised(problems.Heads):
        def forward(self, inputs: Tensor) -> list[Tensor]:
            with torch.no_grad():
                weight = self.encoder[0].weight
                assert isinstance(weight, Tensor)
                weight.div_(weight.norm())
            return super().forward(inputs)

    torch.manual_seed(0)
    model = Normalised()
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: None)
    mtl = problems.optimizer_of("mgda", model)
    for seed in range(3):
        mtl.step(problems.batch(seed=seed), problems.batch(seed=9))
    assert mtl.steps == 3


# -- optimizers that do not step


class EverySecond(torch.optim.SGD):
    """An optimizer that counts and steps every second time."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        return super().step(closure) if self.calls % 2 == 0 else None


def test_a_step_that_was_none_is_reported_as_skipped() -> None:
    model = made()
    mtl = problems.optimizer_of(eq.UW(), model, make=EverySecond)
    for step in range(4):
        before, state = problems.parameters_of(model), kept(mtl.balancer.state_dict())
        with pytest.warns(UserWarning, match="moved no parameter") if step == 0 else nullcontext():
            mtl.step(problems.batch())
        assert mtl.last is not None
        assert mtl.last.skipped == (step % 2 == 0)
        assert problems.same(problems.parameters_of(model), before) == mtl.last.skipped
        if mtl.last.skipped:
            assert_same_state(mtl.balancer.state_dict(), state)


class PastTorch(torch.optim.Optimizer):
    """Moves parameters by ``data``, which torch does not count as a change."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.add_(parameter.grad, alpha=-group["lr"])


@pytest.mark.parametrize("method", ["ls", "uw", "mgda"])
def test_optimizers_that_write_past_torch_do_step(method: str) -> None:
    def trained(make: Callable[..., torch.optim.Optimizer]) -> dict[str, Tensor]:
        model = made()
        mtl = problems.optimizer_of(method, model, make=make)
        for seed in range(3):
            mtl.step(problems.batch(seed=seed))
            assert mtl.last is not None
            assert not mtl.last.skipped
        return problems.parameters_of(model)

    assert problems.same(trained(PastTorch), trained(torch.optim.SGD), rtol=1e-6, atol=1e-8)


def test_accelerates_optimizer_within_accumulate_is_refused() -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = made()
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    plain, optimizer = accelerator.prepare(model, inner)
    mtl = eq.MultiTaskOptimizer(eq.Objective(plain, problems.losses), optimizer, "uw")
    before = problems.parameters_of(model)
    with pytest.raises(eq.InputError, match="inside accumulate"), accelerator.accumulate(plain):
        mtl.step(problems.batch())
    assert problems.same(problems.parameters_of(model), before)
    assert mtl.steps == 0
    # What the message says instead is one step of both.
    accelerator.gradient_state._set_sync_gradients(True)
    mtl.step(problems.batch(seed=0), problems.batch(seed=1))
    other = made()
    problems.optimizer_of("uw", other).step(problems.batch(seed=0), problems.batch(seed=1))
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other))


# -- closures


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation: climbs along the gradient, differentiates there, and steps from where it was."""

    def __init__(self, params: Any, lr: float, rho: float = 0.05, *, past_torch: bool = False) -> None:
        super().__init__(params, {"lr": lr, "rho": rho})
        self.past_torch = past_torch

    def climb(self) -> None:
        norm = torch.stack([p.grad.norm() for p in self.held()]).norm()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    offset = parameter.grad * (group["rho"] / norm)
                    self.state[parameter]["offset"] = offset
                    (parameter.data if self.past_torch else parameter).add_(offset)

    def held(self) -> Iterator[Any]:
        yield from (p for group in self.param_groups for p in group["params"] if p.grad is not None)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.climb()
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if "offset" in self.state[parameter]:
                    (parameter.data if self.past_torch else parameter).sub_(self.state[parameter].pop("offset"))
                    parameter.sub_(parameter.grad, alpha=group["lr"])
        return loss


class Strict(SAM):
    """Says by its signature that it needs a closure."""

    @torch.no_grad()
    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return super().step(closure)


class Careful(SAM):
    """Asserts that it has one."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        assert closure is not None, "a closure is needed"
        return super().step(closure)


class Wrapped(SAM):
    """Hides what it takes."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        return super().step(*args, **kwargs) if args else super().step(None)


class ByPassing(SAM):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr, past_torch=True)


def balanced(model: nn.Module, batch: problems.Batch, method: str) -> None:
    """Balanced gradients in ``.grad`` by the drop-in."""
    model.zero_grad()
    eq.backward(problems.losses(model, batch), eq.balancer(method))


@pytest.mark.parametrize("kind", [SAM, Strict, Careful, ByPassing])
@pytest.mark.parametrize("method", ["ls", "mgda", "pcgrad"])
def test_sharpness_aware_steps_balance_twice(kind: type[SAM], method: str) -> None:
    """At both points the gradient is the balanced one of that point."""
    model, other = made(), made()
    mtl = problems.optimizer_of(method, model, make=kind)
    by_hand = SAM(other.parameters(), lr=0.05)
    for seed in range(3):
        batch = problems.batch(seed=seed)
        mtl.step(batch)
        balanced(other, batch, method)
        by_hand.step(lambda batch=batch: balanced(other, batch, method))
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["uw", "famo", "nash-mtl", "gradnorm", "moco", "db-mtl", "ldc-mtl"])
def test_memories_move_once_per_step(method: str) -> None:
    """After the first step the balancer remembers what it would after a plain one, whatever was evaluated in between."""
    plain = problems.optimizer_of(method, made())
    sharp = problems.optimizer_of(method, made(), make=lambda params, lr: SAM(params, lr, rho=0.5))
    for mtl in (plain, sharp):
        mtl.step(problems.batch())
    first, second = plain.balancer.state_dict(), sharp.balancer.state_dict()
    if method == "famo":  # it looks at the losses after the step, which differ
        first, second = {"none": None}, {"none": None}
    assert_same_state(second, first)
    assert sharp.last is not None
    assert plain.last is not None
    assert torch.equal(sharp.last.losses, plain.last.losses)


def test_evaluations_of_a_step_draw_the_same_masks_and_move_buffers_once() -> None:
    model, other = made(dropout=0.4, norm=True), made(dropout=0.4, norm=True)
    torch.manual_seed(1)
    problems.optimizer_of("ls", model, make=SAM).step(problems.batch())
    after = torch.get_rng_state()
    torch.manual_seed(1)
    problems.losses(other, problems.batch())
    assert torch.equal(torch.get_rng_state(), after)
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
@pytest.mark.parametrize("method", ["ls", "mgda"])
def test_lbfgs(method: str, line_search: str | None) -> None:
    model, other = made(), made()
    batch = problems.batch()
    options: dict[str, Any] = {"lr": 0.1, "max_iter": 5, "line_search_fn": line_search}
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, problems.losses), torch.optim.LBFGS(model.parameters(), **options), method, clip=1e6
    )
    by_hand = torch.optim.LBFGS(other.parameters(), **options)
    balancer = eq.balancer(method)

    def closure() -> Tensor:
        by_hand.zero_grad()
        report = eq.backward(problems.losses(other, batch), balancer)
        assert report.weights is not None
        return (report.weights.to(report.losses) * report.losses).sum()

    for _ in range(3):
        losses = mtl.step(batch)
        by_hand.step(closure)  # type: ignore[arg-type]
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-4, atol=1e-6)
    assert method != "ls" or sum(losses.values()) < combined(made(), batch)


class Lion(torch.optim.SGD):
    """A user's own that evaluates a closure first, if it gets one."""

    def step(self, closure: Any = None) -> Any:
        value = closure() if closure is not None else None
        super().step()
        return value


def test_closures_that_are_called_at_once_cost_nothing() -> None:
    evaluations = 0

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        nonlocal evaluations
        evaluations += 1
        return problems.losses(model, batch)

    model, other = made(), made()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), Lion(model.parameters(), lr=0.05), "mgda")
    plain = problems.optimizer_of("mgda", other)
    for seed in range(3):
        mtl.step(problems.batch(seed=seed))
        plain.step(problems.batch(seed=seed))
    assert evaluations == 3
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other))


def refuses_closures(params: Any, lr: float) -> torch.optim.Optimizer:
    class Refusing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if closure is not None:
                raise RuntimeError("no closures here")
            return super().step()

    return Refusing(params, lr)


def test_optimizers_that_refuse_a_closure_step_without() -> None:
    model, other = made(), made()
    for mtl in (problems.optimizer_of("mgda", model, make=refuses_closures), problems.optimizer_of("mgda", other)):
        mtl.step(problems.batch())
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other))


@pytest.mark.parametrize("kind", ["sam", "lbfgs"])
def test_an_evaluation_that_is_not_finite_changes_nothing(kind: str) -> None:
    model = made(norm=True)
    points = 0

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        nonlocal points
        points += 1
        found = problems.losses(model, batch)
        return {**found, "t1": found["t1"] * (float("nan") if points == 5 else 1.0)}

    optimizer: torch.optim.Optimizer = SAM(model.parameters(), lr=0.05)
    if kind == "lbfgs":
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3)
        points = 1  # it evaluates three times per step, the first one included
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, eq.UW())
    while points < 4:
        mtl.step(problems.batch())
    before, random = kept(mtl.state_dict()), torch.get_rng_state()
    with pytest.raises(eq.NonFiniteError, match='"t1"'):
        mtl.step(problems.batch())
    assert_same_state(mtl.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)


def test_closures_do_not_go_with_a_scaler() -> None:
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(eq.InputError, match="closure does not go with a scaler"):
        problems.optimizer_of("ls", made(), make=torch.optim.LBFGS, scaler=scaler)
    with pytest.raises(eq.InputError, match="does not step without a closure"):
        problems.optimizer_of("ls", made(), make=SAM, scaler=torch.amp.GradScaler("cpu")).step(problems.batch())


# -- several optimizers


class Table(nn.Module):
    """A sparse table of which a batch reads a few rows, and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4, sparse=True)
        self.body = nn.Linear(4, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in TASKS)

    def forward(self, rows: Tensor) -> list[Tensor]:
        features = torch.tanh(self.body(self.table(rows)))
        return [head(features).squeeze(-1) for head in self.heads]


def table() -> Table:
    torch.manual_seed(0)
    return Table()


def table_batch(seed: int = 0) -> problems.Batch:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 10, (6,), generator=generator), torch.randn(6, 3, generator=generator)


def both_kinds(model: Table) -> list[torch.optim.Optimizer]:
    dense = [p for name, p in model.named_parameters() if not name.startswith("table")]
    return [torch.optim.SparseAdam(model.table.parameters(), lr=0.01), torch.optim.Adam(dense, lr=0.01)]


@pytest.mark.parametrize("method", ["ls", "famo", "mgda"])
def test_a_sparse_and_a_dense_optimizer(method: str) -> None:
    model, other = table(), table()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), both_kinds(model), method)
    # The drop-in fills the same gradients, and a loop of one's own steps with both.
    by_hand, balancer = both_kinds(other), eq.balancer(method)
    for seed in range(3):
        mtl.step(table_batch(seed))
        other.zero_grad()
        report = eq.backward(problems.losses(other, table_batch(seed)), balancer)
        for optimizer in by_hand:
            optimizer.step()
        if isinstance(balancer, eq.FAMO):
            with torch.no_grad():
                after = problems.losses(other, table_batch(seed))
            balancer.observe(report.losses, torch.stack(list(after.values())), (0, 1, 2))
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-5, atol=1e-7)


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "encoder" in name]
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.01)]


def test_states_of_several_optimizers_resume_to_the_bit() -> None:
    def fresh() -> eq.MultiTaskOptimizer:
        model = made()
        return eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), muon_and_adamw(model), "famo")

    through, stopped, resumed = fresh(), fresh(), fresh()
    for seed in range(4):
        through.step(problems.batch(seed=seed))
    for seed in range(2):
        stopped.step(problems.batch(seed=seed))
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    for seed in range(2, 4):
        resumed.step(problems.batch(seed=seed))
    assert_same_state(resumed.state_dict(), through.state_dict())
    single = problems.optimizer_of("famo", made())
    before = kept(single.state_dict())
    with pytest.raises(eq.InputError, match="of 2 optimizers; here are 1"):
        single.load_state_dict(stopped.state_dict())
    assert_same_state(single.state_dict(), before)


def test_an_overflow_keeps_all_of_several_optimizers_from_stepping() -> None:
    model = made()
    first, second = list(model.encoder.parameters()), list(model.heads.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizers = [torch.optim.SGD(first, lr=0.05), torch.optim.SGD(second, lr=0.05)]
    overflowing = False

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        if overflowing:  # in one head's gradient alone
            head = model.heads[1].weight  # type: ignore[index,union-attr]
            found["t1"] = found["t1"] + (head - head).abs().sqrt().sum()
        return found

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizers, "ls", scaler=scaler)
    mtl.step(problems.batch())
    other = made()
    problems.optimizer_of("ls", other).step(problems.batch())
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-6, atol=1e-8)
    overflowing, before = True, problems.parameters_of(model)
    mtl.step(problems.batch())
    assert mtl.last is not None
    assert mtl.last.skipped
    assert problems.same(problems.parameters_of(model), before)
    assert scaler.get_scale() == 2.0


def test_each_of_several_meets_the_gradients_of_the_step() -> None:
    """One that evaluates elsewhere leaves the next one's gradients alone."""
    model, other = made(), made()
    sharp = SAM(model.encoder.parameters(), lr=0.05, rho=0.5)
    flat = torch.optim.SGD(model.heads.parameters(), lr=0.05)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), [sharp, flat], "ls")
    mtl.step(problems.batch())
    problems.optimizer_of("ls", other).step(problems.batch())
    for one, two in zip(model.heads.parameters(), other.heads.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("history", ["keep", "reuse", "reset", "released"])
def test_teleports_with_several_optimizers(history: str) -> None:
    def trained(several: bool) -> dict[str, Any]:
        model = made()
        first, second = list(model.encoder.parameters()), list(model.heads.parameters())
        given: Any = torch.optim.Adam([*first, *second], lr=0.02)
        if several:
            given = [torch.optim.Adam(first, lr=0.02), torch.optim.Adam(second, lr=0.02)]
        cost = eager_cost(history=history)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), given, "mgda", teleport=cost)
        for seed in range(8):
            mtl.step(problems.batch(seed=seed))
        assert any(attempt.accepted for attempt in cost.attempts)
        return problems.parameters_of(model)

    assert problems.same(trained(True), trained(False))
