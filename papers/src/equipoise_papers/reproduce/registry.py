"""All recipes, and how one is found."""

from __future__ import annotations

import functools
import re

from equipoise.errors import InputError, near_misses
from equipoise_papers.reproduce.recipe import Recipe

__all__ = ["find_recipe", "recipes"]


@functools.cache
def recipes() -> tuple[Recipe, ...]:
    """Every table of the three papers that reports an experiment, paper by paper, in the order of the tables."""
    # Imported only now: the networks and readers of all families are not needed to start the command line.
    from equipoise_papers.reproduce.families import celeba, cityscapes, cleaning, normal, nyuv2, office, prompts, qm9, summaries

    families = (cityscapes, nyuv2, celeba, qm9, summaries, cleaning, office, prompts, normal)
    return tuple(sorted((recipe for family in families for recipe in family.RECIPES), key=_order))


def find_recipe(name: str) -> Recipe:
    """One recipe by its name.

    Raises:
        InputError: there is no such recipe.

    Example:
        >>> find_recipe("cost-table1").source
        'COST, Table 1'
    """
    known = {recipe.name: recipe for recipe in recipes()}
    if name not in known:
        raise InputError(f'there is no recipe "{name}".{near_misses(name, known)} Known: {", ".join(known)}')
    return known[name]


def _order(recipe: Recipe) -> tuple[str, tuple[int, ...], str]:
    paper, _, table = recipe.name.partition("-table")
    return paper, tuple(int(number) for number in re.findall(r"\d+", table.partition("-")[0])), table
