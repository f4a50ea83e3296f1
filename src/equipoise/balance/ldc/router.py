"""What gives the shares of the tasks: a free vector, or a network that looks at the shared representation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from equipoise.balance.ldc.total import Shares
from equipoise.balance.vector_adam import vector_adam, vector_adam_state
from equipoise.distributed import Processes
from equipoise.errors import InputError
from equipoise.states import (
    Anything,
    Form,
    Maybe,
    Moments,
    Named,
    Of,
    read_entry,
    read_model,
    read_optimizer,
    read_state,
    tasks_known,
)

__all__ = ["NetworkRouter", "Representation", "Router", "VectorRouter", "mlp_router", "pooled"]


class Representation:
    """Listens to a module's forward passes and keeps what it gave, averaged over everything but its channels.

    Args:
        module: whose output all tasks start from.
        differentiable: keep the graph, so that gradients flow from the router back into the module.
    """

    def __init__(self, module: nn.Module, *, differentiable: bool) -> None:
        self.differentiable = differentiable
        self._seen: list[Tensor] = []
        self._handle = module.register_forward_hook(self._catch)

    def begin(self) -> None:
        """Forgets what evaluations between the steps left."""
        self._seen.clear()

    def take(self) -> Tensor:
        """The mean ``[C]`` of what was seen since the last time, in float32 or better.

        Raises:
            InputError: nothing was seen, or the graph is to be kept of several forward passes.
        """
        seen, self._seen = self._seen, []
        if not seen:
            raise InputError("the router's features module was not run in this step; give the module that all tasks start from")
        if self.differentiable:
            if len(seen) > 1:
                raise InputError(
                    f"the features module ran {len(seen)} times in this step, and only the last run's graph is differentiated; "
                    "take one batch per step, or leave through_features off"
                )
            return seen[0]
        return torch.stack(seen).mean(0)

    def _catch(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not (module.training or torch.is_grad_enabled()):
            return  # an evaluation, not a step
        if not isinstance(output, Tensor):
            raise InputError(
                f"the router's features module {type(module).__name__} must give one tensor; it gave {type(output).__name__}"
            )
        self._seen.append(pooled(output if self.differentiable else output.detach()))


def pooled(features: Tensor) -> Tensor:
    """The mean over samples and places: ``[N, C, ...]`` → ``[C]``.

    Example:
        >>> pooled(torch.ones(8, 5, 3, 3)).shape
        torch.Size([5])
    """
    if features.dim() < 2:
        raise InputError(f"features must have the shape [samples, channels, ...]; got {list(features.shape)}")
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return features.mean((0, *range(2, features.dim())))


class Router(Protocol):
    """Gives shares, and learns from derivatives by them."""

    def shares(self, entries: Tensor, tasks: int, processes: Processes) -> Tensor:
        """Shares ``[k]`` of the tasks present, in float64."""

    def gradient(self, by_shares: Tensor) -> Tensor:
        """The derivative by W, flat, from that by the shares given last."""

    def step(self, gradient: Tensor, lr: float) -> None:
        """Moves W."""

    def lent(self, gradient: Tensor) -> Tensor:
        """A number whose gradient by W, where that is lent, is the given one."""

    def parameters(self) -> list[nn.Parameter]:
        """W, if it is one that can be lent."""

    def state_dict(self) -> dict[str, Any]:
        """W and the state of what moves it."""

    def read_state(self, state: Any, sizes: dict[str, int]) -> dict[str, Any]:
        """A state as it is loaded. Raises InputError: it is of another router, or damaged."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from there."""


def _with_gradient(parameters: Sequence[nn.Parameter], gradient: Tensor) -> Tensor:
    pieces = gradient.split([parameter.numel() for parameter in parameters])
    terms = [
        (parameter * piece.view_as(parameter).to(parameter)).sum() for parameter, piece in zip(parameters, pieces, strict=True)
    ]
    return torch.stack([term.to(terms[0]) for term in terms]).sum()


