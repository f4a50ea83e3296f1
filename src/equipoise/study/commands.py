"""The commands of the command line; :mod:`equipoise.cli` is the way in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from equipoise.balance.mixins import OnFeatures
from equipoise.balance.registry import methods as registered
from equipoise.bilevel.applications.commands import app as examples
from equipoise.data.commands import app as data
from equipoise.figures.commands import app as figures
from equipoise.reproduce.commands import reproduce
from equipoise.study.plan import parse_seeds
from equipoise.study.problems import find_problem
from equipoise.study.report import print_methods, print_results, write_report
from equipoise.study.results import Results
from equipoise.study.study import Study
from equipoise.study.task_weights import task_weights
from equipoise.sweep.commands import show as show_sweep
from equipoise.sweep.commands import sweep
from equipoise.version import __version__

__all__ = ["app"]

app = typer.Typer(
    help="Train one PyTorch model on many tasks and keep the tasks in balance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(figures, name="figure")
app.add_typer(examples, name="example")
app.add_typer(data, name="data")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"equipoise {__version__}")
        raise typer.Exit


@app.command("study")
def _study(
    problem: Annotated[
        str,
        typer.Argument(
            help="A built-in problem (digits, scenes, scenes-mtan, scenes-streets), path/file.py:name or package.module:name."
        ),
    ],
    methods: Annotated[
        str,
        typer.Option("--methods", "-m", help='Which methods, such as "ls,cagrad:c=0.2,cost+ls"; "all" for every balancer.'),
    ] = "all",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help='How many ("3": 0, 1, 2), a range "5-9", a list "1,4".')] = "3",
    epochs: Annotated[
        int | None, typer.Option("--epochs", "-e", help="Passes over the data; the problem's own if left out.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Runs at a time; the number of processors if left out.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", "--output", "-o", help="Where everything goes; results/<problem> if left out."),
    ] = None,
    gramian_every: Annotated[
        int,
        typer.Option(help="Conflict statistics of methods without a Gramian: in every such step; 0 for never."),
    ] = 10,
) -> None:
    """Compare methods over seeds, with single-task training as the baseline.

    Started again with the same folder, it goes on where it was; methods and seeds may be added.
    """
    found = find_problem(problem)
    # What acts on parts of a model is left out where the problem does not say which they are, or what their targets are.
    served = [
        info.name
        for info in registered()
        if not issubclass(info.cls, OnFeatures)
        or (found.parts is not None and (found.targets is not None or not info.cls.needs_targets))
    ]
    chosen = ",".join(served) if methods.strip() == "all" else methods
    study = Study(
        found,
        chosen,
        parse_seeds(seeds),
        epochs=epochs,
        folder=folder,
        jobs=jobs,
        gramian_every=gramian_every,
    )
    try:
        results = study.run()
    except KeyboardInterrupt:
        left = len(study.missing())
        typer.echo(f"\nStopped; {left} runs are left. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None
    _show(results)


app.command("sweep")(sweep)
app.command("reproduce")(reproduce)


@app.command("report")
def _report(folder: Annotated[Path, typer.Argument(help="The folder of a study, or of a sweep in it.")]) -> None:
    """Write the report of a study or sweep again from what its folder holds."""
    if (folder / "sweep.json").exists():
        show_sweep(folder)
        return
    _show(Results(folder))


@app.command("methods")
def _methods() -> None:
    """List the methods: what each does, what it costs, its options and its paper."""
    print_methods(registered(), task_weights(), Console())


def _show(results: Results) -> None:
    console = Console()
    print_results(results, console)
    _, html = write_report(results)
    console.print(f"Report: {html}", markup=False, highlight=False, soft_wrap=True)
    if results.failures:
        typer.echo(f"{len(results.failures)} runs failed; look at:", err=True)
        for path in results.failures.values():
            typer.echo(f"  {path}", err=True)
        raise typer.Exit(1)
