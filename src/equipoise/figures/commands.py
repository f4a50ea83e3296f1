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


@app.command("cost-toy")
def _cost_toy(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures, table and numbers.")] = Path(
        "results/cost-toy"
    ),
    seeds: Annotated[str, typer.Option("--seeds", "-s", help='How many ("5": 0 to 4), a range "5-9", a list "1,4".')] = "5",
    steps: Annotated[int, typer.Option(help="Steps of a trajectory.")] = 30_000,
    balancers: Annotated[
        str, typer.Option("--balancers", "-b", help="Balancers with fixed weights, or of the Gramian and without memory.")
    ] = "ls,mgda,cagrad,nash-mtl,fairgrad:alpha=2",
    sign: Annotated[
        str, typer.Option(help="Of f2: released (as published pictures have it) or paper (the formula).")
    ] = "released",
    factor: Annotated[bool, typer.Option("--factor/--no-factor", help="Multiply the loss of task 1 by 0.1.")] = False,
    gamma: Annotated[float, typer.Option(help="Weight of the sharpness sought.")] = 1.0,
    radius: Annotated[float, typer.Option(help="Norm of the perturbations.")] = 1.0,
    samples: Annotated[int, typer.Option(help="Perturbations in an inner step.")] = 5,
    inner_steps: Annotated[int, typer.Option(help="Inner steps of a teleport.")] = 100,
    inner_lr: Annotated[float, typer.Option(help="Learning rate of the inner Adam.")] = 0.1,
    start: Annotated[int, typer.Option(help="First step after which to teleport.")] = 2000,
    stop: Annotated[int, typer.Option(help="First step after which not to any more; 0 for no end.")] = 20_000,
    cooldown: Annotated[int, typer.Option(help="Steps from one teleport to the next at least.")] = 1000,
    guard: Annotated[
        bool, typer.Option("--guard/--no-guard", help="Land only where losses are kept and conflict is not worse.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Relative loss change that the guard lets pass.")] = 0.05,
    relative: Annotated[bool, typer.Option("--relative/--absolute", help="Divide losses by their size first.")] = False,
    history: Annotated[str, typer.Option(help="Adam's moments after a landing: keep, reuse (eq. 13) or reset.")] = "reuse",
) -> None:
    """Figure 6 of COST: balancers on the two-task toy problem, alone and with COST on top."""
    from rich.console import Console

    from equipoise.figures.cost_toy import Settings, Teleporting, make
    from equipoise.figures.cost_toy.display import display
    from equipoise.figures.cost_toy.show import show
    from equipoise.study.methods import parse_methods
    from equipoise.study.plan import parse_seeds

    settings = Settings(
        sign=sign,  # type: ignore[arg-type]  # checked there, with a message
        factor=factor,
        balancers=tuple(method.label for method in parse_methods(balancers)),
        seeds=tuple(parse_seeds(seeds)),
        steps=steps,
        teleporting=Teleporting(
            gamma=gamma,
            radius=radius,
            samples=samples,
            inner_steps=inner_steps,
            inner_lr=inner_lr,
            start_step=start,
            stop_step=stop or None,
            cooldown=cooldown,
            relative=relative,
            guard=guard,
            tolerance=tolerance,
            history=history,  # type: ignore[arg-type]
        ),
    )
    with display(steps, Console(stderr=True)) as told:
        made = make(settings, output, told)
    show(made, Console())
