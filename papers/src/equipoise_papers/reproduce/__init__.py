"""Recipes for the tables of the papers: ``equipoise reproduce cost-table1 --data DIR``.

====================  =====================================================================================
``registry.py``       all recipes
``families/``         one file per data set: networks, losses, hyper-parameters, rows
``recipe.py``         what a recipe, a part of it and a row are
``study_part.py``     a part that is a study; ``runs_part.py``: a part with a loop of its own
``cost.py``           the expected time, from counted operations
``plan.py``           what would be done, in words
``compare.py``        the published rows beside ours
``show.py``           lists, smoke tests and comparisons on the terminal
``page.py``           the table of recipes in the guide
====================  =====================================================================================
"""

from typing import TYPE_CHECKING

from equipoise_papers.lazy import on_demand

if TYPE_CHECKING:
    from equipoise_papers.reproduce.recipe import Asked, Part, Recipe, RecipeRow, Setting
    from equipoise_papers.reproduce.registry import find_recipe, recipes
else:  # the command line imports this package to list its commands, and must not wait for torch
    __getattr__ = on_demand(
        __name__,
        dict.fromkeys(("Asked", "Part", "Recipe", "RecipeRow", "Setting"), "recipe")
        | dict.fromkeys(("find_recipe", "recipes"), "registry"),
    )

__all__ = ["Asked", "Part", "Recipe", "RecipeRow", "Setting", "find_recipe", "recipes"]
