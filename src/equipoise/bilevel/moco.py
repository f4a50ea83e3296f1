"""MoCo for bilevel problems: hypergradients tracked over the steps, weights that take one step at a time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from equipoise.balance import MoCo
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.problem import BilevelProblem

__all__ = ["MoCoBilevel"]


class MoCoBilevel(MOML):
    """As :class:`MOML`, but for the solver: y_i tracks ∇_α F_i and λ takes one step at a time (Fernando et al., 2023).

    The thesis (sections 3.2 and 3.6) describes MoCo as unrolled hypergradients with a momentum-like average and a one-step
    update of the weights; that is :class:`equipoise.MoCo` on the hypergradients of MOML. Its own paper estimates the
    hypergradients by other means.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, that hold α (and no ω).
        options: β, γ, ρ and the others of :class:`equipoise.MoCo`; and those of :class:`MOML` but for its balancer.

    Raises:
        InputError: an argument that cannot be used.
    """

    def __init__(
        self, problem: BilevelProblem, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer], **options: Any
    ) -> None:
        own = {name: options.pop(name) for name in inspect.signature(MoCo).parameters if name in options}
        super().__init__(problem, optimizer, balancer=MoCo(**own), **options)
