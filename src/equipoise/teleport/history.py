"""What becomes of the optimizer's memory after a teleport.

An optimizer such as Adam remembers gradients of the trajectory so far. After a teleport that memory is of another place. A
:class:`History` says what to do with it; COST's paper keeps a share σ of it (eq. 12 and 13). :func:`remembered` knows what
each torch optimizer keeps, under which name; :func:`blend` and :func:`reset` each do one thing with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from equipoise.engine.reals import as_real, flat
from equipoise.errors import InputError
from equipoise.registry import Registry
from equipoise.teleport.checks import chosen

__all__ = [
    "HISTORIES",
    "History",
    "HistoryLike",
    "KeepHistory",
    "Kind",
    "ReleasedHistory",
    "ResetHistory",
    "ReuseHistory",
    "as_history",
    "blend",
    "gradient_seen",
    "remembered",
    "reset",
    "similarity",
]


class History(ABC):
    """What becomes of the optimizer's memory after a teleport.

    Attributes:
        name: how it is asked for.
        scope: of which parameters: ``"moved"``, those that were teleported, or ``"all"`` that the optimizer holds.
    """

    name: ClassVar[str]
    scope: Literal["moved", "all"] = "moved"

    def __post_init__(self) -> None:
        if self.scope not in ("moved", "all"):
            raise InputError(f'scope must be "moved" or "all"; got {self.scope!r}')

    @abstractmethod
    def settle(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], sigma: float) -> float | None:
        """Does what needs no gradient at the new point.

        Args:
            optimizer: whose state may be changed in place.
            parameters: those in the scope.
            sigma: σ = cos(Δθ, g') of eq. 12, from -1 to 1.

        Returns:
            ``None``, or a share of the memory that :func:`blend` is to keep when the gradients at the new point are there.
        """


@dataclass(frozen=True)
class KeepHistory(History):
    """All of it is kept, as it is: the moving averages of the trajectory before."""

    name = "keep"

    def settle(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], sigma: float) -> float | None:
        """Does nothing."""
        return None


@dataclass(frozen=True)
class ReuseHistory(History):
    """Eq. 13 of the COST paper: the decays of the step from the new point are scaled by σ, so that a share σ of the memory is
    reused; see :func:`blend`. The paper's equations do not say of which parameters.

    Args:
        scope: ``"moved"`` for the parameters that were teleported, ``"all"`` for all that the optimizer holds.
    """

    scope: Literal["moved", "all"] = "moved"
    name = "reuse"

    def settle(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], sigma: float) -> float | None:
        """Leaves it to the step, whose gradients it needs."""
        return sigma


@dataclass(frozen=True)
class ResetHistory(History):
    """All of it is forgotten.

    Args:
        scope: as for :class:`ReuseHistory`.
    """

    scope: Literal["moved", "all"] = "moved"
    name = "reset"

    def settle(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], sigma: float) -> float | None:
        """Calls :func:`reset`."""
        reset(optimizer, parameters)
        return None


@dataclass(frozen=True)
class ReleasedHistory(History):
    """What COST's released code does: reset where σ ≤ 0, else as :class:`ReuseHistory`.

    Args:
        scope: as for :class:`ReuseHistory`; there it is all that the optimizer holds.
    """

    scope: Literal["moved", "all"] = "all"
    name = "released"

    def settle(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], sigma: float) -> float | None:
        """One or the other."""
        if sigma > 0:
            return sigma
        reset(optimizer, parameters)
        return None


HISTORIES: Registry[type[History]] = Registry("history", error=InputError)
for _kind in (KeepHistory, ReuseHistory, ResetHistory, ReleasedHistory):
    HISTORIES.add(_kind.name, _kind)
HistoryLike: TypeAlias = "str | History"


def as_history(history: HistoryLike) -> History:
    """Reads a history policy.

    Raises:
        InputError: neither of these, or an unknown name.

    Example:
        >>> as_history("reuse")
        ReuseHistory(scope='moved')
    """
    return chosen(HISTORIES, history, History)  # type: ignore[type-abstract]


def similarity(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Eq. 12 of the COST paper: σ = cos(Δθ, g'), over all pairs taken as one long vector.

    The sign is the paper's and the released code's: positive where the teleport goes *up* the combined gradient.

    Args:
        pairs: Δθ and the combined gradient before the teleport, for each shared parameter that has a gradient.

    Returns:
        From -1 to 1; 0 where either of them vanishes.

    Example:
        >>> import torch
        >>> similarity([(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0]))])
        0.6
    """
    product = moved = gradient = 0.0
    for delta, grad in pairs:
        grad = grad.to_dense() if grad.is_sparse else grad
        own, other = flat(delta.detach().to(grad.device)).double(), flat(grad.detach()).double()
        # Added up as Python numbers in float64: the same on every process and every run.
        product += float(own @ other)
        moved += float(own @ own)
        gradient += float(other @ other)
    scale = (moved * gradient) ** 0.5
    return max(-1.0, min(1.0, product / scale)) if 0.0 < scale < float("inf") else 0.0


class Kind(Enum):
    """How a new gradient g enters a buffer b, with decay β."""

    MEAN = "b ← β b + (1-β) g"
    MEAN_SQUARE = "b ← β b + (1-β) g²"
    MAXIMUM = "b ← max(β b, |g|)"
    CENTER = "b ← β b + (1-β) g, whose square is taken off the mean of squares"
    ACCUMULATOR = "b ← β b + what g contributes"
    PEAK = "b ← max(b, mean of squares)"  # amsgrad's


_ADAM = {"exp_avg": Kind.MEAN, "exp_avg_sq": Kind.MEAN_SQUARE, "max_exp_avg_sq": Kind.PEAK}
_BY_CLASS: tuple[tuple[str, Mapping[str, Kind]], ...] = (
    ("Adamax", {"exp_avg": Kind.MEAN, "exp_inf": Kind.MAXIMUM}),
    ("RMSprop", {"square_avg": Kind.MEAN_SQUARE, "grad_avg": Kind.CENTER, "momentum_buffer": Kind.ACCUMULATOR}),
    # The second average, of squared steps, is left alone: the step that would enter it is not known beforehand.
    ("Adadelta", {"square_avg": Kind.MEAN_SQUARE}),
    ("SGD", {"momentum_buffer": Kind.ACCUMULATOR}),
    ("Muon", {"momentum_buffer": Kind.MEAN}),
)


def remembered(optimizer: torch.optim.Optimizer) -> Mapping[str, Kind]:
    """Buffers of an optimizer's state that hold moving averages, by name.

    An optimizer derived from one of torch's counts as that one. Any other that keeps ``exp_avg`` or ``exp_avg_sq``, as most
    relatives of Adam do, is taken for a relative of Adam. Nothing is known of the rest (Adagrad, whose sums never fade, Rprop,
    ASGD, Adafactor, LBFGS): for them the mapping is empty and their state is left as it is.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
        >>> list(remembered(optimizer)), dict(remembered(torch.optim.Adagrad([torch.zeros(1, requires_grad=True)])))
        (['momentum_buffer'], {})
    """
    for name, buffers in _BY_CLASS:
        known = getattr(torch.optim, name, None)
        if known is not None and isinstance(optimizer, known):
            return buffers
    if any("exp_avg" in state or "exp_avg_sq" in state for state in optimizer.state.values()):
        return _ADAM
    return {}


def gradient_seen(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    """The gradient as it enters the moving averages: with coupled weight decay added, and negated if it is maximized."""
    assert parameter.grad is not None
    gradient = parameter.grad.detach()
    if gradient.is_sparse:
        gradient = gradient.to_dense()
    if group.get("maximize", False):
        gradient = -gradient
    decay = float(group.get("weight_decay", 0.0) or 0.0)
    decoupled = group.get("decoupled_weight_decay", False) or isinstance(
        optimizer, tuple(filter(None, (torch.optim.AdamW, getattr(torch.optim, "Muon", None))))
    )
    return gradient if decoupled or not decay else gradient + decay * parameter.detach()


@torch.no_grad()
def blend(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], sigma: float) -> int:
    """Makes the optimizer's next step the one of eq. 13 of the COST paper, for some parameters only.

    Eq. 13 gives the average ``σβ m + (1 - σβ) g``. Optimizers of Adam's family divide averages by their mass, which is 1 - βᵗ
    in the t-th step of ordinary training (bias correction) and 1 - σβᵗ for this one. So that the step has the length that it
    should have, and so have all later ones, the average is stored with the mass that the optimizer will divide by::

        (σβ m + (1 - σβ) g) · (1 - βᵗ) / (1 - σβᵗ)

    With σ = 1 that is an ordinary step; with σ = 0 the average is the new gradient, in whichever step. Where an optimizer
    divides by no mass, the average is that of eq. 13 as it stands. A running maximum (Adamax, the peak of ``amsgrad``) and a
    momentum buffer that is no mean (SGD, RMSprop) are scaled by σ. Step counters stay. The mean that centred RMSprop takes
    off its mean of squares is scaled by σ only: with the new gradient in both, as σ nears 0 the step would be divided by the
    variance of a single gradient, which is zero.

    Args:
        optimizer: whose state is changed in place; parameters without state are passed over.
        parameters: those whose history is to be reused, with the gradient of the step to come in ``.grad``.
        sigma: share of the history to keep, from 0 to 1; below 0 counts as 0.

    Returns:
        How many buffers were changed; none if all of the history is kept.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> adam = torch.optim.Adam([weight], lr=0.1)
        >>> for gradient in (8.0, -8.0, 8.0, 0.5):
        ...     weight.grad, before = torch.tensor([gradient]), weight.item()
        ...     changed = blend(adam, [weight], 0.0) if gradient == 0.5 else 0
        ...     adam.step()
        >>> changed, round(before - weight.item(), 4)
        (2, 0.1)
    """
    sigma = min(max(sigma, 0.0), 1.0)
    if sigma == 1.0:
        return 0
    kinds = remembered(optimizer)
    ids = {id(parameter) for parameter in parameters}
    changed = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if id(parameter) not in ids or not state or parameter.grad is None:
                continue
            touched = None
            if isinstance(optimizer, torch.optim.SparseAdam):
                # A step of it lets only those entries fade that the gradient holds.
                held = parameter.grad.coalesce()
                touched, gradient = tuple(held.indices()), held.values()
                gradient = -gradient if group.get("maximize", False) else gradient
            else:
                gradient = gradient_seen(optimizer, group, parameter)
            for name, kind in kinds.items():
                buffer = state.get(name)
                if not isinstance(buffer, Tensor):
                    continue
                kept, fresh = _shares(kind, group, state, sigma)
                part = buffer if touched is None else buffer[touched]
                part.mul_(kept)
                if kind is Kind.MEAN:
                    part.add_(gradient.to(buffer.dtype), alpha=fresh)
                elif kind is Kind.MEAN_SQUARE:
                    # The parts of a complex entry have a square each.
                    as_real(part).add_(as_real(gradient.to(buffer.dtype)).square(), alpha=fresh)
                if touched is not None:
                    buffer[touched] = part
                changed += 1
    return changed


def _shares(kind: Kind, group: Mapping[str, Any], state: Mapping[str, Any], sigma: float) -> tuple[float, float]:
    """The factors of a buffer and of the new gradient with which the step that follows ends at eq. 13."""
    steps = state.get("step", group.get("step"))
    if kind not in (Kind.MEAN, Kind.MEAN_SQUARE) or steps is None or "betas" not in group:
        return sigma, 1.0 - sigma
    beta = float(group["betas"][0 if kind is Kind.MEAN else 1])
    if beta <= 0.0:
        return 0.0, 0.0  # it remembers nothing
    power = beta ** (float(steps) + 1.0)
    factor = (1.0 - power) / (1.0 - sigma * power)
    # The step itself will make β b + (1-β) g of what is stored now.
    return factor * sigma, (factor * (1.0 - sigma * beta) - (1.0 - beta)) / beta


@torch.no_grad()
def reset(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Forgets everything the optimizer remembers of some parameters; their next step is like the very first.

    LBFGS has one memory for all parameters, which goes as a whole. Two optimizers need their state to stay where it is, so it
    is set back in place: Adagrad (not every version makes it again) and fused SGD, whose kernel takes momentum for all
    parameters or for none; with ``dampening``, its next step differs from a first one by that factor.
    """
    ids = {id(parameter) for parameter in parameters}
    if isinstance(optimizer, torch.optim.LBFGS):
        if any(id(parameter) in ids for parameter in optimizer.param_groups[0]["params"]):
            optimizer.state.clear()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in ids or not optimizer.state.get(parameter):
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
