"""Discounting the history by its mass, and forgetting it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.teleport.history import discount, reset
from tests.states import assert_same_state
from tests.teleport import optimizers
from tests.teleport.optimizers import averages_of, entire_state, fresh_parameters, give_gradients, make, take_steps

STEPS = range(8)
AFTER = range(100, 105)
CORRECTED = [name for name in optimizers.CASES if name.split(",")[0] in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")]
UNCORRECTED = [name for name in optimizers.CASES if name not in CORRECTED]
# A buffer of zeros differs from none by the dampening of the first gradient.
EXACT = [name for name in optimizers.CASES if name != "SGD, dampening"]


def trained(name: str, count: int = 3) -> tuple[list[Tensor], torch.optim.Optimizer]:
    parameters = fresh_parameters(count=count)
    optimizer = make(name, parameters)
    take_steps(optimizer, parameters, STEPS)
    return parameters, optimizer


def copied(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone().requires_grad_() for parameter in parameters]


@pytest.mark.parametrize("name", optimizers.CASES)
def test_all_of_the_mass_is_no_change(name: str) -> None:
    parameters, optimizer = trained(name)
    before = [entire_state(optimizer, parameter) for parameter in parameters]
    discount(optimizer, parameters, 1.0)
    assert_same_state([entire_state(optimizer, p) for p in parameters], before)


@pytest.mark.parametrize("sigma", [0.0, -0.4])
@pytest.mark.parametrize("name", [*CORRECTED, *(name for name in UNCORRECTED if name in EXACT and name.startswith("SGD"))])
def test_nothing_left_is_a_fresh_optimizer(name: str, sigma: float) -> None:
    parameters, optimizer = trained(name)
    theirs = copied(parameters)
    fresh = make(name, theirs)
    discount(optimizer, parameters, sigma)
    take_steps(optimizer, parameters, AFTER)
    take_steps(fresh, theirs, AFTER)
    assert all(torch.equal(a, b) for a, b in zip(parameters, theirs, strict=True))
    assert_same_state(entire_state(optimizer, parameters[0]), entire_state(fresh, theirs[0]))


@pytest.mark.parametrize("name", EXACT)
def test_a_reset_is_a_fresh_optimizer(name: str) -> None:
    parameters, optimizer = trained(name)
    theirs = copied(parameters)
    fresh = make(name, theirs)
    reset(optimizer, parameters)
    take_steps(optimizer, parameters, AFTER)
    take_steps(fresh, theirs, AFTER)
    assert all(torch.equal(a, b) for a, b in zip(parameters, theirs, strict=True))


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.Rprop, torch.optim.ASGD, torch.optim.Adafactor])
def test_a_reset_of_other_optimizers(kind: type[torch.optim.Optimizer]) -> None:
    parameters = fresh_parameters()
    optimizer = kind(parameters, lr=0.01)  # type: ignore[call-arg]
    take_steps(optimizer, parameters, STEPS)
    theirs = copied(parameters)
    fresh = kind(theirs, lr=0.01)  # type: ignore[call-arg]
    reset(optimizer, parameters)
    take_steps(optimizer, parameters, AFTER)
    take_steps(fresh, theirs, AFTER)
    assert all(torch.equal(a, b) for a, b in zip(parameters, theirs, strict=True))


@pytest.mark.parametrize("what", ["reset", "mass of zero", "mass of a half"])
@pytest.mark.parametrize("name", optimizers.CASES)
def test_other_parameters_are_stepped_as_if_nothing_had_happened(name: str, what: str) -> None:
    """Kernels that take all parameters at once must bear that some have a history and others have none."""
    parameters, optimizer = trained(name)
    theirs, plain = trained(name)
    if what == "reset":
        reset(optimizer, parameters[:2])
    else:
        discount(optimizer, parameters[:2], 0.5 if what.endswith("half") else 0.0)
    take_steps(optimizer, parameters, AFTER)
    take_steps(plain, theirs, AFTER)
    assert torch.equal(parameters[2], theirs[2])
    assert_same_state(entire_state(optimizer, parameters[2]), entire_state(plain, theirs[2]))


def corrected(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Averages divided by their mass, as the step will meet them."""
    state, (first, second) = optimizer.state[parameter], optimizer.param_groups[0]["betas"]
    steps = float(state["step"])
    found = {}
    for name, beta in (("exp_avg", first), ("exp_avg_sq", second), ("max_exp_avg_sq", second)):
        if name in state:
            found[name] = state[name].double() / (1 - beta**steps)
    return found


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", CORRECTED)
def test_corrected_averages_stay_what_they_were(name: str, sigma: float) -> None:
    parameters, optimizer = trained(name)
    before = corrected(optimizer, parameters[0])
    counter = float(optimizer.state[parameters[0]]["step"])
    discount(optimizer, parameters, sigma)
    lowered = float(optimizer.state[parameters[0]]["step"])
    # The mass of the second moment is the largest that whole steps have within the share σ.
    beta = optimizer.param_groups[0]["betas"][1]
    share = sigma * (1 - beta**counter)
    assert 1 <= lowered < counter
    assert lowered == int(lowered)
    assert 1 - beta**lowered <= share * (1 + 1e-9)
    assert 1 - beta ** (lowered + 1) > share
    for buffer, expected in before.items():
        torch.testing.assert_close(corrected(optimizer, parameters[0])[buffer], expected, rtol=1e-5, atol=1e-9)


