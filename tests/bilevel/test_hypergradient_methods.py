"""Implicit hypergradients, products by differences, layers without a second derivative, and compiled models."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.bilevel import FORUM, MOML, BilevelProblem, Box, Implicit, Simplex, Unrolled, hypergradients
from equipoise.errors import InputError, NonFiniteError
from tests.bilevel.problems import Quadratic, small_network


def solved() -> tuple[Quadratic, Tensor]:
    """A problem whose ω is the minimum, and the exact hypergradients there."""
    quadratic = Quadratic()
    with torch.no_grad():
        jacobian = torch.linalg.solve(quadratic.a, quadratic.b)
        quadratic.omega.copy_(jacobian @ quadratic.alpha + torch.linalg.solve(quadratic.a, quadratic.offset))
        return quadratic, (quadratic.omega - quadratic.targets) @ jacobian + quadratic.slopes


@pytest.mark.parametrize("products", ["exact", "differences"])
@pytest.mark.parametrize(
    ("method", "within"),
    [(lambda p: Implicit(products=p), 1e-8), (lambda p: Implicit("neumann", iterations=200, lr=0.2, products=p), 1e-8)],
)
def test_implicit_hypergradients_are_exact_at_the_minimum(method: Any, within: float, products: str) -> None:
    quadratic, expected = solved()
    found = hypergradients(quadratic.problem, quadratic.problem.here(), [None], None, 0.1, method=method(products))
    torch.testing.assert_close(found.rows, expected, rtol=within, atol=within)


def test_a_neumann_series_is_unrolling_at_the_minimum() -> None:
    quadratic, _ = solved()
    start = quadratic.problem.here()
    series = hypergradients(quadratic.problem, start, [None], None, 0.15, method=Implicit("neumann", iterations=5))
    unrolled = hypergradients(quadratic.problem, start, [None] * 6, None, 0.15)
    torch.testing.assert_close(series.rows, unrolled.rows, rtol=1e-10, atol=1e-12)


def test_damping_shifts_the_diagonal() -> None:
    quadratic, _ = solved()
    found = hypergradients(quadratic.problem, quadratic.problem.here(), [None], None, 0.1, method=Implicit(damping=0.7))
    with torch.no_grad():
        jacobian = torch.linalg.solve(quadratic.a + 0.7 * torch.eye(4).double(), quadratic.b)
        expected = (quadratic.omega - quadratic.targets) @ jacobian + quadratic.slopes
    torch.testing.assert_close(found.rows, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("method", [Implicit(), Implicit("neumann", iterations=100, lr=0.4)])
def test_weight_decay_of_the_lower_optimizer_is_a_part_of_its_minimum(kind: Any, method: Implicit) -> None:
    alpha, omega = (torch.tensor([3.0, -1.0], dtype=torch.float64) for _ in range(2))
    problem = BilevelProblem(
        lambda alpha, omega, _: 0.5 * (omega - alpha).square().sum(),
        lambda alpha, omega, _: 0.5 * (omega - 1.0).square().sum(),
        (alpha, omega),
    )
    lower = kind([omega], 0.05, weight_decay=0.5)
    solver = MOML(problem, torch.optim.SGD([alpha], 1.0), lower_steps=400, lower_optimizer=lower, hypergradient=method)
    solver.step()  # ω* = α / 1.5
    assert alpha.grad is not None
    expected = (torch.tensor([3.0, -1.0], dtype=torch.float64) / 1.5 - 1.0) / 1.5
    torch.testing.assert_close(alpha.grad, expected, rtol=1e-6, atol=1e-6)


def test_the_decay_of_adamw_belongs_to_no_minimum() -> None:
    quadratic, _ = solved()
    lower = torch.optim.AdamW([quadratic.omega], 0.1)
    with pytest.raises(InputError, match="AdamW's weight decay"):
        MOML(
            quadratic.problem,
            torch.optim.SGD([quadratic.alpha], 0.1),
            lower_steps=1,
            lower_optimizer=lower,
            hypergradient=Implicit(),
        )


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
def test_differences_take_the_place_of_second_derivatives(memory: str) -> None:
    rows = []
    for products in ("exact", "differences"):
        torch.manual_seed(4)
        _, _, problem, validation = small_network(2, dropout=0.3)
        batches = [torch.arange(first, first + 4) for first in range(4)]
        found = hypergradients(
            problem, problem.here(), batches, validation, 0.2, method=Unrolled(products=products), memory=memory
        )
        rows.append(found.rows)
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-5, atol=1e-9)


def test_what_is_no_minimum_is_said() -> None:
    alpha, omega = torch.zeros(()), torch.ones(2)
    saddle = BilevelProblem(lambda a, w, _: w[0] ** 2 - w[1] ** 2 + a * w.sum(), lambda a, w, _: w[1] + w[0], (alpha, omega))
    with pytest.raises(NonFiniteError, match="no minimum there; add damping="):
        hypergradients(saddle, saddle.here(), [None], None, 0.1, method=Implicit())
    quadratic, _ = solved()
    with pytest.raises(NonFiniteError, match="Neumann series grows at lr=5"):
        hypergradients(quadratic.problem, quadratic.problem.here(), [None], None, 0.1, method=Implicit("neumann", lr=5.0))


def with_method(method: Any) -> MOML:
    quadratic = Quadratic()
    optimizer = torch.optim.SGD([quadratic.alpha], 0.1)
    return MOML(quadratic.problem, optimizer, lower_steps=1, lower_lr=0.1, hypergradient=method)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Unrolled(last=0), "last must be a whole number"),
        (lambda: Unrolled(products="both"), "products must be"),
        (lambda: Implicit("newton"), "solver must be"),
        (lambda: Implicit(iterations=0), "iterations must be"),
        (lambda: Implicit(lr=-1.0), "lr must be positive"),
        (lambda: Implicit(damping=-1.0), "damping must be"),
        (lambda: with_method("cg"), "hypergradient must be an"),
    ],
)
def test_methods_that_cannot_be(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(tokens).mean(1))


class Distances(nn.Module):
    """Torch can differentiate ``cdist`` once only."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.head = nn.Linear(32, 3), nn.Linear(5, 2)
        self.centers = nn.Parameter(torch.randn(5, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.cdist(torch.tanh(self.place(tokens.flatten(1))), self.centers))


def problem_of(model: nn.Module) -> tuple[Tensor, BilevelProblem]:
    logits, generator = torch.zeros(6, dtype=torch.float64), torch.Generator().manual_seed(0)
    tokens = torch.randn(6, 4, 8, generator=generator, dtype=torch.float64)
    targets = torch.randn(6, 2, generator=generator, dtype=torch.float64)

    def lower(logits: Tensor, model: nn.Module, batch: None) -> Tensor:
        return (logits.sigmoid() * (model(tokens) - targets).square().mean(1)).mean()

    def upper(logits: Tensor, model: nn.Module, batch: None) -> Tensor:
        return (model(tokens.flip(0)) - targets).square().mean(0)

    return logits, BilevelProblem(lower, upper, (logits, model))


def of(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().double()


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
@pytest.mark.parametrize("kind", [Attention, Distances])
def test_layers_whose_kernel_has_no_second_derivative(kind: type[nn.Module], memory: str) -> None:
    logits, problem = problem_of(of(kind))
    solver = MOML(problem, torch.optim.SGD([logits], 1.0), lower_steps=2, lower_lr=0.1, memory=memory, balancer="ls")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            solver.step()
    said = [str(warning.message) for warning in caught if "second derivative" in str(warning.message)]
    # Attention has another kernel, exactly; distances have none, which is said once.
    assert len(said) == (kind is Distances)
    assert solver.steps == 2
    # By central differences of whole runs of two lower steps.
    logits, problem = problem_of(of(kind))
    start = problem.here()

    def after(shift: float) -> float:
        with torch.no_grad():
            logits[1] = shift
        point = problem.here()
        omega = [value.detach().requires_grad_() for value in start.lower]
        for _ in range(2):
            point.lower = omega
            slopes = torch.autograd.grad(problem.lower_at(point, None), omega)
            omega = [(o - 0.1 * s).detach().requires_grad_() for o, s in zip(omega, slopes, strict=True)]
        point.lower = omega
        return float(torch.stack(problem.objectives_at(point, None)).detach().sum())

    expected = (after(1e-5) - after(-1e-5)) / 2e-5
    with torch.no_grad():
        logits[1] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = hypergradients(problem, problem.here(), [None] * 2, None, 0.1, memory=memory)
    assert float(found.rows.sum(0)[1]) == pytest.approx(expected, rel=2e-5)


def test_a_layer_without_a_second_derivative_where_exact_ones_are_asked_for() -> None:
    logits, problem = problem_of(of(Distances))
    exact = Unrolled(products="exact")
    solver = MOML(problem, torch.optim.SGD([logits], 1.0), lower_steps=1, lower_lr=0.1, hypergradient=exact)
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=r"the lower level has no second derivative .* such as FORUM"):
        solver.step()
    assert torch.equal(before, torch.get_rng_state())
    assert not bool(logits.any())
    with pytest.warns(UserWarning, match="no second derivative"):
        hypergradients(problem, problem.here(), [None], None, 0.1)
    with pytest.raises(InputError, match="no second derivative"):  # even where differences have stood for them
        hypergradients(problem, problem.here(), [None], None, 0.1, method=exact)


def test_the_upper_variables_stay_in_their_set() -> None:
    weights, rate = torch.full((3,), 1 / 3), torch.tensor(0.5)
    omega = torch.zeros(3)
    problem = BilevelProblem(
        lambda a, w, _: (w - a["weights"]).square().sum() + a["rate"] * w.square().sum(),
        lambda a, w, _: (w - torch.tensor([3.0, 0.0, -2.0])).square().sum() - a["rate"],
        ({"weights": weights, "rate": rate}, omega),
    )
    feasible = {"weights": Simplex(), "rate": Box(high=0.75)}
    optimizer = torch.optim.SGD([weights, rate], 0.1)
    solver = MOML(problem, optimizer, lower_steps=20, lower_lr=0.3, feasible_set=feasible)
    for _ in range(20):
        solver.step()
        assert float(weights.detach().sum()) == pytest.approx(1)
        assert bool((weights >= 0).all())
        assert float(rate.detach()) <= 0.75
    torch.testing.assert_close(weights.detach(), torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    for wrong, says in (
        ({"wieghts": Simplex()}, 'names "wieghts", which no'),
        (0.5, "must be a Box, a Simplex, a function"),
        (lambda values: values.sum(), "must keep the shape"),
    ):
        with pytest.raises(InputError, match=says):
            MOML(problem, optimizer, lower_steps=1, lower_lr=0.1, feasible_set=wrong)  # type: ignore[arg-type]


def test_the_nearest_point_of_the_simplex() -> None:
    generator = torch.Generator().manual_seed(0)
    for values in torch.randn(20, 5, generator=generator).double() * 3:
        found = Simplex(2.0)(values)
        assert float(found.sum()) == pytest.approx(2.0)
        assert bool((found >= 0).all())
        # No vertex lies on the nearer side: ⟨v − found, x − found⟩ <= 0 for all x of the simplex.
        assert float((2.0 * torch.eye(5).double() - found).mv(values - found).max()) < 1e-9
    assert Simplex()(torch.full((2, 4), 1e30)).tolist() == [[0.25] * 4] * 2
    for wrong in (lambda: Box(), lambda: Box(2.0, 1.0), lambda: Simplex(0.0)):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize("kind", ["moml", "forum"])
@pytest.mark.parametrize("answer", ["raises", "shape", "number", "nan"])
def test_a_feasible_set_that_fails_leaves_the_step_untaken(kind: str, answer: str) -> None:
    quadratic = Quadratic()
    wrong = {
        "shape": lambda value: value[:1],
        "number": lambda value: 0.0,
        "nan": lambda value: value / 0.0 * 0.0,
        "raises": lambda value: 1 / 0,
    }[answer]
    calls = [0]

    def feasible(value: Tensor) -> Any:
        calls[0] += 1
        value.clamp_(-1.0, 1.0)  # in place, which is its own affair
        return wrong(value) if calls[0] == 3 else value

    alpha, omega = quadratic.alpha, quadratic.omega
    held = [alpha] if kind == "moml" else [alpha, omega]
    optimizer = torch.optim.Adam(held, 0.1)
    own: dict[str, Any] = {"balancer": "dwa"} if kind == "moml" else {}
    method = MOML if kind == "moml" else FORUM
    solver = method(quadratic.problem, optimizer, lower_steps=2, lower_lr=0.1, feasible_set=feasible, **own)

    def now() -> tuple[list[float], str]:
        averages = [optimizer.state[tensor][name] for tensor in held for name in ("step", "exp_avg", "exp_avg_sq")]
        return torch.cat([entry.detach().reshape(-1) for entry in (alpha, omega, *averages)]).tolist(), str(solver.own_state())

    solver.step()
    before, state = now(), copy.deepcopy(solver.state_dict())
    with pytest.raises(ZeroDivisionError if answer == "raises" else InputError):
        solver.step()
    assert now() == before
    assert alpha.grad is None
    solver.step()
    after = now()
    solver.load_state_dict(state)
    solver.step()
    assert now() == after
