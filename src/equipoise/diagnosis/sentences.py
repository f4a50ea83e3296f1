"""What a diagnosis means, in plain sentences; nothing is said that its numbers do not hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from equipoise.balance.registry import methods

if TYPE_CHECKING:
    from equipoise.diagnosis.summary import Diagnosis

__all__ = ["joined", "mean_norms", "sentences"]

_APART = 10.0  # a ratio of gradients beyond which the quiet ones hardly count
_ALIKE = 3.0
_NOISE = 0.3  # mean cosine of two halves below which a gradient is mostly noise
_MANY = 5  # names in a sentence


def sentences(found: Diagnosis) -> list[str]:
    """The findings in the order in which they matter to somebody who chooses a method."""
    parts = (_ended, _scale, _conflict, _noise, _learning, _positive, _pareto, _cost, _proxy, _lacking, _advice)
    return [sentence for part in parts for sentence in part(found)]


def mean_norms(found: Diagnosis) -> dict[str, float]:
    """Mean norm of each task's gradient over the looks that saw one."""
    known = {task: [norm for norm in own if norm is not None] for task, own in found.norms.items()}
    return {task: float(np.mean(own)) for task, own in known.items() if own}


def joined(names: Iterable[str]) -> str:
    """A few names, and how many more there are.

    Example:
        >>> joined(["a"]), joined(["a", "b", "c"]), joined("abcdefgh")
        ('a', 'a, b and c', 'a, b, c, d, e and 3 more')
    """
    names = list(names)
    if len(names) > _MANY + 1:
        return f"{', '.join(names[:_MANY])} and {len(names) - _MANY} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ended(found: Diagnosis) -> Iterator[str]:
    if found.ended:
        yield f"Plain training broke down {found.ended}. Everything below is from before that."


def _extremes(values: Mapping[str, float]) -> tuple[str, str, float]:
    """The tasks with the largest and the smallest value, and the ratio."""
    largest, smallest = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    return largest, smallest, values[largest] / values[smallest] if values[smallest] > 0 else math.inf


def _scale(found: Diagnosis) -> Iterator[str]:
    norms = mean_norms(found)
    sizes = {task: abs(own["first"]) for task, own in found.losses.items() if own["first"] is not None}
    if len(norms) < 2:
        return
    loud, quiet, ratio = _extremes(norms)
    leader = max(found.shares, key=lambda task: found.shares[task] or -math.inf)
    share = found.shares[leader]
    if ratio < _ALIKE:
        yield f"The tasks' gradients are of one scale: that of {loud} is {_times(ratio)} as long as that of {quiet}."
    else:
        yield (
            f"The gradient of {loud} is {_times(ratio)} as long as that of {quiet}, on average. "
            f"In the mean of all gradients {leader} makes {share:.0%}; an equal share would be {1 / len(found.tasks):.0%}."
        )
    if len(sizes) > 1:
        large, small, spread = _extremes(sizes)
        yield f"The losses began within a factor of {_number(spread)} of each other ({large} largest, {small} smallest)."


def _conflict(found: Diagnosis) -> Iterator[str]:
    own = found.conflicts
    yield (
        f"In {own['any']:.0%} of the looks at least one task's gradient pointed against the mean gradient; "
        f"{own['with_mean']:.0%} of the task gradients did."
    )
    if "pairs" in own:
        where = "two halves of a batch" if "cut" not in found.lacking else "two batches"
        yield (
            f"Compared on {where}, {own['pairs']:.0%} of the pairs of tasks point against each other (unrelated tasks would in "
            f"50 %), and {own['floor']:.0%} of the tasks point against themselves, which is noise alone."
        )
        count = len(found.tasks) * (len(found.tasks) - 1) // 2
        if found.lasting:
            pairs = joined([" with ".join(pair) for pair in found.lasting])
            yield f"Of {count} pairs of tasks {len(found.lasting)} conflict whatever the batch: {pairs}."
        else:
            yield f"In {len(found.looks)} looks no pair of tasks conflicts whatever the batch, beyond what chance would make."


def _noise(found: Diagnosis) -> Iterator[str]:
    noisy = sorted((task for task, own in found.agreement.items() if own < _NOISE), key=lambda task: found.agreement[task])
    if noisy:
        worst = found.agreement[noisy[0]]
        yield (
            f"At this batch size the gradient of {joined(noisy)} is mostly noise: two halves of a batch agree with a mean "
            f"cosine of {_signed(worst)}{' at worst' if len(noisy) > 1 else ''}. Larger batches would see more."
        )