def test_the_momentum_schedule_of_nadam_goes_with_the_counter() -> None:
    parameters, optimizer = trained("NAdam")
    discount(optimizer, parameters, 0.5)
    lowered = int(optimizer.state[parameters[0]]["step"])
    theirs = fresh_parameters()
    peer = make("NAdam", theirs)
    take_steps(peer, theirs, range(lowered))
    torch.testing.assert_close(optimizer.state[parameters[0]]["mu_product"], peer.state[theirs[0]]["mu_product"])


def test_new_gradients_weigh_as_after_fewer_steps() -> None:
    """A long history is cut down until one more gradient counts as much as it does after the steps that are left."""
    (parameter,) = fresh_parameters(count=1)
    adam = torch.optim.Adam([parameter], lr=0.01, betas=(0.9, 0.99))
    take_steps(adam, [parameter], range(60))
    old = corrected(adam, parameter)["exp_avg_sq"]
    discount(adam, [parameter], 0.1)
    left = int(adam.state[parameter]["step"])
    give_gradients([parameter], 1000)
    assert parameter.grad is not None
    gradient = parameter.grad.double()
    adam.step()
    weight = 0.01 / (1 - 0.99 ** (left + 1))
    torch.testing.assert_close(
        corrected(adam, parameter)["exp_avg_sq"], (1 - weight) * old + weight * gradient**2, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("name", UNCORRECTED)
def test_without_bias_correction_momentum_is_scaled_and_means_stay(name: str) -> None:
    parameters, optimizer = trained(name)
    before = averages_of(optimizer, parameters[0])
    discount(optimizer, parameters, 0.25)
    after = averages_of(optimizer, parameters[0])
    accumulates = not name.startswith("Muon")
    for buffer in before:
        expected = 0.25 * before[buffer] if buffer == "momentum_buffer" and accumulates else before[buffer]
        assert torch.equal(after[buffer], expected)


@pytest.mark.parametrize("name", optimizers.CASES)
def test_no_state_yet(name: str) -> None:
    parameters = fresh_parameters()
    optimizer = make(name, parameters)
    discount(optimizer, parameters, 0.5)
    discount(optimizer, parameters, 0.0)
    reset(optimizer, parameters)
    assert not any(optimizer.state.values())
    take_steps(optimizer, parameters, STEPS)


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.Rprop, torch.optim.ASGD, torch.optim.Adafactor])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_optimizers_without_known_averages_are_left_alone(kind: type[torch.optim.Optimizer], sigma: float) -> None:
    parameters = fresh_parameters()
    optimizer = kind(parameters, lr=0.01)  # type: ignore[call-arg]
    take_steps(optimizer, parameters, STEPS)
    before = entire_state(optimizer, parameters[0])
    discount(optimizer, parameters, sigma)
    assert_same_state(entire_state(optimizer, parameters[0]), before)


def test_groups_with_their_own_decays() -> None:
    parameters = fresh_parameters()
    groups: list[dict[str, Any]] = [
        {"params": parameters[:1], "betas": (0.5, 0.6)},
        {"params": parameters[1:2], "betas": (0.9, 0.99)},
        {"params": parameters[2:], "betas": (0.9, 0.0)},
    ]
    adam = torch.optim.Adam(groups, lr=0.01)
    take_steps(adam, parameters, STEPS)
    discount(adam, parameters, 0.9)
    # A mean with decay 0 is all there after one step, so a share below 1 leaves no step at all.
    counters = [float(adam.state[p]["step"]) if p in adam.state else 0.0 for p in parameters]
    assert counters == [4.0, 7.0, 0.0]
    take_steps(adam, parameters, AFTER)


def test_sparse_adam() -> None:
    torch.manual_seed(0)
    table = torch.nn.Embedding(6, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    for rows in ((0, 1, 2), (0, 1, 1), (2, 3, 5)) * 4:
        optimizer.zero_grad()
        table(torch.tensor(rows)).square().sum().backward()
        optimizer.step()
    discount(optimizer, [table.weight], 0.5)
    assert optimizer.state[table.weight]["step"] == 5
    optimizer.step()
    discount(optimizer, [table.weight], 0.0)
    optimizer.step()
    assert optimizer.state[table.weight]["step"] == 1
