"""MOML: multi-objective meta learning by nested gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, get_args

import torch
from torch import Tensor

from equipoise.balance import MGDA, Balancer, Observation
from equipoise.balance.coerce import as_balancer
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import OnFeatures, Perturbing, PullsHeads
from equipoise.bilevel.base import BilevelReport, BilevelSolver, LowerLevel
from equipoise.bilevel.hypergradients import Hypergradients, Implicit, Memory, Unrolled, found_by
from equipoise.bilevel.levels import Parts
from equipoise.bilevel.problem import BilevelProblem
from equipoise.engine.gramian import gramian
from equipoise.engine.reals import shaped, size
from equipoise.errors import InputError, NonFiniteError
from equipoise.modes import without_autocast
from equipoise.step.deciding import as_answer
from equipoise.step.metric import check_metric

__all__ = ["MOML"]


class MOML(BilevelSolver):
    """Steps α along a balancer's combination of the hypergradients of all upper objectives (thesis, Algorithm 1).

    ω takes T gradient steps from its start, and every F_i(ω_T(α), α) is differentiated with respect to α through all of
    them. A balancer, the multi-objective solver, combines the m hypergradients. ω becomes ω_T.

    Time of a step: T gradients of f and m times T products with its second derivatives, T of them where the balancer needs
    the objectives' values alone; ``memory="checkpointed"`` takes about one more evaluation and gradient of f per lower step,
    or two, and keeps √T copies of ω in place of T graphs. While differentiating twice, compiled modules run eagerly and
    attention by the kernel that has a second derivative. Layers without one: products by differences of gradients, said once.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, that hold α (and no ω).
        balancer: combines the hypergradients: any balancer that looks at losses, the Gramian or gradients, or the name of one.
        hypergradient: how they are found: :class:`~equipoise.bilevel.Unrolled`, through all lower steps (meant if left out) or
            the last of them, or :class:`~equipoise.bilevel.Implicit`, by conjugate gradients or a Neumann series at ω_T.
        memory: of unrolling: ``"plain"`` or ``"checkpointed"``, see :mod:`equipoise.bilevel.hypergradients`.
        batched: differentiate all objectives at once with ``vmap``.
        keeps_lower: leave ω, and the modules' buffers, as they are: the lower steps are a look ahead, and something else
            moves ω.
        lower: ``lower_steps``, ``lower_lr`` (the paper's μ) and the rest of :class:`~equipoise.bilevel.base.LowerLevel`.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> alpha, omega = torch.tensor(0.0), torch.tensor([0.0, 3.0])
        >>> problem = BilevelProblem(
        ...     lower=lambda alpha, omega, batch: (omega - alpha).square().sum(),
        ...     upper=lambda alpha, omega, batch: {"one": (omega - 1).square().sum(), "two": (omega - 2).square().sum()},
        ...     variables=(alpha, omega),
        ... )
        >>> solver = MOML(problem, torch.optim.SGD([alpha], 0.1), lower_steps=50, lower_lr=0.1)
        >>> for _ in range(50):
        ...     values = solver.step()
        >>> bool(1 <= alpha <= 2)
        True
    """

    moves_both = False

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        balancer: Balancer | str | Any = None,
        hypergradient: Unrolled | Implicit | None = None,
        memory: Memory = "plain",
        batched: bool = False,
        keeps_lower: bool = False,
        **lower: Unpack[LowerLevel],
    ) -> None:
        super().__init__(problem, optimizer, **lower)
        if memory not in get_args(Memory):
            raise InputError(f'memory must be "plain" or "checkpointed"; got "{memory}"')
        if not isinstance(hypergradient, Unrolled | Implicit | None):
            raise InputError(f"hypergradient must be an Unrolled or an Implicit; got {type(hypergradient).__name__}")
        self.hypergradient = Unrolled() if hypergradient is None else hypergradient
        if isinstance(hypergradient, Implicit):
            self.rule.decays(len(problem.lower_variables))  # refuses what cannot be
        self.balancer = MGDA() if balancer is None else as_balancer(balancer)
        own = self.balancer
        check_metric(own)
        pulls = isinstance(own, PullsHeads) and own.pulls
        if own.watches or pulls or isinstance(own, OnFeatures | DoubleSampling | Perturbing):
            raise InputError(
                f"{own!r} needs more than the objectives' values and hypergradients; the upper level takes balancers "
                f"that look at losses, the Gramian or gradients, such as MGDA, CAGrad or FairGrad"
            )
        self.memory: Memory = memory
        self.batched = batched
        self.keeps_lower = keeps_lower
        self._found: Hypergradients | None = None
        self._before: dict[str, Any] | None = None
        self._observation: Observation | None = None

    def _gradients(self, batches: list[Parts], upper_parts: Parts) -> BilevelReport:
        found = self._hypergradients(batches, upper_parts)
        names = self.problem.objectives
        products = gramian(found.rows).cpu()
        rows = [(name, (name,)) for name in names] if found.weights is None else [(", ".join(names), names)]
        for (label, tasks), square in zip(rows, products.diagonal().tolist(), strict=True):
            if not math.isfinite(square):
                raise self.levels.not_finite(f'the hypergradient of the upper level\'s objective "{label}"', tasks)
        if found.weights is None:
            weights, direction = self._balanced(found, products)
        else:
            weights, direction = found.weights, found.rows[0]
        if not bool(torch.isfinite(direction).all()):
            what = f"the direction that {self.balancer!r} combined from finite hypergradients"
            raise self.levels.not_finite(what, names)
        start = 0
        for position, tensor in enumerate(self.problem.upper_variables.tensors):
            piece = shaped(tensor, direction[start : start + size(tensor)])
            # Optimizers leave variables without a gradient alone, where one of zeros would decay them.
            if found.reached is None or found.reached[position]:
                tensor.grad = piece.to(tensor)
            start += size(tensor)
        self._found = found
        return BilevelReport(
            step=self.steps,
            objectives=names,
            upper=found.values,
            lower=found.lower,
            weights=weights,
            multiplier=None,
            constraint=None,
            stationarity=float(direction.double().square().sum()),
        )

    def _hypergradients(self, batches: list[Parts], upper_parts: Parts) -> Hypergradients:
        return self._unrolled(batches, upper_parts)

    def _unrolled(self, batches: list[Parts], upper_parts: Parts) -> Hypergradients:
        # In the first step every objective is looked at by itself, so that one which does not answer to α is found out.
        alone = self.balancer.needs != "losses" or self.steps == 0
        goes_on = self.start == "warm" and not self.keeps_lower
        return found_by(
            self.hypergradient,
            self.levels,
            self._lower_start(),
            batches,
            upper_parts,
            self.rule,
            averages=self.rule.remembered(len(self.problem.lower_variables)) if goes_on else None,
            memory=self.memory,
            batched=self.batched,
            weigh=None if alone else self._weights,
            undo=self._rollback,
            step=self.steps,
        )

    def _weights(self, values: Tensor) -> Tensor:
        """Of the objectives, from their values alone: one backward pass of the weighted sum does then."""
        self._observe(values, None, None)
        return self._decide(values.device).double().cpu()

    def _balanced(self, found: Hypergradients, gramian: Tensor) -> tuple[Tensor | None, Tensor]:
        self._observe(found.values, gramian, found.rows)
        answer = self._decide(found.rows.device)
        if self.balancer.needs == "gradients":
            return None, answer.to(found.rows)
        with without_autocast(found.rows.device):
            return answer.double().cpu(), answer.to(found.rows) @ found.rows

    def _observe(self, values: Tensor, gramian: Tensor | None, rows: Tensor | None) -> None:
        names = self.problem.objectives
        balancer = self.balancer
        if balancer.stateful and not balancer.decides_purely:
            self._before = balancer.state_dict()
        self._observation = Observation(
            names,
            tuple(range(len(names))),
            values,
            gramian if balancer.needs == "gramian" else None,
            rows if balancer.needs == "gradients" else None,
            self.steps,
        )

    def _decide(self, device: torch.device) -> Tensor:
        names, balancer = self.problem.objectives, self.balancer
        assert self._observation is not None
        with without_autocast(device):
            answer = as_answer(balancer.decide(self._observation), balancer)
        if not bool(torch.isfinite(answer).all()):
            pairs = zip(names, torch.isfinite(answer).tolist(), strict=False)
            bad = names if balancer.needs == "gradients" else tuple(name for name, fine in pairs if not fine)
            raise NonFiniteError(
                f"{balancer!r} gave {', '.join(bad)} an answer that is not finite in step {self.steps}; nothing has changed",
                tasks=bad,
                step=self.steps,
                what="weight",
            )
        return answer

    def _commit(self) -> None:
        if not self.keeps_lower:
            assert self._found is not None
            with torch.no_grad():
                for tensor, value in zip(self.problem.lower_variables.tensors, self._found.solution.lower, strict=True):
                    tensor.copy_(value)
            self.problem.keep_buffers(self._found.solution.buffers)
            if self._found.memory is not None:
                self.rule.remember(self._found.memory)
        if self._observation is not None:
            self.balancer.update(self._observation)
        self._forget()

    def _rollback(self) -> None:
        if self._before is not None:
            self.balancer.load_state_dict(self._before)
        self._forget()

    def _forget(self) -> None:
        self._found = self._before = self._observation = None

    def _memory(self) -> dict[str, Any]:
        return {"balancer": self.balancer.state_dict()}

    def _read_memory(self, memory: Mapping[str, Any]) -> dict[str, Any]:
        known = len(self.problem.objectives)
        return {"balancer": self.balancer.read_state(memory["balancer"], {"K": known} if known else None)}

    def _remember(self, memory: dict[str, Any]) -> None:
        self.balancer.load_state_dict(copy.deepcopy(memory["balancer"]))
