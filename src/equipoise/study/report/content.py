"""What a report says, before it is laid out: tables, captions and the discrepancy of losses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from equipoise.markdown import escaped
from equipoise.metrics import Metric, Spread, spread
from equipoise.metrics.metric import mean
from equipoise.study.methods import alike
from equipoise.study.report.findings import findings, ranks, worst_task
from equipoise.study.report.proxies import proxy_table
from equipoise.study.report.teleports import teleport_table
from equipoise.study.report.tuned import rate_table, rate_text, weights_text
from equipoise.study.report.words import LEVEL, SideTable, brief, places, verdict
from equipoise.study.results import Discrepancy, Results, discrepancy, final_losses, relative_losses
from equipoise.terminal import printed

__all__ = ["Cell", "Content", "Row", "content", "discrepancy_table"]


def discrepancy_table(results: Results) -> SideTable | None:
    """Mean, standard deviation, smallest and largest loss over the tasks; ``None`` for a single task."""
    if len(results.tasks) < 2 or not results.methods:
        return None
    names = ("mean", "deviation", "min", "max")
    pareto = {method: (results.curve(method, "conflicts", "pareto") or [math.nan])[-1] for method in results.ranking()}
    known = not all(map(math.isnan, pareto.values()))
    columns = ("method", *names, *(f"relative {name}" for name in names), *(["from Pareto stationarity"] if known else []))
    rows = tuple(
        (
            method,
            *_texts(discrepancy(final_losses(results, method))),
            *_texts(discrepancy(relative_losses(results, method))),
            *(["–" if math.isnan(distance) else f"{distance:.3g}"] if known else []),
        )
        for method, distance in pareto.items()
    )
    return SideTable(
        columns,
        rows,
        (
            "Training losses of the last epoch (means over its steps), over the tasks; each number is the mean over seeds. The "
            "deviation is that of the tasks' losses from their mean, not an uncertainty. Relative: each loss over the size of "
            "the task's first loss in the run, which makes tasks of different scale comparable (Table 3 of the LDC-MTL paper)."
            + (
                " From Pareto stationarity: the length of the shortest convex combination of the task gradients, each in units "
                "of its own length, from 0 (stationary) to 1; mean over the last epoch's Gramians, on training batches."
                if known
                else ""
            ),
        ),
    )


def _texts(found: Discrepancy | None) -> tuple[str, ...]:
    if found is None:
        return ("–",) * 4
    return tuple(f"{value:.3g}".replace("-", "−") for value in (found.mean, found.deviation, found.lowest, found.highest))


@dataclass(frozen=True)
class Cell:
    """One entry of the table; ``best`` marks the best mean of its column among the methods."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table: single-task training or a method."""

    name: str
    cells: tuple[Cell, ...]
    verdict: str
    baseline: bool = False


@dataclass(frozen=True)
class Content:
    """The report in words and numbers.

    Attributes:
        title: of the report.
        reference: the method that the others are compared with.
        lead: one or two sentences on the outcome.
        findings: what to know before any mean: collapsed metrics, baselines that have not converged, methods that are one.
        columns: headings of the cells.
        rows: single-task training first, then the methods from the best Δm to the worst.
        notes: how to read the table.
        failures: name of each failed run → file with its traceback, relative to the folder.
        unread: each file of ``runs`` that does not count → why.
        facts: name → value, about how the numbers came about.
        teleports: the table of teleports; ``None`` where no method teleports.
        discrepancy: the table of loss discrepancy; ``None`` for a single task.
        proxies: the table of proxy Gramians; ``None`` where none was audited.
        tuning: the table of learning rates; ``None`` where none were chosen.
    """

    title: str
    reference: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    failures: dict[str, str]
    unread: dict[str, str]
    facts: dict[str, str]
    teleports: SideTable | None = None
    discrepancy: SideTable | None = None
    proxies: SideTable | None = None
    findings: tuple[str, ...] = ()
    tuning: SideTable | None = None

    @property
    def head(self) -> tuple[str, ...]:
        """Headings of the whole table."""
        return ("method", *self.columns, f"Δm against {self.reference}")

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The table's rows in Markdown; what is best in a column is bold."""
        return tuple(
            (
                escaped(row.name),
                *(f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text) for cell in row.cells),
                escaped(row.verdict),
            )
            for row in self.rows
        )


