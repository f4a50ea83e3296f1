"""The loop around an optimizer: evaluate, tell, report, save, until a limit is reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np

from equipoise.blackbox.arrays import Array, read_vector
from equipoise.blackbox.evaluation import Failures, evaluator
from equipoise.blackbox.minimizing.bar import bar
from equipoise.blackbox.minimizing.checkpoint import check_storable, read_checkpoint, write_checkpoint
from equipoise.blackbox.minimizing.result import Progress, Result
from equipoise.blackbox.minimizing.settings import worded
from equipoise.blackbox.optimizers import Optimizer, make_optimizer
from equipoise.errors import EquipoiseError, InputError

__all__ = ["minimize"]

_GIVE_UP = 20  # iterations in a row without one evaluation that did not fail


def minimize(
    f: Callable[[Array], Any],
    x0: object,
    method: str | Optimizer = "asmg",
    *,
    iterations: int | None = None,
    evaluations: int | None = None,
    seconds: float | None = None,
    batched: bool = False,
    workers: int = 1,
    backend: Literal["threads", "processes"] = "processes",
    evaluation_seconds: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    **options: Any,
) -> Result:
    """Minimises a function with several outputs and no gradient.

    Args:
        f: from a point [d] to outputs [m], or, ``batched``, from points [N, d] to outputs [N, m]; it sees NumPy arrays and
            returns NumPy, torch or lists.
        x0: where the search starts [d]; NumPy or torch.
        method: ``"asmg"``, ``"asmg-ew"``, ``"es"``, ``"bes"``, ``"cma-es"``, ``"mmes"``, or an optimizer of one's own.
        iterations: the most to do in all. 1,000 where no limit is given.
        evaluations: the most points to evaluate in all; an iteration that would exceed it is not begun.
        seconds: the longest to go on in all; the iteration under way is finished.
        batched: what ``f`` takes.
        workers: evaluations at a time; with ``batched``, parts of a batch at a time.
        backend: of several workers, or of a time limit on evaluations: ``"processes"`` or ``"threads"``.
        evaluation_seconds: what takes longer counts as failed; in a process it is killed.
        callback: called after each iteration; the search ends when it returns ``True``.
        progress: show a bar.
        checkpoint: a file. If it exists, the search goes on from there, with the same bits as if it had never stopped; it is
            written every ``checkpoint_every`` iterations and at the end, interruptions included. If ``f`` has
            ``state_dict`` and ``load_state_dict``, as :class:`BlackBoxPrompt` has, its state travels along: a dictionary of
            arrays, numbers, strings and bytes. That of an iteration that was interrupted is the state before it, as the
            iteration is then done again.
        checkpoint_every: see there.
        **options: of the method: ``std``, ``samples``, ``step_size``, ``seed``, ``failed`` and others.

    Returns:
        The mean of the search distribution and what there is to know about how it was found.

    Raises:
        InputError: an argument that cannot be used, a checkpoint of another search (start, method, options), or a checkpoint
            for a function whose state cannot be stored or changes in other processes.
        EquipoiseError: no evaluation has succeeded in 20 iterations in a row; the message says what the first failure was.

    Example:
        >>> import numpy as np
        >>> def f(x):
        ...     return [((x - 1) ** 2).sum(), ((x + 1) ** 2).sum()]
        >>> result = minimize(f, np.full(3, 4.0), iterations=200, samples=20, seed=0)
        >>> bool((np.abs(result.x) < 1).all()), result.evaluations, result.failures.total
        (True, 4000, 0)
    """
    _check_limits(iterations, evaluations, seconds, checkpoint_every)
    if iterations is None and evaluations is None and seconds is None:
        iterations = 1000
    if isinstance(method, Optimizer):
        if options:
            raise InputError(f"{', '.join(options)}: give options to the optimizer itself, as method is one already")
        optimizer = method
    else:
        optimizer = make_optimizer(method, x0, **options)
    path = Path(checkpoint) if checkpoint is not None else None
    settings = {"method": type(optimizer).__name__, "options": sorted(f"{k}={worded(v)}" for k, v in options.items())}
    # An optimizer of one's own brings its mean with it.
    start = None if isinstance(method, Optimizer) else read_vector(x0, "x0")
    stateful = path is not None and hasattr(f, "state_dict") and hasattr(f, "load_state_dict")
    if stateful:
        _check_state(f, backend == "processes" and (workers > 1 or evaluation_seconds is not None))
    history: list[list[float]] = []
    failures = Failures()
    before = 0.0
    if path is not None and path.exists():
        saved = read_checkpoint(path)
        if saved.get("settings") != settings:
            raise InputError(
                f"{path} is a checkpoint of {saved.get('settings')}, and this is {settings}; give the same options, or another "
                "file"
            )
        if not np.array_equal(saved["x0"] if saved["x0"] is not None else (), start if start is not None else ()):
            raise InputError(f"{path} is a checkpoint of a search from another x0; give the same x0, or another file")
        if (saved["function"] is not None) != stateful:
            raise InputError(
                f"{path} is a checkpoint of a function {'with' if saved['function'] is not None else 'without'} a state, and "
                f"this is one {'with' if stateful else 'without'}; give the same function, or another file"
            )
        optimizer.load_state_dict(saved["optimizer"])
        if stateful:
            f.load_state_dict(saved["function"])  # type: ignore[attr-defined]
        history = saved["history"]
        failures = Failures(saved["failures"], saved["first failures"])
        before = saved["seconds"]

    under_way: Any = None  # the state of f before the iteration that is being evaluated

    def function_state() -> Any:
        return f.state_dict() if stateful else None  # type: ignore[attr-defined]

    def save() -> None:
        if path is not None:
            state = {
                "settings": settings,
                "x0": start,
                "function": under_way if under_way is not None else function_state(),
                "optimizer": optimizer.state_dict(),
                "history": history,
                "failures": failures.counts,
                "first failures": failures.first,
                "seconds": before + monotonic() - began,
            }
            write_checkpoint(path, state)

    began = monotonic()
    stopped = ""
    unsuccessful = 0
    with (
        bar(progress) as shown,
        evaluator(f, workers=workers, backend=backend, batched=batched, limit=evaluation_seconds) as evaluate,
    ):
        try:
            while not stopped:
                points = optimizer.ask()
                spent = before + monotonic() - began
                stopped = _limit(optimizer, points.shape[0], spent, iterations, evaluations, seconds)
                if stopped:
                    break
                under_way = deepcopy(function_state())
                answers = evaluate(points)
                table = failures.table(answers, optimizer.objectives)
                if table is None or not np.isfinite(table).all(axis=1).any():
                    unsuccessful += 1
                    if unsuccessful == _GIVE_UP:
                        kind, said = next(iter(failures.first.items()))
                        raise EquipoiseError(
                            f"no evaluation has succeeded in {_GIVE_UP} iterations in a row; the first failure ({kind}): {said}"
                        )
                else:
                    unsuccessful = 0
                if table is None:
                    # How many objectives there are is not known yet; two is the fewest that every optimizer takes, and
                    # rows without a finite entry teach it nothing.
                    optimizer.skip()
                    under_way = None
                    continue
                optimizer.tell(table)
                under_way = None
                history.append(_means(table))
                at = Progress(
                    optimizer.iterations,
                    optimizer.evaluations,
                    before + monotonic() - began,
                    points,
                    table,
                    optimizer,
                    failures,
                )
                shown(_share(at, iterations, evaluations, seconds), _line(at, history[-1]))
                if callback is not None and callback(at) is True:
                    stopped = "callback"
                if optimizer.iterations % checkpoint_every == 0:
                    save()
        except KeyboardInterrupt:
            # The points under way are asked for again after a resumption, so nothing is lost but their evaluation.
            stopped = "interrupted"
        finally:
            save()
    return Result(
        x=optimizer.mean,
        std=optimizer.std,
        weights=optimizer.weights,
        objectives=np.array(history).reshape(len(history), -1),
        iterations=optimizer.iterations,
        evaluations=optimizer.evaluations,
        failures=failures,
        seconds=before + monotonic() - began,
        stopped=stopped,
        optimizer=optimizer,
    )


def _limit(
    optimizer: Optimizer, rows: int, spent: float, iterations: int | None, evaluations: int | None, seconds: float | None
) -> str:
    if iterations is not None and optimizer.iterations >= iterations:
        return "iterations"
    if evaluations is not None and optimizer.evaluations + rows > evaluations:
        return "evaluations"
    if seconds is not None and spent >= seconds:
        return "seconds"
    return ""


def _share(at: Progress, iterations: int | None, evaluations: int | None, seconds: float | None) -> float:
    shares = [
        done / limit
        for done, limit in ((at.iteration, iterations), (at.evaluations, evaluations), (at.seconds, seconds))
        if limit is not None
    ]
    return min(max(shares), 1.0)


def _line(at: Progress, means: list[float]) -> str:
    values = " ".join(f"{value:.3g}" for value in means[:4]) + (" …" if len(means) > 4 else "")
    failed = f", {at.failures.total} failed" if at.failures.total else ""
    return f"{at.iteration} iterations, {at.evaluations} evaluations{failed}, objectives {values}"


def _means(table: Array) -> list[float]:
    finite = table[np.isfinite(table).all(axis=1)]
    values = finite.mean(axis=0) if finite.size else np.full(table.shape[1], np.nan)
    return [float(value) for value in values]


def _check_state(f: Any, elsewhere: bool) -> None:
    if elsewhere:
        raise InputError(
            f"{type(f).__name__} has a state, which a checkpoint cannot follow into other processes; "
            'take backend="threads" or one worker, or leave out checkpoint='
        )
    try:
        check_storable(f.state_dict())
    except TypeError as error:
        raise InputError(
            f"the state of {type(f).__name__} cannot be stored in a checkpoint ({error}); if it does not change, give the "
            "function without it: lambda x: f(x)"
        ) from error


def _check_limits(iterations: int | None, evaluations: int | None, seconds: float | None, every: int) -> None:
    for name, value in (("iterations", iterations), ("evaluations", evaluations), ("checkpoint_every", every)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
            raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds is {seconds!r}; give a number greater than 0")
