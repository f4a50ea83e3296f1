"""Models that are wrapped for several processes already: what DistributedDataParallel and FSDP have put around parameters."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.weak import WeakIdKeyDictionary

from equipoise.distributed.processes import Processes
from equipoise.engine.graph import leaves_of_all
from equipoise.errors import InputError
from equipoise.tasks import Loss

__all__ = ["Wrappers", "refuse_sharded", "refuse_unseen_wrapper"]

# Whose parameters these are: found once for each, for that means a look at all objects that there are.
_owners: Any = WeakIdKeyDictionary()
# Says that a static graph's first backward pass has begun.
_ENQUEUED = "_static_graph_delay_allreduce_enqueued"


def refuse_sharded(tensors: Iterable[Tensor], model: nn.Module | None = None) -> None:
    """Refuses parameters of which every process holds a part only.

    Args:
        tensors: parameters, or leaves of a graph.
        model: looked through for FSDP's wrapper, too.

    Raises:
        InputError: some of them are sharded.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return  # nothing can be sharded
    wrapper: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", ())
    sharded = model is not None and any(isinstance(part, wrapper) for part in model.modules())
    if sharded or any(_is_part(tensor) for tensor in tensors):
        raise _sharded()


def _is_part(tensor: Tensor) -> bool:
    tensor_class: Any = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())
    return isinstance(tensor, tensor_class) or getattr(tensor, "_is_flat_param", False)


def _sharded() -> InputError:
    return InputError(
        "the parameters are sharded over processes (FSDP, fully_shard, DTensor): only an ordinary backward pass puts their "
        "gradients together; use equipoise.balanced_loss(losses, balancer) in your trainer, and let it call .backward()"
    )


_SHARDS_SINCE = "2.13"
"""How FSDP2 is kept from taking a differentiation for the backward pass depends on what it is like inside."""


class Wrappers:
    """What is wrapped around the parameters that a step's losses reach.

    The reducer of DistributedDataParallel averages what the first backward pass of a forward pass brings. A step has
    several, and what is averaged are the tasks' gradients, by the step itself: meanwhile the reducer has to sleep, as it does
    where the forward pass ran under ``no_sync()``.

    Attributes:
        active: whether there can be any, that is whether ``torch.distributed`` is in use.
        sharded: whether :meth:`survey` has found parameters that ``fully_shard`` gathers for each pass.

    Args:
        processes: over which the step averages.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.active = False
        self.sharded = False
        self._seen: set[str] = set()
        self._ours: list[weakref.ref[Any]] = []
        self._asleep: dict[DistributedDataParallel, bool] = {}

    def begin(self, losses: Mapping[str, Loss] | None = None) -> None:
        """Says that a step begins, and looks at its losses if they are known."""
        self.active = dist.is_available() and dist.is_initialized()
        if losses is not None:
            self.look(losses)

    def look(self, losses: Mapping[str, Loss]) -> None:
        """Finds what is wrapped around the parameters of tasks that come for the first time; callables come later.

        Raises:
            InputError: they are sharded, or their reducer cannot be put to sleep.
        """
        new, found = self._new(losses)
        refuse_sharded(found)
        for parameter, module in self._owned(found):
            if _gathered(parameter, module):
                raise _sharded()
            if module is not None:
                self._check(module)
        self._seen.update(new)

    def survey(self, losses: Mapping[str, Loss]) -> None:
        """As :meth:`look`, for losses whose backward pass is left to the caller, which wrappers can follow whatever they do.

        Raises:
            InputError: the parameters are sharded so that they meet losses and activations as parts, or the gradients are
                averaged over other processes.
        """
        self.active = dist.is_available() and dist.is_initialized()
        new, found = self._new(losses)
        if any(_is_part(leaf) for leaf in found) or any(_is_part(loss) for loss in new.values()):
            raise InputError(
                "tensor parallelism (DTensor) and FullyShardedDataParallel hand parts of tensors through the graph, from which "
                "no Gramian can be told; use DistributedDataParallel or fully_shard"
            )
        for parameter, module in self._owned(found):
            self.sharded = self.sharded or _gathered(parameter, module)
            if self.sharded and torch.__version__ < _SHARDS_SINCE:
                raise InputError(
                    f"balanced_loss under fully_shard needs torch {_SHARDS_SINCE} (gradients come out wrong with 2.8, and what "
                    f"lies between has not been tried); this is {torch.__version__}. Use a newer one, or DDP"
                )
            if isinstance(module, DistributedDataParallel):
                self._check_group(module)
        self._seen.update(new)

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """Differentiates in its body without any wrapper taking that for the backward pass."""
        with ExitStack() as after:
            for module in filter(None, (reference() for reference in self._ours)):
                if isinstance(module, DistributedDataParallel):
                    if module.static_graph:
                        after.callback(setattr, module, _ENQUEUED, getattr(module, _ENQUEUED))
                        setattr(module, _ENQUEUED, True)
                    continue
                # What earlier micro-batches have left must not be sent yet.
                state = module._get_fsdp_state()
                context = state._state_ctx
                after.callback(setattr, context, "is_last_backward", context.is_last_backward)
                context.is_last_backward = False
                for each in context.all_states:
                    for group in _groups(each):
                        if group.is_sharded:
                            after.callback(group.reshard)
                        # A second pass may begin below the hooks that gather the parameters.
                        for name in ("reduce_grads", "reshard_after_backward"):
                            after.callback(setattr, group, name, getattr(group, name))
                            setattr(group, name, False)
            yield

    def _new(self, losses: Mapping[str, Loss]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses of tasks that come for the first time, and the leaves that they reach."""
        if not self.active:
            return {}, []
        new = {name: loss for name, loss in losses.items() if isinstance(loss, Tensor) and name not in self._seen}
        return new, leaves_of_all(new.values())

    def _owned(self, found: Iterable[Tensor]) -> Iterator[tuple[Tensor, Any]]:
        """Parameters with the module that is wrapped around them, which is kept in mind."""
        parameters = [leaf for leaf in found if isinstance(leaf, nn.Parameter)]
        if any(parameter not in _owners for parameter in parameters):
            _find_owners()
        for parameter in parameters:
            owner = _owners.setdefault(parameter, None)
            module = None if owner is None else owner()
            yield parameter, module
            if module is not None and owner not in self._ours:
                self._ours.append(owner)

    def sleep(self) -> None:
        """Puts the reducers to sleep; to be called after every evaluation, which wakes them."""
        for reference in self._ours:
            module = reference()
            if module is None or not isinstance(module, DistributedDataParallel):
                continue
            module.reducer._reset_state()
            if module not in self._asleep:
                self._asleep[module] = bool(getattr(module, _ENQUEUED, False))
            if module.static_graph:
                setattr(module, _ENQUEUED, True)

    def wake(self) -> None:
        """Lets the reducers average again, should the caller differentiate something else of the same forward pass."""
        for module, enqueued in self._asleep.items():
            if module.static_graph:
                setattr(module, _ENQUEUED, enqueued)
            if module.require_forward_param_sync:
                module.reducer.prepare_for_backward([])
        self._asleep = {}

    def _check(self, module: DistributedDataParallel) -> None:
        """Refuses a wrapper that does more than to average, or over others than the step does."""
        what = ""
        if not hasattr(getattr(module, "reducer", None), "_reset_state") or getattr(module, "_use_python_reducer", False):
            what = "a reducer that cannot be put to sleep"
        elif getattr(module, "mixed_precision", None) is not None:
            what = "mixed_precision"
        elif getattr(module, "_delay_all_reduce_params", None):
            what = "delay_all_reduce_named_params"
        elif module._join_config.enable:
            what = "a join() of uneven inputs"
        if what:
            raise InputError(
                f"the model is wrapped in DistributedDataParallel with {what}, which cannot follow several backward passes; "
                f"use equipoise.balanced_loss(losses, balancer), whose ordinary backward pass it can"
            )
        self._check_group(module)

    def _check_group(self, module: DistributedDataParallel) -> None:
        own, wanted = (_ranks(group) for group in (module.process_group, self.processes.group))
        if own != wanted:
            raise InputError(
                f"the model is wrapped in DistributedDataParallel over the processes {own}, but gradients are to be averaged "
                f"over {wanted}; use MultiTaskOptimizer(..., process_group=...) with the wrapper's group"
            )