def content(results: Results) -> Content:
    """Gathers what the report of a study says."""
    judged = ("Δm (%) ↓", "worst task Δ (%) ↓", "rank", "mean rank ↓", *(["ms per step"] if _timed(results) else []))
    rate = ["lr"] if results.configuration["lr"] else []
    columns = (*(metric.heading for metric in results.metrics), *judged, "memory (MB)", "seeds", *rate)
    said = Content(
        title=f"{results.problem}: balancing methods compared",
        reference=results.reference,
        lead=_lead(results),
        columns=columns,
        rows=tuple(_rows(results)),
        notes=tuple(_notes(results)),
        failures={key: str(path.relative_to(results.folder.path)) for key, path in results.failures.items()},
        unread={str(path.relative_to(results.folder.path)): why for path, why in results.unread.items()},
        facts=_facts(results),
        teleports=teleport_table(results),
        discrepancy=discrepancy_table(results),
        proxies=proxy_table(results),
        tuning=rate_table(results),
        findings=tuple(findings(results, alike(results.configuration["methods"]))),
    )
    return printed(said)  # names are whatever somebody called things


def _rows(results: Results) -> Iterable[Row]:
    ranking = results.ranking()
    metric_columns = [_metric_column(results, metric, ranking) for metric in results.metrics]
    drops = [_spread_or_none(results.delta_m(method).values()) for method in ranking]
    mean_ranks = results.mean_ranks()
    worst = {method: worst_task(results, method) for method in ranking}
    placed = ranks(results)
    least = min((drop for _, drop in worst.values() if not math.isnan(drop)), default=math.nan)
    seconds = [mean(own) * 1e3 if (own := results.seconds(method)) else math.nan for method in ranking]
    memories = [_memory(results, method) for method in ranking]
    columns = [
        *metric_columns,
        [Cell("0"), *_marked(drops, 1, lowest=True, sign=True)],
        [Cell("0"), *(_worst(*worst[method], least) for method in ranking)],
        [Cell("–"), *(Cell(_places(*placed[method]) if method in placed else "–") for method in ranking)],
        [Cell("–"), *_marked([Spread(mean_ranks[method], math.nan, 1) for method in ranking], 2, lowest=True)],
        *([[Cell("–"), *(Cell("–" if math.isnan(own) else f"{own:.1f}") for own in seconds)]] if _timed(results) else []),
        [Cell("–"), *(Cell("–" if math.isnan(own) else f"{own:.0f}") for own in memories)],
        [Cell(_count(results)), *(Cell(str(len(results.records(method)))) for method in ranking)],
        *([[Cell("–"), *(Cell(rate_text(results, method)) for method in ranking)]] if results.configuration["lr"] else []),
    ]
    comparisons = results.comparisons()
    for position, name in enumerate(("", *ranking)):
        judged = comparisons.get(name)
        role = "baseline" if not position else "reference" if name == results.reference else "–"
        yield Row(
            name if position else "single-task",
            tuple(column[position] for column in columns),
            brief(*judged) if judged else role,
            baseline=not position,
        )


def _metric_column(results: Results, metric: Metric, ranking: tuple[str, ...]) -> list[Cell]:
    baseline = results.baseline().get(metric.name)
    own = [spread(results.values(method, metric).values()) for method in ranking]
    digits = places([one.mean for one in own] + ([baseline.mean] if baseline else []))
    return [Cell(baseline.text(digits) if baseline else "–"), *_marked(own, digits, lowest=not metric.higher_is_better)]


def _marked(values: list[Spread] | list[Spread | None], digits: int, *, lowest: bool, sign: bool = False) -> list[Cell]:
    means = [value.mean for value in values if value and math.isfinite(value.mean)]
    best = (min(means) if lowest else max(means)) if means else math.nan
    return [
        Cell("–") if value is None or math.isnan(value.mean) else Cell(value.text(digits, sign=sign), value.mean == best)
        for value in values
    ]


def _timed(results: Results) -> bool:
    return any(results.seconds(method) for method in results.methods)


def _worst(task: str, drop: float, least: float) -> Cell:
    return Cell("–") if math.isnan(drop) else Cell(f"{drop:+.1f} ({task})".replace("-", "−"), drop == least)


def _places(best: int, worst: int) -> str:
    return str(best) if best == worst else f"{best}–{worst}"


def _spread_or_none(values: Iterable[float]) -> Spread | None:
    own = list(values)
    return spread(own) if own else None


def _memory(results: Results, method: str) -> float:
    known = [record["memory_mb"]["training"] for record in results.records(method).values()]
    return mean(known) if known and None not in known else math.nan


