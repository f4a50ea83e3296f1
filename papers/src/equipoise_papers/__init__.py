"""The laboratory of equipoise: what makes the figures and tables of the papers behind it again.

==================  ==============================================================================================
``figures/``        ``equipoise figure NAME``: one folder per figure
``reproduce/``      ``equipoise reproduce NAME``: a recipe per published table, on the real data
``published/``      the rows of the published tables, to compare with
``applications/``   ``equipoise example NAME``: bilevel problems with several upper objectives
``scenes/``         ``equipoise data scenes``: rendered rooms and streets with exact labels
``problems/``       ``equipoise study scenes``: the scenes as study problems
``samples.py``      small generated folders in the layouts of the public data sets
``prompts.py``      a prompt for several tasks of a model that only answers queries; ``clip.py``: of a CLIP
``toys/``           the two-task problem in the plane, and its Pareto set
==================  ==============================================================================================
"""

from equipoise_papers.version import __version__

__all__ = ["__version__"]
