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


def mass_kept(optimizer: torch.optim.Optimizer, buffer: str, sigma: float, steps: int = len(STEPS) + 1) -> float:
    """The mass that the optimizer divides by, over the one that eq. 13 gives; 1 where it divides by none."""
    betas = optimizer.param_groups[0].get("betas")
    if betas is None or buffer not in ("exp_avg", "exp_avg_sq"):
        return 1.0
    beta = betas[0 if buffer == "exp_avg" else 1]
    before = 1 - beta ** (steps - 1)
    return float((1 - beta**steps) / (sigma * beta * before + 1 - sigma * beta))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", optimizers.CASES)
def test_a_blend_and_a_step_are_a_step_with_scaled_decays(name: str, sigma: float) -> None:
    """Compares the moving averages after one step, each divided by its mass where the optimizer divides by that.

    Torch takes the mass from the decays; an average that has always had σβ for a decay would have the mass 1 - (σβ)ᵗ, but this
    one had it in a single step: the mass is 1 - σβᵗ.
    """
    ours, theirs = fresh_parameters(), fresh_parameters()
    blended, scaled = make(name, ours), make(name, theirs)
    take_steps(blended, ours, STEPS)
    take_steps(scaled, theirs, STEPS)
    give_gradients(ours, 100)
    give_gradients(theirs, 100)
    before = entire_state(blended, ours[2])
    peaks = sum("max_exp_avg_sq" in blended.state[parameter] for parameter in ours[:2])
    changed = 2 * len(averages_of(blended, ours[0])) + peaks
    assert blend(blended, ours[:2], sigma) == (changed if sigma < 1 else 0)
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
            expected[buffer] = expected[buffer] * mass_kept(blended, buffer, sigma)
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


@pytest.mark.parametrize("name", optimizers.CASES)
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


# Those that divide by the mass of their averages, with nothing but the gradient in them.
ADAMS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax)
DIVIDING = [
    name
    for name, (kind, options) in optimizers.CASES.items()
    if kind in ADAMS and (kind is torch.optim.AdamW or "weight_decay" not in options)
]
LONG = range(20)


@pytest.mark.parametrize("name", DIVIDING)
def test_nothing_of_the_history_leaves_the_new_gradient_whatever_the_step(name: str) -> None:
    parameters = fresh_parameters()
    optimizer = make(name, parameters)
    take_steps(optimizer, parameters[:1], LONG)
    take_steps(optimizer, parameters, range(20, 23))  # so the counters of the parameters differ
    give_gradients(parameters, 100)
    blend(optimizer, parameters, 0.0)
    optimizer.step()
    sign = -1 if optimizer.param_groups[0].get("maximize") else 1
    for parameter, steps in zip(parameters, (24, 4, 4), strict=True):
        gradient = parameter.grad
        assert gradient is not None
        state, (first, second) = optimizer.state[parameter], optimizer.param_groups[0]["betas"]
        assert float(state["step"]) == steps
        torch.testing.assert_close(state["exp_avg"] / (1 - first**steps), sign * gradient, rtol=1e-4, atol=1e-6)
        if "exp_avg_sq" in state:
            torch.testing.assert_close(state["exp_avg_sq"] / (1 - second**steps), gradient**2, rtol=1e-4, atol=1e-6)
        if "max_exp_avg_sq" in state:
            torch.testing.assert_close(state["max_exp_avg_sq"], state["exp_avg_sq"])


@pytest.mark.parametrize("name", ["Adam", "Adam, amsgrad", "Adam, foreach", "Adam, fused", "AdamW, foreach, amsgrad"])
@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.5])
def test_steps_have_their_length_after_reuse(name: str, sigma: float) -> None:
    """Gradients of one size: whatever is reused, each later step of Adam has the length lr in every entry."""
    (parameter,) = fresh_parameters(count=1)
    optimizer = make(name, [parameter])
    optimizer.param_groups[0]["weight_decay"] = 0.0
    for step in range(140):
        parameter.grad = torch.full_like(parameter, 3.0)
        if step == 20:
            blend(optimizer, [parameter], sigma)
        before = parameter.detach().clone()
        optimizer.step()
        torch.testing.assert_close(before - parameter.detach(), torch.full_like(before, 0.01), rtol=1e-3, atol=1e-6)


def test_an_adam_step_after_reuse_by_hand() -> None:
    """Eq. 13 and two more steps, with averages that are divided by the sum of their weights."""
    (parameter,) = fresh_parameters(count=1)
    adam = torch.optim.Adam([parameter], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    sigma, place = 0.3, 4
    sums = [torch.zeros_like(parameter.detach()).double(), torch.zeros_like(parameter.detach()).double()]
    masses, expected = [0.0, 0.0], parameter.detach().double().clone()
    for step in range(place + 3):
        give_gradients([parameter], step)
        assert parameter.grad is not None
        for index, (beta, power) in enumerate(((0.9, 1), (0.99, 2))):
            decay = sigma * beta if step == place else beta
            sums[index] = decay * sums[index] + (1 - decay) * parameter.grad.double() ** power
            masses[index] = decay * masses[index] + (1 - decay)
            if step == place:  # from then on the mass is again that of the step counter
                sums[index], masses[index] = sums[index] / masses[index] * (1 - beta ** (step + 1)), 1 - beta ** (step + 1)
        expected -= 0.01 * (sums[0] / masses[0]) / ((sums[1] / masses[1]).sqrt() + 1e-8)
        if step == place:
            blend(adam, [parameter], sigma)
        adam.step()
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


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
        assert not torch.equal(adam.state[parameters[0]]["exp_avg"], torch.zeros(4, 3))
    assert_same_state(*states)


def test_groups_with_their_own_decays() -> None:
    def run(scaled: bool) -> list[dict[str, Tensor]]:
        """The averages, those with scaled decays times what their masses differ by."""
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
        masses = [
            {name: (1 - beta**7) / (1 - 0.3 * beta**7) for name, beta in zip(("exp_avg", "exp_avg_sq"), betas, strict=True)}
            for betas in ((0.5, 0.6), (0.95, 0.999), (0.9, 0.999))
        ]
        optimizer.step()
        found = [averages_of(optimizer, parameter) for parameter in parameters]
        if scaled:
            found = [{name: own[name] * mass[name] for name in own} for own, mass in zip(found, masses, strict=True)]
        return found

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
        rows = [1, 2]
        corrected = expected[name][rows] * mass_kept(blended, name, 0.3, steps=4)
        torch.testing.assert_close(found[name][rows], corrected, rtol=1e-5, atol=1e-6)
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
