"""The metric in which an adaptive optimizer takes its step, read from its second moments.

Adam moves the parameters along D⁻¹ d, D = √v̂ + ε. To first order that changes the losses by -lr G D⁻¹ d, so the inner products
that decide who gains are those of G D⁻¹ Gᵀ, not of G Gᵀ: what is balanced in one of them need not be in the other (MAdam,
arXiv 2606.03904, calls this the geometric mismatch). A balancer with ``metric = "optimizer"`` is shown G D⁻¹ Gᵀ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.balance.base import Balancer
from equipoise.engine.reals import as_real
from equipoise.errors import InputError

__all__ = ["OptimizerMetric", "check_metric", "line"]

_HINT = "take Adam, AdamW, RMSprop or another that divides by them, or leave metric= out"
# Torch's own that keep none, known before they have taken a step.
_WITHOUT = tuple(
    kind
    for name in ("SGD", "ASGD", "Rprop", "LBFGS", "Adafactor", "Muon")
    if (kind := getattr(torch.optim, name, None)) is not None
)


class OptimizerMetric:
    """D of the step that the optimizers are about to take, as their state is before it.

    D is what each optimizer divides by: √v̂ + ε with bias correction (Adam, AdamW, NAdam, RAdam where it divides, SparseAdam,
    the peak of ``amsgrad``, any other that keeps ``exp_avg_sq``), RMSprop's and Adagrad's root plus ε, Adamax's norm,
    Adadelta's ratio of roots. A group with a smaller learning rate than the largest counts by the ratio of the two, for its
    parameters move that much less. Before the first step there is no D and the metric is the plain one. Parameters without
    moments (new ones, or of a teleport that forgot them) count by the mean of the other entries of D.

    Args:
        optimizers: those that hold the parameters.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        held = [(p, optimizer, group) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        self._parameters = [parameter for parameter, _, _ in held]
        self._groups = {id(parameter): (optimizer, group) for parameter, optimizer, group in held}
        rates = [float(group["lr"]) for _, group in self._groups.values() if "lr" in group]
        self._largest = max(rates, default=0.0)
        self._found: dict[int, Tensor | None] = {}
        self._usual: float | None = None

    @torch.no_grad()
    def inverse(self, parameter: Tensor) -> Tensor:
        """1/D of one parameter, in its shape, with pairs for complex entries."""
        key = id(parameter)
        if key not in self._found:
            self._found[key] = self._read(parameter)
        found = self._found[key]
        if found is None:
            real = as_real(parameter.detach())
            return torch.full_like(real, self._mean(), dtype=torch.promote_types(real.dtype, torch.float32))
        return found

    def inverses(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """1/D of each parameter."""
        return [self.inverse(parameter) for parameter in parameters]

    def _read(self, parameter: Tensor) -> Tensor | None:
        divisor = self._divisor_of(parameter)
        if divisor is None:
            return None
        found = divisor.to(torch.promote_types(divisor.dtype, torch.float32)).clamp(min=1e-30).reciprocal()
        rate = float(self._groups[id(parameter)][1].get("lr", self._largest))
        return found if rate == self._largest else found * (rate / self._largest)

    def _divisor_of(self, parameter: Tensor) -> Tensor | None:
        """D of a parameter by its optimizer alone; ``None`` where that knows of none."""
        if id(parameter) not in self._groups:
            return None
        optimizer, group = self._groups[id(parameter)]
        return _divisor(optimizer, group, optimizer.state.get(parameter) or {})

    def _mean(self) -> float:
        """1/D where nothing is known of a parameter: of the mean of D where something is, or 1."""
        if self._usual is None:
            total, count = 0.0, 0
            for parameter in self._parameters:
                divisor = self._divisor_of(parameter)
                if divisor is not None:
                    total += float(divisor.sum(dtype=torch.float64))
                    count += divisor.numel()
            self._usual = count / total if total > 0 else 1.0
        return self._usual


def check_metric(balancer: Balancer, optimizers: Sequence[torch.optim.Optimizer] = ()) -> None:
    """Refuses a balancer whose metric cannot be had; without optimizers, none can.

    Raises:
        InputError: an unknown metric, no optimizer that is known, or one that keeps no second moments.
    """
    metric = getattr(balancer, "metric", None)
    if metric is None:
        return
    if metric != "optimizer":
        raise InputError(f'metric must be "optimizer", or left out for plain inner products; got {metric!r}')
    if not optimizers:
        raise InputError(
            'metric="optimizer" reads the second moments of the optimizer, which MultiTaskOptimizer alone is given; use that, '
            "or leave metric= out"
        )
    for optimizer in optimizers:
        if isinstance(optimizer, _WITHOUT):
            raise InputError(f'metric="optimizer" needs second moments, and {type(optimizer).__name__} keeps none; {_HINT}')
        if hasattr(optimizer, "consolidate_state_dict"):
            raise InputError(
                f'metric="optimizer" needs all second moments in every process, and {type(optimizer).__name__} keeps a part in '
                f"each; take the optimizer itself, or leave metric= out"
            )


def line(inverses: Sequence[Tensor] | None) -> Tensor | None:
    """1/D of several parameters one after the other, ``[P]``."""
    return None if not inverses else torch.cat([piece.reshape(-1) for piece in inverses])


def _divisor(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor | None:
    """What the optimizer divides the step of a parameter by, in real numbers; ``None`` before its first one.

    Raises:
        InputError: it has taken steps and keeps no second moments.
    """
    if not state:
        return None
    steps = state.get("step", group.get("step"))  # some relatives of Adam count in the group
    count = 1.0 if steps is None else float(steps)
    if count == 0:
        return None  # Adagrad makes its state beforehand
    eps = float(group.get("eps", 0.0))
    if isinstance(optimizer, torch.optim.Adadelta):
        return (as_real(state["square_avg"]) + eps).sqrt() / (as_real(state["acc_delta"]) + eps).sqrt()
    if isinstance(optimizer, torch.optim.Adamax):
        return as_real(state["exp_inf"])
    if isinstance(optimizer, torch.optim.RMSprop):
        square = as_real(state["square_avg"])
        if group["centered"]:
            square = (square - as_real(state["grad_avg"]).square()).clamp(min=0)
        return square.sqrt() + eps
    if isinstance(optimizer, torch.optim.Adagrad):
        return as_real(state["sum"]).sqrt() + eps
    square = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    if not isinstance(square, Tensor):
        raise InputError(f'metric="optimizer" needs second moments, and {type(optimizer).__name__} keeps none; {_HINT}')
    root: Tensor = as_real(square).sqrt()
    beta = float(group["betas"][1]) if "betas" in group and steps is not None else 0.0
    mass: float = (1.0 - beta**count) ** 0.5
    if isinstance(optimizer, torch.optim.SparseAdam):
        return (root + eps) / mass
    if isinstance(optimizer, torch.optim.RAdam):
        longest = 2.0 / (1.0 - beta) - 1.0
        length = longest - 2.0 * count * beta**count / (1.0 - beta**count)
        if length <= 5.0:  # it does not divide yet
            return torch.ones_like(root)
        # r of Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, 2020
        shrink: float = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
        return (root + eps) / mass / shrink
    return root / mass + eps
