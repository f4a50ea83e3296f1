"""The other ways to treat the history: discount it by its mass, or begin afresh."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.teleport.history.averages import Kind, remembered

__all__ = ["discount", "reset"]


@torch.no_grad()
def reset(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Forgets everything the optimizer remembers of some parameters; their next step is like the very first.

    Two optimizers need their state to stay where it is, so it is set back in place: Adagrad (not every version makes it anew)
    and fused SGD, whose kernel takes momentum for all parameters or for none; with ``dampening``, its next step differs from
    a first one by that factor.
    """
    chosen = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in chosen or not optimizer.state.get(parameter):
                continue
            state = optimizer.state[parameter]
            if isinstance(optimizer, torch.optim.Adagrad):
                state["sum"].fill_(optimizer.defaults["initial_accumulator_value"])
                state["step"].zero_()
            elif isinstance(optimizer, torch.optim.SGD) and group.get("fused"):
                if isinstance(state.get("momentum_buffer"), torch.Tensor):
                    state["momentum_buffer"].zero_()
            else:
                optimizer.state.pop(parameter)


@torch.no_grad()
def discount(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], sigma: float) -> None:
    """Keeps a share σ of the history's mass: untouched at σ = 1, a fresh optimizer at σ = 0.

    After t steps a mean with decay β holds weights that add up to its mass 1 - βᵗ, by which optimizers of Adam's family
    divide (bias correction). Here the mean of squares, whose memory is the longest, keeps σ of its mass: the step counter
    is lowered to the t' with 1 - β₂^t' = σ (1 - β₂ᵗ), rounded down, and every moment is scaled to the mass that belongs to t'.
    So the averages stay what they were, yet new gradients weigh as much as after t' steps. Optimizers without bias correction
    divide by no mass; their momentum buffers are scaled by σ, and their means are left alone.

    Args:
        optimizer: whose state is changed in place; parameters without state are passed over.
        parameters: those that were teleported.
        sigma: share to keep, from 0 to 1; below 0 counts as 0.
    """
    sigma = min(max(sigma, 0.0), 1.0)
    if sigma == 1.0:
        return
    kinds = remembered(optimizer)
    chosen = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if id(parameter) not in chosen or not state:
                continue
            if not (kinds and "betas" in group and "step" in state):
                for name, kind in kinds.items():
                    if kind is Kind.ACCUMULATOR and isinstance(state.get(name), Tensor):
                        state[name].mul_(sigma)
                continue
            if not _lower(state, group, kinds, sigma):
                optimizer.state.pop(parameter)


def _lower(state: dict[str, Any], group: Mapping[str, Any], kinds: Mapping[str, Kind], sigma: float) -> bool:
    """Lowers the counter and the moments; says whether anything is left."""
    first, second = (float(beta) for beta in group["betas"])
    steps = float(state["step"])
    lowered = _steps_of_mass(sigma * _mass(second, steps), second)
    if lowered < 1 or steps < 1:
        return False
    for name, kind in kinds.items():
        buffer = state.get(name)
        if not isinstance(buffer, Tensor):
            continue
        if kind is Kind.MAXIMUM:
            continue  # a maximum has no mass
        beta = first if kind is Kind.MEAN else second
        buffer.mul_(_mass(beta, lowered) / _mass(beta, steps))
    if isinstance(state["step"], Tensor):
        state["step"].fill_(lowered)
    else:
        state["step"] = lowered
    if "mu_product" in state:
        # NAdam: the product of its momentum schedule so far, which takes the place of β₁ᵗ.
        decay = float(group.get("momentum_decay", 0.0))
        product = math.prod(first * (1.0 - 0.5 * 0.96 ** (step * decay)) for step in range(1, int(lowered) + 1))
        state["mu_product"].fill_(product)
    return True


def _mass(beta: float, steps: float) -> float:
    return 1.0 - float(beta**steps)


def _steps_of_mass(mass: float, beta: float) -> int:
    """The largest whole number of steps whose mass is not above the one given."""
    if beta <= 0.0 or mass >= 1.0:
        return int(mass >= 1.0)
    return math.floor(math.log1p(-mass) / math.log(beta) + 1e-9)
