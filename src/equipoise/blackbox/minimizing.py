"""The loop around an optimizer: evaluation, limits, progress, checkpoints, and the result."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np

from equipoise.blackbox.archive import Archive, Kept
from equipoise.blackbox.arrays import Array, read_vector
from equipoise.blackbox.checkpoint import check_storable, read_checkpoint, write_checkpoint
from equipoise.blackbox.evaluation import Failures, evaluator
from equipoise.blackbox.optimizers import Optimizer, make_optimizer
from equipoise.cluster import Ray
from equipoise.errors import EquipoiseError, InputError
from equipoise.progress import bar

__all__ = ["IterationReport", "Result", "minimize", "worded"]

_DEPTH = 5  # of functions that hold functions


def worded(value: object, depth: int = _DEPTH) -> str:
    """An option's value as text that is the same for the same value in another process.

    A function is told by its name and a digest of its code, defaults and closure; what it reads from its module is not
    followed, and another version of Python compiles other code. A callable object or partial is told by its class and what
    it holds. Of a random generator only the kind is told, as its state travels with the optimizer.

    Example:
        >>> worded(0.5), worded(np.ones(2)), worded(len)
        ('0.5', '[1.0, 1.0]', 'builtins.len')
        >>> worded(lambda t: 1 / (t + 1)) == worded(lambda t: 1 / (t + 2))
        False
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return repr(value.tolist())
    if isinstance(value, np.random.Generator) or depth == 0:
        return type(value).__name__
    if isinstance(value, np.generic):
        return repr(value.item())
    inner = functools.partial(worded, depth=depth - 1)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inner, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {inner(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, set | frozenset):  # in an order of their own in each process
        return "{" + ", ".join(sorted(map(inner, value))) + "}"
    if isinstance(value, functools.partial):
        return f"partial({inner(value.func)}, {inner(value.args)}, {inner(value.keywords)})"
    if isinstance(value, types.MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, types.FunctionType):
        held = [_held(cell) for cell in value.__closure__ or ()]
        digest = _digest(_code(value.__code__) + inner([value.__defaults__, value.__kwdefaults__, *held]))
        return f"{value.__module__}.{value.__qualname__} ({digest})"
    if isinstance(value, types.BuiltinFunctionType | type | np.ufunc):
        return f"{getattr(value, '__module__', None) or type(value).__name__}.{getattr(value, '__qualname__', value.__name__)}"
    # The repr that an object has by default is its address.
    if type(value).__repr__ is object.__repr__:
        return f"{type(value).__module__}.{type(value).__qualname__} ({_digest(inner(getattr(value, '__dict__', {})))})"
    return repr(value)


def _code(code: types.CodeType) -> str:
    constants = [_code(own) if isinstance(own, types.CodeType) else worded(own) for own in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def _held(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class IterationReport:
    """One iteration, as a callback sees it.

    Attributes:
        iteration: how many are done, this one included.
        evaluations: how many points have been evaluated.
        seconds: since the beginning, earlier parts of a resumed search included.
        points: those of this iteration [N (+1), d], as ``f`` saw them.
        outputs: theirs [N (+1), m]; rows of failed evaluations are not a number.
        optimizer: after its update.
        failures: up to now.
    """

    iteration: int
    evaluations: int
    seconds: float
    points: Array
    outputs: Array
    optimizer: Optimizer
    failures: Failures


@dataclass(frozen=True)
class Result:
    """What a search ended with.

    Attributes:
        x: the mean of the search distribution [d].
        std: its standard deviations [d].
        best: the evaluated point [d] of the lowest mean of the outputs; ``None`` if nothing could be evaluated.
        best_outputs: its outputs [m].
        points: the evaluated points that were kept [A, d], see ``archive`` of :func:`minimize`; empty if none were.
        outputs: theirs [A, m].
        weights: λ [m] of the last iteration; ``None`` if nothing could be evaluated.
        objectives: for each iteration, the mean outputs of the samples that did not fail [iterations, m].
        iterations: how many.
        evaluations: points evaluated.
        failures: counted by kind.
        seconds: spent.
        stopped: why it ended: ``iterations``, ``evaluations``, ``seconds``, ``callback`` or ``interrupted``.
        optimizer: to go on from.
    """

    x: Array
    std: Array
    best: Array | None
    best_outputs: Array | None
    weights: Array | None
    objectives: Array
    iterations: int
    evaluations: int
    failures: Failures = field(repr=False)
    seconds: float
    stopped: str
    optimizer: Optimizer = field(repr=False)
    points: Array = field(repr=False, default_factory=lambda: np.empty((0, 0)))
    outputs: Array = field(repr=False, default_factory=lambda: np.empty((0, 0)))


def _silent(done: float, wanted: float, text: str) -> None:
    """Shows nothing."""


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
    backend: Literal["threads", "processes"] | Ray = "processes",
    evaluation_seconds: float | None = None,
    quorum: float = 1.0,
    tensors: bool = False,
    integers: Sequence[int] = (),
    archive: Kept | None = None,
    callback: Callable[[IterationReport], object] | None = None,
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
        method: ``"asmg"``, ``"asmg-ew"``, ``"es"``, ``"bes"``, ``"cma-es"``, ``"mmes"``, or an optimizer of your own.
        iterations: the most to do in all. 1,000 where no limit is given.
        evaluations: the most points to evaluate in all; an iteration that would exceed it is not begun.
        seconds: the longest to go on in all; the iteration under way is finished.
        batched: what ``f`` takes.
        workers: evaluations at a time; with ``batched``, parts of a batch at a time.
        backend: of several workers, or of a time limit on evaluations: ``"processes"`` or ``"threads"``; or a
            :class:`~equipoise.cluster.Ray`, on whose machines the workers are then.
        evaluation_seconds: what takes longer counts as failed; in a process it is killed.
        quorum: asynchronous evaluation: which share of an iteration's points is waited for, with several workers; of those that
            do not fail. Those that are late count as ``late`` among the failures, their workers go on, and what comes of them
            later is kept for ``best`` and the archive. Which ones are late depends on the machine, so that a search cannot be
            repeated to the bit; and where slow points are better or worse than others, leaving them out leads it astray.
        tensors: give ``f`` tensors of ``x0``'s device and precision in place of arrays; what it returns may stay there.
        integers: dimensions whose values are rounded before ``f`` sees them (within ``bounds``), as ``x`` and ``best`` are.
        archive: evaluated points to keep in the result: ``"front"`` for those that no other one dominates, ``"all"``.
        callback: called after each iteration; the search ends when it returns ``True``.
        progress: show a bar.
        checkpoint: a file. If it exists, the search goes on from there, with the same bits as if it had never stopped; it is
            written every ``checkpoint_every`` iterations and at the end, interruptions included. If ``f`` has
            ``state_dict`` and ``load_state_dict``, as ``BlackBoxPrompt`` has, its state travels along: a dictionary of
            arrays, numbers, strings and bytes. That of an iteration that was interrupted is the state before it, as the
            iteration is then done again.
        checkpoint_every: see there.
        **options: of the method: ``std``, ``samples``, ``lr``, ``seed``, ``failed``, ``bounds`` and others.

    Returns:
        The mean of the search distribution and what there is to know about how it was found.

    Raises:
        InputError: an argument that cannot be used, a checkpoint of another search (start, method, options), or a checkpoint
            for a function whose state cannot be stored or changes in other processes.
        EquipoiseError: no evaluation has succeeded in 20 iterations in a row, or in all that the limits allow; the message says
            what the first failure was. (A search that ends before it has evaluated anything has an empty result.)

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
    if not 0 < quorum <= 1 or isinstance(quorum, bool):
        raise InputError(f"quorum is {quorum!r}; give the share of points that is waited for, above 0 and at most 1")
    if quorum < 1 and (workers == 1 or optimizer.failed == "penalize"):
        raise InputError(
            'quorum below 1 needs workers=2 or more and failed="drop", for a point that is late is no worse than others'
        )
    rounded = _Rounded(integers, optimizer)
    if tensors:
        f = WithTensors(f, x0)
    kept = Archive(archive)
    path = Path(checkpoint) if checkpoint is not None else None
    settings: dict[str, Any] = {
        "method": type(optimizer).__name__,
        "options": sorted(f"{k}={worded(v)}" for k, v in options.items()),
    }
    settings |= {"archive": archive} if archive else {}
    settings |= {"integers": rounded.dimensions} if rounded.dimensions else {}
    # An optimizer of one's own brings its mean with it.
    start = None if isinstance(method, Optimizer) else read_vector(x0, "x0")
    stateful = path is not None and hasattr(f, "state_dict") and hasattr(f, "load_state_dict")
    if stateful:
        several = workers > 1 or evaluation_seconds is not None
        _check_state(f, isinstance(backend, Ray) or (backend == "processes" and several))
    history: list[list[float]] = []
    failures = Failures()
    before = 0.0
    if path is not None and path.exists():
        saved = _of_this_search(path, settings, start, stateful)
        optimizer.load_state_dict(saved["optimizer"])
        if archive:
            kept.load_state_dict(saved.get("archive") or {})
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
                **({"archive": kept.state_dict()} if archive else {}),
            }
            write_checkpoint(path, state)

    began = monotonic()
    stopped = ""
    unsuccessful = 0
    with (
        bar(extra="blackbox") if progress else nullcontext(_silent) as show,
        evaluator(f, workers=workers, backend=backend, batched=batched, limit=evaluation_seconds, quorum=quorum) as evaluate,
    ):
        try:
            while not stopped:
                points = optimizer.ask()
                spent = before + monotonic() - began
                stopped = _limit(optimizer, points.shape[0], spent, iterations, evaluations, seconds)
                if stopped:
                    break
                under_way = deepcopy(function_state())
                seen = rounded(points)
                answers = evaluate(seen)
                table = failures.table(answers, optimizer.objectives, optimizer.smallest_objectives)
                if table is None or not np.isfinite(table).all(axis=1).any():
                    unsuccessful += 1
                    if unsuccessful == _GIVE_UP:
                        raise _unsuccessful(_GIVE_UP, failures)
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
                kept.add(seen, table)
                for late, answer in evaluate.strays():
                    if answer.outputs is not None and answer.outputs.shape == (table.shape[1],):
                        optimizer.see(late, answer.outputs)
                        kept.add(late[None], answer.outputs[None])
                history.append(_means(table))
                at = IterationReport(
                    optimizer.iterations, optimizer.evaluations, before + monotonic() - began, seen, table, optimizer, failures
                )
                show(_share(at, iterations, evaluations, seconds), 1.0, _line(at, history[-1]))
                if callback is not None and callback(at) is True:
                    stopped = "callback"
                if optimizer.iterations % checkpoint_every == 0:
                    save()
        except KeyboardInterrupt:
            # The points under way are asked for again after a resumption, so nothing is lost but their evaluation.
            stopped = "interrupted"
        finally:
            save()
    if stopped in ("iterations", "evaluations", "seconds") and 0 < optimizer.evaluations == optimizer.failures:
        raise _unsuccessful(optimizer.iterations, failures)
    return Result(
        x=rounded(optimizer.mean),
        std=optimizer.std,
        best=None if optimizer.best is None else rounded(optimizer.best),
        best_outputs=optimizer.best_outputs,
        weights=optimizer.weights,
        objectives=np.array(history).reshape(len(history), optimizer.objectives or 0),
        iterations=optimizer.iterations,
        evaluations=optimizer.evaluations,
        failures=failures,
        seconds=before + monotonic() - began,
        stopped=stopped,
        optimizer=optimizer,
        points=kept.arrays()[0],
        outputs=kept.arrays()[1],
    )


class _Rounded:
    """Rounds some dimensions of points [..., d], no further than the bounds allow."""

    def __init__(self, integers: Sequence[int], optimizer: Optimizer) -> None:
        size = optimizer.dimension
        given = list(integers)
        if any(isinstance(own, bool) or not isinstance(own, int | np.integer) or not 0 <= own < size for own in given):
            raise InputError(f"integers is {given}; give the numbers of dimensions, from 0 to {size - 1}")
        self.dimensions = sorted({int(own) for own in given})
        low, high = (-np.inf, np.inf) if optimizer.bounds is None else optimizer.bounds[:, self.dimensions]
        self._low, self._high = np.ceil(low), np.floor(high)
        if self.dimensions and not (self._low <= self._high).all():
            raise InputError("bounds leave no whole number in a dimension of integers; give bounds with one between them")

    def __call__(self, points: Array) -> Array:
        if self.dimensions:
            points = points.copy()
            points[..., self.dimensions] = np.clip(np.rint(points[..., self.dimensions]), self._low, self._high)
        return points


class WithTensors:
    """A function of arrays that calls one of tensors; what has a state keeps it."""

    def __init__(self, function: Callable[[Any], Any], like: Any) -> None:
        if not hasattr(like, "new_tensor") or not like.is_floating_point():
            raise InputError("tensors=True gives f tensors of x0's device and precision; give x0 as a floating-point tensor")
        self._function = function
        self._kind = {"dtype": like.dtype, "device": like.device}
        for name in ("state_dict", "load_state_dict"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __call__(self, points: Array) -> Any:
        import torch

        return self._function(torch.as_tensor(points, **self._kind))


def _of_this_search(path: Path, settings: dict[str, Any], start: Array | None, stateful: bool) -> dict[str, Any]:
    """What a checkpoint holds, if :func:`minimize` wrote it in the same search."""
    saved = read_checkpoint(path)
    rows, counts = saved.get("history"), saved.get("failures")
    good = (
        isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(rows[0]) and set(map(type, row)) <= {int, float} for row in rows)
        and isinstance(counts, dict)
        and all(type(count) is int and count > 0 for count in counts.values())
        and isinstance(saved.get("first failures"), dict)
        and all(isinstance(said, str) for said in saved["first failures"].values())
        and type(saved.get("seconds")) in (int, float)
        and math.isfinite(saved["seconds"])
        and isinstance(saved.get("optimizer"), dict)
        and (saved.get("x0", "") is None or isinstance(saved.get("x0"), np.ndarray))
        and "function" in saved
    )
    if not good:
        raise InputError(
            f"{path} is no checkpoint of a search (parts are missing or wrong); take another file name or remove it"
        )
    if saved.get("settings") != settings:
        raise InputError(
            f"{path} is a checkpoint of {saved.get('settings')}, and this is {settings}; give the same options, or another file"
        )
    if not np.array_equal(saved["x0"] if saved["x0"] is not None else (), start if start is not None else ()):
        raise InputError(f"{path} is a checkpoint of a search from another x0; give the same x0, or another file")
    if (saved["function"] is not None) != stateful:
        raise InputError(
            f"{path} is a checkpoint of a function {'with' if saved['function'] is not None else 'without'} a state, and "
            f"this is one {'with' if stateful else 'without'}; give the same function, or another file"
        )
    return saved


def _unsuccessful(iterations: int, failures: Failures) -> EquipoiseError:
    kind, said = next(iter(failures.first.items()), ("unknown", "it was before this search"))
    return EquipoiseError(
        f"no evaluation has succeeded in {iterations} iterations in a row; the first failure ({kind}): {said}"
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


def _share(at: IterationReport, iterations: int | None, evaluations: int | None, seconds: float | None) -> float:
    shares = [
        done / limit
        for done, limit in ((at.iteration, iterations), (at.evaluations, evaluations), (at.seconds, seconds))
        if limit is not None
    ]
    return min(max(shares), 1.0)


def _line(at: IterationReport, means: list[float]) -> str:
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
