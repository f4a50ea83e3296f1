"""What a recipe would do, in words: ``--dry-run`` and ``--list``."""

from __future__ import annotations

from collections.abc import Iterable

from equipoise.errors import EquipoiseError
from equipoise_papers.reproduce.cost import in_words
from equipoise_papers.reproduce.recipe import Asked, Part, Recipe
from equipoise_papers.reproduce.study_part import StudyPart

__all__ = ["listed", "planned", "total_hours"]


def total_hours(recipe: Recipe, asked: Asked | None = None) -> float:
    """Estimated hours of everything that would be run, one run after the other; the paper's seeds if nothing was asked for."""
    seeds = recipe.seeds if asked is None else len(asked.seeds)
    rows = None if asked is None else asked.rows
    epochs = None if asked is None else asked.epochs
    total = 0.0
    for part in recipe.parts:
        total += sum(part.hours(row, epochs) for row in part.made(rows)) * seeds
        if (part.baselines if asked is None else _alone(part, asked)) and isinstance(part, StudyPart):
            total += part.single_hours(epochs) * part.workload.tasks * seeds
    return total


def planned(recipe: Recipe, asked: Asked) -> Iterable[str]:
    """The plan, line by line."""
    seeds = len(asked.seeds)
    yield f"{recipe.name}: {recipe.title} ({recipe.source})"
    yield f"  data: {recipe.data}"
    yield f"  in: {asked.setting.data if asked.setting.data is not None else 'not given; --data DIR'}"
    for part in recipe.parts:
        made = part.made(asked.rows)
        if not made and asked.rows is not None:
            continue
        yield ""
        yield f"  {part.name}: {part.network}"
        yield f"    {'; '.join(f'{name} {value}' for name, value in part.hyperparameters.items())}"
        if asked.epochs is not None:
            yield f"    epochs changed to {asked.epochs}"
        if asked.setting.data is not None:
            yield f"    data: {_found(part, asked)}"
        if part.pretrained:
            yield f"    ImageNet weights: {asked.setting.weights or 'not given, so random numbers; --weights FILE'}"
        width = max((len(row.name) for row in part.rows), default=0)
        for row in made:
            yield f"    {row.name:<{width}}  {seeds} × {in_words(part.hours(row, asked.epochs)):<8}  {row.method}"
        further = [row for row in part.possible() if row.of and row not in made]
        if further:
            yield "    further, with --rows:"
        for row in further:
            yield f"      {row.name}: {row.method}"
        if _alone(part, asked) and isinstance(part, StudyPart):
            yield f"    single tasks: {seeds} × {part.workload.tasks} × {in_words(part.single_hours(asked.epochs))}"
        for choice in part.open_choices:
            yield f"    – {choice}"
    yield ""
    time = in_words(total_hours(recipe, asked))
    yield f"  about {time} on one modern GPU, one run after the other (estimated from operations, not measured)"
    for obstacle in recipe.obstacles():
        yield f"  missing: {obstacle}"


def listed(recipe: Recipe) -> tuple[str, str, str, str]:
    """Name, what it is, expected time with the paper's seeds, what is missing."""
    lacking = len({row.name for part in recipe.parts for row in part.rows if part.obstacle(row)})
    missing = "; ".join((*recipe.missing, *([f"{lacking} rows"] if lacking else [])))
    return recipe.name, f"{recipe.source}: {recipe.title}", in_words(total_hours(recipe)), missing


def _alone(part: Part, asked: Asked) -> bool:
    return asked.baselines if asked.baselines is not None else part.baselines


def _found(part: Part, asked: Asked) -> str:
    setting = asked.setting.within(part.subfolder)
    assert setting.data is not None
    if not setting.data.is_dir() and str(setting.data) != part.package:
        return f"{setting.data} is not a folder"
    if not isinstance(part, StudyPart):
        return f"{setting.data} is there"
    try:
        part.problem(setting).data(0)
    except EquipoiseError as error:
        return str(error)
    return f"{setting.data} can be read"
