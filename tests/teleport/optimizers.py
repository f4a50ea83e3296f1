"""Torch's optimizers that keep moving averages, in the variants that a CPU has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import optim as O

Make = Callable[..., O.Optimizer]


def _cases() -> dict[str, tuple[type[O.Optimizer], dict[str, Any]]]:
    cases: dict[str, tuple[type[O.Optimizer], dict[str, Any]]] = {
        "Adam": (O.Adam, {}),
        "Adam, amsgrad": (O.Adam, {"amsgrad": True}),
        "Adam, weight decay": (O.Adam, {"weight_decay": 0.1}),
        "Adam, decoupled weight decay": (O.Adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        "Adam, maximize": (O.Adam, {"maximize": True, "weight_decay": 0.1}),
        "Adam, foreach": (O.Adam, {"foreach": True}),
        "Adam, fused": (O.Adam, {"fused": True}),
        "Adam, fused, amsgrad": (O.Adam, {"fused": True, "amsgrad": True}),
        "AdamW": (O.AdamW, {"weight_decay": 0.1}),
        "AdamW, foreach, amsgrad": (O.AdamW, {"weight_decay": 0.1, "foreach": True, "amsgrad": True}),
        "AdamW, fused": (O.AdamW, {"weight_decay": 0.1, "fused": True}),
        "NAdam": (O.NAdam, {}),
        "NAdam, weight decay": (O.NAdam, {"weight_decay": 0.1}),
        "NAdam, decoupled weight decay": (O.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        "NAdam, foreach, maximize": (O.NAdam, {"foreach": True, "maximize": True}),
        "RAdam": (O.RAdam, {}),
        "RAdam, decoupled weight decay": (O.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        "RAdam, foreach": (O.RAdam, {"foreach": True, "weight_decay": 0.1}),
        "Adamax": (O.Adamax, {}),
        "Adamax, foreach, weight decay": (O.Adamax, {"foreach": True, "weight_decay": 0.1}),
        "Adamax, maximize": (O.Adamax, {"maximize": True}),
        "RMSprop": (O.RMSprop, {}),
        "RMSprop, centered": (O.RMSprop, {"centered": True}),
        "RMSprop, momentum": (O.RMSprop, {"momentum": 0.9}),
        "RMSprop, everything": (O.RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.1, "maximize": True}),
        "RMSprop, foreach": (O.RMSprop, {"momentum": 0.9, "centered": True, "foreach": True}),
        "Adadelta": (O.Adadelta, {"weight_decay": 0.1}),
        "Adadelta, foreach": (O.Adadelta, {"foreach": True, "maximize": True}),
        "SGD, momentum": (O.SGD, {"momentum": 0.9}),
        "SGD, dampening": (O.SGD, {"momentum": 0.9, "dampening": 0.3}),
        "SGD, nesterov": (O.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        "SGD, foreach, maximize": (O.SGD, {"momentum": 0.9, "foreach": True, "maximize": True, "weight_decay": 0.1}),
        "SGD, fused": (O.SGD, {"momentum": 0.9, "fused": True}),
    }
    if hasattr(O, "Muon"):
        cases["Muon"] = (O.Muon, {"weight_decay": 0.1})
        cases["Muon, nesterov off"] = (O.Muon, {"nesterov": False, "weight_decay": 0.0})
    return cases


CASES = _cases()
# Options that hold a decay, with what is scaled by σ in each.
DECAYS = ("betas", "alpha", "momentum", "rho")
AVERAGES = ("exp_avg", "exp_avg_sq", "exp_inf", "square_avg", "grad_avg", "momentum_buffer")


def make(name: str, groups: Any, lr: float = 0.01) -> O.Optimizer:
    kind, options = CASES[name]
    return kind(groups, lr=lr, **options)  # type: ignore[call-arg]


def fresh_parameters(seed: int = 0, count: int = 3) -> list[Tensor]:
    """Matrices, for Muon takes nothing else."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, generator=generator).requires_grad_() for _ in range(count)]


def give_gradients(parameters: list[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def take_steps(optimizer: O.Optimizer, parameters: list[Tensor], seeds: range) -> None:
    for seed in seeds:
        give_gradients(parameters, seed)
        optimizer.step()


def averages_of(optimizer: O.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    state = optimizer.state[parameter]
    return {name: state[name].clone() for name in AVERAGES if isinstance(state.get(name), Tensor)}


def entire_state(optimizer: O.Optimizer, parameter: Tensor) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in optimizer.state[parameter].items()}
