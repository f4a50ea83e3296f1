"""``equipoise sweep``; needs nothing beyond the study extra until it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["show", "sweep"]


def sweep(
    problem: Annotated[str, typer.Argument(help="A built-in problem (digits), path/to/file.py:name, or package.module:name.")],
    method: Annotated[
        str, typer.Option("--method", "-m", help='What is swept, such as "ls" or "cagrad"; options written here are fixed.')
    ] = "ls",
    budget: Annotated[int, typer.Option("--budget", "-b", help="Trials in all.")] = 30,
    objectives: Annotated[
        str, typer.Option(help='"delta_m", a metric, or several ("left accuracy,sum error"); on the validation split.')
    ] = "delta_m",
    swept: Annotated[
        list[str] | None,
        typer.Option("--sweep", help='Ranges: "c=0:1", "alpha=0.1:10:log", "rescale=true|false", "weights=dirichlet".'),
    ] = None,
    compare: Annotated[str, typer.Option("--compare", "-c", help="Methods that the sweep is held against.")] = "ls",
    seeds: Annotated[
        str, typer.Option("--seeds", "-s", help='Seeds that judge: how many ("3": 0, 1, 2), a range "5-9", a list "1,4".')
    ] = "3",
    front: Annotated[str | None, typer.Option(help="The two metrics of the Pareto front.")] = None,
    confirm: Annotated[int, typer.Option(help="How many trials are trained again on the seeds that judge.")] = 5,
    epochs: Annotated[
        int | None, typer.Option("--epochs", "-e", help="Passes over the data; the problem's own if left out.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Runs at a time; the number of processors if left out.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe, random, qmc, nsga2 or gp.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="none, median or hyperband; with one objective only.")] = "none",
    folder: Annotated[
        Path | None,
        typer.Option("--folder", "--output", "-o", help="Folder of the study; results/<problem> if left out."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the sweep and its folder sweeps/<name>; the method's if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search; none of those that judge.")] = 1000,
) -> None:
    """Sweep fixed weights, or a method's options, and hold the best trials against other methods.

    Started again it goes on where it was, also with a larger budget; several processes may work in one folder.
    """
    from equipoise.sweep import Sweep

    asked = Sweep(
        problem,
        method,
        budget=budget,
        objectives=objectives,
        sweep=swept,
        compare=compare,
        seeds=seeds,
        front=front,
        confirm=confirm,
        epochs=epochs,
        jobs=jobs,
        sampler=sampler,
        pruner=pruner,
        folder=folder,
        name=name,
        seed=seed,
    )
    try:
        asked.run()
    except KeyboardInterrupt:
        typer.echo("\nStopped. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None
    show(asked.folder.path)


def show(folder: Path) -> None:
    """Prints the outcome in a sweep's folder and writes its report."""
    from equipoise.sweep import Outcome
    from equipoise.sweep.report import print_outcome, write_report

    console = Console()
    outcome = Outcome(folder)
    print_outcome(outcome, console)
    _, html = write_report(outcome)
    console.print(f"Report: {html}", markup=False, highlight=False, soft_wrap=True)
