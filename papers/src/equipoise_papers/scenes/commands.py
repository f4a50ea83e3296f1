"""``equipoise data NAME``: one command for each data set that can be made here; each imports what it needs when called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from equipoise.errors import InputError

__all__ = ["app"]

app = typer.Typer(help="Make a data set.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _data() -> None:
    """Make a data set."""


@app.command("scenes")
def _scenes(
    output: Annotated[Path, typer.Option("--out", "--output", "-o", help="The folder; train and val are made in it.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help="rooms (layout of NYUv2) or streets (of Cityscapes).")] = "rooms",
    images: Annotated[int, typer.Option("--images", "-n", help="Scenes to train on.")] = 200,
    val: Annotated[int | None, typer.Option(help="Scenes in val; a quarter of --images if left out.")] = None,
    test: Annotated[int, typer.Option(help="Scenes in test; 0 for no such folder.")] = 0,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH in pixels; 288x384 for rooms and 128x256 for streets if left out.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Scene i of a seed is always the same.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes that render.")] = 1,
) -> None:
    """Render rooms or streets with exact labels, depth and normals, for the readers of NYUv2 and Cityscapes.

    Started again, it goes on where it was; a larger --images adds scenes.
    """
    import os
    import time

    from equipoise.progress import counter
    from equipoise_papers.scenes import write_scenes

    pixels = read_size(size or ("128x256" if kind == "streets" else "288x384"))
    began, worked = time.perf_counter(), sum(os.times()[:4])
    first: list[int] = []
    with counter("scenes") as count:

        def told(done: int, wanted: int) -> None:
            first.append(done)
            count(done, wanted)

        write_scenes(
            output,
            kind,
            pixels,
            train=images,
            val=max(1, images // 4) if val is None else val,
            test=test,
            seed=seed,
            jobs=jobs,
            told=told,
        )
    made, seconds, worked = first[-1] - first[0], time.perf_counter() - began, sum(os.times()[:4]) - worked
    # Processor time, of all processes: what a scene costs, however busy the machine is.
    rate = f": {made / seconds:.1f} per second, {worked / made:.2f} s of processor time each" if made else ""
    typer.echo(f"{output}: {first[-1]} scenes, {made} of them new{rate}")


def read_size(text: str) -> tuple[int, int]:
    """Height and width from ``"288x384"``.

    Raises:
        InputError: it is not of that form.

    Example:
        >>> read_size("288x384")
        (288, 384)
    """
    found = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip())
    if found is None:
        raise InputError(f'size is "{text}"; expected HEIGHTxWIDTH in pixels, such as 288x384')
    return int(found[1]), int(found[2])
