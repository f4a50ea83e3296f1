"""Sphinx's configuration; ``website/build.py`` calls it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from equipoise.version import __version__

project = "equipoise"
author = "The equipoise authors"
release = version = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "attrs_inline"]
# Commands with quotes over several lines are not what the console lexer expects; they are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["data"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"equipoise {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def _bars(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """A bar in a docstring is an absolute value or a norm, never reStructuredText's substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _bars)
