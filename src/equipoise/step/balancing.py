"""Balanced gradients: chooses the way that the balancer's needs ask for, and keeps its memory safe when a step fails."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.balance.base import Balancer, LossBalancer, Observation
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import Accompanied
from equipoise.distributed import Processes, refuse_unseen_wrapper
from equipoise.engine.graph import leaves_of_all
from equipoise.engine.shared import SharedParameters
from equipoise.errors import InputError, warn_once
from equipoise.proxy import Proxy, as_proxy, kept_source, same_source
from equipoise.step.by_features import ByFeatures
from equipoise.step.by_gradients import ByGradients
from equipoise.step.by_losses import ByLosses
from equipoise.step.by_proxy import ByProxy, check_proxied
from equipoise.step.context import Context, Turn, Unlabelled
from equipoise.step.finding import find_shared
from equipoise.step.fused import HookWatch
from equipoise.step.perturbing import perturbed
from equipoise.step.report import StepReport
from equipoise.step.source import FurtherSource, Given, Source
from equipoise.tasks import Tasks

__all__ = ["Balancing"]

# Which training each balancer with a memory serves, by the balancer's identity: a user's own may have no hash.
_serving: weakref.WeakValueDictionary[int, Balancing] = weakref.WeakValueDictionary()
_SECOND = "this {} serves a second training, so what it learns in one decides in the other; make one balancer for each"
# So many steps with one task each, from the first one on, are no accident.
_ALONE = 10


class Balancing:
    """Turns losses into balanced gradients; arguments as for :class:`~equipoise.step.context.Context`.

    Args:
        features: take the Gramian at this module's output instead.
        batched: differentiate so many tasks at once with ``vmap``, 0 for all; one after the other if ``None``.
        proxy: estimate the Gramian in place of one backward pass per task.
        streamed: form the exact Gramian block by block of the graph, without rows of all shared parameters.
    """

    def __init__(
        self,
        tasks: Tasks,
        shared: SharedParameters,
        *,
        features: nn.Module | None = None,
        batched: int | None = None,
        proxy: Proxy | None = None,
        streamed: bool = False,
        processes: Processes | None = None,
        parameters: Sequence[Tensor] = (),
        check_finite: bool = True,
        model: nn.Module | None = None,
    ) -> None:
        self.steps = 0
        self.unlabelled = 0
        self.context = Context(tasks, shared, processes or Processes(), parameters, check_finite, model)
        self._by_losses = ByLosses(self.context)
        self._by_gradients = ByGradients(self.context, batched)
        self._by_features = None if features is None else ByFeatures(self.context, features)
        self._streamed = streamed
        self._by_proxy = ByProxy(self.context, proxy) if streamed or proxy is not None else None
        self._turn: Turn | None = None
        self._before: dict[str, Any] | None = None
        self._proxied: tuple[Proxy, dict[str, Any]] | None = None
        self._observation: Observation | None = None
        self._new = False
        self._hooks = HookWatch()
        self._alone: int | None = 0
        self._sighted = False
        self._met: set[int] = set()
        self._served: weakref.ref[Balancer] | None = None

    def run(
        self,
        balancer: Balancer,
        source: Source,
        step: int,
        scale: Tensor | None = None,
        further: Sequence[FurtherSource] = (),
        *,
        scaled: bool = True,
        declared: Sequence[str] = (),
        anew: bool = False,
    ) -> StepReport:
        """Fills ``.grad``; :meth:`commit`, :meth:`skip` or :meth:`rollback` must follow.

        ``anew`` takes the step under way from its start, at parameters that have moved since: what the balancer and the proxy
        made of the first evaluation is forgotten.

        Where no batch holds a task's loss, nothing changes but the count ``unlabelled``, and the report is one without tasks.
        ``declared`` are the tasks, for steps before they are known; else see :class:`~equipoise.step.context.Turn`.

        Raises:
            InputError: losses or parameters that cannot be used.
            NonFiniteError: a loss or gradient is not finite; the balancer's state is as before.
        """
        expected = further_batches(balancer)
        if len(further) != expected:
            raise InputError(
                f"{type(balancer).__name__} looks at {expected or 'no'} further batches per step; got {len(further)}"
            )
        elsewhere = perturbed(balancer, source, self.context, scale)
        if elsewhere is not None and self._by_features is not None:
            raise InputError(f"{balancer!r} takes gradients at points of their own; leave features= out")
        if anew:
            self._put_back()
        else:
            self._new = not self.context.tasks.known
        if self._new and declared:
            self.context.tasks.fix(declared)
        self._turn = turn = Turn(balancer, elsewhere or source, step, scale, further, scaled=scaled)
        self.context.begin(f"step {step} of {type(balancer).__name__}, micro-batches: {source.micro_batches}")
        self._before = balancer.state_dict() if balancer.stateful and not balancer.decides_purely else None
        way, beside = self._way(balancer), source.beside
        self._proxied = (way.proxy, way.proxy.state_dict()) if isinstance(way, ByProxy) else None
        if beside is not None:
            beside.begin(self.context, turn)
        try:
            with self._hooks.watching(self._reachable(source), first=self.steps == 0, whole=not further):
                report, self._observation = way.run(turn)
            if beside is not None:
                report = replace(report, fixed=beside.deliver(step))
            if elsewhere is not None:
                report = replace(report, losses=elsewhere.means())
        except Unlabelled:
            self.rollback()
            report = StepReport((), torch.zeros(0, device=self.context.device()), step=step, skipped=True)
        except BaseException as error:
            if anew:  # the step may go on where it was before, and its tasks stay known
                self._put_back()
            else:
                self.rollback()
            refuse_unseen_wrapper(error)
            raise
        finally:
            if not self.context.parameters:
                # A caller of the drop-in may differentiate more of the same forward pass.
                self.context.wrappers.wake()
        if not anew:
            self._look_out(balancer, source, report)
        return report

    def again(self, source: Source) -> StepReport:
        """Fills ``.grad`` once more in the step under way, at the parameters of now; the balancer learns nothing from it.

        Raises:
            InputError, NonFiniteError: as :meth:`run`.
        """
        turn = self._turn
        assert turn is not None
        balancer = turn.balancer
        decided, learned = dict(vars(balancer)), balancer.state_dict() if self._before is not None else None
        proxied = None if self._proxied is None else self._proxied[0].state_dict()
        companion = balancer.companion() if isinstance(balancer, Accompanied) else None
        gradients = [(p, p.grad) for p in companion.parameters] if companion is not None else []
        # What the optimizer moves is where the optimizer has it now.
        lent = [(p, p.detach().clone()) for p in companion.lent] if companion is not None else []
        self._keep_rows()
        try:
            if self._before is not None:
                balancer.load_state_dict(self._before)
                with torch.no_grad():
                    for parameter, value in lent:
                        parameter.copy_(value)
            if self._proxied is not None:
                self._proxied[0].load_state_dict(self._proxied[1])
            elsewhere = perturbed(balancer, source, self.context, turn.scale)
            anew = Turn(balancer, elsewhere or source, turn.step, turn.scale, turn.further, scaled=turn.scaled)
            if source.beside is not None:
                source.beside.begin(self.context, anew)
            report, _ = self._way(balancer).run(anew)
            if source.beside is not None:
                report = replace(report, fixed=source.beside.deliver(turn.step))
            if elsewhere is not None:
                report = replace(report, losses=elsewhere.means())
        finally:
            vars(balancer).update(decided)
            if learned is not None:
                balancer.load_state_dict(learned)
            if self._proxied is not None and proxied is not None:
                self._proxied[0].load_state_dict(proxied)
            for parameter, gradient in gradients:
                parameter.grad = gradient
        return report

    def estimate_by(self, given: Proxy | str | nn.Module | Iterable[Tensor] | None, balancer: Balancer) -> None:
        """Takes the Gramian from a proxy from now on; what is asked for already goes on as it is."""
        if given is None:
            self._by_proxy = None
            return
        given = kept_source(given)
        known = None if self._by_proxy is None else self._by_proxy.proxy
        if known is not None and (given is known or same_source(given, known.source)):
            return
        check_proxied(balancer, "proxy=")
        proxy = as_proxy(given)
        if proxy is not None:
            proxy.attach(None)
        self._by_proxy = None if proxy is None else ByProxy(self.context, proxy)

    def commit(self) -> None:
        """Lets the balancer learn from the step."""
        if self._turn is not None and self._observation is not None:
            self._turn.balancer.update(self._observation)
        self.steps += 1
        self._new = False
        self._forget()

    def skip(self) -> None:
        """Puts the balancer and the proxy back to where they were before the step."""
        self._new = False
        self._put_back()

    def rollback(self) -> None:
        """Makes the step one that has never been: besides :meth:`skip`, tasks that it fixed are unknown again."""
        if self._new:
            self.context.forget_tasks()
        self.skip()

    def gramian(self, balancer: Balancer, source: Source, scale: Tensor | None = None) -> Tensor:
        """The Gramian ``[k, k]`` of the task gradients with respect to the shared parameters, without a trace.

        Args:
            balancer: whose steps these are.
            source: the losses.
            scale: of a gradient scaler, which keeps half-precision gradients from vanishing; the result is without it.
        """
        return self.look(balancer, source, scale)[0]

    def look(
        self, balancer: Balancer, source: Source, scale: Tensor | None = None, *, proxied: bool = False
    ) -> tuple[Tensor, tuple[int, ...]]:
        """As :meth:`gramian`, and the positions of its tasks; ``proxied``: by a proxy that has settled, if there is one."""
        self.context.begin(f"a look at the Gramian, micro-batches: {source.micro_batches}")
        self._keep_rows()
        new = not self.context.tasks.known
        try:
            turn = Turn(balancer, source, 0, scale)
            streams = self._streamed and source.micro_batches == 1 and self.context.processes.count == 1
            estimates = proxied and self._by_proxy is not None and self._by_proxy.estimates
            way = self._by_proxy if (streams or estimates) and self._by_proxy is not None else self._by_gradients
            gramian, present = way.gramian(turn)
        except Unlabelled:
            raise InputError("the batch holds no task's loss, so there is no Gramian; give one that has labels") from None
        finally:
            if new:  # tasks are fixed by steps, not by looks
                self.context.forget_tasks()
        if balancer.needs == "losses" or self._by_features is not None or self._by_proxy is not None:
            # Its steps have no use for the rows, which are K times as large as the shared parameters.
            self._by_gradients.forget()
        return gramian, present

    def see(self, balancer: Balancer, source: Source) -> None:
        """Finds out what all tasks share, before a step with some of them; nothing to do where that is known."""
        self._alone = None  # a task that acts alone is meant to
        if self._sighted or isinstance(balancer, LossBalancer) or self.context.shared.knows(range(len(self.context.tasks))):
            return
        self._sighted = True  # tasks that no batch holds would be looked for in every step
        self.context.begin("a look at what the tasks share")
        with suppress(Unlabelled), source.rehearsal():
            find_shared(self.context, self.context.named(source.rehearse(0)), source)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_served": None}  # a copy serves a copy of the balancer

    def _way(self, balancer: Balancer) -> ByLosses | ByGradients | ByFeatures | ByProxy:
        if balancer.needs == "losses":
            return self._by_losses
        return self._by_proxy or self._by_features or self._by_gradients

    def _reachable(self, source: Source) -> list[Tensor]:
        """The parameters whose hooks may matter: those that are trained, or as far as the losses given tell."""
        if self.context.parameters or self.steps:
            return self.context.everything()
        return leaves_of_all(source.tensors()) if isinstance(source, Given) else []

    def _look_out(self, balancer: Balancer, source: Source, report: StepReport) -> None:
        """Says, once, what is allowed and most probably not meant."""
        self.unlabelled += len(source.unlabelled)
        if source.unlabelled:
            warn_once(self, "unlabelled", "a batch held no task's loss: such batches are left out and counted")
        if not report.tasks:
            return
        if self._served is None or self._served() is not balancer:
            self._served = weakref.ref(balancer)
            other = _serving.get(id(balancer))
            if other is not None and other._served is not None and other._served() is balancer and _remembers(balancer):
                warn_once(balancer, "second", _SECOND.format(type(balancer).__name__))
            _serving[id(balancer)] = self
        if not self.context.parameters and _remembers(balancer):
            met = {id(leaf) for leaf in self.context.everything()}
            if self._met.isdisjoint(met) and self._met:
                warn_once(balancer, "second", _SECOND.format(type(balancer).__name__))
            self._met = met
        if self._alone is not None:
            self._alone = self._alone + 1 if len(report.tasks) == 1 < len(self.context.tasks) else None
            if self._alone == _ALONE:
                warn_once(
                    self,
                    "alone",
                    f"each of the first {_ALONE} steps held a single one of {len(self.context.tasks)} tasks, so there was "
                    f"nothing to balance: let a step hold several, as micro-batches if need be",
                )

    def _keep_rows(self) -> None:
        """Before their memory serves for others, while the balancer has yet to learn from them."""
        if self._observation is not None and self._observation.gradients is not None:
            self._observation = replace(self._observation, gradients=self._observation.gradients.clone())

    def _put_back(self) -> None:
        if self._turn is not None and self._before is not None:
            self._turn.balancer.load_state_dict(self._before)
        if self._proxied is not None:
            self._proxied[0].load_state_dict(self._proxied[1])
        self._forget()

    def _forget(self) -> None:
        # Nothing of a step may live on: the drop-in keeps this object for as long as its balancer is alive.
        self._turn = self._before = self._observation = self._proxied = None


def _remembers(balancer: Balancer) -> bool:
    """Whether a balancer learns from steps; random numbers are no memory."""
    state = [getattr(balancer, name, None) for name in balancer.stateful]
    return any(not isinstance(entry, torch.Generator | np.random.Generator) for entry in state)
