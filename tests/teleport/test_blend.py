"""The history's blend equals one step whose decays are scaled by σ, as the optimizer itself takes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from equipoise.teleport.history import blend
from tests.states import assert_same_state, same_state
from tests.teleport import optimizers
from tests.teleport.optimizers import averages_of, entire_state, fresh_parameters, give_gradients, make, take_steps

STEPS = range(6)
SIGMAS = [0.0, 0.006, 0.4, 1.0]


def scale_decays(optimizer: torch.optim.Optimizer, sigma: float) -> None:
    """What eq. 13 does to every decay of the optimizer."""
    for group in optimizer.param_groups:
        for name in optimizers.DECAYS:
            if name in group:
                decay = group[name]
                group[name] = tuple(sigma * beta for beta in decay) if isinstance(decay, tuple) else sigma * decay
        if group.get("nesterov") and group.get("momentum") == 0:
            group["nesterov"] = False  # refused without momentum; the buffers do not know of it


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", optimizers.CASES)
def test_a_blend_and_a_step_are_a_step_with_scaled_decays(name: str, sigma: float) -> None:
    """Compares the moving averages after one step.

    The step's own bias correction is that of the step counter in both, but it is made of the decays, which only one of the two
    has scaled: so the parameters may differ where the averages must not.
    """
    ours, theirs = fresh_parameters(), fresh_parameters()
    blended, scaled = make(name, ours), make(name, theirs)
    take_steps(blended, ours, STEPS)
    take_steps(scaled, theirs, STEPS)
    give_gradients(ours, 100)
    give_gradients(theirs, 100)
    before = entire_state(blended, ours[2])
    assert blend(blended, ours[:2], sigma) == 2 * len(averages_of(blended, ours[0])) > 0
    assert_same_state(entire_state(blended, ours[2]), before)
    blended.step()
    scale_decays(scaled, sigma)
    if sigma == 0.0 and isinstance(scaled, torch.optim.SGD):
        # Without momentum torch's SGD keeps no buffer; one of no memory holds what the gradient contributed.
        for group in scaled.param_groups:
            group["momentum"], group["nesterov"] = 1e-30, False
    if sigma == 0.0 and isinstance(scaled, torch.optim.RMSprop):
        for group in scaled.param_groups:
            group["momentum"] = group["momentum"] or (1e-30 if "momentum_buffer" in scaled.state[theirs[0]] else 0)
    scaled.step()
    for own, other in zip(ours[:2], theirs[:2], strict=True):
        found, expected = averages_of(blended, own), averages_of(scaled, other)
        assert found.keys() == expected.keys()
        for buffer in found:
            if "grad_avg" in found and buffer != "square_avg":
                continue  # see the test of centred RMSprop
            torch.testing.assert_close(found[buffer], expected[buffer], rtol=2e-5, atol=1e-6, msg=f"{name}: {buffer}")


@pytest.mark.parametrize("name", optimizers.CASES)
def test_other_parameters_are_stepped_as_if_nothing_had_happened(name: str) -> None:
    ours, theirs = fresh_parameters(), fresh_parameters()
    blended, plain = make(name, ours), make(name, theirs)
    take_steps(blended, ours, STEPS)
    take_steps(plain, theirs, STEPS)
    give_gradients(ours, 100)
    give_gradients(theirs, 100)
    blend(blended, ours[:2], 0.3)
    blended.step()
    plain.step()
    assert torch.equal(ours[2], theirs[2])
    assert_same_state(entire_state(blended, ours[2]), entire_state(plain, theirs[2]))
    assert not same_state(entire_state(blended, ours[0]), entire_state(plain, theirs[0]))


@pytest.mark.parametrize("name", ["Adam", "Adam, fused", "NAdam", "RMSprop, everything", "SGD, momentum", "Adamax"])
def test_all_of_the_history_is_no_change(name: str) -> None:
    ours, theirs = fresh_parameters(), fresh_parameters()
    blended, plain = make(name, ours), make(name, theirs)
    for optimizer, parameters in ((blended, ours), (plain, theirs)):
        take_steps(optimizer, parameters, STEPS)
        give_gradients(parameters, 100)
    blend(blended, ours, 1.0)
    blended.step()
    plain.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_an_adam_step_with_scaled_decays_by_hand() -> None:
    """Eq. 13 with the counters as they are, bias correction and all."""
    (parameter,) = fresh_parameters(count=1)
    adam = torch.optim.Adam([parameter], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    take_steps(adam, [parameter], STEPS)
    state, start = entire_state(adam, parameter), parameter.detach().clone()
    give_gradients([parameter], 100)
    gradient, sigma = parameter.grad, 0.3
    assert gradient is not None
    first = sigma * 0.9 * state["exp_avg"] + (1 - sigma * 0.9) * gradient
    second = sigma * 0.99 * state["exp_avg_sq"] + (1 - sigma * 0.99) * gradient**2
    steps = len(STEPS) + 1
    expected = start - 0.01 * (first / (1 - 0.9**steps)) / ((second / (1 - 0.99**steps)).sqrt() + 1e-8)
    blend(adam, [parameter], sigma)
    adam.step()
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(adam.state[parameter]["exp_avg"], first)
    torch.testing.assert_close(adam.state[parameter]["exp_avg_sq"], second)


@pytest.mark.parametrize("sigma", [*SIGMAS, -0.3])
def test_centred_rmsprop_never_divides_by_the_variance_of_a_single_gradient(sigma: float) -> None:
    """Its step, written down: eq. 13 for the mean of squares, and a centre of which only a share σ is kept."""
    parameters = fresh_parameters()
    optimizer = torch.optim.RMSprop(parameters, lr=0.01, alpha=0.9, centered=True, eps=1e-8)
    take_steps(optimizer, parameters, STEPS)
    before, start = entire_state(optimizer, parameters[0]), parameters[0].detach().clone()
    give_gradients(parameters, 100)
    gradient, kept = parameters[0].grad, max(sigma, 0.0)
    assert gradient is not None
    blend(optimizer, parameters, sigma)
    optimizer.step()
    squares = kept * 0.9 * before["square_avg"] + (1 - kept * 0.9) * gradient**2
    center = kept * 0.9 * before["grad_avg"] + 0.1 * gradient
    torch.testing.assert_close(optimizer.state[parameters[0]]["square_avg"], squares, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(optimizer.state[parameters[0]]["grad_avg"], center, rtol=1e-5, atol=1e-7)
    expected = start - 0.01 * gradient / ((squares - center**2).sqrt() + 1e-8)
    torch.testing.assert_close(parameters[0].detach(), expected, rtol=1e-4, atol=1e-6)
    assert float((parameters[0].detach() - start).abs().max()) < 0.1


@pytest.mark.parametrize("sigma", [-0.7, -1e-9])
def test_below_zero_counts_as_zero(sigma: float) -> None:
    states = []
    for value in (sigma, 0.0):
        parameters = fresh_parameters()
        adam = make("Adam", parameters)
        take_steps(adam, parameters, STEPS)
        give_gradients(parameters, 100)
        blend(adam, parameters, value)
        states.append(entire_state(adam, parameters[0]))
        assert torch.equal(adam.state[parameters[0]]["exp_avg"], parameters[0].grad)
    assert_same_state(*states)


def test_groups_with_their_own_decays() -> None:
    def run(scaled: bool) -> list[dict[str, Tensor]]:
        parameters = fresh_parameters()
        groups = [
            {"params": parameters[:1], "betas": (0.5, 0.6)},
            {"params": parameters[1:2], "betas": (0.95, 0.999), "weight_decay": 0.2},
            {"params": parameters[2:], "maximize": True},
        ]
        optimizer = torch.optim.Adam(groups, lr=0.01)
        take_steps(optimizer, parameters, STEPS)
        give_gradients(parameters, 100)
        if scaled:
            scale_decays(optimizer, 0.3)
        else:
            assert blend(optimizer, parameters, 0.3) == 6
        optimizer.step()
        return [averages_of(optimizer, parameter) for parameter in parameters]

    for found, expected in zip(run(False), run(True), strict=True):
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.Rprop, torch.optim.ASGD, torch.optim.Adafactor])
def test_optimizers_without_known_averages_are_left_alone(kind: type[torch.optim.Optimizer]) -> None:
    parameters = fresh_parameters()
    optimizer = kind(parameters, lr=0.01)  # type: ignore[call-arg]
    take_steps(optimizer, parameters, STEPS)
    give_gradients(parameters, 100)
    before = entire_state(optimizer, parameters[0])
    assert blend(optimizer, parameters, 0.2) == 0
    assert_same_state(entire_state(optimizer, parameters[0]), before)
    optimizer.step()


def test_an_optimizer_derived_from_one_of_torchs_counts_as_that() -> None:
    class Mine(torch.optim.RMSprop):
        pass

    parameters = fresh_parameters()
    optimizer = Mine(parameters, lr=0.01)
    take_steps(optimizer, parameters, STEPS)
    give_gradients(parameters, 100)
    assert blend(optimizer, parameters, 0.0) == 3
    assert parameters[0].grad is not None
    torch.testing.assert_close(optimizer.state[parameters[0]]["square_avg"], parameters[0].grad.square())


@pytest.mark.parametrize("name", ["Adam", "SGD, momentum", "RMSprop", "Adadelta"])
def test_no_state_yet(name: str) -> None:
    parameters = fresh_parameters()
    optimizer = make(name, parameters)
    give_gradients(parameters, 0)
    assert blend(optimizer, parameters, 0.2) == 0
    assert not any(optimizer.state.values())
    optimizer.step()


def test_parameters_without_a_gradient_keep_their_memory() -> None:
    """The next step passes over them, so there is nothing to blend with."""
    parameters = fresh_parameters()
    optimizer = make("Adam", parameters)
    take_steps(optimizer, parameters, STEPS)
    give_gradients(parameters, 100)
    parameters[0].grad = None
    before = entire_state(optimizer, parameters[0])
    assert blend(optimizer, parameters, 0.2) == 4
    assert_same_state(entire_state(optimizer, parameters[0]), before)


def sparse_table(kind: type[torch.optim.Optimizer], **options: float) -> tuple[Tensor, torch.optim.Optimizer]:
    torch.manual_seed(0)
    table = nn.Embedding(6, 3, sparse=True)
    optimizer = kind(table.parameters(), lr=0.01, **options)  # type: ignore[call-arg]

    def look_up(*rows: int) -> None:
        optimizer.zero_grad()
        (table(torch.tensor(rows)) * torch.arange(1.0, 3.0 * len(rows) + 1).view(-1, 3)).sum().backward()

    for rows in ((0, 1, 2), (0, 1, 1), (2, 3, 5)):
        look_up(*rows)
        optimizer.step()
    look_up(1, 2, 2)
    return table.weight, optimizer


def test_sparse_adam_lets_only_the_rows_fade_that_the_gradient_holds() -> None:
    table, blended = sparse_table(torch.optim.SparseAdam)
    other, scaled = sparse_table(torch.optim.SparseAdam)
    before = averages_of(blended, table)
    assert blend(blended, [table], 0.3) == 2
    blended.step()
    scale_decays(scaled, 0.3)
    scaled.step()
    found, expected = averages_of(blended, table), averages_of(scaled, other)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(found[name][[0, 3, 4, 5]], before[name][[0, 3, 4, 5]])


def test_momentum_of_sparse_gradients() -> None:
    table, blended = sparse_table(torch.optim.SGD, momentum=0.9)
    other, scaled = sparse_table(torch.optim.SGD, momentum=0.9)
    assert blend(blended, [table], 0.3) == 1
    blended.step()
    scale_decays(scaled, 0.3)
    scaled.step()
    torch.testing.assert_close(
        blended.state[table]["momentum_buffer"].to_dense(), scaled.state[other]["momentum_buffer"].to_dense()
    )
