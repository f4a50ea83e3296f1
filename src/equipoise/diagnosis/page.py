"""The page of a diagnosis: sentences, tables and pictures, and the JSON beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from equipoise.diagnosis.sentences import mean_norms
from equipoise.diagnosis.summary import Diagnosis
from equipoise.progress import duration
from equipoise.store import write_json
from equipoise.study.names import shortened
from equipoise.study.pictures import Picture
from equipoise.study.pictures.style import COLORS, GREY, INK, STYLES, grid, label_ends, log_scale, names_axis, single
from equipoise.study.report.paper import latex_table, write_paper
from equipoise.study.report.words import SideTable
from equipoise.study.report.write import drawn, render
from equipoise.terminal import printed

__all__ = ["Said", "diagnosis_paper", "print_diagnosis", "print_said", "render_said", "tables_of", "write_page"]


@dataclass(frozen=True)
class Said:
    """What a page says, before it is laid out; tables by their titles."""

    title: str
    lead: str
    sentences: tuple[str, ...]
    tables: dict[str, SideTable]
    facts: dict[str, str]


def write_page(found: Diagnosis, folder: Path) -> tuple[Path, Path]:
    """Writes ``diagnosis.json``, ``report.md``, ``report.html`` and the pictures."""
    write_json(folder / "diagnosis.json", found.as_json())
    return render_said(_said(found), folder, drawn(_PICTURES, found, folder))


def diagnosis_paper(found: Diagnosis, folder: Path) -> Path:
    """Writes pictures and tables for a paper; see :func:`~equipoise.study.report.paper.write_paper`."""
    return write_paper(folder, _PICTURES, found, tables_of(_said(found)))


def tables_of(said: Said) -> dict[str, str]:
    """The tables of a page in LaTeX, by the names of their files."""
    return {
        title.lower().replace(" ", "_"): latex_table(own.columns, own.rows, own.notes) for title, own in said.tables.items()
    }


def render_said(said: Said, folder: Path, pictures: list[Any]) -> tuple[Path, Path]:
    """Lays a page out as Markdown and HTML."""
    return render("page", folder, package="equipoise.diagnosis", said=said, pictures=pictures)


def print_diagnosis(found: Diagnosis, console: Console) -> None:
    """Prints what was found: the sentences, and what tasks and steps are like."""
    print_said(_said(found), console)


def print_said(said: Said, console: Console) -> None:
    """Prints a page without its pictures; notes on how to read the tables are left to the page."""
    console.print()
    console.print(Text(said.title, style="bold"))
    console.print(Text(said.lead))
    for sentence in said.sentences:
        console.print(Text(f"• {sentence}"))
    for title, table in said.tables.items():
        shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(title), title_justify="left")
        for place, column in enumerate(table.columns):
            shown.add_column(Text(column), overflow="fold", justify="right" if place else "left")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(shown)


def _said(found: Diagnosis) -> Said:
    facts = {
        "problem": found.name,
        "tasks": ", ".join(found.tasks),
        "steps": f"{found.steps} of plain training, {found.optimizer}",
        "looks at gradients": f"{len(found.looks)}, after steps {', '.join(map(str, found.looks[:3]))} … {found.looks[-1]}",
        "parameters": f"{found.parameters['shared']:,} shared by tasks, {found.parameters['all']:,} in all",
        "device": found.device,
        "time": duration(found.seconds),
    }
    tables = {"Tasks": _tasks(found), "What a step costs": _costs(found), "How good proxies are": _proxies(found)}
    tables = {title: table for title, table in tables.items() if table.rows}
    lead = (
        f"What {len(found.tasks)} tasks did to each other in {found.steps} steps of plain training on the model's own batches."
    )
    return printed(Said(f"{found.name}: diagnosis", lead, tuple(found.sentences()), tables, facts))


def _tasks(found: Diagnosis) -> SideTable:
    words = {
        "falls": "falls",
        "stopped": "has stopped",
        "never": "has hardly fallen",
        "rises": "rises again",
        "unknown": "too short",
    }
    norms = mean_norms(found)
    rows = []
    for task in found.tasks:
        own = found.losses[task]
        rows.append(
            (
                task,
                _text(own["first"], ".4g"),
                _text(own["last"], ".4g"),
                words[found.learning[task]["state"]],
                "yes" if not own["not_positive"] else f"not in {own['not_positive']} steps",
                _text(norms.get(task), ".3g"),
                _text(found.shares[task], ".1%"),
                _text(found.agreement.get(task), ".2f"),
            )
        )
    return SideTable(
        (
            "task",
            "loss at first",
            "loss at last",
            "loss",
            "positive",
            "gradient's norm",
            "share of the mean gradient",
            "halves agree",
        ),
        tuple(rows),
        (
            "Losses: means over the first and the last tenth of the steps. «Has stopped»: the last quarter of the steps lies "
            "no lower than the quarter before, within two standard errors, or lower by less than a twentieth of the whole "
            "fall. «Has hardly fallen»: no lower than the first tenth, or by less than a hundredth.",
            "Gradient's norm: of the shared parameters, mean over the looks. Share of the mean gradient: "
            "⟨g_k, g_0⟩ / (K ‖g_0‖²), mean over the looks; they add up to 100 %, and the mean works against a task whose "
            "share is below 0.",
            "Halves agree: mean cosine between the task's gradients on the two halves of a batch. 1: no noise; 0: all noise.",
        ),
    )


def _costs(found: Diagnosis) -> SideTable:
    memory = any(cost["memory_mb"] is not None for cost in found.costs)
    rows = [
        (
            cost["kind"],
            cost["method"] or "–",
            _text(cost["milliseconds"], ".3g"),
            _text(cost["ratio"], ".2f") + ("×" if cost["ratio"] is not None else ""),
            *([_text(cost["memory_mb"], ".0f")] if memory else []),
        )
        for cost in found.costs
    ]
    return SideTable(
        ("looks at", "timed with", "ms per step", "over plain training", *(["GPU memory (MB)"] if memory else [])),
        tuple(rows),
        ("Medians of steps taken in turn on the same batches: forward, backward, balancing and update.",),
    )


def _proxies(found: Diagnosis) -> SideTable:
    rows = [(own["source"], own["method"], _text(own["cosine"], ".3f"), _text(own["lowest"], ".3f")) for own in found.proxies]
    rows += [("exact, on the other half", method, _text(cosine, ".3f"), "–") for method, cosine in found.elsewhere.items()]
    return SideTable(
        ("proxy", "method", "mean cosine", "lowest"),
        tuple(rows),
        (
            "Cosine between the direction with the proxy's weights and the exact Gramian's, on the same batch. The last lines "
            "are a measure of what matters: weights from the exact Gramian of one half of a batch, judged on the other half.",
        ),
    )


def _text(value: float | None, form: str) -> str:
    """A number as a reader should see it; zero has no sign."""
    if value is None or not math.isfinite(value):
        return "–"
    text = format(value, form)
    return (text if any(sign in "123456789" for sign in text.partition("e")[0]) else text.lstrip("-")).replace("-", "−")


_NAMED = 12  # more tasks than that get thin lines, and only the outermost a name


def _curves(axes: Axes, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """A line per task with its name behind it; logarithmic if everything is above 0."""
    few = len(curves) <= _NAMED
    last = {task: values[-1] for task, (_, values) in curves.items()}
    ends = []
    for place, (task, (steps, values)) in enumerate(curves.items()):
        named = few or task in (max(last, key=last.__getitem__), min(last, key=last.__getitem__))
        color = COLORS[place % len(COLORS)] if named else GREY
        style = STYLES[place // len(COLORS) % len(STYLES)] if few else "-"
        axes.plot(steps, values, color=color, linestyle=style, linewidth=1.8 if named else 0.8, zorder=3 if named else 2)
        if named:
            ends.append((values[-1], shortened(task, 24), color))
    if all(value > 0 for _, values in curves.values() for value in values):
        log_scale(axes)
    axes.margins(x=0)
    axes.set_xlabel("step")
    label_ends(axes, ends, panel=2.6)


def _losses_picture(found: Diagnosis) -> Figure | None:
    curves = {}
    for task, own in found.losses.items():
        steps, values = zip(*own["curve"], strict=True) if own["curve"] else ((), ())
        if len(values) > 1 and own["first"]:
            curves[task] = (list(steps), [value / abs(own["first"]) for value in values])
    return _lines(curves, "loss over first loss")


def _norms_picture(found: Diagnosis) -> Figure | None:
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for task, own in found.norms.items():
        known = [(step, norm) for step, norm in zip(found.looks, own, strict=True) if norm is not None]
        if len(known) > 1:
            curves[task] = ([step for step, _ in known], [norm for _, norm in known])
    return _lines(curves, "norm of the gradient")


def _lines(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], quantity: str) -> Figure | None:
    if not curves:
        return None
    figure, axes = single(7.5, 3.4)
    axes.set_ylabel(quantity)
    _curves(axes, curves)
    return figure


_WRITTEN = 12  # up to so many tasks the numbers stand in the fields
_LABELLED = 45  # up to so many the names stand beside them


def _cosines_picture(found: Diagnosis) -> Figure | None:
    if len(found.tasks) < 2:
        return None
    matrix = np.array([[np.nan if value is None else value for value in row] for row in found.cosines], dtype=np.float64)
    count = len(matrix)
    size = min(7.5, max(4.0, 1.6 + 0.48 * count))
    figure, axes = single(size + 0.6, size)
    image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu")
    axes.grid(False)
    if count <= _LABELLED:
        names = [shortened(task, 16) for task in found.tasks]
        font = 9 if count <= 20 else 6
        axes.set_xticks(range(count), names, rotation=90, fontsize=font)
        axes.set_yticks(range(count), names, fontsize=font)
    if count <= _WRITTEN:
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                color = "white" if abs(value) > 0.6 else INK
                axes.text(column, row, _text(float(value), ".2f"), ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    return figure


def _conflict_picture(found: Diagnosis) -> Figure | None:
    if len(found.tasks) < 2 or not found.agreement:
        return None
    shares = {
        "pairs of tasks, on different halves": found.conflicts.get("pairs", math.nan),
        "a task and itself, on different halves (noise)": found.conflicts["floor"],
        "task gradients against the mean": found.conflicts["with_mean"],
        "… on both halves of a batch": found.conflicts["both_halves"],
    }
    figure, (axes, distance) = grid(2, columns=1, width=7.5, height=1.9)
    names_axis(axes, list(shares))
    for place, share in enumerate(shares.values()):
        if math.isfinite(share):
            axes.barh(place, 100 * share, height=0.5, color=COLORS[1 if place == 1 else 0], zorder=3)
            axes.text(100 * share + 1, place, f"{share:.0%}", va="center", fontsize=9, color=INK)
    axes.set_xlim(0, 108)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("share in conflict (%); unrelated gradients would have 50")
    distance.plot(found.looks, found.pareto, color=COLORS[0], marker="o", markersize=3, linewidth=1.5, zorder=3)
    distance.axhline(len(found.tasks) ** -0.5, color=GREY, linestyle="--", linewidth=1.2)
    distance.set_ylim(0, 1)
    distance.set_xlabel("step (dashed: unrelated gradients)")
    distance.set_ylabel("from Pareto\nstationarity")
    return figure


_PICTURES: tuple[Picture[Diagnosis], ...] = (
    Picture(
        "losses",
        "Losses",
        "Each task's loss over its first one (mean over the first tenth of the steps), means over stretches of steps.",
        _losses_picture,
    ),
    Picture(
        "norms",
        "Gradient norms",
        "Norm of each task's gradient of the shared parameters, on single batches. What lies higher decides where plain "
        "training goes.",
        _norms_picture,
    ),
    Picture(
        "cosines",
        "Cosines between task gradients",
        "Means over the looks, on whole batches. Red: in conflict. Noise draws cosines towards 0.",
        _cosines_picture,
    ),
    Picture(
        "conflicts",
        "Conflict, noise, and distance from Pareto stationarity",
        "Above: how often gradients have a negative inner product. Below: relative distance from Pareto stationarity in each "
        "look, 0 where some convex combination of the gradients vanishes, 1 where all point the same way.",
        _conflict_picture,
    ),
)
