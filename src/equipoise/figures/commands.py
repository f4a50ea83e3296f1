"""``equipoise figure NAME``: one command a figure; each imports what it needs only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Make a figure of one of the papers again, with the numbers behind it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _figure() -> None:
    """Make a figure of one of the papers again, with the numbers behind it."""


@app.command("asmg")
def _asmg(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures, table and runs.")] = Path("results/asmg"),
    methods: Annotated[str, typer.Option("--methods", "-m", help="Which optimizers.")] = "asmg,cma-es,mmes,es,bes",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help='How many ("3": 0 to 2), a range "5-9", a list "1,4".')] = "3",
    iterations: Annotated[int, typer.Option(help="The most of a run.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="Processor time after which a run is stopped where it is.")] = 20.0,
    samples: Annotated[str, typer.Option(help="N of the panels with d = --dimension.")] = "10,50,100",
    dimension: Annotated[int, typer.Option(help="d of the panels by N.")] = 100,
    dimensions: Annotated[str, typer.Option(help="d of the panels by d.")] = "200,500,1000",
) -> None:
    """Figures 4.1 to 4.4 of the thesis: ASMG and its peers on problems (4.21) to (4.23)."""
    from equipoise.figures.asmg import Settings, make
    from equipoise.figures.asmg.numbers import whole_numbers
    from equipoise.study.plan import parse_seeds

    settings = Settings(
        methods=tuple(methods.split(",")),
        seeds=tuple(parse_seeds(seeds)),
        iterations=iterations,
        seconds=seconds,
        samples=whole_numbers(samples, "samples"),
        dimension=dimension,
        dimensions=whole_numbers(dimensions, "dimensions"),
    )
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))


@app.command("asmg-prompt")
def _asmg_prompt(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for table, numbers and cached features.")] = Path(
        "results/asmg-prompt"
    ),
    methods: Annotated[str, typer.Option("--methods", "-m", help="Which.")] = "asmg,asmg-ew,cma-es,mmes,es,bes",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help='How many ("3": 0 to 2), a range "5-9", a list "1,4".')] = "3",
    iterations: Annotated[int, typer.Option(help="Mini-batches a task; times N it is the queries of every method.")] = 200,
    samples: Annotated[int, typer.Option(help="N.")] = 20,
    dim: Annotated[int, typer.Option(help="d, entries of v.")] = 256,
    pretraining_steps: Annotated[int, typer.Option(help="Steps in which the small CLIP is trained.")] = 800,
) -> None:
    """Section 4.6.2 of the thesis: a prompt for three tasks, tuned by queries alone, on a small CLIP trained on the way."""
    from equipoise.figures.asmg_prompt import Settings, make
    from equipoise.study.plan import parse_seeds

    settings = Settings(
        methods=tuple(methods.split(",")),
        seeds=tuple(parse_seeds(seeds)),
        iterations=iterations,
        samples=samples,
        dim=dim,
        pretraining_steps=pretraining_steps,
    )
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))
