"""What a race says: a recommendation with its confidence, the runner-up, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise.advice.candidates import PLAIN, WEIGHTS
from equipoise.diagnosis.sentences import joined
from equipoise.errors import InputError
from equipoise.metrics import Comparison, Metric, holm, paired_comparison, spread
from equipoise.metrics.metric import mean
from equipoise.metrics.paired import LEVEL
from equipoise.store import of_schema, plain

__all__ = ["Advice", "Entrant", "judged"]

SCHEMA = 1
"""Counts up whenever the meaning of the JSON changes."""

_WORSE = 5.0  # percent that a metric may lose against plain training without being named


@dataclass(frozen=True)
class Entrant:
    """A method of the last rung, with its learning rate, on the seeds that judge.

    Attributes:
        candidate: what it is called in the race.
        label: the method's label.
        method: the method as text, which can be given to a study; empty for one of a user's own.
        rate: multiple of the problem's own learning rates.
        epochs: that it was trained.
        price: what a step costs, over plain training.
        validation: seed → mean relative change of the metrics against plain training (%), on the validation split.
        test: the same on the test split. Against the mean of plain training over the seeds, at its own best learning rate.
        metrics: metric → mean over seeds, on the test split.
    """

    candidate: str
    label: str
    method: str
    rate: float
    epochs: int
    price: float
    validation: Mapping[int, float]
    test: Mapping[int, float]
    metrics: Mapping[str, float]

    @property
    def score(self) -> float:
        """The mean on the validation split; what is not finite comes last."""
        found = mean(self.validation.values())
        return found if math.isfinite(found) else math.inf

    @property
    def change(self) -> float:
        """The mean on the test split."""
        return mean(self.test.values())

    def text(self) -> str:
        """Mean and standard deviation on the test split."""
        found = spread(self.test.values())
        return "–" if math.isnan(found.mean) else found.text(1, sign=True)


@dataclass(frozen=True)
class Advice:
    """What to use on a problem, and how sure that is.

    Attributes:
        problem: its name.
        metrics: how it is judged.
        seeds: that judged.
        epochs: of the last rung.
        lr: the problem's own learning rate, where there is one.
        entrants: of the last rung, from the best on the validation split; the last of them may have had more epochs.
        rungs: of each earlier rung candidate, method, rate, and change against plain training on the validation split.
        left_out: name → why it took no part.
        choice: place of the recommended entrant.
        runner_up: place of the next best; ``None`` if there is none.
        p: place → corrected p-value of its difference from plain training (paired t test over seeds, after Holm).
    """

    problem: str
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    epochs: int
    lr: float | None
    entrants: tuple[Entrant, ...]
    rungs: Sequence[Sequence[Mapping[str, Any]]]
    left_out: Mapping[str, str]
    choice: int
    runner_up: int | None
    p: Mapping[int, float]

    @property
    def recommended(self) -> Entrant:
        """The entrant to use."""
        return self.entrants[self.choice]

    @property
    def plain(self) -> Entrant:
        """Plain training of the last rung."""
        return next(one for one in self.entrants if one.candidate == PLAIN and one.epochs == self.epochs)

    @property
    def keeps_plain(self) -> bool:
        """Whether plain training is to be kept."""
        return self.recommended.candidate == PLAIN

    def confidence(self, other: Entrant) -> float:
        """The probability that the recommended entrant is better than another one, by a one-sided paired t test over the seeds.

        (With a flat prior that is what is believed of the mean difference after the test.) Not a number with one seed.
        """
        pair = _compared(self.recommended, other)
        return 1 - pair.p / 2 if pair.difference < 0 else pair.p / 2

    def rate(self, one: Entrant) -> str:
        """An entrant's learning rate in words."""
        if self.lr is not None:
            return f"lr {self.lr * one.rate:.3g}"
        return "the problem's own lr" if one.rate == 1 else f"{one.rate:g} times the problem's own lr"

    def sentences(self) -> list[str]:
        """The advice in plain sentences."""
        return list(_sentences(self))

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own |= {"metrics": [asdict(one) for one in self.metrics], "entrants": [asdict(one) for one in self.entrants]}
        return plain({"schema": SCHEMA, **own, "sentences": self.sentences()})  # type: ignore[no-any-return]

    @classmethod
    def read(cls, path: str | Path) -> Advice:
        """Reads ``advice.json``.

        Raises:
            InputError: it is none, or of another version.
        """
        with of_schema(path, SCHEMA, "advice") as known:
            same = {name: known[name] for name in ("problem", "seeds", "epochs", "lr", "rungs", "left_out")}
            entrants = [
                Entrant(
                    **one
                    | {split: _by_seed(one[split]) for split in ("validation", "test")}
                    | {"metrics": {name: math.nan if value is None else value for name, value in one["metrics"].items()}}
                )
                for one in known["entrants"]
            ]
            return judged(**same, metrics=[Metric(**one) for one in known["metrics"]], entrants=entrants)


