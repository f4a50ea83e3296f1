"""MOML's hypergradients: the analytic value on a quadratic, central differences on a network, both ways of memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.bilevel import BilevelProblem, hypergradients
from equipoise.bilevel.hypergradients import Memory
from equipoise.bilevel.problem import Point
from tests.bilevel.problems import Quadratic, small_network

BATCHES = [torch.tensor(rows) for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [0, 2, 4, 6], [1, 3, 5, 7], [0, 1, 6, 7])]


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("batched", [False, True])
def test_equal_the_analytic_value_on_a_quadratic(memory: Memory, steps: int, batched: bool) -> None:
    quadratic = Quadratic()
    expected, solution = quadratic.hypergradients(steps, 0.2)
    found = hypergradients(
        quadratic.problem, quadratic.problem.here(), [None] * steps, None, 0.2, memory=memory, batched=batched
    )
    torch.testing.assert_close(found.rows, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.solution.lower[0], solution, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory", ["plain", "checkpointed"])
def test_agree_with_central_differences_on_a_network(memory: Memory) -> None:
    logits, _, problem, validation = small_network()

    def values(at: Tensor) -> Tensor:
        here = problem.here()
        omega = [value.detach().clone().requires_grad_() for value in here.lower]
        for batch in BATCHES:
            value = problem.lower_at(Point([at], omega, here.buffers), batch)
            gradients = torch.autograd.grad(value, omega)
            omega = [(w - 0.3 * g).detach().requires_grad_() for w, g in zip(omega, gradients, strict=True)]
        return torch.stack([v.detach() for v in problem.objectives_at(Point([at], omega, here.buffers), validation)])

    found = hypergradients(problem, problem.here(), BATCHES, validation, 0.3, memory=memory)
    torch.testing.assert_close(found.values, values(logits.detach()))
    width = 1e-5
    differences = torch.empty_like(found.rows)
    for position in range(len(logits)):
        ahead, behind = logits.detach().clone(), logits.detach().clone()
        ahead[position] += width
        behind[position] -= width
        differences[:, position] = (values(ahead) - values(behind)) / (2 * width)
    assert float((found.rows - differences).norm() / differences.norm()) < 1e-7


@pytest.mark.parametrize("batched", [False, True])
def test_checkpointing_repeats_dropout_masks_and_batch_statistics(batched: bool) -> None:
    results = []
    for memory in ("plain", "checkpointed"):
        _, _, problem, validation = small_network(dropout=0.5)
        torch.manual_seed(3)
        found = hypergradients(problem, problem.here(), BATCHES, validation, 0.3, memory=memory, batched=batched)
        results.append((found, torch.rand(1)))
    (plain, after), (saving, after_saving) = results
    torch.testing.assert_close(plain.rows, saving.rows, rtol=1e-10, atol=1e-14)
    assert torch.equal(after, after_saving)
    for name, buffer in plain.solution.buffers.items():
        torch.testing.assert_close(buffer, saving.solution.buffers[name])


def test_variables_that_the_lower_level_does_not_use_stay() -> None:
    alpha = torch.tensor([1.0, 2.0])
    omega = {"used": torch.tensor([0.5]), "unused": torch.tensor([7.0])}
    problem = BilevelProblem(
        lambda alpha, omega, batch: (omega["used"] - alpha[0]).square().sum(),
        lambda alpha, omega, batch: [omega["used"].sum() * omega["unused"].sum() + alpha[1]],
        (alpha, omega),
    )
    for memory in ("plain", "checkpointed"):
        found = hypergradients(problem, problem.here(), [None] * 3, None, 0.25, memory=memory)
        assert float(found.solution.lower[1]) == 7.0
        # ω_3 = α_0 (1 − ½³) + ½³ ω_0
        torch.testing.assert_close(found.rows, torch.tensor([[7.0 * 0.875, 1.0]]))


def test_a_lower_level_that_is_linear_in_its_variables() -> None:
    alpha, omega = torch.tensor([2.0]), torch.tensor([1.0])
    problem = BilevelProblem(
        lambda alpha, omega, batch: (alpha * omega).sum(), lambda alpha, omega, batch: omega.square(), (alpha, omega)
    )
    for memory in ("plain", "checkpointed"):
        found = hypergradients(problem, problem.here(), [None] * 2, None, 0.25, memory=memory)
        # ω_2 = 1 − 2·0.25·α = 0, dω_2/dα = −0.5, so the derivative of ω² is 0; its value 0, too.
        torch.testing.assert_close(found.rows, torch.zeros(1, 1))
