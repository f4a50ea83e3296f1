"""Figures 4.1 to 4.4 of the thesis: ASMG and its peers on three problems without gradients."""

from equipoise_papers.figures.asmg.make import make
from equipoise_papers.figures.asmg.settings import Settings

__all__ = ["Settings", "make"]