def _by_seed(values: Mapping[str, float | None]) -> dict[int, float]:
    return {int(seed): math.nan if value is None else value for seed, value in values.items()}


def judged(
    *,
    problem: str,
    metrics: Sequence[Metric],
    seeds: Sequence[int],
    epochs: int,
    lr: float | None,
    entrants: Sequence[Entrant],
    rungs: Sequence[Sequence[Mapping[str, Any]]],
    left_out: Mapping[str, str],
) -> Advice:
    """Chooses among the entrants of the last rung.

    The choice is the best on the validation split among those that are told apart from plain training, to the better, on the
    test split; plain training if none is. Where plain training or fixed weights, trained for the time that the choice takes,
    come out no worse in the mean on the test split, they are the choice: they are simpler.

    Raises:
        InputError: plain training is not among them.
    """
    order = sorted(entrants, key=lambda one: (one.epochs != epochs, one.score))
    try:
        base = next(place for place, one in enumerate(order) if one.candidate == PLAIN and one.epochs == epochs)
    except StopIteration:
        raise InputError("plain training is not among the entrants") from None
    pairs = {place: _compared(one, order[base]) for place, one in enumerate(order) if place != base}
    p = holm({str(place): pair.p for place, pair in pairs.items()})
    corrected = {int(place): value for place, value in p.items()}
    usual = [place for place, one in enumerate(order) if one.epochs == epochs]
    told = [place for place in usual if place != base and corrected[place] < LEVEL and pairs[place].difference < 0]
    choice = told[0] if told else base
    longer = [place for place in range(len(order)) if place not in usual and order[place].change <= order[choice].change]
    if told and longer:
        choice = min(longer, key=lambda place: (order[place].candidate != PLAIN, order[place].change))
    others = [place for place in usual if order[place].candidate != order[choice].candidate]
    return Advice(
        problem,
        tuple(metrics),
        tuple(seeds),
        epochs,
        lr,
        tuple(order),
        rungs,
        dict(left_out),
        choice,
        others[0] if others else None,
        corrected,
    )


def _compared(one: Entrant, other: Entrant) -> Comparison:
    common = [seed for seed in one.test if seed in other.test]
    if not common:
        return Comparison(math.nan, math.nan, 0, math.nan)
    return paired_comparison([one.test[seed] for seed in common], [other.test[seed] for seed in common])


