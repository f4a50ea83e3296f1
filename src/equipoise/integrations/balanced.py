"""The balanced loss as one object that a trainer calls, saves and restores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.balance.mixins import LooksElsewhere
from equipoise.engine.shared import SharedParameters
from equipoise.errors import InputError
from equipoise.loss import balanced_loss, known_of
from equipoise.method import MethodSpec, groups_of, proxy_of, resolved
from equipoise.proxy import Proxy, as_proxy
from equipoise.states import Anything, Listed, Text, Whole, read_state
from equipoise.step.by_proxy import check_proxied
from equipoise.step.report import StepReport
from equipoise.tasks import Losses, Tasks, as_losses, read_fixed, scalar

__all__ = ["BalancedLoss", "why_it_steps"]


class BalancedLoss:
    """:func:`~equipoise.balanced_loss` together with all that it remembers: balancer, proxy and the names of the tasks.

    Call it with the losses and let your trainer differentiate what it returns. Where gradients are off, as in evaluation, it
    returns the plain sum Σ_k ℓ_k (losses with fixed weights times theirs) and learns nothing.

    Args:
        balancer: a balancer, or a method by name, as text or as a :class:`~equipoise.MethodSpec`, with a proxy if need be:
            ``"fairgrad:alpha=2@last(memory=0.5)"``. Methods with a memory are made here and kept.
        proxy: where the Gramian is taken, as for :func:`~equipoise.balanced_loss`; left out, that of the method's text, or
            ``"last"``.
        shared: as for :func:`~equipoise.balanced_loss`.
        heads: as for :func:`~equipoise.balanced_loss`.
        tasks: as for :func:`~equipoise.balanced_loss`.
        fixed: as for :func:`~equipoise.balanced_loss`.
        check_finite: as for :func:`~equipoise.balanced_loss`.

    Attributes:
        balancer: as it is used.
        proxy: as it is used.
        last: the report of the last step that was balanced here, or ``None``.

    Raises:
        InputError: a method that an ordinary backward pass of one scalar cannot serve: one with a teleport, one that looks at
            task gradients themselves, or one that evaluates the losses again; the message says what to use instead.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> loss = BalancedLoss("fairgrad:alpha=2")
        >>> out = model(torch.ones(5, 3)).square().mean(0)
        >>> loss({"a": out[0], "b": out[1]}).backward()
        >>> loss.last.tasks, sorted(loss.state_dict())
        (('a', 'b'), ['balancer', 'proxy', 'steps', 'tasks'])
    """

    def __init__(
        self,
        balancer: Balancer | MethodSpec | str | Any,
        proxy: Proxy | str | nn.Module | Iterable[Tensor] | None = None,
        shared: nn.Module | Iterable[Tensor] | None = None,
        *,
        heads: Literal["weighted", "own"] = "weighted",
        tasks: Sequence[str] | None = None,
        fixed: Mapping[str, float] | None = None,
        check_finite: bool = True,
    ) -> None:
        self.balancer, teleport = resolved(balancer)
        why = why_it_steps(self.balancer, teleport, groups_of(balancer))
        if why:
            raise InputError(f"{balancer if teleport else self.balancer!r} {why}; use MultiTaskOptimizer")
        given = proxy_of(balancer, proxy)
        self.proxy = as_proxy("last" if given is None else given) or Proxy("exact")
        self.last: StepReport | None = None
        self._tasks = None if tasks is None else Tasks(tasks).names
        self._fixed = read_fixed(fixed)
        self._shared = shared if shared is None or isinstance(shared, nn.Module) else SharedParameters(shared).declared
        self._options: dict[str, Any] = {"heads": heads, "fixed": fixed, "check_finite": check_finite}

    def __call__(self, losses: Losses) -> Tensor:
        """The balanced loss, or under ``no_grad()`` the plain sum.

        Args:
            losses: mapping task → scalar, a sequence of scalars or a tensor ``[K]``.

        Raises:
            InputError: see :func:`~equipoise.balanced_loss`.
            NonFiniteError: a loss or gradient that is not finite; nothing was learned from it.
        """
        if not torch.is_grad_enabled():
            weighted = [self._fixed.get(name, 1.0) * loss for name, loss in self.values(losses).items()]
            return torch.stack(weighted).sum() if weighted else torch.zeros((), device="cpu")
        loss = balanced_loss(losses, self.balancer, self.proxy, self._shared, tasks=self._tasks, **self._options)
        self.last = loss.report  # type: ignore[attr-defined]
        self._tasks = self._names()  # which a copy has, too
        return loss

    def values(self, losses: Losses) -> dict[str, Tensor]:
        """The losses by the names of their tasks, detached: to be logged in an evaluation."""
        named = as_losses(losses, None if isinstance(losses, Mapping) else self._names() or None, some=False)
        return {name: scalar(name, loss, differentiable=False).detach() for name, loss in named.items()}

    def end_epoch(self) -> None:
        """Says that a pass over the data is over; balancers that count epochs need it."""
        self.balancer.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it continues."""
        own = {"tasks": list(self._names()), "steps": known_of(self.balancer).steps}
        return {"balancer": self.balancer.state_dict(), "proxy": self.proxy.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state is of other tasks or another balancer; nothing has changed.
        """
        forms = {"balancer": Anything(), "proxy": Anything(), "tasks": Listed(Text()), "steps": Whole()}
        read = read_state("a balanced loss", dict(state), forms)
        names, known = tuple(read["tasks"]), self._names()
        if names and known and names != known:
            raise InputError(f"the state is of the tasks {', '.join(names)}; the tasks here are {', '.join(known)}")
        for name, part in (("balancer", self.balancer), ("proxy", self.proxy)):
            part.read_state(read[name], {"K": len(names)} if names else {})
        self.balancer.load_state_dict(read["balancer"])
        self.proxy.load_state_dict(read["proxy"])
        self._tasks = names or self._tasks
        known_of(self.balancer).steps = read["steps"]

    def _names(self) -> tuple[str, ...]:
        return known_of(self.balancer).context.tasks.names or self._tasks or ()

    def __repr__(self) -> str:
        return f"BalancedLoss({self.balancer!r}, {self.proxy!r})"


def why_it_steps(balancer: Balancer, teleport: object, groups: object = None) -> str:
    """Why an ordinary backward pass of one scalar cannot serve a method; empty where it can."""
    if teleport is not None:
        return "teleports, which takes a step of its own"
    if groups is not None:
        return "lets groups of tasks take turns, which takes steps of their own"
    if balancer.watches:
        return "learns from the losses of the same batch after the step, which the balanced loss does not see"
    if isinstance(balancer, LooksElsewhere) and balancer.looks_elsewhere:
        return "evaluates the losses at other parameters"
    try:
        check_proxied(balancer, "a balanced loss")
    except InputError:
        return "needs more than the weights of a sum of losses, and an ordinary backward pass can use nothing else"
    return ""
