"""The library's own commands, such as ``study`` and ``diagnose``; :mod:`equipoise.cli` is the way in.

Every command imports what it needs when it is called, so that ``equipoise --help`` needs neither torch nor a second.
"""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from equipoise.errors import InputError, StorageError, near_misses
from equipoise.terminal import console, printable
from equipoise.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from equipoise.study.results import Results
    from equipoise.study.task_weights import Entry

__all__ = ["app"]

_T = TypeVar("_T")

app = typer.Typer(
    help="Train one PyTorch model on many tasks and keep the tasks in balance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Epochs = Annotated[int | None, typer.Option("--epochs", "-e", help="Passes over the data; the problem's own if left out.")]
_SEEDS = 'Seeds that judge: how many ("3": 0, 1, 2), a range "5-9", a list "1,4".'
Seeds = Annotated[str, typer.Option("--seeds", "-s", help=_SEEDS)]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Runs at a time; the number of processors if left out.")]

_PROBLEM = "A problem by name (digits, qm9:train=2000, one of another package), path/file.py:name or package.module:name."
_RAY = "Run on a Ray cluster: that at host:port; without an address the one that is found, or one of this machine."
_DEVICE = "auto (GPUs if there are any), cpu, cuda, or which: cuda:0,1; one run per GPU. Left out: as the problem has it."
_PART = 'Only the runs of a part, such as "2/4"; the others may be carried out at the same time.'
_WHERE = "Where everything goes; results/<problem>, or a folder beside it named after the command, if left out."
Where = Annotated[Path | None, typer.Option("--folder", "--output", "-o", help=_WHERE)]
ProblemText = Annotated[str, typer.Argument(help=_PROBLEM)]
RayAddress = Annotated[str | None, typer.Option("--ray", metavar="[ADDRESS]", help=_RAY)]
Cpus = Annotated[float | None, typer.Option(help="CPUs that Ray sets aside per run; 1 if left out.")]
Gpus = Annotated[float | None, typer.Option(help="GPUs that Ray sets aside per run; 0 if left out.")]
Device = Annotated[str | None, typer.Option(help=_DEVICE)]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the models by torch.compile.")]
Amp = Annotated[bool, typer.Option("--amp", help="Compute losses under autocast, in bfloat16.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"equipoise {__version__}")
        raise typer.Exit


@app.command("diagnose")
def _diagnose(
    problem: ProblemText,
    steps: Annotated[int, typer.Option("--steps", help="Of plain training, during which the tasks are watched.")] = 300,
    looks: Annotated[
        int, typer.Option("--looks", help="How often to look at gradients; a look costs two exact Gramians.")
    ] = 30,
    device: Annotated[str, typer.Option("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of data and model.")] = 0,
    folder: Where = None,
) -> None:
    """Say what the tasks of a problem do to each other: scales, conflicts and their noise, prices of methods, proxies.

    Takes some steps of plain training on the problem's own model and data, and writes a page with pictures and its numbers
    as JSON. Nothing that has been trained is kept.
    """
    from equipoise.diagnosis import diagnose_problem
    from equipoise.diagnosis.page import print_diagnosis, write_page
    from equipoise.progress import bar
    from equipoise.study import find_problem

    asked = find_problem(problem)
    with bar(transient=True) as show:
        found = diagnose_problem(
            asked,
            seed=seed,
            steps=steps,
            looks=looks,
            device=device,
            told=lambda done, wanted: show(done, wanted, f"{done}/{wanted} steps"),
        )
    place = Path("results") / f"{asked.name}-diagnosis" if folder is None else folder
    _show(found, lambda own: write_page(own, place), print_diagnosis, browse=False)


@app.command("advise")
def _advise(
    problem: ProblemText,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", "-m", help="Who races beside plain training and fixed weights; a choice of seven if left out."
        ),
    ] = None,
    seeds: Seeds = "5",
    epochs: Epochs = None,
    rates: Annotated[
        str, typer.Option("--rates", help="Learning rates to try, as multiples of the problem's own; 1 must be among them.")
    ] = "0.3,1,3",
    jobs: Jobs = None,
    steps: Annotated[int, typer.Option("--steps", help="Of the diagnosis before the race.")] = 300,
    looks: Annotated[int, typer.Option("--looks", help="At gradients, in the diagnosis.")] = 20,
    device: Annotated[str, typer.Option("--device", help="Of the diagnosis: auto (a GPU if there is one), cpu, cuda.")] = "cpu",
    folder: Where = None,
    ray: RayAddress = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Say which method to use on a problem, by a diagnosis and a short race; plain training where nothing beats it.

    Every method gets as many learning rates, seeds and epochs as any other; the worse half drops out, twice, and the last are
    judged on fresh seeds. Started again with the same folder, it continues where it stopped.
    """
    from equipoise.advice import Race
    from equipoise.advice.report import print_advice, write_page
    from equipoise.cluster import where

    try:
        multiples = [float(rate) for rate in rates.split(",")]
    except ValueError:
        raise InputError(f'--rates is "{rates}"; give numbers such as 0.3,1,3') from None
    given: Any = {"jobs": jobs, "folder": folder, "start": where(ray, cpus, gpus), "steps": steps, "looks": looks}
    race = Race(problem, methods, seeds=seeds, epochs=epochs, rates=multiples, device=device, **given)
    with _stoppable():
        advice = race.run()
    _show(advice, lambda own: write_page(own, race.path), print_advice, browse=False)


@app.command("study")
def _study(
    problem: ProblemText,
    methods: Annotated[
        str, typer.Option("--methods", "-m", help='Which methods, such as "ls,cagrad:c=0.2,cost+ls"; "all" for every balancer.')
    ] = "all",
    seeds: Seeds = "3",
    epochs: Epochs = None,
    jobs: Jobs = None,
    folder: Where = None,
    gramian_every: Annotated[
        int | None,
        typer.Option(
            help="For methods without a Gramian: steps from one look at conflicts to the next; six per epoch if left out."
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="Learning rates such as 3e-4,1e-3,3e-3; of several each method gets its best on the validation split."
        ),
    ] = None,
    tuned_weights: Annotated[
        int | None,
        typer.Option(
            help="Trials of fixed weights, the best of which are one more method; left out, as many as cost what a method with "
            "one backward pass per task does if all methods are compared, else 0."
        ),
    ] = None,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="No single-task training, and so no Δm.")] = False,
    device: Device = None,
    compile_: Compile = False,
    amp: Amp = False,
    part: Annotated[str | None, typer.Option(help=_PART)] = None,
    ray: RayAddress = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Compare methods over seeds, with single-task training as the baseline.

    Started again with the same folder, it continues where it stopped; methods and seeds may be added.
    """
    from equipoise.cluster import where
    from equipoise.study import Study, find_problem
    from equipoise.study.methods import served
    from equipoise.study.plan import parse_seeds

    machine: Any = {"start": where(ray, cpus, gpus), "device": device, "compile": compile_, "amp": amp}
    found = find_problem(problem)
    # A study of everything leaves out what the problem cannot serve.
    chosen = served(found) if methods.strip() == "all" else methods
    study = Study(
        found,
        chosen,
        parse_seeds(seeds),
        epochs=epochs,
        folder=folder,
        jobs=jobs,
        gramian_every=gramian_every,
        baselines=not no_baselines,
        lr=lr,
        # A study of everything has the field's mandatory baseline, too.
        tuned_weights=0 if tuned_weights is None and methods.strip() != "all" else tuned_weights,
        part=part,
        **machine,
    )
    with _stoppable(lambda: f"; {len(study.missing())} runs are left"):
        results = study.run()
    if others := study.left_to_others():
        count = f"{len(others)} runs are" if len(others) > 1 else "1 run is"
        where_to = printable(str(study.folder.path))
        typer.echo(f"{count} left to other parts; when they are done: equipoise report {where_to}", err=True)
        raise typer.Exit(1 if study.missing() else 0)
    _show_study(results)


@app.command("sweep")
def _sweep(
    problem: ProblemText,
    method: Annotated[
        str, typer.Option("--method", "-m", help='What to sweep, such as "ls" or "cagrad"; options written here are fixed.')
    ] = "ls",
    budget: Annotated[int, typer.Option("--budget", "-b", help="Trials in all.")] = 30,
    objectives: Annotated[
        str, typer.Option(help='"delta_m", a metric, or several ("left accuracy,sum error"); on the validation split.')
    ] = "delta_m",
    swept: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help='Ranges: "c=0:1", "alpha=0.1:10:log", "rescale=true|false", "weights=dirichlet", '
            '"optimizer.lr=1e-4:1e-2:log".',
        ),
    ] = None,
    compare: Annotated[str, typer.Option("--compare", "-c", help="Methods to compare the sweep with.")] = "ls",
    seeds: Seeds = "3",
    front: Annotated[str | None, typer.Option(help="The two metrics of the Pareto front.")] = None,
    confirm: Annotated[int, typer.Option(help="How many trials are trained again on the seeds that judge.")] = 5,
    epochs: Epochs = None,
    jobs: Jobs = None,
    sampler: Annotated[str, typer.Option(help="tpe, random, qmc, nsga2, gp or regmix.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="none, median or hyperband; with one objective only.")] = "none",
    folder: Where = None,
    name: Annotated[
        str | None, typer.Option(help="Of the sweep and its folder sweeps/<name>; the method's if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search; none of those that judge.")] = 1000,
    device: Device = None,
    compile_: Compile = False,
    amp: Amp = False,
    ray: RayAddress = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Sweep fixed weights, or a method's options, and compare the best trials with other methods.

    Started again it continues where it stopped, also with a larger budget; several processes may work in one folder.
    """
    from equipoise.cluster import where
    from equipoise.sweep import Sweep

    machine: Any = {"start": where(ray, cpus, gpus), "device": device, "compile": compile_, "amp": amp}
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
        **machine,
    )
    with _stoppable():
        asked.run()
    _show_sweep(asked.folder.path)


@app.command("front")
def _front(
    problem: ProblemText,
    methods: Annotated[
        str,
        typer.Option("--methods", "-m", help="Families of Pareto sets, such as phn,cosmos,palora:rank=8; a sweep is added."),
    ] = "phn,cosmos,palora",
    seeds: Seeds = "3",
    tasks: Annotated[
        str | None, typer.Option(help="Which two of the tasks, such as left,ink; the first two if left out.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Of one model; the problem's own if left out.")] = None,
    models: Annotated[int, typer.Option(help="How many trainings of one model each method may spend.")] = 5,
    members: Annotated[int, typer.Option(help="How many members of a set are evaluated.")] = 11,
    balancer: Annotated[
        str | None, typer.Option(help="What trains sets, such as stch:mu=0.1; as each family's paper has it, if left out.")
    ] = None,
    jobs: Jobs = None,
    folder: Where = None,
) -> None:
    """Compare Pareto sets (one model for all preferences) with a tuned sweep of fixed weights, at equal cost.

    Writes the picture of the front, hypervolumes with intervals, and what each method cost. Started again with the same folder,
    it continues where it stopped; methods and seeds may be added.
    """
    from equipoise.fronts import Fronts

    given: Any = {"tasks": tasks, "epochs": epochs, "models": models, "members": members, "balancer": balancer}
    asked = Fronts(problem, methods, seeds, jobs=jobs, folder=folder, **given)
    with _stoppable(lambda: f"; {len(asked.missing())} runs are left"):
        asked.run()
    _show_fronts(asked.store.path)


@app.command("report")
def _report(
    folder: Annotated[
        Path, typer.Argument(help="The folder of a study, of a sweep in it, of a diagnosis, an advice or fronts.")
    ],
    open_: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="Also write PDF pictures and LaTeX tables into paper/.")] = False,
) -> None:
    """Write the report of a study, sweep, diagnosis, advice or fronts again from what its folder holds."""
    if (folder / "sweep.json").exists():
        _show_sweep(folder, browse=open_, paper=paper)
    elif (folder / "fronts.json").exists():
        _show_fronts(folder, browse=open_, paper=paper)
    elif (folder / "race.json").exists():
        from equipoise.advice import Advice
        from equipoise.advice.report import advice_paper, print_advice
        from equipoise.advice.report import write_page as write_advice

        advice = Advice.read(folder / "advice.json")
        _show(
            advice,
            lambda own: write_advice(own, folder),
            print_advice,
            (lambda own: advice_paper(own, folder)) if paper else None,
            browse=open_,
        )
    elif (folder / "diagnosis.json").exists():
        from equipoise.diagnosis import Diagnosis
        from equipoise.diagnosis.page import diagnosis_paper, print_diagnosis, write_page

        found = Diagnosis.read(folder / "diagnosis.json")
        _show(
            found,
            lambda own: write_page(own, folder),
            print_diagnosis,
            (lambda own: diagnosis_paper(own, folder)) if paper else None,
            browse=open_,
        )
    else:
        from equipoise.study import Results

        _show_study(Results(folder), browse=open_, paper=paper)


@app.command("methods")
def _methods(
    name: Annotated[str | None, typer.Argument(help="Tell everything about this one.")] = None,
    needs: Annotated[
        str | None, typer.Option(help="Only those that look at: losses, gramian, gradients, or validation data (bilevel).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the methods: what each does, what it costs, its options and its paper."""
    from equipoise.balance.registry import methods as registered
    from equipoise.study.report import facts, print_method, print_methods
    from equipoise.study.task_weights import find, task_weights

    balancers, on_validation = registered(), task_weights()
    both: list[Entry] = [*balancers, *on_validation]
    costs = sorted({info.cost for info in both})
    if name is not None and needs is not None:
        raise InputError(f'"{name}" and --needs were given; give one of them')
    if needs is not None and needs not in costs:
        raise InputError(f'--needs is "{needs}"; it must be one of {", ".join(costs)}.{near_misses(needs, costs)}')
    one = None if name is None else find(name)
    if as_json:
        listed = [facts(info) for info in both if needs in (None, info.cost)] if one is None else facts(one)
        typer.echo(json.dumps(listed, indent=2))
    elif one is not None:
        print_method(one, console())
    else:
        chosen = [[info for info in kind if needs in (None, info.cost)] for kind in (balancers, on_validation)]
        print_methods(chosen[0], chosen[1], console())


@app.command("init")
def _init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("my_problem.py"),
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A CSV table, a folder of images with labels.csv, or a .pt file of two tensors; made up if left out."
        ),
    ] = None,
    targets: Annotated[str, typer.Option(help="Columns to predict, one per task: price,sold.")] = "",
) -> None:
    """Write a commented problem to start from, out of a table, images or tensors.

    Columns of few whole numbers, or of texts, are classes; all others are numbers to predict.
    """
    from equipoise.study.starting import start_problem

    path = start_problem(file, source, [name.strip() for name in targets.split(",") if name.strip()])
    typer.echo(f"{printable(str(path))} is written; look into it, then: equipoise diagnose {printable(str(path))}")


