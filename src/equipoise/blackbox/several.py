"""Several searches on one budget: a front of points for different preferences, and restarts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from equipoise.blackbox.archive import Archive
from equipoise.blackbox.arrays import Array, read_array, read_vector
from equipoise.blackbox.evaluation import Answer, evaluator
from equipoise.blackbox.minimizing import Result, WithTensors, minimize
from equipoise.errors import InputError

__all__ = ["FrontResult", "front", "preferences", "restarted"]


@dataclass(frozen=True)
class FrontResult:
    """What :func:`front` found.

    Attributes:
        x: the points [n, d], one per preference, in the order of the search.
        outputs: theirs [n, m].
        preferences: the weights [n, m] of the objectives for which each was sought.
        points: all evaluated points that no other one dominates [A, d], those of ``x`` among them.
        outputs_of_points: theirs [A, m].
        evaluations: points evaluated in all.
        results: of the searches.
    """

    x: Array
    outputs: Array
    preferences: Array
    points: Array
    outputs_of_points: Array
    evaluations: int
    results: tuple[Result, ...] = field(repr=False)


def preferences(count: int, objectives: int) -> Array:
    """Weights [count, objectives], each row of sum 1, that cover the simplex: equal ones first, then always the farthest.

    No weight is 0: what minimises a single objective need not be Pareto optimal.

    Raises:
        InputError: a count below 1, or fewer than two objectives.

    Example:
        >>> preferences(3, 2).tolist()
        [[0.5, 0.5], [0.01, 0.99], [0.99, 0.01]]
    """
    if count < 1 or objectives < 2:
        raise InputError(f"{count} preferences for {objectives} objectives were asked for; give at least 1, for at least 2")
    parts = max(2, count - 1)
    while objectives > 2 and parts > 2 and math.comb(parts + objectives - 2, objectives - 1) >= 2 * count:
        parts -= 1
    bars = itertools.combinations(range(parts + objectives - 1), objectives - 1)
    rows = np.array([np.diff([-1, *own, parts + objectives - 1]) - 1 for own in bars]) / parts
    chosen = [np.full(objectives, 1.0 / objectives)]
    for _ in range(count - 1):
        distances = np.min([((rows - own) ** 2).sum(axis=1) for own in chosen], axis=0)
        chosen.append(rows[int(np.round(distances, 12).argmax())])
    least = 0.01
    return np.round(least + (1.0 - objectives * least) * np.array(chosen), 12)


def front(
    f: Callable[[Array], Any],
    x0: object,
    *,
    points: int = 5,
    preferences: object = None,
    evaluations: int = 10_000,
    samples: int = 20,
    std: object = 1.0,
    warm: float = 0.3,
    scalarization: Literal["sum", "tchebycheff"] = "sum",
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> FrontResult:
    """Several points of the Pareto front, by one ASMG search per preference on one budget of evaluations.

    One search of :func:`minimize` gives *one* point, whichever ASMG's weights lead to. Here the weights λ are fixed, one after
    the other, and each search but the first starts from the solution of the nearest preference that was solved before, with
    deviations of ``warm`` times ``std``. The first gets twice the share of the others. Weights reach the convex part of a
    front; of one that bends inwards the ends, and ``points`` of the result what was passed on the way.

    ``scalarization="tchebycheff"`` reaches both: a search descends max_i λ_i (F_i - z_i) / r_i. The ends come first, by
    weighted sums, those of the preferences with an entry of 0.9 or more and further ones where an objective has none. z are the
    least outputs that any search evaluated, r the ranges of the undominated ones, and each search starts from the best point
    for its own preference among them. One evaluation of ``x0`` tells how many objectives there are.

    Args:
        f: from a point [d] to outputs [m], or, ``batched=True``, from points [N, d] to outputs [N, m].
        x0: where the first search starts [d].
        points: n, how many preferences.
        preferences: the weights [n, m], each row non-negative and of sum 1; spread evenly if left out, see :func:`preferences`.
        evaluations: of all searches together, and of their solutions at the end.
        samples: N of each search.
        std: of the first search.
        warm: share of it for the others, above 0.
        scalarization: ``"sum"`` or ``"tchebycheff"``.
        seed: of all searches.
        checkpoint: a file; each search has one of its own beside it.
        **options: of :func:`minimize` and ASMG: ``lr`` (0.3 if left out), ``bounds``, ``batched``, ``workers``, ``failed`` …

    Raises:
        InputError: an argument that cannot be used, or a budget that leaves less than two iterations per search.
        EquipoiseError: as :func:`minimize`.
        KeyboardInterrupt: Ctrl-C; called again with the same ``checkpoint``, the search goes on.

    Example:
        >>> def f(x):
        ...     return [((x - 1) ** 2).mean(), ((x + 1) ** 2).mean()]
        >>> found = front(f, np.full(4, 3.0), points=3, evaluations=6000, samples=20, seed=0)
        >>> np.round(found.outputs, 1).tolist(), found.evaluations <= 6000
        ([[1.0, 1.0], [3.9, 0.0], [0.0, 3.9]], True)
    """
    given = None if preferences is None else read_array(preferences, "preferences")
    if given is not None and (given.ndim != 2 or not (given >= 0).all() or not np.allclose(given.sum(axis=1), 1.0)):
        raise InputError("preferences must be weights [n, m], each row non-negative and of sum 1")
    count = points if given is None else len(given)
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise InputError(f"points is {count!r}; give a whole number of at least 1")
    share = (evaluations - count) // (count + 1)
    if share < 2 * samples or not warm > 0:
        raise InputError(
            f"{evaluations} evaluations for {count} searches with {samples} samples and warm={warm}; give warm above 0 and "
            f"at least {(count + 1) * 2 * samples + count} evaluations"
        )
    if not {"method", "weights", "ideal"}.isdisjoint(options):
        raise InputError("front() is for ASMG with weights of its own; give preferences= instead of method, weights or ideal")
    if scalarization not in ("sum", "tchebycheff"):
        raise InputError(f'scalarization is {scalarization!r}; expected "sum" or "tchebycheff"')
    if "archive" in options:
        raise InputError("front() keeps the points that no other one dominates; leave archive= out")
    f, first = _of_arrays(f, x0, options)
    options.setdefault("lr", 0.3)
    spread = read_array(std, "std")
    seeds = np.random.SeedSequence(seed)
    results: list[Result] = []
    archive = Archive("front")
    wanted = given

    def search(number: int, start: object, deviation: object, budget: int, weights: object, **reference: Any) -> None:
        results.append(
            minimize(
                f,
                start,
                "asmg",
                evaluations=budget,
                samples=samples,
                std=deviation,
                seed=np.random.default_rng(seeds.spawn(1)[0]),
                weights=weights,
                archive="front",
                checkpoint=_beside(checkpoint, number),
                **reference,
                **options,
            )
        )
        if results[-1].stopped == "interrupted":  # further searches would start from what is no solution yet
            raise KeyboardInterrupt
        archive.add(results[-1].points, results[-1].outputs)

    if scalarization == "tchebycheff":
        if wanted is None:
            (answer,) = _answers(f, read_vector(first, "x0")[None], options)
            if answer.outputs is None:
                raise InputError(
                    f"f gave no outputs at x0 ({answer.message}), and they tell how many objectives there are; "
                    "give another x0, or preferences="
                )
            wanted = _spread(count, answer.outputs.size)
        objectives = wanted.shape[1]
        is_end = wanted.max(axis=1) >= _END
        lacking = [own for own in range(objectives) if not (wanted[is_end].argmax(axis=1) == own).any()]
        further = np.where(np.eye(objectives) > 0, 0.99, 0.01 / (objectives - 1))[lacking]
        rows = np.concatenate([wanted, further.reshape(-1, objectives)])
        order = sorted(range(len(rows)), key=lambda row: rows[row].max() < _END)
        share = (evaluations - count - 1) // (len(order) + 1)
        if share < 2 * samples:
            raise InputError(
                f"{evaluations} evaluations for {len(order)} searches, {len(lacking)} of them for ends of the front, with "
                f"{samples} samples; give at least {(len(order) + 1) * 2 * samples + count + 1}"
            )
        for number, row in enumerate(order):
            points_so_far, known = archive.arrays()
            if not number:
                search(0, first, spread, 2 * share, rows[row])
                continue
            scores, reference = known @ rows[row], {}
            if rows[row].max() < _END:
                ranges = np.ptp(known, axis=0)
                reference = {"ideal": known.min(axis=0), "ranges": np.where(ranges > 0, ranges, 1.0)}
                scores = (rows[row] * (known - reference["ideal"]) / reference["ranges"]).max(axis=1)
            search(number, points_so_far[scores.argmin()], warm * spread, share, rows[row], **reference)
        spent = sum(result.evaluations for result in results) + (given is None)
        results = [results[order.index(row)] for row in range(count)]
        return _gathered(f, wanted, results, archive, spent, options)
    search(0, first, spread, 2 * share, "equal" if wanted is None else wanted[0])
    if wanted is None:
        objectives = results[0].objectives.shape[1]
        wanted = _spread(count, objectives)
    for number in range(1, count):
        nearest = int(((wanted[:number] - wanted[number]) ** 2).sum(axis=1).argmin())
        search(number, results[nearest].x, warm * spread, share, wanted[number])
    return _gathered(f, wanted, results, archive, sum(result.evaluations for result in results), options)


def _gathered(f: Any, wanted: Array, results: Sequence[Result], archive: Archive, spent: int, options: Any) -> FrontResult:
    x = np.stack([result.x for result in results])
    table = _evaluated(f, x, results, options)
    archive.add(x, table)
    return FrontResult(x, table, wanted, *archive.arrays(), spent + len(results), tuple(results))


_END = 0.9
"""From this entry on a preference is one for an end of the front, which a weighted sum reaches whatever its shape."""


_spread = preferences


def restarted(
    f: Callable[[Array], Any],
    x0: object,
    method: str = "asmg",
    *,
    restarts: int = 3,
    evaluations: int = 10_000,
    std: object = 1.0,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> Result:
    """The best of several searches on one budget, the first from ``x0``, the others from points drawn around it.

    Args:
        f: as of :func:`minimize`.
        x0: where the first search starts [d]; the others start at x0 + ``std`` · z, z ~ N(0, I), inside the bounds.
        method: by its name.
        restarts: how many searches beside the first.
        evaluations: of all together, in equal shares.
        std: of every search.
        seed: of all of it.
        checkpoint: a file; each search has one of its own beside it.
        **options: of :func:`minimize` and the method.

    Returns:
        The result of the search whose ``best`` is the best, with the evaluations and seconds of all, and all their ``points``;
        after Ctrl-C, of the searches so far.

    Raises:
        InputError: an argument that cannot be used.
        EquipoiseError: as :func:`minimize`.

    Example:
        >>> def f(x):  # two valleys, the better one at 3
        ...     return [min((x[0] + 3) ** 2 + 1, (x[0] - 3) ** 2)]
        >>> one = minimize(f, [-3.0], "es", evaluations=1000, std=0.1, lr=0.1, seed=0)
        >>> several = restarted(f, [-3.0], "es", restarts=4, evaluations=5000, std=4.0, lr=0.1, seed=0)
        >>> float(several.best_outputs[0]) < 0.1 < float(one.best_outputs[0])
        True
    """
    if isinstance(restarts, bool) or not isinstance(restarts, int | np.integer) or restarts < 0:
        raise InputError(f"restarts is {restarts!r}; give a whole number of at least 0")
    if checkpoint is not None and seed is None:
        raise InputError("checkpoint= of restarts needs seed=, for from it the other starts are drawn; give both")
    f, x0 = _of_arrays(f, x0, options)
    start, spread = read_vector(x0, "x0"), read_array(std, "std")
    results: list[Result] = []
    budget = evaluations // (restarts + 1)
    for number, own in enumerate(np.random.SeedSequence(seed).spawn(restarts + 1)):
        generator = np.random.default_rng(own)
        begun = start
        if results:
            begun = start + spread * generator.standard_normal(start.size)
            bounds = results[0].optimizer.bounds
            begun = begun if bounds is None else np.clip(begun, *bounds)
        path = _beside(checkpoint, number)
        results.append(minimize(f, begun, method, evaluations=budget, std=std, seed=generator, checkpoint=path, **options))
        if results[-1].stopped == "interrupted":
            break
    best = min(results, key=lambda result: result.optimizer.best_score)
    archive = Archive(options.get("archive"))
    for result in results:
        archive.add(result.points, result.outputs)
    points, outputs = archive.arrays()
    return replace(
        best,
        stopped=results[-1].stopped,
        points=points,
        outputs=outputs,
        evaluations=sum(result.evaluations for result in results),
        seconds=sum(result.seconds for result in results),
    )


def _beside(checkpoint: str | Path | None, number: int) -> Path | None:
    """The file of one of several searches."""
    return None if checkpoint is None else Path(checkpoint).with_stem(f"{Path(checkpoint).stem}-{number}")


def _of_arrays(f: Callable[[Any], Any], x0: Any, options: dict[str, Any]) -> tuple[Callable[[Any], Any], Any]:
    """The function as one of arrays, and x0 as one: rounded to a tensor's precision, a start might lie outside the bounds."""
    if options.pop("tensors", False):
        return WithTensors(f, x0), read_vector(x0, "x0")
    return f, x0


def _answers(f: Any, x: Array, options: dict[str, Any]) -> list[Answer]:
    chosen = {name: options[name] for name in ("workers", "backend", "batched") if name in options}
    with evaluator(f, limit=options.get("evaluation_seconds"), **chosen) as evaluate:
        return list(evaluate(x))


def _evaluated(f: Any, x: Array, results: Sequence[Result], options: dict[str, Any]) -> Array:
    """Outputs of the solutions; where one fails, the best that its search evaluated takes its place."""
    answers = _answers(f, x, options)
    for row, (answer, result) in enumerate(zip(answers, results, strict=True)):
        good = answer.outputs is not None and np.isfinite(answer.outputs).all()
        if not good and result.best is not None:
            x[row], answers[row] = result.best, replace(answer, outputs=result.best_outputs)
    return np.stack([answer.outputs for answer in answers if answer.outputs is not None])