def _learning(found: Diagnosis) -> Iterator[str]:
    said = {"never": "has hardly fallen", "stopped": "fell at first and has stopped falling", "rises": "rises again"}
    for state, words in said.items():
        tasks = [task for task, own in found.learning.items() if own["state"] == state]
        if tasks:
            yield f"Within {found.steps} steps of plain training, the loss of {joined(tasks)} {words}."
    if all(own["state"] == "falls" for own in found.learning.values()):
        yield f"All tasks still learn after {found.steps} steps of plain training."


def _positive(found: Diagnosis) -> Iterator[str]:
    names = [info.name for info in methods() if info.positive_losses]
    if found.positive:
        yield "All losses were positive, so methods that take logarithms or ratios of losses apply."
        return
    bad = [task for task, own in found.losses.items() if own["not_positive"]]
    yield f"The loss of {joined(bad)} is not always positive, so these methods do not apply: {', '.join(names)}."


def _pareto(found: Diagnosis) -> Iterator[str]:
    if len(found.tasks) < 2 or not found.pareto:
        return
    few = max(1, len(found.pareto) // 4)
    end = float(np.mean(found.pareto[-few:]))
    unrelated = len(found.tasks) ** -0.5
    meaning = (
        "hardly any direction helps all tasks at once any more"
        if end < unrelated / 4
        else "there are directions that help all tasks at once"
    )
    yield (
        f"The relative distance from Pareto stationarity was {end:.2f} at the end, where unrelated gradients have "
        f"{unrelated:.2f}: on the batches seen, {meaning}."
    )


def _cost(found: Diagnosis) -> Iterator[str]:
    known = [cost for cost in found.costs if cost["ratio"] is not None]
    if len(known) > 1:
        plain, *others = known
        words = ", ".join(f"{_times(cost['ratio'])} that with {cost['method']} ({cost['kind']})" for cost in others)
        yield f"A step of plain training takes {_number(plain['milliseconds'])} ms, and {words}."
    for cost in found.costs:
        if cost["failure"]:
            yield f"{cost['method'] or cost['kind']} could not be timed: {cost['failure']}"


def _proxy(found: Diagnosis) -> Iterator[str]:
    if not found.proxies:
        return
    good = found.good_proxy()
    lowest = {
        source: min(own["cosine"] for own in found.proxies if own["source"] == source)
        for source in dict.fromkeys(own["source"] for own in found.proxies)
    }
    said = ", ".join(f"{source} {_signed(cosine)}" for source, cosine in lowest.items())
    verdict = (
        f'"@{good}" is the cheapest that can stand in for the exact Gramian'
        if good
        else "none stands in for the exact Gramian (0.90 or more)"
    )
    beside = (
        f"; the exact Gramian of one half of a batch has {_signed(min(found.elsewhere.values()))} on the other"
        if found.elsewhere
        else ""
    )
    yield f"Cosines of the proxies' directions with the exact one: {said}{beside}. So {verdict}."


def _lacking(found: Diagnosis) -> Iterator[str]:
    words = {
        "cut": "Batches could not be cut in two, so pairs of batches were compared instead",
        "halves": "Noise could not be told from conflict",
        "proxies": "Proxies could not be tried",
    }
    for what, why in found.lacking.items():
        yield f"{words[what]}: {why}"


def _advice(found: Diagnosis) -> Iterator[str]:
    norms = mean_norms(found)
    ratio = _extremes(norms)[2] if len(norms) > 1 else 1.0
    stuck = [task for task, own in found.learning.items() if own["state"] in ("never", "rises")]
    reasons = []
    if ratio >= _APART:
        reasons.append("gradients of very different scale")
    if found.lasting:
        reasons.append("tasks in lasting conflict")
    if stuck:
        reasons.append(f"tasks that do not learn ({joined(stuck)})")
    if reasons:
        yield (
            f"{_capital(joined(reasons))} are what balancing can change, and so can fixed weights. Which of them does is for a "
            f"race to say: equipoise advise."
        )
    else:
        yield "Plain training is fine as far as this shows; a race would tell whether anything beats it: equipoise advise."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float) -> str:
    return "infinity" if math.isinf(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _times(ratio: float) -> str:
    return f"{_number(float(f'{ratio:.2g}') if math.isfinite(ratio) else ratio)} times"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
