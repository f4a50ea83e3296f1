"""LDC-MTL against autograd, against the released code's total loss written out, and against Algorithm 2 written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

import equipoise as eq
from equipoise.balance.ldc import mlp_router
from equipoise.balance.ldc.pace import Pace
from equipoise.balance.ldc.total import Division, total
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same
from tests.states import assert_same_state

OPTIONS: list[dict[str, Any]] = [
    {"penalty": 1.0, "normalize": "none"},
    {"penalty": 0.3, "tau": "ones", "normalize": "none"},
    {"penalty": 0.3, "smooth": 0.01},
    {"normalize": "log"},
    {"formulation": "released"},
    {"formulation": "released", "tau": "ones", "normalize": "rescale"},
    {"router": "mlp", "features": "encoder"},
    {"router": "mlp", "features": "encoder", "formulation": "released"},
    {"router": "mlp", "features": "encoder", "formulation": "released", "through_features": False},
    {"double_loop": True, "inner_steps": 3, "inner_lr": 0.01},
    {"double_loop": True, "inner_steps": 3, "inner_lr": 0.01, "warm_start": "solution", "formulation": "released"},
    {"router": "mlp", "features": "encoder", "double_loop": True, "inner_steps": 2},
    {"router": "mlp", "features": "encoder", "double_loop": True, "inner_steps": 2, "formulation": "released"},
]


def ids(options: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items())


@given(
    values=st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    weighted=st.booleans(),
    smooth=st.sampled_from([0.0, 0.5]),
    division=st.sampled_from(get_args(Division)),
)
def test_the_derivatives_of_the_total_are_those_of_autograd(
    values: list[float], weighted: bool, smooth: float, division: Division
) -> None:
    ell = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    shares = torch.linspace(0.1, 0.7, len(values), dtype=torch.float64).requires_grad_()
    factors = {"upper_factor": 0.7, "lower_factor": 1.3}
    found = total(ell.detach(), shares.detach(), **factors, weighted=weighted, smooth=smooth, division=division)
    scaled = shares * ell if weighted else ell
    gaps = scaled[:-1] - scaled[1:]
    upper = (gaps.square() + smooth).sqrt().sum() if smooth else gaps.abs().sum()
    divisor = {"none": 1.0, "constant": shares.sum().detach(), "through": shares.sum()}[division]
    lower = (shares * ell).sum() / divisor
    assert torch.allclose(found.upper, upper)
    assert torch.allclose(found.lower, lower)
    by_losses, by_shares = torch.autograd.grad(0.7 * upper + 1.3 * lower, [ell, shares])
    assert torch.allclose(found.by_losses, by_losses)
    assert torch.allclose(found.by_shares, by_shares)


def advance(scheduler: Any) -> None:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(1.0)
    elif scheduler is not None:
        scheduler.step()


def released_loop(
    total_of: Callable[[Tensor, Tensor], Tensor],
    router: nn.Module,
    look: bool,
    steps: int,
    clamp: bool = False,
    schedule: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: None,
) -> tuple[dict[str, Tensor], nn.Module]:
    """Plain training of model and router together on one total loss, as research scripts do."""
    torch.manual_seed(0)
    model = Heads()
    optimizer = torch.optim.Adam([*model.parameters(), *router.parameters()], lr=1e-2)
    scheduler = schedule(optimizer)
    for step in range(steps):
        data = batch(seed=step)
        features = model.encoder(data[0]).mean(0)
        ell = torch.stack(list(losses(model, data).values()))
        if look:
            shares = torch.softmax(router(features), 0)
            shares = shares.clamp(0.2, 0.8) if clamp else shares
        else:
            shares = router()
        optimizer.zero_grad()
        total_of(ell, shares).backward()
        optimizer.step()
        advance(scheduler)
    return parameters_of(model), router


class FreeVector(nn.Module):
    def __init__(self, start: float, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((3,), start, dtype=torch.float64))
        self.function = function

    def forward(self) -> Tensor:
        return self.function(self.weights)


def ours(steps: int, **options: Any) -> tuple[dict[str, Tensor], eq.LDCMTL]:
    balancer = eq.LDCMTL(lr=1e-2, **options)
    torch.manual_seed(0)
    mtl = optimizer_of(balancer, Heads(), make=torch.optim.Adam, lr=1e-2)
    for step in range(steps):
        mtl.step(batch(seed=step))
    return parameters_of(mtl.objective.model), balancer


def test_the_released_code_with_a_free_vector() -> None:
    def total_of(ell: Tensor, w: Tensor) -> Tensor:
        return w @ ell.double() / w.sum().detach() + 0.05 * (w * ell).diff().abs().sum()

    theirs, router = released_loop(total_of, FreeVector(1.0, torch.sigmoid), False, 12)
    here, balancer = ours(12, penalty=0.05, normalize="none", formulation="released")
    assert same(theirs, here, rtol=1e-4, atol=1e-6)
    assert torch.allclose(balancer.state_dict()["router"]["outputs"], router.weights.detach(), atol=1e-6)


def test_the_released_code_with_a_linear_router_that_model_gradients_flow_through() -> None:
    def total_of(ell: Tensor, w: Tensor) -> Tensor:
        return w @ ell + 0.1 * ell.diff().abs().sum()

    torch.manual_seed(3)
    linear = nn.Linear(8, 3)
    theirs, _ = released_loop(total_of, linear, True, 12, clamp=True)
    torch.manual_seed(3)
    own = nn.Linear(8, 3)
    here, _ = ours(12, penalty=0.1, tau="ones", normalize="none", formulation="released", router=own, features="encoder")
    assert same(theirs, here, rtol=1e-4, atol=1e-6)
    assert same(parameters_of(linear), parameters_of(own), rtol=1e-4, atol=1e-6)


def test_the_papers_single_loop() -> None:
    def total_of(ell: Tensor, w: Tensor) -> Tensor:
        return (w * ell).diff().abs().sum() + 2.0 * (w * ell).sum()

    theirs, router = released_loop(total_of, FreeVector(0.0, lambda w: torch.softmax(w, 0)), False, 12)
    here, balancer = ours(12, penalty=2.0, normalize="none")
    assert same(theirs, here, rtol=1e-4, atol=1e-6)
    assert torch.allclose(balancer.state_dict()["router"]["outputs"], router.weights.detach(), atol=1e-6)


@pytest.mark.parametrize("formulation", ["vector of qm9", "network of nyuv2"])
def test_the_released_code_of_other_data_sets(formulation: str) -> None:
    if formulation.startswith("vector"):

        def total_of(ell: Tensor, w: Tensor) -> Tensor:
            return w @ ell.double() / w.sum().detach() + 0.05 * (w * ell).diff().abs().sum()

        options: dict[str, Any] = {
            "penalty": 0.05,
            "normalize": "none",
            "activation": "sigmoid-relu",
            "start": (0.2, 1.0),
            "seed": 3,
        }
        drawn = 0.2 + 0.8 * torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        router = FreeVector(0.0, lambda w: torch.sigmoid(torch.relu(w)))
        router.weights.data = drawn.clone()
        with torch.no_grad():
            router.weights[1] = -0.1  # is never moved again
        balancer_start = router.weights.detach().clone()
        theirs, _ = released_loop(total_of, router, False, 12)
        assert router.weights[1] == -0.1
        balancer = eq.LDCMTL(lr=1e-2, formulation="released", **options)
        balancer.weights(torch.ones(3))
        assert torch.equal(balancer.state_dict()["router"]["outputs"], drawn)
        state = eq.LDCMTL(formulation="released", **options).state_dict()
        state["router"] = {"outputs": balancer_start, "moments": torch.zeros(3, 3, dtype=torch.float64)}
        balancer.load_state_dict(state)
        here = trained(balancer, 12)
    else:

        def total_of(ell: Tensor, w: Tensor) -> Tensor:
            return w @ ell / w.sum() + 0.05 * (w * ell).diff().abs().sum()

        torch.manual_seed(3)
        linear = nn.Linear(8, 3)
        with torch.no_grad():
            linear.weight *= 5  # so that the clamp acts
        own = nn.Linear(8, 3)
        own.load_state_dict(linear.state_dict())
        theirs, router = released_loop(total_of, linear, True, 12, clamp=True)
        options = {"penalty": 0.05, "normalize": "none", "division": "through"}
        balancer = eq.LDCMTL(lr=1e-2, formulation="released", router=own, features="encoder", **options)
        here = trained(balancer, 12)
        assert same(parameters_of(linear), parameters_of(own), rtol=1e-4, atol=1e-6)
        assert float(balancer.report.shares.sum()) != pytest.approx(1.0)  # or the divisor would be nothing
    assert same(theirs, here, rtol=1e-4, atol=1e-6)


SCHEDULES: dict[str, tuple[Any, Callable[[torch.optim.Optimizer], Any]]] = {
    "steps": (1e-2, lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.3)),
    "cosine": (1e-2, lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)),
    "plateau": (1e-2, lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)),
    "one cycle": ("model", lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, 13, cycle_momentum=False)),
    "warm-up from 0": ("model", lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 5, 1))),
    "in one optimizer": ("model", lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.3)),
}


def trained(
    balancer: eq.LDCMTL, steps: int, schedule: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: None, lent: Any = ()
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = Heads()
    optimizer = torch.optim.Adam([*model.parameters(), *lent], lr=1e-2)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer)
    scheduler = schedule(optimizer)
    for step in range(steps):
        mtl.step(batch(seed=step))
        advance(scheduler)
    return parameters_of(model)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_router_follows_the_models_schedule_as_in_one_adam_for_both(name: str) -> None:
    def total_of(ell: Tensor, w: Tensor) -> Tensor:
        return (w * ell).diff().abs().sum() + 2.0 * (w * ell).sum()

    lr, schedule = SCHEDULES[name]
    theirs, router = released_loop(total_of, FreeVector(0.0, lambda w: torch.softmax(w, 0)), False, 12, schedule=schedule)
    balancer = eq.LDCMTL(penalty=2.0, normalize="none", lr=lr)
    here = trained(balancer, 12, schedule, balancer.parameters(3) if name == "in one optimizer" else ())
    assert same(theirs, here, rtol=1e-4, atol=1e-6)
    assert torch.allclose(balancer.state_dict()["router"]["outputs"].double(), router.weights.detach(), atol=1e-6)
    fixed = eq.LDCMTL(penalty=2.0, normalize="none", lr=1e-2, follow=False)
    trained(fixed, 12, schedule)
    assert not torch.allclose(fixed.state_dict()["router"]["outputs"], router.weights.detach(), atol=1e-4)


def test_the_pace_of_several_groups() -> None:
    def rate(first: float, second: float) -> None:
        for group, value in zip(groups, (first, second), strict=True):
            group["lr"] = value

    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(3))]}, {"params": [nn.Parameter(torch.zeros(1))]}], lr=1.0
    )
    groups = optimizer.param_groups
    pace = Pace()
    assert pace.factor() == 1.0  # nothing to follow
    pace.follow([optimizer])
    for rates, factor in (((1e-4, 1e-2), 1.0), ((1e-4, 5e-3), 0.875), ((2e-4, 5e-3), 0.875), ((1e-4, 5e-3), 0.5), ((0, 0), 0)):
        rate(*rates)
        assert pace.factor() == pytest.approx(factor)
    rate(0.1, 0.3)
    assert pace.rate() == pytest.approx(0.15)
    frozen = Pace()
    frozen.follow([optimizer])
    rate(0.0, 0.3)
    assert frozen.factor() == 1.0  # a group that has never moved does not count
    copied = copy.deepcopy(pace)
    assert copied.peaks == pace.peaks
    assert not copied.groups


def test_the_pace_of_groups_that_come_later() -> None:
    """Unfrozen layers, added to the first of two optimizers; the state is saved before their first step."""

    def fresh() -> tuple[eq.MultiTaskOptimizer, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model, balancer = Heads(), eq.LDCMTL(lr=0.05, initial=[1.0, 8.0, 0.1])
        first = torch.optim.Adam(model.encoder[0].parameters(), lr=1e-2)
        second = torch.optim.Adam(model.heads.parameters(), lr=1e-4)
        return eq.MultiTaskOptimizer(eq.Objective(model, losses), [first, second], balancer), first

    def unfreeze(mtl: eq.MultiTaskOptimizer, first: torch.optim.Optimizer) -> None:
        first.add_param_group({"params": list(mtl.objective.model.encoder[2].parameters()), "lr": 1e-5})

    (straight, own), (resumed, others) = fresh(), fresh()
    for step in range(2):
        straight.step(batch(seed=step))
    unfreeze(straight, own)
    state = copy.deepcopy(straight.state_dict())
    assert state["balancer"]["peaks"] == (1e-2, 0.0, 1e-4)
    unfreeze(resumed, others)
    resumed.load_state_dict(state)
    for step in range(2, 4):
        straight.step(batch(seed=step))
        resumed.step(batch(seed=step))
    assert straight.balancer.state_dict()["peaks"] == (1e-2, 1e-5, 1e-4)
    assert straight.balancer._pace.factor() == 1.0
    assert_same_state(straight.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("lends", [False, True])
@pytest.mark.parametrize("router", ["vector", "mlp", "released mlp", "double loop"])
def test_resumed_to_the_bit_under_a_schedule(router: str, lends: bool) -> None:
    options: dict[str, Any] = {"router": "mlp", "features": "encoder"} if router.endswith("mlp") else {}
    options |= {"formulation": "released"} if router.startswith("released") else {}
    options |= {"double_loop": True, "inner_steps": 2} if router == "double loop" else {}

    def fresh() -> tuple[eq.MultiTaskOptimizer, Any]:
        torch.manual_seed(0)
        model, balancer = Heads(), eq.LDCMTL(lr=0.05, **options)
        own = [{"params": balancer.parameters(3, 8), "lr": 0.05}] if lends else []
        optimizer = torch.optim.Adam([{"params": model.parameters()}, *own], lr=0.01)
        return eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer), torch.optim.lr_scheduler.StepLR(
            optimizer, 2
        )

    def run(made: tuple[eq.MultiTaskOptimizer, Any], steps: range) -> dict[str, Tensor]:
        for step in steps:
            made[0].step(batch(seed=step))
            made[1].step()
        return parameters_of(made[0].objective.model)

    straight, stopped, resumed = fresh(), fresh(), fresh()
    before = straight[0].balancer.state_dict()["router"]
    wanted = run(straight, range(8))
    run(stopped, range(5))
    resumed[0].load_state_dict(stopped[0].state_dict())
    resumed[1].load_state_dict(stopped[1].state_dict())
    assert same(wanted, run(resumed, range(5, 8)))
    kept = [made[0].balancer.state_dict()["router"] for made in (straight, resumed)]
    assert str(kept[0]) == str(kept[1]) != str(before)


def test_a_router_in_ones_own_optimizer_learns_the_same_by_every_way_in() -> None:
    def run(way: str) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        model, balancer = Heads(), eq.LDCMTL(penalty=2.0, initial=[1.0, 8.0, 0.1])
        optimizer = torch.optim.Adam([*model.parameters(), *balancer.parameters(3)], lr=1e-2)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer) if way == "step" else None
        for step in range(6):
            if mtl is not None:
                mtl.step(batch(seed=step))
                continue
            optimizer.zero_grad()
            if way == "backward":
                eq.backward(losses(model, batch(seed=step)), balancer)
            else:
                eq.balanced_loss(losses(model, batch(seed=step)), balancer).backward()
            optimizer.step()
        return parameters_of(model), balancer.parameters()[0].detach().clone()

    stepped = run("step")
    assert (stepped[1].abs() > 0.01).all()
    for way in ("backward", "balanced_loss"):
        parameters, router = run(way)
        assert same(stepped[0], parameters, rtol=1e-4, atol=1e-6)
        assert torch.allclose(stepped[1], router, atol=1e-6)


def test_a_router_in_an_optimizer_that_evaluates_several_times() -> None:
    def fresh() -> tuple[nn.Module, eq.LDCMTL, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model, balancer = Heads(), eq.LDCMTL(penalty=2.0, normalize="none", smooth=0.1)
        return model, balancer, torch.optim.LBFGS([*model.parameters(), *balancer.parameters(3)], lr=0.1, max_iter=4)

    model, balancer, optimizer = fresh()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer)
    for step in range(2):
        mtl.step(batch(seed=step))
    plain, other, optimizer = fresh()
    (w,) = other.parameters()
    for step in range(2):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            ell = torch.stack(list(losses(plain, batch(seed=step)).values()))
            scaled = torch.softmax(w, 0) * ell
            total = (scaled.diff().square() + 0.1).sqrt().sum() + 2.0 * scaled.sum()
            total.backward()
            return total

        optimizer.step(closure)
    assert same(parameters_of(plain), parameters_of(model), rtol=1e-3, atol=1e-5)
    assert torch.allclose(w, balancer.parameters()[0], atol=1e-5)
    assert w.abs().max() > 1e-3


def test_a_router_given_as_a_module_is_moved_by_the_optimizer_that_holds_it_and_by_none_else() -> None:
    torch.manual_seed(0)
    model, router = Heads(), nn.Linear(8, 3)
    balancer = eq.LDCMTL(router=router, features="encoder", normalize="none", lr=100.0, formulation="released")
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD([*model.parameters(), *router.parameters()], lr=0.1), balancer
    )
    before = parameters_of(router)
    mtl.step(batch())
    for name, parameter in router.named_parameters():
        assert torch.allclose(parameter, before[name] - 0.1 * parameter.grad, atol=1e-6)
        assert parameter.grad.abs().max() > 0


def test_what_is_refused_of_a_router_in_ones_own_optimizer() -> None:
    balancer = eq.LDCMTL()
    with pytest.raises(eq.InputError, match=r"needs tasks=<how many>$"):
        balancer.parameters()
    with pytest.raises(eq.InputError, match="channels=<of features>"):
        eq.LDCMTL(router="mlp", features="encoder").parameters(3)
    (own,) = balancer.parameters(3)
    assert balancer.parameters()[0] is own
    with pytest.raises(eq.InputError, match="holds 0 of the router's 1 parameters"):
        optimizer_of(balancer)
    torch.manual_seed(0)
    model, other = Heads(), eq.LDCMTL()
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters(4)], lr=0.1)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, other)
    before = other.state_dict(), parameters_of(model)
    with pytest.raises(eq.InputError, match=r"parameters\(4\) were asked of this router, and there are 3 tasks"):
        mtl.step(batch())
    assert str(other.state_dict()) == str(before[0])
    assert same(parameters_of(model), before[1])
    with pytest.raises(eq.InputError, match="another router"):
        other.load_state_dict(eq.LDCMTL().state_dict())
    with pytest.raises(eq.InputError, match=r"balancer.pace\(optimizer\)"):
        eq.backward(losses(model, batch()), eq.LDCMTL(lr="model"))


def test_the_papers_router_sees_features_but_does_not_move_them() -> None:
    torch.manual_seed(0)
    model, data = Heads(), batch()
    balancer = eq.LDCMTL(penalty=2.0, normalize="none", router="mlp", features="encoder", lr=0.0)
    optimizer_of(balancer, model, lr=0.0).step(data)
    features = model.encoder(data[0]).mean(0).detach()
    network = mlp_router(8, 3)
    network.load_state_dict(balancer.state_dict()["router"]["network"])
    shares = torch.softmax(network(features), 0).detach()
    ell = torch.stack(list(losses(model, data).values()))
    expected = torch.autograd.grad((shares * ell).diff().abs().sum() + 2.0 * (shares * ell).sum(), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("channels", "tasks", "count"), [(128, 2, 10_402), (192, 3, 18_528 + 4_656 + 147)])
def test_sizes_of_the_routers(channels: int, tasks: int, count: int) -> None:
    # For 192 → 3 the paper says 23,184, which is the first two layers: 18,528 + 4,656.
    assert sum(parameter.numel() for parameter in mlp_router(channels, tasks).parameters()) == count


@pytest.mark.parametrize("formulation", ["paper", "released"])
def test_algorithm_2(formulation: str) -> None:
    """One step of the double loop, written out with plain tensors."""
    torch.manual_seed(0)
    model, data = Heads(), batch()
    start = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    balancer = eq.LDCMTL(
        penalty=2.0, normalize="none", formulation=formulation, double_loop=True, inner_steps=4, inner_lr=0.01, lr=0.1
    )
    state = balancer.state_dict()
    state["router"] = {"outputs": start.clone(), "moments": torch.zeros(3, 3, dtype=torch.float64)}
    balancer.load_state_dict(state)
    paper = formulation == "paper"
    upper_factor, factor = (1.0, 2.0) if paper else (2.0, 1.0)

    w = start.clone().requires_grad_()
    shares = torch.softmax(w, 0) if paper else torch.sigmoid(w)
    divisor = 1.0 if paper else shares.sum().detach()
    z = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}

    def at(parameters: dict[str, Tensor]) -> Tensor:
        out = functional_call(model, parameters, (data[0],))
        scales = (1.0, 10.0, 0.1)
        return torch.stack([s * (o - data[1][:, k]).square().mean() for k, (s, o) in enumerate(zip(scales, out, strict=True))])

    for _ in range(4):
        # z moves along the weighted losses; dividing g by the sum of the weights is for the total loss.
        gradients = torch.autograd.grad((shares.detach() * at(z)).sum(), list(z.values()))
        z = {
            name: (value - 0.01 * factor * gradient).detach().requires_grad_()
            for (name, value), gradient in zip(z.items(), gradients, strict=True)
        }
    ell = at(dict(model.named_parameters()))
    scaled = shares * ell
    lower = (shares * ell.detach()).sum() / divisor
    lower_there = (shares * at(z).detach()).sum() / divisor
    upper = (shares * ell.detach()).diff().abs().sum()
    (expected,) = torch.autograd.grad(upper_factor * upper + factor * (lower - lower_there), w)
    wanted = torch.autograd.grad(
        upper_factor * (shares.detach() * ell).diff().abs().sum() + factor * (shares.detach() * ell).sum() / divisor,
        list(model.parameters()),
    )
    assert scaled.shape == (3,)
    before = parameters_of(model)
    optimizer_of(balancer, model, lr=1.0).step(data)
    for (name, parameter), gradient in zip(model.named_parameters(), wanted, strict=True):
        assert torch.allclose(before[name] - parameter, gradient, rtol=1e-3, atol=1e-5)
    # Adam's first moment after one step is (1 − β₁) of the gradient.
    assert torch.allclose(balancer.state_dict()["router"]["moments"][0] / 0.1, expected, rtol=1e-5)
    report = balancer.report
    assert report is not None
    assert report.router_gradient is not None
    assert report.router_gradient_at_solution is not None


def test_the_double_loop_leaves_the_model_and_the_random_state_alone() -> None:
    torch.manual_seed(0)
    model = Heads(dropout=0.5, norm=True)
    mtl = optimizer_of(eq.LDCMTL(double_loop=True, inner_steps=3), model, lr=0.0)
    torch.manual_seed(5)
    mtl.step(batch())
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    drawn = torch.rand(3)
    torch.manual_seed(0)
    plain = Heads(dropout=0.5, norm=True)
    other = optimizer_of(eq.LDCMTL(), plain, lr=0.0)
    torch.manual_seed(5)
    other.step(batch())
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(value, buffers[name]) for name, value in plain.named_buffers())


def test_log_normalisation_starts_anew_with_each_epoch() -> None:
    balancer = eq.LDCMTL(penalty=1.0, normalize="log", lr=0.0)
    first = torch.tensor([4.0, 1.0])
    assert torch.allclose(balancer.weights(first), torch.tensor([0.5 / 4, 0.5]))  # no gaps yet
    weights = balancer.weights(torch.tensor([4.0, 0.5]))  # log ratios 0 and −log 2
    assert torch.allclose(weights, torch.tensor([(0.5 + 0.5) / 4, 0.0]))
    balancer.end_epoch()
    assert torch.allclose(balancer.weights(torch.tensor([4.0, 0.5])), torch.tensor([0.5 / 4, 0.5 / 0.5]))


def test_rescaling_is_by_the_first_loss_for_good() -> None:
    balancer = eq.LDCMTL(penalty=0.1, tau="ones", normalize="rescale", formulation="released")
    balancer.weights(torch.tensor([4.0, 2.0]))
    balancer.end_epoch()
    # Divided by (2, 1): the ratios to the smallest first loss.
    assert torch.allclose(balancer.weights(torch.tensor([4.0, 1.0])), torch.tensor([(0.5 + 0.1) / 2, 0.5 - 0.1]))
    assert torch.allclose(eq.LDCMTL(normalize="rescale").weights(torch.tensor([0.0, 3.0])), torch.tensor([5.0, 5 / 3]), atol=1)


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_resumed_to_the_bit(options: dict[str, Any]) -> None:
    def run(mtl: eq.MultiTaskOptimizer, steps: range) -> None:
        for step in steps:
            mtl.step(batch(seed=step))
            if step % 3 == 2:
                mtl.end_epoch()

    def fresh() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        return optimizer_of(eq.LDCMTL(lr=0.05, **options), Heads(), make=torch.optim.Adam, lr=0.01)

    straight = fresh()
    run(straight, range(10))
    stopped = fresh()
    run(stopped, range(5))
    state, model = stopped.state_dict(), stopped.objective.model.state_dict()
    resumed = fresh()
    resumed.objective.model.load_state_dict(model)
    resumed.load_state_dict(state)
    run(resumed, range(5, 10))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))
    assert straight.last.weights.isfinite().all()


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_partly_labelled_batches(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Heads()

    def some(model: nn.Module, data: tuple[Tensor, Tensor, tuple[str, ...]]) -> dict[str, Tensor]:
        return {name: loss for name, loss in losses(model, data[:2]).items() if name in data[2]}

    objective = eq.Objective(model, some, tasks=["t0", "t1", "t2"])
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=1e-3), eq.LDCMTL(**options))
    for present in (("t0", "t2"), ("t1",), ("t0", "t1", "t2"), ("t2",)):
        mtl.step((*batch(), present))
        assert mtl.last.tasks == present
        assert mtl.last.weights.shape == (len(present),)
        assert mtl.last.weights.isfinite().all()


def test_one_task_is_plain_training() -> None:
    assert eq.LDCMTL(penalty=3.0, normalize="none").weights(torch.tensor([2.0])).tolist() == [3.0]
    assert eq.LDCMTL(normalize="none", formulation="released").weights(torch.tensor([2.0])).tolist() == [1.0]


def test_a_network_router_in_a_loop_of_ones_own() -> None:
    torch.manual_seed(0)
    model = Heads()
    balancer = eq.LDCMTL(router="mlp", features=model.encoder, formulation="released", lr=0.1)
    for step in range(4):
        eq.backward(losses(model, batch(seed=step)), balancer)
        model.eval()
        with torch.no_grad():
            model(batch(seed=9)[0])  # an evaluation between the steps is not looked at
        model.train()
    theirs = balancer.state_dict()["router"]["network"]
    assert any((value != mlp_router(8, 3).state_dict()[name]).any() for name, value in theirs.items())


def test_accumulation_is_one_batch() -> None:
    torch.manual_seed(0)
    whole = optimizer_of(eq.LDCMTL(router="mlp", features="encoder", lr=0.1), Heads())
    torch.manual_seed(0)
    parts = optimizer_of(eq.LDCMTL(router="mlp", features="encoder", lr=0.1), Heads())
    for step in range(3):
        inputs, targets = batch(16, seed=step)
        whole.step((inputs, targets))
        parts.step((inputs[:8], targets[:8]), (inputs[8:], targets[8:]))
    assert same(parameters_of(whole.objective.model), parameters_of(parts.objective.model), rtol=1e-3, atol=1e-5)
    through = optimizer_of(eq.LDCMTL(router="mlp", features="encoder", formulation="released"), Heads())
    with pytest.raises(eq.InputError, match="features module ran 2 times in this step"):
        through.step(batch(seed=0), batch(seed=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": 0.0}, "penalty must be a positive number; got 0.0"),
        ({"tau": "one"}, 'tau must be one of weights, ones; got "one"'),
        ({"normalize": "logs"}, 'normalize must be one of none, rescale, log; got "logs"'),
        ({"router": "mpl"}, 'router must be one of vector, mlp, linear; got "mpl"'),
        ({"router": 3}, "router must be .* or a module; got int"),
        ({"router": "mlp"}, "a network router needs features="),
        ({"features": "encoder"}, "a vector has no use for it"),
        ({"formulation": "code"}, 'formulation must be one of paper, released; got "code"'),
        ({"smooth": -1.0}, "smooth must be at least 0"),
        ({"inner_steps": 0}, "inner_steps must be a whole number from 1 on"),
        ({"warm_start": "x"}, 'warm_start must be one of model, solution; got "x"'),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.LDCMTL(**options)


def test_bad_use() -> None:
    with pytest.raises(eq.InputError, match=r'has no module "encodr"\. Did you mean "encoder"'):
        optimizer_of(eq.LDCMTL(router="mlp", features="encodr"))
    with pytest.raises(eq.InputError, match="only MultiTaskOptimizer finds by its name"):
        eq.backward(losses(Heads(), batch()), eq.LDCMTL(router="mlp", features="encoder"))
    with pytest.raises(eq.InputError, match="needs MultiTaskOptimizer"):
        eq.backward(losses(Heads(), batch()), eq.LDCMTL(double_loop=True))
    with pytest.raises(eq.InputError, match=r"one number for each of the 3 tasks; it gave the shape \[2\]"):
        optimizer_of(eq.LDCMTL(router=nn.Linear(8, 2), features="encoder")).step(batch())
    with pytest.raises(eq.InputError, match="was not run in this step"):
        optimizer_of(eq.LDCMTL(router="mlp", features=nn.Linear(2, 2))).step(batch())
    balancer = eq.LDCMTL(normalize="log")
    with pytest.raises(eq.NonFiniteError, match="weight of task"):
        eq.backward({"a": (w := torch.ones(2, requires_grad=True)).sum(), "b": -w.sum()}, balancer)
    with pytest.raises(eq.NonFiniteError, match="diverged; lower inner_lr"):
        optimizer_of(eq.LDCMTL(double_loop=True, inner_lr=1e6)).step(batch())
    optimizer_of(balancer := eq.LDCMTL(router="mlp", features="encoder")).step(batch())
    with pytest.raises(eq.InputError, match="another router"):
        eq.LDCMTL().load_state_dict(balancer.state_dict())
    known = eq.LDCMTL(normalize="rescale")
    known.weights(torch.ones(2))
    with pytest.raises(eq.InputError, match="learned from 2 tasks and now meets 3"):
        known.weights(torch.ones(3))


def test_a_gradient_scaler_does_not_reach_the_router() -> None:
    def trained(scaler: torch.amp.GradScaler | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(0)
        balancer = eq.LDCMTL(router="mlp", features="encoder", formulation="released", lr=0.05)
        mtl = optimizer_of(balancer, Heads(), scaler=scaler)
        for step in range(6):
            mtl.step(batch(seed=step))
        return parameters_of(mtl.objective.model), balancer.state_dict()["router"]["network"]

    plain, scaled = trained(None), trained(torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert same(plain[0], scaled[0], rtol=1e-4, atol=1e-6)
    assert same(plain[1], scaled[1], rtol=1e-3, atol=1e-5)


def test_a_resumed_router_survives_a_first_step_that_fails() -> None:
    def breaking(model: nn.Module, data: tuple[Tensor, Tensor, bool]) -> dict[str, Tensor]:
        named = losses(model, data[:2])
        # The root of zero: a finite loss whose gradient is not.
        return named | {"t0": named["t0"] + (0.0 * model.encoder[0].weight.sum()).sqrt()} if data[2] else named

    def fresh() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        model = Heads()
        balancer = eq.LDCMTL(router="mlp", features="encoder", lr=0.05)
        return eq.MultiTaskOptimizer(eq.Objective(model, breaking), torch.optim.SGD(model.parameters(), lr=0.01), balancer)

    straight = fresh()
    for step in range(3):
        straight.step((*batch(seed=step), False))
    state, model = straight.state_dict(), parameters_of(straight.objective.model)
    resumed = fresh()
    resumed.objective.model.load_state_dict(model)
    resumed.load_state_dict(state)
    with pytest.raises(eq.NonFiniteError):
        resumed.step((*batch(seed=3), True))
    straight.step((*batch(seed=3), False))
    resumed.step((*batch(seed=3), False))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))


def test_a_step_that_fails_teaches_nothing() -> None:
    w = torch.zeros(2, requires_grad=True)
    balancer = eq.LDCMTL()
    with pytest.raises(eq.NonFiniteError):
        eq.backward({"a": 5.0 + w.sum().sqrt(), "b": 1.0 + w.sum()}, balancer)
    assert balancer.state_dict()["first"] is None
    with pytest.raises(eq.InputError, match="it must outlive the step"):
        eq.backward({"a": 5.0 + w.sum(), "b": 1.0 + w.sum()}, "ldc-mtl")
