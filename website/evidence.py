"""The page of the evidence: what was asked and answered, and every method's numbers side by side, from committed data."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean

from equipoise import markdown
from website.methods import METHODS_PAGES, method_of, rows_of
from website.pages import ROOT, put

__all__ = ["write"]

DATA = ROOT / "docs" / "data"


def write(folder: Path, where: dict[str, str]) -> Path:
    """Writes ``evidence.md``.

    Args:
        folder: of the site's source.
        where: the pages' places, from :func:`website.pages.places`.
    """
    studies = _read("evidence.csv")
    parts = [
        "# The evidence\n\nWhat was measured, with what came of it, good or bad. Each number comes from a committed command; "
        "the pages say how to make it again. Rankings do not carry over from one problem to another: measure on yours."
    ]
    for study in studies:
        page = where[study["page"]]
        parts.append(
            f"## {study['study']}\n\n*{study['question']}* {study['answer']}\n\n```console\n{study['command']}\n```\n\n"
            f"Measured on {study['date']} at commit `{study['commit']}`: [the whole page]({page})."
        )
        if study["page"] == "docs/price.md":
            parts.append("![Δm over the time of training, exact and by proxy](pictures/price.png)")
    parts.append(_side_by_side())
    versions = ", ".join(f"{name} {number}" for name, number in _pinned(("torch", "numpy", "scipy", "scikit-learn")))
    parts.append(f"Versions are those of `constraints.txt`: {versions}.")
    return put(folder / "evidence.md", "\n\n".join(parts) + "\n")


def _side_by_side() -> str:
    """One row per method: digits, QM9 and what a step takes."""
    # A row by proxy counts only where there is no exact one.
    ordered = sorted(rows_of("digits"), key=lambda cells: "@" not in cells["method"])
    digits = {method_of(cells["method"]): cells for cells in ordered}
    proxied = {cells["method"].strip("`"): cells for cells in rows_of("qm9")}
    runs = _read("methods-on-qm9.csv")
    times: dict[str, list[float]] = {}
    for run in runs:
        if run["ms_per_step"]:
            times.setdefault(run["method"], []).append(float(run["ms_per_step"]))
    plain = fmean(times["ls"])
    names = [*dict.fromkeys([*digits, *map(method_of, proxied)])]
    rows = []
    for name in names:
        if name in ("single-task", "tuned-weights"):
            continue
        found = [key for key in (f"{name}@last", name) if key in proxied]
        on_qm9 = proxied[found[0]] if found else {}
        on_digits = digits.get(name, {})
        took = f"{fmean(times[found[0]]) / plain:.1f}×" if found and found[0] in times else "–"
        rows.append(
            [
                f"[`{name}`](methods/{name}.md)",
                on_digits.get("Δm (%) ↓", "–").strip("*"),
                on_digits.get("mean rank ↓", "–").strip("*"),
                on_qm9.get("errors against `ls` (%) ↓", "–").strip("*"),
                on_qm9.get("mean rank ↓", "–").strip("*"),
                f"{took}{' by proxy' if found and found[0].endswith('@last') else ''}",
            ]
        )
    head = ["method", "digits: Δm (%)", "digits: rank", "QM9: errors against `ls` (%)", "QM9: rank", "QM9: time of a step"]
    pages = " and ".join(f"[{name}]({page}.md)" for name, page in METHODS_PAGES.items())
    return (
        f"## Every method side by side\n\nMeans over three seeds; less is better. A click on a column's head sorts. "
        f"From {pages}, with [every run's numbers](data/methods-on-qm9.csv) on QM9.\n\n"
        f"{markdown.table(head, rows, left=1)}"
    )


def _read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _pinned(names: tuple[str, ...]) -> list[tuple[str, str]]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    known = {line[0].strip().lower(): line[1].split()[0].split("+")[0] for line in lines}
    return [(name, known[name]) for name in names if name in known]
