"""Figure A.1 of the thesis: MOML, MoCo and FORUM on the synthetic problem (A.32)."""

from equipoise_papers.figures.forum_synthetic.make import make
from equipoise_papers.figures.forum_synthetic.settings import Settings

__all__ = ["Settings", "make"]
