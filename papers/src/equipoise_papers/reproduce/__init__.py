"""Recipes for the tables of the papers: ``equipoise reproduce cost-table1 --data DIR``.

====================  =====================================================================================
``registry.py``       all recipes
``families/``         a file a data set: networks, losses, hyper-parameters, rows
``recipe.py``         what a recipe, a part of it and a row are
``study_part.py``     a part that is a study; ``runs_part.py``: a part with a loop of its own
``cost.py``           the expected time, from counted operations
``plan.py``           what would be done, in words
``compare.py``        the published rows beside ours
``show.py``           lists, smoke tests and comparisons on the terminal
``page.py``           the table of recipes in the guide
====================  =====================================================================================
"""

from equipoise.errors import require

for _module in ("cloudpickle", "jinja2", "matplotlib", "rich"):
    require(_module, "study")

from equipoise_papers.reproduce.recipe import Asked, Part, Recipe, Row, Setting  # noqa: E402
from equipoise_papers.reproduce.registry import find_recipe, recipes  # noqa: E402

__all__ = ["Asked", "Part", "Recipe", "Row", "Setting", "find_recipe", "recipes"]
