"""NTK weights: every loss at the same average rate of the kernel's flow."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.mixins import ElsewhereObservation, LooksElsewhere
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.points import kernel_trace, residuals_of, squares
from equipoise.states import Anything, Maybe, Of, Whole

__all__ = ["NTK"]


@register(
    "ntk",
    summary="weights from the traces of each loss's neural tangent kernel, taken anew now and then",
    paper=(
        "Wang, Yu and Perdikaris, When and Why PINNs Fail to Train: A Neural Tangent Kernel Perspective, J. Comput. Phys. 2022 "
        "(arXiv 2007.14527)"
    ),
    price="1 backward; every 100th step a row of gradients per point",
    promise="every residual falls at the same average rate of the kernel's flow",
    serves="physics-informed losses, made by `eq.points.mean_square`",
    caveats="needs `MultiTaskOptimizer`; other losses count as the square of one residual",
    adds_up_to="at least K²",
    checked="released code's formula; per-point gradients",
)
class NTK(LooksElsewhere, LossBalancer):
    """Weighs task k by Σ_j Tr K_j / Tr K_k, K_k = J_k J_kᵀ the neural tangent kernel of its residuals, J_k = ∂r_k/∂θ.

    θ are all trained parameters. The traces are sums over points, so give every task as many of them, as the released code
    (github.com/PredictiveIntelligenceLab/PINNsNTK) does. The paper's text was not available; this follows that code.

    Residuals are those of :func:`equipoise.points.mean_square`, of which a loss may be a sum; factors before it are not seen.
    They are evaluated once more every ``every`` steps, and the trace of each is taken by
    :func:`equipoise.points.kernel_trace`: exactly, one row of gradients per point, or from a few random probes. Where no loss
    tells its residuals, each counts as the square of one residual √ℓ, whose trace is ‖∇ℓ‖²/4ℓ: for a mean square the kernel's
    Rayleigh quotient at the residuals over their number. (NVIDIA's PhysicsNeMo takes the root of that for the trace.)

    A task whose trace is 0, which has no gradient, weighs 1.

    Args:
        every: steps from one look at the kernels to the next; 100 as in the released code. A task that was not seen yet
            is looked at when it is.
        probes: how many random vectors a trace is estimated from; 0 takes it exactly. The standard deviation is at most
            √(2/probes) of the trace.
        seed: of the probes. Under ``torch.distributed`` every process must hold every task.

    Raises:
        InputError: an argument is out of range; at a step, some losses tell their residuals and others do not, or there
            is no :class:`~equipoise.MultiTaskOptimizer` that evaluates them.
    """

    looks_elsewhere = True
    stateful: ClassVar = {"traces": Maybe(Of(("K",), least=0, nan=True, cpu=True)), "steps": Whole(), "generator": Anything()}

    def __init__(self, every: int = 100, probes: int = 0, seed: int = 0) -> None:
        if every < 1:
            raise InputError(f"every must be at least 1; got {every}")
        if probes < 0:
            raise InputError(f"probes must be at least 0; got {probes}")
        self.every = every
        self.probes = probes
        self.seed = seed
        self.traces: Tensor | None = None
        self.steps = 0
        self.generator = torch.Generator().manual_seed(seed)

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present."""
        observation.check_memory(self, self.traces)
        traces = self.traces
        due = self.steps % self.every == 0 or traces is None or bool(observation.of_present(traces).isnan().any())
        if due:
            if not isinstance(observation, ElsewhereObservation):
                raise InputError(f"{self!r} evaluates the losses once more, which needs MultiTaskOptimizer")
            found = self._look(observation)
            known = found.new_full((len(observation.tasks),), torch.nan) if traces is None else traces
            traces = self.traces = known.index_copy(0, torch.tensor(observation.present, device="cpu"), found)
        assert traces is not None
        own = observation.of_present(traces)
        weights = traces.nansum() / own
        return torch.where(weights.isfinite(), weights, 1.0)

    def update(self, observation: Observation) -> None:
        """Counts the steps."""
        self.steps += 1

    def _look(self, observation: ElsewhereObservation) -> Tensor:
        """The traces ``[k]`` of the tasks present."""
        own = observation.elsewhere.parameters()
        parameters = list(own.values())
        names = [observation.tasks[position] for position in observation.present]
        with torch.enable_grad():
            losses = observation.elsewhere.losses(own)
            if len(losses) != len(names):
                raise InputError(f"{self!r} needs the losses of {', '.join(names)} in every process")
            told = [residuals_of(node) for node in _branches(losses)]
            lacking = [name for name, residuals in zip(names, told, strict=True) if not residuals]
            if lacking and len(lacking) < len(names):
                raise InputError(
                    f"{self!r} knows the residuals of some losses and not of {', '.join(lacking)}; make all of them by "
                    f"equipoise.points.mean_square(residuals), or none"
                )
            if lacking:
                traces = [_of_one(loss, parameters) for loss in losses.unbind()]
            else:
                traces = [
                    torch.stack([kernel_trace(part, parameters, self.probes, self.generator) for part in parts]).sum()
                    for parts in told
                ]
        # On the CPU, where no later step waits for them.
        return observation.elsewhere.average(torch.stack(traces).detach()).cpu()

    def __repr__(self) -> str:
        return f"NTK(every={self.every}, probes={self.probes}, seed={self.seed})"


def _branches(losses: Tensor) -> list[torch.autograd.graph.Node]:
    """Where the graph of each of the stacked losses ends."""
    node = losses.grad_fn
    while node is not None and node.name() != "StackBackward0":
        node = node.next_functions[0][0]
    assert node is not None
    return [branch for branch, _ in node.next_functions if branch is not None]


def _of_one(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """‖∇√ℓ‖² = ‖∇ℓ‖²/4ℓ, and 0 at 0."""
    value = loss.detach().abs().double()
    size = squares(loss, parameters, torch.ones_like(loss)[None])
    return torch.where(value > 0, size / (4 * value), 0.0)
