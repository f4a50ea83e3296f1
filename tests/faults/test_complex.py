"""Complex parameters are trained as the pairs of real ones that they consist of, compared with a twin that holds the pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.bilevel import FORUM, MOML, BilevelProblem
from equipoise.engine.gradients import TaskGradients
from equipoise.engine.reals import as_real, flat, like, shaped, size
from equipoise.teleport import OFT, LoHa, LowRank, PaperFormulation, ReleasedFormulation
from equipoise.teleport.history import blend, similarity
from equipoise.teleport.search import agreement
from tests import problems
from tests.integration.processes import Pool
from tests.teleport.helpers import eager_cost


class Fourier(nn.Module):
    """A layer of complex weights between real ones, shared by three heads; with ``pairs`` the weights are held as pairs."""

    def __init__(self, pairs: bool, *, vector: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def drawn(*shape: int) -> nn.Parameter:
            tensor = torch.randn(*shape, dtype=torch.complex128, generator=generator) / 2
            return nn.Parameter(torch.view_as_real(tensor).clone() if pairs else tensor)

        self.spectrum = drawn(5, 3)
        self.shift = drawn(3)
        torch.manual_seed(1)
        self.lift = nn.Linear(6, 8).double()
        self.heads = nn.ModuleList(nn.Linear(4, 1).double() for _ in range(3))

    def encoder(self, inputs: Tensor) -> Tensor:
        spectrum, shift = (p if p.is_complex() else torch.view_as_complex(p) for p in (self.spectrum, self.shift))
        modes = torch.fft.rfft(torch.tanh(self.lift(inputs)))
        return torch.fft.irfft(torch.tanh(modes @ spectrum + shift), n=4)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.encoder(inputs)
        return [head(features).squeeze(-1) for head in self.heads]


def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
    return problems.losses(model, (batch[0].double(), batch[1].double()))


def numbers(model: nn.Module) -> Tensor:
    return torch.cat([flat(parameter.detach()) for parameter in model.parameters()])


METHODS = [*problems.METHODS, *problems.SAMPLING]


def trained(pairs: bool, balancer: Any, make: Any = torch.optim.Adam, steps: int = 3, lr: float = 0.01, **options: Any) -> Any:
    model = Fourier(pairs)
    batches = [problems.batch(seed=1000 + place) for place in range(5)]
    objective = eq.Objective(model, losses, batches=batches)
    chosen = problems.balancer_of(balancer) if isinstance(balancer, str) and "+" not in balancer else balancer
    mtl = eq.MultiTaskOptimizer(objective, make(model.parameters(), lr=lr), chosen, **options)
    for step in range(steps):
        mtl.step(problems.batch(seed=step))
    return model, mtl


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_the_steps_of_the_pairs(method: str) -> None:
    """But for methods that draw a number per entry: their rows have another padding, so other numbers."""
    (own, mtl), (twin, other) = (trained(pairs, method, torch.optim.SGD) for pairs in (False, True))
    assert torch.allclose(numbers(own), numbers(twin), rtol=1e-9, atol=1e-12)
    if mtl.last.gramian is not None:
        assert torch.allclose(mtl.last.gramian, other.last.gramian, rtol=1e-9)


@pytest.mark.parametrize("options", [{"clip": 0.1}, {"batched": 0}, {"batched": 2}, {"make": torch.optim.Adam}])
@pytest.mark.parametrize("method", ["mgda", "db-mtl", "ls"])
def test_options_of_the_step(method: str, options: dict[str, Any]) -> None:
    (own, _), (twin, _) = (trained(pairs, method, **options) for pairs in (False, True))
    assert torch.allclose(numbers(own), numbers(twin), rtol=1e-9, atol=1e-12)


def test_the_gramian_is_that_of_plain_autograd() -> None:
    model = Fourier(False)
    report = eq.backward(losses(model, problems.batch()), "mgda")
    shared = [model.spectrum, model.shift, *model.lift.parameters()]
    rows = [
        torch.cat([flat(g) for g in torch.autograd.grad(loss, shared, retain_graph=True)])
        for loss in losses(model, problems.batch()).values()
    ]
    stacked = torch.stack(rows)
    assert torch.allclose(report.gramian, stacked @ stacked.T, rtol=1e-9)
    got = torch.cat([flat(parameter.grad) for parameter in shared])
    assert torch.allclose(got, report.weights @ stacked, rtol=1e-9)


def test_rows_of_complex_parameters_in_any_layout() -> None:
    torch.manual_seed(0)
    parameters = [
        torch.randn(3, 5, dtype=torch.complex64).T.requires_grad_(),
        torch.randn((), dtype=torch.complex128, requires_grad=True),
        torch.randn(2, 3, 4, 5, dtype=torch.complex64).to(memory_format=torch.channels_last).requires_grad_(),
        torch.randn(7, requires_grad=True),
        torch.randn(0, 2, dtype=torch.complex64, requires_grad=True),
    ]
    values = [sum((p.abs().square() * k + p.real).sum() + (p * p).real.sum() for p in parameters) for k in (1.0, 2.0)]
    engine = TaskGradients(parameters, 2)
    assert engine.rows.dtype == torch.float64
    with engine.recording():
        for row, value in enumerate(values):
            engine.differentiate(row, value, retain_graph=True)
    rows = [torch.cat([flat(g).double() for g in torch.autograd.grad(v, parameters, retain_graph=True)]) for v in values]
    expected = torch.stack(rows)
    assert torch.allclose(engine.gramian(), expected @ expected.T, rtol=1e-5)
    assert engine.compact().shape == expected.shape
    direction = engine.expand(torch.randn(expected.shape[1], dtype=torch.float64))
    for parameter, piece in zip(parameters, engine.split(direction), strict=True):
        assert piece.shape == parameter.shape
        assert piece.is_complex() == parameter.is_complex()
    engine.deliver(engine.combine(torch.ones(2)))
    for parameter, *gradients in zip(
        parameters, *(torch.autograd.grad(v, parameters, retain_graph=True) for v in values), strict=True
    ):
        assert torch.allclose(parameter.grad, sum(gradients), rtol=1e-5)


def test_views_and_copies_of_stretches() -> None:
    tensor = torch.randn(3, 2, dtype=torch.complex64)
    assert size(tensor) == 12
    assert torch.equal(like(tensor, flat(tensor)), tensor)
    assert torch.equal(shaped(tensor, flat(tensor)), tensor)
    assert torch.equal(flat(tensor.conj()), torch.view_as_real(tensor.conj().resolve_conj()).flatten())
    assert as_real(tensor.real) is not None


@pytest.mark.parametrize("features", [None, "spectrum"])
def test_second_derivatives_of_heads(features: str | None) -> None:
    class Named(Fourier):
        def __init__(self, pairs: bool) -> None:
            super().__init__(pairs)
            self.cell = nn.Identity()

        def encoder(self, inputs: Tensor) -> Tensor:
            found = super().encoder(inputs)
            return self.cell(torch.complex(found, found.sin())).abs()

    results = []
    for pairs in (False, True):
        model = Named(pairs)
        balancer = eq.ConsMTL(mu=0.5, features=None if features is None else model.cell)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), balancer)
        for step in range(3):
            mtl.step(problems.batch(seed=step))
        results.append(numbers(model))
    assert torch.allclose(*results, rtol=1e-9, atol=1e-12)


def test_balancers_of_real_features_refuse_complex_ones() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(6, 4, dtype=torch.complex64)})
    model["heads"] = nn.ModuleDict({name: nn.Linear(4, 1, dtype=torch.complex64) for name in ("a", "b")})

    def function(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        features = model["encoder"](batch)
        return {name: head(features).abs().square().mean() for name, head in model["heads"].items()}

    balancer = eq.RotoGrad(features="encoder", heads={name: f"heads.{name}" for name in ("a", "b")})
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, function), torch.optim.SGD(model.parameters(), lr=0.1), balancer)
    with pytest.raises(eq.InputError, match="needs real features"):
        mtl.step(torch.randn(5, 6, dtype=torch.complex64))


# -- teleports


@pytest.mark.filterwarnings("ignore:over . teleports the norms")  # both models' norms shrink alike
@pytest.mark.parametrize("history", ["keep", "reuse", "released"])
@pytest.mark.parametrize("formulation", [PaperFormulation(gamma=0.5), ReleasedFormulation()], ids=["paper", "released"])
def test_teleports_land_where_the_pairs_land(history: str, formulation: Any) -> None:
    ends, reports = [], []
    for pairs in (False, True):
        cost = eager_cost(formulation=formulation, delta="dense", history=history, steps=4)
        model, mtl = trained(pairs, "mgda", steps=4, teleport=cost)
        ends.append(numbers(model))
        reports.append(mtl.last.teleport)
    assert reports[0] is not None
    assert reports[0].accepted
    assert torch.allclose(*ends, rtol=1e-6, atol=1e-9)
    assert reports[0].distance == pytest.approx(reports[1].distance, rel=1e-6)
    assert reports[0].sigma == pytest.approx(reports[1].sigma, rel=1e-6)


@pytest.mark.parametrize("delta", [LowRank(rank=2), LoHa(rank=2), OFT(blocks=1)])
def test_deltas_of_complex_weights(delta: Any) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 4, dtype=torch.complex64)
    adaptation = delta.adapt({"weight": weight}, torch.Generator().manual_seed(0))
    assert float(adaptation.deltas()["weight"].detach().abs().max()) < 1e-6
    with torch.no_grad():
        for factor in adaptation.factors:
            as_real(factor).add_(0.1 * torch.randn_like(as_real(factor)))
    moved = adaptation.deltas()["weight"]
    assert moved.dtype == weight.dtype
    assert moved.detach().imag.abs().max() > 0
    found = torch.autograd.grad(moved.abs().sum(), adaptation.factors)
    assert all(bool(gradient.abs().sum() > 0) for gradient in found)
    if isinstance(delta, OFT):
        # A rotation keeps the inner products of the rows.
        turned = weight + moved.detach()
        assert torch.allclose(turned @ turned.mH, weight @ weight.mH, atol=1e-4)


def test_cosines_and_averages_of_pairs() -> None:
    torch.manual_seed(0)
    one, other = (torch.randn(4, dtype=torch.complex128) for _ in range(2))
    assert similarity([(one, other)]) == pytest.approx(similarity([(flat(one), flat(other))]))
    parameters = [nn.Parameter(one.clone()), nn.Parameter(flat(one).clone())]
    states = []
    for parameter in parameters:
        optimizer = torch.optim.Adam([parameter], lr=0.1)
        for seed in range(2):
            torch.manual_seed(seed)
            gradient = torch.randn(4, dtype=torch.complex128)
            parameter.grad = gradient if parameter.is_complex() else flat(gradient)
            if seed == 0:
                optimizer.step()
        blend(optimizer, [parameter], 0.3)
        state = optimizer.state[parameter]
        states.append([flat(state[name]) for name in ("exp_avg", "exp_avg_sq")])
    for mine, twins in zip(*states, strict=True):
        assert torch.allclose(mine, twins)


@pytest.mark.parametrize("kind", ["mean", "smallest", "pairwise"])
def test_agreement_of_gradients_of_pairs(kind: Any) -> None:
    torch.manual_seed(0)
    pairs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    whole = torch.view_as_complex(pairs.detach()).clone().requires_grad_()
    found = []
    for leaf, tensor in ((pairs, torch.view_as_complex(pairs)), (whole, whole)):
        measure = agreement({"a": tensor.abs().pow(3).sum(), "b": (tensor * tensor).imag.sum()}, [leaf], kind)
        (gradient,) = torch.autograd.grad(measure, leaf)
        found.append((measure.detach(), flat(gradient)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other)


# -- two levels


@pytest.mark.parametrize("solver", ["plain", "checkpointed", "forum"])
def test_bilevel_variables_of_pairs(solver: str) -> None:
    def whole(tensor: Tensor) -> Tensor:
        return tensor if tensor.is_complex() else torch.view_as_complex(tensor)

    def lower(alpha: Tensor, omega: Tensor, _: Any) -> Tensor:
        return (whole(omega) - whole(alpha).sin()).abs().square().sum()

    def upper(alpha: Tensor, omega: Tensor, _: Any) -> dict[str, Tensor]:
        return {
            "one": (whole(omega) - 1).abs().square().sum() + whole(alpha).abs().square().sum(),
            "two": 3 * (whole(omega) - 2j).abs().square().sum(),
        }

    ends = []
    for pairs in (False, True):
        alpha, omega = torch.tensor([0.3 + 0.1j, -0.2j]).to(torch.complex128), torch.zeros(2, dtype=torch.complex128)
        if pairs:
            alpha, omega = torch.view_as_real(alpha).clone(), torch.view_as_real(omega).clone()
        problem = BilevelProblem(lower=lower, upper=upper, variables=(alpha, omega))
        if solver == "forum":
            made: Any = FORUM(problem, torch.optim.SGD([alpha, omega], 0.1), lower_steps=3, lower_lr=0.1)
        else:
            made = MOML(problem, torch.optim.SGD([alpha], 0.1), memory=solver, lower_steps=3, lower_lr=0.1)
        for _ in range(4):
            made.step()
        ends.append(torch.cat([flat(alpha.detach()), flat(omega.detach())]))
    assert torch.allclose(*ends, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2])
def test_task_weights_of_a_complex_model(steps: int) -> None:
    ends = []
    for pairs in (False, True):
        model = Fourier(pairs)
        weighting = eq.bilevel.TaskWeighting(
            eq.Objective(model, losses),
            torch.optim.SGD(model.parameters(), lr=0.05),
            validation=[problems.batch(seed=7)],
            solver="moml",
            lower_steps=steps,
        )
        for step in range(3):
            weighting.step(problems.batch(seed=step))
        ends.append(torch.tensor(list(weighting.weights.values())))
    assert torch.allclose(*ends, rtol=1e-9)


# -- several processes


def in_processes(rank: int, count: int, pairs: bool, method: str) -> Any:
    model = Fourier(pairs)
    with torch.no_grad():
        model.shift.add_(rank)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), method)
    for step in range(2):
        mtl.step(problems.batch(seed=10 * step + rank))
    return numbers(model).tolist()


@pytest.mark.parametrize("method", ["mgda", "ls"])
def test_several_processes(pool: Pool, method: str) -> None:
    one, other = pool.run(in_processes, False, method)
    assert one == other
    assert torch.allclose(torch.tensor(one), torch.tensor(pool.run(in_processes, True, method)[0]), rtol=1e-9)
