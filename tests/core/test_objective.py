"""The objective, and evaluating it at substituted parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests.problems import Heads, batch, losses, parameters_of, same


def test_losses_keep_their_names_and_order() -> None:
    objective = eq.Objective(Heads(), losses)
    assert list(objective(batch())) == ["t0", "t1", "t2"]


def test_a_vector_of_losses_gets_numbered_tasks() -> None:
    objective = eq.Objective(Heads(), lambda model, data: torch.stack(list(losses(model, data).values())))
    assert list(objective(batch())) == ["task0", "task1", "task2"]


def test_declared_names_are_given_to_a_vector_of_losses() -> None:
    objective = eq.Objective(Heads(2), lambda model, data: torch.stack(list(losses(model, data).values())), tasks=["a", "b"])
    assert list(objective(batch())) == ["a", "b"]


def test_at_own_parameters_equals_the_plain_evaluation() -> None:
    model = Heads()
    objective = eq.Objective(model, losses)
    here, there = objective(batch()), objective.at(dict(model.named_parameters()), batch())
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_at_takes_a_subset_and_leaves_the_model_alone() -> None:
    model = Heads()
    before = parameters_of(model)
    objective = eq.Objective(model, losses)
    shift = {"encoder.0.bias": model.encoder[0].bias.detach() + 1.0}
    there = objective.at(shift, batch())
    assert same(parameters_of(model), before)
    with torch.no_grad():
        model.encoder[0].bias += 1.0
    assert all(torch.equal(there[name], value) for name, value in objective(batch()).items())


def test_gradients_flow_to_substitutes_and_not_to_the_model() -> None:
    model = Heads()
    weight = torch.randn_like(model.encoder[0].weight).requires_grad_()
    sum(eq.Objective(model, losses).at({"encoder.0.weight": weight}, batch()).values()).backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    assert model.encoder[0].weight.grad is None
    assert model.heads[0].weight.grad is not None


def test_batch_norm_statistics_do_not_move_elsewhere() -> None:
    model = Heads(norm=True)
    objective = eq.Objective(model, losses)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    objective.at({}, batch())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    objective(batch())
    assert not torch.equal(dict(model.named_buffers())["encoder.2.running_mean"], buffers["encoder.2.running_mean"])


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
def test_recurrent_networks(cell: type[nn.Module]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell(4, 5, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0][:, -1])

    model, x = Recurrent(), torch.randn(3, 7, 4)
    objective = eq.Objective(model, lambda m, b: m(b).square().mean(0))
    changed = {name: (p.detach() * 1.5).requires_grad_() for name, p in model.named_parameters() if name.startswith("cell")}
    there = objective.at(changed, x)
    gradients = torch.autograd.grad(there["task0"], list(changed.values()))
    assert all(g.abs().sum() > 0 for g in gradients)
    with torch.no_grad():
        for name, p in model.cell.named_parameters():
            p.copy_(changed[f"cell.{name}"])
    assert torch.allclose(there["task1"], objective(x)["task1"])


def test_one_name_of_a_tied_weight_replaces_it_everywhere() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))

    model, x = Tied(), torch.randn(2, 4)
    objective = eq.Objective(model, lambda m, b: m(b).square().mean(0)[:2])
    new = torch.randn(4, 4)
    expected = (torch.tanh(x @ new.T) @ new.T).square().mean(0)[:2]
    for name in ("first.weight", "second.weight"):
        assert torch.allclose(torch.stack(list(objective.at({name: new}, x).values())), expected)


def test_the_random_state_can_be_shared_and_is_put_back() -> None:
    model = Heads(dropout=0.5)
    objective = eq.Objective(model, losses)
    state = objective.random_state()
    here = objective(batch())
    after = torch.get_rng_state()
    there = objective.at({}, batch(), random_state=state)
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert torch.equal(torch.get_rng_state(), after)
    other = objective.at({}, batch())
    assert not torch.equal(here["t0"], other["t0"])


def test_second_derivatives() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    objective = eq.Objective(model, lambda m, b: {"cubic": (m(b) ** 3).sum()})
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(objective.at({"weight": weight}, x)["cubic"], weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), weight)
    out = (x @ weight.detach().T).item()
    # (w·x)³ has the Hessian 6 (w·x) x xᵀ; its rows' sums are 6 (w·x)(Σx) x.
    assert torch.allclose(second, 6 * out * x.sum() * x)


def test_callables_are_evaluated_under_the_substitution() -> None:
    model = nn.Linear(2, 2)
    objective = eq.Objective(model, lambda m, b: {"a": lambda: m(b)[:, 0].mean(), "b": lambda: m(b)[:, 1].mean()})
    zero = {"weight": torch.zeros(2, 2), "bias": torch.tensor([3.0, 4.0])}
    there = objective.at(zero, torch.randn(5, 2))
    assert float(there["a"]) == pytest.approx(3.0)
    assert float(there["b"]) == pytest.approx(4.0)


def test_unknown_parameter_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(eq.InputError, match=r"encoder\.0\.wieght.*Did you mean \"encoder\.0\.weight\""):
        eq.Objective(Heads(), losses).at({"encoder.0.wieght": torch.zeros(8, 6)}, batch())


def test_substitutes_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(eq.InputError, match=r"shape \[8, 6\]; got a substitute of shape \[6, 8\]"):
        eq.Objective(Heads(), losses).at({"encoder.0.weight": torch.zeros(6, 8)}, batch())


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({}, "no losses"),
        (torch.zeros(2, 2), r"shape \[K\]"),
        (3.0, "mapping"),
        ({"a": 3.0}, 'loss of task "a" must be a scalar tensor or a callable'),
        ({"a": torch.zeros(3)}, 'task "a" must be a scalar; it has the shape \\[3\\]'),
        ({"a": torch.zeros((), dtype=torch.int64)}, "floating-point"),
        ({"a": lambda: 3.0}, "its callable gave float"),
    ],
)
def test_losses_that_are_none(returned: object, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.Objective(Heads(), lambda m, b: returned)(batch())  # type: ignore[arg-type, return-value]


def test_things_that_are_no_model_or_loss_function() -> None:
    with pytest.raises(eq.InputError, match=r"torch\.nn\.Module; got int"):
        eq.Objective(3, losses)  # type: ignore[arg-type]
    with pytest.raises(eq.InputError, match="function"):
        eq.Objective(Heads(), 3)  # type: ignore[arg-type]
    with pytest.raises(eq.InputError, match="once only"):
        eq.Objective(Heads(), losses, tasks=["a", "a"])
