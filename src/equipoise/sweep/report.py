"""The report of a sweep: terminal, Markdown and HTML."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from equipoise.metrics import Comparison, Metric, holm, paired_comparison, spread
from equipoise.study.pictures import Picture
from equipoise.study.report.paper import latex_table, write_paper
from equipoise.study.report.words import LEVEL, brief, places
from equipoise.study.report.write import drawn, render
from equipoise.sweep.dimensions import Range, read_dimension
from equipoise.sweep.front import Verdict, judge
from equipoise.sweep.outcome import Outcome
from equipoise.sweep.picture import front_picture
from equipoise.terminal import printed

__all__ = ["SweepContent", "Table", "content", "print_outcome", "sweep_paper", "verdicts", "write_report"]

_EDGE = 0.05  # of the range, on its own scale


@dataclass(frozen=True)
class Table:
    """A table: headings, and rows with one text per heading; the first column holds names.

    Attributes:
        title: what it shows.
        columns: the headings.
        rows: the texts.
        notes: how to read it.
        narrow: positions of the columns that are shown where there is no room for all.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    narrow: tuple[int, ...]


@dataclass(frozen=True)
class SweepContent:
    """The report in words and numbers."""

    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    failures: dict[str, str]
    unread: dict[str, str]
    facts: dict[str, str]


def content(outcome: Outcome) -> SweepContent:
    """Gathers what the report of a sweep says."""
    if not outcome.confirmed and not outcome.also_trials():
        lead: tuple[str, ...] = ("No trial has been confirmed yet; start the sweep again to continue.",)
        tables: tuple[Table, ...] = ()
    else:
        lead = tuple(_lead(outcome))
        tables = (_methods(outcome), _trials(outcome))
    failed = {trial.label: trial for trial in outcome.trials if trial.state == "failed"}
    failures = {key: str(path) for key, path in outcome.results.failures.items()}
    failures |= {label: str(outcome.folder.trials / "failed") for label in failed}
    said = SweepContent(
        f"{outcome.results.problem}: {outcome.settings['method']} swept, against other methods",
        lead,
        tables,
        failures,
        {str(path): why for path, why in (outcome.results.unread | outcome.unread).items()},
        _facts(outcome),
    )
    return printed(said)  # names are whatever somebody called things


def verdicts(outcome: Outcome, metrics: Sequence[Metric]) -> dict[str, Verdict]:
    """Method → how it stands against the confirmed trials, on some metrics of the test split."""
    trials = {label: outcome.drops(label, metrics) for label in (*outcome.confirmed, *outcome.also_trials())}
    return {
        method: judge(outcome.drops(method, metrics), {label: own for label, own in trials.items() if label != method})
        for method in outcome.methods
    }


def _comparisons(outcome: Outcome) -> dict[str, tuple[Comparison, float]]:
    """Each method's Δm minus that of the sweep's best trial, paired by seed, corrected after Holm."""
    best = outcome.best()
    own = outcome.delta_m(best) if best else {}
    pairs = {}
    for method in outcome.methods:
        theirs = outcome.delta_m(method)
        common = [seed for seed in theirs if seed in own]
        if method != best and common:
            pairs[method] = paired_comparison([theirs[seed] for seed in common], [own[seed] for seed in common])
    corrected = holm({method: pair.p for method, pair in pairs.items()})
    return {method: (pair, corrected[method]) for method, pair in pairs.items()}