def _sentences(said: Advice) -> list[str]:
    best, base = said.recommended, said.plain
    seeds = f"{len(said.seeds)} seed{'s' * (len(said.seeds) != 1)} that chose nothing"
    found = []
    if said.keeps_plain:
        found.append(f"Keep plain training (the sum of the losses), with {said.rate(best)}{_epochs(said, best)}.")
        if best.epochs != said.epochs:
            found.append("That is longer training for the time that the best method takes, which came out no worse.")
        else:
            found.append(_nothing(said, seeds))
    else:
        name = f"{best.method or best.label}" if best.candidate != WEIGHTS else f"{best.label} ({best.method})"
        found.append(f"Use {name} with {said.rate(best)}{_epochs(said, best)}.")
        if best.epochs != said.epochs:
            found.append("These are fixed weights, trained for the time that the best method takes, which came out no worse.")
        found.append(
            f"Its metrics change by {best.text()} % on average against plain training with {said.rate(base)} (below zero "
            f"is better; test split, {seeds}, p = {_p(said.p.get(said.choice, math.nan))}), "
            f"and it is better with a probability of {_share(said.confidence(base))}."
        )
        worse = _worse(said, best)
        if worse:
            found.append(f"It loses on {joined(worse)}.")
    if said.runner_up is not None:
        other = said.entrants[said.runner_up]
        sure = said.confidence(other)
        apart = "" if math.isnan(sure) else f"; the probability that it is the better one is {_share(1 - sure)}"
        found.append(f"Runner-up: {other.label} with {said.rate(other)}, {other.text()} %{apart}.")
    found += _costs(said)
    tried = [one["rate"] for one in said.rungs[0]]
    if best.rate in (min(tried), max(tried)) and len(set(tried)) > 1:
        found.append(
            "Its learning rate is at the edge of those that were tried: the best may lie beyond. Try more with --rates."
        )
    found += [f"Left out: {name}, because {why}." for name, why in said.left_out.items()]
    if failed := len(said.seeds) - len(base.test):
        found.append(f"Plain training failed on {failed} of the seeds, on which it was compared with nothing.")
    if len(said.seeds) < 3:
        found.append("With so few seeds nothing but the largest differences can be told apart; give more.")
    return found


def _nothing(said: Advice, seeds: str) -> str:
    usual = [place for place, one in enumerate(said.entrants) if one.epochs == said.epochs and one.candidate != PLAIN]
    if not usual:
        return "Nothing else came through the race."
    best = said.entrants[usual[0]]
    if said.entrants[0].candidate == PLAIN and best.change >= 0:
        return f"Nothing beats it on {seeds}: the next best is {best.label}, {best.text()} % against it."
    return (
        f"Nothing is told apart from it on {seeds}: the best of the others is {best.label}, {best.text()} % against it "
        f"(below zero is better; p = {_p(said.p[usual[0]])}). More seeds might tell them apart."
    )


def _costs(said: Advice) -> list[str]:
    best = said.recommended
    found = []
    if best.epochs == said.epochs and best.candidate not in (PLAIN, WEIGHTS):
        found.append(f"A step with it takes {best.price:.2g} times that of plain training.")
    for one in said.entrants:
        if one.epochs != said.epochs and one is not best:
            verdict = "no better" if one.change > best.change else "no worse"
            what = "Plain training" if one.candidate == PLAIN else f"{one.label[:1].upper()}{one.label[1:]}"
            found.append(f"{what} for the time of the best method ({one.epochs} epochs): {one.text()} %, {verdict}.")
    return found


def _worse(said: Advice, best: Entrant) -> list[str]:
    """Metrics on which an entrant is clearly behind plain training."""
    found = []
    for metric in said.metrics:
        own, base = best.metrics[metric.name], said.plain.metrics[metric.name]
        if math.isfinite(own) and math.isfinite(base) and base:
            loss = 100 * (base - own if metric.higher_is_better else own - base) / abs(base)
            if loss > _WORSE:
                found.append(f"{metric.label} ({own:.3g} in place of {base:.3g})")
    return found


def _epochs(said: Advice, one: Entrant) -> str:
    return "" if one.epochs == said.epochs else f" for {one.epochs} epochs in place of {said.epochs}"


def _p(value: float) -> str:
    return "unknown" if math.isnan(value) else "0.001 or less" if value <= 0.001 else f"{value:.2g}"


def _share(value: float) -> str:
    if math.isnan(value):
        return "unknown (one seed)"
    if not 0.001 <= value <= 0.999:
        return "over 99.9 %" if value > 0.5 else "below 0.1 %"
    return f"{100 * value:.{2 if value < 0.99 else 3}g} %"