class VectorRouter:
    """One number per task, moved by Adam; absent tasks keep theirs.

    Args:
        shares_of: from the numbers to shares.
        start: what all of them are at first, or the bounds between which they are drawn.
        seed: of what is drawn.
    """

    def __init__(self, shares_of: Shares, start: float | tuple[float, float], seed: int) -> None:
        self.shares_of = shares_of
        self.start = start
        self.seed = seed
        self.outputs: Tensor | None = None
        self.moments: Tensor | None = None
        self._lent: nn.Parameter | None = None
        self._entries: Tensor | None = None
        self._shares: Tensor | None = None

    def shares(self, entries: Tensor, tasks: int, processes: Processes) -> Tensor:
        """Shares ``[k]`` of the tasks present."""
        if self._lent is not None:
            self.outputs = self._lent.detach().to(entries.device, torch.float64)
        elif self.outputs is None or self.moments is None:
            self.outputs = self._first(tasks).to(entries.device)
            self.moments = vector_adam_state(self.outputs)
        else:
            self.outputs, self.moments = self.outputs.to(entries.device), self.moments.to(entries.device)
        self._entries = entries
        self._shares = self.shares_of.of(self.outputs[entries])
        return self._shares

    def gradient(self, by_shares: Tensor) -> Tensor:
        """The derivative by the entries of the tasks present, ``[k]``."""
        assert self._shares is not None
        return self.shares_of.back(self._shares, by_shares)

    def step(self, gradient: Tensor, lr: float) -> None:
        """One step of Adam; every process takes the same, for it has the mean losses of all."""
        assert self.outputs is not None
        assert self.moments is not None
        assert self._entries is not None
        self.outputs, self.moments = vector_adam(self.outputs, gradient, self.moments, self._entries, lr=lr)

    def lend(self, tasks: int) -> None:
        """Makes W a parameter, which others move."""
        start = self._first(tasks) if self.outputs is None else self.outputs
        self._lent = nn.Parameter(start.to(torch.get_default_dtype(), copy=True))

    def lent(self, gradient: Tensor) -> Tensor:
        """Of tasks that are absent, the gradient is 0."""
        assert self._lent is not None
        assert self._entries is not None
        whole = gradient.new_zeros(len(self._lent))
        whole[self._entries] = gradient
        return _with_gradient([self._lent], whole)

    def parameters(self) -> list[nn.Parameter]:
        """The numbers, once they are a parameter."""
        return [] if self._lent is None else [self._lent]

    def state_dict(self) -> dict[str, Any]:
        """The numbers and Adam's state."""
        if self._lent is not None:
            return {"outputs": self._lent.detach().clone()}
        return {
            name: None if value is None else value.clone()
            for name, value in (("outputs", self.outputs), ("moments", self.moments))
        }

    def read_state(self, state: Any, sizes: dict[str, int]) -> dict[str, Any]:
        """As it is loaded."""
        kinds: dict[str, Form] = {"outputs": Maybe(Of(("K",)), "memory"), "moments": Maybe(Moments((3, "K")), "memory")}
        if self._lent is not None:
            kinds = {"outputs": Of(("K",), dtype=self._lent.dtype)}
        tasks_known(kinds["outputs"], self.outputs if self._lent is None else self._lent.detach(), sizes)
        return read_state("LDCMTL's router", state, kinds, sizes)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from there."""
        if self._lent is None:
            self.outputs, self.moments = (
                None if state[name] is None else state[name].clone() for name in ("outputs", "moments")
            )
        elif not torch.equal(self._lent.detach(), state["outputs"].to(self._lent.device)):
            with torch.no_grad():
                self._lent.copy_(state["outputs"])

    def _first(self, tasks: int) -> Tensor:
        if not isinstance(self.start, tuple):
            return torch.full((tasks,), self.start, dtype=torch.float64, device="cpu")
        low, high = self.start
        drawn = torch.rand(tasks, dtype=torch.float64, device="cpu", generator=torch.Generator().manual_seed(self.seed))
        return low + (high - low) * drawn


class NetworkRouter:
    """A network that looks at the mean shared representation of the batch, trained by an Adam of its own.

    Args:
        make: ``make(channels, tasks)`` gives the network; called when both are known.
        shares_of: from the network's outputs ``[k]`` to shares.
        representation: where the features come from.
    """

    def __init__(
        self, make: Callable[[int, int], nn.Module], shares_of: Callable[[Tensor], Tensor], representation: Representation
    ) -> None:
        self.make = make
        self.shares_of = shares_of
        self.representation = representation
        self.network: nn.Module | None = None
        self._is_lent = False
        self._optimizer: torch.optim.Adam | None = None
        self._pending: Mapping[str, Any] | None = None
        self._shares: Tensor | None = None

    def shares(self, entries: Tensor, tasks: int, processes: Processes) -> Tensor:
        """Shares ``[k]`` of the tasks present; the graph to the network is kept for :meth:`gradient`."""
        features = self.representation.take()
        if not self.representation.differentiable:
            # Every process looks at the mean over all samples, so that all of them give the same shares.
            features = processes.sum(features.contiguous()) / processes.count
        with torch.enable_grad():
            outputs = self._network(features, tasks)(features)
            if outputs.shape != (tasks,):
                raise InputError(
                    f"the router must give one number for each of the {tasks} tasks; it gave the shape {list(outputs.shape)}"
                )
            self._shares = self.shares_of(outputs[entries].double())
        return self._shares.detach()

    def gradient(self, by_shares: Tensor) -> Tensor:
        """The derivative by the network's parameters, flat."""
        assert self._shares is not None
        assert self.network is not None
        found = torch.autograd.grad(
            self._shares, self.parameters(), by_shares.to(self._shares), retain_graph=True, allow_unused=True
        )
        pairs = zip(self.parameters(), found, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for p, g in pairs])

    def graph(self) -> Tensor:
        """The shares given last, with their graph to network and model."""
        assert self._shares is not None
        return self._shares

    def lend(self, network: nn.Module) -> None:
        """Takes a network that others move."""
        self._is_lent, self.network, self._optimizer = True, network, None

    def lent(self, gradient: Tensor) -> Tensor:
        """Of the network's parameters."""
        return _with_gradient(self.parameters(), gradient)

    def step(self, gradient: Tensor, lr: float) -> None:
        """One step of Adam with a flat gradient."""
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        parameters = self.parameters()
        pieces = gradient.split([parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._shares = None

    def parameters(self) -> list[nn.Parameter]:
        """Of the network."""
        assert self.network is not None
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """The network's parameters and Adam's state, unless others move them; ``None`` before the first step."""
        if self._pending is not None:
            return {name: _copied(value) for name, value in self._pending.items()}
        if not self._made():
            return dict.fromkeys(("network",) if self._is_lent else ("network", "optimizer"))
        assert self.network is not None
        network = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        return (
            {"network": network}
            if self._optimizer is None
            else {"network": network, "optimizer": _copied(self._optimizer.state_dict())}
        )

    def read_state(self, state: Any, sizes: dict[str, int]) -> dict[str, Any]:
        """As it is loaded; before the network is made, only what can be known by then is looked at."""
        network: Form = Named(Of(dtype=None)) if self.network is None else Anything()
        kinds: dict[str, Form] = {"network": Maybe(network, "memory"), "optimizer": Maybe(Anything(), "memory")}
        if self._is_lent:
            kinds = {"network": Maybe(network)}
        read = read_state("LDCMTL's router", state, kinds, sizes)
        if read["network"] is not None and self._made():
            assert self.network is not None
            own = self.network.state_dict()
            read_model("LDCMTL's router", read["network"], own)
            for name, value in own.items():
                read_entry("LDCMTL's router", name, Of(dtype=value.dtype), read["network"][name])
            if self._optimizer is not None:
                read_optimizer("LDCMTL's router", read["optimizer"], self._optimizer, finite=True)
        elif (
            read["network"] is not None
            and not self._is_lent
            and not (isinstance(read["optimizer"], Mapping) and {"state", "param_groups"} <= set(read["optimizer"]))
        ):
            raise InputError("the state of LDCMTL's router must hold that of its Adam")
        return read

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from there; before the first step, as soon as the network is made."""
        if state["network"] is None:
            self.network = self._optimizer = self._pending = None
        elif not self._made():
            self._pending = state
        else:
            assert self.network is not None
            self.network.load_state_dict(state["network"])
            if self._optimizer is not None:
                self._optimizer.load_state_dict(_copied(state["optimizer"]))

    def _made(self) -> bool:
        return self.network is not None and (self._is_lent or self._optimizer is not None)

    def _network(self, features: Tensor, tasks: int) -> nn.Module:
        if self.network is not None and self._is_lent:
            self.network.to(features.device, features.dtype)
        if self.network is None:
            self.network = self.make(len(features), tasks).to(features.device, features.dtype)
            self._optimizer = None if self._is_lent else torch.optim.Adam(self.parameters())
            if self._pending is not None:
                pending, self._pending = self._pending, None
                try:
                    self.load_state_dict(self.read_state(pending, {}))
                except InputError:
                    self.network, self._pending = None, pending
                    raise
        return self.network


def mlp_router(channels: int, tasks: int) -> nn.Sequential:
    """The three-layer router of appendix A.1: channels → channels/2 → channels/4 → tasks, with ReLU between.

    For Cityscapes (128 → 2) these are the paper's 10,402 parameters.

    Example:
        >>> sum(parameter.numel() for parameter in mlp_router(128, 2).parameters())
        10402
    """
    half, quarter = max(channels // 2, 1), max(channels // 4, 1)
    return nn.Sequential(nn.Linear(channels, half), nn.ReLU(), nn.Linear(half, quarter), nn.ReLU(), nn.Linear(quarter, tasks))


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state
