"""``equipoise figure NAME``: one command a figure; each imports what it needs only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

METHODS = "ls,mgda,famo,ldc-mtl:penalty=1,tau=ones,initial=[2.1,21.0]"
"""Of Figure 1 of the LDC-MTL paper."""

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

    from equipoise.study.methods import parse_methods
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.figures.cost_toy import Settings, Teleporting, make
    from equipoise_papers.figures.cost_toy.display import display
    from equipoise_papers.figures.cost_toy.show import show

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


@app.command("ldc-toy")
def _ldc_toy(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures, table and numbers.")] = Path(
        "results/ldc-toy"
    ),
    methods: Annotated[str, typer.Option("--methods", "-m", help="Which; options as in studies.")] = METHODS,
    steps: Annotated[int, typer.Option(help="Steps of a trajectory.")] = 50_000,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    sign: Annotated[
        str, typer.Option(help="Of f2: released (as published pictures have it) or paper (the formula).")
    ] = "released",
    timed_steps: Annotated[int, typer.Option(help="Steps of real training from which run times are taken.")] = 1000,
) -> None:
    """Figure 1 of LDC-MTL: trajectories and run time on the two-task toy problem."""
    from rich.console import Console

    from equipoise.study.methods import parse_methods
    from equipoise_papers.figures.cost_toy.display import display
    from equipoise_papers.figures.ldc_toy import Settings, make

    settings = Settings(
        methods=tuple(method.label for method in parse_methods(methods)),
        steps=steps,
        lr=lr,
        sign=sign,  # type: ignore[arg-type]  # checked there, with a message
        timed_steps=timed_steps,
    )
    with display(steps, Console(stderr=True)) as told:
        text = make(settings, output, told)
    typer.echo(text)


@app.command("ldc-gradient-norms")
def _ldc_gradient_norms(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for picture, table and numbers.")] = Path(
        "results/ldc-gradient-norms"
    ),
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Passes over the digits.")] = 10,
    inner_steps: Annotated[int, typer.Option(help="N, steps of the lower level in each step.")] = 50,
    inner_lr: Annotated[float, typer.Option(help="Their step size, times λ in the paper's formulation.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of data order and parameters.")] = 0,
    options: Annotated[str, typer.Option(help='Further options of LDC-MTL, such as "penalty=1,formulation=released".')] = "",
) -> None:
    """Figures 3 and 7 of LDC-MTL, on digits: the gradient that the single loop drops, next to the one it keeps."""
    from equipoise.method import read_options
    from equipoise_papers.figures.ldc_gradient_norms import Settings, make

    settings = Settings(epochs, inner_steps, inner_lr, seed, read_options(options, options))
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))


@app.command("normal-digits")
def _normal_digits(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures, table and trainings.")] = Path(
        "results/normal-digits"
    ),
    networks: Annotated[
        str, typer.Option("--networks", "-n", help="Which; hps is what the others are compared with.")
    ] = "hps,normal,equal,different,positive,first-order,shared-layers,task-layers",
    seeds: Annotated[str, typer.Option("--seeds", "-s", help='How many ("5": 0 to 4), a range "5-9", a list "1,4".')] = "5",
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Passes over the digits.")] = 20,
    method: Annotated[str, typer.Option("--method", "-m", help="The balancer, with options as in studies.")] = "ls",
    position_lr: Annotated[float, typer.Option(help="η, Adam's learning rate for positions.")] = 0.1,
    xi: Annotated[float, typer.Option(help="ξ, the spring of the flow.")] = 0.0,
    start: Annotated[float, typer.Option(help="Where learned and equal positions start.")] = 1.0,
    step_size: Annotated[float, typer.Option(help="Of Euler's method.")] = 0.5,
    orders: Annotated[int, typer.Option(help="So many of the 24 orders of different constant positions are tried.")] = 24,
) -> None:
    """Section 5.5 of the thesis, on digits: NORMAL, its ablations (Table 5.4), and positions over training (Figure 5.2)."""
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.figures.normal_digits import Settings, make

    settings = Settings(
        networks=tuple(networks.split(",")),
        seeds=tuple(parse_seeds(seeds)),
        epochs=epochs,
        method=method,
        position_lr=position_lr,
        xi=xi,
        start=start,
        step_size=step_size,
        orders=orders,
    )
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))


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
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.figures.asmg import Settings, make
    from equipoise_papers.options import whole_numbers

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
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.figures.asmg_prompt import Settings, make

    settings = Settings(
        methods=tuple(methods.split(",")),
        seeds=tuple(parse_seeds(seeds)),
        iterations=iterations,
        samples=samples,
        dim=dim,
        pretraining_steps=pretraining_steps,
    )
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))


@app.command("forum-synthetic")
def _forum_synthetic(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for picture, table and numbers.")] = Path(
        "results/forum-synthetic"
    ),
    steps: Annotated[int, typer.Option(help="K, outer steps.")] = 200,
    lower_steps: Annotated[int, typer.Option(help="T, steps of the lower level.")] = 50,
    step_size: Annotated[float, typer.Option(help="μ, of gradient descent on the upper level.")] = 0.3,
    lower_step_size: Annotated[float, typer.Option(help="η, of the lower level.")] = 0.05,
    rho: Annotated[float, typer.Option(help="ρ of FORUM.")] = 0.3,
    start: Annotated[str, typer.Option(help="Lower level's start: warm or cold.")] = "warm",
) -> None:
    """Figure A.1 of the thesis: MOML, MoCo and FORUM on a problem whose optimal set is known."""
    from equipoise_papers.figures.forum_synthetic import Settings, make

    settings = Settings(steps, lower_steps, step_size, lower_step_size, rho, start)  # type: ignore[arg-type]
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))


@app.command("forum-cost")
def _forum_cost(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for picture, table and numbers.")] = Path(
        "results/forum-cost"
    ),
    lower_steps: Annotated[str, typer.Option(help="Values of T.")] = "1,2,4,8,16,32,64,128",
    layers: Annotated[str, typer.Option(help="Further shared layers of 512 units, which is how p grows.")] = "0,1,2,4",
    fixed_lower_steps: Annotated[int, typer.Option(help="T where p varies.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Samples a batch.")] = 100,
    repeats: Annotated[int, typer.Option(help="Timed steps; the median counts.")] = 3,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    methods: Annotated[str, typer.Option("--methods", "-m", help="Which.")] = "moml,moml-checkpointed,moco,forum",
) -> None:
    """Figure 3.1 of the thesis: seconds and memory of a bilevel step against T and against p."""
    from equipoise_papers.figures.forum_cost import Settings, make
    from equipoise_papers.options import whole_numbers

    settings = Settings(
        lower_steps=whole_numbers(lower_steps, "lower_steps"),
        layers=whole_numbers(layers, "layers", least=0),
        fixed_lower_steps=fixed_lower_steps,
        batch_size=batch_size,
        repeats=repeats,
        device=device,
        methods=tuple(methods.split(",")),
    )
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))


@app.command("hyper-cleaning")
def _hyper_cleaning(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for picture, table and runs.")] = Path(
        "results/hyper-cleaning"
    ),
    data: Annotated[str, typer.Option(help="digits (bundled; upright and turned) or mnist (with FashionMNIST).")] = "digits",
    folder: Annotated[Path | None, typer.Option(help="Holds MNIST and FashionMNIST with their IDX files.")] = None,
    methods: Annotated[str, typer.Option("--methods", "-m", help="Of noisy, moml, moco, forum, bome, bvfim.")] = (
        "noisy,moml,moco,forum"
    ),
    seeds: Annotated[str, typer.Option("--seeds", "-s", help='How many ("3": 0 to 2), a range "5-9", a list "1,4".')] = "3",
    steps: Annotated[int, typer.Option(help="K, outer steps; 0 for the setting's own.")] = 0,
    lower_steps: Annotated[int, typer.Option(help="T; 0 for the setting's own.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes beside each other.")] = 1,
) -> None:
    """Section 3.7.1 of the thesis: half of the training labels are wrong; a weight a sample is learned on clean ones."""
    from dataclasses import replace

    from equipoise.errors import InputError
    from equipoise.study.plan import parse_seeds
    from equipoise_papers.figures.hyper_cleaning import DIGITS, MNIST, make

    settings = {"digits": DIGITS, "mnist": MNIST}.get(data)
    if settings is None:
        raise InputError(f'unknown data "{data}"; expected digits or mnist')
    settings = replace(
        settings,
        methods=tuple(methods.split(",")),
        seeds=tuple(parse_seeds(seeds)),
        steps=steps or settings.steps,
        lower_steps=lower_steps or settings.lower_steps,
    )
    typer.echo(make(settings, data, folder, output, jobs, lambda line: typer.echo(line, err=True)))


@app.command("scenes")
def _scenes(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures and numbers.")] = Path(
        "results/scenes-figure"
    ),
    rooms: Annotated[int, typer.Option(help="Rows of rooms.")] = 4,
    streets: Annotated[int, typer.Option(help="Rows of streets.")] = 3,
    seed: Annotated[int, typer.Option(help="Of scenes, network and training.")] = 0,
    predict: Annotated[
        bool, typer.Option("--predict/--no-predict", help="Train the network of the study and show what it predicts.")
    ] = False,
    method: Annotated[str, typer.Option("--method", "-m", help="Balancing method that it is trained with.")] = "fairgrad",
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Passes over its training scenes.")] = 20,
    network: Annotated[str, typer.Option(help="segnet or segnet-mtan.")] = "segnet",
    width: Annotated[int, typer.Option(help="Channels of its first level.")] = 8,
) -> None:
    """Rendered rooms and streets with their classes, depth and normals, and what a trained network says about rooms."""
    from equipoise_papers.figures.scenes import Settings, make

    settings = Settings(rooms, streets, seed, predict, method, epochs, network, width)
    typer.echo(make(settings, output, lambda line: typer.echo(line, err=True)))
