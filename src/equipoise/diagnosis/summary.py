"""What was seen, as numbers: means over looks, noise floors, states of learning; and the JSON of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.balance import balancer
from equipoise.diagnosis.looks import Look
from equipoise.solvers import pareto_distance
from equipoise.store import of_schema, plain, rounded

__all__ = ["SCHEMA", "Diagnosis", "learning", "summarized"]

Array = NDArray[np.float64]

SCHEMA = 1
"""Counts up whenever the meaning of the JSON changes."""

JUDGES = ("fairgrad", "cagrad")
"""Methods whose directions say how good a proxy is."""

_BINS = 100  # points of a curve of losses
_SURE, _LEVEL = 3.0, 0.025  # standard errors of a lasting conflict, and how often chance may find one among all pairs


@dataclass(frozen=True)
class Diagnosis:
    """The numbers of a diagnosis; :meth:`sentences` says what they mean.

    Where a batch could be cut in two, ``conflicts`` and ``agreement`` compare gradients on different halves of a batch, so that
    what two tasks have in common is not the noise of their common samples: ``floor`` is the share of tasks whose *own*
    gradients on the two halves have a negative inner product, ``pairs`` that of pairs of tasks.

    Attributes:
        name: of the problem.
        tasks: the tasks in order.
        steps: how many steps of plain training were taken.
        optimizer: that took them, in words.
        device: of the model.
        seconds: that the diagnosis took.
        parameters: ``shared`` by tasks, and ``all``, how many numbers.
        ended: why the training ended early; empty if it did not.
        losses: task → ``first`` and ``last`` (means over a tenth of the steps), ``lowest``, ``not_positive`` (in how many
            steps), and ``curve``, at most 100 means over stretches of steps.
        learning: task → ``state`` (``"falls"``, ``"stopped"``, ``"never"``, ``"rises"`` or ``"unknown"``), and ``gradient``,
            its norm at the end over that at the start.
        looks: after how many steps the gradients were looked at.
        norms: task → norm of its gradient in each look; ``None`` where the batch did not hold it.
        shares: task → its share of the mean gradient, ⟨g_k, g_0⟩ / (K ‖g_0‖²): they add up to 1.
        cosines: between the tasks' gradients ``[K, K]``, means over looks; ``None`` for two that never met.
        lasting: pairs of tasks in conflict whatever the batch: their mean cosine on different halves is below 0 by more than 3
            standard errors over looks, and more than chance makes of so many pairs (a t test at 2.5 %, after Bonferroni).
        agreement: task → mean cosine between its gradients on the two halves of a batch; empty without halves.
        conflicts: ``with_mean`` (share of task gradients against the mean gradient), ``any`` (share of looks in which one is),
            and with halves ``both_halves`` (against the mean on either half), ``pairs`` and ``floor``.
        pareto: relative distance from Pareto stationarity in each look, see :func:`equipoise.solvers.pareto_distance`.
        costs: what a step costs per class of method, see :class:`~equipoise.diagnosis.costs.Cost`.
        proxies: per source and method the cosine of the direction with the exact Gramian's: ``cosine`` (mean) and ``lowest``.
        elsewhere: method → the same for the exact Gramian of one half of the batch, judged on the other.
        lacking: what could not be measured → why.
    """

    name: str
    tasks: tuple[str, ...]
    steps: int
    optimizer: str
    device: str
    seconds: float
    parameters: Mapping[str, int]
    ended: str
    losses: Mapping[str, Mapping[str, Any]]
    learning: Mapping[str, Mapping[str, Any]]
    looks: tuple[int, ...]
    norms: Mapping[str, Sequence[float | None]]
    shares: Mapping[str, float]
    cosines: Sequence[Sequence[float | None]]
    lasting: Sequence[Sequence[str]]
    agreement: Mapping[str, float]
    conflicts: Mapping[str, float]
    pareto: Sequence[float]
    costs: Sequence[Mapping[str, Any]] = ()
    proxies: Sequence[Mapping[str, Any]] = ()
    elsewhere: Mapping[str, float] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def positive(self) -> bool:
        """Whether all losses were above 0 in all steps, as methods need that take logarithms or ratios of losses."""
        return not any(own["not_positive"] for own in self.losses.values())

    def ratio(self, kind: str) -> float:
        """What a step of a class of methods costs, over plain training; not a number where it was not timed."""
        found = next((cost["ratio"] for cost in self.costs if cost["kind"] == kind), None)
        return math.nan if found is None else float(found)

    def good_proxy(self, at_least: float = 0.9) -> str | None:
        """The first source, the cheapest first, whose directions have that mean cosine with the exact ones."""
        for source in dict.fromkeys(own["source"] for own in self.proxies):
            if all(own["cosine"] >= at_least for own in self.proxies if own["source"] == source):
                return str(source)
        return None

    def sentences(self) -> list[str]:
        """What was found, in plain sentences."""
        from equipoise.diagnosis.sentences import sentences

        return sentences(self)

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Writes ``diagnosis.json``, ``report.md``, ``report.html`` and the pictures into a folder.

        Returns:
            Paths of ``report.md`` and ``report.html``.

        Raises:
            MissingExtraError: the extra ``study`` is not installed.
            StorageError: something cannot be written.
        """
        from equipoise.diagnosis.page import write_page

        return write_page(self, Path(folder))

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values, with the sentences; numbers have six significant digits."""
        from equipoise.version import __version__

        head = {"schema": SCHEMA, "equipoise": __version__}
        return plain(head | rounded(asdict(self)) | {"sentences": self.sentences()})  # type: ignore[no-any-return]

    @classmethod
    def read(cls, path: str | Path) -> Diagnosis:
        """Reads ``diagnosis.json``.

        Raises:
            InputError: it is none, or of another version.
        """
        with of_schema(path, SCHEMA, "diagnosis") as known:
            own: dict[str, Any] = {name: known[name] for name in cls.__dataclass_fields__}
            return cls(**own | {name: tuple(own[name]) for name in ("tasks", "looks")})

    def __repr__(self) -> str:
        return f"Diagnosis({json.dumps(self.name)}, {len(self.tasks)} tasks, {self.steps} steps)"


def summarized(
    tasks: tuple[str, ...], losses: Mapping[str, Sequence[tuple[int, float]]], looks: Sequence[Look], steps: int
) -> dict[str, Any]:
    """The fields of a :class:`Diagnosis` that follow from losses ``(step, loss)`` per task and from looks."""
    places = {task: place for place, task in enumerate(tasks)}
    norms: dict[str, list[float | None]] = {task: [None] * len(looks) for task in tasks}
    totals, met = np.zeros((len(tasks), len(tasks))), np.zeros((len(tasks), len(tasks)))
    shares: dict[str, list[float]] = {task: [] for task in tasks}
    against, pareto, any_against = [], [], []
    for number, look in enumerate(looks):
        q = look.gramian
        lengths = np.sqrt(np.diag(q).clip(min=0.0))
        rows = [places[task] for task in look.tasks]
        for task, length in zip(look.tasks, lengths, strict=True):
            norms[task][number] = float(length)
        totals[np.ix_(rows, rows)] += _cosines(q, lengths, lengths)
        met[np.ix_(rows, rows)] += 1
        if q.mean() > 0:
            for task, share in zip(look.tasks, q.mean(1) / (len(q) * q.mean()), strict=True):
                shares[task].append(float(share))
        against += (q.mean(1) < 0).tolist()
        any_against.append(bool((q.mean(1) < 0).any()))
        pareto.append(pareto_distance(q))
    mean = np.divide(totals, met, out=np.full_like(totals, np.nan), where=met > 0)
    conflicts = {"with_mean": float(np.mean(against)), "any": float(np.mean(any_against))}
    return {
        "losses": {task: _losses(losses[task], steps) for task in tasks},
        "learning": {
            task: {"state": learning([loss for _, loss in losses[task]]), "gradient": _left(norms[task])} for task in tasks
        },
        "looks": tuple(look.step for look in looks),
        "norms": norms,
        "shares": {task: float(np.mean(own)) if own else math.nan for task, own in shares.items()},
        "cosines": [[None if math.isnan(value) else float(value) for value in row] for row in mean],
        "pareto": pareto,
        **_halved(tasks, looks, conflicts),
        "proxies": _proxies(looks),
    }


def _cosines(products: Array, left: Array, right: Array) -> Array:
    scale = np.outer(left, right)
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0).clip(-1.0, 1.0)


def _halved(tasks: tuple[str, ...], looks: Sequence[Look], conflicts: dict[str, float]) -> dict[str, Any]:
    """Agreement of halves, conflicts with their floor, lasting conflicts, and how far an exact direction carries over."""
    seen = [look for look in looks if look.within is not None and look.between is not None and look.halved]
    if not seen:
        return {"agreement": {}, "conflicts": conflicts, "lasting": [], "elsewhere": {}}
    agreement: dict[str, list[float]] = {task: [] for task in tasks}
    pairs: dict[tuple[str, str], list[float]] = {}
    both, against, own = [], [], []
    carried: dict[str, list[float]] = {name: [] for name in JUDGES}
    for look in seen:
        assert look.within is not None
        assert look.between is not None
        lengths = [np.sqrt(np.diag(q).clip(min=0.0)) for q in look.within]
        cosines = _cosines(look.between, *lengths)
        means = [q.mean(1) < 0 for q in look.within]
        both += (means[0] & means[1]).tolist()
        own += (np.diag(cosines) < 0).tolist()
        against += (cosines[~np.eye(len(cosines), dtype=bool)] < 0).tolist()
        for i, task in enumerate(look.halved):
            agreement[task].append(float(cosines[i, i]))
            for j in range(i + 1, len(look.halved)):
                pairs.setdefault((task, look.halved[j]), []).append(float(cosines[i, j] + cosines[j, i]) / 2)
        for name, found in carried.items():
            one, two = (_weights(name, q) for q in look.within)
            found.append(_direction(look.within[1], one, two))
    conflicts |= {"both_halves": float(np.mean(both)), "floor": float(np.mean(own))}
    if against:
        conflicts["pairs"] = float(np.mean(against))
    return {
        "agreement": {task: float(np.mean(found)) for task, found in agreement.items() if found},
        "conflicts": conflicts,
        "lasting": [list(pair) for pair, found in pairs.items() if _lasting(found, len(pairs))],
        "elsewhere": {name: float(np.mean(found)) for name, found in carried.items()},
    }


def _lasting(cosines: Sequence[float], pairs: int) -> bool:
    if len(cosines) < 4:
        return False
    mean, error = float(np.mean(cosines)), float(np.std(cosines, ddof=1)) / math.sqrt(len(cosines))
    if mean >= 0 or mean >= -_SURE * error:
        return False
    freedom, t = len(cosines) - 1, mean / error if error else math.inf
    # Student's t as a normal deviate (Wallace 1959), because SciPy is an extra.
    deviate = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return NormalDist().cdf(-deviate) * pairs < _LEVEL


def _weights(method: str, gramian: Array) -> Array:
    return np.asarray(balancer(method).weights(gramian), dtype=np.float64)  # type: ignore[attr-defined]


def _direction(gramian: Array, ours: Array, theirs: Array) -> float:
    """The cosine of two directions wᵀG, with the Gramian of G."""
    lengths = float((ours @ gramian @ ours) * (theirs @ gramian @ theirs))
    return float(ours @ gramian @ theirs) / math.sqrt(lengths) if lengths > 0 else 1.0


def _proxies(looks: Sequence[Look]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[float]] = {}
    for method in JUDGES:
        for look in looks:
            exact = _weights(method, look.gramian)
            for source, gramian in look.proxies.items():
                cosine = _direction(look.gramian, _weights(method, gramian), exact)
                found.setdefault((source, method), []).append(cosine)
    return [
        {"source": source, "method": method, "cosine": float(np.mean(own)), "lowest": min(own)}
        for (source, method), own in sorted(found.items(), key=lambda entry: _order(entry[0][0]))
    ]


def _order(source: str) -> int:
    order = ("features", "last", "last 2", "last 3")
    return order.index(source) if source in order else len(order)


def _losses(own: Sequence[tuple[int, float]], steps: int) -> dict[str, Any]:
    values = [loss for _, loss in own]
    few = max(1, len(values) // 10)
    width = max(1, math.ceil(steps / _BINS))
    bins: dict[int, list[float]] = {}
    for step, loss in own:
        bins.setdefault(step // width, []).append(loss)
    return {
        "first": float(np.mean(values[:few])) if values else math.nan,
        "last": float(np.mean(values[-few:])) if values else math.nan,
        "lowest": min(values, default=math.nan),
        "not_positive": sum(value <= 0 for value in values),
        "curve": [[place * width, float(np.mean(found))] for place, found in bins.items()],
    }


def learning(losses: Sequence[float]) -> str:
    """Whether a task still learns, from its losses in order; differences within two standard errors count as none.

    Returns:
        ``"never"``: the last quarter does not lie below the first tenth, or by less than a hundredth of it; ``"rises"``: it
        lies above the quarter before by more than a twentieth of the whole fall; ``"stopped"``: not below that
        quarter, or by less; else ``"falls"``. ``"unknown"`` with fewer than 40 losses.

    Example:
        >>> learning([0.98**step for step in range(100)]), learning([max(0.0, 1 - step / 30) for step in range(100)])
        ('falls', 'stopped')
        >>> learning([1.0] * 100), learning([1.0] * 10)
        ('never', 'unknown')
    """
    if len(losses) < 40:
        return "unknown"
    values = np.asarray(losses, dtype=np.float64)
    size = len(values)
    start, before, end = values[: size // 10], values[size // 2 : 3 * size // 4], values[3 * size // 4 :]

    def fall(one: Array, other: Array) -> tuple[float, float]:
        error = math.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
        return float(one.mean() - other.mean()), 2 * error

    whole, sure = fall(start, end)
    late, late_sure = fall(before, end)
    little = max(abs(whole) / 20, late_sure)
    if late < -little:
        return "rises"
    if whole <= max(sure, abs(float(start.mean())) / 100):
        return "never"
    return "stopped" if late <= little else "falls"


def _left(norms: Sequence[float | None]) -> float:
    """The mean norm of the last quarter of looks over that of the first."""
    known = [norm for norm in norms if norm is not None]
    if not known:
        return math.nan
    few = max(1, len(known) // 4)
    first, last = float(np.mean(known[:few])), float(np.mean(known[-few:]))
    return last / first if first > 0 else math.nan
