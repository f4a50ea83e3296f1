"""The recipes, a file a data set; ``common.py`` has what they share."""
