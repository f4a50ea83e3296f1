"""Section 5.5 of the thesis, on ``digits``: NORMAL, hard parameter sharing, and what is left without each of its parts."""

from equipoise_papers.figures.normal_digits.make import make
from equipoise_papers.figures.normal_digits.settings import Settings

__all__ = ["Settings", "make"]