def _lead(outcome: Outcome) -> Iterable[str]:
    two = " and ".join(metric.label for metric in outcome.front)
    best = outcome.best()
    drops = outcome.delta_m(best)
    if best and drops:
        setting = f" ({best})" if best in outcome.confirmed else ""
        yield (
            f"The sweep's choice, the best by {_plain(outcome.objectives[0].heading)} on the validation split over the seeds, "
            f"is {outcome.name(best)}{setting}: Δm {spread(drops.values()).text(1, sign=True)} % on the test split."
        )
        yield from _at_an_edge(outcome, best)
    judged = verdicts(outcome, outcome.front)
    names = {
        "Dominated": [method for method, own in judged.items() if own.dominated],
        "Dominated in the mean, but not on every seed": [m for m, own in judged.items() if own.mean and not own.dominated],
        "Not dominated": [method for method, own in judged.items() if not own.mean],
    }
    said = "; ".join(f"{words}: {', '.join(own)}" for words, own in names.items() if own)
    yield f"On {two}, by one confirmed trial of the sweep. {said or 'No methods were compared'}."
    compared = _comparisons(outcome)
    if any(pair.n > 1 for pair, _ in compared.values()):
        for words, sign in (("better", -1), ("worse", 1)):
            told = [m for m, (pair, p) in compared.items() if p < LEVEL and math.copysign(1, pair.difference) == sign]
            if told:
                yield f"In Δm {words} than the sweep's choice, as far as the seeds can tell: {', '.join(told)}."
        rest = [method for method, (_, p) in compared.items() if not p < LEVEL]
        if rest:
            yield f"In Δm not told apart from the sweep's choice: {', '.join(rest)}."


def _at_an_edge(outcome: Outcome, label: str) -> Iterable[str]:
    """Says where a trial lies at the edge of what was swept: the best may lie beyond."""
    trial = next(trial for trial in outcome.trials if trial.label == label)
    own = {name: value for name, value in trial.parameters.items() if isinstance(value, int | float)}
    edges = []
    for option, written in outcome.settings["swept"].items():
        if written == "dirichlet" or "|" in written:
            continue
        swept = read_dimension(option, written)
        if not isinstance(swept, Range):
            continue
        place = _logarithm if swept.log else float
        extent = place(swept.high) - place(swept.low)
        if option in own:
            if min(place(own[option]) - place(swept.low), place(swept.high) - place(own[option])) < _EDGE * extent:
                edges.append(option)
        else:  # weights: what counts is their ratio
            sizes = [place(value) for name, value in own.items() if name.startswith(f"{option}.")]
            if sizes and max(sizes) - min(sizes) > (1 - _EDGE) * extent:
                edges.append(option)
    if edges:
        yield f"It lies at the edge of the range of {', '.join(edges)}: the best may lie beyond. Sweep a wider range."