def refuse_unseen_wrapper(error: BaseException) -> None:
    """Says what to do about a model that was wrapped after its first step, in place of the reducer's complaint about it.

    Raises:
        InputError: that is what the error is about.
    """
    if isinstance(error, RuntimeError) and "mark a variable ready only once" in str(error):
        _owners.clear()
        raise InputError(
            "the model was wrapped in DistributedDataParallel after its first balanced step; make the balancer (or the "
            "MultiTaskOptimizer) after wrapping it, or evaluate the losses under no_sync()"
        ) from error


def _ranks(group: dist.ProcessGroup | None) -> list[int]:
    everyone = cast(dist.ProcessGroup, dist.group.WORLD)
    return sorted(dist.get_process_group_ranks(everyone if group is None else group))


def _find_owners() -> None:
    """Notes whose the parameters of all wrapped modules are.

    Neither a parameter nor the graph knows its wrapper, so all objects are looked at.
    """
    fully_sharded: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", ())
    things = gc.get_objects()
    kinds = set(map(type, things))
    averaged = {kind for kind in kinds if issubclass(kind, DistributedDataParallel)}
    sharded = {kind for kind in kinds if issubclass(kind, fully_sharded)}
    for thing in things if averaged or sharded else ():
        if type(thing) in averaged:
            for parameter in thing.module.parameters():
                _owners[parameter] = weakref.ref(thing)
        elif type(thing) in sharded:
            # In the graph are whole parameters, gathered for the forward pass, which no module shows.
            for part in (part for group in _groups(thing._get_fsdp_state()) for part in group.fsdp_params):
                whole = getattr(part, "_unsharded_param", None)
                if whole is not None:
                    _owners[whole] = weakref.ref(thing)


def _groups(state: Any) -> list[Any]:
    """The parameters that ``fully_shard`` gathers together."""
    groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
    return [group for group in groups if group is not None]


def _gathered(parameter: Tensor, owner: Any) -> bool:
    """Whether a parameter is whole during the passes only."""
    sharded = owner is not None and not isinstance(owner, DistributedDataParallel)
    return sharded or (parameter.numel() > 0 and not parameter.untyped_storage().size())
