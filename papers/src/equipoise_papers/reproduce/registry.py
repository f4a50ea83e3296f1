"""All recipes, and how one is found: those of every file in ``families/``, which are found by scanning the folder."""

from __future__ import annotations

import importlib
import pkgutil
import re

from equipoise.registry import Registry
from equipoise_papers.reproduce import families
from equipoise_papers.reproduce.recipe import Recipe

__all__ = ["find_recipe", "recipes"]


def _scan() -> None:
    for module in pkgutil.iter_modules(families.__path__):
        for recipe in getattr(importlib.import_module(f"{families.__name__}.{module.name}"), "RECIPES", ()):
            _RECIPES.add(recipe.name, recipe)


_RECIPES: Registry[Recipe] = Registry("recipe", fill=_scan, owner=lambda recipe: recipe.source)


def recipes() -> tuple[Recipe, ...]:
    """Every table of the three papers that reports an experiment, paper by paper, in the order of the tables."""
    return tuple(sorted(_RECIPES, key=_order))


def find_recipe(name: str) -> Recipe:
    """One recipe by its name.

    Raises:
        InputError: there is no such recipe.

    Example:
        >>> find_recipe("cost-table1").source
        'COST, Table 1'
    """
    return _RECIPES.find(name)


def _order(recipe: Recipe) -> tuple[str, tuple[int, ...], str]:
    paper, _, table = recipe.name.partition("-table")
    return paper, tuple(int(number) for number in re.findall(r"\d+", table.partition("-")[0])), table