def _logarithm(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _methods(outcome: Outcome) -> Table:
    metrics = outcome.results.metrics
    two, every = verdicts(outcome, outcome.front), verdicts(outcome, metrics)
    compared = _comparisons(outcome)
    sweep = (*outcome.confirmed, *outcome.also_trials())
    volume = outcome.volume(sweep)
    order = sorted(outcome.methods, key=lambda method: _order(outcome.delta_m(method).values()))
    digits = {metric: _digits(outcome, metric) for metric in outcome.front}
    rows = []
    for method in order:
        added = outcome.volume((*sweep, method)) - volume
        judged = compared.get(method)
        rows.append(
            (
                method,
                *(_value(outcome, method, metric, digits[metric]) for metric in outcome.front),
                _spread(outcome.delta_m(method).values(), 1),
                f"{_signed(judged[0].difference)} ({brief(*judged)})" if judged else "the choice",
                two[method].words(outcome.name(two[method].by) if two[method].by else ""),
                every[method].words(outcome.name(every[method].by) if every[method].by else "") if len(metrics) > 2 else "",
                f"{outcome.volume([method]):.3f}",
                f"{added:.3f}",
            )
        )
    ideal, reference = outcome.box()
    corner, best = (
        ", ".join(f"{metric.label} {_signed(value)} %" for metric, value in zip(outcome.front, point, strict=True))
        for point in (reference, ideal)
    )
    names = ("Δm (%) ↓", "Δm against the sweep's choice", "dominated on these two", "dominated on all metrics")
    columns = ("method", *(metric.heading for metric in outcome.front), *names, "hypervolume", "adds to the sweep's")
    kept = [place for place in range(len(columns)) if len(metrics) > 2 or columns[place] != "dominated on all metrics"]
    together = outcome.volume(outcome.methods)
    return Table(
        "Methods against the sweep",
        tuple(columns[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in rows),
        (
            "Test split, last epoch, "
            f"{len(outcome.seeds)} seeds that the search never saw: mean ± sample standard deviation. "
            "Dominated: nowhere worse and somewhere better than the method, on the same seed; yes only if one confirmed trial "
            "is so on every seed and in the mean. That any one of "
            f"{len(sweep)} confirmed trials does it counts, so by chance the sweep has that many tries.",
            "Δm against the sweep's choice: mean difference in percentage points, above zero is worse than the sweep; paired "
            f"by seed, two-sided t test, corrected after Holm, {len(compared)} comparison{'s' * (len(compared) != 1)}.",
            "Hypervolume: of the mean points in the plane of the two metrics, each as its drop against single-task training, "
            f"as a share of the box between the best value of each metric ({best}) and the reference point ({corner}), "
            "which lies a tenth beyond the worst. "
            f"The confirmed trials reach {volume:.3f} together, the compared methods {together:.3f} together; several points "
            "cover more than one, so do not compare a single method's number with a front's. «Adds»: how much a method "
            "adds to the sweep's front; 0 if it is dominated by the front.",
            "The swept method was tuned with "
            f"{sum(trial.state != 'running' for trial in outcome.trials)} trials; the compared methods were taken as they are.",
        ),
        (0, 3, 4, 5),
    )


def _trials(outcome: Outcome) -> Table:
    by_number = {trial.number: trial for trial in outcome.trials}
    labels = {**outcome.confirmed, **{label: _number(outcome, label) for label in outcome.also_trials()}}
    over = {label: [m for m, own in verdicts(outcome, outcome.front).items() if label in own.over] for label in labels}
    digits = {metric: _digits(outcome, metric) for metric in outcome.results.metrics}
    best = outcome.best()
    columns = 6 + len(digits)
    rows = []
    for label in sorted(labels, key=lambda label: _order(outcome.delta_m(label).values())):
        trial = by_number[labels[label]]
        rows.append(
            (
                f"#{labels[label]}{' (the choice)' * (label == best)}",
                label,
                ", ".join(f"{value:.4g}".replace("-", "−") for value in trial.values),
                f"{outcome.validation(label):.4g}".replace("-", "−"),
                *(_value(outcome, label, metric, digits[metric]) for metric in outcome.results.metrics),
                _spread(outcome.delta_m(label).values(), 1),
                ", ".join(over[label]) or "–",
            )
        )
    objectives = ", ".join(_plain(own.heading) for own in outcome.objectives)
    states = Counter(trial.state for trial in outcome.trials)
    complete = [trial for trial in outcome.trials if trial.state == "complete"]
    return Table(
        "Confirmed trials",
        (
            "trial",
            "method",
            "in the search",
            "over the seeds",
            *(metric.heading for metric in outcome.results.metrics),
            "Δm (%) ↓",
            "its mean is dominated by",
        ),
        tuple(rows),
        (
            f"Chosen among {len(complete)} complete trials ("
            + ", ".join(f"{count} {state}" for state, count in states.items())
            + f") by the validation split on seed {outcome.settings['seed']}, then trained again on the seeds of the methods: "
            "the best by the first objective, then those that span the validation Pareto front. "
            f"«In the search»: {objectives} on the validation split there; «over the seeds»: the first objective on the "
            "validation split, mean over the seeds that judge (both against the same baseline, so a difference that all trials "
            "share is that of the seeds; where a trial loses its lead, the search was lucky). All other columns: test split.",
        ),
        (0, 1, columns - 2, columns - 1),
    )


def _facts(outcome: Outcome) -> dict[str, str]:
    settings = outcome.settings
    swept = ", ".join(f"{option} over {written}" for option, written in settings["swept"].items())
    seconds = [
        record["wall_seconds"] for label in outcome.results.methods for record in outcome.results.records(label).values()
    ]
    return {
        "swept": swept,
        "objectives": ", ".join(_plain(own.heading) for own in outcome.objectives) + " (validation split)",
        "sampler, pruner": f"{settings['sampler']}, {settings['pruner']}",
        "trials": str(len(outcome.trials)),
        "seed of the search": str(settings["seed"]),
        "seeds that judge": ", ".join(map(str, outcome.seeds)),
        "epochs": str(outcome.results.epochs),
        "mean time of a confirming or compared run": f"{spread(seconds).mean:.1f} s" if seconds else "–",
        "study": str(outcome.results.folder.path),
    }


def _number(outcome: Outcome, label: str) -> int:
    return next(trial.number for trial in outcome.trials if trial.label == label)


def _digits(outcome: Outcome, metric: Metric) -> int:
    labels = (*outcome.confirmed, *outcome.methods)
    return places(spread(outcome.results.values(label, metric).values()).mean for label in labels)


def _value(outcome: Outcome, label: str, metric: Metric, digits: int) -> str:
    values = outcome.results.values(label, metric)
    own = [value for seed, value in values.items() if seed in outcome.seeds]
    return _spread(own, digits, sign=False)


def _spread(values: Iterable[float], digits: int, *, sign: bool = True) -> str:
    own = list(values)
    mean = spread(own) if own else None
    return "–" if mean is None or math.isnan(mean.mean) else mean.text(digits, sign=sign)


def _order(values: Iterable[float]) -> float:
    own = list(values)
    mean = spread(own).mean if own else math.nan
    return math.inf if math.isnan(mean) else mean


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _plain(heading: str) -> str:
    return heading.rstrip(" ↑↓")


_WIDE = 160  # characters that the whole tables need


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Prints what the sweep found; the notes on how to read it are in the report."""
    said = content(outcome)
    console.print()
    console.print(Text(said.title, style="bold"))
    for sentence in said.lead:
        console.print(Text(sentence))
    for table in said.tables:
        console.print()
        console.print(_table(table, console.width))
    for key, path in said.failures.items():
        console.print(Text(f"failed: {key}, see {path}", style="red"), soft_wrap=True)
    for file, why in said.unread.items():
        console.print(Text(f"does not count: {file}: {why}", style="red"), soft_wrap=True)


def _table(table: Table, width: int) -> RichTable:
    shown_columns = table.narrow if width < _WIDE else tuple(range(len(table.columns)))
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(table.title), title_justify="left")
    for place in shown_columns:
        shown.add_column(Text(table.columns[place]), overflow="fold", justify="left" if place == 0 else "right")
    for row in table.rows:
        shown.add_row(*(Text(row[place]) for place in shown_columns))
    return shown


_PICTURES = (
    Picture(
        "front",
        "Pareto front",
        "Test split, last epoch. Crosses: trials of the search, on the search's seed. Squares with a number: trials that were "
        "trained again on fresh seeds, mean over seeds; the line joins those that no other one dominates, and what lies behind "
        "it is dominated by the sweep. Circles: the compared methods, mean over seeds. Small marks of "
        "the same colour: the seeds. Dotted: single-task training.",
        front_picture,
    ),
)


def sweep_paper(outcome: Outcome) -> Path:
    """Writes the picture and tables of a sweep for a paper; see :func:`~equipoise.study.report.paper.write_paper`."""
    tables = {
        name: latex_table(own.columns, own.rows, own.notes)
        for name, own in zip(("results", "trials"), content(outcome).tables, strict=False)
    }
    return write_paper(outcome.folder.path, _PICTURES, outcome, tables)


def write_report(outcome: Outcome) -> tuple[Path, Path]:
    """Writes the report into the sweep's folder.

    Returns:
        Paths of ``report.md`` and of ``report.html``, which holds its picture and needs no other file.
    """
    folder = outcome.folder.path
    pictures = drawn(_PICTURES, outcome, folder)
    return render("sweep", folder, package="equipoise.sweep", said=content(outcome), pictures=pictures)
