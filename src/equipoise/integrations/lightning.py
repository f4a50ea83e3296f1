"""Lightning: a module that says its losses, and a callback that saves, logs and counts epochs."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.errors import InputError, UnknownOptionError, near_misses, require, warn_once
from equipoise.integrations.balanced import BalancedLoss, why_it_steps
from equipoise.method import MethodSpec, groups_of, proxy_of, resolved
from equipoise.modules import find_module
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.proxy import Proxy, kept_source
from equipoise.step.report import StepReport
from equipoise.tasks import Losses

__all__ = ["BalancedModule", "BalancingCallback"]

# Lightning comes as two packages with classes of their own; whoever has imported one of them means that.
_OLDER = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
pl: Any = require("pytorch_lightning" if _OLDER else "lightning.pytorch", "lightning")

_OF_LOSS = {"shared", "heads", "tasks", "fixed", "check_finite"}
_OF_OBJECTIVE = {"tasks", "fixed", "batches"}
_OF_STEP = {"shared", "features", "clip", "teleport", "groups", "batched", "memory", "check_finite"}


class BalancedModule(pl.LightningModule):  # type: ignore[misc]
    """A LightningModule that gives its tasks' losses, and is trained with their balance.

    Define ``losses(batch)`` in place of ``training_step``; everything else stays as it is. ``configure_callbacks`` brings a
    :class:`BalancingCallback`, unless the Trainer has one.

    *Automatic optimization* (the default) returns a :class:`~equipoise.integrations.BalancedLoss`, so that the Trainer
    accumulates, clips, scales and shards. With ``self.automatic_optimization = False`` in your ``__init__`` each batch is a
    step of a :class:`~equipoise.MultiTaskOptimizer` on Lightning's optimizers: methods that need all gradients, teleports and
    FAMO work, and task-specific parameters get their own gradient. As always in manual optimization, the Trainer clips and
    accumulates nothing then (``clip=`` and ``accumulate=`` do) and steps no learning rate scheduler.

    Args:
        balancer: a balancer, or a method by name, as text or as a :class:`~equipoise.MethodSpec`.
        proxy: where the Gramian is taken; left out, ``"last"`` in automatic optimization and the exact one in manual.
        accumulate: in manual optimization, how many batches make a step, one decision for all of them; what is left at the
            end of an epoch makes one, too.
        options: of :func:`~equipoise.balanced_loss` (``shared``, ``heads``, ``tasks``, ``fixed``, ``check_finite``), or in
            manual optimization of :class:`~equipoise.Objective` and :class:`~equipoise.MultiTaskOptimizer` (``shared``,
            ``features``, ``clip``, ``teleport``, ``groups``, ``batched``, ``memory``, ``tasks``, ``fixed``, ``batches``,
            ``check_finite``). ``shared``, ``features`` and ``proxy`` may be dotted names, for the modules are made only after
            this is called.

    Attributes:
        balancer: as it is used.
        report: the report of the last step, or ``None``.
        mtl: in manual optimization, what steps, from the start of the training on.

    Raises:
        UnknownOptionError: an option that neither has.
        InputError: a method that cannot be used; some are told at the start of the training.

    Example:
        >>> import torch
        >>> class Network(BalancedModule):
        ...     def __init__(self):
        ...         super().__init__("fairgrad", shared="encoder")
        ...         self.encoder, self.heads = nn.Linear(3, 4), nn.Linear(4, 2)
        ...     def losses(self, batch):
        ...         out = self.heads(self.encoder(batch).tanh()).square().mean(0)
        ...         return {"near": out[0], "far": out[1]}
        >>> module = Network()
        >>> loss = module.training_step(torch.ones(5, 3), 0)
        >>> module.report.tasks
        ('near', 'far')
    """

    def __init__(
        self,
        balancer: Balancer | MethodSpec | str | Any,
        proxy: Proxy | str | nn.Module | Iterable[Tensor] | None = None,
        *,
        accumulate: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        known = _OF_LOSS | _OF_OBJECTIVE | _OF_STEP
        for name in options.keys() - known:
            raise UnknownOptionError(f'BalancedModule has no option "{name}".{near_misses(name, sorted(known))}')
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise InputError(f"accumulate must be a number of batches from 1 on; got {accumulate!r}")
        self._method = str(balancer) if isinstance(balancer, str | MethodSpec) else repr(balancer)
        self.balancer, self._teleport = resolved(balancer, options.pop("teleport", None))
        self._groups = groups_of(balancer, options.get("groups"))
        self._proxy = kept_source(proxy_of(balancer, proxy))
        self._options, self._accumulate = options, accumulate
        self._loss: BalancedLoss | None = None
        self.mtl: MultiTaskOptimizer | None = None
        self._waiting: list[Any] = []

    @abstractmethod
    def losses(self, batch: Any) -> Losses:
        """The losses of a batch: mapping task → scalar, a sequence of scalars or a tensor ``[K]``."""
        raise InputError(f"{type(self).__name__} must define losses(batch), which returns a mapping task → loss")

    @property
    def report(self) -> StepReport | None:
        """The report of the last step."""
        return None if self.balancing is None else self.balancing.last

    @property
    def balancing(self) -> BalancedLoss | MultiTaskOptimizer | None:
        """What balances: a loss, or in manual optimization a MultiTaskOptimizer; none before the first is needed."""
        return self._loss if self.automatic_optimization else self.mtl

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """The balanced loss; or in manual optimization a step, and nothing."""
        if self.automatic_optimization:
            if self._loss is None:
                self.begin_balancing()
            assert self._loss is not None
            return self._loss(self.losses(batch))
        if self.mtl is None:
            raise InputError("manual optimization needs a Trainer and a BalancingCallback: call super().configure_callbacks()")
        self._waiting.append(batch)
        if len(self._waiting) >= self._accumulate or self.trainer.is_last_batch:
            batches, self._waiting = self._waiting, []
            self.mtl.step(*batches)
        return None

    def configure_callbacks(self) -> list[Any]:
        """A :class:`BalancingCallback`, unless the Trainer has one."""
        given = super().configure_callbacks()
        there = any(isinstance(callback, BalancingCallback) for callback in self.trainer.callbacks)
        return [*(given if isinstance(given, list | tuple) else [given]), *([] if there else [BalancingCallback()])]

    def __getstate__(self) -> dict[str, Any]:
        # Lightning's optimizers cannot be pickled, and the next training has others.
        return {**super().__getstate__(), "mtl": None, "_waiting": []}

    def begin_balancing(self) -> None:
        """Makes what balances; :class:`BalancingCallback` calls it at the start of a training.

        Raises:
            InputError: a method or an option that does not go with the kind of optimization.
        """
        automatic = self.automatic_optimization
        fitting, kind = (_OF_LOSS, "automatic") if automatic else (_OF_OBJECTIVE | _OF_STEP, "manual")
        for name in self._options.keys() - fitting:
            instead = "give the Trainer gradient_clip_val= instead" if name == "clip" else "leave it out"
            raise InputError(f"{name}= is of no use in {kind} optimization; {instead}")
        options = dict(self._options)
        if isinstance(options.get("shared"), str):
            options["shared"] = find_module(self, options["shared"])
        (self._begin_loss if automatic else self._begin_step)(options)

    def _begin_loss(self, options: dict[str, Any]) -> None:
        if self._accumulate > 1:
            raise InputError("accumulate= is for manual optimization; give the Trainer accumulate_grad_batches=")
        if why_it_steps(self.balancer, self._teleport, self._groups):
            hint = "set self.automatic_optimization = False in __init__, and MultiTaskOptimizer steps"
            raise InputError(f"{self._method} cannot be used in automatic optimization; {hint}")
        made = self._loss or BalancedLoss(self.balancer, self._proxy, **options)
        made.proxy.attach(self)  # finds a module by its name
        self._loss = made

    def _begin_step(self, options: dict[str, Any]) -> None:
        plugin = self.trainer.precision_plugin
        if getattr(plugin, "scaler", None) is not None:
            raise InputError('manual optimization with a gradient scaler is not supported; train with precision="bf16-mixed"')
        before = None if self.mtl is None else _state_of(self.mtl)
        self._waiting = []  # of a training that was broken off
        tasks, fixed, batches = (options.pop(name, None) for name in ("tasks", "fixed", "batches"))
        objective = Objective(self, lambda module, batch: module.losses(batch), tasks, batches=batches, fixed=fixed)
        step = {"teleport": self._teleport, "proxy": self._proxy, **options, "groups": self._groups}
        self.mtl = MultiTaskOptimizer(objective, self.optimizers(), self.balancer, **step)
        if before is not None:  # another fit, with optimizers of its own
            _restore(self.mtl, before)


class BalancingCallback(pl.Callback):  # type: ignore[misc]
    """Saves balancer, proxy and teleport in Lightning's checkpoints, logs what steps did, and counts epochs.

    A :class:`BalancedModule` brings one; give the Trainer one with other arguments, or one for a module of your own that keeps
    a :class:`~equipoise.integrations.BalancedLoss`.

    The numbers are those of :meth:`~equipoise.step.StepReport.scalars`. They go to all loggers of the Trainer, under the step
    that Lightning's own metrics have: every ``every`` steps, and in every step with an audit or a teleport.

    Args:
        balancing: what the module balances with; left out, that of a :class:`BalancedModule`.
        every: steps from one entry to the next, 0 for none; left out, the Trainer's ``log_every_n_steps``.
        prefix: of all names.

    Raises:
        InputError: ``every`` is no whole number from 0 on.
    """

    def __init__(
        self, balancing: BalancedLoss | MultiTaskOptimizer | None = None, *, every: int | None = None, prefix: str = "balancing"
    ) -> None:
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 0):
            raise InputError(f"every must be a number of steps from 0 on; got {every!r}")
        self.every, self.prefix = every, prefix
        self._balancing = self._given = balancing
        self._loaded: Mapping[str, Any] | None = None
        self._epochs = 0
        self._step = -1

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Makes what balances, if need be, and takes up what was saved."""
        if self._given is None:
            if not isinstance(module, BalancedModule):
                raise InputError(
                    f"{type(module).__name__} is no BalancedModule, so say what it balances with: "
                    f"BalancingCallback(module.balanced)"
                )
            module.begin_balancing()
            self._balancing = module.balancing
        assert self._balancing is not None
        self._epochs, self._step = trainer.current_epoch, trainer.global_step
        if self._loaded is not None:
            self._epochs = int(self._loaded["epochs"])
            _restore(self._balancing, self._loaded["balancing"])
            self._loaded = None
        elif trainer.ckpt_path is not None:  # the model is restored by now, so a refusal would come too late
            warn_once(
                self,
                str(trainer.ckpt_path),
                f'"{trainer.ckpt_path}" has no state of {self.state_key}, so the balancer begins anew; resume from a '
                f"checkpoint that was written with this callback",
            )

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Says that the epochs before are over; said here, it does not matter when in an epoch a checkpoint was written."""
        assert self._balancing is not None
        while self._epochs < trainer.current_epoch:
            self._balancing.end_epoch()
            self._epochs += 1

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the step, if it is one that is to be logged."""
        report = None if self._balancing is None else self._balancing.last
        every = trainer.log_every_n_steps if self.every is None else self.every
        if report is None or not every or trainer.global_step == self._step:  # a batch that only accumulates
            return
        self._step = trainer.global_step
        number = trainer.fit_loop.epoch_loop._batches_that_stepped  # as Lightning's own callbacks count
        # In manual optimization Lightning counts batches that only accumulate, too.
        steps = number if isinstance(self._balancing, BalancedLoss) else report.step
        if (steps + 1) % every and report.audit is None and report.teleport is None:
            return
        for logger in trainer.loggers if trainer.is_global_zero else []:
            logger.log_metrics(report.scalars(self.prefix), step=number)

    def state_dict(self) -> dict[str, Any]:
        """What Lightning puts into a checkpoint."""
        if self._balancing is None:
            return dict(self._loaded or {})
        return {"balancing": _state_of(self._balancing), "epochs": self._epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keeps what a checkpoint holds until the training starts."""
        self._loaded = state or None


def _state_of(balancing: BalancedLoss | MultiTaskOptimizer) -> dict[str, Any]:
    """What Lightning does not save itself."""
    return {name: part for name, part in balancing.state_dict().items() if name not in ("model", "optimizer")}


def _restore(balancing: BalancedLoss | MultiTaskOptimizer, state: Mapping[str, Any]) -> None:
    own = {} if isinstance(balancing, BalancedLoss) else balancing.state_dict()  # model and optimizer are restored already
    balancing.load_state_dict({**own, **state})
