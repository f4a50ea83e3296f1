"""The site: ``make docs`` assembles its pages from the guide, the registry and the docstrings, and Sphinx renders them."""