@contextmanager
def _stoppable(left: Callable[[], str] = str) -> Iterator[None]:
    """Ctrl-C ends the command, which says what is left and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nStopped{left()}. The same command continues from here.", err=True)
        raise typer.Exit(130) from None


def _show_study(results: Results, *, browse: bool = False, paper: bool = False) -> None:
    from equipoise.study.report import print_results, study_paper, write_report

    # Written first: what is printed may be cut short by whoever reads it.
    _show(results, write_report, print_results, study_paper if paper else None, browse=browse)
    if results.failures:
        typer.echo(f"{len(results.failures)} runs failed; look at:", err=True)
        for path in results.failures.values():
            typer.echo(f"  {printable(str(path))}", err=True)
        raise typer.Exit(1)


def _show_sweep(folder: Path, *, browse: bool = False, paper: bool = False) -> None:
    from equipoise.sweep import Outcome
    from equipoise.sweep.report import print_outcome, sweep_paper, write_report

    _show(Outcome(folder), write_report, print_outcome, sweep_paper if paper else None, browse=browse)


def _show_fronts(folder: Path, *, browse: bool = False, paper: bool = False) -> None:
    from equipoise.fronts import FrontsOutcome
    from equipoise.fronts.report import fronts_paper, print_fronts, write_fronts

    _show(FrontsOutcome(folder), write_fronts, print_fronts, fronts_paper if paper else None, browse=browse)


def _show(
    source: _T,
    write: Callable[[_T], tuple[Path, Path]],
    show: Callable[[_T, Console], None],
    paper: Callable[[_T], Path] | None = None,
    *,
    browse: bool,
) -> None:
    """Writes a report, then prints it; what cannot be written is printed all the same, and then refused."""
    shown = console()
    try:
        _, html = write(source)
        for_paper = None if paper is None else paper(source)
    except StorageError:
        show(source, shown)
        raise
    show(source, shown)
    shown.print(printable(f"Report: {html}"), markup=False, highlight=False, soft_wrap=True)
    if for_paper is not None:
        shown.print(printable(f"For a paper: {for_paper}"), markup=False, highlight=False, soft_wrap=True)
    if browse and not webbrowser.open(html.resolve().as_uri()):
        typer.echo("No browser could be opened; the report lies where the last line says.", err=True)
