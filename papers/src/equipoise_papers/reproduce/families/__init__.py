"""The recipes: a file for each data set has its ``RECIPES``; ``common.py`` has what they share. Nothing lists the files."""
