"""A diagnosis from its first batch to its numbers; everything it moves is put back."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.diagnosis.costs import costs
from equipoise.diagnosis.looks import Look, Looks, endless
from equipoise.diagnosis.summary import Diagnosis, summarized
from equipoise.errors import InputError, NonFiniteError
from equipoise.modules import moved
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer

if TYPE_CHECKING:
    from equipoise.study import Problem, Splits

__all__ = ["diagnose", "diagnose_problem", "found_device", "stage"]


def diagnose(
    objective: Objective,
    loader: Iterable[object],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    steps: int = 300,
    looks: int = 30,
    shared: nn.Module | Sequence[Tensor] | None = None,
    clip: float | None = None,
    timed: bool = True,
    name: str = "problem",
    told: Callable[[int, int], object] = lambda done, wanted: None,
) -> Diagnosis:
    """Measures what the tasks do to each other, in some steps of plain training on the user's own model and batches.

    Losses are those of every step. Now and then the Gramian of the task gradients is formed: the exact one, those of all
    proxies, and those of the batch's two halves apart, which tell what is noise (where a batch cannot be cut in two, the next
    batch takes the place of the second half). A look costs about two exact Gramians. Then steps of each class of method are
    timed side by side.

    Model, optimizer, ``.grad`` and torch's random state are put back at the end; batches are moved to the model's device.

    Args:
        objective: model and losses.
        loader: batches; gone through again and again.
        optimizer: takes the steps; Adam with 1e-3 if left out.
        steps: of plain training (equal weights).
        looks: how often to look at gradients, the first time before the first step and the last time after the last one.
        shared: as for :class:`~equipoise.MultiTaskOptimizer`.
        clip: as for :class:`~equipoise.MultiTaskOptimizer`.
        timed: whether to time the classes of methods.
        name: of the problem.
        told: called with how many steps are done and how many there are.

    Raises:
        InputError: an argument that cannot be used, a loader without batches, or tasks that share nothing.
        NonFiniteError: the very first batch has a loss or gradient that is not finite.

    Example:
        >>> import equipoise as eq
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> def losses(model, batch):
        ...     errors = (model(batch[0]) - batch[1]).square().mean(0)
        ...     return {"near": errors[0], "far": 100 * errors[1]}
        >>> batches = [(torch.randn(16, 4), torch.randn(16, 2)) for _ in range(4)]
        >>> found = eq.diagnose(eq.Objective(model, losses), batches, steps=40, looks=5, timed=False)
        >>> found.tasks, found.shares["far"] > found.shares["near"], found.positive
        (('near', 'far'), True, True)
    """
    trained = _trainable(objective, loader, steps, looks)
    began = time.monotonic()
    model = objective.model
    # Its own, so that the tasks of the user's are fixed by the user's first step.
    own = Objective(model, objective.losses, objective.tasks.names or None, fixed=objective.fixed or None)
    device = trained[0].device
    with _put_back(own, optimizer):
        moving = torch.optim.Adam(trained, lr=1e-3) if optimizer is None else optimizer
        model.train()
        batches = (moved(batch, device) for batch in endless(loader))
        mtl = MultiTaskOptimizer(own, moving, "ls", shared=shared, clip=clip)
        watch = Looks(own, shared)
        seen, losses, taken, ended = _watched(mtl, batches, watch, steps, looks, told)
        tasks = own.tasks.names
        timings = [] if ended or not timed else costs(own, moving, batches, shared=shared)
        numbers = summarized(tasks, {task: losses.get(task, []) for task in tasks}, seen, max(taken, 1))
        return Diagnosis(
            name=name,
            tasks=tasks,
            steps=taken,
            optimizer=_words(moving),
            device=str(device),
            seconds=time.monotonic() - began,
            parameters={
                "shared": sum(parameter.numel() for parameter in watch.shared),
                "all": sum(parameter.numel() for parameter in model.parameters()),
            },
            ended=ended,
            costs=[asdict(cost) for cost in timings],
            lacking=dict(watch.lacking),
            **numbers,
        )


def _trainable(objective: Objective, loader: Iterable[object], steps: int, looks: int) -> list[nn.Parameter]:
    """The parameters to train. Raises InputError: there are none, or see :func:`diagnose`."""
    if not isinstance(objective, Objective):
        raise InputError(f"objective must be an equipoise.Objective; got {type(objective).__name__}")
    for what, value, least in (("steps", steps, 1), ("looks", looks, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{what} is {value!r}; it must be a whole number, at least {least}")
    if isinstance(loader, Iterator) or not isinstance(loader, Iterable):
        raise InputError(
            f"loader must be something that can be iterated over again and again, such as a DataLoader; got "
            f"{type(loader).__name__}"
        )
    trained = [parameter for parameter in objective.model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("no parameter of the model requires grad, so there is nothing to train and to diagnose")
    return trained


def _watched(
    mtl: MultiTaskOptimizer, batches: Iterator[object], watch: Looks, steps: int, looks: int, told: Callable[[int, int], object]
) -> tuple[list[Look], dict[str, list[tuple[int, float]]], int, str]:
    """Trains and looks: the looks, task → (step, loss), how many steps were taken, and why no more; empty if all were."""
    seen: list[Look] = []
    losses: dict[str, list[tuple[int, float]]] = {}
    taken = 0
    due = {round(place * steps / (looks - 1)) for place in range(looks)}
    held = next(batches)
    try:
        while True:
            batch, held = held, next(batches)
            if taken in due:
                seen.append(watch.look(taken, batch, held))
            if taken == steps:
                return seen, losses, taken, ""
            mtl.step(batch)
            assert mtl.last is not None
            for task, loss in zip(mtl.last.tasks, mtl.last.losses.tolist(), strict=True):
                losses.setdefault(task, []).append((taken, loss))
            taken += 1
            told(taken, steps)
    except NonFiniteError as error:
        if not seen:
            raise
        return seen, losses, taken, f"after {taken} steps: {error}"


def diagnose_problem(
    problem: Problem,
    *,
    seed: int = 0,
    steps: int = 300,
    looks: int = 30,
    device: str = "cpu",
    timed: bool = True,
    told: Callable[[int, int], object] = lambda done, wanted: None,
) -> Diagnosis:
    """As :func:`diagnose`, for a study's problem: its model, losses, optimizer and training data of a seed.

    Args:
        problem: what is diagnosed.
        seed: of data and model.
        steps: as for :func:`diagnose`, and so are ``looks``, ``timed`` and ``told``.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        InputError: there is no such device; see also :func:`diagnose`.
    """
    with stage(problem, seed, device) as (objective, splits, optimizer):
        stepping = problem.stepping(objective.model) if problem.stepping else {}
        return diagnose(
            objective,
            splits.train,
            optimizer,
            steps=steps,
            looks=looks,
            shared=problem.shared(objective.model) if problem.shared else None,
            clip=stepping.get("clip"),
            timed=timed,
            name=problem.name,
            told=told,
        )


@contextmanager
def stage(problem: Problem, seed: int, device: str = "cpu") -> Iterator[tuple[Objective, Splits, torch.optim.Optimizer]]:
    """The objective, the data and the optimizer of a problem, as a run of that seed has them.

    The global random states are those of the seed meanwhile, and are put back at the end.
    """
    from equipoise.study import Splits
    from equipoise.study.records import seed_process

    place = found_device(device)
    before = random.getstate(), np.random.get_state()  # noqa: NPY002  (a user's code may draw from the global generator)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if place.type == "cuda" else []):
        try:
            seed_process(seed)
            splits = Splits(*problem.data(seed))
            seed_process(seed)
            model, losses, *rest = problem.build(seed)
            model.to(place)
            optimizer = rest[0] if rest else problem.optimizer(model)
            seed_process(seed)
            yield Objective(model, losses, problem.tasks), splits, optimizer
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


def found_device(name: str) -> torch.device:
    """The device of a name; ``"auto"`` is a GPU if there is one. Raises InputError: there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f'there is no device "{name}" here ({reason}); give auto, cpu, cuda or cuda:0') from error
    return device


def _words(optimizer: torch.optim.Optimizer) -> str:
    rates = sorted({float(group["lr"]) for group in optimizer.param_groups if "lr" in group})
    return type(optimizer).__name__ + (f", lr {', '.join(f'{rate:g}' for rate in rates)}" if rates else "")


@contextmanager
def _put_back(objective: Objective, optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Leaves model, optimizer, ``.grad``, modes and torch's random state as they were."""
    model = objective.model
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    state = None if optimizer is None else copy.deepcopy(optimizer.state_dict())
    random = objective.random_state()
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        if optimizer is not None and state is not None:
            optimizer.load_state_dict(state)
        random.restore()
