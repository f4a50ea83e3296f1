"""The methods that learn task weights on validation data: what each is called, its options, and how its solver is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch
from torch import nn

from equipoise.balance import MoCo
from equipoise.bilevel.base import BilevelSolver
from equipoise.bilevel.bome import BOME
from equipoise.bilevel.bvfim import BVFIM
from equipoise.bilevel.forum import FORUM
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.value_function import ValueFunction, ValueFunctionSolver
from equipoise.bilevel.weighting.auto_lambda import AutoLambda
from equipoise.bilevel.weighting.look_ahead import LookAhead
from equipoise.bilevel.weighting.problem import WeightProblem
from equipoise.errors import InputError, refuse_unknown_options
from equipoise.objective import Objective
from equipoise.options import checked, kinds_of
from equipoise.registry import Registry

__all__ = ["REGISTRY", "WeightingInfo", "weighting", "weightings"]

# The thesis' for regression on QM9; with its 0.1, for other data, lower steps on a squared error of two digits diverge.
_LR = 0.01


@dataclass(frozen=True)
class WeightingInfo:
    """An entry of the registry.

    Attributes:
        name: what the method is called.
        summary: one line on what it does.
        paper: authors, title and year.
        price: what a step costs, in words.
        build: ``build(problem, optimizers, **options)`` gives the solver.
        options: the solver's options with their defaults here.
        solvers: the classes whose constructors say of what kind each option is.
        aliases: other names it answers to.
        cost: ``"bilevel"``, as other registries say ``"losses"`` or ``"gramian"``.
    """

    name: str
    summary: str
    paper: str
    price: str
    build: Callable[..., BilevelSolver] = field(compare=False, repr=False)
    options: Mapping[str, Any]
    solvers: tuple[type, ...]
    aliases: tuple[str, ...] = ()
    cost: str = "bilevel"

    @property
    def kinds(self) -> dict[str, Any]:
        """Option → what kind it is of, as annotated."""
        known = {name: kind for made in self.solvers for name, kind in kinds_of(made).items()}
        known = {"careful": bool, **get_type_hints(ValueFunction), **known}
        return {name: kind for name, kind in known.items() if name in self.options}

    def solver(
        self,
        problem: WeightProblem,
        free: torch.optim.Optimizer,
        model: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        **options: Any,
    ) -> Any:
        """The solver on a problem, its options checked.

        Raises:
            UnknownOptionError: the method has no such option; near misses are suggested.
            InputError: an option's value is out of range.
        """
        refuse_unknown_options(self.name, options, self.options)
        options = checked(self.kinds, options, f'method "{self.name}"')
        return self.build(problem, free, model, scaler=scaler, **{**self.options, **options})

    def check(self, **options: Any) -> None:
        """Refuses what :meth:`solver` would refuse, before there is a problem to solve."""
        model = nn.ParameterList([torch.zeros(1, device="cpu")])  # nothing random: torch's generator is the caller's
        objective = Objective(model, lambda model, batch: {"task": model[0].sum()}, ["task"])
        problem = WeightProblem(objective, torch.zeros(1, device="cpu"))
        adam = torch.optim.Adam(problem.upper_variables.tensors)
        self.solver(problem, adam, torch.optim.SGD(model.parameters(), lr=1.0), **options)


def weightings() -> tuple[WeightingInfo, ...]:
    """All methods that learn task weights on validation data, by name.

    Example:
        >>> [info.name for info in weightings()]
        ['auto-lambda', 'bome', 'bvfim', 'forum', 'moco-bilevel', 'moml']
    """
    return tuple(sorted(REGISTRY, key=lambda info: info.name))


def weighting(name: str) -> WeightingInfo:
    """Looks a method up by its name or an alias; case, ``-`` and ``_`` do not matter.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.

    Example:
        >>> weighting("MoCo_bilevel").options["lower_steps"]
        1
    """
    return REGISTRY.find(name)


def _both(kind: type[ValueFunctionSolver]) -> Callable[..., BilevelSolver]:
    """Solvers that move the weights and the model together."""

    def build(problem: WeightProblem, free: torch.optim.Optimizer, model: torch.optim.Optimizer, **options: Any) -> Any:
        careful = options.pop("careful")
        if not isinstance(careful, bool):
            raise InputError(f"careful must be True or False; got {careful}")
        solver = kind(problem, (model, free), **options)
        solver.careful = careful
        return solver

    return build


def _ahead(problem: WeightProblem, free: torch.optim.Optimizer, model: torch.optim.Optimizer, **options: Any) -> BilevelSolver:
    """MOML moves the weights; an ordinary training step moves the model."""
    return LookAhead(problem, free, **options)


def _tracked(
    problem: WeightProblem, free: torch.optim.Optimizer, model: torch.optim.Optimizer, **options: Any
) -> BilevelSolver:
    """MOML with MoCo's averages and weights in place of a minimum-norm point."""
    own = {option: options.pop(option) for option in _options(MoCo)}
    return LookAhead(problem, free, balancer=MoCo(**own), **options)


