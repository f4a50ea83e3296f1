"""``equipoise example NAME``: one command an example; each imports what it needs only when it is called.

This file is a part of the command line, as :mod:`equipoise_papers.figures.commands` is: nothing in the library imports it.
"""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

SEEDS_HELP = 'How many ("3": 0 to 2), a range "5-9", a list "1,4".'

app = typer.Typer(
    help="Run an example of a bilevel problem with several upper objectives, and see what was traded off.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _example() -> None:
    """Run an example of a bilevel problem with several upper objectives, and see what was traded off."""


def _told(line: str) -> None:
    typer.echo(line, err=True)


@app.command("few-shot")
def _few_shot(
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Of untrained, clean, robust, both-ls, both-mgda.")
    ] = "untrained,clean,robust,both-ls,both-mgda",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help=SEEDS_HELP)] = "3",
    steps: Annotated[int, typer.Option(help="Meta-training episodes.")] = 300,
    ways: Annotated[int, typer.Option(help="N, classes of an episode.")] = 3,
    shots: Annotated[int, typer.Option(help="k, support images of a class.")] = 5,
    radius: Annotated[float, typer.Option(help="Of the attacks, in units of pixel values.")] = 0.1,
    test_episodes: Annotated[int, typer.Option(help="Episodes of novel classes in the evaluation.")] = 60,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, 60 meta-training episodes.")] = False,
) -> None:
    """Robust few-shot learning (thesis, eq. 3.34) on digits: clean against PGD-perturbed query loss, by MOML."""
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.applications.few_shot import Settings, run, show

    settings = Settings(ways=ways, shots=shots, radius=radius, steps=60 if quick else steps, test_episodes=test_episodes)
    outcomes = []
    for seed in parse_seeds("1" if quick else seeds):
        for method in methods.split(","):
            _told(f"{method}, seed {seed}")
            outcomes.append(run(method, seed, settings))
    typer.echo(show(outcomes, settings))


@app.command("architecture-search")
def _architecture_search(
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Of darts (validation loss alone), moml, forum.")
    ] = "darts,moml,forum",
    sizes: Annotated[str, typer.Option(help="L, parameters wished of the cell.")] = "300,1000,2500",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help=SEEDS_HELP)] = "3",
    steps: Annotated[int, typer.Option(help="Outer steps of a search.")] = 200,
    nodes: Annotated[int, typer.Option(help="Of the cell, its input among them.")] = 4,
    channels: Annotated[int, typer.Option(help="Of every node.")] = 8,
    radius: Annotated[float, typer.Option(help="Of the attacks, in units of pixel values.")] = 0.05,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, 3 nodes, 60 steps, the first two sizes.")] = False,
) -> None:
    """Architecture search (thesis, eq. 3.35 to 3.37) on digits: accuracy, robustness and number of parameters."""
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.applications.architecture_search import Settings, run, show
    from equipoise_papers.options import whole_numbers

    wished = whole_numbers(sizes, "sizes", least=0)
    if quick:
        wished, seeds, nodes, steps = wished[:2], "1", 3, 60
    settings = Settings(channels=channels, nodes=nodes, steps=steps, radius=radius)
    outcomes = []
    for seed in parse_seeds(seeds):
        for method in methods.split(","):
            for size in wished[:1] if method == "darts" else dict.fromkeys(wished):
                _told(f"{method}, L = {size}, seed {seed}")
                outcomes.append(run(method, size, seed, settings))
    typer.echo(show(outcomes, settings))


@app.command("actor-critic")
def _actor_critic(
    balancers: Annotated[str, typer.Option("--balancers", "-b", help="Of the critic's gradients.")] = "ls,mgda",
    gravities: Annotated[str, typer.Option(help="Of the pendulums, one a task, in m/s².")] = "4,8,12",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help=SEEDS_HELP)] = "3",
    steps: Annotated[int, typer.Option(help="Environment steps of every task.")] = 3000,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, 1,000 steps.")] = False,
) -> None:
    """Multi-task soft actor-critic (thesis, eq. 3.38 to 3.40) on Gymnasium's pendulum under several gravities."""
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.applications.actor_critic import Settings, pendulums, run, show
    from equipoise_papers.options import whole_numbers

    environments = pendulums(whole_numbers(gravities, "gravities"))
    settings = Settings(steps=1000 if quick else steps)
    outcomes = []
    for seed in parse_seeds("1" if quick else seeds):
        for balancer in balancers.split(","):
            _told(f"{balancer}, seed {seed}")
            outcomes.append(run(balancer, seed, settings, environments))
    typer.echo(show(outcomes, settings))
