"""``equipoise reproduce``; imports what a recipe needs only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equipoise.commands import Cpus, Gpus, RayAddress

if TYPE_CHECKING:
    from equipoise.cluster import Ray
    from equipoise_papers.reproduce.recipe import Asked, Recipe

__all__ = ["reproduce"]


def reproduce(
    recipe: Annotated[str | None, typer.Argument(help="Such as cost-table1; all of them are listed if left out.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="The data set's folder, in its public layout, or qm9pack.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all recipes.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how long it would take.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A few steps of every row on generated data, with narrow networks.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Run nothing; compare what the folder holds.")] = False,
    rows: Annotated[
        str | None, typer.Option("--rows", "-r", help='Published rows, such as "LS,COST"; all if left out.')
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", "-s", help='How many ("3": 0, 1, 2), a range "5-9", a list "1,4"; the paper\'s.')
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Passes over the data; the paper's if left out.")] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Runs at a time; 1 if left out, on a cluster as many as it has room for.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", "--output", "-o", help="Where everything goes; results/reproduce/<recipe>.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto for a GPU if there is one.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes per loader that read ahead.")] = 4,
    cache: Annotated[Path | None, typer.Option(help="Folder of decoded images, so that they are decoded once.")] = None,
    weights: Annotated[Path | None, typer.Option(help="ImageNet weights of the encoder; random numbers if left out.")] = None,
    clip: Annotated[
        str | None,
        typer.Option(help="A CLIP: folder in the format of transformers, open_clip:MODEL:FILE, or package.module:function."),
    ] = None,
    stl: Annotated[
        bool | None, typer.Option("--stl/--no-stl", help="Train every task alone as well; as in the paper if left out.")
    ] = None,
    ray: RayAddress = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Make a table of one of the papers again, on the real data.

    Started again with the same folder, it goes on where it was. The comparison puts the published rows beside ours.
    """
    from rich.console import Console

    from equipoise.cluster import where as machines
    from equipoise_papers.reproduce.plan import planned
    from equipoise_papers.reproduce.registry import find_recipe
    from equipoise_papers.reproduce.show import show_comparison, show_list, show_smoke

    if list_ or recipe is None:
        show_list(Console())
        return
    found = find_recipe(recipe)
    named = tuple(name.strip() for name in rows.split(",")) if rows else None
    found.check(named or ())
    if smoke:
        raise typer.Exit(show_smoke(found, named, Console()))
    if data is not None:
        parts, found = found.parts, found.reading(data)
        read = {part.name for part in found.parts}
        if left := ", ".join(part.name for part in parts if part.name not in read):
            typer.echo(f"{data} has no data for {left}, left out here", err=True)
    start = machines(ray, cpus, gpus)
    asked = _asked(found, data, named, seeds, epochs, jobs, device, workers, cache, weights, clip, stl, start)
    if dry_run:
        typer.echo("\n".join(planned(found, asked)))
        return
    where = Path("results") / "reproduce" / found.name if folder is None else folder
    if not report:
        _execute(found, asked, where)
    show_comparison(found, where, Console())


def _asked(
    recipe: Recipe,
    data: Path | None,
    rows: tuple[str, ...] | None,
    seeds: str | None,
    epochs: int | None,
    jobs: int | None,
    device: str,
    workers: int,
    cache: Path | None,
    weights: Path | None,
    clip: str | None,
    stl: bool | None,
    start: Ray | str,
) -> Asked:
    import torch
    from rich.console import Console

    from equipoise.study.plan import parse_seeds
    from equipoise_papers.reproduce.recipe import Asked, Setting

    if device == "auto":  # on a cluster it is the nodes that have GPUs
        device = "cuda" if (torch.cuda.is_available() if isinstance(start, str) else start.gpus) else "cpu"
    return Asked(
        Setting(
            data=None if data is None else data if recipe.packaged(data) else data.expanduser().resolve(),
            device=device,
            workers=workers,
            cache=None if cache is None else cache.resolve(),
            weights=None if weights is None else weights.resolve(),
            extra={} if clip is None else {"clip": str(Path(clip).resolve()) if Path(clip).exists() else clip},
        ),
        parse_seeds(recipe.seeds if seeds is None else seeds),
        epochs,
        1 if jobs is None and start == "auto" else jobs,
        stl,
        rows,
        Console(stderr=True),
        start,
    )


def _execute(recipe: Recipe, asked: Asked, folder: Path) -> None:
    asked.setting.folder()
    for obstacle in recipe.obstacles():
        typer.echo(f"missing: {obstacle}", err=True)
    for part in recipe.parts:
        if not part.made(asked.rows):
            continue
        if part.pretrained and asked.setting.weights is None:
            typer.echo(f"{part.name}: without --weights the encoder starts from random numbers", err=True)
        try:
            part.execute(asked, folder / part.name)
        except KeyboardInterrupt:
            typer.echo("\nStopped. The same command goes on from here.", err=True)
            raise typer.Exit(130) from None
