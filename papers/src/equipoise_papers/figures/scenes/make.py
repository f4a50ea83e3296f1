"""Renders the scenes, trains if that is asked for, and writes the pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from equipoise.study.files import write_json
from equipoise.study.problem import Problem
from equipoise_papers.figures.folder import made_folder
from equipoise_papers.figures.scenes.picture import Row, picture
from equipoise_papers.figures.scenes.settings import Settings
from equipoise_papers.scenes import make_scene

__all__ = ["make"]

_SIZES = {"rooms": (288, 384), "streets": (192, 384)}


def make(settings: Settings, folder: Path, told: Callable[[str], object], *, problem: Problem | None = None) -> str:
    """Writes ``scenes.png``; with ``settings.predict`` also ``predictions.png`` and ``predictions.json``.

    Args:
        settings: which scenes.
        folder: where to.
        told: takes a line on each thing done.
        problem: rooms to train on for predictions; those of the study by default.

    Returns:
        A line for each file.

    Raises:
        InputError: the folder cannot be made.
    """
    made_folder(folder)
    blocks = []
    for kind, count in (("rooms", settings.rooms), ("streets", settings.streets)):
        blocks.append((kind, [_row(kind, settings.seed, number) for number in range(count)]))
        told(f"{count} {kind} rendered")
    picture(blocks, width=10).savefig(folder / "scenes.png", dpi=90)
    lines = [f"{folder / 'scenes.png'}: image, classes, depth (bright is near) and normals"]
    if settings.predict:
        from equipoise_papers.figures.scenes.predict import predictions

        rows, metrics = predictions(settings, settings.rooms, told, problem)
        picture([("rooms", rows)], width=13).savefig(folder / "predictions.png", dpi=110)
        about = {"method": settings.method, "epochs": settings.epochs, "network": settings.network, "width": settings.width}
        write_json(folder / "predictions.json", about | {"seed": settings.seed, "test": metrics})
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        lines.append(f"{folder / 'predictions.png'}: scenes not trained on; over all of them {numbers}")
    return "\n".join(lines)


def _row(kind: str, seed: int, number: int) -> Row:
    scene = make_scene(kind, _SIZES[kind], seed=seed, number=number)
    return Row(scene.image, [scene.label], [scene.depth], [scene.normal])