def _finite_differences(
    problem: WeightProblem, free: torch.optim.Optimizer, model: torch.optim.Optimizer, **options: Any
) -> BilevelSolver:
    """Auto-λ moves the weights, at the pace of the model's optimizer."""
    return AutoLambda(problem, free, model, **options)


def _options(kind: type) -> dict[str, Any]:
    """Keyword arguments with defaults."""
    return {name: own.default for name, own in inspect.signature(kind).parameters.items() if own.default is not own.empty}


def _values(kind: type[BilevelSolver], **changed: Any) -> dict[str, Any]:
    """Options of a value-function method; what a task-weighting step decides itself is left out."""
    own = {name: value for name, value in _options(kind).items() if name not in ("start", "constraint_batches")}
    return {"lower_steps": 5, "lower_lr": _LR, "careful": True, "memory": "rows", **own, **changed}


_UNROLLED = {"lower_steps": 1, "lower_lr": _LR, "memory": "plain", "batched": False}

REGISTRY: Registry[WeightingInfo] = Registry("method of task weights")
for _info in (
    WeightingInfo(
        "forum",
        "all validation losses fall together, while training on the weighted losses is kept as a constraint",
        "Ye et al., A First-Order Multi-Gradient Algorithm for Multi-Objective Bi-Level Optimization, ECAI 2024",
        "T + K backward",
        _both(FORUM),
        _values(FORUM, rho=0.1),
        (FORUM,),
    ),
    WeightingInfo(
        "bome",
        "the mean validation loss falls, while training on the weighted losses is kept as a constraint",
        "Liu et al., BOME! Bilevel Optimization Made Easy, NeurIPS 2022",
        "T + 1 backward",
        _both(BOME),
        _values(BOME),
        (BOME,),
    ),
    WeightingInfo(
        "bvfim",
        "as `bome`, the constraint as a logarithmic barrier",
        "Liu et al., A Value-Function-based Interior-point Method for Non-convex Bi-level Optimization, ICML 2021",
        "T + 1 backward",
        _both(BVFIM),
        _values(BVFIM),
        (BVFIM,),
    ),
    WeightingInfo(
        "moml",
        "weights that lower all validation losses after T virtual steps; then an ordinary step with them",
        "Ye et al., Multi-Objective Meta Learning, NeurIPS 2021",
        "2K + 1 backward for T = 1; else T with second derivatives, K through them, and 1",
        _ahead,
        {**_UNROLLED, "balancer": "mgda"},
        (MOML,),
    ),
    WeightingInfo(
        "moco-bilevel",
        "as `moml`, with averaged hypergradients and a solver that takes one step at a time",
        "Fernando et al., Mitigating Gradient Bias in Multi-objective Learning, ICLR 2023",
        "as `moml`",
        _tracked,
        {**_UNROLLED, **_options(MoCo)},
        (MOML, MoCo),
    ),
    WeightingInfo(
        "auto-lambda",
        "weights, not on the simplex, that lower the primary tasks' summed validation loss after one virtual step",
        "Liu et al., Auto-λ: Disentangling Dynamic Task Relationships, TMLR 2022",
        "3 backward, 2 forward more",
        _finite_differences,
        {"primary": None, "initial": 0.1, "lower_lr": None},
        (AutoLambda,),
    ),
):
    REGISTRY.add(_info.name, _info, aliases=_info.aliases)
