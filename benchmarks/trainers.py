"""One training step each, optimizer included: plain training, the ideal, the peers, and equipoise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import equipoise as eq
from benchmarks import peers
from benchmarks.networks import Batch, Network, Problem, losses_of
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import OnFeatures

__all__ = ["equipoise_optimizer", "equipoise_step", "ideal_step", "libmtl_step", "plain_step", "torchjd_step"]

Step = Callable[[int], object]

TORCHJD: dict[str, tuple[str, dict[str, Any]]] = {
    "imtl-g": ("IMTLG", {}),
    "mgda": ("MGDA", {}),
    "pcgrad": ("PCGrad", {}),
    "fairgrad": ("FairGrad", {"alpha": 1.0}),
    "cagrad": ("CAGrad", {"c": 0.4}),
    "nash-mtl": ("NashMTL", {}),
}
LIBMTL: dict[str, tuple[str, dict[str, Any]]] = {
    "imtl-g": ("IMTL", {}),
    "mgda": ("MGDA", {"mgda_gn": "none"}),
    "pcgrad": ("PCGrad", {}),
}


def _adam(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 1e-4)


def _model_losses(model: Network, batch: Batch) -> dict[str, Tensor]:
    return losses_of(model(batch[0]), batch[1])


def plain_step(problem: Problem, tasks: int, *, forwards: int = 1) -> Step:
    """``sum(losses).backward()`` and a step; with ``forwards=2``, another evaluation of the losses without a graph."""
    model, batch = problem.network(tasks), problem.batch(tasks)
    optimizer = _adam(model)

    def step(_: int) -> None:
        losses = _model_losses(model, batch)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        for _more in range(forwards - 1):
            with torch.no_grad():
                _model_losses(model, batch)

    return step


def ideal_step(problem: Problem, tasks: int, *, further: int = 0) -> Step:
    """One forward pass, K backward passes that accumulate in ``.grad``, a step: no balancing, no task gradients kept.

    With ``further`` batches, the same number of passes for each of these before.
    """
    model, batch = problem.network(tasks), problem.batch(tasks)
    optimizer = _adam(model)

    def step(_: int) -> None:
        for _batch in range(1 + further):
            losses = list(_model_losses(model, batch).values())
            optimizer.zero_grad()
            for place, loss in enumerate(losses):
                torch.autograd.backward(loss, retain_graph=place < tasks - 1)
        optimizer.step()

    return step


def equipoise_step(problem: Problem, tasks: int, method: str, **options: Any) -> Step:
    """``MultiTaskOptimizer.step``."""
    mtl, batch = equipoise_optimizer(problem, tasks, method, **options), problem.batch(tasks)
    return lambda _: mtl.step(batch)


def equipoise_optimizer(problem: Problem, tasks: int, method: str, **options: Any) -> eq.MultiTaskOptimizer:
    """A network with Adam and a balancer."""
    model = problem.network(tasks)
    if options.pop("features", False):
        options |= {"features": model.encoder}
    balancer = eq.balancer(method)
    if isinstance(balancer, OnFeatures) and balancer.lacks_parts:
        balancer.take_parts(model.encoder, model.heads)
    objective = eq.Objective(model, _model_losses, batches=[problem.batch(tasks)] if further_batches(balancer) else None)
    return eq.MultiTaskOptimizer(objective, _adam(model), balancer, **options)


def torchjd_step(problem: Problem, tasks: int, method: str, chunk: int | None = None) -> Step | None:
    """``mtl_backward`` and ``jac_to_grad`` as in TorchJD's guide; ``None`` if TorchJD is not there."""
    needed = {"cagrad": "cvxpy", "nash-mtl": "ecos", "fairgrad": "scipy"}.get(method)
    if not peers.torchjd() or method not in TORCHJD or (needed and not peers.has(needed)):
        return None
    from torchjd import aggregation
    from torchjd.autojac import jac_to_grad, mtl_backward

    name, options = TORCHJD[method]
    if method == "nash-mtl":
        options = {"n_tasks": tasks, "max_norm": 0.0, "update_weights_every": 1, "optim_niter": 20}
    aggregator = getattr(aggregation, name)(**options)
    model, batch = problem.network(tasks), problem.batch(tasks)
    optimizer = _adam(model)

    def step(_: int) -> None:
        features = model.encoder(batch[0])
        losses = losses_of({name: head(features) for name, head in model.heads.items()}, batch[1])
        optimizer.zero_grad()
        mtl_backward(list(losses.values()), features=features, parallel_chunk_size=chunk)
        jac_to_grad(model.encoder.parameters(), aggregator)
        optimizer.step()

    return step


def libmtl_step(problem: Problem, tasks: int, method: str) -> Step | None:
    """What LibMTL's trainer does with a batch, without its metrics; ``None`` if LibMTL is not there."""
    rooms = peers.libmtl()
    if rooms is None or method not in LIBMTL:
        return None
    architecture, weighting = rooms
    name, options = LIBMTL[method]
    network, batch = problem.network(tasks), problem.batch(tasks)

    class Model(architecture.HPS, getattr(weighting, name)):  # type: ignore[misc, name-defined]
        """LibMTL mixes the architecture and the weighting into one class."""

        def zero_grad_share_params(self) -> None:
            # Its release was written for a torch whose zero_grad kept the tensors, and fails where they are None.
            self.encoder.zero_grad(set_to_none=False)

    model = Model(list(network.heads), lambda: network.encoder, network.heads, False, False, torch.device("cpu"))
    model.init_param()
    optimizer = _adam(model)

    def step(_: int) -> None:
        predictions = model(batch[0])
        losses = torch.zeros(tasks)
        for place, loss in enumerate(losses_of(predictions, batch[1]).values()):
            losses[place] = loss
        optimizer.zero_grad(set_to_none=False)
        model.backward(losses, **options)
        optimizer.step()

    return step