def _count(results: Results) -> str:
    counts = {len(results.baseline_records(task)) for task in results.tasks}
    return str(counts.pop()) if len(counts) == 1 else f"{min(counts)}–{max(counts)}"


def _lead(results: Results) -> str:
    if not results.methods:
        return "No run of a method has finished yet."
    obstacle = results.obstacle()
    if obstacle:
        return f"There is no Δm, because {obstacle}."
    best = results.ranking()[0]
    own = spread(results.delta_m(best).values())
    if math.isnan(own.mean):
        return "No method has a finite Δm."
    drop = f"{abs(own.mean):.1f} % {'worse' if own.mean > 0 else 'better'} than single-task training"
    task, most = worst_task(results, best)
    sentence = f"The lowest mean Δm is that of {best}: {drop} on average over the metrics; "
    sentence += f"its worst task is {task}, {abs(most):.1f} % {'worse' if most > 0 else 'better'}."
    judged = results.comparisons().get(best)
    if judged is None:
        return sentence
    return f"{sentence} It is {verdict(*judged, results.reference)}."


def _notes(results: Results) -> Iterable[str]:
    counts = {len(results.records(method)) for method in results.methods}
    many = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts, default=0))
    plural = "s" if max(counts, default=0) != 1 else ""
    when = (
        f"after the last of {results.epochs} epochs; no epoch was selected"
        if results.reported == "last epoch"
        else f"and the {results.reported}, of {results.epochs}"
    )
    yield (
        f"All metrics are of the test split {when}. "
        f"{many} seed{plural} per method: means ± sample standard deviation over seeds (not a standard error). "
        "Bold: the best mean of a column, which need not be a difference that the seeds support."
    )
    yield (
        "Δm is the mean over metrics of the relative drop against single-task training, whose mean over its seeds is the "
        "baseline; below zero is better than single-task training. The worst task is the one that pays most: its relative "
        "drop, mean over its metrics and seeds. The mean rank is taken over metrics among the methods."
    )
    yield (
        "Rank: by Δm, with every pair of methods tested and corrected after Holm for all pairs; methods not told apart "
        "share the ranks that stand there. That is a stricter question than the comparison with one reference."
    )
    comparisons = results.comparisons()
    if comparisons:
        tested = max(pair.n for pair, _ in comparisons.values())
        if tested < 2:
            yield "One seed per method: nothing can be said about which differences are real. Add seeds."
        else:
            told = [method for method, (_, p) in comparisons.items() if p < LEVEL]
            yield (
                f"Differences in Δm from {results.reference} are tested by a paired t test over up to {tested} common seeds "
                f"(same seed: same initial parameters and order of batches), two-sided, corrected after Holm for "
                f"{len(comparisons)} comparisons, at {LEVEL:.0%}. "
                + (f"Told apart: {', '.join(told)}. " if told else "None is told apart. ")
                + (
                    "With so few seeds only large and consistent differences can be: «not told apart» does not mean "
                    "equal, and methods next to each other in the table should not be ranked."
                    if tested < 10
                    else "«Not told apart» does not mean equal."
                )
            )
    yield (
        "Milliseconds per step: median over the steps of a run, mean over seeds, of the optimizer step alone (forward, "
        "backward, balancing, update), without data loading, evaluation and diagnostics, on one thread, of runs beside which "
        "the study ran no other."
        if _timed(results)
        else "Times are not shown: runs side by side on one machine disturb each other. One job, --jobs 1, measures them."
    )
    yield "Memory is the process's high-water mark during training, with Python and torch in it."


def _facts(results: Results) -> dict[str, str]:
    records = [record for method in results.methods for record in results.records(method).values()]
    records += [record for task in results.tasks for record in results.baseline_records(task).values()]
    facts = {
        "problem": results.problem,
        "tasks": ", ".join(results.tasks),
        "epochs": str(results.epochs),
        "seeds": ", ".join(map(str, results.seeds)),
        "finished runs": str(len(records)),
        "time of all runs added up": f"{sum(record['wall_seconds'] for record in records) / 60:.1f} min",
    }
    for key in ("equipoise", "python", "torch", "numpy", "platform"):
        found = sorted({record["versions"].get(key, "unknown") for record in records})
        facts[key] = ", ".join(found) + (" (mixed: compare with care)" if len(found) > 1 else "")
    if said := weights_text(results):
        facts["tuned weights"] = said
    for key, value in results.configuration["problem"]["options"].items():
        facts[f"option {key}"] = str(value)
    return facts
