"""Figure 3.1 of the thesis: seconds and memory of a step against T and against p."""

from equipoise_papers.figures.forum_cost.make import make
from equipoise_papers.figures.forum_cost.settings import Settings

__all__ = ["Settings", "make"]
