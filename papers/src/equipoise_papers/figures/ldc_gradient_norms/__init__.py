"""Figures 3 and 7 of the LDC-MTL paper, on ``digits``: what lets the single loop drop the lower level's own solution."""

from equipoise_papers.figures.ldc_gradient_norms.make import make
from equipoise_papers.figures.ldc_gradient_norms.run import Norms, run
from equipoise_papers.figures.ldc_gradient_norms.settings import Settings

__all__ = ["Norms", "Settings", "make", "run"]
